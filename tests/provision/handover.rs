//! The network is handed over: the system's own network manager gets its lease as if we had never been there.
//!
//! Each manager is Debian's program, run twice in a system of its own on the same platform: in one that
//! never saw us, and in one that was provisioned. What it asks the platform for, and what it makes of the
//! interface, must be the same but for the host name, which must be the new one.
//!
//! The system is `cargo lab fetch debian-networks`; without it the tests are skipped. There is no udev
//! here, so nothing of renaming; that takes a whole boot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::debian::Flavour;
use lab::platform::dhcp::{Kind, Spoken, State};
use lab::platform::{Entry, Verdict};
use rustix::mount::{MountFlags, mount};

use crate::azure::{Azure, Heard};
use crate::healthy::with_key;
use crate::installed;
use crate::machine::{HOST_NAME, MAC, Machine, on_root};
use crate::namespace::ip;
use crate::system::System;

/// How long a manager may need for its lease, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// For how long nothing may change before a manager counts as content.
const QUIET: Duration = Duration::from_millis(700);
/// The number of the interface, in which managers see who they are.
const INDEX: u32 = 20;
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

/// A network manager, as the system's owner would have set it up.
struct Manager {
    /// Which of the services stays switched on.
    service: &'static str,
    /// Its configuration.
    files: &'static [(&'static str, &'static str)],
    /// What else it could use, and is to be without.
    without: &'static [&'static str],
    /// The directories that it expects.
    directories: &'static [&'static str],
    /// What is run to its end before.
    before: &'static [&'static [&'static str]],
    /// What is started.
    start: &'static [&'static str],
    /// Who its messages seem to be from.
    program: &'static str,
}

const NETWORKD: Manager = Manager {
    service: "systemd-networkd.service",
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
    program: "systemd",
};

const NETPLAN: Manager = Manager {
    files: &[(
        "etc/netplan/50-cloud.yaml",
        "network:\n  version: 2\n  ethernets:\n    vm0:\n      dhcp4: true\n      link-local: []\n",
    )],
    without: &["etc/systemd/network/10-lab.network"],
    before: &[&["/usr/libexec/netplan/generate"]],
    ..NETWORKD
};

const IFUPDOWN: Manager = Manager {
    service: "networking.service",
    files: &[(
        "etc/network/interfaces",
        "auto lo\niface lo inet loopback\n\nauto vm0\niface vm0 inet dhcp\n",
    )],
    without: &[],
    directories: &["run/network"],
    before: &[],
    start: &["/usr/sbin/ifup", "-a", "--read-environment"],
    program: "unnamed",
};

const IFUPDOWN_WITH_DHCPCD: Manager = Manager {
    files: &[IFUPDOWN.files[0], DHCPCD.files[0]],
    without: &["usr/sbin/dhclient"],
    program: "dhcpcd",
    ..IFUPDOWN
};

const DHCPCD: Manager = Manager {
    service: "dhcpcd.service",
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
    program: "dhcpcd",
};

const NETWORK_MANAGER: Manager = Manager {
    service: "NetworkManager.service",
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
    program: "unnamed",
};

/// What is seen of a manager's work.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The interface, its addresses, its routes, and where names are looked up.
    network: String,
    /// What the platform was asked for, without the names.
    asked: Vec<Spoken>,
}

/// Runs a test on a machine that has the system for its root.
fn on_networks(body: impl FnOnce(&Machine)) {
    on_root(body, |body, machine| {
        if installed::install(Flavour::WithNetworks, machine) {
            body(machine);
        }
    });
}

/// Gives the machine a new cable, of which nobody remembers anything, with the same number as before.
fn new_cable() {
    ip("link delete vm0");
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    ip(&format!(
        "link add name vm0 index {INDEX} address {mac} type veth peer name host0 address 12:34:56:78:9a:bc"
    ));
    for end in ["vm0", "host0"] {
        // It would chatter. Absent on a kernel without IPv6.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1");
    }
    ip("link set host0 up");
}

impl Manager {
    /// Sets the root up for this manager and no other.
    fn set_up(&self, machine: &Machine) {
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
            let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            // One keeps its secrets there; networkd is not root, and reads what all may read.
            if path.contains("system-connections") {
                fs::set_permissions(root.join(path), own).unwrap();
            }
        }
        fs::write(root.join("etc/machine-id"), format!("{MACHINE_ID}\n")).unwrap();
    }

    /// Boots the system and lets the manager get its lease; gives what is seen then, and the host names
    /// that it gave.
    #[track_caller]
    fn run(&self, machine: &Machine) -> (Seen, Vec<Option<String>>) {
        let azure = Azure::start("healthy");
        let system = System::boot(machine);
        let log = machine.root().join("run/manager.log");
        for directory in self.directories {
            fs::create_dir_all(machine.root().join(directory)).unwrap();
        }
        for line in self.before {
            let output = system.run(line);
            assert!(output.status.success(), "{line:?}: {output:?}");
        }
        let file = fs::File::create(&log).unwrap();
        let mut manager = system
            .command(self.start)
            .stdout(Stdio::from(file.try_clone().unwrap()))
            .stderr(Stdio::from(file))
            .spawn()
            .unwrap();
        let start = Instant::now();
        let (mut network, mut since) = (String::new(), Instant::now());
        loop {
            let now = network_of(&system);
            if now != network {
                (network, since) = (now, Instant::now());
            }
            if network.contains("inet 10.0.0.4/24") && since.elapsed() > QUIET {
                break;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "no lease:\n{network}\n{}\n{}",
                fs::read_to_string(&log).unwrap_or_default(),
                azure.end().journal()
            );
            thread::sleep(Duration::from_millis(100));
        }
        println!(
            "{}: content after {:?}",
            self.service,
            since.duration_since(start)
        );
        let _ = manager.try_wait();
        system.power_off();
        let _ = manager.wait();
        let heard = azure.end();
        println!("{}", heard.journal());
        assert_lawful(&heard);
        let (asked, names) = asked(&heard);
        for said in &asked {
            assert_eq!(said.program(), self.program, "{said:?}");
        }
        (Seen { network, asked }, names)
    }
}

