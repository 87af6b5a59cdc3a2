//! What the platform does not let pass.

use lab::platform::http::{Door, Request, State, answer};
use lab::platform::{Scenario, Verdict};

use crate::agent::{Agent, GOAL_STATE, READY, health};
use crate::guest::{Ask, Guest, WIRESERVER};
use lab::platform::frame;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const CONTAINER: &str = "3f0c9a1e-7b52-4d6a-9c11-0e5d2b8a4f63";
const INSTANCE: &str = "9e2d7c40-51ab-4f3e-8d77-6a1b2c3d4e5f._vm-demo01";

/// The services without a network: text in, status out.
struct Desk {
    state: State,
    complaints: Vec<String>,
}

impl Desk {
    fn new() -> Self {
        Self {
            state: State::new(Scenario::default()),
            complaints: Vec::new(),
        }
    }

    fn ask_at(&mut self, door: Door, text: &str) -> (u16, String) {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ');
        let request = Request {
            at: Duration::from_secs(1),
            door,
            method: first.next().unwrap().into(),
            target: first.next().unwrap().into(),
            version: 1,
            headers: lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            body: body.into(),
        };
        let response = answer(&mut self.state, &request);
        self.complaints.extend(response.complaints);
        (response.status, String::from_utf8(response.body).unwrap())
    }

    fn ask(&mut self, text: &str) -> u16 {
        self.ask_at(Door::Wireserver, text).0
    }

    fn report(&mut self, inner: &str) -> u16 {
        self.ask(&health("3", CONTAINER, INSTANCE, inner))
    }
}

fn failed(description: &str) -> String {
    format!(
        "<State>NotReady</State><Details><SubStatus>ProvisioningFailed</SubStatus>\
         <Description>{description}</Description></Details>"
    )
}

#[test]
fn a_goal_state_needs_its_version_header() {
    let mut desk = Desk::new();
    assert_eq!(desk.ask(GOAL_STATE), 200);
    assert_eq!(
        desk.ask(&GOAL_STATE.replace("/machine/?", "/machine?")),
        200
    );
    assert_eq!(
        desk.ask(&GOAL_STATE.replace("x-ms-version: 2012-11-30\r\n", "")),
        400
    );
    assert_eq!(
        desk.ask(&GOAL_STATE.replace("2012-11-30", "2012-11-31")),
        400
    );
    assert_eq!(desk.ask(&GOAL_STATE.replace("GET", "POST")), 405);
    assert_eq!(
        desk.ask(&GOAL_STATE.replace("comp=goalstate", "comp=GoalState")),
        404
    );
    assert_eq!(
        desk.ask("GET /?comp=versions HTTP/1.1\r\nHost: 168.63.129.16\r\n\r\n"),
        200
    );
}

#[test]
fn a_report_must_be_right_in_every_part() {
    let mut desk = Desk::new();
    desk.ask(GOAL_STATE);
    let good = health("3", CONTAINER, INSTANCE, READY);
    let refused = [
        good.replace("POST", "PUT"),
        good.replace("x-ms-version: 2012-11-30\r\n", ""),
        good.replace(
            "text/xml;charset=utf-8",
            "application/x-www-form-urlencoded",
        ),
        good.replace("Content-Type: text/xml;charset=utf-8\r\n", ""),
        good.replace("</Health></Role>", "</Role>"),
        good.replace("<State>Ready</State>", ""),
        good.replace("Ready", "Read"),
        good.replace("<Role>", "<RoleInstance>")
            .replace("</Role>", "</RoleInstance>"),
        health("3", "00000000-7b52-4d6a-9c11-0e5d2b8a4f63", INSTANCE, READY),
        health("3", CONTAINER, "other", READY),
        health("4", CONTAINER, INSTANCE, READY),
        health("", CONTAINER, INSTANCE, READY),
        health(
            "3",
            CONTAINER,
            INSTANCE,
            "<State>NotReady</State><Details><SubStatus>Odd</SubStatus><Description/></Details>",
        ),
    ];
    for text in refused {
        let status = desk.ask(&text);
        assert!(matches!(status, 400 | 405), "{status}: {text}");
    }
    let at = good.find("Content-Length").unwrap();
    let end = at + good[at..].find("\r\n").unwrap() + 2;
    assert_eq!(desk.ask(&[&good[..at], &good[end..]].concat()), 411);
    assert_eq!(desk.ask(&health("1", CONTAINER, INSTANCE, READY)), 410);
    assert_eq!(desk.state.verdict, Verdict::Creating);
    desk.complaints.clear();
    assert_eq!(desk.ask(&good), 200);
    assert_eq!(desk.state.verdict, Verdict::Ready);
    assert_eq!(desk.complaints, [""; 0]);
}

