//! One claim about each named scenario.

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::platform::frame::BROADCAST;
use lab::platform::{Entry, Scenario, Verdict, Way};

use crate::agent::Agent;
use crate::guest::{Ask, GATEWAY_MAC, Guest, Reply, SECOND_MAC, Tcp, Trouble, WIRESERVER};

const SECOND: Duration = Duration::from_secs(1);

fn agent(name: &str) -> Agent {
    Agent::start(Scenario::named(name).unwrap()).unwrap()
}

fn reported(name: &str) -> Agent {
    let mut agent = agent(name);
    agent.report();
    agent
}

fn offer(guest: &mut Guest) -> Reply {
    guest.send_dhcp(&guest.discover(7));
    guest.dhcp_answer(7, &[2], SECOND).unwrap()
}

fn statuses(agent: &Agent) -> Vec<u16> {
    let status = |entry: &Entry| match entry {
        Entry::Answer { status, .. } => Some(*status),
        _ => None,
    };
    agent
        .guest
        .platform
        .journal()
        .iter()
        .filter_map(status)
        .collect()
}

#[test]
fn a_plain_agent_gets_ready_wherever_that_is_possible() {
    const HOPELESS: [&str; 5] = [
        "dhcp-never",
        "wireserver-never",
        "wireserver-resets",
        "wireserver-refuses",
        "health-never-accepted",
    ];
    for name in Scenario::names() {
        let Some(mut agent) = Agent::start(Scenario::named(&name).unwrap()) else {
            assert_eq!(name, "dhcp-never");
            continue;
        };
        agent.report();
        let expected = if HOPELESS.contains(&name.as_str()) {
            Verdict::Creating
        } else {
            Verdict::Ready
        };
        assert_eq!(
            agent.guest.platform.verdict(),
            expected,
            "{name}\n{}",
            agent.guest.log()
        );
    }
}

#[test]
fn a_healthy_boot_has_no_complaints_and_takes_six_round_trips_with_arp_in_its_way() {
    let mut scenario = Scenario::default();
    scenario.link.latency = Duration::from_millis(10);
    let mut agent = Agent::start(scenario).unwrap();
    agent.report();
    assert_eq!(agent.guest.complaints(), [""; 0], "{}", agent.guest.log());
    let trips = agent.guest.platform.round_trips().unwrap();
    assert!(
        (trips - 6.0).abs() < 0.001,
        "{trips}\n{}",
        agent.guest.log()
    );
    assert_eq!(agent.guest.platform.first_frame(), Some(SECOND));
    assert_eq!(
        agent.guest.platform.ready(),
        Some(SECOND + Duration::from_millis(110))
    );
    assert_eq!(
        agent.guest.platform.answered(),
        Some(SECOND + Duration::from_millis(120))
    );
}

#[test]
fn a_delayed_answer_is_answered_late_and_accepted_at_once() {
    let mut scenario = Scenario::parse("health.answers = ok+delay:3s").unwrap();
    scenario.link.latency = Duration::from_millis(10);
    let mut agent = Agent::start(scenario).unwrap();
    agent.report();
    let platform = &agent.guest.platform;
    assert_eq!(platform.ready(), Some(SECOND + Duration::from_millis(110)));
    assert_eq!(
        platform.answered(),
        Some(4 * SECOND + Duration::from_millis(120))
    );
}

#[test]
fn many_connections_one_after_the_other_do_not_use_up_the_server() {
    let mut agent = agent("connection-close-each-time");
    for _ in 0..200 {
        assert_eq!(
            agent
                .ask(WIRESERVER, 80, crate::agent::GOAL_STATE)
                .unwrap()
                .status,
            200
        );
    }
}

#[test]
fn the_healthy_lease_is_that_of_azure() {
    let mut guest = Guest::named("healthy");
    let offer = offer(&mut guest);
    assert_eq!(offer.yiaddr(), Ipv4Addr::new(10, 0, 0, 4));
    assert_eq!(
        (offer.source, offer.address(54)),
        (WIRESERVER, Some(WIRESERVER))
    );
    assert_eq!(offer.option(1).unwrap(), [255, 255, 255, 0]);
    assert_eq!(offer.option(3).unwrap(), [10, 0, 0, 1]);
    assert_eq!(offer.option(6).unwrap(), [168, 63, 129, 16]);
    assert_eq!(offer.option(245).unwrap(), [168, 63, 129, 16]);
    for time in [51, 58, 59] {
        assert_eq!(offer.option(time).unwrap(), [255; 4]);
    }
    assert_eq!(
        offer.option(121).unwrap(),
        [
            0, 10, 0, 0, 1, 32, 168, 63, 129, 16, 10, 0, 0, 1, 32, 169, 254, 169, 254, 10, 0, 0, 1
        ]
    );
    assert!(
        String::from_utf8(offer.option(15).unwrap())
            .unwrap()
            .ends_with(".internal.cloudapp.net")
    );
    for never in [12, 26, 119, 249] {
        assert_eq!(offer.option(never), None);
    }
    assert_eq!(
        (offer.frame_destination, offer.destination),
        (guest.mac, offer.yiaddr())
    );
}

