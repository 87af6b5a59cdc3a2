//! The services' TCP, for one network card: smoltcp as a server, fed with bare IPv4 packets.
//!
//! One stack for each card keeps guests apart that have the same address at different times. Ethernet, ARP and
//! what is not for a service stay outside, in `fabric`.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use super::connection::{Connection, Step};
use super::frame::{Ipv4, Mac};
use super::http::{Door, State};
use super::journal::Entry;
use super::scenario::{IMDS, Port};

/// More connections at once than any agent opens; further ones are refused.
const MAX_CONNECTIONS: usize = 64;
const RECEIVE_BUFFER: usize = 64 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
const MTU: usize = 1500;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A packet's place between smoltcp and the fabric.
#[derive(Default)]
struct Wire {
    inward: VecDeque<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
}

struct Incoming(Vec<u8>);
struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl smoltcp::phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl smoltcp::phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl smoltcp::phy::Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.inward.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outward)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outward))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

struct Served {
    handle: SocketHandle,
    peer: SocketAddrV4,
    local: SocketAddrV4,
    connection: Connection,
    /// What smoltcp had no room for yet.
    unsent: Vec<u8>,
    /// Our half ends once `unsent` is out.
    closing: bool,
    connected: bool,
    half_closed: bool,
}

/// The connections of one network card.
pub(super) struct Stack {
    mac: Mac,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    served: Vec<Served>,
}

fn instant(at: Duration) -> Instant {
    Instant::from_micros(i64::try_from(at.as_micros()).unwrap_or(i64::MAX))
}

impl Stack {
    pub(super) fn new(mac: Mac, now: Duration, wireserver: Ipv4Addr) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        // Differs by card and by time of arrival, and is the same when a test is run again.
        config.random_seed = mac.iter().fold(now.as_micros() as u64, |seed, byte| {
            (seed ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut interface = Interface::new(config, &mut wire, instant(now));
        interface.update_ip_addrs(|addresses| {
            for address in [wireserver, IMDS] {
                // There is room for four; the same address twice needs none.
                let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(address), 32));
            }
        });
        // Guests are on no network of ours; any next hop will do, for there is no link layer here.
        let _ = interface.routes_mut().add_default_ipv4_route(IMDS);
        Self {
            mac,
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            served: Vec::new(),
        }
    }

    /// Which service an address is.
    pub(super) fn door(to: SocketAddrV4, wireserver: Ipv4Addr) -> Option<Door> {
        match to.port() {
            80 if *to.ip() == wireserver => Some(Door::Wireserver),
            32526 if *to.ip() == wireserver => Some(Door::HostPlugin),
            80 if *to.ip() == IMDS => Some(Door::Imds),
            _ => None,
        }
    }

    /// Takes a TCP segment of the guest, in its packet.
    pub(super) fn receive(&mut self, packet: &Ipv4<'_>, state: &State) {
        let Some(header) = packet.payload.first_chunk::<20>() else {
            return;
        };
        let peer = SocketAddrV4::new(packet.source, u16::from_be_bytes([header[0], header[1]]));
        let local = SocketAddrV4::new(
            packet.destination,
            u16::from_be_bytes([header[2], header[3]]),
        );
        if let Some(door) = Self::door(local, state.scenario.dhcp.wireserver) {
            let tcp = &state.scenario.tcp;
            let port = match door {
                Door::Wireserver => tcp.wireserver,
                Door::HostPlugin => tcp.hostplugin,
                Door::Imds => tcp.imds,
            };
            // Where the router says that nobody is there, nobody is.
            if matches!(port, Port::Silent | Port::Unreachable) {
                return;
            }
            if header[13] & (SYN | ACK) == SYN && port != Port::Refused {
                self.listen(peer, local, door, port == Port::Reset);
            }
        }
        self.wire.inward.push_back(packet.packet.to_vec());
    }

