//! What becomes of the network when the work is done: released, or kept for a root in which nobody
//! configures it. What the kernel is told is held against what a real client tells it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::mount::MountFlags;

use crate::azure::Azure;
use crate::far::{
    AZURE, AZURES_ROUTES, Far, RECORD, addresses, boot, enable_ifupdown, mark_done, mtu, routes,
    shown,
};
use crate::healthy::with_key;
use crate::machine::{
    VM_ID, assert_at_rest, assert_same, cable, firmware, is_up, on_machine, tmpfs,
};
use crate::namespace::ip;
use crate::run::call;
use crate::tools::tool;

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
