//! What a client said in a DHCP message, as a test or a person asks about it.
//!
//! Nothing is judged here: that is done when the message arrives.

use std::net::Ipv4Addr;

use super::lease::State;
use super::message::{Kind, Message, option};

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// What it is for.
    pub kind: Kind,
    /// In which state a client sends such a REQUEST.
    pub state: Option<State>,
    /// The address that the client says it has.
    pub ciaddr: Ipv4Addr,
    /// Option 61.
    pub client: Option<Vec<u8>>,
    /// Option 12.
    pub host_name: Option<String>,
    /// The name in option 81.
    pub full_name: Option<String>,
    /// Option 60: most programs tell by it what they are.
    pub class: Option<String>,
    /// Option 55.
    pub parameters: Vec<u8>,
}

impl Spoken {
    /// Reads the bytes behind the UDP header of a message, which went to all or to one.
    pub(crate) fn parse(bytes: &[u8], to_all: bool) -> Option<Self> {
        let message = Message::parse(bytes, &mut Vec::new())?;
        let kind = message.kind()?;
        let text = |code| {
            let bytes = message.option(code)?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        Some(Self {
            kind,
            state: (kind == Kind::Request)
                .then(|| State::of(&message, to_all))
                .flatten(),
            ciaddr: message.ciaddr,
            client: message.option(option::CLIENT).map(<[u8]>::to_vec),
            host_name: text(option::HOST_NAME),
            full_name: message.option(option::FQDN).and_then(name_of),
            class: text(option::CLASS),
            parameters: message
                .option(option::PARAMETERS)
                .unwrap_or_default()
                .to_vec(),
        })
    }

    /// Names the program that it could be of, as far as its own words tell.
    pub fn program(&self) -> &'static str {
        let class = self.class.as_deref().unwrap_or_default();
        if class.starts_with("udhcp") {
            "udhcpc"
        } else if class.starts_with("dhcpcd") {
            "dhcpcd"
        } else if self.client.as_deref().is_some_and(is_of_systemd) {
            "systemd"
        } else {
            "unnamed"
        }
    }
}

/// Whether an identifier is made as systemd makes it: RFC 4361, with the enterprise number of systemd.
fn is_of_systemd(id: &[u8]) -> bool {
    id.first() == Some(&255) && id.get(5..11) == Some(&[0, 2, 0, 0, 0xab, 0x11])
}

/// Takes the name out of option 81 (RFC 4702): labels with their lengths, or plain text.
fn name_of(option: &[u8]) -> Option<String> {
    let [flags, _, _, name @ ..] = option else {
        return None;
    };
    if flags & 4 == 0 {
        return Some(String::from_utf8_lossy(name).into_owned());
    }
    let mut labels = Vec::new();
    let mut rest = name;
    while let [length, after @ ..] = rest {
        if *length == 0 {
            break;
        }
        let (label, next) = after.split_at_checked(usize::from(*length))?;
        labels.push(String::from_utf8_lossy(label));
        rest = next;
    }
    Some(labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_name_is_read_in_both_encodings() {
        assert_eq!(
            name_of(b"\x04\0\0\x04demo\x03lan\0").as_deref(),
            Some("demo.lan")
        );
        assert_eq!(name_of(b"\x04\0\0\x04demo").as_deref(), Some("demo"));
        assert_eq!(name_of(b"\x01\0\0demo.lan").as_deref(), Some("demo.lan"));
        assert_eq!(name_of(b"\x04\0\0\x09demo"), None);
        assert_eq!(name_of(b"\x04"), None);
    }
}
