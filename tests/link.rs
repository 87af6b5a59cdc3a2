//! Packet sockets and links against a real kernel, on a veth pair.
//!
//! Each test runs itself again in a user and network namespace of its own, so it needs no root and
//! never sees the network of the machine.

mod namespace;

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use namespace::ip;
use preroot::linux::link::{LinkState, Links};
use preroot::linux::packet::{Frame, PacketSocket};
use preroot::linux::poll;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

/// Runs `body` in a namespace where `left` and `right` are the two ends of a cable, both down.
fn in_namespace<F: FnOnce()>(body: F) {
    namespace::run(&["--user", "--map-root-user", "--net"], body, |body| {
        ip(
            "link add left address 02:00:00:00:00:0a type veth peer name right address 02:00:00:00:00:0b",
        );
        body();
    });
}

/// Switches IPv6 off, which would chatter, and both ends on.
fn up() {
    for end in ["left", "right"] {
        // Absent on a kernel without IPv6.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1");
    }
    ip("link set left up");
    ip("link set right up");
    wait_for_the_queues();
}

/// Waits until both ends really send.
///
/// An end whose carrier comes by the other end's doing gets its queue a little later, from a kernel
/// thread; until then what it is given to send vanishes without an error.
fn wait_for_the_queues() {
    let sends = |end| {
        let output = Command::new("ip")
            .args(["-o", "link", "show", end])
            .output()
            .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("state UP")
    };
    let start = Instant::now();
    while !(sends("left") && sends("right")) {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the cable has no carrier"
        );
    }
}

fn open(name: &str) -> PacketSocket {
    PacketSocket::open(index(name)).unwrap()
}

fn index(name: &str) -> u32 {
    // Any socket serves to ask.
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    rustix::net::netdevice::name_to_index(&socket, name).unwrap()
}

/// Waits for the next frame, up to two seconds.
fn next(socket: &PacketSocket, buffer: &mut [u8]) -> Result<Option<Frame>, Errno> {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    poll::wait(&mut fds, Some(Duration::from_secs(2))).unwrap();
    socket.receive(buffer)
}

const LEFT: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
const RIGHT: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];

/// A frame from `right` to `left`.
fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&LEFT[..], &RIGHT, &kind.to_be_bytes(), payload].concat()
}

/// An IPv4 packet whose header has `options` words more than it must have; checksums are 0.
fn ipv4(options: u8, fragment: u16, protocol: u8, ports: (u16, u16)) -> Vec<u8> {
    let mut packet = vec![0; 20 + usize::from(options) * 4 + 40];
    packet[0] = 0x45 + options;
    let length = (packet.len() as u16).to_be_bytes();
    packet[2..4].copy_from_slice(&length);
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    let transport = 20 + usize::from(options) * 4;
    packet[transport..transport + 2].copy_from_slice(&ports.0.to_be_bytes());
    packet[transport + 2..transport + 4].copy_from_slice(&ports.1.to_be_bytes());
    packet
}

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
fn frames_arrive_and_own_frames_do_not_come_back() {
    in_namespace(|| {
        up();
        let (left, right) = (open("left"), open("right"));
        let mut buffer = [0; 2048];
        let there = [&RIGHT[..], &LEFT, &ARP.to_be_bytes(), &[1; 46]].concat();
        left.send(&there).unwrap();
        let frame = next(&right, &mut buffer).unwrap().unwrap();
        assert_eq!(
            frame,
            Frame {
                len: there.len(),
                whole: true,
                checksum_ready: false
            }
        );
        assert_eq!(buffer[..frame.len], there);
        let back = ethernet(ARP, &[2; 46]);
        right.send(&back).unwrap();
        // The first thing the left end sees is the answer, not its own frame.
        let frame = next(&left, &mut buffer).unwrap().unwrap();
        assert_eq!(buffer[..frame.len], back);
        assert_eq!(left.receive(&mut buffer), Ok(None));
        assert_eq!(right.receive(&mut buffer), Ok(None));
    });
}

