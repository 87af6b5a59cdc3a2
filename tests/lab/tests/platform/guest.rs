//! A small VM for the tests: DHCP and ARP written by hand, TCP by smoltcp as a client.
//!
//! It is not preroot and shares nothing with it: it tries plainly and repeats plainly.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use lab::platform::frame::{self, BROADCAST, Ethernet, Ipv4, Mac, Udp};
use lab::platform::{Platform, Scenario};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

pub(crate) const MAC: Mac = [0x00, 0x0d, 0x3a, 0x11, 0x22, 0x33];
pub(crate) const SECOND_MAC: Mac = [0x00, 0x0d, 0x3a, 0x11, 0x22, 0x44];
pub(crate) const GATEWAY_MAC: Mac = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc];
pub(crate) const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
pub(crate) const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// What a careful client asks for.
pub(crate) const PARAMETERS: &[u8] = &[1, 3, 6, 12, 15, 26, 51, 54, 58, 59, 119, 121, 249, 245];

/// A VM on a platform, with its own time.
pub(crate) struct Guest {
    pub(crate) platform: Platform,
    pub(crate) now: Duration,
    pub(crate) mac: Mac,
}

/// A DHCP message as the server sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) frame_destination: Mac,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    pub(crate) fn yiaddr(&self) -> Ipv4Addr {
        Ipv4Addr::new(
            self.bytes[16],
            self.bytes[17],
            self.bytes[18],
            self.bytes[19],
        )
    }

    /// Joins an option's pieces, in `options`, then `file`, then `sname`.
    pub(crate) fn option(&self, wanted: u8) -> Option<Vec<u8>> {
        let mut found = None;
        let mut overload = 0;
        Self::walk(&self.bytes[240..], |code, value| {
            if code == 52 {
                overload = value[0];
            }
            if code == wanted {
                found.get_or_insert_with(Vec::new).extend_from_slice(value);
            }
        });
        for (bit, range) in [(1, 108..236), (2, 44..108)] {
            if overload & bit != 0 {
                Self::walk(&self.bytes[range], |code, value| {
                    if code == wanted {
                        found.get_or_insert_with(Vec::new).extend_from_slice(value);
                    }
                });
            }
        }
        found
    }

    pub(crate) fn pieces(&self, wanted: u8) -> usize {
        let mut count = 0;
        Self::walk(&self.bytes[240..], |code, _| {
            count += usize::from(code == wanted);
        });
        count
    }

    fn walk(mut area: &[u8], mut each: impl FnMut(u8, &[u8])) {
        loop {
            match area {
                [] | [255, ..] => return,
                [0, rest @ ..] => area = rest,
                [code, length, rest @ ..] => {
                    let (value, rest) = rest.split_at(usize::from(*length));
                    each(*code, value);
                    area = rest;
                }
                [_] => panic!("half an option"),
            }
        }
    }

    pub(crate) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(octets.into())
    }

    pub(crate) fn kind(&self) -> u8 {
        self.option(53).map_or(0, |value| value[0])
    }
}

/// A client's message.
pub(crate) struct Ask {
    pub(crate) xid: u32,
    pub(crate) flags: u16,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) options: Vec<(u8, Vec<u8>)>,
    pub(crate) length: usize,
}

impl Ask {
    pub(crate) fn new(xid: u32, kind: u8) -> Self {
        Self {
            xid,
            flags: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            options: vec![(53, vec![kind])],
            length: 300,
        }
    }

    pub(crate) fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.options.push((code, value.to_vec()));
        self
    }

    pub(crate) fn bytes(&self, mac: Mac) -> Vec<u8> {
        let mut out = vec![1, 1, 6, 0];
        out.extend_from_slice(&self.xid.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&self.ciaddr.octets());
        out.resize(28, 0);
        out.extend_from_slice(&mac);
        out.resize(236, 0);
        out.extend_from_slice(&[99, 130, 83, 99]);
        for (code, value) in &self.options {
            out.extend_from_slice(&[*code, value.len() as u8]);
            out.extend_from_slice(value);
        }
        out.push(255);
        if out.len() < self.length {
            out.resize(self.length, 0);
        }
        out
    }
}

