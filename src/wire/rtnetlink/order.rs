//! What is asked of the kernel: a list of the interfaces, and orders about one.
//!
//! Each order is to be acknowledged. What is added and there already is refused with `EEXIST`; only an
//! address is taken again, for its new lifetime.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use super::{
    HEADER, IFF_UP, IFLA_EXT_MASK, IFLA_MTU, LINK, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL,
    NLM_F_REPLACE, NLM_F_REQUEST, RTEXT_FILTER_SKIP_STATS, RTM_DELADDR, RTM_DELROUTE, RTM_GETLINK,
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE,
};
use crate::wire::dhcp::Route;

const AF_INET: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_DHCP: u8 = 16;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// A request, as it is sent.
pub type Bytes = Vec<u8>;

/// Asks for the state of every interface.
pub fn list_links(sequence: u32) -> Bytes {
    let mut body = alloc::vec![0; LINK];
    attribute(
        &mut body,
        IFLA_EXT_MASK,
        &RTEXT_FILTER_SKIP_STATS.to_ne_bytes(),
    );
    request(RTM_GETLINK, NLM_F_DUMP, sequence, &body)
}

/// Orders an interface to be switched on or off, and nothing else of it.
pub fn switch_link(sequence: u32, index: u32, up: bool) -> Bytes {
    let flags = if up { IFF_UP } else { 0 };
    // Behind the flags, which of them are meant.
    let body = [0, index, flags, IFF_UP].map(u32::to_ne_bytes);
    request(RTM_NEWLINK, NLM_F_ACK, sequence, body.as_flattened())
}

/// Orders an address to be added to an interface, for so many seconds (all ones: for ever), or to be
/// taken away.
///
/// The route to its subnet comes and goes with it, and so do those of [`route`].
pub fn address(
    sequence: u32,
    index: u32,
    (address, prefix): (Ipv4Addr, u8),
    seconds: Option<u32>,
) -> Bytes {
    let [a, b, c, d] = index.to_ne_bytes();
    let mut body = [AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, a, b, c, d].to_vec();
    attribute(&mut body, IFA_LOCAL, &address.octets());
    // A subnet of two, or of one, has none (RFC 3021); what is taken away is known without it.
    if prefix < 31 && seconds.is_some() {
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let broadcast = address.to_bits() | hosts;
        attribute(&mut body, IFA_BROADCAST, &broadcast.to_be_bytes());
    }
    attribute(&mut body, IFA_ADDRESS, &address.octets());
    let Some(seconds) = seconds else {
        return request(RTM_DELADDR, NLM_F_ACK, sequence, &body);
    };
    // Preferred and valid; the kernel fills in when it was made and changed.
    let [a, b, c, d] = seconds.to_ne_bytes();
    let lifetimes = [a, b, c, d, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0];
    attribute(&mut body, IFA_CACHEINFO, &lifetimes);
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    request(RTM_NEWADDR, flags, sequence, &body)
}

/// Orders a route to be added, for packets from this address, or to be taken away.
pub fn route(sequence: u32, index: u32, route: &Route, source: Ipv4Addr, add: bool) -> Bytes {
    let scope = if route.gateway.is_unspecified() {
        RT_SCOPE_LINK
    } else {
        RT_SCOPE_UNIVERSE
    };
    let mut body = [
        AF_INET,
        route.prefix,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_DHCP,
        scope,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ]
    .to_vec();
    attribute(&mut body, RTA_DST, &route.network.octets());
    if !route.gateway.is_unspecified() {
        attribute(&mut body, RTA_GATEWAY, &route.gateway.octets());
    }
    attribute(&mut body, RTA_PREFSRC, &source.octets());
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    let (kind, flags) = if add {
        (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)
    } else {
        (RTM_DELROUTE, 0)
    };
    request(kind, NLM_F_ACK | flags, sequence, &body)
}

/// Orders an interface to take packets of this size.
pub fn mtu(sequence: u32, index: u32, mtu: u16) -> Bytes {
    let mut body = [0, index, 0, 0]
        .map(u32::to_ne_bytes)
        .as_flattened()
        .to_vec();
    attribute(&mut body, IFLA_MTU, &u32::from(mtu).to_ne_bytes());
    request(RTM_NEWLINK, NLM_F_ACK, sequence, &body)
}

/// Adds an attribute; all of ours are multiples of four long.
fn attribute(body: &mut Bytes, kind: u16, value: &[u8]) {
    let length = value.len().saturating_add(4) as u16;
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
}

