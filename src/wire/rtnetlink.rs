//! rtnetlink messages: what the kernel says of its interfaces, and the few things we ask of it.
//!
//! Not a netlink library: no attribute that nobody here reads or sets. Follows rtnetlink(7),
//! `linux/if_link.h`, `linux/if_addr.h` and `linux/rtnetlink.h`. Numbers are in the machine's own byte order. The kernel is
//! trusted to mean well, but not to be the only one that can write to a socket, so every length is
//! checked.

mod order;

use core::fmt;

pub use order::{Bytes, address, list_links, mtu, route, switch_link};

const HEADER: usize = 16; // struct nlmsghdr
const LINK: usize = 16; // struct ifinfomsg
const ATTRIBUTE: usize = 4; // struct rtattr

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_DUMP_INTR: u16 = 0x010;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_CARRIER: u16 = 33;
/// The upper two bits of an attribute's type are flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// Leaves the counters out, which are half of each message.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

const AF_UNSPEC: u8 = 0;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;

/// What the kernel says of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent facts of the kernel's"
)]
pub struct LinkState {
    /// Its number, which stays when it is renamed.
    pub index: u32,
    /// Its name now; empty if it is not UTF-8.
    pub name: heapless::String<16>,
    /// Its Ethernet address; zero if it is not an Ethernet interface.
    pub mac: [u8; 6],
    /// Whether it is an Ethernet interface with an address.
    pub ethernet: bool,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it has a carrier; never while it is off, when nobody knows.
    pub carrier: bool,
    /// Whether it is gone.
    pub removed: bool,
}

/// One message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The state of an interface, new or asked for.
    Link {
        /// What is said.
        state: LinkState,
        /// Whether the list this belongs to changed while it was written.
        interrupted: bool,
    },
    /// The end of a list.
    Done {
        /// Why the list ended early; 0 if it did not.
        errno: u16,
        /// Whether the list changed while it was written: something may be missing.
        interrupted: bool,
    },
    /// The answer to the request with this number.
    Answer {
        /// The number that the request carried.
        sequence: u32,
        /// Why it was refused; 0 if it was done.
        errno: u16,
    },
    /// Something else, of no concern here.
    Other,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They end before the message does.
    Cut,
    /// A length inside contradicts the one around it.
    Malformed,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "the kernel's message about a network interface is cut short",
            Self::Malformed => "the kernel's message about a network interface makes no sense",
        })
    }
}

/// Takes the first message off `bytes`; `None` at their end. After a fault `bytes` is empty.
pub fn take_message(bytes: &mut &[u8]) -> Result<Option<Message>, Fault> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let all = core::mem::take(bytes);
    let length = u32_at(all, 0).ok_or(Fault::Cut)? as usize;
    if length < HEADER {
        return Err(Fault::Malformed);
    }
    let message = all.get(..length).ok_or(Fault::Cut)?;
    let read = parse(message);
    if read.is_ok() {
        // The padding behind the last message may be missing.
        *bytes = all.get(aligned(length)..).unwrap_or_default();
    }
    read
}

/// Reads one whole message; never `None`.
fn parse(message: &[u8]) -> Result<Option<Message>, Fault> {
    let kind = u16_at(message, 4).ok_or(Fault::Cut)?;
    let flags = u16_at(message, 6).ok_or(Fault::Cut)?;
    let sequence = u32_at(message, 8).ok_or(Fault::Cut)?;
    let interrupted = flags & NLM_F_DUMP_INTR != 0;
    let errno = || u32_at(message, HEADER).map(errno_of);
    match kind {
        // Old kernels end a list without a word on how it went.
        NLMSG_DONE => Ok(Some(Message::Done {
            errno: errno().unwrap_or(0),
            interrupted,
        })),
        NLMSG_ERROR => Ok(Some(Message::Answer {
            sequence,
            errno: errno().ok_or(Fault::Malformed)?,
        })),
        RTM_NEWLINK | RTM_DELLINK => {
            let body = message.get(HEADER..).ok_or(Fault::Malformed)?;
            parse_link(body, kind == RTM_DELLINK, interrupted)
        }
        _ => Ok(Some(Message::Other)),
    }
}

/// Turns the kernel's negative error number round.
fn errno_of(value: u32) -> u16 {
    u16::try_from(value.cast_signed().unsigned_abs()).unwrap_or(u16::MAX)
}

