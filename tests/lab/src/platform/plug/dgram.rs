//! The far end of QEMU's `-netdev dgram`: Unix datagrams, one frame each.
//!
//! For QEMU started with `-netdev dgram,id=n,local.type=unix,local.path=VM,remote.type=unix,remote.path=LAB`, bind a
//! socket to LAB and give VM as the peer.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::{now, wait};
use crate::platform::Platform;
use crate::platform::frame::Mac;

/// Larger than any frame that QEMU's cards send.
const MAX_FRAME: usize = 70_000;

/// What the type of an IPv4 frame is.
const IPV4: [u8; 2] = [0x08, 0x00];

/// A host on the Internet whose frames come and go on a socket of their own.
///
/// The fabric is between it and the VM: each knows the gateway's hardware address and not the other's.
pub struct Guest<'a> {
    /// The socket, one frame a datagram.
    pub socket: &'a UnixDatagram,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// The guest's hardware address.
    pub mac: Mac,
    /// The VM's hardware address.
    pub vm: Mac,
    /// The gateway's.
    pub gateway: Mac,
}

impl Guest<'_> {
    /// Takes a frame that is for the guest.
    fn takes(&self, frame: &mut [u8]) -> io::Result<bool> {
        if frame.get(12..14) != Some(&IPV4) || frame.get(30..34) != Some(&self.address.octets()) {
            return Ok(false);
        }
        frame[..6].copy_from_slice(&self.mac);
        frame[6..12].copy_from_slice(&self.gateway);
        lossy(self.socket.send(frame))?;
        Ok(true)
    }

    /// Gives the next frame of the guest's for the VM.
    fn gives(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.socket.recv(buffer) {
                Ok(length) if buffer[..length].get(12..14) == Some(&IPV4) => {
                    buffer[..6].copy_from_slice(&self.vm);
                    buffer[6..12].copy_from_slice(&self.gateway);
                    return Ok(Some(length));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes a frame that nobody was there for as lost, as on a cable.
fn lossy(sent: io::Result<usize>) -> io::Result<()> {
    match sent {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::NotFound
                    | ErrorKind::ConnectionRefused
                    | ErrorKind::WouldBlock
                    | ErrorKind::Interrupted
            ) && error.raw_os_error() != Some(libc::ENOBUFS) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Runs the platform on a datagram socket until `stop`.
///
/// The peer may come, go and come back: frames to nobody are lost, as on a cable.
pub fn run(
    platform: &mut Platform,
    socket: &UnixDatagram,
    peer: &Path,
    guest: Option<&Guest<'_>>,
    mut stop: impl FnMut(&Platform) -> bool,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if let Some(guest) = guest {
        guest.socket.set_nonblocking(true)?;
    }
    let mut buffer = vec![0; MAX_FRAME];
    while !stop(platform) {
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let frame = &mut buffer[..length];
                    let is_taken = guest.map_or(Ok(false), |guest| guest.takes(frame))?;
                    if !is_taken {
                        platform.receive(now(), frame);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while let Some(frame) = platform.transmit(now()) {
            lossy(socket.send_to(&frame, peer))?;
        }
        let mut awaited = vec![socket.as_fd()];
        if let Some(guest) = guest {
            while let Some(length) = guest.gives(&mut buffer)? {
                lossy(socket.send_to(&buffer[..length], peer))?;
            }
            awaited.push(guest.socket.as_fd());
        }
        let deadline = platform.next_deadline(now());
        wait(&awaited, deadline)?;
    }
    Ok(())
}