impl Guest {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Self {
            platform: Platform::new(scenario),
            now: Duration::from_secs(1),
            mac: MAC,
        }
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::new(Scenario::named(name).unwrap())
    }

    pub(crate) fn parsed(text: &str) -> Self {
        Self::new(Scenario::parse(text).unwrap())
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.platform.receive(self.now, frame);
    }

    /// Lives until `want` is content with a frame, or for `limit`.
    pub(crate) fn wait<T>(
        &mut self,
        limit: Duration,
        mut want: impl FnMut(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let end = self.now + limit;
        loop {
            while let Some(frame) = self.platform.transmit(self.now) {
                if let Some(wanted) = want(&frame) {
                    return Some(wanted);
                }
            }
            match self.platform.next_deadline(self.now) {
                Some(next) if next <= end => {
                    assert!(next > self.now, "a deadline that does not pass");
                    self.now = next;
                }
                _ => {
                    self.now = end;
                    return None;
                }
            }
        }
    }

    pub(crate) fn send_dhcp(&mut self, ask: &Ask) {
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        let packet = frame::udp(from, to, &ask.bytes(self.mac));
        self.send(&frame::ethernet(BROADCAST, self.mac, frame::IPV4, &packet));
    }

    /// Sends a message from an address that is leased: to one server, or to all.
    pub(crate) fn send_dhcp_from(&mut self, ask: &Ask, from: Ipv4Addr, to: Ipv4Addr) {
        let card = if to.is_broadcast() {
            BROADCAST
        } else {
            GATEWAY_MAC
        };
        let (from, to) = (SocketAddrV4::new(from, 68), SocketAddrV4::new(to, 67));
        let packet = frame::udp(from, to, &ask.bytes(self.mac));
        self.send(&frame::ethernet(card, self.mac, frame::IPV4, &packet));
    }

    /// Waits for the next DHCP message, whatever it is.
    pub(crate) fn dhcp_reply(&mut self, limit: Duration) -> Option<Reply> {
        self.wait(limit, |bytes| {
            let ethernet = Ethernet::parse(bytes)?;
            let packet = Ipv4::parse(ethernet.payload).ok()?;
            assert!(packet.payload_checksum_is_right());
            let datagram = Udp::parse(packet.payload).filter(|udp| udp.destination == 68)?;
            assert_eq!((packet.protocol, datagram.source), (frame::UDP, 67));
            Some(Reply {
                frame_destination: ethernet.destination,
                source: packet.source,
                destination: packet.destination,
                bytes: datagram.payload.to_vec(),
            })
        })
    }

    /// Waits for a message with this transaction and kind, deaf to all else.
    pub(crate) fn dhcp_answer(&mut self, xid: u32, kinds: &[u8], limit: Duration) -> Option<Reply> {
        let end = self.now + limit;
        while self.now < end {
            let reply = self.dhcp_reply(end.saturating_sub(self.now))?;
            let ours = reply.bytes.get(4..8) == Some(&xid.to_be_bytes())
                && reply.bytes.get(28..34) == Some(&self.mac)
                && reply.bytes.len() >= 300
                && reply.bytes.get(240..242) == Some(&[53, 1])
                && kinds.contains(&reply.bytes[242]);
            if ours {
                return Some(reply);
            }
        }
        None
    }

    pub(crate) fn discover(&self, xid: u32) -> Ask {
        let id = [&[1], self.mac.as_slice()].concat();
        Ask::new(xid, 1)
            .with(61, &id)
            .with(57, &1500_u16.to_be_bytes())
            .with(55, PARAMETERS)
    }

    pub(crate) fn request(&self, xid: u32, offer: &Reply) -> Ask {
        let mut ask = self.discover(xid);
        ask.options[0].1 = vec![3];
        ask.with(50, &offer.yiaddr().octets())
            .with(54, &offer.option(54).unwrap())
    }

    /// Gets a lease, repeating itself for a while.
    pub(crate) fn lease(&mut self) -> Option<Reply> {
        for xid in 1..8 {
            self.send_dhcp(&self.discover(xid));
            let Some(offer) = self.dhcp_answer(xid, &[2], Duration::from_secs(2)) else {
                continue;
            };
            self.send_dhcp(&self.request(xid, &offer));
            match self.dhcp_answer(xid, &[5, 6], Duration::from_secs(2)) {
                Some(reply) if reply.kind() == 5 => return Some(reply),
                _ => {}
            }
        }
        None
    }

    /// Asks who has an address; gives who answered.
    pub(crate) fn arp(&mut self, sender: Ipv4Addr, target: Ipv4Addr) -> Option<Mac> {
        let mut message = vec![0, 1, 8, 0, 6, 4, 0, 1];
        message.extend_from_slice(&self.mac);
        message.extend_from_slice(&sender.octets());
        message.extend_from_slice(&[0; 6]);
        message.extend_from_slice(&target.octets());
        self.send(&frame::ethernet(BROADCAST, self.mac, frame::ARP, &message));
        let mac = self.mac;
        self.wait(Duration::from_millis(500), |bytes| {
            let ethernet = Ethernet::parse(bytes).filter(|e| e.ethertype == frame::ARP)?;
            let reply = ethernet.payload;
            assert_eq!((ethernet.destination, &reply[6..8]), (mac, &[0, 2][..]));
            (reply[14..18] == target.octets()).then(|| reply[8..14].try_into().unwrap())
        })
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.platform.complaints().map(str::to_string).collect()
    }

    pub(crate) fn log(&self) -> String {
        self.platform
            .journal()
            .iter()
            .map(|entry| format!("{entry}\n"))
            .collect::<Vec<_>>()
            .concat()
    }
}

#[derive(Default)]
struct Cable {
    inward: VecDeque<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
}