#[test]
fn the_broadcast_flag_brings_a_broadcast_answer() {
    let mut guest = Guest::named("healthy");
    let mut ask = guest.discover(3);
    ask.flags = 0x8000;
    guest.send_dhcp(&ask);
    let offer = guest.dhcp_answer(3, &[2], SECOND).unwrap();
    assert_eq!(
        (offer.frame_destination, offer.destination),
        (BROADCAST, Ipv4Addr::BROADCAST)
    );
}

/// waagent sends 244 bytes: a header, a cookie, one option and the end.
#[test]
fn the_discover_of_waagent_gets_245_and_no_121_and_a_note_about_its_length() {
    let mut guest = Guest::named("healthy");
    let mut ask = Ask::new(9, 1);
    ask.length = 0;
    assert_eq!(ask.bytes(guest.mac).len(), 244);
    guest.send_dhcp(&ask);
    let offer = guest.dhcp_answer(9, &[2], SECOND).unwrap();
    assert_eq!(offer.option(245).unwrap(), [168, 63, 129, 16]);
    assert_eq!(offer.option(121), None);
    assert_eq!(
        guest.complaints(),
        ["dhcp: 244 bytes are less than BOOTP's 300"]
    );
}

#[test]
fn renewal_and_init_reboot_get_their_answer_and_wrong_addresses_a_nak() {
    let mut guest = Guest::named("healthy");
    guest.send_dhcp(&Ask::new(1, 3).with(50, &[10, 0, 0, 4]));
    assert_eq!(guest.dhcp_reply(SECOND).unwrap().kind(), 5);
    guest.send_dhcp(&Ask::new(2, 3).with(50, &[10, 0, 0, 5]));
    let nak = guest.dhcp_reply(SECOND).unwrap();
    assert_eq!((nak.kind(), nak.destination), (6, Ipv4Addr::BROADCAST));
    assert_eq!(
        guest.complaints(),
        ["dhcp: REQUEST for 10.0.0.5, which was not offered"]
    );
}

#[test]
fn dhcp_never_answers() {
    let mut guest = Guest::named("dhcp-never");
    assert_eq!(guest.lease(), None);
    assert!(guest.platform.journal().iter().all(|entry| !matches!(
        entry,
        Entry::Dhcp {
            way: Way::ToGuest,
            ..
        }
    )));
}

#[test]
fn dhcp_late_thinks_for_one_and_a_half_seconds() {
    let mut guest = Guest::named("dhcp-late");
    let before = guest.now;
    offer_within(&mut guest, 2 * SECOND);
    assert_eq!(guest.now, before + Duration::from_millis(1500));
}

fn offer_within(guest: &mut Guest, limit: Duration) -> Reply {
    guest.send_dhcp(&guest.discover(7));
    guest.dhcp_answer(7, &[2], limit).unwrap()
}

#[test]
fn dhcp_deaf_at_first_hears_the_fourth_discover() {
    let mut guest = Guest::named("dhcp-deaf-at-first");
    for xid in 1..=3 {
        guest.send_dhcp(&guest.discover(xid));
        assert_eq!(guest.dhcp_reply(SECOND), None);
    }
    guest.send_dhcp(&guest.discover(4));
    assert!(guest.dhcp_reply(SECOND).is_some());
}

#[test]
fn dhcp_nak_once_refuses_the_first_request_only() {
    let mut guest = Guest::named("dhcp-nak-once");
    for expected in [6, 5] {
        let offer = offer(&mut guest);
        guest.send_dhcp(&guest.request(7, &offer));
        assert_eq!(guest.dhcp_reply(SECOND).unwrap().kind(), expected);
    }
}

