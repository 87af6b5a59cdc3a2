//! Two runs that share the work of a boot: one begins early, the other comes with the root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use preroot::wire::report::Outcome;
use rustix::mount::MountFlags;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, connect, send, socket};
use rustix::process::{Pid, Signal, kill_process};

use crate::azure::Azure;
use crate::healthy::{CONVERSATION, assert_has_identity, with_key};
use crate::machine::{Machine, VM_ID, assert_at_rest, assert_same, is_up, on_machine, report};
use crate::namespace::ip;
use crate::run::{Running, our_places};

/// Where the two meet.
const DOOR: &str = "/run/preroot/prefetch";

/// Begins a prefetch.
pub(crate) fn prefetch(machine: &Machine, more: &[&str]) -> Running {
    let disc = ["--media=", machine.disc().to_str().unwrap()].concat();
    let id = ["--vm-id=", VM_ID].concat();
    let usual = [
        "prefetch",
        "--platform=azure",
        "--nic=vm0",
        &disc,
        &id,
        "--log=stderr",
        "--network=release",
        "--timeout=20",
    ];
    Running::start(&[&usual, more].concat())
}

fn kill(running: &Running) {
    kill_process(Pid::from_raw(running.id()).unwrap(), Signal::KILL).unwrap();
}

/// Adds up how long the processes of the program have kept a processor.
fn processor_time() -> Duration {
    let of_one = |place: &Path| {
        let stat = fs::read_to_string(place.join("stat")).ok()?;
        // Behind the name: state, ten numbers, then time of its own and the kernel's for it.
        let (_, rest) = stat.rsplit_once(')')?;
        let times = rest.split_whitespace().skip(11).take(2);
        Some(
            times
                .filter_map(|ticks| ticks.parse::<u64>().ok())
                .sum::<u64>(),
        )
    };
    let places = our_places();
    let ticks: u64 = places.iter().filter_map(|place| of_one(place)).sum();
    // A hundred ticks a second, on every machine that we know.
    Duration::from_millis(ticks * 10)
}

#[test]
fn provision_finishes_what_prefetch_began() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let mut early = prefetch(machine, &[]);
        // All that needs no root is done before anybody asks.
        early.wait_for("disc ok");
        early.wait_for("dhcp ok");
        assert!(!machine.has("var/lib/preroot/configured"));
        let late = machine.start(&[]).end_beside_others();
        late.exits(0);
        assert_eq!(late.stderr, "");
        // By then the interface is given back.
        assert_at_rest("vm0");
        early.end().exits(0).says("ready reported");
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), CONVERSATION);
        assert_has_identity(machine);
        assert_eq!(report().result, Outcome::Ready);
        assert!(!Path::new(DOOR).exists());
    });
}

#[test]
fn provision_does_without_a_prefetch_that_died() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let mut early = prefetch(machine, &[]);
        early.wait_for("dhcp ok");
        // Its children notice, and nobody takes the socket away.
        let id = rustix::process::Pid::from_raw(early.id()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
        early.end();
        assert!(Path::new(DOOR).exists());
        machine.provision(&[]).exits(0).says("ready reported");
        azure.end().ready();
        assert_has_identity(machine);
        assert_at_rest("vm0");
    });
}

#[test]
fn prefetch_that_comes_too_late_leaves_the_work_to_provision() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("health.answers = delay:500ms");
        let mut provision = machine.start(&[]);
        provision.wait_for("dhcp ok");
        let late = prefetch(machine, &[]).end_beside_others();
        late.exits(0).says("another run is at work already");
        // And so does another of its own kind.
        let another = machine.start(&[]).end_beside_others();
        another.exits(0);
        assert_eq!(another.stderr, "");
        provision.end().exits(0).says("ready reported");
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), CONVERSATION);
        assert!(!Path::new(DOOR).exists());
    });
}

