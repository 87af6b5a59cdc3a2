//! The client against the simulated platform, frame by frame, in virtual time.
//!
//! No test here waits: a minute of back-off passes in microseconds, and round trips are exact.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use lab::platform::{Platform, Scenario, Verdict};
use preroot::engine::backoff::Random;
use preroot::engine::exchange::Endpoint;
use preroot::engine::imds::Query;
use preroot::engine::link::{Link, Received};
use preroot::engine::network::Network;
use preroot::engine::transport::{Buffers, Peer, Storage, Transport};
use preroot::engine::wireserver::{Door, Outcome, Wireserver, WireserverFault};
use preroot::wire::dhcp::Lease;
use preroot::wire::health::Health;
use smoltcp::iface::SocketStorage;

const MAC: [u8; 6] = [0x00, 0x0d, 0x3a, 0x12, 0x34, 0x56];
/// A round trip.
const RTT: Duration = Duration::from_millis(20);
/// How much later than the WireServer the metadata service may answer.
const METADATA_LATER: Duration = Duration::from_millis(100);
/// As long as the default budget of a boot.
const BUDGET: Duration = Duration::from_mins(20);

/// The platform's end of a cable, and the time.
struct World {
    platform: Platform,
    now: Duration,
    arrived: VecDeque<Vec<u8>>,
}

/// The client's end.
#[derive(Clone)]
struct Cable {
    world: Rc<RefCell<World>>,
    mac: [u8; 6],
}

impl std::fmt::Debug for Cable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cable")
    }
}

impl Link for Cable {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn send(&mut self, frame: &[u8]) {
        let mut world = self.world.borrow_mut();
        let now = world.now;
        world.platform.receive(now, frame);
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<Received> {
        let mut world = self.world.borrow_mut();
        let now = world.now;
        while let Some(frame) = world.platform.transmit(now) {
            world.arrived.push_back(frame);
        }
        // Each interface sees what is for it.
        let at = world
            .arrived
            .iter()
            .position(|frame| frame[..6] == self.mac || frame[0] & 1 == 1)?;
        let frame = world.arrived.remove(at)?;
        buffer[..frame.len()].copy_from_slice(&frame);
        Some(Received {
            length: frame.len(),
            trusted: false,
        })
    }
}

/// What a run came to.
struct Run {
    outcome: Option<Outcome>,
    lease: Option<Lease>,
    mac: Option<[u8; 6]>,
    ended: Duration,
    last_fault: Option<WireserverFault>,
    /// When the metadata service had answered for good, and what went wrong last.
    asked: Option<(Duration, Option<String>)>,
    world: Rc<RefCell<World>>,
}

impl Run {
    fn round_trips(&self) -> f64 {
        self.ended.as_secs_f64() / RTT.as_secs_f64()
    }

    fn verdict(&self) -> Verdict {
        self.world.borrow().platform.verdict()
    }

