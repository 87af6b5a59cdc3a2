//! A network and a platform that do not work: how long is tried, what is said, and that the boot goes
//! on; and that what was missed is made good on the next boot.

use std::os::unix::process::ExitStatusExt as _;
use std::thread;
use std::time::{Duration, Instant};

use preroot::wire::report::Outcome;
use rustix::process::{Pid, Signal, kill_process};

use crate::azure::{Azure, Heard};
use crate::healthy::{CONVERSATION, assert_has_identity, with_key};
use crate::machine::{
    MAC, Machine, VM_ID, assert_at_rest, cable, has_cable, is_up, on_machine, report,
};
use crate::namespace::ip;
use crate::run::{Run, Running, processes};

/// Runs on a platform that will not take the report within so many seconds, and checks what every
/// such run must come to: the machine has its identity, the caller knows, and nobody claims more.
#[track_caller]
fn gives_up(machine: &Machine, scenario: &str, seconds: u64) -> (Run, Heard) {
    let azure = Azure::start(scenario);
    let run = machine.provision(&[&*format!("--timeout={seconds}")]);
    let heard = azure.end();
    run.exits(111)
        .says("preroot: failed: failure to ")
        .says(&format!(
            " after {seconds} s fix=\"the boot goes on; the next one tries again\""
        ));
    let budget = Duration::from_secs(seconds);
    assert!(run.took >= budget, "{run}");
    assert!(run.took < budget + Duration::from_secs(15), "{run}");
    heard.undecided();
    assert_has_identity(machine);
    assert!(!machine.has("var/lib/preroot/reported"));
    assert_eq!(report().result, Outcome::Failed);
    assert_at_rest("vm0");
    (run, heard)
}

/// Runs again, as the next boot does, on a platform that works by now.
#[track_caller]
fn only_reports(machine: &Machine, scenario: &str) -> (Run, Heard) {
    let before = machine.picture();
    let azure = Azure::start(scenario);
    let run = machine.provision(&["--media=/nonexistent"]);
    let heard = azure.end();
    run.exits(0)
        .says("root ok: it has its identity; only the report is missing")
        .says("ready reported status=200");
    heard.ready();
    assert_eq!(machine.read("var/lib/preroot/reported").trim(), VM_ID);
    assert_eq!(report().result, Outcome::Ready);
    let after = machine.picture();
    for (path, was) in &before {
        let is_ours = path.starts_with(machine.root().join("var/lib/preroot"));
        assert!(is_ours || after[path] == *was, "{}", path.display());
    }
    assert_eq!(after.len(), before.len() + 1, "a file too many");
    (run, heard)
}

#[test]
fn dhcp_that_never_answers_costs_the_budget_and_not_the_boot() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let (run, heard) = gives_up(machine, "dhcp-never", 5);
        let awaited = "still waiting for an answer of a DHCP server after 5 s";
        run.says(&format!("failure to obtain DHCP lease: {awaited}"))
            .never_says("dhcp ok");
        // A long wait is told once, and by its true length.
        let told = "preroot: waiting for an answer of a DHCP server since 2 s, for 3 s more\n";
        assert_eq!(run.stderr.matches("preroot: waiting").count(), 1, "{run}");
        run.says(told);
        assert_eq!(heard.steps(), [""; 0]);
        // At 0, 0.25, 0.75, 1.75 and 3.75 s or a little later, and once when the carrier came.
        let tries = heard.journal().matches("> dhcp DISCOVER").count();
        assert!((5..=6).contains(&tries), "{}", heard.journal());
        only_reports(machine, "healthy");
    });
}

#[test]
fn lost_ready_is_only_repeated() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let (run, heard) = gives_up(machine, "wireserver-never", 3);
        run.says("dhcp ok").says("waiting for the WireServer");
        assert_eq!(heard.steps(), [""; 0]);
        let (_, heard) = only_reports(machine, "healthy");
        assert_eq!(heard.steps(), CONVERSATION);
        let azure = Azure::start("healthy");
        let run = machine.provision(&[]);
        assert_eq!(run.exits(0).stderr, "preroot: nothing to do\n");
        azure.end().nothing();
    });
}

