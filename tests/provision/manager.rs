//! Debian's network managers and DHCP clients, set up as the system's owner would have done it, and run in
//! a system that runs.
//!
//! The system is `cargo lab fetch debian-networks`; without it the tests are skipped. There is no udev
//! here, so nothing is renamed; that takes a whole boot.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::debian::Flavour;
use lab::platform::Verdict;

use crate::azure::{Azure, Heard};
use crate::installed;
use crate::machine::{MAC, Machine, on_root};
use crate::namespace::ip;
use crate::system::System;

/// How long a manager may need for its lease, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// For how long nothing may change before a manager counts as content.
const QUIET: Duration = Duration::from_secs(2);
/// The machine's own id, which systemd makes at the first boot, and by which networkd calls itself.
const MACHINE_ID: &str = "5b1c3a0f8d7e4b6aa9c2d4e6f8091a2b";

/// Where systemd has the links to what is switched on.
const WANTED: &str = "etc/systemd/system/multi-user.target.wants";
/// The managers that the system has, all of them switched on.
const SERVICES: [&str; 4] = [
    "NetworkManager.service",
    "dhcpcd.service",
    "networking.service",
    "systemd-networkd.service",
];

/// An interface of the machine, and where it leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nic {
    pub(crate) name: &'static str,
    pub(crate) host: &'static str,
    pub(crate) mac: [u8; 6],
    /// The number, in which managers see who they are.
    pub(crate) index: u32,
    /// What the platform gives to it.
    pub(crate) address: &'static str,
}

/// The primary interface.
pub(crate) const FIRST: Nic = Nic {
    name: "vm0",
    host: "host0",
    mac: MAC,
    index: 200,
    address: "inet 10.0.0.4/24",
};

/// Another one, which does not lead to the WireServer.
pub(crate) const SECOND: Nic = Nic {
    name: "vm1",
    host: "host1",
    mac: [0x00, 0x0d, 0x3a, 0x65, 0x43, 0x21],
    index: 300,
    address: "inet 10.0.1.4/24",
};

impl Nic {
    /// The hardware address, as the kernel writes it.
    pub(crate) fn colons(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }

    /// Lays a new cable, of which nobody remembers anything, with the same number as the last one.
    pub(crate) fn cable(&self) {
        let (name, host, mac) = (self.name, self.host, self.colons());
        let _ = Command::new("ip").args(["link", "delete", name]).output();
        ip(&format!(
            "link add name {name} index {} address {mac} type veth peer name {host} index {} \
             address 12:34:56:78:9a:bc",
            self.index,
            self.index + 1
        ));
        for end in [name, host] {
            // It would chatter. Absent on a kernel without IPv6.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1");
        }
        ip(&format!("link set {host} up"));
    }
}

/// A network manager, as the system's owner would have set it up.
pub(crate) struct Manager {
    /// Which of the services stays switched on.
    pub(crate) service: &'static str,
    /// What it is called where we tell to whom the network is left.
    pub(crate) name: &'static str,
    /// Its configuration.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// What else it could use, and is to be without.
    pub(crate) without: &'static [&'static str],
    /// The directories that it expects.
    pub(crate) directories: &'static [&'static str],
    /// What is run to its end before.
    pub(crate) before: &'static [&'static [&'static str]],
    /// What is started.
    pub(crate) start: &'static [&'static str],
    /// The interfaces that it is to configure.
    pub(crate) nics: &'static [Nic],
    /// Who its messages seem to be from.
    pub(crate) program: &'static str,
}

pub(crate) const NETWORKD: Manager = Manager {
    service: "systemd-networkd.service",
    name: "systemd-networkd",
    files: &[(
        "etc/systemd/network/10-vm.network",
        "[Match]\nName=vm0\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n",
    )],
    without: &[],
    directories: &[],
    before: &[],
    start: &[
        "SYSTEMD_LOG_LEVEL=debug",
        "/usr/lib/systemd/systemd-networkd",
    ],
    nics: &[FIRST],
    program: "systemd",
};

pub(crate) const NETPLAN: Manager = Manager {
    files: &[(
        "etc/netplan/50-cloud.yaml",
        "network:\n  version: 2\n  ethernets:\n    vm0:\n      dhcp4: true\n      link-local: []\n",
    )],
    without: &["etc/systemd/network/10-lab.network"],
    before: &[&["/usr/libexec/netplan/generate"]],
    ..NETWORKD
};

pub(crate) const IFUPDOWN: Manager = Manager {
    service: "networking.service",
    name: "ifupdown",
    files: &[(
        "etc/network/interfaces",
        "auto lo\niface lo inet loopback\n\nauto vm0\niface vm0 inet dhcp\n",
    )],
    without: &[],
    directories: &["run/network"],
    before: &[],
    start: &["/usr/sbin/ifup", "-a", "--read-environment"],
    nics: &[FIRST],
    program: "unnamed",
};

