//! What becomes of the network when the work is done: released, or kept for a root in which nobody
//! configures it; and the lease that `preroot lease` keeps then.
//!
//! The server is a real one, in a network of its own at the far end of the cable: the kernel of the
//! machine would otherwise answer itself. What the kernel is told is held against what a real client
//! tells it of the same server.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::azure::Azure;
use crate::foreign::Server;
use crate::healthy::with_key;
use crate::machine::{
    Machine, VM_ID, assert_at_rest, assert_same, cable, firmware, is_up, on_machine, tmpfs,
};
use crate::namespace::ip;
use crate::run::{Run, Running, call};
use crate::tools::tool;

/// Processes as this namespace counts them.
const PROC: &str = "/run/proc";
const RECORD: &str = "/run/preroot/lease";
/// What dnsmasq says of 10.0.0.4, unless a test says otherwise: as Azure does.
const AZURE: [&str; 4] = [
    "--dhcp-option=option:router,10.0.0.1",
    "--dhcp-option=option:dns-server,168.63.129.16",
    "--dhcp-option=121,0.0.0.0/0,10.0.0.1,168.63.129.16/32,10.0.0.1,169.254.169.254/32,10.0.0.1",
    "--dhcp-option=245,168.63.129.16",
];
/// Routes of these, as `ip` shows them.
const AZURES_ROUTES: [&str; 4] = [
    "10.0.0.0/24 proto kernel scope link src 10.0.0.4",
    "168.63.129.16 via 10.0.0.1 proto dhcp src 10.0.0.4",
    "169.254.169.254 via 10.0.0.1 proto dhcp src 10.0.0.4",
    "default via 10.0.0.1 proto dhcp src 10.0.0.4",
];
/// A lease that ends, in what is dnsmasq's shortest time, but is to be renewed soon.
const SOON: [&str; 2] = ["--dhcp-option=58,2", "--dhcp-option=59,4"];

/// The network at the far end of a cable.
struct Far {
    holder: Child,
}

