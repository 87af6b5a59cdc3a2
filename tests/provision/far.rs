//! A server that we did not write at the far end of the cable, in a network of its own: the kernel of the
//! machine would otherwise answer itself.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use crate::foreign::Server;
use crate::machine::{Machine, VM_ID};
use crate::namespace::ip;
use crate::run::{Run, Running};
use crate::tools::tool;

/// Processes as this namespace counts them.
pub(crate) const PROC: &str = "/run/proc";
pub(crate) const RECORD: &str = "/run/preroot/lease";
/// What dnsmasq says of 10.0.0.4, unless a test says otherwise: as Azure does.
pub(crate) const AZURE: [&str; 4] = [
    "--dhcp-option=option:router,10.0.0.1",
    "--dhcp-option=option:dns-server,168.63.129.16",
    "--dhcp-option=121,0.0.0.0/0,10.0.0.1,168.63.129.16/32,10.0.0.1,169.254.169.254/32,10.0.0.1",
    "--dhcp-option=245,168.63.129.16",
];
/// Routes of these, as `ip` shows them.
pub(crate) const AZURES_ROUTES: [&str; 4] = [
    "10.0.0.0/24 proto kernel scope link src 10.0.0.4",
    "168.63.129.16 via 10.0.0.1 proto dhcp src 10.0.0.4",
    "169.254.169.254 via 10.0.0.1 proto dhcp src 10.0.0.4",
    "default via 10.0.0.1 proto dhcp src 10.0.0.4",
];
/// A lease that ends, in what is dnsmasq's shortest time, but is to be renewed soon.
pub(crate) const SOON: [&str; 2] = ["--dhcp-option=58,2", "--dhcp-option=59,4"];

/// The network at the far end of a cable.
pub(crate) struct Far {
    holder: Child,
}

impl Far {
    /// Moves the host's end of the cable to a network of its own, in which it is 10.0.0.1.
    pub(crate) fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "--", "sleep", "600"])
            .spawn()
            .unwrap();
        // The one that is there counts processes as another namespace does.
        fs::create_dir(PROC).unwrap();
        rustix::mount::mount("proc", PROC, "proc", MountFlags::empty(), None).unwrap();
        let far = Self { holder };
        let ours = fs::read_link("/proc/self/ns/net").unwrap();
        wait_until("a network of its own", || {
            fs::read_link(far.network()).is_ok_and(|theirs| theirs != ours)
        });
        ip(&format!("link set host0 netns {}", far.holder.id()));
        far.ip("link set lo up");
        far.ip("link set host0 up");
        far.ip("address add 10.0.0.1/24 dev host0");
        far
    }

    pub(crate) fn network(&self) -> String {
        format!("{PROC}/{}/ns/net", self.holder.id())
    }

    /// A command there.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside
            .arg(format!("--net={}", self.network()))
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                inside.env(name, value);
            }
        }
        inside
    }

    pub(crate) fn ip(&self, words: &str) {
        let mut command = Command::new("ip");
        command.args(words.split(' '));
        let output = self.inside(&command).output().unwrap();
        assert!(output.status.success(), "ip {words}: {output:?}");
    }

    /// Starts a server there that says what Azure says, but of a lease of this time.
    pub(crate) fn azure(&self, machine: &Machine, time: &str, more: &[&str]) -> Option<Server> {
        let range = format!("10.0.0.4,10.0.0.4,255.255.255.0,{time}");
        self.dnsmasq(machine, &range, &[&AZURE[..], more].concat())
    }

    /// Starts dnsmasq there, for addresses of this range and so long.
    pub(crate) fn dnsmasq(&self, machine: &Machine, range: &str, more: &[&str]) -> Option<Server> {
        let dnsmasq = dnsmasq(machine, range, more)?;
        Some(Server::start(
            &mut self.inside(&dnsmasq),
            "DHCP, sockets bound exclusively",
        ))
    }
}

/// Where dnsmasq notes its leases.
pub(crate) fn leases(machine: &Machine) -> PathBuf {
    machine.place().join("leases")
}