/// Puts the header in front of what its kind has behind it.
fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Bytes {
    let length = body.len().saturating_add(HEADER) as u32;
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &(NLM_F_REQUEST | flags).to_ne_bytes(),
        &sequence.to_ne_bytes(),
        // The kernel knows from whom it comes.
        &[0; 4],
        body,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 4), 24);

    // The orders of iproute2 6.1, as strace shows them, but for the sequence number.
    // length, type, flags, sequence, port | head | attributes

    /// `ip address replace 10.0.0.4/24 broadcast 10.0.0.255 valid_lft 60 preferred_lft 60 dev vm0`
    #[test]
    #[rustfmt::skip]
    fn address_is_laid_out_as_the_kernel_reads_it() {
        let add = [
            68, 0, 0, 0, 20, 0, 5, 5, 7, 0, 0, 0, 0, 0, 0, 0,
            2, 24, 0, 0, 3, 0, 0, 0,
            8, 0, 2, 0, 10, 0, 0, 4, 8, 0, 4, 0, 10, 0, 0, 255, 8, 0, 1, 0, 10, 0, 0, 4,
            20, 0, 6, 0, 60, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(address(7, 3, ADDRESS, Some(60)), add);
        // `ip address del 10.0.0.4/24 dev vm0`
        let delete = [
            40, 0, 0, 0, 21, 0, 5, 0, 8, 0, 0, 0, 0, 0, 0, 0,
            2, 24, 0, 0, 3, 0, 0, 0,
            8, 0, 2, 0, 10, 0, 0, 4, 8, 0, 1, 0, 10, 0, 0, 4,
        ];
        assert_eq!(address(8, 3, ADDRESS, None), delete);
    }

    #[test]
    fn broadcast_is_the_last_of_a_subnet_that_has_room_for_one() {
        let broadcast = |octets: [u8; 4], prefix| {
            let order = address(1, 1, (octets.into(), prefix), Some(u32::MAX));
            (order.len() == 68).then(|| <[u8; 4]>::try_from(&order[36..40]).unwrap())
        };
        assert_eq!(broadcast([10, 1, 2, 3], 20), Some([10, 1, 15, 255]));
        assert_eq!(broadcast([10, 1, 2, 3], 30), Some([10, 1, 2, 3]));
        assert_eq!(broadcast([10, 1, 2, 3], 0), Some([255; 4]));
        assert_eq!(broadcast([10, 1, 2, 3], 31), None);
        assert_eq!(broadcast([10, 1, 2, 3], 32), None);
    }

    /// `ip route add 10.9.0.0/16 via 10.0.0.1 dev vm0 src 10.0.0.4 proto dhcp`
    #[test]
    #[rustfmt::skip]
    fn route_is_laid_out_as_the_kernel_reads_it() {
        let through = Route {
            network: Ipv4Addr::new(10, 9, 0, 0), prefix: 16, gateway: Ipv4Addr::new(10, 0, 0, 1),
        };
        let add = [
            60, 0, 0, 0, 24, 0, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0,
            2, 16, 0, 0, 254, 16, 0, 1, 0, 0, 0, 0,
            8, 0, 1, 0, 10, 9, 0, 0, 8, 0, 5, 0, 10, 0, 0, 1, 8, 0, 7, 0, 10, 0, 0, 4,
            8, 0, 4, 0, 3, 0, 0, 0,
        ];
        assert_eq!(route(7, 3, &through, ADDRESS.0, true), add);
        let order = route(7, 3, &through, ADDRESS.0, false);
        assert_eq!(order[4..8], [25, 0, 5, 0]);
        assert_eq!(order[8..], add[8..]);
    }

    #[test]
    fn route_on_the_link_has_its_scope_and_no_gateway() {
        let direct = Route {
            network: Ipv4Addr::new(10, 0, 0, 1),
            prefix: 32,
            gateway: Ipv4Addr::UNSPECIFIED,
        };
        let order = route(7, 3, &direct, ADDRESS.0, true);
        assert_eq!(order.len(), 52);
        assert_eq!(order[22], 253);
    }

    /// `ip link set vm0 mtu 1400`
    #[test]
    #[rustfmt::skip]
    fn size_is_laid_out_as_the_kernel_reads_it() {
        let set = [
            40, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            8, 0, 4, 0, 120, 5, 0, 0,
        ];
        assert_eq!(mtu(7, 3, 1400), set);
    }
}
