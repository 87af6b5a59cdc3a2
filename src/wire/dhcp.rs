//! DHCP messages (RFC 2131, 2132, 3396, 3442) and Azure's option 245.
//!
//! The header is smoltcp's; the options are read here, because a lease from Azure is told in
//! options that smoltcp does not know, and because a value may be split (RFC 3396) or lie in the
//! `file` and `sname` fields (option 52). Who says what when is `engine::dhcp`'s business.

mod message;
mod options;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use smoltcp::wire::{
    DhcpPacket, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, UdpPacket,
};

pub use message::{Ask, MAX_FRAME, Message};
use options::{Options, parse_routes, parse_search};

/// The port a DHCP client listens on.
pub const CLIENT_PORT: u16 = 68;
/// The port a DHCP server listens on.
pub const SERVER_PORT: u16 = 67;

const OPTIONS_AT: usize = 240;
const COOKIE: u32 = 0x6382_5363;
/// The longest domain name that we believe.
const MAX_DOMAIN: usize = 64;

mod code {
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const PARAMETERS: u8 = 55;
    pub(super) const MAX_SIZE: u8 = 57;
    pub(super) const T1: u8 = 58;
    pub(super) const T2: u8 = 59;
    pub(super) const CLIENT_ID: u8 = 61;
    pub(super) const SEARCH: u8 = 119;
    pub(super) const ROUTES: u8 = 121;
    pub(super) const WIRESERVER: u8 = 245;
    pub(super) const ROUTES_MS: u8 = 249;
}

/// A message from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The transaction that it belongs to.
    pub xid: u32,
    /// Whom it is for.
    pub mac: [u8; 6],
    /// What it says.
    pub kind: ReplyKind,
    /// The hardware address that sent the frame: the server or the relay next to us.
    pub sender: [u8; 6],
    /// The server identifier; unspecified if it was left out.
    pub server: Ipv4Addr,
    /// The lease that is offered or given; of a refusal, all empty.
    pub lease: Lease,
}

/// The kinds of message that a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// The address can be had.
    Offer,
    /// The address is given.
    Ack,
    /// The address is refused.
    Nak,
}

/// What a lease says.
///
/// It keeps the options as they came, and reads one when somebody asks for what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address of the interface.
    pub address: Ipv4Addr,
    /// Who gave it.
    pub server: Ipv4Addr,
    options: Options,
}

/// A classless route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination network, host bits cleared.
    pub network: Ipv4Addr,
    /// The length of its prefix in bits.
    pub prefix: u8,
    /// The next hop; unspecified means the destination is on the link.
    pub gateway: Ipv4Addr,
}

/// `10.0.0.0/8 via 10.0.0.1`, as `ip route` has it; without `via` on the link.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)?;
        if self.gateway.is_unspecified() {
            return Ok(());
        }
        write!(f, " via {}", self.gateway)
    }
}

/// The address that the WireServer has everywhere but on Azure Stack and classic services.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The address of the instance metadata service.
pub const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

