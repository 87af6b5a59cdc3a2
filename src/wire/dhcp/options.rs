//! The options of a DHCP message (RFC 2132, 3396), and the values that are lists (RFC 3397, 3442).

use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::{OPTIONS_AT, Route, code, is_unicast, mask};

/// The longest value that we believe of one option, joined from its pieces.
const MAX_VALUE: usize = 512;
/// The most routers, or name servers, that we look at: nobody needs a fifth.
const MAX_ADDRESSES: usize = 4;
/// The most routes; a longer list is no list.
const MAX_ROUTES: usize = 16;
/// The longest list of domains to search, as text.
const MAX_SEARCH: usize = 256;

/// The options of a message, each joined from its pieces, in the order of their codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    /// Reads the options field and, if it is overloaded, `file` and `sname`.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let mut options = Self(Vec::new());
        options.take(message.get(OPTIONS_AT..)?);
        if let Some([fields]) = options.number(code::OVERLOAD) {
            // RFC 3396 joins in this order: options, file, sname.
            if fields & 1 != 0 {
                options.take(message.get(108..236)?);
            }
            if fields & 2 != 0 {
                options.take(message.get(44..108)?);
            }
        }
        // Where they lay says nothing.
        options.0.retain(|(code, _)| *code != code::OVERLOAD);
        Some(options)
    }

    /// Takes the options of one field.
    fn take(&mut self, mut field: &[u8]) {
        loop {
            match *field {
                [0, ref after @ ..] => field = after,
                [255, ..] | [] | [_] => return,
                [code, length, ref after @ ..] => {
                    // Cut off in the middle: what comes before it still counts.
                    let Some((piece, after)) = after.split_at_checked(usize::from(length)) else {
                        return;
                    };
                    self.join(code, piece);
                    field = after;
                }
            }
        }
    }

    /// Adds a piece to an option.
    fn join(&mut self, code: u8, piece: &[u8]) {
        let place = self.0.iter().position(|(known, _)| *known >= code);
        let place = place.unwrap_or(self.0.len());
        match self.0.get_mut(place) {
            Some((known, value)) if *known == code => {
                // One piece too many makes it too long to be believed; more of them add nothing.
                if value.len() <= MAX_VALUE {
                    value.extend_from_slice(piece);
                }
            }
            _ => self.0.insert(place, (code, piece.to_vec())),
        }
    }

    /// Shows the value of an option; `None` if it is absent or too long.
    pub(super) fn value(&self, wanted: u8) -> Option<&[u8]> {
        let (_, value) = self.0.iter().find(|(code, _)| *code == wanted)?;
        Some(value.as_slice()).filter(|value| value.len() <= MAX_VALUE)
    }

    /// Returns the value of an option that has just so many bytes.
    pub(super) fn number<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.value(code)?.try_into().ok()
    }

    pub(super) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.number::<4>(code).map(Ipv4Addr::from)
    }

    pub(super) fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let value = self.value(code).unwrap_or_default();
        let addresses = value.as_chunks::<4>().0.iter().copied();
        addresses
            .map(Ipv4Addr::from)
            .filter(|address| is_unicast(*address))
            .take(MAX_ADDRESSES)
            .collect()
    }

    pub(super) fn seconds(&self, code: u8) -> Option<Duration> {
        match self.number(code).map(u32::from_be_bytes)? {
            // Azure says "for ever" this way, in all three times.
            u32::MAX => None,
            seconds => Some(Duration::from_secs(u64::from(seconds))),
        }
    }

    /// Shows a value up to its first NUL, if that is text without blanks.
    pub(super) fn text(&self, code: u8) -> Option<&str> {
        let text = self.value(code)?.split(|&byte| byte == 0).next()?;
        let clean = text.iter().all(u8::is_ascii_graphic);
        core::str::from_utf8(text).ok().filter(|_| clean)
    }
}

/// Reads options 121 and 249 (RFC 3442); a malformed list is refused whole.
pub(super) fn parse_routes(mut value: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = value.split_first() {
        if prefix > 32 {
            return None;
        }
        let significant = usize::from(prefix).div_ceil(8);
        let (bytes, rest) = rest.split_at_checked(significant)?;
        let (gateway, rest) = rest.split_first_chunk::<4>()?;
        let mut network = [0; 4];
        network.get_mut(..significant)?.copy_from_slice(bytes);
        let gateway = Ipv4Addr::from(*gateway);
        let network = Ipv4Addr::from_bits(Ipv4Addr::from(network).to_bits() & mask(prefix));
        // A next hop that is no host's address would make the IP stack refuse to work at all.
        if gateway.is_unspecified() || is_unicast(gateway) {
            if routes.len() == MAX_ROUTES {
                return None;
            }
            routes.push(Route {
                network,
                prefix,
                gateway,
            });
        }
        value = rest;
    }
    Some(routes)
}

/// Reads option 119 (RFC 3397): names in DNS form, with compression pointers into the option.
// Kept apart: a larger frame costs its caller more than the call.
#[inline(never)]
pub(super) fn parse_search(value: &[u8]) -> String {
    let mut search = String::new();
    let mut at = 0;
    while at < value.len() {
        let mut name = String::new();
        let Some(next) = read_name(value, at, &mut name) else {
            break;
        };
        at = next;
        if search.len().saturating_add(name.len()).saturating_add(1) > MAX_SEARCH {
            break;
        }
        if !search.is_empty() {
            search.push(' ');
        }
        search.push_str(&name);
    }
    search
}

/// Reads one name at `at` and returns where the next one starts.
fn read_name(value: &[u8], mut at: usize, name: &mut String) -> Option<usize> {
    let mut next = None;
    // A name has at most 127 labels; anything that takes longer is a loop of pointers.
    for _ in 0..256 {
        let length = *value.get(at)?;
        match length {
            0 => return Some(next.unwrap_or(at.checked_add(1)?)),
            1..=63 => {
                let start = at.checked_add(1)?;
                let end = start.checked_add(usize::from(length))?;
                let label = value.get(start..end)?;
                if !label
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_')
                {
                    return None;
                }
                if name.len().saturating_add(label.len()) >= MAX_SEARCH {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(core::str::from_utf8(label).ok()?);
                at = end;
            }
            192.. => {
                let low = *value.get(at.checked_add(1)?)?;
                next = next.or(at.checked_add(2));
                at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
            }
            _ => return None,
        }
    }
    None
}
