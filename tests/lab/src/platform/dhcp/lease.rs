//! A lease as the server remembers it, the states of a client that asks for one, and the envelope of each.
//!
//! Follows RFC 2131: table 4 and 4.3.2 for the states, 4.4.5 for the times, table 5 for what is in which message.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Message, option};
use super::server::Arrival;
use crate::platform::frame::BROADCAST;
use crate::platform::scenario::INFINITE;

/// How late a client may be: kernels let an address go at some time within its last second.
const GRACE: Duration = Duration::from_secs(1);

/// What a client has been given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    /// The client's identifier, if it named itself.
    pub(crate) client: Option<Vec<u8>>,
    pub(crate) since: Duration,
    pub(crate) seconds: u32,
}

impl Lease {
    /// Whether its time is up.
    pub(crate) fn is_over(&self, at: Duration) -> bool {
        self.seconds != INFINITE
            && at > self.since + Duration::from_secs(self.seconds.into()) + GRACE
    }
}

/// The state that a client is in when it sends a REQUEST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It takes an offer.
    Selecting {
        /// Whose offer.
        server: Ipv4Addr,
        /// What was offered.
        requested: Ipv4Addr,
    },
    /// It asks whether what it had before is still right.
    InitReboot {
        /// What it had.
        requested: Ipv4Addr,
    },
    /// It asks the server that gave the lease for more time.
    Renewing,
    /// It asks any server for more time.
    Rebinding,
}

impl State {
    /// Tells the state from which of three fields are there, and whether all were asked.
    pub(crate) fn of(message: &Message, to_all: bool) -> Option<Self> {
        let server = message.option(option::SERVER);
        let requested = message.option(option::REQUESTED);
        match (server, requested, message.ciaddr.is_unspecified()) {
            (Some(_), Some(_), true) => Some(Self::Selecting {
                server: message.address(option::SERVER)?,
                requested: message.address(option::REQUESTED)?,
            }),
            (None, Some(_), true) => Some(Self::InitReboot {
                requested: message.address(option::REQUESTED)?,
            }),
            (None, None, false) if to_all => Some(Self::Rebinding),
            (None, None, false) => Some(Self::Renewing),
            _ => None,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Selecting { .. } => "selecting",
            Self::InitReboot { .. } => "init-reboot",
            Self::Renewing => "renewing",
            Self::Rebinding => "rebinding",
        })
    }
}

/// A client without an address sends from 0.0.0.0 to everybody.
pub(super) fn check_broadcast(arrival: &Arrival<'_>, faults: &mut Vec<String>) {
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

/// What is for one server goes to that server, and not to everybody's card.
pub(super) fn check_unicast(
    arrival: &Arrival<'_>,
    lease: Option<&Lease>,
    faults: &mut Vec<String>,
) {
    let to = *arrival.destination.ip();
    if to.is_broadcast() || arrival.frame_destination[0] & 1 != 0 {
        faults.push("dhcp: broadcast, though it is for one server".into());
    } else if let Some(lease) = lease
        && lease.server != to
    {
        faults.push(format!(
            "dhcp: sent to {to}, but the lease is of {}",
            lease.server
        ));
    }
}

/// A client that asks for more time has a lease, names it by ciaddr and is who it was before; it asks
/// everybody only when the one who gave the lease had time to answer.
pub(super) fn check_extension(
    message: &Message,
    arrival: &Arrival<'_>,
    lease: Option<&Lease>,
    t2: u32,
    faults: &mut Vec<String>,
) {
    let to_all = arrival.destination.ip().is_broadcast();
    // Who asks all may do it from no address, as networkd does.
    let source = *arrival.source.ip();
    if source != message.ciaddr && !(to_all && source.is_unspecified()) {
        faults.push("dhcp: renewal from another address than ciaddr".into());
    }
    if to_all != (arrival.frame_destination == BROADCAST) {
        faults.push("dhcp: frame and packet disagree on whether all are asked".into());
    }
    if !to_all {
        check_unicast(arrival, lease, faults);
    }
    // The host's memory may be shorter than the lease: it was another boot that got it.
    let Some(lease) = lease else { return };
    if lease.address != message.ciaddr {
        faults.push(format!(
            "dhcp: renewal of {}, but {} is leased",
            message.ciaddr, lease.address
        ));
    }
    if lease.client.as_deref() != message.option(option::CLIENT) {
        faults.push("dhcp: renewal with another client id than the lease's".into());
    }
    if lease.is_over(arrival.at) {
        faults.push("dhcp: renewal of a lease that is over".into());
    }
    let early = lease.seconds == INFINITE
        || arrival.at + GRACE < lease.since + Duration::from_secs(t2.into());
    if to_all && early {
        faults.push("dhcp: asks all for more time before T2".into());
    }
}

/// DECLINE and RELEASE name the server, and the address in option 50 or ciaddr (RFC 2131, table 5).
pub(super) fn check_named(message: &Message, decline: bool, faults: &mut Vec<String>) {
    let named = if decline {
        message.option(option::REQUESTED).is_some() && message.ciaddr.is_unspecified()
    } else {
        message.option(option::REQUESTED).is_none() && !message.ciaddr.is_unspecified()
    };
    if !named || message.option(option::SERVER).is_none() {
        faults.push("dhcp: DECLINE or RELEASE does not name address and server rightly".into());
    }
}

/// INFORM is for who has an address already, and wants none (RFC 2131, table 5).
pub(super) fn check_inform(message: &Message, arrival: &Arrival<'_>, faults: &mut Vec<String>) {
    if message.ciaddr.is_unspecified() || *arrival.source.ip() != message.ciaddr {
        faults.push("dhcp: INFORM without an address, or from another one".into());
    }
    for code in [option::REQUESTED, option::LEASE, option::SERVER] {
        if message.option(code).is_some() {
            faults.push(format!("dhcp: INFORM with option {code}"));
        }
    }
}
