//! The DHCP client of one interface (RFC 2131).
//!
//! Messages and the time go in, messages and a lease come out. In the initramfs it goes from INIT to
//! BOUND and no further: that is left long before a lease needs renewing, and Azure's run for ever.
//! [`Client::resume`] goes on from there.

use core::net::Ipv4Addr;
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
/// The shortest wait for an answer to a renewal (RFC 2131, 4.4.5).
const RENEWAL_WAIT: Duration = Duration::from_mins(1);

/// A DHCP client.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    random: Random,
    xid: u32,
    started: Duration,
    /// What the last DISCOVER said of the time; its REQUEST must say the same (RFC 2131, 4.4.1).
    seconds: u16,
    phase: Phase,
    /// What is offered or requested.
    offer: Option<Offer>,
    /// What is held and shall be renewed.
    held: Option<Held>,
    /// When something is to be sent or decided.
    due: Duration,
    wait: Backoff,
    refusals: Backoff,
    discovers: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Looking for a server.
    Selecting,
    /// Holding an offer, in the hope of a better one.
    Holding,
    /// The offer is taken; waiting for the server to give it.
    Requesting,
    Bound,
    /// The server is asked to renew what is held.
    Renewing,
    /// Any server is.
    Rebinding,
}

/// A finite lease that is held, and its times on the client's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The address.
    pub address: Ipv4Addr,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// When to ask the server to renew it (T1).
    pub renew: Duration,
    /// When to ask any server (T2).
    pub rebind: Duration,
    /// When it ends.
    pub end: Duration,
}