impl Far {
    /// Moves the host's end of the cable to a network of its own, in which it is 10.0.0.1.
    fn new() -> Self {
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

    fn network(&self) -> String {
        format!("{PROC}/{}/ns/net", self.holder.id())
    }

    /// A command there.
    fn inside(&self, command: &Command) -> Command {
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

    fn ip(&self, words: &str) {
        let mut command = Command::new("ip");
        command.args(words.split(' '));
        let output = self.inside(&command).output().unwrap();
        assert!(output.status.success(), "ip {words}: {output:?}");
    }

    /// Starts a server there that says what Azure says, but of a lease of this time.
    fn azure(&self, machine: &Machine, time: &str, more: &[&str]) -> Option<Server> {
        let range = format!("10.0.0.4,10.0.0.4,255.255.255.0,{time}");
        self.dnsmasq(machine, &range, &[&AZURE[..], more].concat())
    }

    /// Starts dnsmasq there, for addresses of this range and so long.
    fn dnsmasq(&self, machine: &Machine, range: &str, more: &[&str]) -> Option<Server> {
        let mut dnsmasq = tool("dnsmasq", "dnsmasq-base")?;
        dnsmasq.args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--user=root",
            "--group=root",
            "--pid-file=",
            "--port=0",
            "--no-ping",
            "--interface=host0",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--log-dhcp",
        ]);
        let leases = machine.place().join("leases");
        dnsmasq
            .arg(format!("--dhcp-range={range}"))
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .args(more);
        Some(Server::start(
            &mut self.inside(&dnsmasq),
            "DHCP, sockets bound exclusively",
        ))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Waits for something that others do.
#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "no {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Gives what `ip` shows, a line each, without what is no matter here.
fn shown(words: &str, without: &[&str]) -> Vec<String> {
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

fn routes() -> Vec<String> {
    shown("-4 route show dev vm0", &[])
}

/// The addresses of `vm0`, as `10.0.0.4/24 brd 10.0.0.255`.
fn addresses() -> Vec<String> {
    let lines = shown("-4 -o address show dev vm0", &[]);
    let of = |line: String| {
        let (_, rest) = line.split_once(" inet ").unwrap();
        rest.split_once(" scope").unwrap().0.to_owned()
    };
    lines.into_iter().map(of).collect()
}

fn mtu() -> String {
    let line = shown("-o link show dev vm0", &[]).remove(0);
    let (_, rest) = line.split_once(" mtu ").unwrap();
    rest.split(' ').next().unwrap().to_owned()
}

/// Runs `preroot provision` without a word on the network, unless `more` has one.
fn boot(machine: &Machine, more: &[&str]) -> Run {
    machine.start_as_in_a_hook(more).end()
}

/// Makes the root one that is done with: nothing but the network is left to do.
fn mark_done(machine: &Machine) {
    let place = machine.root().join("var/lib/preroot");
    fs::create_dir_all(&place).unwrap();
    for marker in ["configured", "reported"] {
        fs::write(place.join(marker), format!("{VM_ID}\n")).unwrap();
    }
    fs::write(machine.root().join("etc/hostname"), "vm-done\n").unwrap();
}

/// Enables ifupdown in the root.
fn enable_ifupdown(machine: &Machine) {
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

#[test]
fn lease_stays_in_the_kernel_of_a_root_without_a_manager_on_every_boot() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let run = boot(machine, &[]);
        azure.end().ready();
        run.exits(0)
            .says("network kept nic=vm0 ip=10.0.0.4/24 routes=3");
        assert_eq!(addresses(), ["10.0.0.4/24 brd 10.0.0.255"]);
        assert_eq!(routes(), AZURES_ROUTES);
        assert!(is_up("vm0") && !is_up("lo"));
        assert!(
            machine
                .read("etc/resolv.conf")
                .contains("\nnameserver 168.63.129.16\n")
        );
        let record = fs::read_to_string(RECORD).unwrap();
        assert!(record.contains("\naddress=10.0.0.4/24\n") && record.contains("lease=infinite"));
        let mode = fs::metadata(RECORD).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // The next boot: the interface is as the firmware left it, the root is as we left it.
        ip("address flush dev vm0");
        ip("link set vm0 down");
        fs::remove_file(RECORD).unwrap();
        let before = machine.picture();
        let azure = Azure::start("healthy");
        let run = boot(machine, &[]);
        let heard = azure.end();
        run.exits(0)
            .says("network kept nic=vm0")
            .says("nothing to do");
        assert_same(&machine.picture(), &before);
        assert_eq!(routes(), AZURES_ROUTES);
        assert!(Path::new(RECORD).exists());
        assert_eq!(heard.undecided().steps(), [""; 0], "only DHCP");
    });
}

#[test]
fn interface_is_kept_when_provisioning_fails_too() {
    on_machine(|machine| {
        let whole = with_key().build();
        machine.insert_text(&whole.replace("</Environment>", "</Environmen>"));
        let azure = Azure::start("healthy");
        let run = boot(machine, &[]);
        azure.end().failed();
        run.exits(111).says("network kept nic=vm0");
        assert_eq!(addresses(), ["10.0.0.4/24 brd 10.0.0.255"]);
    });
}

#[test]
fn manager_in_the_root_gets_the_interface_as_it_was() {
    on_machine(|machine| {
        enable_ifupdown(machine);
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let run = boot(machine, &[]);
        azure.end().ready();
        run.exits(0).says("network released to ifupdown");
        assert_at_rest("vm0");
        assert!(!Path::new(RECORD).exists() && !machine.has("etc/resolv.conf"));

        // Nothing is left to do: not a frame is sent.
        let azure = Azure::start("healthy");
        boot(machine, &[]).exits(0);
        azure.end().nothing();
        assert_at_rest("vm0");

        // Whoever says so is believed, in the root's own file, too.
        fs::write(machine.root().join("etc/preroot.conf"), "network = keep\n").unwrap();
        let azure = Azure::start("healthy");
        let run = boot(machine, &[]);
        azure.end().undecided();
        run.exits(0).says("network kept nic=vm0");
    });
}

#[test]
fn root_says_that_the_interface_is_released_and_no_frame_is_sent() {
    on_machine(|machine| {
        mark_done(machine);
        fs::write(
            machine.root().join("etc/preroot.conf"),
            "network = release\n",
        )
        .unwrap();
        let azure = Azure::start("healthy");
        boot(machine, &[]).exits(0);
        azure.end().nothing();
        assert_at_rest("vm0");
    });
}

#[test]
fn primary_interface_is_kept_and_the_other_comes_to_rest() {
    on_machine(|machine| {
        const SECOND: [u8; 6] = [0x00, 0x0d, 0x3a, 0x65, 0x43, 0x21];
        cable("vm1", SECOND, "host1");
        firmware(
            "7783-7084-3265-9085-8269-3286-77",
            VM_ID,
            true,
            &["vm0", "vm1"],
        );
        mark_done(machine);
        let primary = SECOND.map(|byte| format!("{byte:02x}")).join(":");
        let scenario = format!("net.primary = {primary}");
        let azure = [Azure::on("host0", &scenario), Azure::on("host1", &scenario)];
        let root = machine.root();
        let run = call(&[
            "provision",
            "--root",
            root.to_str().unwrap(),
            "--log=stderr",
        ]);
        for azure in azure {
            azure.end().undecided();
        }
        run.exits(0).says("network kept nic=vm1 ip=10.0.0.4/24");
        assert_at_rest("vm0");
        assert!(is_up("vm1"));
        assert!(fs::read_to_string(RECORD).unwrap().contains("\nname=vm1\n"));
    });
}

#[test]
fn boot_goes_on_without_a_lease_when_nobody_gives_one() {
    on_machine(|machine| {
        mark_done(machine);
        let before = machine.picture();
        let run = machine.provision(&["--network=keep", "--timeout=3"]);
        run.exits(0)
            .says("waiting for an answer of a DHCP server")
            .says("network: an answer of a DHCP server missed fix=");
        assert!(run.took < Duration::from_secs(5), "{run}");
        assert_same(&machine.picture(), &before);
        assert_at_rest("vm0");
        // For the service: somebody wanted one.
        assert_eq!(fs::read_to_string(RECORD).unwrap(), "");
    });
}

#[test]
fn resolveds_link_stays_and_resolved_is_told() {
    on_machine(|machine| {
        mark_done(machine);
        let etc = machine.root().join("etc");
        let wants = etc.join("systemd/system/sysinit.target.wants");
        fs::create_dir_all(&wants).unwrap();
        let unit = "/usr/lib/systemd/system/systemd-resolved.service";
        symlink(unit, wants.join("systemd-resolved.service")).unwrap();
        let stub = "../run/systemd/resolve/stub-resolv.conf";
        symlink(stub, etc.join("resolv.conf")).unwrap();
        let before = machine.picture();
        let azure = Azure::start("healthy");
        let run = boot(machine, &[]);
        azure.end().undecided();
        run.exits(0);
        assert_same(&machine.picture(), &before);
        let file = Path::new("/run/systemd/resolved.conf.d/preroot.conf");
        let told = fs::read_to_string(file).unwrap();
        assert!(told.contains("\nDNS=168.63.129.16\n"), "{told}");
        // resolved is no user of root's.
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file), mode(file.parent().unwrap())), (0o644, 0o755));
    });
}