pub(crate) const IFUPDOWN_WITH_DHCPCD: Manager = Manager {
    files: &[IFUPDOWN.files[0], DHCPCD.files[0]],
    without: &["usr/sbin/dhclient"],
    program: "dhcpcd",
    ..IFUPDOWN
};

pub(crate) const DHCPCD: Manager = Manager {
    service: "dhcpcd.service",
    name: "dhcpcd",
    files: &[(
        // Debian's own leaves the host name out, and waits for udev.
        "etc/dhcpcd.conf",
        "hostname\nclientid\npersistent\noption domain_name_servers, domain_name, host_name\n\
         option classless_static_routes\nrequire dhcp_server_identifier\nipv4only\n\
         allowinterfaces vm0\nnodev\n",
    )],
    without: &[],
    directories: &[],
    before: &[],
    start: &["/usr/sbin/dhcpcd", "-B"],
    nics: &[FIRST],
    program: "dhcpcd",
};

pub(crate) const NETWORK_MANAGER: Manager = Manager {
    service: "NetworkManager.service",
    name: "NetworkManager",
    files: &[
        (
            "etc/NetworkManager/NetworkManager.conf",
            "[main]\nplugins=keyfile\nno-auto-default=*\nauth-polkit=false\n\n\
             [keyfile]\nunmanaged-devices=interface-name:host0\n\n[logging]\nlevel=INFO\n",
        ),
        (
            "etc/NetworkManager/system-connections/vm.nmconnection",
            "[connection]\nid=vm\nuuid=2c0a1c2e-1d5b-4f4e-9d6f-0c0ffee00001\ntype=ethernet\n\
             interface-name=vm0\nautoconnect=true\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=disabled\n",
        ),
    ],
    without: &[],
    directories: &["run/dbus"],
    before: &[&["/usr/bin/dbus-daemon", "--system", "--fork", "--nopidfile"]],
    start: &["/usr/sbin/NetworkManager", "--no-daemon"],
    nics: &[FIRST],
    program: "unnamed",
};

pub(crate) const UDHCPC: Manager = Manager {
    service: "networking.service",
    name: "ifupdown",
    files: &[(
        "etc/udhcpc.sh",
        "#!/bin/sh\n\
         case $1 in\n\
         deconfig) ip address flush dev $interface; ip link set $interface up ;;\n\
         bound|renew) ip address replace $ip/$mask dev $interface\n\
         ip route replace default via ${router%% *} dev $interface ;;\n\
         esac\n",
    )],
    start: &[
        "/usr/bin/busybox",
        "udhcpc",
        "-f",
        "-i",
        "vm0",
        "-s",
        "/etc/udhcpc.sh",
    ],
    program: "udhcpc",
    ..IFUPDOWN
};

/// Runs a test on a machine that has the system for its root.
pub(crate) fn on_networks(body: impl FnOnce(&Machine)) {
    on_root(body, |body, machine| {
        if installed::install(Flavour::WithNetworks, machine) {
            body(machine);
        }
    });
}

/// Gives the machine the system once more, after it was powered off.
pub(crate) fn install(machine: &Machine) {
    assert!(installed::install(Flavour::WithNetworks, machine));
}

/// A manager at work.
pub(crate) struct Working<'a> {
    manager: &'a Manager,
    pub(crate) system: System,
    process: Child,
    log: PathBuf,
    azure: Vec<Azure>,
    start: Instant,
}

impl Manager {
    /// Sets the root up for this manager and no other.
    pub(crate) fn set_up(&self, machine: &Machine) {
        let root = machine.root();
        for service in SERVICES {
            if service != self.service {
                fs::remove_file(root.join(WANTED).join(service)).unwrap();
            }
        }
        for path in self.without {
            fs::remove_file(root.join(path)).unwrap();
        }
        for (path, text) in self.files {
            fs::write(root.join(path), text).unwrap();
            // One keeps its secrets there; networkd is not root, and reads what all may read.
            if path.contains("system-connections") {
                fs::set_permissions(root.join(path), Permissions::from_mode(0o600)).unwrap();
            } else if text.starts_with("#!") {
                fs::set_permissions(root.join(path), Permissions::from_mode(0o755)).unwrap();
            }
        }
        fs::write(root.join("etc/machine-id"), format!("{MACHINE_ID}\n")).unwrap();
    }

    /// Starts the platform at the end of each cable; the first interface is the primary one.
    pub(crate) fn platforms(&self, scenario: &str) -> Vec<Azure> {
        let primary = self.nics[0].colons();
        let scenario = format!("{scenario}\nnet.primary = {primary}");
        let nics = self.nics.iter();
        nics.map(|nic| Azure::on(nic.host, &scenario)).collect()
    }