impl Lease {
    /// Returns the length of the subnet's prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.options
            .address(code::MASK)
            .map(Ipv4Addr::to_bits)
            .filter(|mask| mask.leading_ones().saturating_add(mask.trailing_zeros()) >= 32)
            .map_or_else(
                || natural_prefix(self.address),
                |mask| mask.leading_ones() as u8,
            )
    }

    /// Lists the routers of option 3, unicast ones only.
    pub fn routers(&self) -> Vec<Ipv4Addr> {
        self.options.addresses(code::ROUTER)
    }

    /// Lists the routes of option 121, else of option 249; where there are any, routers do not count.
    pub fn routes(&self) -> Vec<Route> {
        [code::ROUTES, code::ROUTES_MS]
            .into_iter()
            .find_map(|code| parse_routes(self.options.value(code)?))
            .unwrap_or_default()
    }

    /// Lists the name servers.
    pub fn dns(&self) -> Vec<Ipv4Addr> {
        self.options.addresses(code::DNS)
    }

    /// Returns the domain name.
    pub fn domain(&self) -> &str {
        // Too long for a domain name: none is better than half a one.
        self.options
            .text(code::DOMAIN)
            .filter(|domain| domain.len() <= MAX_DOMAIN)
            .unwrap_or_default()
    }

    /// Returns the domains to search, separated by blanks.
    pub fn search(&self) -> String {
        self.options
            .value(code::SEARCH)
            .map(parse_search)
            .unwrap_or_default()
    }

    /// Returns the MTU, when the server cares.
    pub fn mtu(&self) -> Option<u16> {
        // RFC 791: every link carries 576; less is a mistake or an attack.
        self.options
            .number(code::MTU)
            .map(u16::from_be_bytes)
            .filter(|&mtu| mtu >= 576)
    }

    /// Returns how long the lease runs; `None` is for ever.
    pub fn duration(&self) -> Option<Duration> {
        self.options.seconds(code::LEASE_TIME)
    }

    /// Returns when to renew it, and when to ask any server, from now; `None` is never.
    pub fn renewal(&self) -> Option<(Duration, Duration)> {
        let whole = self.duration()?;
        // RFC 2131, 4.4.5: T1 is half and T2 seven eighths of the lease unless the server knows better.
        let half = whole.checked_div(2).unwrap_or(whole);
        let most = whole.saturating_sub(whole.checked_div(8).unwrap_or_default());
        let renew = self.options.seconds(code::T1).unwrap_or(half);
        let rebind = self.options.seconds(code::T2).unwrap_or(most);
        Some(if renew < rebind && rebind < whole {
            (renew, rebind)
        } else {
            (half, most)
        })
    }

    /// Tells whether option 245 names a WireServer.
    pub fn names_wireserver(&self) -> bool {
        self.named_wireserver().is_some()
    }

    /// Takes the WireServer address from option 245, else the well-known one.
    pub fn wireserver(&self) -> Ipv4Addr {
        self.named_wireserver().unwrap_or(WIRESERVER)
    }

    fn named_wireserver(&self) -> Option<Ipv4Addr> {
        self.options
            .address(code::WIRESERVER)
            .filter(|&address| is_unicast(address))
    }

    /// Tells whether this is the lease of the primary interface.
    ///
    /// Only the primary interface is given routes to the WireServer and to the metadata service.
    pub fn is_primary(&self) -> bool {
        let wireserver = self.wireserver();
        self.routes().iter().any(|route| {
            route.prefix == 32 && (route.network == wireserver || route.network == IMDS)
        })
    }

    /// Returns the router that packets to `destination` are handed to, `None` if it is on the link
    /// or cannot be reached at all.
    pub fn next_hop(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        let routes = self.routes();
        if routes.is_empty() {
            if in_network(destination, self.address, self.prefix()) {
                return None;
            }
            return self.routers().first().copied();
        }
        let best = routes
            .iter()
            .filter(|route| in_network(destination, route.network, route.prefix))
            .max_by_key(|route| route.prefix)?;
        (best.gateway != Ipv4Addr::UNSPECIFIED).then_some(best.gateway)
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix())
    }
}

/// Tells whether `address` lies in the network of `prefix` bits that `network` lies in.
pub fn in_network(address: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> bool {
    let mask = mask(prefix);
    address.to_bits() & mask == network.to_bits() & mask
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32u32.saturating_sub(u32::from(prefix)))
        .unwrap_or(0)
}

/// Reads a frame, `None` unless it is a well-formed DHCP reply to a client.
///
/// Checksums are the receiver's business: the frame may come from a host that did not fill them in.
// Kept apart: a larger frame costs its caller more than the call.
#[inline(never)]
pub fn parse_frame(frame: &[u8]) -> Option<Reply> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let sender = frame.src_addr().0;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if packet.next_header() != IpProtocol::Udp || packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    let udp = UdpPacket::new_checked(packet.payload()).ok()?;
    if udp.dst_port() != CLIENT_PORT {
        return None;
    }
    parse(udp.payload(), sender)
}

/// Reads the message of a frame that `sender` sent.
pub fn parse(message: &[u8], sender: [u8; 6]) -> Option<Reply> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    if packet.opcode() != smoltcp::wire::DhcpOpCode::Reply
        || packet.hardware_type() != smoltcp::wire::ArpHardware::Ethernet
        || packet.hardware_len() != 6
        || packet.magic_number() != COOKIE
    {
        return None;
    }
    let options = Options::parse(message)?;
    let kind = match options.value(code::KIND)? {
        [2] => ReplyKind::Offer,
        [5] => ReplyKind::Ack,
        [6] => ReplyKind::Nak,
        _ => return None,
    };
    let server = options
        .address(code::SERVER)
        .unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some(Reply {
        xid: packet.transaction_id(),
        mac: packet.client_hardware_address().0,
        kind,
        sender,
        server,
        lease: Lease {
            address: packet.your_ip(),
            server,
            options,
        },
    })
}