#[test]
fn read_only_root_keeps_the_network_without_name_servers() {
    on_machine(|machine| {
        mark_done(machine);
        let root = machine.root();
        rustix::mount::mount_bind(&root, &root).unwrap();
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(&root, flags, "").unwrap();
        // Of a mount of its own, it could be remounted; below it there is nothing to be had.
        tmpfs_read_only(&root.join("etc"));
        let azure = Azure::start("healthy");
        let run = boot(machine, &["--network=keep"]);
        azure.end().undecided();
        run.exits(0)
            .says("note: the lease's name servers are not in /etc/resolv.conf")
            .says("network kept nic=vm0");
    });
}

/// Mounts what a directory has over it again, on a file system that takes no writes.
fn tmpfs_read_only(path: &Path) {
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::RDONLY, None).unwrap();
}

#[test]
fn address_of_one_host_reaches_its_router_by_a_route_of_its_own() {
    on_machine(|machine| {
        mark_done(machine);
        let far = Far::new();
        let more = [
            "--dhcp-option=option:netmask,255.255.255.255",
            "--dhcp-option=option:dns-server,168.63.129.16",
            "--dhcp-option=121,0.0.0.0/0,10.0.0.1,192.168.7.0/24,0.0.0.0,192.168.8.0/24,192.168.7.9",
            "--dhcp-option=option:mtu,1400",
        ];
        let range = "10.0.0.4,10.0.0.4,255.255.255.0,infinite";
        let Some(server) = far.dnsmasq(machine, range, &more) else {
            return;
        };
        let run = boot(machine, &[]);
        println!("{}", server.end());
        run.exits(0).says("network kept").never_says("takes no");
        assert_eq!(addresses(), ["10.0.0.4/32"]);
        assert_eq!(
            routes(),
            [
                "10.0.0.1 proto dhcp scope link src 10.0.0.4",
                "192.168.7.0/24 proto dhcp scope link src 10.0.0.4",
                "192.168.8.0/24 via 192.168.7.9 proto dhcp src 10.0.0.4",
                "default via 10.0.0.1 proto dhcp src 10.0.0.4",
            ]
        );
        assert_eq!(mtu(), "1400");
    });
}

