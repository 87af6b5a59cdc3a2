//! Leases that end: who may ask for more time, how, when, and what becomes of who does it wrongly.

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::platform::dhcp::{Kind, Spoken, State};
use lab::platform::{Entry, frame};

use crate::guest::{Ask, GATEWAY_MAC, Guest, WIRESERVER};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;
const SECOND: Duration = Duration::from_secs(1);
const ACK: u8 = 5;
const NAK: u8 = 6;

/// A client that has a lease.
struct Leased(Guest);

impl Leased {
    fn of(text: &str) -> Self {
        let mut guest = Guest::parsed(text);
        guest.lease().unwrap();
        assert_eq!(guest.complaints(), [""; 0]);
        Self(guest)
    }

    /// What a right client asks for more time with.
    fn renewal(&self) -> Ask {
        let mut ask = Ask::new(99, 3).with(61, &[&[1], self.0.mac.as_slice()].concat());
        ask.ciaddr = OWN;
        ask
    }

    /// Sends that, and gives the kind of the answer.
    fn renews(&mut self, to: Ipv4Addr) -> Option<u8> {
        let ask = self.renewal();
        self.sends(&ask, OWN, to)
    }

    fn sends(&mut self, ask: &Ask, from: Ipv4Addr, to: Ipv4Addr) -> Option<u8> {
        self.0.send_dhcp_from(ask, from, to);
        Some(self.0.dhcp_reply(SECOND)?.kind())
    }

    fn sleep(&mut self, seconds: u64) {
        assert!(
            self.0
                .wait(Duration::from_secs(seconds), |_| Some(()))
                .is_none()
        );
    }

    #[track_caller]
    fn is_told(&self, words: &str) {
        let complaints = self.0.complaints();
        assert!(
            complaints.len() == 1 && complaints[0].contains(words),
            "{words}: {complaints:?}"
        );
    }

    #[track_caller]
    fn is_right(&self) {
        assert_eq!(self.0.complaints(), [""; 0], "{}", self.0.log());
    }
}

fn said(guest: &Guest) -> Vec<Spoken> {
    let journal = guest.platform.journal();
    journal.iter().filter_map(Entry::dhcp).collect()
}

#[test]
fn renewal_by_one_and_rebinding_by_all_prolong_the_lease() {
    let mut client = Leased::of("dhcp.lease = 20");
    for _ in 0..3 {
        client.sleep(10);
        client.0.send_dhcp_from(&client.renewal(), OWN, WIRESERVER);
        let ack = client.0.dhcp_reply(SECOND).unwrap();
        assert_eq!((ack.kind(), ack.yiaddr(), ack.destination), (ACK, OWN, OWN));
        assert_eq!(ack.option(51).unwrap(), [0, 0, 0, 20]);
    }
    client.sleep(18);
    // Some send it from their address, some from none.
    let ask = client.renewal();
    assert_eq!(client.sends(&ask, Ipv4Addr::UNSPECIFIED, ALL), Some(ACK));
    client.sleep(18);
    assert_eq!(client.renews(ALL), Some(ACK));
    client.sleep(18);
    // Five times as long as the lease was: the address is still the client's.
    assert_eq!(ping(&mut client), Some(()));
    client.is_right();
    let states: Vec<_> = said(&client.0)
        .iter()
        .filter_map(|said| said.state)
        .collect();
    assert_eq!(
        states[1..],
        [
            State::Renewing,
            State::Renewing,
            State::Renewing,
            State::Rebinding,
            State::Rebinding
        ]
    );
    assert!(matches!(
        states[0],
        State::Selecting {
            server: WIRESERVER,
            requested: OWN
        }
    ));
}

fn ping(client: &mut Leased) -> Option<()> {
    let packet = frame::echo_request(OWN, Ipv4Addr::new(10, 0, 0, 1));
    let mac = client.0.mac;
    client
        .0
        .send(&frame::ethernet(GATEWAY_MAC, mac, frame::IPV4, &packet));
    client.0.wait(SECOND, |_| Some(()))
}

#[test]
fn address_is_nobodys_when_its_lease_is_over() {
    let mut client = Leased::of("dhcp.lease = 20");
    client.sleep(19);
    assert_eq!(ping(&mut client), Some(()));
    client.is_right();
    client.sleep(3);
    assert_eq!(ping(&mut client), None);
    client.is_told("a packet from 10.0.0.4, whose lease is over");
    let mut client = Leased::of("dhcp.lease = 20");
    client.sleep(22);
    assert_eq!(client.renews(WIRESERVER), Some(NAK));
    client.is_told("a lease that is over");
}

