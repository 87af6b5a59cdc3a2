//! What the platform heard and said, in order: the evidence of a test and the log of a person.
//!
//! Every entry prints as one line. The journal holds whole HTTP requests; it is not a packet capture (see `pcap`).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::dhcp::Spoken;
use super::frame::{Colons, Mac};
use super::http::Request;

/// Which way something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The VM sent it.
    FromGuest,
    /// The VM gets it.
    ToGuest,
}

/// One thing that happened. `at` is the platform's time, `mac` the VM's network card (all zero where there is none).
#[derive(Debug, Clone)]
#[expect(
    missing_docs,
    reason = "the fields at and mac are explained once, above"
)]
pub enum Entry {
    /// A DHCP message.
    Dhcp {
        at: Duration,
        mac: Mac,
        way: Way,
        /// What kind of message it is, and what it says, in one line.
        summary: String,
        /// Whether everybody is to hear it.
        to_all: bool,
        /// The bytes behind the UDP header.
        message: Vec<u8>,
    },
    /// An ARP message.
    Arp {
        at: Duration,
        mac: Mac,
        way: Way,
        /// What it says.
        summary: String,
    },
    /// A ping, which was answered.
    Ping {
        at: Duration,
        mac: Mac,
        /// Who was pinged.
        target: std::net::Ipv4Addr,
    },
    /// A ping of ours was answered.
    Pong {
        at: Duration,
        mac: Mac,
        /// Who answered.
        source: std::net::Ipv4Addr,
    },
    /// A TCP connection was opened.
    Connect {
        at: Duration,
        mac: Mac,
        /// The VM's end.
        peer: SocketAddr,
        /// Our end.
        local: SocketAddr,
    },
    /// A TCP connection came to its end.
    Disconnect {
        at: Duration,
        mac: Mac,
        /// The VM's end.
        peer: SocketAddr,
        /// How it ended.
        how: &'static str,
    },
    /// An HTTP request arrived whole.
    Request {
        at: Duration,
        mac: Mac,
        /// The VM's end of the connection.
        peer: SocketAddr,
        /// The request, with head and body.
        request: Request,
    },
    /// An HTTP request was answered.
    Answer {
        at: Duration,
        mac: Mac,
        /// The VM's end of the connection.
        peer: SocketAddr,
        /// The status; 0 when the scenario had no answer given.
        status: u16,
        /// Whether the answer is a fault out of the scenario.
        scripted: bool,
    },
    /// A frame vanished, as the scenario has it.
    Lost {
        at: Duration,
        mac: Mac,
        way: Way,
        /// Its number in that direction.
        number: u64,
    },
    /// Something arrived that the platform has no part in.
    Ignored {
        at: Duration,
        mac: Mac,
        /// What it was.
        what: String,
    },
    /// The VM did something that it should not do.
    Complaint {
        at: Duration,
        mac: Mac,
        /// What it should not do.
        what: String,
    },
}

impl Entry {
    /// When it happened.
    pub fn at(&self) -> Duration {
        self.common().0
    }

    /// Which network card of the VM had part in it.
    pub fn mac(&self) -> Mac {
        self.common().1
    }

    /// What the VM said, when the entry is a DHCP message of its own that can be read.
    pub fn dhcp(&self) -> Option<Spoken> {
        match self {
            Self::Dhcp {
                way: Way::FromGuest,
                message,
                to_all,
                ..
            } => Spoken::parse(message, *to_all),
            _ => None,
        }
    }

    fn common(&self) -> (Duration, Mac) {
        match self {
            Self::Dhcp { at, mac, .. }
            | Self::Arp { at, mac, .. }
            | Self::Ping { at, mac, .. }
            | Self::Pong { at, mac, .. }
            | Self::Connect { at, mac, .. }
            | Self::Disconnect { at, mac, .. }
            | Self::Request { at, mac, .. }
            | Self::Answer { at, mac, .. }
            | Self::Lost { at, mac, .. }
            | Self::Ignored { at, mac, .. }
            | Self::Complaint { at, mac, .. } => (*at, *mac),
        }
    }

    /// What the VM did wrong, when the entry says so.
    pub fn complaint(&self) -> Option<&str> {
        match self {
            Self::Complaint { what, .. } => Some(what),
            _ => None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FromGuest => ">",
            Self::ToGuest => "<",
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, mac) = self.common();
        write!(
            f,
            "{:5}.{:06} {} ",
            at.as_secs(),
            at.subsec_micros(),
            Colons(mac)
        )?;
        match self {
            Self::Dhcp { way, summary, .. } => write!(f, "{way} dhcp {summary}"),
            Self::Arp { way, summary, .. } => write!(f, "{way} arp {summary}"),
            Self::Ping { target, .. } => write!(f, "> ping {target}"),
            Self::Pong { source, .. } => write!(f, "> pong of {source}"),
            Self::Connect { peer, local, .. } => write!(f, "> tcp {peer} connects to {local}"),
            Self::Disconnect { peer, how, .. } => write!(f, "- tcp {peer} {how}"),
            Self::Request { peer, request, .. } => {
                write!(f, "> http {peer} {} ", request.method)?;
                printable(f, &request.target)?;
                if request.body.is_empty() {
                    return Ok(());
                }
                write!(f, " {} bytes: ", request.body.len())?;
                let body = String::from_utf8_lossy(&request.body);
                printable(f, &body.chars().take(600).collect::<String>())
            }
            Self::Answer {
                peer, status: 0, ..
            } => write!(f, "< http {peer} no answer (scenario)"),
            Self::Answer {
                peer,
                status,
                scripted,
                ..
            } => {
                write!(
                    f,
                    "< http {peer} {status}{}",
                    if *scripted { " (scenario)" } else { "" }
                )
            }
            Self::Lost { way, number, .. } => write!(f, "{way} frame {number} lost (scenario)"),
            Self::Ignored { what, .. } => write!(f, "> ignored: {what}"),
            Self::Complaint { what, .. } => {
                f.write_str("! ")?;
                printable(f, what)
            }
        }
    }
}

/// Writes text that came from outside on one line.
fn printable(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write as _;
    text.chars()
        .try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line_whatever_is_in_it() {
        let entry = Entry::Complaint {
            at: Duration::from_micros(1_000_250),
            mac: [2, 0, 0, 0, 0, 1],
            what: "bad\nthing\x1b[31m".into(),
        };
        assert_eq!(
            entry.to_string(),
            "    1.000250 02:00:00:00:00:01 ! bad thing [31m"
        );
    }
}