/// Tells whether an address can be that of one host.
// Out of line: it has many callers.
#[inline(never)]
pub fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast())
}

/// The prefix that an address had before there were masks.
fn natural_prefix(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::backoff::Random;

    const MAC: [u8; 6] = [0x00, 0x0d, 0x3a, 0x12, 0x34, 0x56];
    const SENDER: [u8; 6] = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc];

    /// A reply as RFC 2131 lays it out, with these options, by hand.
    fn message(options: &[u8]) -> Vec<u8> {
        let mut message = vec_of(240);
        message[0] = 2;
        message[1] = 1;
        message[2] = 6;
        message[4..8].copy_from_slice(&0xdead_beefu32.to_be_bytes());
        message[16..20].copy_from_slice(&[10, 0, 0, 4]);
        message[28..34].copy_from_slice(&MAC);
        message[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        message.extend_from_slice(options);
        message
    }

    fn vec_of(length: usize) -> Vec<u8> {
        std::vec![0; length]
    }

    fn lease(options: &[u8]) -> Lease {
        let mut all = std::vec![53, 1, 5, 54, 4, 168, 63, 129, 16];
        all.extend_from_slice(options);
        all.push(255);
        parse(&message(&all), SENDER).expect("a reply").lease
    }

    /// The values of the lease file among waagent's test data, as options on the wire.
    #[test]
    fn azure_lease_is_read_whole() {
        let lease = lease(&[
            1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 1, 1, 6, 4, 168, 63, 129, 16, 51, 4, 255, 255,
            255, 255, 58, 4, 255, 255, 255, 255, 59, 4, 255, 255, 255, 255, 121, 14, 0, 10, 0, 1,
            1, 32, 168, 63, 129, 16, 10, 0, 1, 1, 245, 4, 168, 63, 129, 16, 15, 3, b'a', b'.',
            b'b',
        ]);
        assert_eq!(
            (lease.address, lease.prefix()),
            (Ipv4Addr::new(10, 0, 0, 4), 24)
        );
        assert!(lease.names_wireserver());
        assert_eq!(lease.wireserver(), WIRESERVER);
        assert_eq!((lease.duration(), lease.renewal()), (None, None));
        assert_eq!(lease.routes().len(), 2);
        assert_eq!(lease.domain(), "a.b");
        assert!(lease.is_primary());
        assert_eq!(lease.next_hop(WIRESERVER), Some(Ipv4Addr::new(10, 0, 1, 1)));
    }

    #[test]
    fn classless_routes_silence_the_router_option() {
        // 10.9.0.0/16 via 10.0.0.9 is the only route: nothing else can be reached.
        let lease = lease(&[
            1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 1, 121, 7, 16, 10, 9, 10, 0, 0, 9,
        ]);
        assert_eq!(
            lease.next_hop(Ipv4Addr::new(10, 9, 1, 1)),
            Some(Ipv4Addr::new(10, 0, 0, 9))
        );
        assert_eq!(lease.next_hop(WIRESERVER), None);
        assert!(!lease.is_primary());
    }

    #[test]
    fn routes_of_microsofts_option_serve_when_121_is_absent() {
        let only_249 = lease(&[249, 5, 0, 10, 0, 0, 7]);
        assert_eq!(
            only_249.next_hop(WIRESERVER),
            Some(Ipv4Addr::new(10, 0, 0, 7))
        );
        let both = lease(&[249, 5, 0, 10, 0, 0, 7, 121, 5, 0, 10, 0, 0, 1]);
        assert_eq!(both.next_hop(WIRESERVER), Some(Ipv4Addr::new(10, 0, 0, 1)));
    }

    #[test]
    fn route_with_gateway_zero_is_on_the_link_and_impossible_gateways_are_dropped() {
        let zero = lease(&[121, 9, 32, 168, 63, 129, 16, 0, 0, 0, 0]);
        assert_eq!(zero.next_hop(WIRESERVER), None);
        assert_eq!(zero.routes().len(), 1);
        for gateway in [[255, 255, 255, 255], [224, 0, 0, 1]] {
            let mut option = std::vec![121, 5, 0];
            option.extend_from_slice(&gateway);
            assert!(lease(&option).routes().is_empty());
        }
    }

    #[test]
    fn malformed_routes_are_refused_whole() {
        for option in [
            &[121, 4, 0, 10, 0, 0][..],
            &[121, 6, 33, 1, 2, 3, 4, 5],
            &[121, 7, 0, 10, 0, 0, 1, 32, 1],
        ] {
            assert!(lease(option).routes().is_empty(), "{option:?}");
        }
    }

    #[test]
    fn host_bits_of_a_destination_are_cleared() {
        let lease = lease(&[121, 8, 20, 172, 16, 31, 10, 0, 0, 1]);
        assert_eq!(lease.routes()[0].network, Ipv4Addr::new(172, 16, 16, 0));
    }

    #[test]
    fn pieces_of_an_option_are_joined() {
        let lease = lease(&[245, 2, 10, 1, 0, 0, 245, 2, 2, 3]);
        assert_eq!(lease.wireserver(), Ipv4Addr::new(10, 1, 2, 3));
    }

    #[test]
    fn overloaded_fields_hold_options_too() {
        let mut bytes = message(&[53, 1, 2, 52, 1, 3, 255]);
        bytes[108..115].copy_from_slice(&[245, 4, 10, 0, 0, 9, 255]);
        bytes[44..51].copy_from_slice(&[54, 4, 10, 0, 0, 8, 255]);
        let reply = parse(&bytes, SENDER).unwrap();
        assert_eq!(reply.lease.wireserver(), Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(reply.server, Ipv4Addr::new(10, 0, 0, 8));
    }

    #[test]
    fn option_245_of_another_length_is_ignored() {
        for option in [
            &[245, 3, 1, 2, 3][..],
            &[245, 5, 1, 2, 3, 4, 5],
            &[245, 4, 0, 0, 0, 0],
        ] {
            assert_eq!(lease(option).wireserver(), WIRESERVER);
        }
    }

    #[test]
    fn mask_with_holes_or_none_gives_the_natural_prefix() {
        assert_eq!(lease(&[1, 4, 255, 0, 255, 0]).prefix(), 8);
        assert_eq!(lease(&[]).prefix(), 8);
        assert_eq!(lease(&[1, 4, 255, 255, 254, 0]).prefix(), 23);
        assert_eq!(lease(&[1, 4, 255, 255, 255, 255]).prefix(), 32);
    }

    #[test]
    fn several_routers_are_kept_in_order() {
        let lease = lease(&[3, 8, 10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(
            lease.routers(),
            [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]
        );
    }

    #[test]
    fn finite_lease_has_times_in_order_whatever_the_server_says() {
        let seconds = |option: &[u8]| {
            let (renew, rebind) = lease(option).renewal().expect("a finite lease");
            (renew.as_secs(), rebind.as_secs())
        };
        assert_eq!(seconds(&[51, 4, 0, 0, 14, 16]), (1800, 3150));
        assert_eq!(
            seconds(&[
                51, 4, 0, 0, 14, 16, 58, 4, 0, 0, 3, 232, 59, 4, 0, 0, 7, 208
            ]),
            (1000, 2000)
        );
        // T2 before T1 is nonsense.
        assert_eq!(
            seconds(&[
                51, 4, 0, 0, 14, 16, 58, 4, 0, 0, 7, 208, 59, 4, 0, 0, 3, 232
            ]),
            (1800, 3150)
        );
    }

    /// RFC 3397, section 2: the example of its own.
    #[test]
    fn search_list_follows_compression_pointers() {
        let list = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
        assert_eq!(parse_search(list), "eng.apple.com marketing.apple.com");
        assert_eq!(parse_search(b"\xc0\x00"), "");
        assert_eq!(parse_search(b"\x03a b\x00"), "");
    }

    #[test]
    fn text_with_control_characters_is_dropped() {
        assert_eq!(lease(&[15, 3, b'a', 10, b'b']).domain(), "");
        assert_eq!(lease(&[15, 4, b'a', b'.', b'b', 0]).domain(), "a.b");
    }

    /// RFC 2131, 4.4.1, and RFC 1542, 2.1: what a DISCOVER looks like on the wire.
    #[test]
    fn discover_is_laid_out_as_the_rfc_says() {
        let mut frame = [0xee; MAX_FRAME];
        let length = Message {
            ask: Ask::Discover,
            mac: MAC,
            xid: 0x0102_0304,
            seconds: 7,
            broadcast: true,
            host_name: Some("web-1.example.com"),
        }
        .emit(&mut frame)
        .unwrap();
        let frame = &frame[..length];
        assert_eq!(
            &frame[..12],
            &[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x0d, 0x3a, 0x12, 0x34, 0x56
            ]
        );
        let message = &frame[42..];
        assert_eq!(message.len(), 300);
        assert_eq!(&message[..12], &[1, 1, 6, 0, 1, 2, 3, 4, 0, 7, 0x80, 0]);
        assert_eq!(
            &message[28..44],
            &[
                0, 0x0d, 0x3a, 0x12, 0x34, 0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
            ]
        );
        assert_eq!(&message[236..243], &[0x63, 0x82, 0x53, 0x63, 53, 1, 1]);
        let has = |option: &[u8]| message.windows(option.len()).any(|window| window == option);
        assert!(
            has(&[12, 5, b'w', b'e', b'b', b'-', b'1']),
            "the label alone"
        );
        assert!(has(&[61, 7, 1, 0x00, 0x0d, 0x3a, 0x12, 0x34, 0x56]));
        assert!(has(&[55, 14, 1, 3, 6]));
        assert!(!has(&[50, 4]) && !has(&[54, 4]));
    }

    /// RFC 2131, 4.3.6: the address is in `ciaddr`, and neither it nor the server is in an option.
    #[test]
    fn renewal_names_its_address_in_the_header_alone() {
        let ask = Ask::Extend {
            address: Ipv4Addr::new(10, 0, 0, 4),
        };
        let message = Message {
            ask,
            mac: MAC,
            xid: 9,
            seconds: 0,
            broadcast: false,
            host_name: Some("web-1"),
        };
        let bytes = message.to_bytes().unwrap();
        assert_eq!(&bytes[12..16], &[10, 0, 0, 4]);
        assert_eq!(&bytes[240..243], &[53, 1, 3]);
        let has = |option: &[u8]| bytes.windows(option.len()).any(|window| window == option);
        assert!(has(&[12, 5, b'w', b'e', b'b', b'-', b'1']));
        assert!(has(&[61, 7, 1, 0x00, 0x0d, 0x3a, 0x12, 0x34, 0x56]));
        assert!(!has(&[50, 4]) && !has(&[54, 4]));
    }

    #[test]
    fn checksums_of_a_frame_are_right() {
        let mut frame = [0; MAX_FRAME];
        let ask = Ask::Request {
            address: Ipv4Addr::new(10, 0, 0, 4),
            server: WIRESERVER,
        };
        let message = Message {
            ask,
            mac: MAC,
            xid: 9,
            seconds: 0,
            broadcast: false,
            host_name: None,
        };
        let length = message.emit(&mut frame).unwrap();
        let frame = EthernetFrame::new_checked(&frame[..length]).unwrap();
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(packet.verify_checksum());
        let udp = UdpPacket::new_checked(packet.payload()).unwrap();
        assert!(udp.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
        assert_ne!(udp.checksum(), 0);
    }

    #[test]
    fn a_host_name_of_any_length_fits() {
        let label = "x".repeat(63);
        let mut frame = [0; MAX_FRAME];
        let message = Message {
            ask: Ask::Request {
                address: Ipv4Addr::BROADCAST,
                server: Ipv4Addr::BROADCAST,
            },
            mac: MAC,
            xid: 0,
            seconds: 0,
            broadcast: false,
            host_name: Some(&label),
        };
        assert!(message.emit(&mut frame).is_some());
    }

    #[test]
    fn what_is_no_reply_to_a_client_is_ignored() {
        let good = message(&[53, 1, 2, 255]);
        assert!(parse(&good, SENDER).is_some());
        for (at, value) in [(0, 1), (1, 6), (2, 16), (236, 0), (242, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(parse(&bad, SENDER), None, "byte {at}");
        }
        for length in 0..240 {
            assert_eq!(parse(&good[..length], SENDER), None);
        }
    }

    #[test]
    fn mutated_replies_never_panic() {
        let good = message(&[
            53, 1, 5, 54, 4, 168, 63, 129, 16, 1, 4, 255, 255, 255, 0, 121, 14, 0, 10, 0, 1, 1, 32,
            168, 63, 129, 16, 10, 0, 1, 1, 119, 6, 3, b'a', b'b', b'c', 0xc0, 0, 52, 1, 3, 255,
        ]);
        let mut random = Random::new(5);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=random.bits() % 6 {
                let at = if random.bits().is_multiple_of(2) {
                    236
                } else {
                    0
                };
                let at = at + random.bits() as usize % (bytes.len() - at);
                bytes[at] = random.bits() as u8;
            }
            bytes.truncate(random.bits() as usize % (bytes.len() + 1));
            if let Some(reply) = parse(&bytes, SENDER) {
                let _ = reply.lease.next_hop(WIRESERVER);
                let _ = reply.lease.is_primary();
            }
        }
    }
}
