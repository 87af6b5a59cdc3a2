//! DHCP servers that others wrote, and the kernel's own TCP: what the simulated platform and the
//! program might both have misunderstood is seen here.
//!
//! The host's end of the cable has the platform's addresses, inside the test's network only.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use lab::platform::http::Door;
use lab::platform::plug::tcp;

use crate::azure::Azure;
use crate::far::{self, AZURE};
use crate::healthy::{CONVERSATION, assert_has_identity, with_key};
use crate::machine::{HOST_NAME, Machine, assert_at_rest, on_machine, report};
use crate::namespace::{ip, is_strict};
use crate::tools::find;

/// The routes that Azure sends, as option 121 has them (RFC 3442): default, WireServer, IMDS.
const ROUTES: &str = "00.0A000001 20.A83F8110.0A000001 20.A9FEA9FE.0A000001";

/// A DHCP server; it ends with the test's namespace at the latest.
pub(crate) struct Server {
    child: Child,
    said: Vec<String>,
    lines: Receiver<String>,
}

impl Server {
    /// Starts a server, and waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, ready: &str) -> Self {
        // Some speak on one, some on the other.
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let other = sender.clone();
        thread::spawn(move || {
            stdout
                .lines()
                .for_each(|line| drop(other.send(line.unwrap())));
        });
        thread::spawn(move || {
            stderr
                .lines()
                .for_each(|line| drop(sender.send(line.unwrap())));
        });
        let mut said: Vec<String> = Vec::new();
        while !said.last().is_some_and(|line| line.contains(ready)) {
            match lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => said.push(line),
                Err(error) => panic!("{command:?}: {error}: {}", said.join("\n")),
            }
        }
        Server { child, said, lines }
    }

    /// Ends the server and gives what it said.
    pub(crate) fn end(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said.extend(&self.lines);
        self.said.join("\n")
    }
}

/// Gives the host's end of the cable the platform's addresses.
fn address_host() {
    ip("link set lo up");
    ip("address add 10.0.0.1/24 dev host0");
    ip("address add 168.63.129.16/32 dev host0");
}

/// Starts the WireServer on a socket of the kernel.
fn wireserver() -> Azure {
    let listener = TcpListener::bind("168.63.129.16:80").unwrap();
    Azure::served("healthy", move |platform, stop| {
        tcp::run(platform, &[(listener, Door::Wireserver)], |_| {
            stop.load(Ordering::Relaxed)
        })
    })
}

/// Runs the program between such a server and the WireServer.
#[track_caller]
fn becomes_ready(machine: &Machine, server: Server) -> String {
    machine.insert(&with_key());
    let wireserver = wireserver();
    let run = machine.provision(&[]);
    let heard = wireserver.end();
    let said = server.end();
    // Shown when the test fails.
    println!("{said}");
    run.exits(0)
        .says("dhcp ok nic=vm0 ip=10.0.0.4/24 server=10.0.0.1 wireserver=168.63.129.16")
        .says("ready reported status=200");
    heard.ready();
    assert_eq!(heard.steps(), CONVERSATION);
    assert_eq!(report().router, "10.0.0.1");
    assert_has_identity(machine);
    assert_at_rest("vm0");
    said
}

#[test]
fn dnsmasq_gives_the_lease_and_the_kernel_carries_the_report() {
    on_machine(|machine| {
        let range = "10.0.0.4,10.0.0.4,255.255.255.0,infinite";
        let Some(mut dnsmasq) = far::dnsmasq(machine, range, &AZURE) else {
            return;
        };
        address_host();
        let server = Server::start(&mut dnsmasq, "DHCP, sockets bound exclusively");
        let said = becomes_ready(machine, server);
        assert!(
            said.contains("DHCPACK(host0) 10.0.0.4 00:0d:3a:11:22:33"),
            "{said}"
        );
        let lease = fs::read_to_string(far::leases(machine)).unwrap();
        let fields: Vec<&str> = lease.split_whitespace().collect();
        assert_eq!(fields[1..3], ["00:0d:3a:11:22:33", "10.0.0.4"], "{lease}");
        // The final name, or none where the lease was faster than the disc.
        assert!(["*", HOST_NAME].contains(&fields[3]), "{lease}");
    });
}