#[test]
fn second_prefetch_leaves_the_work_to_the_first() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let mut first = prefetch(machine, &[]);
        first.wait_for("dhcp ok");
        let second = prefetch(machine, &[]).end_beside_others();
        second.exits(0).says("another run is at work already");
        machine.start(&[]).end_beside_others().exits(0);
        first.end().exits(0);
        azure.end().ready();
    });
}

#[test]
fn root_that_is_done_leaves_a_prefetch_nothing_to_do_and_nothing_to_say() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(0);
        azure.end().ready();
        let before = machine.picture();
        fs::remove_file(machine.disc()).unwrap();

        let azure = Azure::start("healthy");
        let early = prefetch(machine, &[]);
        // Long enough to find that there is no disc, and to be seen spinning.
        std::thread::sleep(Duration::from_secs(1));
        assert!(processor_time() < Duration::from_millis(300));
        assert!(
            !is_up("vm0"),
            "no interface is touched before the root asks for it"
        );
        machine.start(&[]).end_beside_others().exits(0);
        let early = early.end();
        early.exits(0).says("nothing to do").never_says("disc");
        assert_same(&machine.picture(), &before);
        azure.end().nothing();
    });
}

#[test]
fn failure_goes_through_the_prefetch_that_is_there() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let mut early = prefetch(machine, &[]);
        early.wait_for("dhcp ok");
        let reason = "--reason=root=UUID=x did not appear";
        let late = Running::start(&["report", "failed", "--platform=azure", reason]);
        late.end_beside_others().exits(0);
        early.end().exits(0).says("failure reported");
        let heard = azure.end();
        let description = heard.failed();
        assert!(
            description.contains("|reason=root=UUID=x did not appear|"),
            "{description}"
        );
        assert!(!machine.has("var/lib/preroot"));
        assert_at_rest("vm0");
    });
}

#[test]
fn prefetch_for_which_nobody_comes_ends_in_its_budget() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let before = machine.picture();
        let azure = Azure::start("healthy");
        let run = prefetch(machine, &["--timeout=3"]).end();
        run.exits(111);
        assert!(run.took >= Duration::from_secs(3), "{run}");
        assert!(run.took < Duration::from_secs(12), "{run}");
        azure.end().undecided();
        assert_at_rest("vm0");
        assert_same(&machine.picture(), &before);
        assert!(!Path::new(DOOR).exists());
    });
}

#[test]
fn failure_found_early_is_the_exit_code_of_both() {
    on_machine(|machine| {
        let document = with_key().build();
        machine.insert_text(&document.replace("</Environment>", "</Environmen>"));
        let azure = Azure::start("healthy");
        let mut early = prefetch(machine, &[]);
        early.wait_for("failed: ");
        machine.start(&[]).end_beside_others().exits(111);
        early.end().exits(111);
        azure.end().failed();
        assert_at_rest("vm0");
        assert!(!machine.has("var/lib/preroot/configured"));
    });
}

#[test]
fn provision_that_is_killed_leaves_its_order_with_the_prefetch() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("health.answers = delay:500ms");
        let mut early = prefetch(machine, &[]);
        early.wait_for("dhcp ok");
        let late = machine.start(&[]);
        early.wait_for("root ok");
        kill(&late);
        late.end_beside_others();
        early.end().exits(0).says("ready reported");
        azure.end().ready();
        assert_has_identity(machine);
        assert_at_rest("vm0");
    });
}

#[test]
fn provision_starts_over_when_its_prefetch_dies_under_it() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("health.answers = delay:700ms, ok");
        let mut early = prefetch(machine, &[]);
        early.wait_for("dhcp ok");
        let mut late = machine.start(&[]);
        early.wait_for("root ok");
        kill(&early);
        late.wait_for("the run that was at work died; starting over");
        let run = late.end();
        let heard = azure.end();
        run.exits(0).says("ready reported");
        heard.ready();
        assert_has_identity(machine);
        assert_at_rest("vm0");
        drop(early);
    });
}