/// Reads an `ifinfomsg` and its attributes.
fn parse_link(body: &[u8], removed: bool, interrupted: bool) -> Result<Option<Message>, Fault> {
    let mut attributes = body.get(LINK..).ok_or(Fault::Malformed)?;
    let hardware = u16_at(body, 2).ok_or(Fault::Malformed)?;
    let index = u32_at(body, 4).ok_or(Fault::Malformed)?;
    let flags = u32_at(body, 8).ok_or(Fault::Malformed)?;
    // A bridge says by the same message, with its own family, that a port has left it.
    if body.first() != Some(&AF_UNSPEC) || index == 0 || index > i32::MAX.cast_unsigned() {
        return Ok(Some(Message::Other));
    }
    let mut name = heapless::String::new();
    let mut mac = None;
    let mut carrier = flags & IFF_LOWER_UP != 0;
    while let Some((kind, value)) = take_attribute(&mut attributes)? {
        match kind {
            IFLA_IFNAME => name = text(value),
            IFLA_ADDRESS => mac = <[u8; 6]>::try_from(value).ok(),
            IFLA_CARRIER => carrier = value.first().is_some_and(|&on| on != 0),
            _ => {}
        }
    }
    let up = flags & IFF_UP != 0 && !removed;
    let mac = mac.filter(|_| hardware == ARPHRD_ETHER);
    let state = LinkState {
        index,
        name,
        mac: mac.unwrap_or_default(),
        ethernet: mac.is_some(),
        up,
        carrier: up && carrier,
        removed,
    };
    Ok(Some(Message::Link { state, interrupted }))
}

/// Reads a name, which ends with a zero byte.
fn text(value: &[u8]) -> heapless::String<16> {
    let end = value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len());
    let name = value
        .get(..end)
        .and_then(|name| core::str::from_utf8(name).ok());
    name.and_then(|name| name.try_into().ok())
        .unwrap_or_default()
}

/// Takes the first attribute off `bytes`; `None` when what is left is too short for one.
fn take_attribute<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u16, &'a [u8])>, Fault> {
    let (Some(length), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) else {
        return Ok(None);
    };
    let length = usize::from(length);
    // A length below that of the head would go on for ever; this `get` refuses it.
    let value = bytes.get(ATTRIBUTE..length).ok_or(Fault::Malformed)?;
    *bytes = bytes.get(aligned(length)..).unwrap_or_default();
    Ok(Some((kind & ATTRIBUTE_TYPE, value)))
}

/// Messages and attributes begin at multiples of four.
const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[expect(clippy::inline_always, reason = "the check is shorter than a call")]
#[inline(always)]
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_ne_bytes)
}