#[test]
fn kea_or_dhcpd_gives_the_lease_and_the_kernel_carries_the_report() {
    on_machine(|machine| {
        address_host();
        let server = if let Some(kea) = find("kea-dhcp4") {
            start_kea(machine, kea)
        } else if let Some(dhcpd) = find("dhcpd") {
            start_dhcpd(machine, dhcpd)
        } else {
            let missing = "neither kea-dhcp4 (package kea-dhcp4-server) nor dhcpd \
                (isc-dhcp-server) is in PATH or below PREROOT_TOOLS";
            assert!(!is_strict(), "{missing}");
            println!("skipped: {missing}");
            return;
        };
        becomes_ready(machine, server);
    });
}

/// Starts Kea of ISC, configured as its manual has it.
fn start_kea(machine: &Machine, mut kea: Command) -> Server {
    let routes: String = ROUTES.chars().filter(char::is_ascii_hexdigit).collect();
    let configuration = format!(
        r#"{{ "Dhcp4": {{
            "interfaces-config": {{ "interfaces": [ "host0/10.0.0.1" ] }},
            "lease-database": {{ "type": "memfile", "persist": false }},
            "valid-lifetime": 4294967295,
            "authoritative": true,
            "option-def": [
                {{ "name": "wireserver", "code": 245, "type": "ipv4-address" }}
            ],
            "option-data": [
                {{ "name": "routers", "data": "10.0.0.1" }},
                {{ "name": "wireserver", "data": "168.63.129.16", "always-send": true }},
                {{ "code": 121, "csv-format": false, "data": "{routes}" }}
            ],
            "subnet4": [
                {{ "id": 1, "subnet": "10.0.0.0/24", "pools": [ {{ "pool": "10.0.0.4 - 10.0.0.4" }} ] }}
            ],
            "loggers": [
                {{ "name": "kea-dhcp4", "severity": "INFO",
                   "output_options": [ {{ "output": "stdout" }} ] }}
            ]
        }} }}"#
    );
    let file = machine.place().join("kea.conf");
    fs::write(&file, configuration).unwrap();
    kea.arg("-c")
        .arg(&file)
        .env("KEA_PIDFILE_DIR", machine.place())
        .env("KEA_LOCKFILE_DIR", machine.place());
    // It serves no interface that is without a carrier when it starts.
    ip("link set vm0 up");
    let server = Server::start(&mut kea, "DHCP4_STARTED");
    ip("link set vm0 down");
    server
}

/// Starts the older server of ISC, which has to be told what 121 and 245 look like.
fn start_dhcpd(machine: &Machine, mut dhcpd: Command) -> Server {
    let octets: Vec<String> = ROUTES
        .split([' ', '.'])
        .flat_map(|part| part.as_bytes().chunks(2))
        .map(|pair| {
            let pair = str::from_utf8(pair).unwrap();
            u8::from_str_radix(pair, 16).unwrap().to_string()
        })
        .collect();
    let configuration = format!(
        "option classless-routes code 121 = array of unsigned integer 8;\n\
         option wireserver code 245 = ip-address;\n\
         authoritative;\n\
         default-lease-time -1;\n\
         max-lease-time -1;\n\
         ping-check off;\n\
         subnet 10.0.0.0 netmask 255.255.255.0 {{\n\
         range 10.0.0.4 10.0.0.4;\n\
         option routers 10.0.0.1;\n\
         option classless-routes {};\n\
         option wireserver 168.63.129.16;\n\
         }}\n",
        octets.join(", ")
    );
    let file = machine.place().join("dhcpd.conf");
    fs::write(&file, configuration).unwrap();
    let leases = machine.place().join("leases");
    fs::write(&leases, "").unwrap();
    dhcpd
        .args(["-4", "-f", "-d", "--no-pid", "-cf"])
        .arg(&file)
        .arg("-lf")
        .arg(&leases)
        .arg("host0");
    Server::start(&mut dhcpd, "Server starting service.")
}