#[test]
fn wrong_renewal_is_refused_or_not_answered_and_complained_about() {
    let wrong = |build: &dyn Fn(&mut Leased) -> Option<u8>, answer: Option<u8>, words: &str| {
        let mut client = Leased::of("dhcp.lease = 20");
        assert_eq!(build(&mut client), answer, "{words}\n{}", client.0.log());
        let complaints = client.0.complaints();
        assert!(
            complaints.iter().any(|text| text.contains(words)),
            "{words}: {complaints:?}"
        );
    };
    let other = Ipv4Addr::new(10, 0, 0, 5);
    let server = WIRESERVER.octets();
    let sends = |client: &mut Leased, ask: Ask| client.sends(&ask, OWN, WIRESERVER);
    wrong(
        &|c| sends(c, c.renewal().with(54, &server)),
        None,
        "fit no state",
    );
    wrong(
        &|c| sends(c, c.renewal().with(50, &OWN.octets())),
        None,
        "fit no state",
    );
    wrong(
        &|c| {
            let mut ask = c.renewal();
            ask.ciaddr = other;
            c.sends(&ask, other, WIRESERVER)
        },
        Some(NAK),
        "renewal of 10.0.0.5, but 10.0.0.4 is leased",
    );
    wrong(
        &|c| c.sends(&c.renewal(), other, WIRESERVER),
        Some(ACK),
        "another address than ciaddr",
    );
    wrong(&|c| c.renews(other), None, "where no server is");
    wrong(&|c| c.renews(ALL), Some(ACK), "before T2");
    wrong(
        &|c| {
            let mut ask = Ask::new(99, 3);
            ask.ciaddr = OWN;
            sends(c, ask)
        },
        Some(ACK),
        "another client id",
    );
    wrong(
        &|c| {
            let mut ask = Ask::new(99, 7).with(54, &server);
            ask.ciaddr = OWN;
            c.sends(&ask, OWN, ALL)
        },
        None,
        "it is for one server",
    );
    wrong(
        &|c| sends(c, Ask::new(99, 8)),
        Some(ACK),
        "INFORM without an address",
    );
}

#[test]
fn refused_renewal_is_a_broadcast_nak_and_the_next_lease_is_given() {
    let mut client = Leased(Guest::named("dhcp-renewal-refused"));
    client.0.lease().unwrap();
    client.sleep(3);
    let ask = client.renewal();
    client.0.send_dhcp_from(&ask, OWN, WIRESERVER);
    let nak = client.0.dhcp_reply(SECOND).unwrap();
    assert_eq!((nak.kind(), nak.destination), (NAK, ALL));
    assert!(client.0.lease().is_some());
    assert_eq!(client.renews(WIRESERVER), Some(ACK));
    client.is_right();
}

#[test]
fn unheard_renewals_end_in_rebinding() {
    let mut client = Leased(Guest::named("dhcp-renewal-unheard"));
    client.0.lease().unwrap();
    client.sleep(3);
    assert_eq!(client.renews(WIRESERVER), None);
    client.sleep(3);
    assert_eq!(client.renews(ALL), Some(ACK));
    client.is_right();
}

#[test]
fn server_that_moved_is_found_by_rebinding_and_renews_at_its_new_address() {
    let next = Ipv4Addr::new(168, 63, 129, 17);
    let mut client = Leased(Guest::named("dhcp-server-moves"));
    let first = client.0.lease().unwrap();
    assert_eq!(first.address(54), Some(WIRESERVER));
    client.sleep(3);
    assert_eq!(client.renews(WIRESERVER), None);
    client.sleep(3);
    client.0.send_dhcp_from(&client.renewal(), OWN, ALL);
    let ack = client.0.dhcp_reply(SECOND).unwrap();
    assert_eq!(
        (ack.kind(), ack.address(54), ack.source),
        (ACK, Some(next), next)
    );
    assert_eq!(client.renews(next), Some(ACK));
    client.is_right();
    assert_eq!(client.renews(WIRESERVER), None);
    client.is_told("but the lease is of 168.63.129.17");
}

#[test]
fn message_tells_who_sent_it() {
    let mut guest = Guest::named("healthy");
    let ask = guest
        .discover(7)
        .with(12, b"vm-net01")
        .with(60, b"udhcp 1.35.0");
    guest.send_dhcp(&ask);
    let systemd = [
        255, 1, 2, 3, 4, 0, 2, 0, 0, 0xab, 0x11, 1, 2, 3, 4, 5, 6, 7, 8,
    ];
    guest.send_dhcp(&Ask::new(8, 1).with(61, &systemd));
    guest.send_dhcp(&Ask::new(9, 1).with(60, b"dhcpcd-9.4.1:Linux"));
    let said = said(&guest);
    assert_eq!(said[0].kind, Kind::Discover);
    assert_eq!(said[0].host_name.as_deref(), Some("vm-net01"));
    assert_eq!(said[0].client.as_deref().map(<[u8]>::len), Some(7));
    let programs: Vec<_> = said.iter().map(Spoken::program).collect();
    assert_eq!(programs, ["udhcpc", "systemd", "dhcpcd"]);
    assert!(
        guest
            .log()
            .contains("host=vm-net01 class=udhcp 1.35.0 id=01000d3a112233")
    );
}

#[test]
fn gateway_pings_who_was_heard_of_and_notes_the_answer() {
    let mut client = Leased::of("net.ping = 2s");
    let mac = client.0.mac;
    for _ in 0..2 {
        let ping = client
            .0
            .wait(3 * SECOND, |bytes| Some(bytes.to_vec()))
            .unwrap();
        let ethernet = frame::Ethernet::parse(&ping).unwrap();
        let packet = frame::Ipv4::parse(ethernet.payload).unwrap();
        assert!(packet.payload_checksum_is_right());
        let reply = frame::echo_reply(&packet).unwrap();
        client
            .0
            .send(&frame::ethernet(GATEWAY_MAC, mac, frame::IPV4, &reply));
    }
    let pongs = client.0.platform.journal().iter();
    let pongs = pongs.filter(|entry| matches!(entry, Entry::Pong { source: OWN, .. }));
    assert_eq!(pongs.count(), 2);
    client.is_right();
}
