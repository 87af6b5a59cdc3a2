//! What a supervisor and its worker say to each other, and what another run of the program says to a
//! supervisor that is waiting for it.

use alloc::string::{String, ToString as _};
use core::fmt;
use core::time::Duration;

use super::Exit;
use crate::wire::timestamp::micros;

/// A message of the supervisor's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order<'a> {
    /// The supervisor went through a phase; times are those of the clock.
    Phase {
        /// Its name, without blanks.
        name: &'a str,
        /// When it began.
        from: Duration,
        /// When it ended.
        to: Duration,
        /// What came of it.
        detail: &'a str,
    },
    /// There will be no root: the machine does not come up.
    NoRoot(&'a str),
    /// The root is to be provisioned now.
    Root {
        /// Where it is; nothing for the usual places.
        path: Option<&'a str>,
        /// How long to wait until it is mounted there, unless as long as ever.
        wait: Option<Duration>,
    },
}

impl<'a> Order<'a> {
    /// Writes an order as a message.
    pub(super) fn to_message(&self) -> String {
        self.to_string()
    }

    /// Reads a message.
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let text = core::str::from_utf8(message).ok()?;
        let (kind, rest) = text.split_at_checked(1)?;
        match kind {
            "P" => {
                let mut fields = rest.splitn(4, ' ');
                let name = fields.next()?;
                let from = Duration::from_micros(fields.next()?.parse().ok()?);
                let to = Duration::from_micros(fields.next()?.parse().ok()?);
                let detail = fields.next()?;
                Some(Order::Phase {
                    name,
                    from,
                    to,
                    detail,
                })
            }
            "X" => Some(Order::NoRoot(rest)),
            "R" => {
                let (wait, path) = rest.split_once(' ')?;
                let seconds = Some(wait).filter(|wait| !wait.is_empty());
                let seconds = seconds.map(str::parse).transpose().ok()?;
                Some(Order::Root {
                    path: Some(path).filter(|path| !path.is_empty()),
                    wait: seconds.map(Duration::from_secs),
                })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Order<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Phase {
                name,
                from,
                to,
                detail,
            } => {
                write!(f, "P{name} {} {} {detail}", micros(*from), micros(*to))
            }
            Order::NoRoot(reason) => write!(f, "X{reason}"),
            Order::Root { path, wait } => {
                f.write_str("R")?;
                if let Some(wait) = wait {
                    write!(f, "{}", wait.as_secs())?;
                }
                write!(f, " {}", path.unwrap_or_default())
            }
        }
    }
}

/// A message of the worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The work is over.
    Over(Exit),
    /// The way to the platform is lost: somebody has to start over from the links.
    Again,
    /// The interfaces are given back.
    Released,
}

impl Answer {
    /// Writes an answer as a message.
    pub(super) fn to_message(self) -> [u8; 2] {
        match self {
            Answer::Over(exit) => [b'F', exit as u8],
            Answer::Again => [b'A', 0],
            Answer::Released => [b'R', 0],
        }
    }

    /// Reads a message.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        match message {
            [b'F', 0] => Some(Answer::Over(Exit::Done)),
            [b'F', _] => Some(Answer::Over(Exit::Failed)),
            [b'A', _] => Some(Answer::Again),
            [b'R', _] => Some(Answer::Released),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_arrive_as_they_were_sent() {
        for order in [
            Order::Phase {
                name: "modules",
                from: Duration::from_micros(7),
                to: Duration::from_secs(9),
                detail: "10 loaded, with blanks",
            },
            Order::NoRoot("root=UUID=x did not appear"),
            Order::Root {
                path: None,
                wait: None,
            },
            Order::Root {
                path: Some("/a root"),
                wait: Some(Duration::from_secs(90)),
            },
        ] {
            assert_eq!(Order::parse(order.to_message().as_bytes()), Some(order));
        }
        for answer in [
            Answer::Over(Exit::Done),
            Answer::Over(Exit::Failed),
            Answer::Again,
            Answer::Released,
        ] {
            assert_eq!(Answer::parse(&answer.to_message()), Some(answer));
        }
    }

    #[test]
    fn other_bytes_are_neither() {
        for bytes in [
            &b""[..],
            b"Q",
            b"Pmodules 1",
            b"\xff\xfe",
            b"F",
            b"R",
            b"Rx /root",
        ] {
            assert_eq!(Order::parse(bytes), None);
            assert_eq!(Answer::parse(bytes), None);
        }
    }
}
