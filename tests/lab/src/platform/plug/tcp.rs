//! The services on plain TCP sockets, where something else (dnsmasq, Kea, a kernel) does DHCP and ARP.
//!
//! Frames are not simulated: latency, losses and the `tcp.*` keys of the scenario have no effect, and all
//! connections count as the primary card's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{now, wait};
use crate::platform::Platform;
use crate::platform::connection::{Connection, Step};
use crate::platform::http::Door;
use crate::platform::journal::Entry;

struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    connection: Connection,
    unsent: Vec<u8>,
    ended: bool,
    closing: bool,
    done: bool,
}

/// Serves on these listeners until `stop`.
pub fn run(
    platform: &mut Platform,
    listeners: &[(TcpListener, Door)],
    mut stop: impl FnMut(&Platform) -> bool,
) -> io::Result<()> {
    for (listener, _) in listeners {
        listener.set_nonblocking(true)?;
    }
    let mut clients: Vec<Client> = Vec::new();
    while !stop(platform) {
        for (listener, door) in listeners {
            while let Ok((stream, peer)) = listener.accept() {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                let (_, journal) = platform.services();
                journal.push(Entry::Connect {
                    at: now(),
                    mac: [0; 6],
                    peer,
                    local,
                });
                clients.push(Client {
                    stream,
                    peer,
                    connection: Connection::new(*door, [0; 6], peer, false),
                    unsent: Vec::new(),
                    ended: false,
                    closing: false,
                    done: false,
                });
            }
        }
        for client in &mut clients {
            client.serve(platform);
        }
        clients.retain(|client| !client.done);
        let deadline = clients
            .iter()
            .filter_map(|client| client.connection.next_deadline())
            .min();
        // What the peer does not take yet is offered again soon; waiting for room needs another kind of wait.
        let stuck = clients.iter().any(|client| !client.unsent.is_empty());
        let deadline = if stuck {
            Some(now() + Duration::from_millis(1))
        } else {
            deadline
        };
        let descriptors: Vec<BorrowedFd<'_>> = listeners
            .iter()
            .map(|(listener, _)| listener.as_fd())
            // A stream that has ended is always readable.
            .chain(
                clients
                    .iter()
                    .filter(|client| !client.ended)
                    .map(|client| client.stream.as_fd()),
            )
            .collect();
        wait(&descriptors, deadline)?;
    }
    Ok(())
}

impl Client {
    fn serve(&mut self, platform: &mut Platform) {
        let at = now();
        let mut buffer = [0; 16 * 1024];
        while !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    self.connection.end();
                }
                Ok(length) => self.connection.receive(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.finish(platform, "was reset by the client"),
            }
        }
        let (state, journal) = platform.services();
        self.connection.advance(at, state, journal);
        while let Some(step) = self.connection.step(at) {
            match step {
                Step::Send(bytes) => self.unsent.extend_from_slice(&bytes),
                Step::Close => self.closing = true,
                Step::Reset => {
                    reset(&self.stream);
                    return self.finish(platform, "was reset by us");
                }
            }
            self.connection.advance(at, state, journal);
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.finish(platform, "was reset by the client"),
            }
        }
        if self.closing || self.ended && self.connection.is_mute() {
            self.finish(platform, "ended");
        }
    }

    fn finish(&mut self, platform: &mut Platform, how: &'static str) {
        let (_, journal) = platform.services();
        journal.push(Entry::Disconnect {
            at: now(),
            mac: [0; 6],
            peer: self.peer,
            how,
        });
        self.done = true;
    }
}

/// Makes the kernel send RST when the stream is dropped.
fn reset(stream: &TcpStream) {
    let at_once = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    // Without it the client sees an orderly end, which is a milder fault than the one asked for.
    let _ = at_once;
}