#[test]
fn two_servers_both_offer_and_only_the_chosen_one_acknowledges() {
    for (name, first) in [
        ("dhcp-two-servers", WIRESERVER),
        ("dhcp-rival-first", Ipv4Addr::new(10, 0, 0, 2)),
    ] {
        let mut guest = Guest::named(name);
        guest.send_dhcp(&guest.discover(7));
        let offers = [
            guest.dhcp_reply(SECOND).unwrap(),
            guest.dhcp_reply(SECOND).unwrap(),
        ];
        assert_eq!(offers[0].address(54), Some(first), "{name}");
        assert_ne!(offers[0].address(54), offers[1].address(54));
        let rival = offers
            .iter()
            .find(|offer| offer.option(245).is_none())
            .unwrap();
        guest.send_dhcp(&guest.request(7, rival));
        let ack = guest.dhcp_reply(SECOND).unwrap();
        assert_eq!((ack.kind(), ack.yiaddr()), (5, Ipv4Addr::new(10, 0, 0, 77)));
        assert_eq!(guest.dhcp_reply(SECOND), None);
    }
}

#[test]
fn garbage_precedes_the_first_answers() {
    let mut guest = Guest::named("dhcp-garbage");
    guest.send_dhcp(&guest.discover(7));
    let count = std::iter::from_fn(|| guest.dhcp_reply(SECOND)).count();
    assert_eq!(count, 6);
}

#[test]
fn options_in_pieces_and_in_other_fields_join_to_the_same_values() {
    let plain = offer(&mut Guest::named("healthy"));
    for name in ["dhcp-split-options", "dhcp-overload"] {
        let odd = offer(&mut Guest::named(name));
        for code in [1, 3, 6, 15, 51, 54, 58, 59, 121, 245] {
            assert_eq!(odd.option(code), plain.option(code), "{name} {code}");
        }
    }
    assert!(offer(&mut Guest::named("dhcp-split-options")).pieces(121) > 1);
    assert_eq!(offer(&mut Guest::named("dhcp-overload")).pieces(121), 0);
}

#[test]
fn masks_options_and_leases_are_as_configured() {
    assert_eq!(
        offer(&mut Guest::named("dhcp-bad-mask")).option(1).unwrap(),
        [255, 0, 255, 0]
    );
    assert_eq!(
        offer(&mut Guest::named("dhcp-without-245")).option(245),
        None
    );
    assert_eq!(
        offer(&mut Guest::named("dhcp-without-121")).option(121),
        None
    );
    let finite = offer(&mut Guest::named("dhcp-finite-lease"));
    let times = [51, 58, 59]
        .map(|code| u32::from_be_bytes(finite.option(code).unwrap().try_into().unwrap()));
    assert_eq!(times, [3600, 1800, 3150]);
    let mut guest = Guest::parsed(
        "dhcp.routers = 10.0.0.1, 10.0.0.3\ndhcp.mtu = 1400\ndhcp.hostname = given\n\
         dhcp.routes249 = yes\ndhcp.routes = 10.8.0.0/13 via 0.0.0.0",
    );
    let offer = offer(&mut guest);
    assert_eq!(offer.option(3).unwrap(), [10, 0, 0, 1, 10, 0, 0, 3]);
    assert_eq!(offer.option(26).unwrap(), [5, 120]);
    assert_eq!(offer.option(12).unwrap(), b"given");
    assert_eq!(offer.option(121).unwrap(), [13, 10, 8, 0, 0, 0, 0]);
    assert_eq!(offer.option(249), offer.option(121));
}

#[test]
fn arp_is_answered_for_the_gateway_and_for_what_is_there() {
    let mut guest = Guest::parsed("net.there = 10.0.0.9");
    let own = Ipv4Addr::new(10, 0, 0, 4);
    let gateway = Ipv4Addr::new(10, 0, 0, 1);
    assert_eq!(guest.arp(own, gateway), Some(GATEWAY_MAC));
    assert!(guest.arp(Ipv4Addr::UNSPECIFIED, gateway).is_some());
    assert!(
        guest
            .arp(own, Ipv4Addr::new(10, 0, 0, 9))
            .is_some_and(|mac| mac != GATEWAY_MAC)
    );
    assert_eq!(guest.arp(own, Ipv4Addr::new(10, 0, 0, 8)), None);
    assert_eq!(guest.arp(Ipv4Addr::UNSPECIFIED, own), None);
    assert_eq!(guest.complaints(), [""; 0]);
    let mut guest = Guest::named("address-conflict");
    assert!(guest.arp(Ipv4Addr::UNSPECIFIED, own).is_some());
}