/// A prefetch that dies does it at the end of its life, an administrator at any time.
#[test]
fn interface_that_somebody_puts_down_is_raised_again() {
    on_machine(|machine| {
        for scenario in ["dhcp.delay = 1s", "goalstate.answers = delay:1s, ok"] {
            machine.insert(&with_key());
            let azure = Azure::start(scenario);
            let running = machine.start(&[]);
            let start = Instant::now();
            while !is_up("vm0") {
                assert!(start.elapsed() < Duration::from_secs(5));
            }
            std::thread::sleep(Duration::from_millis(300));
            ip("link set vm0 down");
            let run = running.end();
            let heard = azure.end();
            println!("{scenario}:\n{}", heard.journal());
            run.exits(0);
            heard.ready();
            assert_at_rest("vm0");
            machine.reinstall();
        }
    });
}

#[test]
fn prefetch_takes_the_place_of_one_that_died() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let mut first = prefetch(machine, &[]);
        first.wait_for("dhcp ok");
        kill(&first);
        first.end();
        assert!(Path::new(DOOR).exists());
        let mut second = prefetch(machine, &[]);
        second.wait_for("dhcp ok");
        machine.start(&[]).end_beside_others().exits(0);
        second.end().exits(0).says("ready reported");
        azure.end().ready();
    });
}

#[test]
fn socket_is_for_root_and_survives_whatever_is_said_to_it() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let mut early = prefetch(machine, &[]);
        early.wait_for("dhcp ok");
        let is_private = |path| {
            fs::metadata(path)
                .unwrap()
                .permissions()
                .mode()
                .trailing_zeros()
                >= 6
        };
        assert!(is_private(DOOR) || is_private("/run/preroot"));
        let mut guests = Vec::new();
        for message in [
            &b""[..],
            b"\0",
            b"R",
            b"Q\xff\xfe",
            b"F",
            &[b'x'; 4000],
            b"preroot",
        ] {
            let guest = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
            connect(&guest, &SocketAddrUnix::new(DOOR).unwrap()).unwrap();
            let _ = send(&guest, message, SendFlags::NOSIGNAL);
            // Some go at once, some stay for ever.
            if message.len() < 3 {
                guests.push(guest);
            }
        }
        drop(guests.pop());
        let late = machine.start(&[]).end_beside_others();
        late.exits(0);
        early.end().exits(0).says("ready reported");
        azure.end().ready();
        assert_has_identity(machine);
    });
}

/// On a slow network, from the moment on which the root is there until the caller may go on.
#[test]
fn prefetch_makes_the_time_after_the_root_short() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let mut took = [Duration::ZERO; 2];
        for (with_prefetch, took) in [false, true].into_iter().zip(&mut took) {
            let azure = Azure::start("link.latency = 50ms");
            let early = with_prefetch.then(|| {
                let mut early = prefetch(machine, &[]);
                early.wait_for("dhcp ok");
                // The goal state comes two round trips later.
                std::thread::sleep(Duration::from_millis(600));
                early
            });
            let start = Instant::now();
            machine.start(&[]).end_beside_others().exits(0);
            *took = start.elapsed();
            if let Some(early) = early {
                early.end().exits(0);
            }
            azure.end().ready();
            machine.reinstall();
        }
        println!(
            "from the root to the end: alone {:?}, after a prefetch {:?}",
            took[0], took[1]
        );
        // DHCP alone is two round trips of 100 ms.
        assert!(took[1] + Duration::from_millis(150) < took[0], "{took:?}");
    });
}

#[test]
fn door_that_nobody_can_take_away_stops_nobody() {
    on_machine(|machine| {
        machine.insert(&with_key());
        fs::create_dir("/run/preroot").unwrap();
        drop(UnixListener::bind(DOOR).unwrap());
        // A mount of its own, so that the root stays as it is.
        rustix::mount::mount_bind("/run/preroot", "/run/preroot").unwrap();
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount("/run/preroot", flags, "").unwrap();
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--timeout=20"]);
        azure.end().ready();
        run.exits(0);
    });
}
