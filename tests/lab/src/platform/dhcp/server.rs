//! What the server answers to whom, and what it finds wrong with those who ask.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::lease::{self, Lease, State};
use super::message::{Kind, Message, Shape, option};
use super::words::{self, garbage};
use crate::platform::frame::{BROADCAST, Mac};
use crate::platform::scenario::Dhcp;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// By how much the slower of two servers is slower.
const RIVAL_LAG: Duration = Duration::from_micros(300);

/// The subnet that a network card is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    pub(crate) address: Ipv4Addr,
    pub(crate) mask: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
    /// Only the primary card has routes to the platform's services.
    pub(crate) primary: bool,
}

/// A message that arrived, with its envelope.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    pub(crate) at: Duration,
    pub(crate) frame_source: Mac,
    pub(crate) frame_destination: Mac,
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    pub(crate) payload: &'a [u8],
}

/// A message to send, with its envelope.
#[derive(Debug, Clone)]
pub(crate) struct Departure {
    pub(crate) after: Duration,
    pub(crate) frame_destination: Mac,
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    pub(crate) summary: String,
    pub(crate) payload: Vec<u8>,
}

/// What the server did with a message.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What the client said.
    pub(crate) heard: String,
    /// What is wrong with it.
    pub(crate) faults: Vec<String>,
    /// What is answered.
    pub(crate) answers: Vec<Departure>,
}

/// Which server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    Platform,
    Rival,
}

/// The server's memory of one network card.
#[derive(Debug, Default)]
pub(crate) struct Server {
    discover: Option<Message>,
    discovers: u32,
    requests: u32,
    renewals: u32,
    unheard: u32,
    answers: u32,
    lease: Option<Lease>,
    /// Whether a lease was ever given: then the server moves, if the scenario has it so.
    gave: bool,
}

impl Server {
    /// The address that the client has been given.
    pub(crate) fn leased(&self) -> Option<Ipv4Addr> {
        self.lease.as_ref().map(|lease| lease.address)
    }

    /// Whether the client had this address, and ought to have given it up by now.
    pub(crate) fn has_outlived(&self, address: Ipv4Addr, at: Duration) -> bool {
        self.lease
            .as_ref()
            .is_some_and(|lease| lease.address == address && lease.is_over(at))
    }

    /// The address that the server has now.
    fn own(&self, config: &Dhcp) -> Ipv4Addr {
        match config.server_moves {
            Some(next) if self.gave => next,
            _ => config.server,
        }
    }

    /// Takes a message.
    pub(crate) fn receive(
        &mut self,
        arrival: &Arrival<'_>,
        network: &Network,
        config: &Dhcp,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let faults = &mut outcome.faults;
        let Some(message) = Message::parse(arrival.payload, faults) else {
            outcome.heard = format!("unreadable, {} bytes", arrival.payload.len());
            return outcome;
        };
        outcome.heard = message.to_string();
        if message.chaddr != arrival.frame_source {
            faults.push("dhcp: chaddr is not the sender of the frame".into());
        }
        if arrival.source.port() != CLIENT_PORT {
            faults.push(format!(
                "dhcp: sent from port {}, not 68",
                arrival.source.port()
            ));
        }
        let answers = match message.kind() {
            Some(Kind::Discover) => self.discover(&message, arrival, network, config, faults),
            Some(Kind::Request) => self.request(&message, arrival, network, config, faults),
            Some(Kind::Inform) => {
                lease::check_inform(&message, arrival, faults);
                self.answer(Kind::Ack, Voice::Platform, &message, network, config)
            }
            Some(Kind::Decline) => {
                lease::check_named(&message, true, faults);
                lease::check_broadcast(arrival, faults);
                self.lease = None;
                Vec::new()
            }
            Some(Kind::Release) => {
                lease::check_named(&message, false, faults);
                lease::check_unicast(arrival, self.lease.as_ref(), faults);
                self.lease = None;
                Vec::new()
            }
            Some(kind) => {
                faults.push(format!("dhcp: {kind:?} is not for clients to send"));
                Vec::new()
            }
            None => {
                faults.push("dhcp: option 53 is missing or unknown".into());
                Vec::new()
            }
        };
        outcome.answers = answers;
        outcome
    }

