//! The plugs, each on a real wire with a client that is not ours: the kernel's TCP, or bare datagrams.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::platform::http::Door;
use lab::platform::{Entry, Platform, Scenario, Verdict, frame, plug};

const GOAL_STATE: &[u8] = b"GET /machine?comp=goalstate HTTP/1.1\r\nHost: 168.63.129.16\r\n\
    x-ms-version: 2012-11-30\r\nConnection: close\r\n\r\n";
const READY: &str = "<Health><GoalStateIncarnation>3</GoalStateIncarnation><Container>\
    <ContainerId>3f0c9a1e-7b52-4d6a-9c11-0e5d2b8a4f63</ContainerId><RoleInstanceList><Role>\
    <InstanceId>9e2d7c40-51ab-4f3e-8d77-6a1b2c3d4e5f._vm-demo01</InstanceId><Health><State>Ready</State>\
    </Health></Role></RoleInstanceList></Container></Health>";

/// Long enough for any machine, short enough for a hang to be noticed.
const PATIENCE: Duration = Duration::from_secs(20);

fn exchange(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Reads the goal state and reports Ready.
fn report(to: SocketAddr) {
    let goal_state = exchange(to, GOAL_STATE);
    assert!(
        goal_state.starts_with("HTTP/1.1 200 OK\r\n"),
        "{goal_state}"
    );
    assert!(goal_state.ends_with("</GoalState>\n"));
    let head = format!(
        "POST /machine?comp=health HTTP/1.1\r\nHost: 168.63.129.16\r\nx-ms-version: 2012-11-30\r\n\
         Content-Type: text/xml; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        READY.len()
    );
    let answer = exchange(to, (head + READY).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\n"),
        "the body is not empty: {answer}"
    );
}

fn complaints(platform: &Platform) -> Vec<&str> {
    platform.complaints().collect()
}

#[test]
fn plain_sockets_serve_the_kernels_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || report(address));
    let mut platform = Platform::new(Scenario::default());
    let started = Instant::now();
    let listeners = [(listener, Door::Wireserver)];
    plug::tcp::run(&mut platform, &listeners, |_| {
        client.is_finished() || started.elapsed() > 2 * PATIENCE
    })
    .unwrap();
    client.join().unwrap();
    assert_eq!(platform.verdict(), Verdict::Ready);
    assert_eq!(complaints(&platform), [""; 0]);
}

#[test]
fn plain_sockets_show_resets_and_cuts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(GOAL_STATE).unwrap();
        let reset = stream.read_to_end(&mut Vec::new()).unwrap_err().kind();
        (reset, exchange(address, GOAL_STATE))
    });
    let scenario = Scenario::parse("goalstate.answers = reset, cut").unwrap();
    let mut platform = Platform::new(scenario);
    let started = Instant::now();
    let listeners = [(listener, Door::Wireserver)];
    plug::tcp::run(&mut platform, &listeners, |_| {
        client.is_finished() || started.elapsed() > 2 * PATIENCE
    })
    .unwrap();
    let (reset, cut) = client.join().unwrap();
    assert_eq!(reset, std::io::ErrorKind::ConnectionReset);
    assert!(cut.contains("<GoalState") && !cut.contains("</GoalState>"));
}

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("lab-plugs-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn one_datagram_is_one_frame_and_an_absent_peer_is_no_error() {
    let scratch = Scratch::new();
    let (lab, vm) = (scratch.0.join("lab"), scratch.0.join("vm"));
    let socket = UnixDatagram::bind(&lab).unwrap();
    let peer = vm.clone();
    let client = std::thread::spawn(move || {
        let mut probe = vec![
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        probe.extend_from_slice(&[10, 0, 0, 1]);
        let ask = frame::ethernet(frame::BROADCAST, [2, 0, 0, 0, 0, 1], frame::ARP, &probe);
        // Nobody is bound to the VM's path yet: this answer is lost, and must end nothing.
        let unbound = UnixDatagram::unbound().unwrap();
        unbound.send_to(&ask, &lab).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let socket = UnixDatagram::bind(&vm).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&ask, &lab).unwrap();
        let mut answer = [0; 2000];
        let length = socket.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    });
    let mut platform = Platform::new(Scenario::default());
    let started = Instant::now();
    plug::dgram::run(&mut platform, &socket, &peer, None, |_| {
        client.is_finished() || started.elapsed() > 2 * PATIENCE
    })
    .unwrap();
    let answer = client.join().unwrap();
    assert_eq!(answer.len(), 60);
    assert_eq!(
        answer[..12],
        [2, 0, 0, 0, 0, 1, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]
    );
    assert_eq!(answer[20..22], [0, 2]);
    assert_eq!(platform.frames(), (2, 2));
}

/// Runs itself again in a network namespace of its own, and there the body.
#[test]
fn an_interface_in_a_namespace_serves_the_kernels_tcp() {
    const INSIDE: &str = "LAB_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return inside_a_namespace();
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "an_interface_in_a_namespace_serves_the_kernels_tcp",
        ])
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of util-linux, is needed");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(
        status.expect("ip, of iproute2, is needed").success(),
        "ip {arguments}"
    );
}

fn inside_a_namespace() {
    ip("link add vm0 type veth peer name host0");
    ip("link set host0 up");
    ip("link set vm0 up");
    ip("addr add 10.0.0.4/24 dev vm0");
    ip("route add default via 10.0.0.1");
    let interface = plug::packet::Interface::open("host0").unwrap();
    assert!(plug::packet::Interface::open("nonesuch").is_err());
    let client = std::thread::spawn(|| report("168.63.129.16:80".parse().unwrap()));
    let mut scenario = Scenario::default();
    scenario.link.latency = Duration::from_millis(2);
    let mut platform = Platform::new(scenario);
    let started = Instant::now();
    plug::packet::run(&mut platform, &interface, |_| {
        client.is_finished() || started.elapsed() > 2 * PATIENCE
    })
    .unwrap();
    client.join().unwrap();
    assert_eq!(platform.verdict(), Verdict::Ready);
    // The kernel leaves TCP checksums to hardware that a veth pair does not have.
    assert_eq!(complaints(&platform), [""; 0]);
    let arp = platform
        .journal()
        .iter()
        .any(|entry| matches!(entry, Entry::Arp { .. }));
    assert!(arp && platform.ready().is_some());
}
