//! Two runs that share the work of a boot: one begins early, the other comes with the root.

use std::path::Path;
use std::time::Duration;

use preroot::wire::report::Outcome;

use crate::azure::Azure;
use crate::healthy::{CONVERSATION, assert_has_identity, with_key};
use crate::machine::{Machine, VM_ID, assert_at_rest, assert_same, is_up, on_machine, report};
use crate::namespace::ip;
use crate::run::{Running, call};

/// Where the two meet.
const DOOR: &str = "/run/preroot/prefetch";

/// What tells that Ready is left to the running system.
const LATER: &str = "/run/preroot/ready-later";

/// Begins a run that has no root yet.
fn prefetch(machine: &Machine) -> Running {
    let disc = machine.disc();
    let disc = ["--media=", disc.to_str().unwrap()].concat();
    let id = ["--vm-id=", VM_ID].concat();
    Running::start(&[
        "prefetch",
        "--platform=azure",
        "--nic=vm0",
        &disc,
        &id,
        "--log=stderr",
        "--network=release",
        "--timeout=20",
    ])
}

#[test]
fn provision_finishes_what_prefetch_began() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let mut early = prefetch(machine);
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
        let mut early = prefetch(machine);
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
fn second_prefetch_leaves_the_work_to_the_first() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let mut first = prefetch(machine);
        first.wait_for("dhcp ok");
        let second = prefetch(machine).end_beside_others();
        second.exits(0).says("another prefetch is at work already");
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
        std::fs::remove_file(machine.disc()).unwrap();

        let azure = Azure::start("healthy");
        let early = prefetch(machine);
        // Long enough to find that there is no disc.
        std::thread::sleep(Duration::from_millis(300));
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
        let mut early = prefetch(machine);
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
fn failure_is_reported_alone_with_the_end_of_the_kernel_log() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let id = ["--vm-id=", VM_ID].concat();
        let arguments = [
            "report",
            "failed",
            "--reason",
            "no root <&>",
            "--platform=azure",
            "--nic=vm0",
            "--log=stderr",
            &id,
        ];
        call(&arguments)
            .exits(0)
            .says("failed: no root <&>")
            .says("failure reported");
        let heard = azure.end();
        let description = heard.failed();
        assert!(
            description.contains("|reason=no root <&>|"),
            "{description}"
        );
        // The kernel's log of the machine that the tests run on, if they may read it.
        let has_log = rustix::process::geteuid().is_root();
        assert_eq!(
            description.contains("|kernel_log=["),
            has_log,
            "{description}"
        );
        assert_at_rest("vm0");
        assert_eq!(report().result, Outcome::Failed);
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

/// Sets the network up as a network manager does.
fn configure_network() {
    ip("address add 10.0.0.4/24 dev vm0");
    ip("link set vm0 up");
    ip("route add default via 10.0.0.1 dev vm0");
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

#[test]
fn report_says_how_it_is_used() {
    call(&["report"])
        .exits(100)
        .says("report what? ready or failed");
    call(&["report", "maybe"])
        .exits(100)
        .says("report ready or failed, not 'maybe'");
    call(&["report", "ready", "--reason=x"])
        .exits(100)
        .says("--reason=x: there is no such option");
}
