//! The DHCP client of one interface (RFC 2131, from INIT to BOUND).
//!
//! Frames and the time go in, frames and a lease come out. Keeping a lease is not its business: the
//! initramfs is left long before a lease needs renewing, and Azure's run for ever.

use core::time::Duration;

use super::backoff::{Backoff, Random};
use crate::wire::dhcp::{Ask, Lease, Message, Reply, ReplyKind, is_unicast};

/// The first wait for an answer; the answer itself takes well under a millisecond on Azure.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Unanswered requests before looking for a server again.
const MAX_REQUESTS: u8 = 4;
/// How long an offer without a WireServer waits for a better one.
const GRACE: Duration = Duration::from_millis(300);
/// How long to hold back after a refusal, doubling: a server that refuses always must not be
/// asked at the speed of the wire.
const FIRST_REFUSAL_WAIT: Duration = Duration::from_millis(100);

/// A DHCP client.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    random: Random,
    xid: u32,
    started: Duration,
    phase: Phase,
    /// When something is to be sent or decided.
    due: Duration,
    wait: Backoff,
    refusals: Backoff,
    discovers: u8,
}

#[derive(Debug)]
enum Phase {
    /// Looking for a server.
    Selecting,
    /// Holding an offer, in the hope of a better one.
    Holding(Offer),
    /// The offer is taken; waiting for the server to give it.
    Requesting(Offer),
    Bound,
}

#[derive(Debug, Clone)]
struct Offer {
    lease: Lease,
    sender: [u8; 6],
}

/// What a frame meant to the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing, or not for us.
    Nothing,
    /// The lease is ours.
    Bound(Lease),
    /// The server refused; the client starts over.
    Refused,
}

impl Client {
    /// Creates a client that is due to send its first DISCOVER at `now`.
    pub fn new(mac: [u8; 6], mut random: Random, now: Duration) -> Self {
        Client {
            mac,
            xid: random.bits(),
            random,
            started: now,
            phase: Phase::Selecting,
            due: now,
            wait: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            refusals: Backoff::new(FIRST_REFUSAL_WAIT, LONGEST_WAIT),
            discovers: 0,
        }
    }

    /// Returns how many DISCOVERs went out.
    pub fn discovers(&self) -> u8 {
        self.discovers
    }

    /// Returns the offer that is being requested: what it says holds unless the server changes its
    /// mind within the round trip.
    pub fn requested(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Requesting(offer) => Some(&offer.lease),
            _ => None,
        }
    }

    /// Returns when [`Client::poll`] has something to do; `None` once there is a lease.
    pub fn due(&self) -> Option<Duration> {
        (!matches!(self.phase, Phase::Bound)).then_some(self.due)
    }

    /// Makes the next message due at once, because the link has just come up.
    pub fn link_up(&mut self, now: Duration) {
        if matches!(self.phase, Phase::Selecting) {
            self.wait.reset();
            self.due = now;
        }
    }

    /// Writes the frame that is due into `frame` and returns its length.
    ///
    /// `host_name` goes into the message when it is known: whatever name is sent first resolves in
    /// the network's zone, so it must be the final one.
    pub fn poll(
        &mut self,
        now: Duration,
        frame: &mut [u8],
        host_name: Option<&str>,
    ) -> Option<usize> {
        if now < self.due {
            return None;
        }
        match &self.phase {
            Phase::Bound => return None,
            Phase::Selecting => {}
            // No better offer came.
            Phase::Holding(offer) => {
                let offer = offer.clone();
                self.take(offer, now);
            }
            Phase::Requesting(_) if self.wait.tries() >= MAX_REQUESTS => self.start_over(now),
            Phase::Requesting(_) => {}
        }
        let ask = match &self.phase {
            Phase::Requesting(offer) => Ask::Request {
                address: offer.lease.address,
                server: offer.lease.server,
            },
            _ => {
                self.discovers = self.discovers.saturating_add(1);
                Ask::Discover
            }
        };
        // Some relays only deliver a broadcast to a machine without an address; most deliver either.
        let broadcast = self.wait.tries() % 2 == 1;
        self.due = now.saturating_add(self.wait.next(&mut self.random));
        let seconds = now.saturating_sub(self.started).as_secs();
        Message {
            ask,
            mac: self.mac,
            xid: self.xid,
            seconds: u16::try_from(seconds).unwrap_or(u16::MAX),
            broadcast,
            host_name,
        }
        .emit(frame)
    }

    /// Takes a server's reply.
    pub fn receive(&mut self, now: Duration, reply: &Reply) -> Event {
        if reply.xid != self.xid || reply.mac != self.mac {
            return Event::Nothing;
        }
        match (&self.phase, reply.kind) {
            (Phase::Selecting | Phase::Holding(_), ReplyKind::Offer) => self.consider(now, reply),
            (Phase::Requesting(offer), ReplyKind::Ack) if answers(reply, offer) => {
                let mut lease = reply.lease.clone();
                // An acknowledgement may leave out what the offer told already.
                if lease.server.is_unspecified() {
                    lease.server = offer.lease.server;
                }
                self.phase = Phase::Bound;
                Event::Bound(lease)
            }
            (Phase::Requesting(offer), ReplyKind::Nak)
                if reply.server.is_unspecified() || reply.server == offer.lease.server =>
            {
                let wait = self.refusals.next(&mut self.random);
                self.start_over(now);
                self.due = now.saturating_add(wait);
                Event::Refused
            }
            _ => Event::Nothing,
        }
    }

    fn consider(&mut self, now: Duration, reply: &Reply) -> Event {
        if !is_unicast(reply.lease.address) || !is_unicast(reply.server) {
            return Event::Nothing;
        }
        let offer = Offer {
            lease: reply.lease.clone(),
            sender: reply.sender,
        };
        if offer.lease.wireserver.is_some() {
            self.take(offer, now);
        } else if matches!(self.phase, Phase::Selecting) {
            self.phase = Phase::Holding(offer);
            self.due = now.saturating_add(GRACE);
        }
        Event::Nothing
    }

    fn take(&mut self, offer: Offer, now: Duration) {
        self.phase = Phase::Requesting(offer);
        self.wait.reset();
        self.due = now;
    }

    fn start_over(&mut self, now: Duration) {
        self.phase = Phase::Selecting;
        self.xid = self.random.bits();
        self.wait.reset();
        self.due = now;
    }
}

/// Tells whether an acknowledgement is the answer to the request for `offer`.
///
/// A server that leaves its identifier out is known by its hardware address.
fn answers(reply: &Reply, offer: &Offer) -> bool {
    let same_server = if reply.server.is_unspecified() {
        reply.sender == offer.sender
    } else {
        reply.server == offer.lease.server
    };
    same_server && reply.lease.address == offer.lease.address
}