/// Checks that nothing was reported, and that the manager kept the rules as all do: the oldest of them,
/// how long a message is at least, nobody keeps.
#[track_caller]
fn assert_lawful(heard: &Heard) {
    let complaints = heard.platform.complaints();
    let bad: Vec<_> = complaints
        .filter(|complaint| !complaint.ends_with("are less than BOOTP's 300"))
        .collect();
    assert_eq!(bad, [""; 0], "{}", heard.journal());
    assert_eq!(heard.platform.verdict(), Verdict::Creating);
}

/// Takes what was asked for, and the host names that came with it, out of a journal.
fn asked(heard: &Heard) -> (Vec<Spoken>, Vec<Option<String>>) {
    let said = heard.platform.journal().iter().filter_map(Entry::dhcp);
    let mut names = Vec::new();
    let mut asked: Vec<Spoken> = said
        .map(|mut said| {
            names.push(said.host_name.take().or(said.full_name.take()));
            said.full_name = None;
            // An identifier that is made of the card and the time of its making (RFC 8415, 11.2).
            if let Some([255, _, _, _, _, 0, 1, 0, 1, time @ .., _, _, _, _, _, _]) =
                said.client.as_deref_mut()
            {
                time.fill(0);
            }
            said
        })
        .collect();
    // A machine that is busy lets a client ask twice.
    asked.dedup();
    (asked, names)
}

/// Shows what a manager made of the network.
fn network_of(system: &System) -> String {
    let mut text = seen("vm0");
    let _ = write!(text, "{}", system.text("etc/resolv.conf"));
    text
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
fn settings(interface: &str) -> String {
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

/// Checks a manager after us against the same manager without us.
#[track_caller]
fn takes_over(machine: &Machine, manager: &Manager) {
    new_cable();
    manager.set_up(machine);
    let (without, old_names) = manager.run(machine);

    new_cable();
    assert!(installed::install(Flavour::WithNetworks, machine));
    manager.set_up(machine);
    let (before, settings_before) = (seen("vm0"), settings("vm0"));
    machine.insert(&with_key());
    let azure = Azure::start("healthy");
    machine.provision(&[]).exits(0);
    azure.end().ready();
    assert_eq!(seen("vm0"), before);
    assert_eq!(settings("vm0"), settings_before);
    let (with, names) = manager.run(machine);

    assert_eq!(with.network, without.network);
    assert_eq!(with.asked, without.asked);
    assert!(!names.is_empty());
    for name in names {
        assert_eq!(name.as_deref(), Some(HOST_NAME));
    }
    assert!(
        !old_names.contains(&Some(HOST_NAME.to_owned())),
        "{old_names:?}"
    );
    let is_fresh = |said: &Spoken| {
        said.kind == Kind::Discover || matches!(said.state, Some(State::Selecting { .. }))
    };
    assert!(with.asked.iter().all(is_fresh), "{:?}", with.asked);
}

#[test]
fn networkd_gets_its_lease_as_if_nobody_had_been_there() {
    on_networks(|machine| takes_over(machine, &NETWORKD));
}

#[test]
fn netplan_gets_its_lease_as_if_nobody_had_been_there() {
    on_networks(|machine| takes_over(machine, &NETPLAN));
}

#[test]
fn ifupdown_gets_its_lease_as_if_nobody_had_been_there() {
    on_networks(|machine| takes_over(machine, &IFUPDOWN));
}

#[test]
fn ifupdown_with_dhcpcd_gets_its_lease_as_if_nobody_had_been_there() {
    on_networks(|machine| takes_over(machine, &IFUPDOWN_WITH_DHCPCD));
}

#[test]
fn dhcpcd_gets_its_lease_as_if_nobody_had_been_there() {
    on_networks(|machine| takes_over(machine, &DHCPCD));
}

#[test]
fn network_manager_gets_its_lease_as_if_nobody_had_been_there() {
    on_networks(|machine| takes_over(machine, &NETWORK_MANAGER));
}

/// Flags of an interface (`linux/if.h`).
const IFF_UP: u32 = 0x1;
const IFF_PROMISC: u32 = 0x100;

#[test]
fn interface_is_released_before_the_program_ends() {
    on_networks(|machine| {
        // The kernel's list of this namespace's interfaces, which costs no program to read.
        let devices = machine.place().join("devices");
        fs::create_dir(&devices).unwrap();
        mount("sysfs", &devices, "sysfs", MountFlags::RDONLY, None).unwrap();
        let flags = |path: &Path| {
            let text = fs::read_to_string(path.join("class/net/vm0/flags")).unwrap();
            u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap()
        };
        machine.insert(&with_key());
        for _ in 0..5 {
            let azure = Azure::start("healthy");
            let mut running = machine.start(&[]);
            running.wait_for("dhcp ok");
            running.exit();
            let start = Instant::now();
            while flags(&devices) & (IFF_UP | IFF_PROMISC) != 0 {
                assert!(start.elapsed() < PATIENCE, "the interface stays up");
            }
            println!("hand-over: down {:?} after the exit", start.elapsed());
            assert_eq!(flags(&devices) & (IFF_UP | IFF_PROMISC), 0);
            running.end().exits(0);
            azure.end().ready();
            fs::remove_dir_all(machine.root().join("var/lib/preroot")).unwrap();
        }
    });
}
