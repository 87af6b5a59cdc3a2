//! `preroot report`: whose network is used, what the platform hears, how long a caller waits, and that
//! nothing is touched that is not ours.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::platform::{Entry, Way};
use preroot::wire::report::Outcome;

use crate::azure::{Azure, Heard};
use crate::healthy::{CONVERSATION, assert_has_identity, with_key};
use crate::machine::{
    Machine, VM_ID, assert_at_rest, assert_same, firmware, is_up, on_machine, report,
};
use crate::manager::seen;
use crate::namespace::ip;
use crate::prefetch::prefetch;
use crate::run::{Running, call};

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
fn failure_is_not_reported_of_a_machine_that_is_ready() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(0);
        azure.end().ready();
        let azure = Azure::start("healthy");
        let id = ["--vm-id=", VM_ID].concat();
        call(&[
            "report",
            "failed",
            "--platform=azure",
            "--nic=vm0",
            "--log=stderr",
            &id,
        ])
        .exits(0)
        .says("failure not reported: the platform knows that this machine is ready");
        azure.end().nothing();
    });
}

#[test]
fn ready_that_was_left_for_later_is_reported_over_the_network_of_the_system() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        // Whether it is due is said by a file, for the unit that reports it, on each boot anew.
        for _ in 0..2 {
            machine.provision(&["--ready=later"]).exits(0);
            assert!(Path::new(LATER).exists());
            assert_has_identity(machine);
            assert!(!machine.has("var/lib/preroot/reported"));
            std::fs::remove_file(LATER).unwrap();
        }
        let heard = azure.end();
        heard.undecided();
        assert_eq!(heard.steps(), [""; 0]);

        machine.reinstall();
        machine.provision(&["--ready=later"]).exits(0);
        let azure = Azure::start("healthy");
        let root = ["--root=", machine.root().to_str().unwrap()].concat();
        let id = ["--vm-id=", VM_ID].concat();
        let arguments = [
            "report",
            "ready",
            "--platform=azure",
            "--nic=vm0",
            "--log=stderr",
            &id,
            &root,
        ];
        let mut first = Running::start(&arguments);
        // The network may be long in coming, and is not ours all the same.
        first.wait_for("waiting for a route to the WireServer since 2 s");
        assert!(!is_up("vm0"));
        configure_network();
        first
            .end()
            .exits(0)
            .says("network ok ip=10.0.0.4 configured by others, left alone")
            .says("ready reported status=200");
        assert!(is_up("vm0"));
        assert_eq!(machine.read("var/lib/preroot/reported").trim(), VM_ID);
        assert!(!Path::new(LATER).exists());
        // The phases of provisioning and those of the report stand in one timeline.
        let report = report();
        assert_eq!(report.result, Outcome::Ready);
        for name in ["apply", "health"] {
            let phases = &report.phases;
            assert!(phases.iter().any(|phase| phase.name == name), "{report}");
        }
        call(&arguments).exits(0).says("nothing to do");
        machine.provision(&["--ready=later"]).exits(0);
        assert!(!Path::new(LATER).exists());
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), CONVERSATION);
    });
}

#[test]
fn provision_leaves_a_network_alone_that_is_there_already() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        configure_network();
        machine
            .provision(&[])
            .exits(0)
            .says("network ok ip=10.0.0.4")
            .says("ready reported");
        assert!(is_up("vm0"));
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), CONVERSATION);
        assert_has_identity(machine);
    });
}