#[test]
fn a_description_may_have_4096_bytes_as_sent() {
    let mut desk = Desk::new();
    desk.ask(GOAL_STATE);
    assert_eq!(desk.report(&failed(&"&amp;".repeat(820))), 400);
    assert_eq!(desk.report(&failed(&"x".repeat(4097))), 400);
    assert_eq!(desk.report(&failed(&"x".repeat(4096))), 200);
    assert_eq!(
        desk.state.verdict,
        Verdict::Failed {
            description: "x".repeat(4096)
        }
    );
    assert_eq!(desk.report(&failed("a &lt; b &amp; c")), 200);
    assert_eq!(
        desk.state.verdict,
        Verdict::Failed {
            description: "a < b & c".into()
        }
    );
}

#[test]
fn ready_does_not_undo_a_failure() {
    let mut desk = Desk::new();
    desk.ask(GOAL_STATE);
    desk.report(&failed("no"));
    desk.report(READY);
    assert_eq!(
        desk.state.verdict,
        Verdict::Failed {
            description: "no".into()
        }
    );
    assert_eq!(
        desk.complaints,
        ["health: Ready after ProvisioningFailed, which is final"]
    );
}

#[test]
fn the_json_door_is_as_strict() {
    let post = |body: &str| {
        format!(
            "POST /provisioning/health HTTP/1.1\r\nHost: 168.63.129.16\r\nx-ms-guest-agent-name: test\r\n\
             content-type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut desk = Desk::new();
    for body in [
        "",
        "{}",
        "{\"state\":\"ready\"}",
        "{\"state\":\"Ready\",\"x\":1}",
        "[]",
        "{\"state\":\"NotReady\"}",
    ] {
        assert_eq!(desk.ask(&post(body)), 400, "{body}");
    }
    assert_eq!(
        desk.ask(&post("{\"state\":\"Ready\"}").replace("application/json", "text/xml")),
        400
    );
    let progress = "{\"state\":\"NotReady\",\"details\":{\"subStatus\":\"Provisioning\",\"description\":\"x\"}}";
    assert_eq!(desk.ask(&post(progress)), 201);
    assert_eq!(desk.state.verdict, Verdict::Creating);
    assert_eq!(desk.ask(&post("{\"state\":\"Ready\"}")), 201);
    assert_eq!(desk.state.verdict, Verdict::Ready);
}

#[test]
fn the_documents_of_the_goal_state_are_where_it_says() {
    let mut desk = Desk::new();
    let (_, text) = desk.ask_at(Door::Wireserver, GOAL_STATE);
    let document = roxmltree::Document::parse(&text).unwrap();
    let urls: Vec<String> = document
        .descendants()
        .filter(roxmltree::Node::is_element)
        .filter_map(|node| node.text().filter(|text| text.starts_with("http://")))
        .map(str::to_string)
        .collect();
    assert_eq!(urls.len(), 5);
    for url in urls {
        let target = url.strip_prefix("http://168.63.129.16:80").unwrap();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: 168.63.129.16\r\nx-ms-version: 2012-11-30\r\n\
             x-ms-cipher-name: DES_EDE3_CBC\r\nx-ms-guest-agent-public-x509-cert: MIIC\r\n\r\n"
        );
        let (status, body) = desk.ask_at(Door::Wireserver, &request);
        assert_eq!(status, 200, "{url}");
        roxmltree::Document::parse(&body).unwrap();
        let stale = request.replace("incarnation=3", "incarnation=2");
        assert_eq!(desk.ask(&stale), 410);
    }
}

#[test]
fn metadata_needs_its_header_and_a_known_version() {
    let get = |target: &str, headers: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n\r\n")
    };
    let mut desk = Desk::new();
    let mut ask = |target: &str, headers: &str| desk.ask_at(Door::Imds, &get(target, headers));
    let instance = "/metadata/instance?api-version=2021-02-01";
    assert_eq!(ask(instance, "Metadata: true").0, 200);
    assert_eq!(ask(instance, "X: y").0, 400);
    assert_eq!(ask(instance, "Metadata: false").0, 400);
    assert_eq!(
        ask(instance, "Metadata: true\r\nX-Forwarded-For: 10.0.0.9").0,
        400
    );
    assert_eq!(ask("/metadata/instance", "Metadata: true").0, 400);
    assert_eq!(
        ask(
            "/metadata/instance?api-version=2021-02-02",
            "Metadata: true"
        )
        .0,
        400
    );
    let name = "/metadata/instance/compute/name?api-version=2019-06-01";
    assert_eq!(
        ask(&format!("{name}&format=text"), "Metadata: true"),
        (200, "vm-demo01".into())
    );
    assert_eq!(ask(name, "Metadata: true").0, 400);
    assert_eq!(
        ask(
            "/metadata/instance/compute/nope?api-version=2019-06-01",
            "Metadata: true"
        )
        .0,
        404
    );
    assert_eq!(
        ask(
            "/metadata/reprovisiondata?api-version=2019-06-01",
            "Metadata: true"
        )
        .0,
        404
    );
    assert_eq!(
        ask(
            "/Microsoft.Compute/identity?api-version=2019-03-11",
            "Metadata: true"
        )
        .0,
        404
    );
}