/// Makes the command line of a dnsmasq for addresses of this range and so long.
pub(crate) fn dnsmasq(machine: &Machine, range: &str, more: &[&str]) -> Option<Command> {
    let mut dnsmasq = tool("dnsmasq", "dnsmasq-base")?;
    dnsmasq
        .args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--user=root",
            "--group=root",
            "--pid-file=",
            // No DNS, and no ping before an address is offered: that takes seconds.
            "--port=0",
            "--no-ping",
            "--interface=host0",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--log-dhcp",
        ])
        .arg(format!("--dhcp-range={range}"))
        .arg(format!("--dhcp-leasefile={}", leases(machine).display()))
        .args(more);
    Some(dnsmasq)
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Waits for something that others do.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "no {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Gives what `ip` shows, a line each, without what is no matter here.
pub(crate) fn shown(words: &str, without: &[&str]) -> Vec<String> {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut kept = Vec::new();
            while let Some(word) = words.next() {
                if without.contains(&word) {
                    words.next();
                } else {
                    kept.push(word);
                }
            }
            kept.join(" ")
        })
        .collect();
    lines.sort();
    lines
}

pub(crate) fn routes() -> Vec<String> {
    shown("-4 route show dev vm0", &[])
}

/// The addresses of `vm0`, as `10.0.0.4/24 brd 10.0.0.255`.
pub(crate) fn addresses() -> Vec<String> {
    let lines = shown("-4 -o address show dev vm0", &[]);
    let of = |line: String| {
        let (_, rest) = line.split_once(" inet ").unwrap();
        rest.split_once(" scope").unwrap().0.to_owned()
    };
    lines.into_iter().map(of).collect()
}

pub(crate) fn mtu() -> String {
    let line = shown("-o link show dev vm0", &[]).remove(0);
    let (_, rest) = line.split_once(" mtu ").unwrap();
    rest.split(' ').next().unwrap().to_owned()
}

/// Runs `preroot provision` without a word on the network, unless `more` has one.
pub(crate) fn boot(machine: &Machine, more: &[&str]) -> Run {
    machine.start_as_in_a_hook(more).end()
}

/// Makes the root one that is done with: nothing but the network is left to do.
pub(crate) fn mark_done(machine: &Machine) {
    let place = machine.root().join("var/lib/preroot");
    fs::create_dir_all(&place).unwrap();
    for marker in ["configured", "reported"] {
        fs::write(place.join(marker), format!("{VM_ID}\n")).unwrap();
    }
    fs::write(machine.root().join("etc/hostname"), "vm-done\n").unwrap();
}

/// Enables ifupdown in the root.
pub(crate) fn enable_ifupdown(machine: &Machine) {
    let root = machine.root();
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink(
        "/lib/systemd/system/networking.service",
        wants.join("networking.service"),
    )
    .unwrap();
    fs::create_dir_all(root.join("etc/network")).unwrap();
    let interfaces = "auto eth0\niface eth0 inet dhcp\n";
    fs::write(root.join("etc/network/interfaces"), interfaces).unwrap();
}

/// Starts `preroot lease` in a system whose root is the machine's host name and nothing else.
pub(crate) fn start_lease(more: &[&str]) -> Running {
    let usual = ["lease", "--platform=azure", "--nic=vm0", "--log=stderr"];
    Running::start(&[&usual, more].concat())
}

/// Has the program see another host name, and a resolver's file that it may write.
pub(crate) fn running_system(name: &str) {
    let etc = Path::new("/run/etc");
    fs::create_dir(etc).unwrap();
    // dnsmasq looks root up.
    for accounts in ["passwd", "group"] {
        fs::copy(Path::new("/etc").join(accounts), etc.join(accounts)).unwrap();
    }
    fs::write(etc.join("hostname"), format!("{name}\n")).unwrap();
    fs::write(etc.join("resolv.conf"), "").unwrap();
    rustix::mount::mount_bind(etc, "/etc").unwrap();
}
