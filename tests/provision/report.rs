//! `preroot report`, and `prefetch` where it goes wrong: whose network is used, what the platform hears, how
//! long a caller waits, and that nothing is touched that is not ours.
//!
//! The ordinary course of both is in `prefetch`.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::platform::{Entry, Way};
use preroot::wire::report::Outcome;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, connect, send, socket};
use rustix::process::{Pid, Signal, kill_process};

use crate::azure::{Azure, Heard};
use crate::healthy::{CONVERSATION, assert_has_identity, with_key};
use crate::machine::{
    Machine, VM_ID, assert_at_rest, assert_same, firmware, is_up, on_machine, report,
};
use crate::manager::seen;
use crate::namespace::ip;
use crate::run::{Running, call};

/// Where a prefetch is found.
const DOOR: &str = "/run/preroot/prefetch";
/// What tells that Ready is left to the running system.
const LATER: &str = "/run/preroot/ready-later";
/// A tag of the firmware that is not Azure's.
const OTHER_TAG: &str = "9583-9572-9874-4843-7295-1653-92";

/// Puts together a command line of `preroot report`.
fn line<'a>(what: &'a str, machine: &Machine, more: &[&'a str]) -> Vec<String> {
    let mut all = vec![
        "report",
        what,
        "--platform=azure",
        "--nic=vm0",
        "--log=stderr",
    ];
    let id = ["--vm-id=", VM_ID].concat();
    let root = ["--root=", machine.root().to_str().unwrap()].concat();
    all.push(&id);
    if what == "ready" {
        all.push(&root);
    }
    all.extend(more);
    all.into_iter().map(str::to_owned).collect()
}

fn start(line: &[String]) -> Running {
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    Running::start(&line)
}