#[test]
fn a_stale_incarnation_is_410_once() {
    let agent = reported("stale-incarnation");
    assert_eq!(statuses(&agent), [200, 410, 200, 200]);
    assert_eq!(agent.guest.complaints(), [""; 0]);
}

#[test]
fn scripts_of_statuses_are_played_in_order() {
    assert_eq!(
        statuses(&reported("busy-wireserver")),
        [503, 503, 503, 503, 503, 200, 200]
    );
    assert_eq!(
        statuses(&reported("goalstate-410-then-200")),
        [410, 200, 200]
    );
    assert_eq!(
        statuses(&reported("health-500")),
        [200, 500, 200, 500, 200, 500, 200, 200]
    );
    assert_eq!(
        statuses(&reported("goalstate-without-roles")),
        [200, 200, 200, 200]
    );
    assert_eq!(statuses(&reported("json-door-only")), [404, 201]);
    let throttled = reported("throttled-429-retry-after");
    assert_eq!(statuses(&throttled), [200, 429, 200, 429, 200, 200]);
    assert_eq!(throttled.guest.complaints(), [""; 0]);
}

#[test]
fn a_silent_a_refusing_and_a_resetting_wireserver_differ() {
    let mut silent = agent("wireserver-never");
    let before = silent.guest.now;
    assert_eq!(silent.ask(WIRESERVER, 80, "x"), Err(Trouble::Timeout));
    assert_eq!(silent.guest.now, before + 10 * SECOND);
    let mut refusing = agent("wireserver-refuses");
    let before = refusing.guest.now;
    assert_eq!(refusing.ask(WIRESERVER, 80, "x"), Err(Trouble::Broken));
    assert!(refusing.guest.now < before + SECOND);
    let mut resetting = agent("wireserver-resets");
    assert_eq!(resetting.ask(WIRESERVER, 80, "x"), Err(Trouble::Broken));
    let connected = |agent: &Agent| {
        agent
            .guest
            .platform
            .journal()
            .iter()
            .any(|entry| matches!(entry, Entry::Connect { .. }))
    };
    assert!(connected(&resetting) && !connected(&refusing) && !connected(&silent));
}

#[test]
fn a_slow_first_byte_is_slow_and_dripping_bytes_all_arrive() {
    let slow = reported("slow-first-byte");
    assert!(
        slow.guest
            .platform
            .ready()
            .is_some_and(|ready| ready >= 4 * SECOND)
    );
    assert!(slow.guest.now >= 7 * SECOND);
    let dripping = reported("dripping");
    assert_eq!(statuses(&dripping), [200, 200]);
}

#[test]
fn deliveries_without_length_in_chunks_and_with_bom_are_so() {
    let mut agent = agent("goalstate-bom-chunked");
    let answer = agent.ask(WIRESERVER, 80, crate::agent::GOAL_STATE).unwrap();
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert!(answer.body.starts_with(b"\xef\xbb\xbf<?xml"));
    let connects = |name: &str| {
        let agent = reported(name);
        let entries = agent.guest.platform.journal();
        entries
            .iter()
            .filter(|entry| matches!(entry, Entry::Connect { .. }))
            .count()
    };
    assert_eq!(connects("healthy"), 1);
    assert_eq!(connects("connection-close-each-time"), 2);
    let mut large = Agent::start(Scenario::named("goalstate-large").unwrap()).unwrap();
    assert!(
        large
            .ask(WIRESERVER, 80, crate::agent::GOAL_STATE)
            .unwrap()
            .body
            .len()
            > 8192
    );
}