#[test]
fn answer_that_is_lost_does_not_count_as_ready() {
    on_machine(|machine| {
        machine.insert(&with_key());
        // The platform has it, and the machine cannot know.
        let azure = Azure::start("health.answers = never");
        machine.provision(&["--timeout=3"]).exits(111);
        assert_eq!(azure.end().steps()[..2], CONVERSATION);
        assert!(!machine.has("var/lib/preroot/reported"));
        only_reports(machine, "healthy");
    });
}

#[test]
fn goal_state_that_is_gone_is_fetched_again() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("goalstate-410-then-200");
        let run = machine.provision(&[]);
        run.exits(0)
            .says("wireserver: goalstate answered 410; next try in 1")
            .says("ready reported status=200");
        let heard = azure.end();
        heard.ready();
        let goal = CONVERSATION[0];
        assert_eq!(heard.steps(), [goal, goal, CONVERSATION[1]]);
        assert!(run.took < Duration::from_secs(3), "{run}");
    });
}

#[test]
fn stale_report_is_made_again_from_a_fresh_goal_state() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("stale-incarnation");
        let run = machine.provision(&[]);
        run.exits(0)
            .says("wireserver: health answered 410")
            .says("ready reported status=200");
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), [CONVERSATION, CONVERSATION].concat());
        let bodies: Vec<String> = heard
            .requests()
            .filter(|request| request.method == "POST")
            .map(|request| String::from_utf8_lossy(&request.body).into_owned())
            .collect();
        for (body, incarnation) in bodies.iter().zip([3, 4]) {
            let echo = format!("<GoalStateIncarnation>{incarnation}<");
            assert!(body.contains(&echo), "{body}");
        }
        assert!(run.took < Duration::from_secs(1), "{run}");
    });
}

#[test]
fn busy_wireserver_is_asked_slower_and_slower_over_two_boots() {
    on_machine(|machine| {
        machine.insert(&with_key());
        // At 0, 1 and 3 s; the next would be at 7 s.
        let (run, heard) = gives_up(machine, "goalstate.answers = 503", 5);
        assert_eq!(
            run.stderr
                .matches("wireserver: goalstate answered 503")
                .count(),
            3,
            "{run}"
        );
        assert_eq!(heard.steps(), [CONVERSATION[0]; 3]);
        // At 0 and 1 s, and then it works.
        let (run, heard) = only_reports(machine, "goalstate.answers = 503*2, ok");
        assert_eq!(
            run.stderr
                .matches("wireserver: goalstate answered 503")
                .count(),
            2,
            "{run}"
        );
        assert_eq!(heard.steps().len(), 4);
        assert!(run.took >= Duration::from_secs(3), "{run}");
    });
}

#[test]
fn connections_that_are_refused_or_reset_are_tried_again() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let (run, _) = gives_up(machine, "wireserver-resets", 3);
        run.says("preroot: wireserver: ");
        let (run, _) = {
            let azure = Azure::start("wireserver-refuses");
            let run = machine.provision(&["--timeout=3"]);
            (run, azure.end())
        };
        run.exits(111)
            .says("preroot: wireserver: connection refused; next try in ");
        only_reports(machine, "health-reset-once");
    });
}

#[test]
fn second_door_is_found_when_the_first_is_missing() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("json-door-only");
        machine
            .provision(&[])
            .exits(0)
            .says("ready reported status=201");
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps().last().unwrap(), "POST /provisioning/health");
    });
}

#[test]
fn interface_that_goes_in_the_middle_costs_the_budget_and_not_the_boot() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("wireserver-never");
        let mut running = machine.start(&["--timeout=2"]);
        running.wait_for("dhcp ok");
        ip("link del vm0");
        let run = running.end();
        run.exits(111)
            .says("failure to find DHCP interface: still waiting for interface vm0 after 2 s");
        assert!(run.took < Duration::from_secs(17), "{run}");
        azure.end().undecided();
        assert_has_identity(machine);
        assert_eq!(report().result, Outcome::Failed);
    });
}

