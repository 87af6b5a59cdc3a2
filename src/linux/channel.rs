//! Messages between our own processes: connected sockets that keep message boundaries.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, chmod};
use rustix::io::{Errno, Result};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

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
    pub fn pair() -> Result<(Self, Self)> {
        let (one, other) = net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel { socket: one }, Channel { socket: other }))
    }

    /// Connects to the process that has its [`Door`] at `path`; `None` if there is none.
    pub fn connect(path: &CStr) -> Option<Self> {
        let socket = socket(SocketFlags::empty()).ok()?;
        net::connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
        Some(Channel { socket })
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

/// A place where other processes of ours may connect to this one.
#[derive(Debug)]
pub struct Door {
    socket: OwnedFd,
}

impl Door {
    /// Opens a door at `path`, for processes of the same user; `EADDRINUSE` if somebody listens there.
    pub fn open(path: &CStr) -> Result<Self> {
        if Channel::connect(path).is_some() {
            return Err(Errno::ADDRINUSE);
        }
        // What a process that is gone has left there.
        match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Else what stays would look like somebody who listens.
            Err(error) => return Err(error),
        }
        let socket = socket(SocketFlags::NONBLOCK)?;
        net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        chmod(path, Mode::RUSR | Mode::WUSR)?;
        net::listen(&socket, 4)?;
        Ok(Door { socket })
    }

    /// Lets in who waits, without waiting for anybody.
    pub fn accept(&self) -> Option<Channel> {
        let socket = net::accept_with(&self.socket, SocketFlags::CLOEXEC).ok()?;
        Some(Channel { socket })
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket(flags: SocketFlags) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | flags;
    net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::format;

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

    #[test]
    fn door_lets_others_in_is_there_once_and_outlives_its_file() {
        let path = std::env::temp_dir().join(format!("preroot-door-{}", std::process::id()));
        let path = CString::new(path.to_str().unwrap()).unwrap();
        assert!(Channel::connect(&path).is_none());
        let door = Door::open(&path).unwrap();
        assert!(door.accept().is_none());
        assert_eq!(Door::open(&path).map(drop), Err(Errno::ADDRINUSE));
        let visitor = Channel::connect(&path).unwrap();
        // The first was the one that asked whether anybody is here.
        let mut buffer = [0; MAX_MESSAGE];
        let first = door.accept().unwrap();
        assert_eq!(first.receive(&mut buffer), Incoming::Closed);
        let ours = door.accept().unwrap();
        assert!(visitor.send(b"hello"));
        assert_eq!(ours.receive(&mut buffer), Incoming::Message(b"hello"));
        drop(door);
        // The file is still there, and nobody behind it: the next one takes its place.
        assert!(Channel::connect(&path).is_none());
        drop(Door::open(&path).unwrap());
        rustix::fs::unlink(&path).unwrap();
    }
}