#[derive(Debug)]
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
    /// The server refused; the client starts over, and what it held is not its own any more.
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
            seconds: 0,
            phase: Phase::Selecting,
            offer: None,
            held: None,
            due: now,
            wait: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            refusals: Backoff::new(FIRST_REFUSAL_WAIT, LONGEST_WAIT),
            discovers: 0,
        }
    }

    /// Creates a client that holds a lease and is to renew it.
    pub fn resume(mac: [u8; 6], random: Random, held: Held) -> Self {
        Client {
            phase: Phase::Bound,
            held: Some(held),
            ..Client::new(mac, random, held.renew)
        }
    }

    /// Tells whether what was held has ended, unrenewed.
    pub fn has_ended(&self, now: Duration) -> bool {
        self.held.is_some_and(|held| now >= held.end)
    }

    /// Tells whether an answer to a renewal is awaited.
    pub fn is_renewing(&self) -> bool {
        matches!(self.phase, Phase::Renewing | Phase::Rebinding)
    }

    /// Returns how many DISCOVERs went out.
    pub fn discovers(&self) -> u8 {
        self.discovers
    }

    /// Returns the offer that is being requested: what it says holds unless the server changes its
    /// mind within the round trip.
    pub fn requested(&self) -> Option<&Lease> {
        let offer = self.offer.as_ref()?;
        (self.phase == Phase::Requesting).then_some(&offer.lease)
    }

    /// Returns when [`Client::poll`] has something to do; `None` once there is a lease that is not
    /// to be renewed.
    pub fn due(&self) -> Option<Duration> {
        (self.phase != Phase::Bound || self.held.is_some()).then_some(self.due)
    }

    /// Makes the next message due at once, because the link has just come up.
    pub fn link_up(&mut self, now: Duration) {
        if self.phase == Phase::Selecting {
            self.wait.reset();
            self.due = now;
        }
        if self.is_renewing() {
            self.due = now;
        }
    }

    /// Returns the message by which the lease is to be renewed, when one is due, and the server that
    /// it is for; without one it is for all.
    ///
    /// It is for the kernel's UDP: a machine that has its address is not to be spoken to by frames.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub fn renew<'a>(
        &mut self,
        now: Duration,
        host_name: Option<&'a str>,
    ) -> Option<(Message<'a>, Option<Ipv4Addr>)> {
        let held = self.held.filter(|held| now >= self.due && now < held.end)?;
        if self.phase == Phase::Bound {
            self.xid = self.random.bits();
            self.started = now;
        }
        let (server, until) = if now < held.rebind {
            self.phase = Phase::Renewing;
            (Some(held.server), held.rebind)
        } else {
            self.phase = Phase::Rebinding;
            (None, held.end)
        };
        let left = until.saturating_sub(now);
        let wait = left.checked_div(2).unwrap_or(left).max(RENEWAL_WAIT);
        self.due = now.saturating_add(wait).min(until);
        let ask = Ask::Extend {
            address: held.address,
        };
        let seconds = now.saturating_sub(self.started).as_secs();
        self.seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
        Some((self.message(ask, false, host_name), server))
    }

    fn message<'a>(&self, ask: Ask, broadcast: bool, host_name: Option<&'a str>) -> Message<'a> {
        Message {
            ask,
            mac: self.mac,
            xid: self.xid,
            seconds: self.seconds,
            broadcast,
            host_name,
        }
    }

    /// Writes the frame that is due into `frame` and returns its length.
    ///
    /// `host_name` goes into the message when it is known: whatever name is sent first resolves in
    /// the network's zone, so it must be the final one.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub fn poll(
        &mut self,
        now: Duration,
        frame: &mut [u8],
        host_name: Option<&str>,
    ) -> Option<usize> {
        if now < self.due {
            return None;
        }
        match self.phase {
            // See `Client::renew`.
            Phase::Bound | Phase::Renewing | Phase::Rebinding => return None,
            // No better offer came.
            Phase::Holding => self.take(now),
            Phase::Requesting if self.wait.tries() >= MAX_REQUESTS => self.start_over(now),
            Phase::Selecting | Phase::Requesting => {}
        }
        let ask = if let Some(lease) = self.requested() {
            Ask::Request {
                address: lease.address,
                server: lease.server,
            }
        } else {
            if self.discovers == 0 {
                self.started = now;
            }
            self.discovers = self.discovers.saturating_add(1);
            let seconds = now.saturating_sub(self.started).as_secs();
            self.seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
            Ask::Discover
        };
        // Some relays only deliver a broadcast to a machine without an address; most deliver either.
        let broadcast = self.wait.tries() % 2 == 1;
        self.due = now.saturating_add(self.wait.next(&mut self.random));
        self.message(ask, broadcast, host_name).emit(frame)
    }

    /// Takes a server's reply.
    pub fn receive(&mut self, now: Duration, reply: Reply) -> Event {
        if reply.xid != self.xid || reply.mac != self.mac {
            return Event::Nothing;
        }
        match (self.phase, reply.kind, &self.offer) {
            (Phase::Selecting | Phase::Holding, ReplyKind::Offer, _) => self.consider(now, reply),
            (Phase::Requesting, ReplyKind::Ack, Some(offer)) if answers(&reply, offer) => {
                let mut lease = reply.lease;
                // An acknowledgement may leave out what the offer told already.
                if lease.server.is_unspecified() {
                    lease.server = offer.lease.server;
                }
                self.phase = Phase::Bound;
                Event::Bound(lease)
            }
            (Phase::Requesting, ReplyKind::Nak, Some(offer))
                if reply.server.is_unspecified() || reply.server == offer.lease.server =>
            {
                let wait = self.refusals.next(&mut self.random);
                self.start_over(now);
                self.due = now.saturating_add(wait);
                Event::Refused
            }
            (Phase::Renewing | Phase::Rebinding, ReplyKind::Ack | ReplyKind::Nak, _) => {
                self.conclude(now, reply)
            }
            _ => Event::Nothing,
        }
    }

    /// Takes the answer to a renewal.
    fn conclude(&mut self, now: Duration, reply: Reply) -> Event {
        let Some(held) = self.held else {
            return Event::Nothing;
        };
        let mut lease = reply.lease;
        if lease.server.is_unspecified() {
            lease.server = held.server;
        }
        // Once any server is asked, any may answer.
        if self.phase == Phase::Renewing && lease.server != held.server {
            return Event::Nothing;
        }
        if reply.kind == ReplyKind::Nak {
            self.held = None;
            self.start_over(now);
            return Event::Refused;
        }
        if !is_unicast(lease.address) {
            return Event::Nothing;
        }
        self.phase = Phase::Bound;
        self.held = None;
        Event::Bound(lease)
    }

    fn consider(&mut self, now: Duration, reply: Reply) -> Event {
        if !is_unicast(reply.lease.address) || !is_unicast(reply.server) {
            return Event::Nothing;
        }
        let offer = Offer {
            lease: reply.lease,
            sender: reply.sender,
        };
        let complete = offer.lease.names_wireserver();
        if complete || self.phase == Phase::Selecting {
            self.offer = Some(offer);
        }
        if complete {
            self.take(now);
        } else if self.phase == Phase::Selecting {
            self.phase = Phase::Holding;
            self.due = now.saturating_add(GRACE);
        }
        Event::Nothing
    }

    /// Takes the offer that is held.
    fn take(&mut self, now: Duration) {
        self.phase = Phase::Requesting;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dhcp::{self, MAX_FRAME};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn client() -> Client {
        Client::new(MAC, Random::new(42), Duration::ZERO)
    }

    /// Lets the client send what is due and returns kind (option 53) and broadcast flag.
    fn sent(client: &mut Client, now: Duration) -> Option<(u8, bool)> {
        let mut frame = [0; MAX_FRAME];
        let length = client.poll(now, &mut frame, None)?;
        let message = &frame[42..length];
        Some((message[242], message[10] & 0x80 != 0))
    }

    fn reply(client: &Client, kind: ReplyKind, server: Ipv4Addr, wireserver: bool) -> Reply {
        let mut bytes = std::vec![0; 240];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&client.xid.to_be_bytes());
        bytes[16..20].copy_from_slice(&ADDRESS.octets());
        bytes[28..34].copy_from_slice(&MAC);
        bytes[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        let number = match kind {
            ReplyKind::Offer => 2,
            ReplyKind::Ack => 5,
            ReplyKind::Nak => 6,
        };
        bytes.extend_from_slice(&[53, 1, number]);
        if !server.is_unspecified() {
            bytes.extend_from_slice(&[54, 4]);
            bytes.extend_from_slice(&server.octets());
        }
        if wireserver {
            bytes.extend_from_slice(&[245, 4, 168, 63, 129, 16]);
        }
        bytes.push(255);
        dhcp::parse(&bytes, [9; 6]).unwrap()
    }

    #[test]
    fn offer_with_a_wireserver_is_taken_at_once() {
        let mut client = client();
        assert_eq!(sent(&mut client, Duration::ZERO), Some((1, false)));
        let offer = reply(&client, ReplyKind::Offer, SERVER, true);
        assert_eq!(client.receive(ms(1), offer), Event::Nothing);
        assert_eq!(client.requested().map(|lease| lease.address), Some(ADDRESS));
        assert_eq!(sent(&mut client, ms(1)), Some((3, false)));
        let ack = reply(&client, ReplyKind::Ack, SERVER, true);
        assert!(
            matches!(client.receive(ms(2), ack), Event::Bound(lease) if lease.address == ADDRESS)
        );
        assert_eq!(client.due(), None);
    }

    #[test]
    fn offer_without_a_wireserver_waits_for_a_better_one() {
        let mut client = client();
        sent(&mut client, Duration::ZERO);
        let poor = reply(&client, ReplyKind::Offer, Ipv4Addr::new(10, 0, 0, 9), false);
        client.receive(ms(1), poor);
        assert!(client.requested().is_none());
        assert_eq!(sent(&mut client, ms(100)), None);
        let good = reply(&client, ReplyKind::Offer, SERVER, true);
        client.receive(ms(101), good);
        assert_eq!(client.requested().map(|lease| lease.server), Some(SERVER));
    }

    #[test]
    fn offer_without_a_wireserver_is_taken_when_no_better_one_comes() {
        let mut client = client();
        sent(&mut client, Duration::ZERO);
        let poor = reply(&client, ReplyKind::Offer, SERVER, false);
        client.receive(ms(1), poor);
        assert_eq!(sent(&mut client, ms(301)), Some((3, false)));
    }

    #[test]
    fn unanswered_discovers_go_out_again_soon_and_every_other_by_broadcast() {
        let mut client = client();
        let mut flags = std::vec::Vec::new();
        let mut now = Duration::ZERO;
        while now < ms(4800) {
            if let Some((kind, broadcast)) = sent(&mut client, now) {
                assert_eq!(kind, 1);
                flags.push(broadcast);
            }
            now += ms(1);
        }
        // At 0, 0.25, 0.75, 1.75 and 3.75 s, or a quarter later.
        assert_eq!(flags, [false, true, false, true, false]);
    }

    #[test]
    fn late_answer_to_an_early_discover_still_counts() {
        let mut client = client();
        sent(&mut client, Duration::ZERO);
        let late = reply(&client, ReplyKind::Offer, SERVER, true);
        sent(&mut client, ms(300));
        client.receive(ms(301), late);
        assert!(client.requested().is_some());
    }

    #[test]
    fn requests_without_an_answer_lead_back_to_the_start() {
        let mut client = client();
        sent(&mut client, Duration::ZERO);
        let offer = reply(&client, ReplyKind::Offer, SERVER, true);
        client.receive(ms(1), offer);
        let mut kinds = std::vec::Vec::new();
        for now in 1..20_000 {
            kinds.extend(sent(&mut client, ms(now)).map(|(kind, _)| kind));
            if kinds.last() == Some(&1) {
                break;
            }
        }
        assert_eq!(kinds, [3, 3, 3, 3, 1]);
    }

    #[test]
    fn a_server_that_always_refuses_is_asked_ever_more_slowly() {
        let mut client = client();
        let mut refusals = 0;
        for now in 0..30_000 {
            let Some((kind, _)) = sent(&mut client, ms(now)) else {
                continue;
            };
            let answer = if kind == 1 {
                ReplyKind::Offer
            } else {
                ReplyKind::Nak
            };
            let answer = reply(&client, answer, SERVER, true);
            if client.receive(ms(now), answer) == Event::Refused {
                refusals += 1;
            }
        }
        assert!((5..=12).contains(&refusals), "{refusals}");
    }

    #[test]
    fn answers_of_others_are_no_answers() {
        let mut client = client();
        sent(&mut client, Duration::ZERO);
        let offer = reply(&client, ReplyKind::Offer, SERVER, true);
        client.receive(ms(1), offer);
        sent(&mut client, ms(1));
        let stranger = reply(&client, ReplyKind::Ack, Ipv4Addr::new(10, 0, 0, 66), true);
        assert_eq!(client.receive(ms(2), stranger), Event::Nothing);
        let refusal = reply(&client, ReplyKind::Nak, Ipv4Addr::new(10, 0, 0, 66), true);
        assert_eq!(client.receive(ms(2), refusal), Event::Nothing);
        let mut other_exchange = reply(&client, ReplyKind::Ack, SERVER, true);
        other_exchange.xid ^= 1;
        assert_eq!(client.receive(ms(2), other_exchange), Event::Nothing);
        let mut other_machine = reply(&client, ReplyKind::Ack, SERVER, true);
        other_machine.mac[5] ^= 1;
        assert_eq!(client.receive(ms(2), other_machine), Event::Nothing);
        let mut other_address = reply(&client, ReplyKind::Ack, SERVER, true);
        other_address.lease.address = Ipv4Addr::new(10, 0, 0, 5);
        assert_eq!(client.receive(ms(2), other_address), Event::Nothing);
        // A server that does not name itself is known by its hardware address.
        let nameless = reply(&client, ReplyKind::Ack, Ipv4Addr::UNSPECIFIED, true);
        assert!(
            matches!(client.receive(ms(2), nameless), Event::Bound(lease) if lease.server == SERVER)
        );
    }

    #[test]
    fn an_offer_of_no_host_address_is_no_offer() {
        let mut client = client();
        sent(&mut client, Duration::ZERO);
        for address in [
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(224, 0, 0, 1),
        ] {
            let mut offer = reply(&client, ReplyKind::Offer, SERVER, true);
            offer.lease.address = address;
            client.receive(ms(1), offer);
            assert!(client.requested().is_none());
        }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// An hour from 100 s on, with the usual times.
    const HELD: Held = Held {
        address: ADDRESS,
        server: SERVER,
        renew: Duration::from_secs(1900),
        rebind: Duration::from_secs(3250),
        end: Duration::from_secs(3700),
    };

    fn holder() -> Client {
        Client::resume(MAC, Random::new(42), HELD)
    }

    /// Lets virtual time run and notes each message: when, to whom, its `secs`.
    fn renewals(client: &mut Client, until: u64) -> std::vec::Vec<(u64, Option<Ipv4Addr>, u16)> {
        let mut sent = std::vec::Vec::new();
        for now in 0..until {
            if client.due().is_some_and(|due| due <= s(now))
                && let Some((message, to)) = client.renew(s(now), Some("vm"))
            {
                assert_eq!(message.ask, Ask::Extend { address: ADDRESS });
                sent.push((now, to, message.seconds));
            }
        }
        sent
    }

    #[test]
    fn unanswered_renewals_halve_what_is_left_and_end_with_the_lease() {
        let mut client = holder();
        let mut frame = [0; MAX_FRAME];
        assert_eq!(client.due(), Some(HELD.renew));
        assert_eq!(client.poll(s(1900), &mut frame, None), None, "by UDP only");
        let mut expected = std::vec::Vec::new();
        // RFC 2131, 4.4.5: half of the time that is left, but a minute at least.
        for (mut at, until, server) in [(1900_u64, 3250_u64, Some(SERVER)), (3250, 3700, None)] {
            while at < until {
                expected.push((at, server, (at - 1900) as u16));
                at = (at + ((until - at).div_ceil(2)).max(60)).min(until);
            }
        }
        assert_eq!(expected.len(), 6 + 4, "{expected:?}");
        assert_eq!(renewals(&mut client, 5000), expected);
        assert!(!client.has_ended(s(3699)) && client.has_ended(s(3700)));
        assert_eq!(client.renew(s(3700), None), None);
    }

    #[test]
    fn one_exchange_has_one_number_and_the_next_another() {
        let mut client = holder();
        let (first, _) = client.renew(s(1900), None).unwrap();
        let (again, _) = client.renew(s(2600), None).unwrap();
        assert_eq!(first.xid, again.xid);
        let mut next = Client::resume(MAC, Random::new(99), HELD);
        assert_ne!(next.renew(s(1900), None).unwrap().0.xid, first.xid);
    }

    #[test]
    fn renewal_gives_a_lease_whatever_its_address() {
        for octet in [4, 9] {
            let mut client = holder();
            client.renew(s(1900), None);
            assert!(client.is_renewing());
            let mut ack = reply(&client, ReplyKind::Ack, SERVER, true);
            ack.lease.address = Ipv4Addr::new(10, 0, 0, octet);
            let event = client.receive(s(1901), ack);
            assert!(matches!(event, Event::Bound(lease) if lease.address.octets()[3] == octet));
            assert_eq!((client.due(), client.is_renewing()), (None, false));
            assert!(!client.has_ended(s(9999)));
        }
    }

    #[test]
    fn another_server_is_believed_only_once_any_is_asked() {
        let other = Ipv4Addr::new(10, 0, 0, 9);
        let mut client = holder();
        client.renew(s(1900), None);
        for kind in [ReplyKind::Ack, ReplyKind::Nak] {
            let stranger = reply(&client, kind, other, true);
            assert_eq!(client.receive(s(1901), stranger), Event::Nothing);
        }
        let (_, server) = client.renew(s(3250), None).unwrap();
        assert_eq!(server, None);
        let stranger = reply(&client, ReplyKind::Ack, other, true);
        assert!(matches!(client.receive(s(3251), stranger), Event::Bound(l) if l.server == other));
    }

    #[test]
    fn refused_renewal_is_the_end_of_the_lease() {
        let mut client = holder();
        client.renew(s(1900), None);
        let nak = reply(&client, ReplyKind::Nak, Ipv4Addr::UNSPECIFIED, false);
        assert_eq!(client.receive(s(1901), nak), Event::Refused);
        assert_eq!(client.renew(s(1901), None), None);
        assert_eq!(
            sent(&mut client, s(1901)),
            Some((1, false)),
            "it looks again"
        );
    }

    #[test]
    fn answers_that_nobody_asked_for_change_nothing() {
        let mut client = holder();
        for kind in [ReplyKind::Offer, ReplyKind::Ack, ReplyKind::Nak] {
            let unasked = reply(&client, kind, SERVER, true);
            assert_eq!(client.receive(s(200), unasked), Event::Nothing);
        }
        client.renew(s(1900), None);
        let mut no_host = reply(&client, ReplyKind::Ack, SERVER, true);
        no_host.lease.address = Ipv4Addr::BROADCAST;
        assert_eq!(client.receive(s(1901), no_host), Event::Nothing);
        assert_eq!(client.due(), Some(s(2575)));
    }

    #[test]
    fn link_that_is_back_hurries_a_renewal_under_way_but_none_that_is_not_due() {
        let mut client = holder();
        client.link_up(s(500));
        assert_eq!(client.due(), Some(HELD.renew));
        client.renew(s(1900), None);
        client.link_up(s(1950));
        assert!(client.renew(s(1950), None).is_some());
    }

    #[test]
    fn whoever_sleeps_through_the_end_knows_it() {
        let mut client = holder();
        assert!(client.has_ended(s(100_000)));
        assert_eq!(client.renew(s(100_000), None), None);
    }
}