#[test]
fn an_expectation_and_a_proxy_request_are_refused() {
    let mut desk = Desk::new();
    assert_eq!(
        desk.ask(&GOAL_STATE.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n")),
        400
    );
    assert_eq!(
        desk.ask(&GOAL_STATE.replace("GET /", "GET http://168.63.129.16/")),
        400
    );
    assert_eq!(
        desk.ask(&GOAL_STATE.replace("Host: 168.63.129.16\r\n", "")),
        400
    );
    assert_eq!(desk.complaints.len(), 3);
}

#[test]
fn dhcp_messages_that_fit_no_state_are_complained_about() {
    let complaint = |build: &dyn Fn(&mut Guest) -> Vec<Ask>, word: &str| {
        let mut guest = Guest::named("healthy");
        for ask in build(&mut guest) {
            guest.send_dhcp(&ask);
        }
        let complaints = guest.complaints();
        assert!(
            complaints.iter().any(|text| text.contains(word)),
            "{word}: {complaints:?}"
        );
    };
    let server = [168, 63, 129, 16];
    complaint(
        &|_| vec![Ask::new(1, 1).with(54, &server)],
        "DISCOVER with option 54",
    );
    complaint(&|_| vec![Ask::new(1, 3)], "fit no state");
    complaint(&|_| vec![Ask::new(1, 3).with(54, &server)], "fit no state");
    complaint(
        &|_| vec![Ask::new(1, 3).with(54, &server).with(50, &[10, 0, 0, 4])],
        "no DISCOVER",
    );
    complaint(
        &|guest| {
            let request = Ask::new(2, 3).with(54, &server).with(50, &[10, 0, 0, 4]);
            vec![guest.discover(1), request]
        },
        "another xid",
    );
    complaint(
        &|guest| {
            let request = Ask::new(1, 3).with(54, &server).with(50, &[10, 0, 0, 4]);
            vec![guest.discover(1), request]
        },
        "another parameter list",
    );
    complaint(
        &|_| {
            vec![
                Ask::new(1, 3)
                    .with(54, &[10, 9, 9, 9])
                    .with(50, &[10, 0, 0, 4]),
            ]
        },
        "offered nothing",
    );
    complaint(&|_| vec![Ask::new(1, 2)], "not for clients");
    complaint(&|_| vec![Ask::new(1, 77)], "missing or unknown");
    complaint(&|_| vec![Ask::new(1, 1).with(57, &[1, 0])], "option 57");
    complaint(
        &|_| vec![Ask::new(1, 4).with(50, &[10, 0, 0, 4])],
        "DECLINE or RELEASE",
    );
}

#[test]
fn packets_from_foreign_addresses_and_to_foreign_cards_go_nowhere() {
    let mut agent = Agent::start(Scenario::default()).unwrap();
    let guest = &mut agent.guest;
    let ping = |from: Ipv4Addr| {
        let mut message = vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0];
        message[2..4].copy_from_slice(&[0xf7, 0xff]);
        frame::ipv4(from, Ipv4Addr::new(10, 0, 0, 1), frame::ICMP, &message)
    };
    let own = ping(Ipv4Addr::new(10, 0, 0, 4));
    let gateway = crate::guest::GATEWAY_MAC;
    let second = Duration::from_secs(1);
    guest.send(&frame::ethernet(gateway, guest.mac, frame::IPV4, &own));
    assert!(
        guest.wait(second, |_| Some(())).is_some(),
        "{}",
        guest.log()
    );
    guest.send(&frame::ethernet([2; 6], guest.mac, frame::IPV4, &own));
    assert!(guest.wait(second, |_| Some(())).is_none());
    let foreign = ping(Ipv4Addr::new(10, 0, 0, 5));
    guest.send(&frame::ethernet(gateway, guest.mac, frame::IPV4, &foreign));
    assert!(guest.wait(second, |_| Some(())).is_none());
    let mut broken = own.clone();
    broken[10] ^= 1;
    guest.send(&frame::ethernet(gateway, guest.mac, frame::IPV4, &broken));
    assert!(guest.wait(second, |_| Some(())).is_none());
    assert_eq!(guest.complaints().len(), 3);
}

