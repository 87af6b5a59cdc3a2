//! Messages between our own processes: a pair of connected sockets that keep message boundaries.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The longest message.
pub const MAX_MESSAGE: usize = 2048;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// What is to be had from a channel.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'b> {
    /// A message.
    Message(&'b [u8]),
    /// Nothing yet.
    Nothing,
    /// The other end is closed: its process has ended.
    Closed,
}

impl Channel {
    /// Creates both ends.
    pub fn pair() -> rustix::io::Result<(Self, Self)> {
        let (one, other) = net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel { socket: one }, Channel { socket: other }))
    }

    /// Sends a message, waiting for room; tells whether the other end is still there.
    pub fn send(&self, message: &[u8]) -> bool {
        loop {
            match net::send(&self.socket, message, SendFlags::NOSIGNAL) {
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Takes a message without waiting for one.
    ///
    /// An empty message cannot be told from the end, so none is ever sent.
    pub fn receive<'b>(&self, buffer: &'b mut [u8; MAX_MESSAGE]) -> Incoming<'b> {
        match net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Incoming::Closed,
            Ok((count, _)) => Incoming::Message(buffer.get(..count).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => Incoming::Nothing,
            Err(_) => Incoming::Closed,
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_boundaries_and_the_end_is_seen() {
        let (one, other) = Channel::pair().unwrap();
        let mut buffer = [0; MAX_MESSAGE];
        assert_eq!(other.receive(&mut buffer), Incoming::Nothing);
        assert!(one.send(b"a"));
        assert!(one.send(b"bc"));
        assert_eq!(other.receive(&mut buffer), Incoming::Message(b"a"));
        assert_eq!(other.receive(&mut buffer), Incoming::Message(b"bc"));
        drop(one);
        assert_eq!(other.receive(&mut buffer), Incoming::Closed);
        assert!(!other.send(b"x"));
    }
}
