//! Two TCP connections over a link with a lease: smoltcp, set up for few round trips.

use core::net::Ipv4Addr;
use core::time::Duration;

use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, Route, SocketHandle, SocketSet, SocketStorage,
};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};

use super::backoff::Random;
use super::link::{Device, FrameBuffers, Link, arp_reply};
use crate::wire::dhcp::{self, Lease};

/// The memory of a transport.
#[derive(Debug)]
pub struct Buffers {
    /// One frame each way.
    pub frames: FrameBuffers,
    /// The receive windows.
    pub receive: [[u8; 16384]; PEERS],
    /// What is sent and not acknowledged.
    pub send: [[u8; 8192]; PEERS],
}

impl Buffers {
    /// Creates empty buffers.
    #[expect(
        clippy::large_stack_arrays,
        reason = "made at build time, for a static"
    )]
    pub const fn new() -> Self {
        Buffers {
            frames: FrameBuffers::new(),
            receive: [[0; 16384]; PEERS],
            send: [[0; 8192]; PEERS],
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// Whom the two connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The WireServer.
    Wireserver,
    /// The instance metadata service.
    Imds,
}

const PEERS: usize = 2;

/// The memory of the set of sockets.
pub type Storage = [SocketStorage<'static>; PEERS];

/// The state of a connection, as far as its user cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is none: never opened, refused, reset, or ended by both sides.
    Closed,
    /// Waiting for the server.
    Opening,
    /// Both sides may send.
    Open,
    /// The server has ended its side; what it sent before may still be read.
    Ending,
}

/// A connection to one server.
pub trait Connection {
    /// Opens a connection, dropping an earlier one.
    fn open(&mut self, now: Duration, address: Ipv4Addr, port: u16);
    /// Tells how it stands.
    fn state(&self) -> State;
    /// Hands bytes over to be sent and returns how many were taken.
    fn send(&mut self, bytes: &[u8]) -> usize;
    /// Takes bytes that have arrived.
    fn receive(&mut self, buffer: &mut [u8]) -> usize;
    /// Ends our side in good order.
    fn close(&mut self);
    /// Drops the connection at once.
    fn abort(&mut self);
}

/// An interface with a lease.
pub struct Transport<'b, L> {
    device: Device<'b, L>,
    interface: Interface,
    sockets: SocketSet<'b>,
    handles: [(Peer, SocketHandle); PEERS],
    random: Random,
}