#[test]
fn the_metadata_service_is_absent_old_or_there() {
    let target = "/metadata/instance?api-version=2021-08-01&extended=true";
    let mut healthy = agent("healthy");
    let document: serde_json::Value =
        serde_json::from_str(healthy.metadata(target).unwrap().text()).unwrap();
    assert_eq!(document["compute"]["osProfile"]["computerName"], "demo01");
    assert_eq!(
        document["compute"]["osProfile"]["disablePasswordAuthentication"],
        "true"
    );
    assert_eq!(document["extended"]["compute"]["ppsType"], "None");
    assert_eq!(
        document["network"]["interface"][0]["macAddress"],
        "000D3A112233"
    );
    assert_eq!(
        document["network"]["interface"][0]["ipv4"]["subnet"][0]["prefix"],
        "24"
    );
    assert_eq!(agent("imds-absent").metadata(target), Err(Trouble::Timeout));
    let mut old = agent("imds-400-then-old-version");
    let refusal = old.metadata(target).unwrap();
    assert_eq!(refusal.status, 400);
    assert!(
        refusal
            .text()
            .contains("\"newest-versions\":[\"2019-06-01\"")
    );
    let answer = old
        .metadata("/metadata/instance?api-version=2019-06-01")
        .unwrap();
    let document: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
    assert_eq!(document["compute"]["osProfile"], serde_json::Value::Null);
    assert_eq!(
        document["compute"]["publicKeys"].as_array().unwrap().len(),
        1
    );
    assert_eq!(old.guest.complaints(), [""; 0]);
    let mut pool = agent("pool-vm");
    let document: serde_json::Value =
        serde_json::from_str(pool.metadata(target).unwrap().text()).unwrap();
    assert_eq!(document["extended"]["compute"]["ppsType"], "Running");
}

#[test]
fn a_second_card_has_a_lease_but_no_way_to_the_services() {
    let mut guest = Guest::named("healthy");
    guest.lease().unwrap();
    guest.mac = SECOND_MAC;
    let lease = guest.lease().unwrap();
    assert_eq!(lease.yiaddr(), Ipv4Addr::new(10, 0, 1, 4));
    assert_eq!(lease.option(121).unwrap(), [0, 10, 0, 1, 1]);
    let mut tcp = Tcp::new(&guest, lease.yiaddr(), Ipv4Addr::new(10, 0, 1, 1));
    let handle = tcp.dial(WIRESERVER, 80);
    let answer = tcp.talk(
        &mut guest,
        handle,
        b"GET / HTTP/1.1\r\n\r\n",
        5 * SECOND,
        |_| false,
    );
    assert_eq!(answer, Err(Trouble::Timeout));
}

#[test]
fn several_connections_at_once_are_all_served() {
    let mut agent = agent("healthy");
    let handles: Vec<_> = (0..20).map(|_| agent.tcp.dial(WIRESERVER, 80)).collect();
    for handle in handles {
        let whole = |bytes: &[u8]| bytes.ends_with(b"</GoalState>\n");
        let request = crate::agent::GOAL_STATE.as_bytes();
        agent
            .tcp
            .talk(&mut agent.guest, handle, request, SECOND, whole)
            .unwrap();
    }
}

#[test]
fn a_client_that_has_ended_its_half_still_gets_its_answer() {
    let mut agent = agent("healthy");
    let handle = agent.tcp.dial(WIRESERVER, 80);
    let mut sent = false;
    let mut answer = Vec::new();
    agent.tcp.live(&mut agent.guest, 3 * SECOND, |sockets| {
        let socket = sockets.get_mut::<smoltcp::socket::tcp::Socket<'_>>(handle);
        if !sent && socket.may_send() {
            socket
                .send_slice(crate::agent::GOAL_STATE.as_bytes())
                .unwrap();
            socket.close();
            sent = true;
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| (answer.extend_from_slice(bytes), bytes.len()).swap())
                .unwrap();
        }
        false
    });
    assert!(answer.ends_with(b"</GoalState>\n"));
    assert!(!agent.tcp.socket(handle).is_open() || !agent.tcp.socket(handle).may_recv());
    let ended = |entry: &Entry| matches!(entry, Entry::Disconnect { .. });
    assert!(
        agent.guest.platform.journal().iter().any(ended),
        "{}",
        agent.guest.log()
    );
}

trait Swap {
    fn swap(self) -> (usize, ());
}

impl Swap for ((), usize) {
    fn swap(self) -> (usize, ()) {
        (self.1, self.0)
    }
}

#[test]
fn the_pcap_file_holds_every_frame_that_the_vm_saw_or_sent() {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let file = Shared::default();
    let mut guest = Guest::named("healthy");
    let writer =
        lab::platform::pcap::Writer::new(Box::new(file.clone()) as Box<dyn Write + Send>).unwrap();
    guest.platform.record(writer);
    guest.lease().unwrap();
    let bytes = file.0.lock().unwrap().clone();
    let mut rest = &bytes[24..];
    let mut count = 0;
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        rest = &rest[16 + length..];
        count += 1;
    }
    assert_eq!(count, 4);
}
