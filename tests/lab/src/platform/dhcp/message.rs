//! DHCP messages: strict reading, and writing in all the shapes that a server may use.

use std::net::Ipv4Addr;

use crate::platform::frame::{Colons, Mac};

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// BOOTP messages are at least this long (RFC 951, RFC 1542 section 2.1); relays drop shorter ones.
const MINIMUM: usize = 300;
const HEADER: usize = 240;

/// Option numbers (RFC 2132, 3442, 4702; 245 and 249 are Microsoft's).
pub(crate) mod option {
    pub(crate) const MASK: u8 = 1;
    pub(crate) const ROUTERS: u8 = 3;
    pub(crate) const DNS: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const DOMAIN: u8 = 15;
    pub(crate) const REQUESTED: u8 = 50;
    pub(crate) const LEASE: u8 = 51;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const KIND: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const PARAMETERS: u8 = 55;
    pub(crate) const MESSAGE: u8 = 56;
    pub(crate) const MAXIMUM: u8 = 57;
    pub(crate) const T1: u8 = 58;
    pub(crate) const T2: u8 = 59;
    pub(crate) const CLASS: u8 = 60;
    pub(crate) const CLIENT: u8 = 61;
    pub(crate) const FQDN: u8 = 81;
    pub(crate) const ROUTES: u8 = 121;
    pub(crate) const WIRESERVER: u8 = 245;
    pub(crate) const ROUTES_MICROSOFT: u8 = 249;
    pub(crate) const END: u8 = 255;
}

/// What a message is for (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who is there?
    Discover = 1,
    /// I am; you could have this.
    Offer = 2,
    /// I want this.
    Request = 3,
    /// Somebody else has it.
    Decline = 4,
    /// It is yours.
    Ack = 5,
    /// You may not have it.
    Nak = 6,
    /// I do not want it any more.
    Release = 7,
    /// Tell me the rest; an address I have.
    Inform = 8,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        use Kind::{Ack, Decline, Discover, Inform, Nak, Offer, Release, Request};
        [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// A message with its options joined (RFC 3396) and in the order of their first pieces.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) op: u8,
    pub(crate) xid: u32,
    pub(crate) secs: u16,
    pub(crate) flags: u16,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) yiaddr: Ipv4Addr,
    pub(crate) siaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    pub(crate) chaddr: Mac,
    pub(crate) sname: String,
    pub(crate) options: Vec<(u8, Vec<u8>)>,
}

impl Message {
    /// Reads a client's message. What is wrong with it goes to `faults`; nothing is returned when it cannot be read.
    pub(crate) fn parse(bytes: &[u8], faults: &mut Vec<String>) -> Option<Self> {
        if bytes.len() < MINIMUM {
            faults.push(format!(
                "dhcp: {} bytes are less than BOOTP's {MINIMUM}",
                bytes.len()
            ));
        }
        let Some((header, mut area)) = bytes.split_first_chunk::<HEADER>() else {
            faults.push("dhcp: no whole header".into());
            return None;
        };
        if header[236..] != COOKIE {
            faults.push("dhcp: no magic cookie".into());
            return None;
        }
        if header[..4] != [1, 1, 6, 0] {
            faults.push(format!(
                "dhcp: op, htype, hlen, hops are {:?}, not 1, 1, 6, 0",
                &header[..4]
            ));
            return None;
        }
        if header[34..44].iter().any(|byte| *byte != 0) {
            faults.push("dhcp: chaddr is not zero behind the MAC".into());
        }
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let mut message = Self {
            op: 1,
            xid: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            secs: u16::from_be_bytes([header[8], header[9]]),
            flags: u16::from_be_bytes([header[10], header[11]]),
            ciaddr: address(12),
            yiaddr: address(16),
            siaddr: address(20),
            giaddr: address(24),
            chaddr: header[28..34].try_into().ok()?,
            sname: String::new(),
            options: Vec::new(),
        };
        if !message.read_options(&mut area, faults) {
            return None;
        }
        match message.option(option::OVERLOAD) {
            None => {
                if header[44..236].iter().any(|byte| *byte != 0) {
                    faults.push("dhcp: sname or file of a client's message is not zero".into());
                }
            }
            Some([bits @ 1..=3]) => {
                let bits = *bits;
                for (bit, mut field) in [(1, &header[108..236]), (2, &header[44..108])] {
                    if bits & bit != 0 && !message.read_options(&mut field, faults) {
                        return None;
                    }
                }
            }
            Some(_) => {
                faults.push("dhcp: option 52 is not 1, 2 or 3".into());
                return None;
            }
        }
        if !message.yiaddr.is_unspecified()
            || !message.siaddr.is_unspecified()
            || !message.giaddr.is_unspecified()
        {
            faults.push("dhcp: a client sets yiaddr, siaddr or giaddr".into());
        }
        if message.flags & 0x7fff != 0 {
            faults.push("dhcp: reserved flags are set".into());
        }
        message.check_lengths(faults);
        Some(message)
    }

