//! The network is handed over: the system's own network manager gets its lease as if we had never been there.
//!
//! Each manager is Debian's program, run twice in a system of its own on the same platform: in one that
//! never saw us, and in one that was provisioned. What it asks the platform for, and what it makes of the
//! interface, must be the same but for the host name, which must be the new one.

use std::fs;
use std::path::Path;
use std::time::Instant;

use lab::platform::Entry;
use lab::platform::dhcp::{Kind, Spoken, State};
use rustix::mount::{MountFlags, mount};

use crate::azure::{Azure, Heard};
use crate::healthy::with_key;
use crate::machine::{HOST_NAME, Machine, VM_ID, firmware};
use crate::manager::{
    DHCPCD, FIRST, IFUPDOWN, IFUPDOWN_WITH_DHCPCD, Manager, NETPLAN, NETWORK_MANAGER, NETWORKD,
    Nic, PATIENCE, SECOND, install, on_networks, seen, settings,
};
use crate::namespace::ip;
use crate::run::{Run, call};

/// The firmware's word that this is Azure.
const ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

/// networkd with two interfaces.
const NETWORKD_TWICE: Manager = Manager {
    files: &[(
        "etc/systemd/network/10-vm.network",
        "[Match]\nName=vm0 vm1\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n",
    )],
    nics: &[FIRST, SECOND],
    ..NETWORKD
};

/// ifupdown with two interfaces.
const IFUPDOWN_TWICE: Manager = Manager {
    files: &[(
        "etc/network/interfaces",
        "auto lo\niface lo inet loopback\n\nauto vm0\niface vm0 inet dhcp\n\n\
         auto vm1\niface vm1 inet dhcp\n",
    )],
    nics: &[FIRST, SECOND],
    ..IFUPDOWN
};

/// What is seen of a manager's work.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The interfaces, their addresses, their routes, and where names are looked up.
    network: String,
    /// What the platform was asked for at each cable, without the names.
    asked: Vec<Vec<Spoken>>,
}

/// Lets a manager get its lease; gives what is seen then, and the host names that it gave.
#[track_caller]
fn work(manager: &Manager, machine: &Machine) -> (Seen, Vec<Option<String>>) {
    let working = manager.boot(machine, "");
    let network = working.content();
    let mut names = Vec::new();
    let heard = working.end();
    let asked: Vec<_> = heard.iter().map(|heard| asked(heard, &mut names)).collect();
    for said in asked.iter().flatten() {
        assert_eq!(said.program(), manager.program, "{said:?}");
    }
    (Seen { network, asked }, names)
}

/// Takes what was asked for, and the host names that came with it, out of a journal.
fn asked(heard: &Heard, names: &mut Vec<Option<String>>) -> Vec<Spoken> {
    let said = heard.platform.journal().iter().filter_map(Entry::dhcp);
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
    asked
}

/// Shows these interfaces and their settings.
fn state(nics: &[Nic]) -> String {
    let each = nics.iter();
    each.map(|nic| seen(nic.name) + &settings(nic.name))
        .collect()
}

/// Provisions the machine by the interfaces that its bus shows, of which one is a twin.
#[track_caller]
fn provision_all(machine: &Machine, manager: &Manager, drivers: &[(&str, &str)]) -> Run {
    let names: Vec<&str> = manager.nics.iter().map(|nic| nic.name).collect();
    firmware(ASSET_TAG, VM_ID, true, &names);
    for (name, driver) in drivers {
        let device = Path::new("/sys/class/net").join(name).join("device");
        fs::create_dir_all(&device).unwrap();
        let driver = format!("../../../bus/pci/drivers/{driver}");
        std::os::unix::fs::symlink(driver, device.join("driver")).unwrap();
    }
    let azure = manager.platforms("");
    let (root, disc) = (machine.root(), machine.disc());
    let run = call(&[
        "provision",
        "--root",
        root.to_str().unwrap(),
        "--media",
        disc.to_str().unwrap(),
        "--log=stderr",
        "--timeout=10",
    ]);
    let heard: Vec<Heard> = azure.into_iter().map(Azure::end).collect();
    run.exits(0);
    heard[0].ready();
    for other in &heard[1..] {
        other.undecided();
    }
    run
}

/// Checks a manager after us against the same manager without us.
#[track_caller]
fn takes_over(machine: &Machine, manager: &Manager) {
    manager.nics.iter().for_each(Nic::cable);
    manager.set_up(machine);
    let (without, old_names) = work(manager, machine);

    manager.nics.iter().for_each(Nic::cable);
    install(machine);
    manager.set_up(machine);
    let before = state(manager.nics);
    machine.insert(&with_key());
    let released = format!("network released to {}", manager.name);
    provision_all(machine, manager, &[]).says(&released);
    assert_eq!(state(manager.nics), before);
    let (with, names) = work(manager, machine);

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
    let mut asked = with.asked.iter().flatten();
    assert!(asked.all(is_fresh), "{:?}", with.asked);
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

#[test]
fn networkd_gets_both_of_two_leases_as_if_nobody_had_been_there() {
    on_networks(|machine| takes_over(machine, &NETWORKD_TWICE));
}

#[test]
fn ifupdown_gets_both_of_two_leases_as_if_nobody_had_been_there() {
    on_networks(|machine| takes_over(machine, &IFUPDOWN_TWICE));
}

/// The primary interface's twin: the same hardware address on a card of the machine's own, by which data
/// goes past the host when the kernel has joined the two.
const TWIN: Nic = Nic {
    name: "vf0",
    host: "vfhost",
    index: 400,
    ..FIRST
};

#[test]
fn twin_of_the_interface_is_never_touched_whatever_it_is_like() {
    on_networks(|machine| {
        machine.insert(&with_key());
        let manager = &NETWORKD_TWICE;
        let cases: [(&str, &[&str]); 4] = [
            ("mlx5_core", &[]),
            ("mlx4_core", &["link set vf0 up"]),
            (
                "mana",
                &["link set vf0 mtu 1400", "link set vf0 promisc on"],
            ),
            // What it looks like when it is joined: it belongs to another, and is up.
            (
                "mlx5_core",
                &[
                    "link add join type bridge",
                    "link set vf0 master join",
                    "link set vf0 up",
                ],
            ),
        ];
        for (driver, lines) in cases {
            manager.nics.iter().for_each(Nic::cable);
            TWIN.cable();
            for line in lines {
                ip(line);
            }
            let (before, twin) = (state(manager.nics), state(&[TWIN]));
            let azure = Azure::on(TWIN.host, "healthy");
            provision_all(machine, manager, &[(TWIN.name, driver)]).says("dhcp ok nic=vm0");
            azure.end().nothing();
            assert_eq!(state(&[TWIN]), twin, "{driver} {lines:?}");
            assert_eq!(state(manager.nics), before, "{driver} {lines:?}");
            fs::remove_dir_all(machine.root().join("var/lib/preroot")).unwrap();
        }
    });
}

/// Flags of an interface (`linux/if.h`).
const IFF_UP: u32 = 0x1;
const IFF_PROMISC: u32 = 0x100;

#[test]
fn interface_is_released_before_the_program_ends() {
    on_networks(|machine| {
        FIRST.cable();
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