    fn discover(
        &mut self,
        message: &Message,
        arrival: &Arrival<'_>,
        network: &Network,
        config: &Dhcp,
        faults: &mut Vec<String>,
    ) -> Vec<Departure> {
        lease::check_broadcast(arrival, faults);
        if !message.ciaddr.is_unspecified() {
            faults.push("dhcp: DISCOVER with ciaddr".into());
        }
        if message.option(option::SERVER).is_some() {
            faults.push("dhcp: DISCOVER with option 54".into());
        }
        self.discovers += 1;
        self.discover = Some(message.clone());
        if !config.answers || self.discovers <= config.ignore {
            return Vec::new();
        }
        let mut answers = self.answer(Kind::Offer, Voice::Platform, message, network, config);
        if config.rival.is_some() {
            let rival = self.answer(Kind::Offer, Voice::Rival, message, network, config);
            let (first, second) = if config.rival_first {
                (rival, answers)
            } else {
                (answers, rival)
            };
            answers = first;
            answers.extend(second.into_iter().map(|mut departure| {
                departure.after += RIVAL_LAG;
                departure
            }));
        }
        answers
    }

    fn request(
        &mut self,
        message: &Message,
        arrival: &Arrival<'_>,
        network: &Network,
        config: &Dhcp,
        faults: &mut Vec<String>,
    ) -> Vec<Departure> {
        let to_all = arrival.destination.ip().is_broadcast();
        let Some(state) = State::of(message, to_all) else {
            faults.push(
                "dhcp: options 54 and 50 and ciaddr of a REQUEST fit no state of RFC 2131".into(),
            );
            return Vec::new();
        };
        let given_by_rival = |lease: &Lease| Some(lease.server) == config.rival;
        let (voice, wanted) = match state {
            State::Selecting { server, requested } => {
                lease::check_broadcast(arrival, faults);
                self.check_against_discover(message, faults);
                if server == self.own(config) {
                    (Voice::Platform, requested)
                } else if config.rival == Some(server) {
                    (Voice::Rival, requested)
                } else {
                    faults.push(format!("dhcp: REQUEST to {server}, who offered nothing"));
                    return Vec::new();
                }
            }
            State::InitReboot { requested } => {
                lease::check_broadcast(arrival, faults);
                (Voice::Platform, requested)
            }
            State::Renewing | State::Rebinding => {
                let t2 = words::rebinding_time(config);
                lease::check_extension(message, arrival, self.lease.as_ref(), t2, faults);
                if self.lease.as_ref().is_some_and(given_by_rival) {
                    (Voice::Rival, message.ciaddr)
                } else {
                    (Voice::Platform, message.ciaddr)
                }
            }
        };
        if !config.answers {
            return Vec::new();
        }
        let extends = matches!(state, State::Renewing | State::Rebinding);
        if state == State::Renewing && voice == Voice::Platform {
            let to = *arrival.destination.ip();
            if to != self.own(config) {
                // The server was there once, or never.
                if to != config.server {
                    faults.push(format!("dhcp: REQUEST to {to}, where no server is"));
                }
                return Vec::new();
            }
            self.unheard += 1;
            if self.unheard <= config.ignore_renewals {
                return Vec::new();
            }
        }
        let refused = if extends {
            self.renewals += 1;
            self.renewals <= config.nak_renewals
        } else {
            self.requests += 1;
            self.requests <= config.nak
        };
        let right = match voice {
            Voice::Platform => network.address,
            Voice::Rival => config.rival_address,
        };
        if wanted != right {
            faults.push(format!("dhcp: REQUEST for {wanted}, which was not offered"));
        }
        let over = extends && self.has_outlived(wanted, arrival.at);
        if wanted != right || refused || over {
            self.lease = None;
            return self.answer(Kind::Nak, voice, message, network, config);
        }
        let answers = self.answer(Kind::Ack, voice, message, network, config);
        self.lease = Some(Lease {
            address: wanted,
            server: match voice {
                Voice::Platform => self.own(config),
                Voice::Rival => config.rival.unwrap_or(config.server),
            },
            client: message.option(option::CLIENT).map(<[u8]>::to_vec),
            since: arrival.at,
            seconds: match voice {
                Voice::Platform => config.lease,
                Voice::Rival => words::RIVAL_LEASE,
            },
        });
        self.gave = true;
        answers
    }

