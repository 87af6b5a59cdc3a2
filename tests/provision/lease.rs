//! The lease that `preroot lease` keeps for a root in which nobody else does.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::far::{
    AZURE, AZURES_ROUTES, Far, RECORD, SOON, addresses, boot, mark_done, mtu, routes,
    running_system, start_lease, wait_until,
};
use crate::foreign::Server;
use crate::machine::{Machine, assert_at_rest, is_up, on_machine};
use crate::namespace::ip;
use crate::run::Running;

/// Starts the program's own service on what a boot has kept, with a server of this lease time.
fn with_kept(machine: &Machine, far: &Far, time: &str, more: &[&str]) -> Option<Server> {
    mark_done(machine);
    let server = far.azure(machine, time, more)?;
    machine
        .provision(&["--network=auto"])
        .exits(0)
        .says("network kept");
    running_system("vm-done.example.org");
    Some(server)
}

#[test]
fn lease_for_ever_needs_no_service() {
    on_machine(|machine| {
        let far = Far::new();
        let Some(server) = with_kept(machine, &far, "infinite", &[]) else {
            return;
        };
        let before = routes();
        let run = start_lease(&[]).end();
        run.exits(0).says("lease of 10.0.0.4 is for ever");
        assert_eq!(run.stderr.lines().count(), 1, "{run}");
        assert!(server.end().contains("client provides name: vm-done"));
        assert_eq!(routes(), before);
    });
}

#[test]
fn server_of_a_lease_for_ever_is_told_the_name_that_it_does_not_know() {
    on_machine(|machine| {
        let far = Far::new();
        let Some(server) = with_kept(machine, &far, "infinite", &[]) else {
            return;
        };
        fs::write("/etc/hostname", "vm-renamed\n").unwrap();
        start_lease(&[]).end().exits(0);
        let said = server.end();
        assert!(said.contains("client provides name: vm-renamed"), "{said}");
        start_lease(&[]).end().exits(0);
    });
}