struct Frame(Vec<u8>);
struct Slot<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Cable {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Slot<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Slot<'_>)> {
        let frame = self.inward.pop_front()?;
        Some((Frame(frame), Slot(&mut self.outward)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Slot<'_>> {
        Some(Slot(&mut self.outward))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// The TCP of a guest.
pub(crate) struct Tcp {
    cable: Cable,
    interface: Interface,
    sockets: SocketSet<'static>,
    port: u16,
}

/// How a connection went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Timeout,
    Broken,
}

fn instant(at: Duration) -> Instant {
    Instant::from_micros(at.as_micros() as i64)
}

impl Tcp {
    pub(crate) fn new(guest: &Guest, address: Ipv4Addr, gateway: Ipv4Addr) -> Self {
        let mut cable = Cable::default();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(guest.mac)));
        config.random_seed = 42;
        let mut interface = Interface::new(config, &mut cable, instant(guest.now));
        interface.update_ip_addrs(|list| {
            list.push(IpCidr::new(IpAddress::Ipv4(address), 24))
                .unwrap();
        });
        interface
            .routes_mut()
            .add_default_ipv4_route(gateway)
            .unwrap();
        Self {
            cable,
            interface,
            sockets: SocketSet::new(Vec::new()),
            port: 49152,
        }
    }

    /// Lives until `done` says so, or for `limit`.
    pub(crate) fn live(
        &mut self,
        guest: &mut Guest,
        limit: Duration,
        mut done: impl FnMut(&mut SocketSet<'static>) -> bool,
    ) -> bool {
        let end = guest.now + limit;
        loop {
            self.interface
                .poll(instant(guest.now), &mut self.cable, &mut self.sockets);
            // The application acts between hearing and speaking, so that acknowledgements ride on data.
            let finished = done(&mut self.sockets);
            self.interface
                .poll(instant(guest.now), &mut self.cable, &mut self.sockets);
            while let Some(frame) = self.cable.outward.pop_front() {
                guest.send(&frame);
            }
            if finished {
                return true;
            }
            let mut heard = false;
            while let Some(frame) = guest.platform.transmit(guest.now) {
                self.cable.inward.push_back(frame);
                heard = true;
            }
            if heard {
                continue;
            }
            let own = self
                .interface
                .poll_at(instant(guest.now), &self.sockets)
                .map(|at| {
                    Duration::from_micros(at.total_micros().cast_unsigned())
                        .max(guest.now + Duration::from_micros(1))
                });
            let next = own
                .into_iter()
                .chain(guest.platform.next_deadline(guest.now))
                .min();
            match next {
                Some(next) if next <= end => guest.now = next.max(guest.now),
                _ => {
                    guest.now = end;
                    return false;
                }
            }
        }
    }

    /// Begins to connect.
    pub(crate) fn dial(&mut self, to: Ipv4Addr, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 32 * 1024]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        self.port += 1;
        socket
            .connect(
                self.interface.context(),
                (IpAddress::Ipv4(to), port),
                self.port,
            )
            .unwrap();
        self.sockets.add(socket)
    }

    /// Sends bytes as soon as it can, then collects until `whole` or the end of the connection.
    pub(crate) fn talk(
        &mut self,
        guest: &mut Guest,
        handle: SocketHandle,
        bytes: &[u8],
        limit: Duration,
        mut whole: impl FnMut(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Trouble> {
        let mut unsent = bytes.to_vec();
        let mut answer = Vec::new();
        let mut result = Err(Trouble::Timeout);
        self.live(guest, limit, |sockets| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            if !unsent.is_empty() && socket.may_send() {
                let sent = socket.send_slice(&unsent).unwrap();
                unsent.drain(..sent);
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        answer.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            if whole(&answer) {
                result = Ok(());
                return true;
            }
            match socket.state() {
                tcp::State::Closed => {
                    result = Err(Trouble::Broken);
                    true
                }
                // The server has ended its half: what came is all there is.
                tcp::State::CloseWait => {
                    socket.close();
                    result = if answer.is_empty() {
                        Err(Trouble::Broken)
                    } else {
                        Ok(())
                    };
                    true
                }
                _ => false,
            }
        });
        result.map(|()| answer)
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }
}

/// An answer, out of its framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) closes: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Reads an answer; nothing when more must come (`ended`: when none will).
    pub(crate) fn parse(bytes: &[u8], ended: bool) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let rest = &bytes[end + 4..];
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let mut answer = Self {
            status,
            head,
            body: Vec::new(),
            closes: false,
        };
        answer.closes = answer.header("connection") == Some("close");
        if let Some(length) = answer.header("content-length") {
            answer.body = rest.get(..length.parse().unwrap())?.to_vec();
        } else if answer.header("transfer-encoding") == Some("chunked") {
            let mut rest = rest;
            loop {
                let line = rest.windows(2).position(|window| window == b"\r\n")?;
                let size = std::str::from_utf8(&rest[..line]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                answer
                    .body
                    .extend_from_slice(rest.get(line + 2..line + 2 + size)?);
                rest = rest.get(line + 4 + size..)?;
                if size == 0 {
                    break;
                }
            }
        } else if ended {
            answer.body = rest.to_vec();
        } else {
            return None;
        }
        Some(answer)
    }
}