impl<'b, L: Link> Transport<'b, L> {
    /// Sets an interface up as its lease says.
    ///
    /// `neighbour` is the router's hardware address, if it is known: that saves a round trip.
    pub fn new(
        link: L,
        lease: &Lease,
        neighbour: Option<([u8; 6], Ipv4Addr)>,
        mut random: Random,
        now: Duration,
        buffers: &'b mut Buffers,
        storage: &'b mut [SocketStorage<'b>; PEERS],
    ) -> Self {
        let mac = link.mac();
        let mut device = Device::new(link, lease.address, &mut buffers.frames);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = u64::from(random.bits()) << 32 | u64::from(random.bits());
        let mut interface = Interface::new(config, &mut device, instant(now));
        interface.update_ip_addrs(|addresses| {
            // There is room for one address, and this is the first.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(lease.address, lease.prefix())));
        });
        interface.routes_mut().update(|routes| {
            // Only two hosts are ever spoken to: they need no more than a route each.
            for host in [lease.wireserver(), dhcp::IMDS] {
                if let Some(gateway) = lease.next_hop(host)
                    && dhcp::is_unicast(gateway)
                {
                    let _ = routes.push(Route {
                        cidr: IpCidr::Ipv4(Ipv4Cidr::new(host, 32)),
                        via_router: gateway.into(),
                        preferred_until: None,
                        expires_at: None,
                    });
                }
            }
        });
        if let Some(neighbour) = neighbour {
            device.inject(arp_reply(neighbour, mac, lease.address));
        }
        let mut sockets = SocketSet::new(&mut storage[..]);
        let mut add = |peer, receive: &'b mut [u8; 16384], send: &'b mut [u8; 8192]| {
            let mut socket = tcp::Socket::new(
                tcp::SocketBuffer::new(&mut receive[..]),
                tcp::SocketBuffer::new(&mut send[..]),
            );
            // A request is one segment and wants to leave at once; an acknowledgement that waits for
            // more to say costs a round trip with a server that waits for it.
            socket.set_nagle_enabled(false);
            socket.set_ack_delay(None);
            (peer, sockets.add(socket))
        };
        let [receive, more_receive] = &mut buffers.receive;
        let [send, more_send] = &mut buffers.send;
        let handles = [
            add(Peer::Wireserver, receive, send),
            add(Peer::Imds, more_receive, more_send),
        ];
        let mut transport = Transport {
            device,
            interface,
            sockets,
            handles,
            random,
        };
        // Takes the injected reply in, before anything is to be sent.
        transport.poll(now, &mut |_, _| {});
        transport
    }

    /// Takes in what has arrived, lets the user of the connections act on it, and sends what is due:
    /// in this order, an acknowledgement and the next request share a frame.
    pub fn poll(&mut self, now: Duration, user: &mut dyn FnMut(Peer, &mut dyn Connection)) {
        let now = instant(now);
        // A flood of frames must not keep the loop from its other events.
        for _ in 0..256 {
            let result =
                self.interface
                    .poll_ingress_single(now, &mut self.device, &mut self.sockets);
            if matches!(result, PollIngressSingleResult::None) {
                break;
            }
        }
        for (peer, socket) in self.handles {
            user(
                peer,
                &mut Handle {
                    transport: self,
                    socket,
                },
            );
        }
        self.interface.poll_maintenance(now);
        self.interface
            .poll_egress(now, &mut self.device, &mut self.sockets);
    }

    /// Returns when [`Transport::poll`] has something to do even if no frame arrives.
    pub fn due(&mut self, now: Duration) -> Option<Duration> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(Duration::from_micros(
            at.total_micros().try_into().unwrap_or(0),
        ))
    }

    /// Returns the link.
    pub fn link(&self) -> &L {
        self.device.link()
    }

    /// Returns how many frames were dropped for a wrong checksum.
    pub fn damaged(&self) -> u32 {
        self.device.damaged()
    }
}

/// One connection of a transport.
struct Handle<'t, 'b, L> {
    transport: &'t mut Transport<'b, L>,
    socket: SocketHandle,
}

impl<'b, L: Link> Handle<'_, 'b, L> {
    fn socket(&mut self) -> &mut tcp::Socket<'b> {
        self.transport.sockets.get_mut(self.socket)
    }
}

impl<L: Link> Connection for Handle<'_, '_, L> {
    fn open(&mut self, _: Duration, address: Ipv4Addr, port: u16) {
        let transport = &mut *self.transport;
        let local = 49152u16.saturating_add((transport.random.bits() % 16384) as u16);
        let socket: &mut tcp::Socket<'_> = transport.sockets.get_mut(self.socket);
        socket.abort();
        // It can only fail for an address or a port of zero, or without an own address: then there
        // is no connection, which is what the state will say.
        let _ = socket.connect(transport.interface.context(), (address, port), local);
    }

    fn state(&self) -> State {
        let socket: &tcp::Socket<'_> = self.transport.sockets.get(self.socket);
        match socket.state() {
            tcp::State::SynSent | tcp::State::SynReceived => State::Opening,
            tcp::State::Established => State::Open,
            // Whichever side has ended first, the server's last words may still come.
            tcp::State::CloseWait
            | tcp::State::LastAck
            | tcp::State::FinWait1
            | tcp::State::FinWait2 => State::Ending,
            _ if socket.can_recv() => State::Ending,
            _ => State::Closed,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        self.socket().send_slice(bytes).unwrap_or(0)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> usize {
        self.socket().recv_slice(buffer).unwrap_or(0)
    }

    fn close(&mut self) {
        self.socket().close();
    }

    fn abort(&mut self) {
        self.socket().abort();
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
