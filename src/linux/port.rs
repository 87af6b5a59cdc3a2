//! An interface as the engine sees it: a name, a hardware address, frames.

use heapless::String;
use rustix::fd::{AsFd, BorrowedFd};

use super::packet::PacketSocket;
use crate::engine::link::{Link, Received};

/// An interface with its socket.
#[derive(Debug)]
pub struct Port {
    /// The kernel's number of the interface.
    pub index: u32,
    /// Its name.
    pub name: String<16>,
    mac: [u8; 6],
    socket: PacketSocket,
}

impl Port {
    /// Opens the interface with number `index`.
    pub fn open(index: u32, name: String<16>, mac: [u8; 6]) -> rustix::io::Result<Self> {
        Ok(Port {
            index,
            name,
            mac,
            socket: PacketSocket::open(index)?,
        })
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Link for Port {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn send(&mut self, frame: &[u8]) {
        // A frame that cannot be sent is a lost frame: the link may be down just now.
        let _ = self.socket.send(frame);
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<Received> {
        loop {
            match self.socket.receive(buffer) {
                // Cut frames are lost frames.
                Ok(Some(frame)) if !frame.whole => {}
                Ok(Some(frame)) => {
                    return Some(Received {
                        length: frame.len,
                        trusted: frame.checksum_ready,
                    });
                }
                // An error such as "network is down" is reported once and cleared by this call.
                Ok(None) | Err(_) => return None,
            }
        }
    }
}