    /// Boots the system, with this manager, on a platform.
    #[track_caller]
    pub(crate) fn boot(&self, machine: &Machine, scenario: &str) -> Working<'_> {
        let azure = self.platforms(scenario);
        let system = System::boot(machine);
        let log = machine.root().join("run/manager.log");
        for directory in self.directories {
            fs::create_dir_all(machine.root().join(directory)).unwrap();
        }
        for line in self.before {
            let output = system.run(line);
            assert!(output.status.success(), "{line:?}: {output:?}");
        }
        let file = File::create(&log).unwrap();
        let process = system
            .command(self.start)
            .stdout(Stdio::from(file.try_clone().unwrap()))
            .stderr(Stdio::from(file))
            .spawn()
            .unwrap();
        Working {
            manager: self,
            system,
            process,
            log,
            azure,
            start: Instant::now(),
        }
    }
}

impl Working<'_> {
    /// Shows what the manager has made of the network until now.
    pub(crate) fn network(&self) -> String {
        let mut text = String::new();
        for nic in self.manager.nics {
            text.push_str(&seen(nic.name));
        }
        text + &self.system.text("etc/resolv.conf")
    }

    /// Waits until every interface has its address and nothing changes any more; gives what is seen then.
    #[track_caller]
    pub(crate) fn content(&self) -> String {
        let (mut network, mut since) = (String::new(), Instant::now());
        loop {
            let now = self.network();
            if now != network {
                (network, since) = (now, Instant::now());
            }
            let mut nics = self.manager.nics.iter();
            if nics.all(|nic| network.contains(nic.address)) && since.elapsed() > QUIET {
                let took = since.duration_since(self.start);
                println!("{}: content after {took:?}", self.manager.service);
                return network;
            }
            assert!(
                self.start.elapsed() < PATIENCE,
                "no lease:\n{network}\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Reads what the manager has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Switches the machine off; gives what the platform heard at each cable.
    #[track_caller]
    pub(crate) fn end(mut self) -> Vec<Heard> {
        println!("{}", self.log());
        self.system.power_off();
        // It may have been collected with the others.
        let _ = self.process.wait();
        let heard: Vec<Heard> = self.azure.into_iter().map(Azure::end).collect();
        for heard in &heard {
            println!("{}", heard.journal());
            assert_lawful(heard);
        }
        heard
    }
}

/// What many clients do though the rules say otherwise: how long a message is at least, nobody keeps; and a
/// REQUEST's seconds are those that have gone by, not those of the DISCOVER before it, where that was one
/// second earlier.
const COMMON: [&str; 2] = [
    "are less than BOOTP's 300",
    "REQUEST has other secs than the last DISCOVER",
];

/// Checks that nothing was reported, and that the manager kept the rules as all do.
#[track_caller]
fn assert_lawful(heard: &Heard) {
    let complaints = heard.platform.complaints();
    let bad: Vec<_> = complaints
        .filter(|complaint| !COMMON.iter().any(|end| complaint.ends_with(end)))
        .collect();
    assert_eq!(bad, [""; 0], "{}", heard.journal());
    assert_eq!(heard.platform.verdict(), Verdict::Creating);
}

/// Shows an interface, its addresses and all routes, without what is different each time.
pub(crate) fn seen(interface: &str) -> String {
    let mut text = String::new();
    for line in [
        format!("-details -oneline link show dev {interface}"),
        format!("-oneline address show dev {interface}"),
        "-oneline -4 route show table all".to_owned(),
        "-oneline -6 route show table all".to_owned(),
        "-4 rule show".to_owned(),
    ] {
        let output = Command::new("ip").args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {line}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<String> = said.lines().map(without_times).collect();
        // The kernel lists routes in the order in which they were added.
        lines.sort();
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// Puts a word in the place of each that says how long something lives yet, or whether an interface
/// was ever up (its queue).
fn without_times(line: &str) -> String {
    let mut before = "";
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        let is_time = ["valid_lft", "preferred_lft", "expires", "qdisc"].contains(&before);
        words.push(if is_time { "*" } else { word });
        before = word;
    }
    words.join(" ")
}

/// Reads the kernel's settings of an interface.
pub(crate) fn settings(interface: &str) -> String {
    let mut all = String::new();
    for family in ["ipv4", "ipv6"] {
        for kind in ["conf", "neigh"] {
            let place = format!("/proc/sys/net/{family}/{kind}/{interface}");
            let Ok(entries) = fs::read_dir(&place) else {
                continue;
            };
            let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            for path in paths {
                // One of them cannot be read before it is set.
                let value = fs::read_to_string(&path).unwrap_or_default();
                let _ = writeln!(all, "{} = {}", path.display(), value.trim());
            }
        }
    }
    all
}