    fn journal(&self) -> String {
        let world = self.world.borrow();
        let entries = world.platform.journal().iter();
        entries
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn complaints(&self) -> Vec<String> {
        self.world
            .borrow()
            .platform
            .complaints()
            .map(String::from)
            .collect()
    }
}

fn scenario(name: &str) -> Scenario {
    let mut scenario = Scenario::named(name).unwrap_or_else(|| panic!("no scenario {name}"));
    scenario.link.latency = RTT / 2;
    scenario
}

fn parse(text: &str) -> Scenario {
    let mut scenario = Scenario::parse(text).unwrap();
    scenario.link.latency = RTT / 2;
    scenario
}

/// Runs a client until the platform has the report, or for the budget.
fn run(scenario: Scenario, health: Health<'_>) -> Run {
    run_on(scenario, health, &[MAC], Duration::ZERO)
}

/// The same with several interfaces, the report wanted only at `wanted`.
fn run_on(scenario: Scenario, health: Health<'_>, macs: &[[u8; 6]], wanted: Duration) -> Run {
    let world = Rc::new(RefCell::new(World {
        platform: Platform::new(scenario),
        now: Duration::ZERO,
        arrived: VecDeque::new(),
    }));
    let buffers: &'static mut Buffers = Box::leak(Box::new(Buffers::new()));
    let storage: &'static mut Storage =
        Box::leak(Box::new([SocketStorage::EMPTY, SocketStorage::EMPTY]));
    let response: &'static mut [u8] = vec![0; 65536].leak();
    let metadata: &'static mut [u8] = vec![0; 131_072].leak();
    let mut network = Network::new();
    for (number, mac) in macs.iter().enumerate() {
        let cable = Cable {
            world: Rc::clone(&world),
            mac: *mac,
        };
        network
            .add(cable, Random::new(number as u64 + 77), Duration::ZERO)
            .unwrap();
    }
    let mut run = Run {
        outcome: None,
        lease: None,
        mac: None,
        ended: BUDGET,
        last_fault: None,
        asked: None,
        world: Rc::clone(&world),
    };
    let now = || world.borrow().now;
    let advance = |due: Option<Duration>| {
        let current = now();
        let platform = world.borrow_mut().platform.next_deadline(current);
        let next = [due, platform]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(BUDGET);
        // Time never stands still: a due time in the past would be a loop without end.
        let step = next.max(current + Duration::from_micros(1));
        world.borrow_mut().now = step;
    };

    let chosen = loop {
        if now() >= BUDGET {
            return run;
        }
        if let Some(chosen) = network.poll(now(), &mut buffers.frames, Some("vm-demo01")) {
            break chosen;
        }
        advance(network.due());
    };
    run.lease = Some(chosen.lease.clone());
    run.mac = Some(chosen.link.mac);
    let mut transport = Transport::new(
        chosen.link,
        &chosen.lease,
        chosen.neighbour,
        Random::new(99),
        now(),
        buffers,
        storage,
    );
    let endpoint = Endpoint {
        address: chosen.lease.wireserver(),
        port: 80,
    };
    let mut wireserver = Wireserver::new(endpoint, Random::new(5), response);
    let mut query = Query::new(Random::new(6), metadata, now());
    while now() < BUDGET {
        let at = now();
        // A program that asks two servers reports when it has heard both, or the one that matters.
        let late = wireserver.goal_state_at().map(|at| at + METADATA_LATER);
        let heard = query.is_over() || late.is_some_and(|late| at >= late);
        let report = (at >= wanted && heard).then_some(health);
        transport.poll(at, &mut |peer, connection| match peer {
            Peer::Wireserver => run.outcome = wireserver.poll(at, connection, report),
            Peer::Imds => query.poll(at, connection),
        });
        run.last_fault = wireserver.fault().map(|(fault, _)| fault);
        if query.is_over() && run.asked.is_none() {
            run.asked = Some((at, query.fault().map(ToString::to_string)));
            continue;
        }
        if run.outcome.is_some() {
            run.ended = at;
            break;
        }
        let waiting = (at < wanted).then_some(wanted);
        let wire = if report.is_some() || wireserver.goal_state_at().is_none() {
            wireserver.due()
        } else {
            None
        };
        advance(
            [
                transport.due(at),
                wire,
                waiting,
                query.due(),
                late.filter(|_| !heard),
            ]
            .into_iter()
            .flatten()
            .min(),
        );
    }
    run
}

#[track_caller]
fn assert_ready(run: &Run) {
    assert!(
        matches!(run.outcome, Some(Outcome::Accepted { .. })),
        "{:?} {:?}\n{}",
        run.outcome,
        run.last_fault,
        run.journal()
    );
    assert_eq!(run.verdict(), Verdict::Ready, "{}", run.journal());
    assert_eq!(run.complaints(), Vec::<String>::new(), "{}", run.journal());
}

#[test]
fn ready_is_accepted_within_five_round_trips() {
    let run = run(scenario("healthy"), Health::Ready);
    assert_ready(&run);
    assert!(
        run.round_trips() <= 5.01,
        "{} round trips\n{}",
        run.round_trips(),
        run.journal()
    );
}

#[test]
fn every_named_fault_ends_in_ready() {
    // What cannot end in Ready has a test of its own.
    let hopeless = [
        "dhcp-never",
        "wireserver-never",
        "wireserver-resets",
        "wireserver-refuses",
        "health-never-accepted",
    ];
    let mut seen = 0;
    for name in Scenario::names() {
        if hopeless.contains(&name.as_str()) {
            continue;
        }
        let run = run(scenario(&name), Health::Ready);
        println!(
            "{name}: {:.1} round trips, {:?}",
            run.round_trips(),
            run.ended
        );
        assert_ready(&run);
        seen += 1;
    }
    assert!(seen > 40, "only {seen} scenarios");
}

#[test]
fn a_lost_frame_costs_little() {
    for number in 1..=16 {
        let run = run(scenario(&format!("loss-of-frame-{number}")), Health::Ready);
        assert_ready(&run);
        // DHCP is ours and is retried fast; TCP's first retransmission comes after a second.
        assert!(
            run.ended < Duration::from_millis(1500),
            "frame {number}: {:?}",
            run.ended
        );
    }
}

#[test]
fn stale_incarnation_is_refetched_at_once() {
    let run = run(scenario("stale-incarnation"), Health::Ready);
    assert_ready(&run);
    assert!(
        run.ended < Duration::from_secs(1),
        "{:?}\n{}",
        run.ended,
        run.journal()
    );
}

#[test]
fn retry_after_is_honoured() {
    let run = run(scenario("throttled-429-retry-after"), Health::Ready);
    assert_ready(&run);
    assert!(run.ended >= Duration::from_secs(4), "{:?}", run.ended);
    assert!(run.ended < Duration::from_secs(6), "{:?}", run.ended);
}

#[test]
fn the_second_door_is_found_when_the_first_is_missing() {
    let run = run(scenario("json-door-only"), Health::Ready);
    assert_ready(&run);
    assert!(matches!(
        run.outcome,
        Some(Outcome::Accepted {
            ready: true,
            door: Door::Json,
            status: 201
        })
    ));
    assert!(run.ended < Duration::from_secs(5), "{:?}", run.ended);
}

#[test]
fn failure_reaches_the_portal_in_its_words() {
    let words = "result=error|reason=error parsing ovf-env.xml: <x> & \"y\"|agent=preroot";
    let run = run(scenario("healthy"), Health::Failed { description: words });
    assert!(
        matches!(run.outcome, Some(Outcome::Accepted { .. })),
        "{}",
        run.journal()
    );
    match run.verdict() {
        Verdict::Failed { description } => assert_eq!(description, words),
        other => panic!("{other:?}"),
    }
}

#[test]
fn failure_through_the_second_door_reaches_the_portal_too() {
    let words = "result=error|reason=quote \" and slash \\";
    let run = run(
        scenario("json-door-only"),
        Health::Failed { description: words },
    );
    match run.verdict() {
        Verdict::Failed { description } => assert_eq!(description, words),
        other => panic!("{other:?}\n{}", run.journal()),
    }
}

#[test]
fn a_platform_that_never_answers_is_asked_for_the_whole_budget_and_no_oftener_than_needed() {
    for (name, most) in [
        ("dhcp-never", 200),
        ("wireserver-never", 900),
        ("health-never-accepted", 400),
    ] {
        let run = run(scenario(name), Health::Ready);
        assert_eq!(run.outcome, None, "{name}");
        let frames = run.world.borrow().platform.frames().0;
        assert!(frames > 40 && frames < most, "{name}: {frames} frames");
    }
}

#[test]
fn lease_tells_all_that_the_server_said() {
    let run = run(
        parse(
            "dhcp.mtu = 1400\ndhcp.search = a.example, b.a.example\ndhcp.domain = x.internal\n\
             dhcp.dns = 168.63.129.16, 10.0.0.53",
        ),
        Health::Ready,
    );
    assert_ready(&run);
    let lease = run.lease.unwrap();
    assert_eq!(lease.to_string(), "10.0.0.4/24");
    assert_eq!(lease.mtu(), Some(1400));
    assert_eq!(lease.search(), "a.example b.a.example");
    assert_eq!(lease.domain(), "x.internal");
    assert_eq!(lease.dns().len(), 2);
    assert_eq!(lease.routes().len(), 3);
    assert!(lease.is_primary());
    assert_eq!((lease.duration(), lease.renewal()), (None, None));
}

#[test]
fn split_and_overloaded_options_give_the_same_lease() {
    let plain = run(scenario("healthy"), Health::Ready).lease;
    for name in ["dhcp-split-options", "dhcp-overload"] {
        assert_eq!(run(scenario(name), Health::Ready).lease, plain, "{name}");
    }
}

#[test]
fn the_primary_interface_wins_wherever_it_stands() {
    let other = [0x00, 0x0d, 0x3a, 0x65, 0x43, 0x21];
    for macs in [[MAC, other], [other, MAC]] {
        let mut scenario = scenario("healthy");
        scenario.net.primary = Some(MAC);
        let run = run_on(scenario, Health::Ready, &macs, Duration::ZERO);
        assert_ready(&run);
        assert_eq!(run.mac, Some(MAC));
        assert!(
            run.round_trips() <= 5.01,
            "{} round trips",
            run.round_trips()
        );
    }
}

#[test]
fn a_report_that_comes_late_echoes_a_fresh_goal_state() {
    let mut scenario = parse("machine.moves_after = 1");
    scenario.link.latency = RTT / 2;
    let late = Duration::from_secs(30);
    let run = run_on(scenario, Health::Ready, &[MAC], late);
    assert_ready(&run);
    // One connection, goal state and report: no stale report in between.
    assert!(
        run.ended <= late + RTT * 4,
        "{:?}\n{}",
        run.ended,
        run.journal()
    );
}

#[test]
fn a_report_that_comes_soon_after_needs_one_round_trip() {
    let soon = RTT * 6;
    let run = run_on(scenario("healthy"), Health::Ready, &[MAC], soon);
    assert_ready(&run);
    let took = run.ended.checked_sub(soon).unwrap();
    assert!(
        took <= RTT + Duration::from_millis(1),
        "{took:?}\n{}",
        run.journal()
    );
}

#[test]
fn host_name_is_registered_and_only_its_label() {
    let run = run(scenario("healthy"), Health::Ready);
    assert!(run.journal().contains("vm-demo01"), "{}", run.journal());
}

#[test]
fn silence_is_not_taken_for_an_answer() {
    // Bytes that are no frames, and frames that are not for us.
    let world = Rc::new(RefCell::new(World {
        platform: Platform::new(scenario("dhcp-never")),
        now: Duration::ZERO,
        arrived: VecDeque::new(),
    }));
    let buffers: &'static mut Buffers = Box::leak(Box::new(Buffers::new()));
    let mut network = Network::new();
    let cable = Cable {
        world: Rc::clone(&world),
        mac: MAC,
    };
    network.add(cable, Random::new(1), Duration::ZERO).unwrap();
    let mut random = Random::new(3);
    for round in 0..2000u64 {
        let length = 6 + random.bits() as usize % 600;
        let mut frame: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
        frame[..6].copy_from_slice(&MAC);
        world.borrow_mut().arrived.push_back(frame);
        let now = Duration::from_millis(round);
        assert!(network.poll(now, &mut buffers.frames, None).is_none());
    }
}

#[test]
fn metadata_service_that_is_not_there_is_given_up_and_one_in_trouble_is_asked_for_long() {
    let second = Duration::from_secs(1);
    for (trouble, earliest, latest, fault) in [
        (
            "tcp.imds = silent",
            20,
            90,
            "connection timeout querying IMDS",
        ),
        (
            "tcp.imds = refused",
            10,
            60,
            "connection error querying IMDS",
        ),
        ("imds.answers = 403", 0, 1, "http error 403 querying IMDS"),
        (
            "imds.answers = 404",
            290,
            320,
            "http error 404 querying IMDS",
        ),
        (
            "imds.answers = 503",
            290,
            320,
            "http error 503 querying IMDS",
        ),
        (
            "imds.answers = truncated",
            290,
            320,
            "error parsing IMDS metadata: ",
        ),
    ] {
        let run = run(
            parse(&format!("health.answers = 503\n{trouble}")),
            Health::Ready,
        );
        let (at, why) = run.asked.clone().expect(trouble);
        assert!(
            at >= second * earliest && at <= second * latest,
            "{trouble}: {at:?}"
        );
        let why = why.unwrap();
        assert!(why.starts_with(fault), "{trouble}: {why}");
    }
}