    /// Makes a socket that takes the SYN which is about to be delivered.
    fn listen(&mut self, peer: SocketAddrV4, local: SocketAddrV4, door: Door, resets: bool) {
        let known = self
            .served
            .iter()
            .position(|s| s.peer == peer && s.local == local);
        if let Some(index) = known {
            let state = self
                .sockets
                .get::<tcp::Socket<'_>>(self.served[index].handle)
                .state();
            // A repeated SYN belongs to the connection; one from a port used again starts another (RFC 6191).
            if !matches!(state, tcp::State::TimeWait | tcp::State::Closed) {
                return;
            }
            self.remove(index);
        }
        if self.served.len() >= MAX_CONNECTIONS {
            let old = self.served.iter().position(|served| {
                let socket = self.sockets.get::<tcp::Socket<'_>>(served.handle);
                socket.state() == tcp::State::TimeWait
            });
            // With none to spare, the SYN finds no socket and is refused.
            let Some(old) = old else { return };
            self.remove(old);
        }
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; RECEIVE_BUFFER]),
            tcp::SocketBuffer::new(vec![0; SEND_BUFFER]),
        );
        socket.set_nagle_enabled(false);
        let endpoint = IpListenEndpoint {
            addr: Some(IpAddress::Ipv4(*local.ip())),
            port: local.port(),
        };
        if socket.listen(endpoint).is_err() {
            return;
        }
        let handle = self.sockets.add(socket);
        self.served.push(Served {
            handle,
            peer,
            local,
            connection: Connection::new(door, self.mac, SocketAddr::V4(peer), resets),
            unsent: Vec::new(),
            closing: false,
            connected: false,
            half_closed: false,
        });
    }

    fn remove(&mut self, index: usize) {
        let served = self.served.swap_remove(index);
        self.sockets.remove(served.handle);
    }

    /// Does everything that can be done at this moment.
    pub(super) fn advance(&mut self, now: Duration, state: &mut State, journal: &mut Vec<Entry>) {
        loop {
            self.interface
                .poll(instant(now), &mut self.wire, &mut self.sockets);
            let mut progress = false;
            for served in &mut self.served {
                let socket = self.sockets.get_mut(served.handle);
                progress |= served.serve(socket, self.mac, now, state, journal);
            }
            if !progress {
                break;
            }
        }
        for index in (0..self.served.len()).rev() {
            let served = &self.served[index];
            let socket = self.sockets.get::<tcp::Socket<'_>>(served.handle);
            // A reset that is still to be sent leaves a closed socket with its peer's address.
            if socket.state() == tcp::State::Closed && socket.remote_endpoint().is_none() {
                if served.connected {
                    let peer = SocketAddr::V4(served.peer);
                    let how = "ended";
                    journal.push(Entry::Disconnect {
                        at: now,
                        mac: self.mac,
                        peer,
                        how,
                    });
                }
                self.remove(index);
            }
        }
    }

    /// When there will be something to do, with nothing received until then.
    pub(super) fn next_deadline(&mut self, now: Duration) -> Option<Duration> {
        let tcp = self
            .interface
            .poll_at(instant(now), &self.sockets)
            .map(|at| {
                let at = Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0));
                // Everything due was done; what smoltcp still calls due waits for the guest.
                if at <= now {
                    now + Duration::from_millis(1)
                } else {
                    at
                }
            });
        let http = self
            .served
            .iter()
            .filter_map(|served| served.connection.next_deadline());
        tcp.into_iter().chain(http).min()
    }

    /// Takes a packet for the guest.
    pub(super) fn transmit(&mut self) -> Option<Vec<u8>> {
        self.wire.outward.pop_front()
    }
}

impl Served {
    /// Moves bytes between the socket and the connection; says whether anything moved.
    fn serve(
        &mut self,
        socket: &mut tcp::Socket<'_>,
        mac: Mac,
        now: Duration,
        state: &mut State,
        journal: &mut Vec<Entry>,
    ) -> bool {
        let peer = SocketAddr::V4(self.peer);
        let mut progress = false;
        let here = IpEndpoint::new(IpAddress::Ipv4(*self.peer.ip()), self.peer.port());
        if !self.connected && socket.remote_endpoint() == Some(here) && socket.may_send() {
            self.connected = true;
            let local = SocketAddr::V4(self.local);
            journal.push(Entry::Connect {
                at: now,
                mac,
                peer,
                local,
            });
        }
        while socket.can_recv() {
            let received = socket.recv(|bytes| {
                self.connection.receive(bytes);
                (bytes.len(), bytes.len())
            });
            if received.is_ok_and(|count| count > 0) {
                progress = true;
            } else {
                break;
            }
        }
        if self.connected && !self.half_closed && !socket.may_recv() {
            self.half_closed = true;
            self.connection.end();
            progress = true;
        }
        self.connection.advance(now, state, journal);
        while let Some(step) = self.connection.step(now) {
            progress = true;
            match step {
                Step::Send(bytes) => self.unsent.extend_from_slice(&bytes),
                Step::Close => self.closing = true,
                Step::Reset => {
                    socket.abort();
                    journal.push(Entry::Disconnect {
                        at: now,
                        mac,
                        peer,
                        how: "was reset by us",
                    });
                    self.connected = false;
                    return true;
                }
            }
            // The next request, when it is there already, follows the answer to this one.
            self.connection.advance(now, state, journal);
        }
        if !self.unsent.is_empty() && socket.can_send() {
            let sent = socket.send_slice(&self.unsent).unwrap_or(0);
            self.unsent.drain(..sent);
            progress |= sent > 0;
        }
        if self.half_closed && self.connection.is_mute() {
            self.closing = true;
        }
        if self.closing && self.unsent.is_empty() && self.connected {
            self.closing = false;
            // A second close says nothing; only the first is progress.
            progress |= socket.may_send();
            socket.close();
        }
        progress
    }
}