#[test]
fn lease_is_renewed_from_the_kernel_with_the_host_name() {
    on_machine(|machine| {
        let far = Far::new();
        let Some(server) = with_kept(machine, &far, "2m", &SOON) else {
            return;
        };
        let obtained = || {
            let record = fs::read_to_string(RECORD).unwrap();
            let line = record
                .lines()
                .find_map(|line| line.strip_prefix("obtained="));
            line.unwrap().parse::<u64>().unwrap()
        };
        let first = obtained();
        let mut lease = start_lease(&[]);
        lease.wait_for("lease ok ip=10.0.0.4 server=10.0.0.1");
        wait_until("second renewal", || obtained() >= first + 4);
        assert_eq!(addresses(), ["10.0.0.4/24 brd 10.0.0.255"]);
        assert_eq!(routes(), AZURES_ROUTES);
        // A signal ends it, and leaves all as it is.
        let id = Pid::from_raw(lease.id()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        let run = lease.end();
        assert!(!run.status.success());
        assert_eq!(routes(), AZURES_ROUTES);
        let said = server.end();
        // Renewals have no DISCOVER before them.
        let given = said.find("DHCPACK").unwrap();
        assert!(!said[given..].contains("DHCPDISCOVER"), "{said}");
        assert!(
            said.matches("DHCPREQUEST(host0) 10.0.0.4").count() >= 3,
            "{said}"
        );
        assert!(
            said.matches("client provides name: vm-done").count() >= 3,
            "{said}"
        );
        // What is renewed is written down; the file of the system is as it should be.
        assert!(
            fs::read_to_string("/etc/resolv.conf")
                .unwrap()
                .contains("168.63.129.16")
        );
    });
}

#[test]
fn what_a_renewal_changes_is_changed() {
    on_machine(|machine| {
        let far = Far::new();
        let Some(server) = with_kept(machine, &far, "2m", &SOON) else {
            return;
        };
        server.end();
        let more = [
            "--dhcp-option=option:router,10.0.0.1",
            "--dhcp-option=option:dns-server,10.0.0.1",
            "--dhcp-option=option:domain-name,new.example",
            "--dhcp-option=option:mtu,1300",
        ];
        let range = "10.0.0.4,10.0.0.4,255.255.255.0,2m";
        let more = [&more[..], &SOON].concat();
        let Some(_server) = far.dnsmasq(machine, range, &more) else {
            return;
        };
        let mut lease = start_lease(&[]);
        lease.wait_for("lease ok");
        wait_until("change", || mtu() == "1300");
        wait_until("change", || routes().len() == 2);
        assert_eq!(routes(), [AZURES_ROUTES[0], AZURES_ROUTES[3]]);
        wait_until("change", || {
            let resolver = fs::read_to_string("/etc/resolv.conf").unwrap();
            resolver.contains("search new.example\nnameserver 10.0.0.1\n")
        });
        end(lease);
    });
}

#[test]
fn refused_renewal_leads_to_another_address() {
    on_machine(|machine| {
        let far = Far::new();
        let Some(server) = with_kept(machine, &far, "2m", &SOON) else {
            return;
        };
        server.end();
        fs::remove_file(machine.place().join("leases")).unwrap();
        let range = "10.0.0.77,10.0.0.77,255.255.255.0,2m";
        let Some(server) = far.dnsmasq(machine, range, &[&AZURE[..], &SOON].concat()) else {
            return;
        };
        let mut lease = start_lease(&[]);
        lease.wait_for("the server refused to renew it");
        lease.wait_for("lease ok ip=10.0.0.77");
        assert_eq!(addresses(), ["10.0.0.77/24 brd 10.0.0.255"]);
        assert!(
            routes().iter().all(|route| !route.contains("10.0.0.4")),
            "{:?}",
            routes()
        );
        assert_eq!(routes().len(), 4);
        end(lease);
        assert!(server.end().contains("DHCPNAK"));
    });
}

#[test]
fn lease_that_nobody_renews_ends_and_another_is_asked_for() {
    on_machine(|machine| {
        let far = Far::new();
        let Some(server) = with_kept(machine, &far, "2m", &SOON) else {
            return;
        };
        server.end();
        shorten_lease(4);
        let mut lease = start_lease(&[]);
        lease.wait_for("nobody renewed it in time");
        wait_until("bare interface", || {
            addresses().is_empty() && routes().is_empty()
        });
        assert!(is_up("vm0"));
        wait_until("end of the record", || {
            fs::read_to_string(RECORD).is_ok_and(|record| record.is_empty())
        });
        let Some(_server) = far.azure(machine, "2m", &SOON) else {
            return;
        };
        wait_until("other lease", || routes() == AZURES_ROUTES);
        end(lease);
    });
}

/// Makes the lease that was kept one of so many seconds from now.
fn shorten_lease(seconds: u64) {
    let record = fs::read_to_string(RECORD).unwrap();
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let (now, _) = uptime.split_once('.').unwrap();
    let lines = record
        .lines()
        .map(|line| match line.split_once('=').unwrap() {
            ("obtained", _) => format!("obtained={now}\n"),
            ("lease", _) => format!("lease={seconds}\n"),
            ("renew", _) => format!("renew={}\n", seconds / 4),
            ("rebind", _) => format!("rebind={}\n", seconds / 2),
            _ => format!("{line}\n"),
        });
    fs::write(RECORD, lines.collect::<String>()).unwrap();
}

#[test]
fn lease_is_acquired_where_the_boot_got_none() {
    on_machine(|machine| {
        let far = Far::new();
        mark_done(machine);
        boot(machine, &["--timeout=1"]).exits(0).says("missed");
        running_system("vm-done");
        let mut lease = start_lease(&[]);
        lease.wait_for("waiting for an answer of a DHCP server");
        let Some(server) = far.azure(machine, "infinite", &[]) else {
            return;
        };
        let run = lease.end();
        run.exits(0).says("lease of 10.0.0.4 is for ever");
        assert_eq!(routes(), AZURES_ROUTES);
        assert!(
            fs::read_to_string("/etc/resolv.conf")
                .unwrap()
                .contains("168.63.129.16")
        );
        assert!(server.end().contains("client provides name: vm-done"));
    });
}

#[test]
fn service_has_nothing_to_do_where_the_network_is_others() {
    on_machine(|_| {
        running_system("vm-done");
        start_lease(&["--network=release"])
            .end()
            .exits(0)
            .says("nothing to keep");
        assert_at_rest("vm0");
        // Wanted or not, where there is a way already, somebody has made it.
        ip("link set vm0 up");
        ip("address add 10.9.9.9/24 dev vm0");
        ip("route add default via 10.9.9.1");
        fs::create_dir_all("/run/preroot").unwrap();
        fs::write(RECORD, "").unwrap();
        start_lease(&[])
            .end()
            .exits(0)
            .says("nothing to keep: the network is for whoever has configured it");
        assert_eq!(addresses(), ["10.9.9.9/24"]);
    });
}

#[test]
fn lost_carrier_and_lost_interface_are_survived() {
    on_machine(|machine| {
        let far = Far::new();
        let Some(_server) = with_kept(machine, &far, "2m", &SOON) else {
            return;
        };
        let mut lease = start_lease(&[]);
        lease.wait_for("lease ok");
        far.ip("link set host0 down");
        lease.wait_for("the carrier is lost");
        far.ip("link set host0 up");
        lease.wait_for("the carrier is back");
        ip("link delete vm0");
        lease.wait_for("the interface is gone");
        lease.wait_for("waiting for interface 00:0d:3a:11:22:33");
        end(lease);
    });
}

/// Ends a service that would go on.
pub(crate) fn end(lease: Running) {
    let id = Pid::from_raw(lease.id()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    lease.end();
}
