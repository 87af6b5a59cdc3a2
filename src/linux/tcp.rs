//! TCP connections of the kernel's own, for a machine whose network somebody else has configured.
//!
//! Where the kernel has our address it answers our own segments with a reset ([`super::packet`]), so
//! there the conversation is its business. Nothing here touches an interface, an address or a route.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, connect,
    getsockname, recv, send, socket_with, sockopt,
};

use crate::engine::transport::{Connection, Peer, State};

/// Tells the address from which the kernel would speak to `address`; `None` if it knows no way.
///
/// Nothing is sent for it. An address of this very machine is no way: whoever has it is not elsewhere.
pub fn source_to(address: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = open(SocketType::DGRAM).ok()?;
    connect(&socket, &SocketAddrV4::new(address, 80)).ok()?;
    let own: SocketAddrAny = getsockname(&socket).ok()?;
    let own = *SocketAddrV4::try_from(own).ok()?.ip();
    (own != address).then_some(own)
}

/// A connection to each peer.
#[derive(Debug)]
pub struct Sockets {
    sockets: [(Peer, Socket); 2],
}

impl Sockets {
    /// Makes ready for connections; there is none yet.
    pub const fn new() -> Self {
        const NONE: Socket = Socket {
            fd: None,
            state: State::Closed,
            is_full: false,
        };
        Sockets {
            sockets: [(Peer::Wireserver, NONE), (Peer::Imds, NONE)],
        }
    }

    /// Lets the user of the connections act on what has happened.
    pub fn poll(&mut self, user: &mut dyn FnMut(Peer, &mut dyn Connection)) {
        for (peer, socket) in &mut self.sockets {
            socket.look();
            user(*peer, socket);
        }
    }

    /// Gives what is to be waited on.
    pub fn wait_on(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.sockets.iter().filter_map(|(_, socket)| {
            let flags = match socket.state {
                State::Opening => PollFlags::OUT,
                State::Open if socket.is_full => PollFlags::IN | PollFlags::OUT,
                State::Open => PollFlags::IN,
                // The end is always there to be read: waiting for it would spin.
                State::Ending | State::Closed => return None,
            };
            Some(PollFd::new(socket.fd.as_ref()?, flags))
        })
    }
}

impl Default for Sockets {
    fn default() -> Self {
        Self::new()
    }
}

/// One connection.
#[derive(Debug)]
struct Socket {
    fd: Option<OwnedFd>,
    state: State,
    /// Whether the kernel took less than it was given.
    is_full: bool,
}

impl Socket {
    fn try_open(&mut self, address: Ipv4Addr, port: u16) -> Result<()> {
        let socket = open(SocketType::STREAM)?;
        // A request is one segment and wants to leave at once.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        self.state = match connect(&socket, &SocketAddrV4::new(address, port)) {
            Ok(()) => State::Open,
            Err(Errno::INPROGRESS) => State::Opening,
            Err(errno) => return Err(errno),
        };
        self.fd = Some(socket);
        Ok(())
    }

    /// Sees whether a connection that was being opened is open.
    fn look(&mut self) {
        if self.state != State::Opening {
            return;
        }
        let Some(socket) = &self.fd else { return };
        match sockopt::socket_error(socket) {
            // It has a peer once it is open; until then there is no error either.
            Ok(Ok(())) if rustix::net::getpeername(socket).is_ok() => self.state = State::Open,
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => self.abort(),
        }
    }
}

impl Connection for Socket {
    fn open(&mut self, _: Duration, address: Ipv4Addr, port: u16) {
        self.abort();
        // What failed is closed, which the state says.
        let _ = self.try_open(address, port);
    }

    fn state(&self) -> State {
        self.state
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let Some(socket) = self.fd.as_ref().filter(|_| !bytes.is_empty()) else {
            return 0;
        };
        let sent = match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                // What the server said before it broke off may still be read.
                self.state = State::Ending;
                0
            }
        };
        self.is_full = sent < bytes.len();
        sent
    }

    fn receive(&mut self, buffer: &mut [u8]) -> usize {
        let Some(socket) = &self.fd else { return 0 };
        match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) if !buffer.is_empty() => self.state = State::Ending,
            Ok((count, _)) => return count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.abort(),
        }
        0
    }

    fn close(&mut self) {
        // Whoever closes has read all that was to come.
        self.abort();
    }

    fn abort(&mut self) {
        self.fd = None;
        self.state = State::Closed;
        self.is_full = false;
    }
}

fn open(kind: SocketType) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::INET, kind, flags, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::vec::Vec;

    const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

    /// Waits as the program does, then looks at the first connection.
    fn turn(sockets: &mut Sockets, user: &mut dyn FnMut(&mut dyn Connection)) {
        let mut fds: Vec<PollFd<'_>> = sockets.wait_on().collect();
        crate::linux::poll::wait(&mut fds, Some(Duration::from_secs(5))).unwrap();
        drop(fds);
        sockets.poll(&mut |peer, connection| {
            if peer == Peer::Wireserver {
                user(connection);
            }
        });
    }

    #[test]
    fn bytes_go_both_ways_and_the_end_is_seen_after_the_last_of_them() {
        let server = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut connection, _) = server.accept().unwrap();
            let mut request = [0; 7];
            connection.read_exact(&mut request).unwrap();
            connection.write_all(b"answer to ").unwrap();
            connection.write_all(&request).unwrap();
        });
        let mut sockets = Sockets::new();
        let (mut asked, mut answer) = (false, Vec::new());
        sockets.poll(&mut |peer, connection| {
            assert_eq!(connection.state(), State::Closed);
            if peer == Peer::Wireserver {
                connection.open(Duration::ZERO, LOOPBACK, port);
            }
        });
        for _ in 0..100 {
            turn(&mut sockets, &mut |connection| {
                if connection.state() == State::Open && !asked {
                    assert_eq!(connection.send(b"request"), 7);
                    asked = true;
                }
                let mut buffer = [0; 4];
                loop {
                    match connection.receive(&mut buffer) {
                        0 => break,
                        count => answer.extend_from_slice(&buffer[..count]),
                    }
                }
            });
            if sockets.sockets[0].1.state == State::Ending {
                break;
            }
        }
        assert_eq!(answer, b"answer to request");
        assert_eq!(sockets.sockets[0].1.state, State::Ending);
        // What is over is not waited for.
        assert_eq!(sockets.wait_on().count(), 0);
        server.join().unwrap();
    }

    #[test]
    fn a_port_where_nobody_listens_is_closed_again() {
        let server = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        drop(server);
        let mut sockets = Sockets::new();
        sockets.poll(&mut |_, connection| connection.open(Duration::ZERO, LOOPBACK, port));
        let mut state = State::Opening;
        for _ in 0..10 {
            if state == State::Opening {
                turn(&mut sockets, &mut |connection| state = connection.state());
            }
        }
        assert_eq!(state, State::Closed);
    }

    #[test]
    fn the_way_to_oneself_is_none() {
        assert_eq!(source_to(LOOPBACK), None);
        // All of it is this machine's, which answers from its first address.
        assert_eq!(source_to(Ipv4Addr::new(127, 1, 2, 3)), Some(LOOPBACK));
    }

    #[test]
    fn without_a_route_there_is_no_way() {
        // In a namespace of its own, which not everybody may make.
        let alone = std::thread::spawn(|| {
            // SAFETY: only this thread's network changes, and it ends here.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
                .is_ok()
                .then(|| source_to(Ipv4Addr::new(168, 63, 129, 16)))
        });
        if let Some(source) = alone.join().unwrap() {
            assert_eq!(source, None);
        }
    }
}