#[test]
fn only_arp_dhcp_and_http_answers_pass_the_filter() {
    in_namespace(|| {
        up();
        let (left, right) = (open("left"), open("right"));
        let other_station = [
            &[2, 0, 0, 0, 0, 0x0c][..],
            &RIGHT,
            &ARP.to_be_bytes(),
            &[0; 46],
        ];
        let broadcast = [&[0xff; 6][..], &RIGHT, &ARP.to_be_bytes(), &[0; 46]];
        let cases: &[(&str, bool, Vec<u8>)] = &[
            ("arp", true, ethernet(ARP, &[0; 46])),
            ("arp to all", true, broadcast.concat()),
            ("arp for another station", false, other_station.concat()),
            ("ipv6", false, ethernet(0x86dd, &[0; 46])),
            ("dhcp", true, ethernet(IPV4, &ipv4(0, 0, UDP, (67, 68)))),
            (
                "dhcp, long header",
                true,
                ethernet(IPV4, &ipv4(10, 0, UDP, (67, 68))),
            ),
            (
                "dhcp, may not be fragmented",
                true,
                ethernet(IPV4, &ipv4(0, 0x4000, UDP, (67, 68))),
            ),
            (
                "dhcp, later fragment",
                false,
                ethernet(IPV4, &ipv4(0, 7, UDP, (67, 68))),
            ),
            (
                "dhcp to a server",
                false,
                ethernet(IPV4, &ipv4(0, 0, UDP, (68, 67))),
            ),
            ("dns", false, ethernet(IPV4, &ipv4(0, 0, UDP, (53, 4000)))),
            (
                "http answer",
                true,
                ethernet(IPV4, &ipv4(0, 0, TCP, (80, 4000))),
            ),
            (
                "http answer, long header",
                true,
                ethernet(IPV4, &ipv4(3, 0, TCP, (80, 4000))),
            ),
            (
                "http request",
                false,
                ethernet(IPV4, &ipv4(0, 0, TCP, (4000, 80))),
            ),
            (
                "http port, options say so only",
                false,
                ethernet(IPV4, &ipv4(1, 0, TCP, (81, 80))),
            ),
            (
                "tcp on the dhcp port",
                false,
                ethernet(IPV4, &ipv4(0, 0, TCP, (67, 68))),
            ),
            (
                "udp on the http port",
                false,
                ethernet(IPV4, &ipv4(0, 0, UDP, (80, 4000))),
            ),
            ("icmp", false, ethernet(IPV4, &ipv4(0, 0, 1, (80, 68)))),
            (
                "cut before the ports",
                false,
                ethernet(IPV4, &ipv4(0, 0, UDP, (67, 68))[..22]),
            ),
            ("nothing but a header", false, ethernet(IPV4, &[])),
        ];
        let mut buffer = [0; 2048];
        let mark = ethernet(ARP, &[0x55; 46]);
        for (name, passes, frame) in cases {
            right.send(frame).unwrap();
            // The mark passes for sure and is behind the frame: no time is waited for silence.
            right.send(&mark).unwrap();
            let first = next(&left, &mut buffer).unwrap().unwrap();
            let passed = buffer[..first.len] == **frame;
            assert_eq!(passed, *passes, "{name}");
            if passed {
                let second = next(&left, &mut buffer).unwrap().unwrap();
                assert_eq!(buffer[..second.len], mark, "{name}");
            } else {
                assert_eq!(buffer[..first.len], mark, "{name}");
            }
        }
    });
}

#[test]
fn a_frame_that_is_cut_is_noticed_and_the_next_is_whole() {
    in_namespace(|| {
        up();
        let (left, right) = (open("left"), open("right"));
        let long = ethernet(ARP, &[3; 186]);
        right.send(&long).unwrap();
        right.send(&ethernet(ARP, &[4; 46])).unwrap();
        let mut buffer = [0; 64];
        let frame = next(&left, &mut buffer).unwrap().unwrap();
        assert_eq!((frame.len, frame.whole), (64, false));
        assert_eq!(buffer, long[..64]);
        let frame = next(&left, &mut buffer).unwrap().unwrap();
        assert_eq!((frame.len, frame.whole), (60, true));
    });
}