    fn read_options(&mut self, area: &mut &[u8], faults: &mut Vec<String>) -> bool {
        loop {
            match **area {
                [] => {
                    faults.push("dhcp: no end option".into());
                    return true;
                }
                [0, ref rest @ ..] => *area = rest,
                [option::END, ref rest @ ..] => {
                    if rest.iter().any(|byte| *byte != 0) {
                        faults.push(
                            "dhcp: something other than padding is behind the end option".into(),
                        );
                    }
                    return true;
                }
                [code, length, ref rest @ ..] if rest.len() >= usize::from(length) => {
                    let (value, rest) = rest.split_at(usize::from(length));
                    match self.options.iter_mut().find(|(known, _)| *known == code) {
                        Some((_, whole)) => whole.extend_from_slice(value),
                        None => self.options.push((code, value.to_vec())),
                    }
                    *area = rest;
                }
                [code, ..] => {
                    faults.push(format!("dhcp: option {code} is longer than the message"));
                    return false;
                }
            }
        }
    }

    fn check_lengths(&self, faults: &mut Vec<String>) {
        for (code, value) in &self.options {
            let fits = match *code {
                option::KIND => value.len() == 1,
                option::REQUESTED | option::SERVER | option::LEASE => value.len() == 4,
                option::MAXIMUM => match **value {
                    [high, low] => u16::from_be_bytes([high, low]) >= 576,
                    _ => false,
                },
                option::PARAMETERS | option::HOST_NAME => !value.is_empty(),
                option::CLIENT => value.len() >= 2,
                _ => true,
            };
            if !fits {
                faults.push(format!("dhcp: option {code} cannot be {value:02x?}"));
            }
        }
        if self
            .option(option::CLIENT)
            .is_some_and(|id| id[0] == 1 && id[1..] != self.chaddr)
        {
            faults.push("dhcp: client identifier of type 1 is not the MAC".into());
        }
    }

    /// The bytes of an option.
    pub(crate) fn option(&self, code: u8) -> Option<&[u8]> {
        self.options
            .iter()
            .find(|(known, _)| *known == code)
            .map(|(_, value)| value.as_slice())
    }

    /// The address in an option of four bytes.
    pub(crate) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(octets.into())
    }

    /// What the message is for.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self.option(option::KIND)? {
            [code] => Kind::from_code(*code),
            _ => None,
        }
    }

    /// Whether the client asks for an option.
    pub(crate) fn asks_for(&self, code: u8) -> bool {
        self.option(option::PARAMETERS)
            .is_some_and(|list| list.contains(&code))
    }

    /// Writes the message.
    pub(crate) fn bytes(&self, shape: Shape) -> Vec<u8> {
        let mut out = vec![self.op, 1, 6, 0];
        out.extend_from_slice(&self.xid.to_be_bytes());
        out.extend_from_slice(&self.secs.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            out.extend_from_slice(&address.octets());
        }
        out.extend_from_slice(&self.chaddr);
        out.resize(44, 0);
        let sname_end = 63.min(self.sname.len());
        out.extend_from_slice(&self.sname.as_bytes()[..sname_end]);
        out.resize(236, 0);
        out.extend_from_slice(&COOKIE);
        let mut pieces: Vec<(u8, &[u8])> = Vec::new();
        for (code, value) in &self.options {
            // One piece of half the length shows clients that do not join; 255 is all that fits anyway.
            let limit = if shape.split && value.len() > 4 {
                value.len() / 2
            } else {
                255
            };
            if value.is_empty() {
                pieces.push((*code, &[]));
            }
            pieces.extend(value.chunks(limit).map(|piece| (*code, piece)));
        }
        if shape.overload {
            Self::overload(&mut out, &mut pieces);
        }
        for (code, piece) in pieces {
            out.extend_from_slice(&[code, piece.len() as u8]);
            out.extend_from_slice(piece);
        }
        out.push(option::END);
        if out.len() < MINIMUM {
            out.resize(MINIMUM, 0);
        }
        out
    }

    /// Moves the last pieces to `sname` and those before them to `file`, as many as fit.
    ///
    /// A reader joins options, file, sname in this order (RFC 3396), so pieces must not change places. Kind,
    /// server and lease stay first: every client looks for them there.
    fn overload(out: &mut [u8], pieces: &mut Vec<(u8, &[u8])>) {
        const STAY: [u8; 3] = [option::KIND, option::SERVER, option::LEASE];
        pieces.sort_by_key(|(code, _)| !STAY.contains(code));
        let first = pieces
            .iter()
            .filter(|(code, _)| STAY.contains(code))
            .count();
        for field in [44..108, 108..236] {
            // One byte is for the end option.
            let mut room = field.len() - 1;
            let mut from = pieces.len();
            while from > first && pieces[from - 1].1.len() + 2 <= room {
                from -= 1;
                room -= pieces[from].1.len() + 2;
            }
            let mut area = Vec::new();
            for (code, piece) in pieces.drain(from..) {
                area.extend_from_slice(&[code, piece.len() as u8]);
                area.extend_from_slice(piece);
            }
            area.push(option::END);
            out[field.clone()].fill(0);
            out[field.start..field.start + area.len()].copy_from_slice(&area);
        }
        pieces.insert(first, (option::OVERLOAD, &[3]));
    }
}