    /// A REQUEST that takes an offer repeats what the DISCOVER said (RFC 2131, 3.5, 4.2, 4.3.2, 4.4.1).
    fn check_against_discover(&self, message: &Message, faults: &mut Vec<String>) {
        let Some(discover) = &self.discover else {
            faults.push("dhcp: REQUEST takes an offer, but there was no DISCOVER".into());
            return;
        };
        if discover.xid != message.xid {
            faults.push("dhcp: REQUEST has another xid than the last DISCOVER".into());
        }
        if discover.secs != message.secs {
            faults.push("dhcp: REQUEST has other secs than the last DISCOVER".into());
        }
        for (code, name) in [
            (option::PARAMETERS, "parameter list"),
            (option::CLIENT, "client id"),
        ] {
            if discover.option(code).is_some() && discover.option(code) != message.option(code) {
                faults.push(format!(
                    "dhcp: REQUEST has another {name} than the last DISCOVER"
                ));
            }
        }
    }

    fn answer(
        &mut self,
        kind: Kind,
        voice: Voice,
        to: &Message,
        network: &Network,
        config: &Dhcp,
    ) -> Vec<Departure> {
        let (server, yiaddr) = match voice {
            Voice::Platform => (self.own(config), network.address),
            Voice::Rival => (config.rival.unwrap_or(config.server), config.rival_address),
        };
        let lease_given =
            kind == Kind::Offer || (kind == Kind::Ack && to.kind() == Some(Kind::Request));
        let yiaddr = if lease_given {
            yiaddr
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let options = match (kind, voice) {
            (Kind::Nak, _) => vec![
                (option::KIND, vec![kind as u8]),
                (option::SERVER, server.octets().into()),
                (option::MESSAGE, b"requested address not available".into()),
            ],
            (_, Voice::Platform) => words::options(kind, lease_given, to, server, network, config),
            (_, Voice::Rival) => words::rival_options(kind, server, network),
        };
        let nak = kind == Kind::Nak;
        let message = Message {
            op: 2,
            xid: to.xid,
            secs: 0,
            flags: to.flags,
            ciaddr: if kind == Kind::Ack {
                to.ciaddr
            } else {
                Ipv4Addr::UNSPECIFIED
            },
            yiaddr,
            // Captures of Azure show both filled; a client must not care.
            siaddr: if nak { Ipv4Addr::UNSPECIFIED } else { server },
            giaddr: if nak {
                Ipv4Addr::UNSPECIFIED
            } else {
                network.gateway
            },
            chaddr: to.chaddr,
            sname: if nak {
                String::new()
            } else {
                "RD0003FF4A5B6C".into()
            },
            options,
        };
        let (frame_destination, ip) = if nak || to.flags & 0x8000 != 0 && to.ciaddr.is_unspecified()
        {
            (BROADCAST, Ipv4Addr::BROADCAST)
        } else if to.ciaddr.is_unspecified() {
            (to.chaddr, yiaddr)
        } else {
            (to.chaddr, to.ciaddr)
        };
        let shape = Shape {
            split: config.split,
            overload: config.overload && !nak,
        };
        let good = Departure {
            after: config.delay,
            frame_destination,
            source: SocketAddrV4::new(server, SERVER_PORT),
            destination: SocketAddrV4::new(ip, CLIENT_PORT),
            summary: message.to_string(),
            payload: message.bytes(shape),
        };
        self.answers += 1;
        let mut departures = Vec::new();
        if self.answers <= config.garbage {
            departures.extend(garbage(&good, self.answers));
        }
        departures.push(good);
        departures
    }
}