/// Begins a prefetch.
fn prefetch(machine: &Machine, more: &[&str]) -> Running {
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

/// Sets the network up as a network manager does, with the routes of the lease.
fn configure_network() {
    ip("address add 10.0.0.4/24 dev vm0");
    ip("link set vm0 up");
    ip("route add default via 10.0.0.1 dev vm0");
    ip("route add 168.63.129.16 via 10.0.0.1 dev vm0");
}

/// Checks that nothing was on the wire but what the kernel says for its connections, and that of ours.
#[track_caller]
fn assert_kernels_own(heard: &Heard) {
    for entry in heard.platform.journal() {
        assert!(
            !matches!(entry, Entry::Dhcp { .. } | Entry::Ping { .. }),
            "{}",
            heard.journal()
        );
        // The kernel asks from its own address, and never for it.
        if let Entry::Arp {
            way: Way::FromGuest,
            summary,
            ..
        } = entry
        {
            assert!(summary.ends_with("10.0.0.1 tell 10.0.0.4"), "{summary}");
        }
    }
}

/// Counts the packet sockets of this network.
fn packet_sockets() -> usize {
    let own = fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    own.lines().count() - 1
}

fn kill(running: &Running) {
    kill_process(Pid::from_raw(running.id()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn ready_goes_over_the_systems_network_and_leaves_it_as_it_is() {
    on_machine(|machine| {
        machine.insert(&with_key());
        machine.provision(&["--ready=later"]).exits(0);
        let azure = Azure::start("goalstate.answers = delay:500ms");
        configure_network();
        let (network, sockets) = (seen("vm0"), packet_sockets());
        let mut ready = start(&line("ready", machine, &[]));
        ready.wait_for("network ok ip=10.0.0.4");
        // Now it waits for the goal state.
        assert_eq!(packet_sockets(), sockets);
        assert_eq!(seen("vm0"), network);
        ready.end().exits(0).says("ready reported status=200");
        assert_eq!(seen("vm0"), network);
        let heard = azure.end();
        heard.ready();
        assert_kernels_own(&heard);
        assert_eq!(heard.steps(), CONVERSATION);
        assert_eq!(machine.read("var/lib/preroot/reported").trim(), VM_ID);
        assert!(!Path::new(LATER).exists());
    });
}

#[test]
fn ready_that_is_not_taken_ends_in_its_budget_and_is_due_yet() {
    on_machine(|machine| {
        machine.insert(&with_key());
        machine.provision(&["--ready=later"]).exits(0);
        configure_network();
        for scenario in [
            "wireserver-never",
            "wireserver-resets",
            "health-never-accepted",
        ] {
            let azure = Azure::start(scenario);
            let network = seen("vm0");
            let run = start(&line("ready", machine, &["--timeout=3"])).end();
            run.exits(111);
            assert!(run.took >= Duration::from_secs(3), "{scenario}: {run}");
            assert!(run.took < Duration::from_secs(12), "{scenario}: {run}");
            azure.end().undecided();
            assert_eq!(seen("vm0"), network);
            assert!(Path::new(LATER).exists(), "{scenario}: {run}");
            assert!(!machine.has("var/lib/preroot/reported"));
        }
        let azure = Azure::start("healthy");
        start(&line("ready", machine, &[])).end().exits(0);
        azure.end().ready();
        assert!(!Path::new(LATER).exists());
    });
}

#[test]
fn failure_raises_an_interface_that_nobody_has_and_puts_it_down_again() {
    on_machine(|machine| {
        let before = seen("vm0");
        let azure = Azure::start("healthy");
        let reason = "--reason=root device /dev/sda1 did not appear";
        let run = start(&line("failed", machine, &[reason])).end();
        run.exits(0)
            .says("dhcp ok nic=vm0")
            .says("failure reported status=200");
        let description = azure.end().failed();
        assert!(
            description.contains("|reason=root device /dev/sda1 did not appear|"),
            "{description}"
        );
        assert!(
            description.contains(&format!("|vm_id={VM_ID}|")),
            "{description}"
        );
        assert!(description.len() <= 4096, "{}", description.len());
        assert_eq!(seen("vm0"), before);
        assert_at_rest("vm0");
        assert_eq!(report().result, Outcome::Failed);
        assert!(!machine.has("var/lib/preroot"));
    });
}

#[test]
fn failure_goes_over_a_network_that_somebody_has_set_up() {
    on_machine(|machine| {
        let azure = Azure::start("healthy");
        configure_network();
        let network = seen("vm0");
        start(&line("failed", machine, &["--reason=x"]))
            .end()
            .exits(0);
        assert_eq!(seen("vm0"), network);
        assert!(is_up("vm0"));
        let heard = azure.end();
        heard.failed();
        assert_kernels_own(&heard);
    });
}

#[test]
fn failure_that_is_not_taken_ends_in_its_budget() {
    on_machine(|machine| {
        for scenario in [
            "dhcp-never",
            "wireserver-never",
            "wireserver-resets",
            "health-never-accepted",
        ] {
            let azure = Azure::start(scenario);
            let run = start(&line("failed", machine, &["--reason=x", "--timeout=3"])).end();
            run.exits(111);
            assert!(run.took >= Duration::from_secs(3), "{scenario}: {run}");
            assert!(run.took < Duration::from_secs(12), "{scenario}: {run}");
            azure.end().undecided();
            assert_at_rest("vm0");
        }
    });
}

#[test]
fn reason_of_any_bytes_and_length_is_reported() {
    on_machine(|machine| {
        let reasons: [(&[u8], &str); 5] = [
            (b" ", "|reason= |"),
            (b"a|b=\"c\" 'd'\n\x1b[31me", "|reason=a b= c   d ; "),
            (
                b"]]></Description><x a=\"&amp;\">",
                "|reason=]]></Description><x a= &amp; >|",
            ),
            (
                "gr\u{fc}n \u{1f600}".as_bytes(),
                "|reason=gr\u{fc}n \u{1f600}|",
            ),
            (&[b'x'; 9000], "|reason=xxxx"),
        ];
        for (reason, wanted) in reasons {
            let azure = Azure::start("healthy");
            let mut argument = b"--reason=".to_vec();
            argument.extend(reason);
            let output = Command::new(env!("CARGO_BIN_EXE_preroot"))
                .args(line("failed", machine, &[]))
                .arg(std::ffi::OsStr::from_bytes(&argument))
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(0), "{wanted}: {output:?}");
            let description = azure.end().failed();
            assert!(description.contains(wanted), "{wanted}: {description}");
            assert!(description.len() <= 4096, "{}", description.len());
            // What is cut is cut behind who it is of.
            assert!(
                description.contains(&format!("|vm_id={VM_ID}|")),
                "{wanted}: {description}"
            );
            fs::remove_file("/run/preroot/report.json").unwrap();
        }
    });
}

#[test]
fn nothing_is_said_or_done_where_it_is_not_azure() {
    on_machine(|machine| {
        firmware(OTHER_TAG, VM_ID, true, &["vm0"]);
        let before = machine.picture();
        let azure = Azure::start("healthy");
        let root = ["--root=", machine.root().to_str().unwrap()].concat();
        for line in [
            &["report", "ready", &root][..],
            &["report", "failed", "--reason=x"],
            &["report", "failed"],
            &["prefetch"],
        ] {
            let run = call(line);
            run.exits(99);
            assert_eq!((&*run.stdout, &*run.stderr), ("", ""), "{line:?}");
            assert!(run.took < Duration::from_secs(2), "{run}");
        }
        azure.end().nothing();
        assert_same(&machine.picture(), &before);
        assert!(!Path::new("/run/preroot").exists());
        assert_at_rest("vm0");
    });
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    on_machine(|_| {
        for (line, words) in [
            (&["report"][..], "report what? ready or failed"),
            (&["report", ""], "ready or failed"),
            (&["report", "Ready"], "'Ready'"),
            (&["report", "ready", "failed"], "failed"),
            (&["report", "ready", "--reason=x"], "--reason=x"),
            (
                &["report", "failed", "--reason"],
                "--reason: it needs a value",
            ),
            (
                &["report", "failed", "--resaon=x"],
                "--resaon=x: there is no such option",
            ),
            (&["report", "failed", "--timeout=soon"], "--timeout=soon"),
            (
                &["prefetch", "--nick=vm0"],
                "--nick=vm0: there is no such option",
            ),
            (&["prefetch", "now"], "now"),
            (
                &["provision", "--reason=x"],
                "--reason=x: there is no such option",
            ),
        ] {
            let run = call(line);
            run.exits(100).says(words);
            assert_eq!(run.stderr.lines().count(), 1, "{run}");
        }
        assert!(!Path::new("/run/preroot").exists());
    });
}

#[test]
fn kernel_argument_turns_all_of_it_off() {
    on_machine(|machine| {
        machine.insert(&with_key());
        machine.kernel_arguments("preroot=off");
        let azure = Azure::start("healthy");
        for line in [
            line("ready", machine, &[]),
            line("failed", machine, &["--reason=x"]),
        ] {
            let run = start(&line).end();
            run.exits(0);
            assert_eq!(run.stderr, "");
        }
        prefetch(machine, &[]).end().exits(0);
        azure.end().nothing();
        assert!(!Path::new("/run/preroot").exists());
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
        late.wait_for("the prefetch died; starting over");
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
