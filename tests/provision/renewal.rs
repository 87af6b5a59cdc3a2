//! `preroot lease` on the simulated platform: every message of a lease that is kept, from the initramfs on, is one
//! that the platform finds nothing wrong with, whatever becomes of the server.
//!
//! What the kernel is told is in `network`, with servers of others.

use std::fs;
use std::thread;
use std::time::Duration;

use lab::platform::Entry;
use lab::platform::dhcp::{Kind, Spoken};

use crate::azure::{Azure, Heard};
use crate::far::{running_system, start_lease};
use crate::healthy::with_key;
use crate::lease::end;
use crate::machine::{HOST_NAME, Machine, is_up, on_machine};
use crate::manager::seen;

const SOON: &str = "dhcp.lease = 24\ndhcp.t1 = 2\ndhcp.t2 = 4\n";

/// Keeps the lease of such a platform for so long, with the gateway asking now and then whether anybody
/// is there; gives what the platform heard.
fn keeps(machine: &Machine, scenario: &str, seconds: u64) -> Heard {
    machine.insert(&with_key());
    let azure = Azure::start(&format!("{SOON}net.ping = 500ms\n{scenario}"));
    machine
        .provision(&["--network=keep"])
        .exits(0)
        .says("network kept nic=vm0");
    assert!(is_up("vm0"));
    running_system(HOST_NAME);
    let mut lease = start_lease(&[]);
    lease.wait_for("lease ok");
    thread::sleep(Duration::from_secs(seconds));
    let network = seen("vm0");
    assert!(network.contains("inet 10.0.0.4/24"), "{network}");
    end(lease);
    let heard = azure.end();
    heard.ready();
    println!("{}", heard.journal());
    heard
}

/// What was said, a repetition counting once.
fn said(heard: &Heard) -> Vec<String> {
    let said = heard.platform.journal().iter().filter_map(Entry::dhcp);
    let mut steps: Vec<String> = said
        .map(|said| match said.state {
            Some(state) => state.to_string(),
            None => format!("{:?}", said.kind),
        })
        .map(|step| step.split(' ').next().unwrap_or_default().to_lowercase())
        .collect();
    steps.dedup();
    steps
}

/// Checks that it is one client that spoke from the beginning to the end, and by what name.
#[track_caller]
fn assert_one_client(heard: &Heard) {
    let said: Vec<Spoken> = heard
        .platform
        .journal()
        .iter()
        .filter_map(Entry::dhcp)
        .collect();
    for message in &said {
        assert_eq!(message.client, said[0].client, "{message:?}");
    }
    // Before the disc is read nobody knows the name; in the running system everybody does.
    let requests = said.iter().filter(|said| said.kind == Kind::Request);
    for request in requests.skip(1) {
        assert_eq!(request.host_name.as_deref(), Some(HOST_NAME), "{request:?}");
    }
}

/// Checks what the program said first, by the kinds of its messages.
#[track_caller]
fn assert_said_first(heard: &Heard, wanted: &[&str]) {
    let said = said(heard);
    let first = said.iter().take(wanted.len());
    assert!(first.eq(wanted), "{said:?}");
}

#[test]
fn lease_is_renewed_by_its_server_at_its_time() {
    on_machine(|machine| {
        let heard = keeps(machine, "", 7);
        assert_eq!(said(&heard), ["discover", "selecting", "renewing"]);
        assert_one_client(&heard);
        // The kernel answers the gateway all the time.
        let pongs = heard.platform.journal().iter();
        let pongs = pongs
            .filter(|entry| matches!(entry, Entry::Pong { .. }))
            .count();
        assert!(pongs > 8, "{pongs}");
    });
}

#[test]
fn server_that_moved_is_found_and_believed() {
    on_machine(|machine| {
        let heard = keeps(machine, "dhcp.server.moves = 168.63.129.17", 11);
        let wanted = ["discover", "selecting", "renewing", "rebinding", "renewing"];
        assert_said_first(&heard, &wanted);
        assert_one_client(&heard);
    });
}

#[test]
fn server_that_is_deaf_to_one_is_asked_as_all_are() {
    on_machine(|machine| {
        let heard = keeps(machine, "dhcp.renewals.ignore = 1000", 9);
        let wanted = ["discover", "selecting", "renewing", "rebinding"];
        assert_said_first(&heard, &wanted);
        assert_one_client(&heard);
    });
}

#[test]
fn refused_lease_is_given_up_and_asked_for_anew() {
    on_machine(|machine| {
        let heard = keeps(machine, "dhcp.renewals.nak = 1", 8);
        let wanted = [
            "discover",
            "selecting",
            "renewing",
            "discover",
            "selecting",
            "renewing",
        ];
        assert_said_first(&heard, &wanted);
        assert_one_client(&heard);
    });
}

#[test]
fn record_of_the_lease_is_all_that_the_service_needs_after_it_died() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start(SOON);
        machine.provision(&["--network=keep"]).exits(0);
        running_system(HOST_NAME);
        for _ in 0..4 {
            let mut lease = start_lease(&[]);
            lease.wait_for("lease ok");
            thread::sleep(Duration::from_millis(2500));
            end(lease);
        }
        let heard = azure.end();
        println!("{}", heard.journal());
        heard.ready();
        assert_eq!(said(&heard), ["discover", "selecting", "renewing"]);
        assert!(fs::exists("/run/preroot/lease").unwrap());
    });
}
