//! What the server answers to whom, and what it finds wrong with those who ask.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::message::{Kind, Message, Shape, option};
use crate::platform::frame::{BROADCAST, Mac};
use crate::platform::scenario::{Dhcp, IMDS, INFINITE, Route};

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
    answers: u32,
    leased: Option<Ipv4Addr>,
}

impl Server {
    /// The address that the client has been given.
    pub(crate) fn leased(&self) -> Option<Ipv4Addr> {
        self.leased
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
                self.answer(Kind::Ack, Voice::Platform, &message, network, config)
            }
            Some(Kind::Decline) => {
                check_named(&message, true, faults);
                self.leased = None;
                Vec::new()
            }
            Some(Kind::Release) => {
                check_named(&message, false, faults);
                self.leased = None;
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
        check_broadcast(arrival, faults);
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
        let server = message.address(option::SERVER);
        let requested = message.address(option::REQUESTED);
        // RFC 2131, 4.3.2 tells the client's state from which of three things are there.
        let (voice, wanted) = match (server, requested, message.ciaddr.is_unspecified()) {
            (Some(server), Some(requested), true) => {
                check_broadcast(arrival, faults);
                self.check_against_discover(message, faults);
                if server == config.server {
                    (Voice::Platform, requested)
                } else if config.rival == Some(server) {
                    (Voice::Rival, requested)
                } else {
                    faults.push(format!("dhcp: REQUEST to {server}, who offered nothing"));
                    return Vec::new();
                }
            }
            (None, Some(requested), true) => {
                check_broadcast(arrival, faults);
                (Voice::Platform, requested)
            }
            (None, None, false) => {
                if *arrival.source.ip() != message.ciaddr {
                    faults.push("dhcp: renewal from another address than ciaddr".into());
                }
                (Voice::Platform, message.ciaddr)
            }
            _ => {
                faults.push(
                    "dhcp: options 54 and 50 and ciaddr of a REQUEST fit no state of RFC 2131"
                        .into(),
                );
                return Vec::new();
            }
        };
        if !config.answers {
            return Vec::new();
        }
        self.requests += 1;
        let right = match voice {
            Voice::Platform => network.address,
            Voice::Rival => config.rival_address,
        };
        if wanted != right {
            faults.push(format!("dhcp: REQUEST for {wanted}, which was not offered"));
        }
        if wanted != right || self.requests <= config.nak {
            self.leased = None;
            return self.answer(Kind::Nak, voice, message, network, config);
        }
        self.leased = Some(wanted);
        self.answer(Kind::Ack, voice, message, network, config)
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
            Voice::Platform => (config.server, network.address),
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
            (_, Voice::Platform) => options(kind, lease_given, to, network, config),
            (_, Voice::Rival) => rival_options(kind, server, network),
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

/// What Azure's server says.
fn options(
    kind: Kind,
    lease_given: bool,
    to: &Message,
    network: &Network,
    config: &Dhcp,
) -> Vec<(u8, Vec<u8>)> {
    let join = |addresses: &[Ipv4Addr]| addresses.iter().flat_map(Ipv4Addr::octets).collect();
    let mut options: Vec<(u8, Vec<u8>)> = vec![
        (option::KIND, vec![kind as u8]),
        (option::SERVER, config.server.octets().into()),
    ];
    if lease_given {
        let lease = config.lease;
        let part = |numerator: u64| {
            if lease == INFINITE {
                INFINITE
            } else {
                (u64::from(lease) * numerator / 8) as u32
            }
        };
        for (code, seconds) in [
            (option::LEASE, lease),
            (option::T1, config.t1.unwrap_or(part(4))),
            (option::T2, config.t2.unwrap_or(part(7))),
        ] {
            options.push((code, seconds.to_be_bytes().into()));
        }
    }
    options.push((
        option::MASK,
        config.mask.unwrap_or(network.mask).octets().into(),
    ));
    options.push((option::DNS, join(&config.dns)));
    options.push((option::DOMAIN, config.domain.clone().into()));
    options.push((option::WIRESERVER, config.wireserver.octets().into()));
    let classless = classless_routes(network, config);
    if to.asks_for(option::ROUTES) {
        options.push((option::ROUTES, classless.clone()));
    }
    if config.routes249 {
        options.push((option::ROUTES_MICROSOFT, classless));
    }
    let routers = match &config.routers {
        Some(routers) if network.primary => routers.as_slice(),
        _ => &[network.gateway],
    };
    options.push((option::ROUTERS, join(routers)));
    for (code, value) in &config.extra {
        options.retain(|(known, _)| known != code);
        options.push((*code, value.clone()));
    }
    options.retain(|(code, _)| !config.without.contains(code));
    options
}

/// What a home router that somebody plugged in would say.
fn rival_options(kind: Kind, server: Ipv4Addr, network: &Network) -> Vec<(u8, Vec<u8>)> {
    vec![
        (option::KIND, vec![kind as u8]),
        (option::SERVER, server.octets().into()),
        (option::LEASE, 3600_u32.to_be_bytes().into()),
        (option::MASK, network.mask.octets().into()),
        (option::ROUTERS, network.gateway.octets().into()),
        (option::DNS, server.octets().into()),
    ]
}

/// Option 121: a default route and one route to each service, all through the gateway.
fn classless_routes(network: &Network, config: &Dhcp) -> Vec<u8> {
    let through = |destination, bits| Route {
        destination,
        bits,
        router: network.gateway,
    };
    let mut routes = vec![through(Ipv4Addr::UNSPECIFIED, 0)];
    if network.primary {
        routes.push(through(config.wireserver, 32));
        routes.push(through(IMDS, 32));
        if let Some(scripted) = &config.routes {
            routes.clone_from(scripted);
        }
    }
    let mut out = Vec::new();
    for route in routes {
        // More than 32 bits are somebody's wish for a malformed option; the address has only four bytes.
        let significant = usize::from(route.bits).div_ceil(8).min(4);
        out.push(route.bits);
        out.extend_from_slice(&route.destination.octets()[..significant]);
        out.extend_from_slice(&route.router.octets());
    }
    out
}

/// Messages that a client must not believe, each made from the good one.
fn garbage(good: &Departure, number: u32) -> Vec<Departure> {
    let bad = |what: &str, payload: Vec<u8>| Departure {
        summary: format!("garbage: {what}"),
        payload,
        ..good.clone()
    };
    let mut noise = u64::from(number) | 0x9e37_79b9_0000_0000;
    let mut random = good.payload.clone();
    for byte in &mut random[HEADER_AND_COOKIE..] {
        // xorshift64
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        *byte = noise as u8;
    }
    let mut other_xid = good.payload.clone();
    other_xid[4] ^= 0xff;
    let mut other_client = good.payload.clone();
    other_client[28] ^= 0x02;
    let mut endless = good.payload[..HEADER_AND_COOKIE].to_vec();
    endless.extend_from_slice(&[option::KIND, 200, 2]);
    vec![
        bad("random options", random),
        bad("another xid", other_xid),
        bad("another client", other_client),
        bad("an option longer than the message", endless),
        bad("half a header", good.payload[..100].to_vec()),
    ]
}

const HEADER_AND_COOKIE: usize = 240;

/// A client without an address sends from 0.0.0.0 to everybody.
fn check_broadcast(arrival: &Arrival<'_>, faults: &mut Vec<String>) {
    if !arrival.source.ip().is_unspecified() {
        faults.push(format!(
            "dhcp: sent from {} before there is a lease",
            arrival.source.ip()
        ));
    }
    if !arrival.destination.ip().is_broadcast() || arrival.frame_destination != BROADCAST {
        faults.push("dhcp: not broadcast".into());
    }
}

/// DECLINE and RELEASE name the server, and the address in option 50 or ciaddr (RFC 2131, table 5).
fn check_named(message: &Message, decline: bool, faults: &mut Vec<String>) {
    let named = if decline {
        message.option(option::REQUESTED).is_some() && message.ciaddr.is_unspecified()
    } else {
        message.option(option::REQUESTED).is_none() && !message.ciaddr.is_unspecified()
    };
    if !named || message.option(option::SERVER).is_none() {
        faults.push("dhcp: DECLINE or RELEASE does not name address and server rightly".into());
    }
}
