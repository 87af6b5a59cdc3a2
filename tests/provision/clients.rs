//! The simulated platform, held against DHCP clients that others wrote: they get their lease of it, keep it as
//! long as they want, and find another server when theirs is gone.
//!
//! Ours has no part in it. That these clients break no rule of the platform's is what makes its rules
//! worth something.

use std::thread;
use std::time::Duration;

use lab::platform::Entry;
use lab::platform::dhcp::{Spoken, State};

use crate::azure::Heard;
use crate::machine::Machine;
use crate::manager::{
    DHCPCD, IFUPDOWN, Manager, NETWORK_MANAGER, NETWORKD, Nic, UDHCPC, install, on_networks,
};

/// A server that is gone when it has given its lease, and another that is there instead.
const MOVES: &str = "dhcp.t1 = 2\ndhcp.t2 = 4\ndhcp.server.moves = 168.63.129.17\n";
/// A server that wants nothing of its lease, once.
const REFUSES: &str = "dhcp.t1 = 2\ndhcp.t2 = 4\ndhcp.renewals.nak = 1\n";

/// The REQUESTs that a platform heard; a repeated one counts once.
fn requests(heard: &Heard) -> Vec<Spoken> {
    let said = heard.platform.journal().iter().filter_map(Entry::dhcp);
    let mut requests: Vec<_> = said.filter(|said| said.state.is_some()).collect();
    requests.dedup_by_key(|said| said.state);
    requests
}

/// What the states of these REQUESTs are called.
fn states(requests: &[Spoken]) -> Vec<String> {
    let states = requests.iter().filter_map(|said| said.state);
    states.map(|state| state.to_string()).collect()
}

/// Lets a client live with a lease of so many seconds, for so long.
#[track_caller]
fn lives(
    machine: &Machine,
    manager: &Manager,
    scenario: &str,
    lease: u32,
    seconds: u64,
) -> Vec<Spoken> {
    manager.nics.iter().for_each(Nic::cable);
    manager.set_up(machine);
    let working = manager.boot(machine, &format!("{scenario}dhcp.lease = {lease}"));
    working.content();
    thread::sleep(Duration::from_secs(seconds));
    working.content();
    let heard = working.end();
    let requests = requests(&heard[0]);
    for said in &requests {
        assert_eq!(said.program(), manager.program, "{said:?}");
        let has_address = matches!(said.state, Some(State::Renewing | State::Rebinding));
        assert_eq!(!said.ciaddr.is_unspecified(), has_address, "{said:?}");
    }
    requests
}

/// What a client does that hears when it is refused.
const STARTS_OVER: [&str; 3] = ["selecting", "renewing", "selecting"];
/// What one does that, having an address, hears only what is sent to that: RFC 2131, 4.3.2 has a refusal
/// sent to all.
const ASKS_ALL: [&str; 3] = ["selecting", "renewing", "rebinding"];

/// Checks that a client follows its server, and what it does when it is refused.
#[track_caller]
fn keeps_its_lease(machine: &Machine, manager: &Manager, refused: &[&str]) {
    let lease = 24;
    let requests = lives(machine, manager, MOVES, lease, 16);
    assert_begins(
        &requests,
        &["selecting", "renewing", "rebinding", "renewing"],
    );
    install(machine);
    let requests = lives(machine, manager, REFUSES, lease, 6);
    assert_begins(&requests, refused);
}

#[track_caller]
fn assert_begins(requests: &[Spoken], wanted: &[&str]) {
    let states = states(requests);
    assert!(
        states
            .iter()
            .zip(wanted)
            .all(|(state, wanted)| state == wanted),
        "{states:?}"
    );
    assert!(states.len() >= wanted.len(), "{states:?}");
}

#[test]
fn networkd_keeps_its_lease() {
    on_networks(|machine| keeps_its_lease(machine, &NETWORKD, &ASKS_ALL));
}

#[test]
fn dhclient_keeps_its_lease() {
    on_networks(|machine| keeps_its_lease(machine, &IFUPDOWN, &STARTS_OVER));
}

#[test]
fn dhcpcd_keeps_its_lease() {
    on_networks(|machine| keeps_its_lease(machine, &DHCPCD, &STARTS_OVER));
}

#[test]
fn network_manager_keeps_its_lease() {
    on_networks(|machine| keeps_its_lease(machine, &NETWORK_MANAGER, &ASKS_ALL));
}

/// It goes by half of the lease, whatever the server says of renewals, and takes none of less than 30 s.
#[test]
fn udhcpc_keeps_its_lease() {
    on_networks(|machine| {
        let requests = lives(machine, &UDHCPC, MOVES, 30, 20);
        assert_begins(&requests, &["selecting", "renewing", "rebinding"]);
        install(machine);
        let requests = lives(machine, &UDHCPC, REFUSES, 30, 18);
        assert_begins(&requests, &STARTS_OVER);
    });
}