#[test]
fn mtu_that_the_interface_refuses_costs_nothing_but_a_line() {
    on_machine(|machine| {
        mark_done(machine);
        let far = Far::new();
        // More than any Ethernet has.
        let Some(server) = far.azure(machine, "infinite", &["--dhcp-option=option:mtu,65535"])
        else {
            return;
        };
        ip("link set vm0 mtu 1500");
        let run = boot(machine, &[]);
        println!("{}", server.end());
        run.exits(0).says("network kept nic=vm0 ip=10.0.0.4/24");
        if mtu() == "1500" {
            run.says("network: vm0 takes no mtu 65535: error");
        }
        assert_eq!(routes(), AZURES_ROUTES);
    });
}

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

/// What a real client makes of the same answers: dhcpcd of Roy Marples, without its scripts.
///
/// But for the MTU, which it gives to the routes; and a route on the link has one host here, because
/// dhcpcd takes each such for one (RFC 3442 does not).
#[test]
fn kernel_is_told_what_dhcpcd_tells_it() {
    const OFFERS: [&[&str]; 3] = [
        &AZURE,
        &["--dhcp-option=option:router,10.0.0.1"],
        &["--dhcp-option=121,192.168.7.9/32,0.0.0.0,0.0.0.0/0,192.168.7.9"],
    ];
    on_machine(|machine| {
        mark_done(machine);
        // dhcpcd takes notes there.
        tmpfs("/var/lib");
        let far = Far::new();
        let picture = || {
            // Each has a metric and a mark of its own; ours names the source with all.
            let without = ["proto", "metric", "src"];
            (addresses(), shown("-4 route show dev vm0", &without))
        };
        for (offer, prefix) in OFFERS.into_iter().zip([24, 25, 16]) {
            far.ip("address flush dev host0");
            far.ip(&format!("address add 10.0.0.1/{prefix} dev host0"));
            let mask = Ipv4Addr::from_bits(u32::MAX << (32 - prefix));
            let range = format!("10.0.0.4,10.0.0.4,{mask},infinite");
            let (Some(server), Some(mut dhcpcd)) = (
                far.dnsmasq(machine, &range, offer),
                tool("dhcpcd", "dhcpcd-base"),
            ) else {
                return;
            };
            boot(machine, &[]).exits(0).says("network kept");
            let ours = picture();
            ip("address flush dev vm0");
            ip("link set vm0 down");
            let options = "-4 --oneshot --noarp --script /bin/true --config /dev/null \
                           -o classless_static_routes,routers vm0";
            let output = dhcpcd.args(options.split_whitespace()).output().unwrap();
            println!("{output:?}\n{}", server.end());
            assert_eq!(ours, picture(), "{offer:?}");
            ip("address flush dev vm0");
            ip("link set vm0 down");
        }
    });
}