/// As the host does when it is serviced: the interface goes, and another of its kind comes.
fn interface_comes_back(machine: &Machine, scenario: &str, after: &str) {
    machine.insert(&with_key());
    let azure = Azure::start(scenario);
    let mut running = machine.start(&[]);
    running.wait_for(after);
    ip("link del vm0");
    azure.end();
    thread::sleep(Duration::from_millis(300));
    cable("vm0", MAC, "host0");
    let azure = Azure::start("healthy");
    let run = running.end();
    run.exits(0).says("dhcp ok").says("ready reported");
    assert!(run.took < Duration::from_secs(6), "{run}");
    azure.end().ready();
    assert_has_identity(machine);
    assert_at_rest("vm0");
}

#[test]
fn interface_that_goes_and_comes_back_gets_a_lease() {
    on_machine(|machine| interface_comes_back(machine, "dhcp-never", "root ok"));
}

#[test]
fn interface_that_goes_with_its_lease_gets_another() {
    on_machine(|machine| interface_comes_back(machine, "wireserver-never", "dhcp ok"));
}

#[test]
fn cable_that_is_pulled_for_a_while_costs_a_while() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("goalstate.answers = delay:300ms+ok");
        let mut running = machine.start(&[]);
        running.wait_for("dhcp ok");
        ip("link set host0 down");
        thread::sleep(Duration::from_millis(700));
        ip("link set host0 up");
        let run = running.end();
        run.exits(0).says("ready reported status=200");
        assert!(run.took < Duration::from_secs(30), "{run}");
        azure.end().ready();
        assert_at_rest("vm0");
    });
}

#[test]
fn cable_that_is_plugged_in_late_is_noticed_at_once() {
    on_machine(|machine| {
        machine.insert(&with_key());
        ip("link set host0 down");
        let azure = Azure::start("healthy");
        let running = machine.start(&[]);
        // Long enough that the next try by the clock would be more than a second away.
        thread::sleep(Duration::from_millis(2100));
        ip("link set host0 up");
        // A busy kernel takes seconds to tell it, everybody; when all is done, the interface is off again.
        while !has_cable("vm0") && is_up("vm0") {
            thread::sleep(Duration::from_millis(5));
        }
        let told = Instant::now();
        let run = running.end();
        run.exits(0);
        assert!(told.elapsed() < Duration::from_millis(1500), "{run}");
        azure.end().ready();
    });
}

/// Kills all processes of the run but the one that the caller knows.
fn kill_workers(running: &Running) {
    for process in processes() {
        if process.number != running.id() {
            let pid = Pid::from_raw(process.number).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
        }
    }
}

#[test]
fn worker_that_dies_is_replaced() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("wireserver-never");
        let mut running = machine.start(&[]);
        running.wait_for("root ok");
        running.wait_for("dhcp ok");
        kill_workers(&running);
        azure.end();
        let azure = Azure::start("healthy");
        running
            .end()
            .exits(0)
            .says("preroot: the worker died; starting over")
            .says("only the report is missing")
            .says("ready reported status=200");
        azure.end().ready();
        assert_has_identity(machine);
        assert_at_rest("vm0");
    });
}

#[test]
fn worker_that_dies_again_does_not_take_the_boot_down() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("wireserver-never");
        let mut running = machine.start(&[]);
        running.wait_for("root ok");
        running.wait_for("dhcp ok");
        kill_workers(&running);
        running.wait_for("only the report is missing");
        kill_workers(&running);
        let run = running.end();
        run.exits(111)
            .says("preroot: failed: the worker died again")
            .says("the boot goes on");
        azure.end().undecided();
        assert!(!machine.has("var/lib/preroot/reported"));
    });
}

#[test]
fn worker_that_nobody_waits_for_gives_up() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("wireserver-never");
        let mut running = machine.start(&[]);
        running.wait_for("root ok");
        running.wait_for("dhcp ok");
        let caller = Pid::from_raw(running.id()).unwrap();
        kill_process(caller, Signal::KILL).unwrap();
        // Checks that nothing is left behind, as after any other end.
        let run = running.end();
        assert_eq!(run.status.signal(), Some(9), "{run}");
        azure.end().undecided();
        assert_at_rest("vm0");
        // The next boot makes good for it.
        only_reports(machine, "healthy");
    });
}