/// Own xorshift, fixed seed: whatever arrives, the platform lives on.
#[test]
fn frames_of_all_sorts_of_nonsense_do_not_stop_the_platform() {
    let mut guest = Guest::named("healthy");
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let packet = frame::udp(from, to, &guest.discover(5).bytes(guest.mac));
    let good = frame::ethernet(frame::BROADCAST, guest.mac, frame::IPV4, &packet);
    let mut noise = 0x1234_5678_9abc_def0_u64;
    let mut next = move || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as usize
    };
    for _ in 0..5000 {
        let mut bad = good.clone();
        for _ in 0..next() % 4 {
            let at = next() % bad.len();
            bad[at] = next() as u8;
        }
        if next() % 3 == 0 {
            bad.truncate(next() % bad.len());
        }
        // Without this hardly any gets past the checksum.
        frame::fill_checksum(&mut bad);
        guest.send(&bad);
        while guest.platform.transmit(guest.now).is_some() {}
    }
    let mut fresh = Agent::start(Scenario::default()).unwrap();
    assert_eq!(fresh.ask(WIRESERVER, 80, GOAL_STATE).unwrap().status, 200);
    assert!(guest.lease().is_some());
}

/// Own xorshift, fixed seed.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % limit
    }

    /// Changes, cuts or doubles a few bytes.
    fn spoil(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bad = good.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bad.len());
            match self.below(4) {
                0 => bad.truncate(at + 1),
                1 => bad.insert(at, bad[at]),
                _ => bad[at] = self.below(256) as u8,
            }
        }
        bad
    }
}

#[test]
fn spoilt_requests_never_count_as_another_vms_report() {
    let mut noise = Noise(0x1234_5678_9abc_def1);
    let good = health("3", CONTAINER, INSTANCE, &failed("disc: a &lt; b"));
    let json = "POST /provisioning/health HTTP/1.1\r\nHost: 168.63.129.16\r\nContent-Type: application/json\r\n\
                Content-Length: 17\r\n\r\n{\"state\":\"Ready\"}";
    for round in 0..4000 {
        let sample = if round % 2 == 0 {
            good.as_bytes()
        } else {
            json.as_bytes()
        };
        let (head, body) = std::str::from_utf8(sample)
            .unwrap()
            .split_once("\r\n\r\n")
            .unwrap();
        let body = String::from_utf8_lossy(&noise.spoil(body.as_bytes())).into_owned();
        let mut desk = Desk::new();
        desk.ask(GOAL_STATE);
        let status = desk.ask(&format!("{head}\r\n\r\n{body}"));
        assert!(matches!(status, 200 | 201 | 400 | 410), "{status}: {body}");
        assert!(status < 300 || desk.state.verdict == Verdict::Creating);
    }
}

#[test]
fn spoilt_scenarios_are_read_or_refused_with_their_line() {
    let good = "base = dhcp-nak-once\nlink.latency = 500us\nlink.lose.any = 3, 5-6, */100\n\
                dhcp.routes = 0.0.0.0/0 via 10.0.0.1\ndhcp.option.43 = 01 02:0a\n\
                health.answers = 410*3, ok+delay:3s+chunked\nnet.primary = 00:0d:3a:11:22:33\n";
    let mut noise = Noise(0x0fed_cba9_8765_4321);
    let mut read = 0;
    for _ in 0..4000 {
        let bad = String::from_utf8_lossy(&noise.spoil(good.as_bytes())).into_owned();
        match Scenario::parse(&bad) {
            Ok(_) => read += 1,
            Err(error) => assert!((1..=bad.lines().count()).contains(&error.line), "{error}"),
        }
    }
    assert!((100..3900).contains(&read), "{read}");
}

#[test]
fn spoilt_segments_do_not_stop_the_services() {
    let mut noise = Noise(0x1357_9bdf_0246_8ace);
    let mut agent = Agent::start(Scenario::default()).unwrap();
    let good = health("3", CONTAINER, INSTANCE, READY);
    for _ in 0..300 {
        let bad = String::from_utf8_lossy(&noise.spoil(good.as_bytes())).into_owned();
        let handle = agent.tcp.dial(WIRESERVER, 80);
        let limit = Duration::from_millis(50);
        let end = |bytes: &[u8]| bytes.ends_with(b"\r\n\r\n");
        let _ = agent
            .tcp
            .talk(&mut agent.guest, handle, bad.as_bytes(), limit, end);
        agent.tcp.socket(handle).abort();
        agent.tcp.live(&mut agent.guest, limit, |_| false);
    }
    assert_eq!(agent.ask(WIRESERVER, 80, GOAL_STATE).unwrap().status, 200);
}