/// How the options of a message are laid out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shape {
    /// Longer options come in two pieces.
    pub(crate) split: bool,
    /// Options are in `file` and `sname` too.
    pub(crate) overload: bool,
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind() {
            Some(kind) => write!(f, "{}", format!("{kind:?}").to_uppercase())?,
            None => write!(f, "without a kind")?,
        }
        write!(f, " xid={:08x} secs={}", self.xid, self.secs)?;
        if self.flags & 0x8000 != 0 {
            write!(f, " broadcast")?;
        }
        write!(f, " chaddr={}", Colons(self.chaddr))?;
        for (name, address) in [("ciaddr", self.ciaddr), ("yiaddr", self.yiaddr)] {
            if !address.is_unspecified() {
                write!(f, " {name}={address}")?;
            }
        }
        for (name, code) in [("requested", option::REQUESTED), ("server", option::SERVER)] {
            if let Some(address) = self.address(code) {
                write!(f, " {name}={address}")?;
            }
        }
        for (name, code) in [("host", option::HOST_NAME), ("class", option::CLASS)] {
            if let Some(text) = self.option(code) {
                write!(f, " {name}={}", text.escape_ascii())?;
            }
        }
        if let Some(id) = self.option(option::CLIENT) {
            write!(f, " id=")?;
            id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        write!(f, " options=")?;
        for (index, (code, _)) in self.options.iter().enumerate() {
            write!(f, "{}{code}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Message {
        Message {
            op: 1,
            xid: 0x1122_3344,
            secs: 7,
            flags: 0x8000,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: [2, 0, 0, 0, 0, 1],
            sname: String::new(),
            options: vec![
                (option::KIND, vec![1]),
                (option::CLIENT, vec![1, 2, 0, 0, 0, 0, 1]),
                (option::PARAMETERS, vec![1, 3, 121]),
                (43, (0..200).collect()),
            ],
        }
    }

    #[test]
    fn every_shape_is_read_back_as_the_same_options() {
        for (split, overload) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut faults = Vec::new();
            let bytes = sample().bytes(Shape { split, overload });
            let read = Message::parse(&bytes, &mut faults).unwrap();
            assert_eq!(faults, Vec::<String>::new());
            for (code, value) in &sample().options {
                assert_eq!(
                    read.option(*code),
                    Some(value.as_slice()),
                    "{split} {overload}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_clean_is_named() {
        let clean = sample().bytes(Shape::default());
        let complains = |change: &dyn Fn(&mut Vec<u8>), word: &str| {
            let mut bytes = clean.clone();
            change(&mut bytes);
            let mut faults = Vec::new();
            Message::parse(&bytes, &mut faults);
            assert!(
                faults.iter().any(|fault| fault.contains(word)),
                "{word}: {faults:?}"
            );
        };
        complains(&|b| b.truncate(244), "less than");
        complains(&|b| b.truncate(100), "no whole header");
        complains(&|b| b[236] = 0, "cookie");
        complains(&|b| b[1] = 6, "htype");
        complains(&|b| b[11] = 1, "reserved flags");
        complains(&|b| b[24] = 1, "giaddr");
        complains(&|b| b[40] = 1, "chaddr");
        complains(&|b| b[50] = 1, "sname");
        complains(&|b| b[246] = 9, "client identifier");
        complains(&|b| b[241] = 255, "longer than");
        complains(
            &|b| *b.iter_mut().rev().find(|x| **x == 255).unwrap() = 0,
            "no end option",
        );
    }
}