#[expect(clippy::inline_always, reason = "the check is shorter than a call")]
#[inline(always)]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::vec::Vec;

    // Recorded from a 6.18 kernel in a fresh namespace with a veth pair: `left` is 3, `right` is 2.
    const DUMP: &[u8] = include_bytes!("../../tests/data/rtnetlink/dump.bin");
    const UP: &[u8] = include_bytes!("../../tests/data/rtnetlink/up.bin");
    const DELETE: &[u8] = include_bytes!("../../tests/data/rtnetlink/delete.bin");
    const REFUSED: &[u8] = include_bytes!("../../tests/data/rtnetlink/refused.bin");

    fn messages(mut bytes: &[u8]) -> Result<Vec<Message>, Fault> {
        core::iter::from_fn(|| take_message(&mut bytes).transpose()).collect()
    }

    fn links(bytes: &[u8]) -> Vec<LinkState> {
        let mut links = Vec::new();
        for message in messages(bytes).unwrap() {
            if let Message::Link { state, .. } = message {
                links.push(state);
            }
        }
        links
    }

    fn link(index: u32, name: &str, last: u8) -> LinkState {
        let mac = [2, 0, 0, 0, 0, last];
        let name = name.try_into().unwrap();
        LinkState {
            index,
            name,
            mac,
            ethernet: true,
            up: false,
            carrier: false,
            removed: false,
        }
    }

    #[test]
    fn a_dump_lists_every_interface_and_ends() {
        let lo = LinkState {
            mac: [0; 6],
            ethernet: false,
            ..link(1, "lo", 0)
        };
        assert_eq!(
            links(DUMP),
            [lo, link(2, "right", 0x0b), link(3, "left", 0x0a)]
        );
        let last = messages(DUMP).unwrap().pop().unwrap();
        assert_eq!(
            last,
            Message::Done {
                errno: 0,
                interrupted: false
            }
        );
    }

    #[test]
    fn a_loopback_that_is_off_has_no_carrier_whatever_the_attribute_says() {
        assert!(
            DUMP.windows(5).any(|window| window == [5, 0, 33, 0, 1]),
            "carrier of lo is 1"
        );
        assert!(links(DUMP).iter().all(|link| !link.carrier));
    }

    #[test]
    fn switching_both_ends_on_gives_them_a_carrier() {
        let states: Vec<_> = links(UP)
            .iter()
            .map(|link| (link.index, link.up, link.carrier))
            .collect();
        assert_eq!(
            states,
            [
                (3, true, false),
                (2, true, true),
                (2, true, true),
                (3, true, true)
            ]
        );
    }

    #[test]
    fn a_deletion_is_told_from_a_change() {
        let left = link(3, "left", 0x0a);
        let right = link(2, "right", 0x0b);
        let gone = |link: &LinkState| LinkState {
            removed: true,
            ..link.clone()
        };
        assert_eq!(
            links(DELETE),
            [left.clone(), right.clone(), gone(&left), gone(&right)]
        );
    }

    #[test]
    fn a_refusal_names_its_request_and_the_reason() {
        // ENODEV
        assert_eq!(
            messages(REFUSED),
            Ok([Message::Answer {
                sequence: 9,
                errno: 19
            }]
            .into())
        );
    }

    /// A message of this kind; the header is right whatever the body is.
    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = 16 + body.len() as u32;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    fn link_body(family: u8, flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = std::vec![family, 0, 1, 0, 5, 0, 0, 0];
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        for (kind, value) in attributes {
            body.extend((4 + value.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body
    }

    fn only(bytes: &[u8]) -> Message {
        let mut messages = messages(bytes).unwrap();
        assert_eq!(messages.len(), 1);
        messages.remove(0)
    }

    fn only_link(bytes: &[u8]) -> LinkState {
        match only(bytes) {
            Message::Link { state, .. } => state,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_port_that_leaves_a_bridge_is_not_removed() {
        const AF_BRIDGE: u8 = 7;
        let body = link_body(AF_BRIDGE, 0, &[(IFLA_IFNAME, b"eth0\0")]);
        assert_eq!(only(&message(RTM_DELLINK, 0, &body)), Message::Other);
    }

    #[test]
    fn carrier_falls_back_to_the_flag() {
        let with = link_body(0, IFF_UP | IFF_LOWER_UP, &[]);
        assert!(only_link(&message(RTM_NEWLINK, 0, &with)).carrier);
        let without = link_body(0, IFF_UP, &[]);
        assert!(!only_link(&message(RTM_NEWLINK, 0, &without)).carrier);
    }

    #[test]
    fn an_address_that_is_not_ethernet_is_none() {
        let infiniband = link_body(0, 0, &[(IFLA_ADDRESS, &[1; 20])]);
        let link = only_link(&message(RTM_NEWLINK, 0, &infiniband));
        assert_eq!((link.ethernet, link.mac), (false, [0; 6]));
    }

    #[test]
    fn a_name_that_is_not_text_is_empty() {
        for name in [
            &b"\xff\xfe\0"[..],
            b"\0",
            b"",
            b"a name of sixteen or more\0",
        ] {
            let body = link_body(0, 0, &[(IFLA_IFNAME, name)]);
            assert_eq!(only_link(&message(RTM_NEWLINK, 0, &body)).name, "");
        }
        let longest = link_body(0, 0, &[(IFLA_IFNAME, b"fifteen-letters\0")]);
        assert_eq!(
            only_link(&message(RTM_NEWLINK, 0, &longest)).name,
            "fifteen-letters"
        );
    }

    #[test]
    fn a_list_that_changed_while_it_was_written_says_so() {
        let body = link_body(0, 0, &[]);
        let linked = only(&message(RTM_NEWLINK, NLM_F_DUMP_INTR, &body));
        assert!(matches!(
            linked,
            Message::Link {
                interrupted: true,
                ..
            }
        ));
        let done = only(&message(NLMSG_DONE, NLM_F_DUMP_INTR, &[0; 4]));
        assert_eq!(
            done,
            Message::Done {
                errno: 0,
                interrupted: true
            }
        );
    }

    #[test]
    fn a_list_that_failed_says_why() {
        const EMSGSIZE: i32 = 90;
        let done = only(&message(NLMSG_DONE, 0, &(-EMSGSIZE).to_ne_bytes()));
        assert_eq!(
            done,
            Message::Done {
                errno: 90,
                interrupted: false
            }
        );
        let silent = only(&message(NLMSG_DONE, 0, &[]));
        assert_eq!(
            silent,
            Message::Done {
                errno: 0,
                interrupted: false
            }
        );
    }

    #[test]
    fn other_messages_are_passed_over() {
        const NLMSG_NOOP: u16 = 1;
        let mut bytes = message(NLMSG_NOOP, 0, &[]);
        bytes.extend(message(RTM_NEWADDR, 0, &[9; 8]));
        assert_eq!(
            messages(&bytes),
            Ok([Message::Other, Message::Other].into())
        );
    }

    #[test]
    fn lengths_that_contradict_are_refused() {
        assert_eq!(messages(&UP[..UP.len() - 1]), Err(Fault::Cut));
        assert_eq!(
            messages(&[0; 16]),
            Err(Fault::Malformed),
            "a length of 0 goes on for ever"
        );
        assert_eq!(messages(&[16, 0, 0]), Err(Fault::Cut));
        assert_eq!(
            messages(&message(RTM_NEWLINK, 0, &[0; 15])),
            Err(Fault::Malformed)
        );
        assert_eq!(
            messages(&message(NLMSG_ERROR, 0, &[0; 3])),
            Err(Fault::Malformed)
        );
        for length in [0_u8, 3, 200] {
            let mut body = link_body(0, 0, &[(IFLA_IFNAME, b"eth0\0")]);
            body[16] = length;
            assert_eq!(
                messages(&message(RTM_NEWLINK, 0, &body)),
                Err(Fault::Malformed)
            );
        }
    }

    #[test]
    fn after_a_fault_nothing_is_left() {
        let mut rest = &UP[..UP.len() - 1];
        while take_message(&mut rest).is_ok_and(|message| message.is_some()) {}
        assert_eq!(take_message(&mut rest), Ok(None));
    }

    #[test]
    fn requests_are_laid_out_as_the_kernel_reads_them() {
        // As strace shows them of `ip link set lo up` and `ip link show` (iproute2 6.1), but for
        // the numbers, the family and the filter:
        // length, type, flags, sequence, port | family, type, index, flags, change | attribute.
        #[rustfmt::skip]
        let up = [
            32, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
        ];
        assert_eq!(switch_link(7, 5, true), up);
        let mut down = up;
        down[24] = 0;
        assert_eq!(switch_link(7, 5, false), down);
        #[rustfmt::skip]
        let list = [
            40, 0, 0, 0, 18, 0, 1, 3, 8, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            8, 0, 29, 0, 8, 0, 0, 0,
        ];
        assert_eq!(list_links(8), list);
    }

    #[test]
    fn mutated_messages_end_in_a_value() {
        let mut random = Random::new();
        let originals = [DUMP, UP, DELETE, REFUSED];
        let (mut read, mut refused) = (0, 0);
        for round in 0..8000 {
            let mut bytes = originals[round % originals.len()].to_vec();
            for _ in 0..=random.below(8) {
                // Mostly the heads of messages and attributes, where the lengths are.
                let place = if random.below(2) == 0 {
                    random.below(bytes.len())
                } else {
                    random.below(64.min(bytes.len()))
                };
                bytes[place] = random.below(256) as u8;
            }
            bytes.truncate(bytes.len() - random.below(4) * random.below(bytes.len()) / 4);
            let mut rest = &bytes[..];
            let mut messages = 0;
            loop {
                match take_message(&mut rest) {
                    Ok(None) => {
                        read += 1;
                        break;
                    }
                    Err(_) => {
                        refused += 1;
                        break;
                    }
                    Ok(Some(Message::Link { state, .. })) => {
                        assert!(state.index != 0 && state.name.len() <= 15);
                        assert!(state.up || !state.carrier);
                    }
                    Ok(Some(_)) => {}
                }
                messages += 1;
                // No message is shorter than its header.
                assert!(messages <= bytes.len() / HEADER);
            }
        }
        assert!(
            read > 100 && refused > 100,
            "{read} read, {refused} refused: the mutations are dull"
        );
    }
}
