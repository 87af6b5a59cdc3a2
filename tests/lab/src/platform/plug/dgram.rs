//! The far end of QEMU's `-netdev dgram`: Unix datagrams, one frame each.
//!
//! For QEMU started with `-netdev dgram,id=n,local.type=unix,local.path=VM,remote.type=unix,remote.path=LAB`, bind a
//! socket to LAB and give VM as the peer.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::{now, wait};
use crate::platform::Platform;

/// Larger than any frame that QEMU's cards send.
const MAX_FRAME: usize = 70_000;

/// Runs the platform on a datagram socket until `stop`.
///
/// The peer may come, go and come back: frames to nobody are lost, as on a cable.
pub fn run(
    platform: &mut Platform,
    socket: &UnixDatagram,
    peer: &Path,
    mut stop: impl FnMut(&Platform) -> bool,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let mut buffer = vec![0; MAX_FRAME];
    while !stop(platform) {
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => platform.receive(now(), &buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while let Some(frame) = platform.transmit(now()) {
            match socket.send_to(&frame, peer) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        ErrorKind::NotFound
                            | ErrorKind::ConnectionRefused
                            | ErrorKind::WouldBlock
                            | ErrorKind::Interrupted
                    ) && error.raw_os_error() != Some(libc::ENOBUFS) =>
                {
                    return Err(error);
                }
                _ => {}
            }
        }
        let deadline = platform.next_deadline(now());
        wait(&[socket.as_fd()], deadline)?;
    }
    Ok(())
}