#[test]
fn checksums_are_settled_only_where_the_kernel_says_so() {
    in_namespace(|| {
        up();
        ip("address add 10.0.0.1/24 dev right");
        ip("neighbour add 10.0.0.2 lladdr 02:00:00:00:00:0a dev right");
        let (left, right) = (open("left"), open("right"));
        let mut buffer = [0; 2048];
        // The kernel of this very host leaves the checksum to a device that does not exist.
        let kernel = UdpSocket::bind("10.0.0.1:67").unwrap();
        kernel.send_to(b"from the kernel", "10.0.0.2:68").unwrap();
        let frame = next(&left, &mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[frame.len - 15..frame.len], b"from the kernel");
        assert!(frame.checksum_ready);
        // A raw frame is what its sender made it; nobody vouches for it.
        right
            .send(&ethernet(IPV4, &ipv4(0, 0, UDP, (67, 68))))
            .unwrap();
        let frame = next(&left, &mut buffer).unwrap().unwrap();
        assert!(frame.whole && !frame.checksum_ready);
    });
}

#[test]
fn an_interface_that_goes_down_comes_back() {
    in_namespace(|| {
        up();
        let (left, right) = (open("left"), open("right"));
        let mut buffer = [0; 2048];
        ip("link set left down");
        assert_eq!(next(&left, &mut buffer), Err(Errno::NETDOWN));
        assert_eq!(left.receive(&mut buffer), Ok(None), "reported once");
        assert_eq!(left.send(&[0xff; 60]), Err(Errno::NETDOWN));
        ip("link set left up");
        wait_for_the_queues();
        let frame = ethernet(ARP, &[6; 46]);
        right.send(&frame).unwrap();
        let got = next(&left, &mut buffer).unwrap().unwrap();
        assert_eq!(buffer[..got.len], frame);
        assert_eq!(left.send(&[0xff; 60]), Ok(()));
    });
}

#[test]
fn an_interface_that_is_down_at_first_can_be_opened() {
    in_namespace(|| {
        let left = open("left");
        let mut buffer = [0; 2048];
        assert_eq!(left.receive(&mut buffer), Err(Errno::NETDOWN));
        up();
        open("right").send(&ethernet(ARP, &[7; 46])).unwrap();
        let got = next(&left, &mut buffer).unwrap().unwrap();
        assert_eq!(got.len, 60);
    });
}

#[test]
fn an_interface_that_is_gone_is_an_error_for_good() {
    in_namespace(|| {
        up();
        let left = open("left");
        let mut buffer = [0; 2048];
        ip("link delete left");
        assert_eq!(next(&left, &mut buffer), Err(Errno::NETDOWN));
        assert_eq!(left.send(&[0xff; 60]), Err(Errno::NXIO));
        assert_eq!(PacketSocket::open(4_000_000).err(), Some(Errno::NODEV));
    });
}

/// Reads states until `found` is content with what is known, for at most ten seconds.
fn follow(links: &mut Links, found: impl Fn(&Known) -> bool) -> Known {
    let mut known = Known::default();
    let start = Instant::now();
    loop {
        while let Some(link) = links.next().unwrap() {
            known.seen += 1;
            if link.removed {
                known.removed.push(link.name.as_str().to_owned());
                known.links.remove(&link.index);
            } else {
                known.links.insert(link.index, link);
            }
        }
        if found(&known) {
            return known;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{known:?}");
        let mut fds = [PollFd::new(&*links, PollFlags::IN)];
        poll::wait(&mut fds, Some(Duration::from_secs(1))).unwrap();
    }
}

#[derive(Debug, Default)]
struct Known {
    links: BTreeMap<u32, LinkState>,
    removed: Vec<String>,
    seen: usize,
}

impl Known {
    fn named(&self, name: &str) -> Option<&LinkState> {
        self.links.values().find(|link| link.name == name)
    }

    fn has_carrier(&self, name: &str) -> bool {
        self.named(name).is_some_and(|link| link.up && link.carrier)
    }
}

#[test]
fn a_dump_lists_all_there_is() {
    in_namespace(|| {
        let mut links = Links::open().unwrap();
        assert_eq!(
            links.next(),
            Ok(None),
            "nothing is told before it is asked for"
        );
        links.dump().unwrap();
        // All of it is there at once: nothing is waited for.
        let known = follow(&mut links, |_| true);
        assert_eq!(known.seen, 3);
        let lo = known.named("lo").unwrap();
        assert!(lo.index == 1 && !lo.ethernet && !lo.up && !lo.carrier);
        for (name, mac) in [("left", LEFT), ("right", RIGHT)] {
            let link = known.named(name).unwrap();
            assert_eq!(
                (link.index, link.mac, link.ethernet),
                (index(name), mac, true)
            );
            assert!(!link.up && !link.carrier);
        }
    });
}

#[test]
fn a_dump_of_many_links_is_whole() {
    in_namespace(|| {
        for number in 0..40 {
            ip(&format!(
                "link add name many{number} type veth peer name peer{number}"
            ));
        }
        let mut links = Links::open().unwrap();
        links.dump().unwrap();
        // Asked for again in the middle: the kernel would refuse a second list at the same time.
        for _ in 0..10 {
            assert!(links.next().unwrap().is_some());
        }
        links.dump().unwrap();
        let known = follow(&mut links, |_| true);
        assert_eq!(known.links.len(), 83);
        assert_eq!(known.seen, 73 + 83);
    });
}

#[test]
fn a_link_that_is_switched_on_at_both_ends_gets_a_carrier() {
    in_namespace(|| {
        let mut links = Links::open().unwrap();
        let (left, right) = (index("left"), index("right"));
        links.set_up(left).unwrap();
        let known = follow(&mut links, |known| {
            known.named("left").is_some_and(|link| link.up)
        });
        assert!(!known.has_carrier("left"), "the other end is off");
        links.set_up(right).unwrap();
        follow(&mut links, |known| {
            known.has_carrier("left") && known.has_carrier("right")
        });
        links.set_down(right).unwrap();
        follow(&mut links, |known| {
            let carrier = known.named("left").map(|link| (link.up, link.carrier));
            let off = known.named("right").map(|link| (link.up, link.carrier));
            carrier == Some((true, false)) && off == Some((false, false))
        });
    });
}

#[test]
fn a_link_that_is_renamed_or_removed_is_seen_as_such() {
    in_namespace(|| {
        let mut links = Links::open().unwrap();
        let left = index("left");
        ip("link set left name other");
        let known = follow(&mut links, |known| known.named("other").is_some());
        assert_eq!(known.named("other").unwrap().index, left);
        ip("link delete other");
        let known = follow(&mut links, |known| known.removed.len() == 2);
        assert!(known.removed.contains(&"other".into()) && known.removed.contains(&"right".into()));
        assert_eq!(links.set_up(left), Err(Errno::NODEV));
        assert_eq!(
            links.set_up(index("lo")),
            Ok(()),
            "a refusal is over with its order"
        );
    });
}

#[test]
fn changes_that_the_kernel_dropped_are_made_good() {
    in_namespace(|| {
        let mut links = Links::open().unwrap();
        let left = index("left");
        // Each gives an event that nobody reads, until the socket holds no more.
        for _ in 0..1000 {
            links.set_up(left).unwrap();
            links.set_down(left).unwrap();
        }
        links.set_up(left).unwrap();
        // `lo` has not changed: only a list can have named it.
        let known = follow(&mut links, |known| known.named("lo").is_some());
        assert!(known.seen < 2000, "nothing was dropped: {}", known.seen);
        assert!(known.named("left").unwrap().up);
    });
}

#[test]
fn a_list_that_changes_while_it_is_read_is_asked_for_again() {
    in_namespace(|| {
        for number in 0..20 {
            ip(&format!(
                "link add name many{number} type veth peer name peer{number}"
            ));
        }
        let mut links = Links::open().unwrap();
        links.dump().unwrap();
        let first = links.next().unwrap().unwrap();
        assert_eq!(first.name, "lo");
        // The kernel has written a part only, so the rest will be marked.
        ip("link delete many7");
        let known = follow(&mut links, |_| true);
        assert!(known.named("lo").is_some(), "the list began anew");
        assert_eq!(known.links.len(), 41);
    });
}
