//! Who in the root will configure the network, if anybody.
//!
//! Nothing of theirs is understood but whether they are enabled, by the rules of the init system that
//! starts them, and, where one does nothing without it, whether they are told to do anything. Not which
//! interface they mean: whoever configures any is trusted with ours. Where nobody is found, the address
//! stays in the kernel. Follows systemd.unit(5), interfaces(5), sysvinit, OpenRC, runit, dinit and s6-rc.

use alloc::string::String;
use alloc::vec::Vec;

use super::plan::{Kind, RootView};
use crate::wire::accounts::{FILE_MAX, lines, words};

/// Services by their names in any init system, and who that is. The first letter of a name says what
/// the service does nothing without.
#[rustfmt::skip]
static SERVICES: [(&str, &str, Needs); 17] = [
    ("systemd-networkd", "systemd-networkd", Needs::Networks),
    ("NetworkManager", "NetworkManager", Needs::Nothing),
    ("network-manager", "NetworkManager", Needs::Nothing),
    ("networkmanager", "NetworkManager", Needs::Nothing),
    ("networking", "ifupdown", Needs::Interfaces),
    ("network", "the network script", Needs::Scripts),
    ("net", "OpenRC", Needs::Nothing),
    ("ifup", "OpenRC", Needs::Nothing),
    ("dhcpcd", "dhcpcd", Needs::Nothing),
    ("dhcpcd5", "dhcpcd", Needs::Nothing),
    ("dhclient", "dhclient", Needs::Nothing),
    ("udhcpc", "udhcpc", Needs::Nothing),
    ("connman", "ConnMan", Needs::Nothing),
    ("connmand", "ConnMan", Needs::Nothing),
    ("wicked", "wicked", Needs::Nothing),
    ("wickedd", "wicked", Needs::Nothing),
    ("netctl", "netctl", Needs::Nothing),
];

/// What a service does nothing without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// A `.network` file that is not one of systemd's own.
    Networks,
    /// An interface in `/etc/network/interfaces`.
    Interfaces,
    /// That, or the files of Red Hat's and SUSE's scripts.
    Scripts,
}

/// Where systemd has units, the administrator's first.
const UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Where networkd has networks, and which of them come with it.
const NETWORKS: [&str; 4] = [
    "/etc/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
];
const OWN_NETWORKS: [&str; 5] = [
    "80-6rd-",
    "80-container-",
    "80-namespace-",
    "80-vm-",
    "80-wifi-",
];
/// Where links or scripts lie that are started in the order of their names.
const ORDERED: [&str; 8] = [
    "/etc/rcS.d",
    "/etc/rc2.d",
    "/etc/rc3.d",
    "/etc/rc5.d",
    "/etc/rc.d/rc3.d",
    "/etc/rc.d/rc5.d",
    "/etc/init.d/rc3.d",
    "/etc/init.d",
];
/// Where each entry is a service that is kept running: runit, dinit, s6-rc.
const KEPT: [&str; 7] = [
    "/etc/service",
    "/service",
    "/var/service",
    "/etc/runit/runsvdir/default",
    "/etc/runit/runsvdir/current",
    "/etc/dinit.d/boot.d",
    "/etc/s6/adminsv/default/contents.d",
];
const INTERFACES: &str = "/etc/network/interfaces";

/// Names who in the root configures the network.
///
/// What cannot be looked at counts as not there: that a manager's files are damaged does not make it work.
pub fn find(root: &dyn RootView) -> Option<&'static str> {
    find_unit(root, &mut |name| service(root, name))
        .or_else(|| netplan(root))
        .or_else(|| find_script(root))
}

/// Tells whether systemd-resolved will answer the root's questions.
pub fn has_resolved(root: &dyn RootView) -> bool {
    let is_resolved = &mut |name: &str| (name == "systemd-resolved").then_some("");
    find_unit(root, is_resolved).is_some()
}

/// Tells who the service of this name is, if it is one that configures the network here.
fn service(root: &dyn RootView, name: &str) -> Option<&'static str> {
    let (_, who, needs) = SERVICES.iter().find(|(known, ..)| *known == name)?;
    let acts = match needs {
        Needs::Nothing => true,
        Needs::Networks => has_networks(root),
        Needs::Interfaces => has_interfaces(root),
        Needs::Scripts => has_interfaces(root) || has_scripts(root),
    };
    acts.then_some(who)
}

/// Looks through the units that systemd starts.
fn find_unit(
    root: &dyn RootView,
    who: &mut dyn FnMut(&str) -> Option<&'static str>,
) -> Option<&'static str> {
    for directory in directories(root, &UNITS) {
        for wants in names(root, directory) {
            // Those of the initramfs and of a machine in trouble are not for the root.
            let wanted = (wants.ends_with(".wants") || wants.ends_with(".requires"))
                && !["initrd", "emergency", "rescue"]
                    .iter()
                    .any(|other| wants.starts_with(other));
            if !wanted {
                continue;
            }
            for unit in names(root, &joined(directory, &wants)) {
                let Some((name, _)) = unit
                    .strip_suffix(".service")
                    .or_else(|| unit.strip_suffix(".socket"))
                    .map(|name| name.split_once('@').unwrap_or((name, "")))
                else {
                    continue;
                };
                if let Some(who) = who(name)
                    && !is_masked(root, &[name, ".service"].concat())
                    && !is_masked(root, &unit)
                {
                    return Some(who);
                }
            }
        }
    }
    None
}

/// Tells whether systemd is kept from starting a unit: a link to `/dev/null`, or an empty file.
fn is_masked(root: &dyn RootView, unit: &str) -> bool {
    let path = joined("/etc/systemd/system", unit);
    match root.stat(&path) {
        Ok(Some(stat)) => stat.kind != Kind::File || stat.size == 0,
        // `/dev` is another file system, which is not there.
        _ => root.is_link(&path).unwrap_or(false),
    }
}

/// Looks for netplan, which tells others what to do while the machine starts.
fn netplan(root: &dyn RootView) -> Option<&'static str> {
    let has_program = ["/usr/sbin/netplan", "/usr/libexec/netplan/generate"]
        .iter()
        .any(|path| matches!(root.stat(path), Ok(Some(_))));
    let has_plan = ["/etc/netplan", "/usr/lib/netplan", "/lib/netplan"]
        .iter()
        .any(|directory| has_name(root, directory, &|name| name.ends_with(".yaml")));
    (has_program && has_plan).then_some("netplan")
}

/// Looks through what the other init systems start.
fn find_script(root: &dyn RootView) -> Option<&'static str> {
    let under_systemd = matches!(root.stat("/usr/lib/systemd/systemd"), Ok(Some(_)));
    for directory in ORDERED {
        for entry in names(root, directory) {
            let name = match entry.as_bytes() {
                [b'S', b'0'..=b'9', b'0'..=b'9', ..] => entry.get(3..).unwrap_or_default(),
                _ => continue,
            };
            // systemd honours its own masks for these, too.
            let masked = under_systemd && is_masked(root, &[name, ".service"].concat());
            if let Some(who) = service(root, name).filter(|_| !masked) {
                return Some(who);
            }
        }
    }
    for level in names(root, "/etc/runlevels") {
        if matches!(&*level, "nonetwork" | "shutdown") {
            continue;
        }
        for entry in names(root, &joined("/etc/runlevels", &level)) {
            // `net.eth0` is one of many; `net.lo` is not ours.
            let name = entry.split_once('.').map_or(&*entry, |(name, _)| name);
            if let Some(who) = service(root, name).filter(|_| entry != "net.lo") {
                return Some(who);
            }
        }
    }
    for directory in KEPT {
        for entry in names(root, directory) {
            // `dhcpcd-eth0` is dhcpcd for one interface.
            let who = service(root, &entry).or_else(|| service(root, entry.split_once('-')?.0));
            let down = [directory, "/", &entry, "/down"].concat();
            if who.is_some() && !matches!(root.stat(&down), Ok(Some(_))) {
                return who;
            }
        }
    }
    None
}

/// Tells whether networkd is told of any network but those of containers and the like.
fn has_networks(root: &dyn RootView) -> bool {
    directories(root, &NETWORKS).any(|directory| {
        has_name(root, directory, &|name| {
            name.ends_with(".network") && !OWN_NETWORKS.iter().any(|own| name.starts_with(own))
        })
    }) || netplan(root).is_some()
}

/// Tells whether `interfaces` has an interface to be set up that is not the loopback.
fn has_interfaces(root: &dyn RootView) -> bool {
    let has = |path: &str| {
        let file = root.read(path, FILE_MAX).ok().flatten().unwrap_or_default();
        lines(&file).any(|line| {
            let mut words = words(line);
            matches!(
                words.next(),
                Some(b"auto" | b"allow-auto" | b"allow-hotplug")
            ) && words.any(|name| name != b"lo")
        })
    };
    const MORE: &str = "/etc/network/interfaces.d";
    has(INTERFACES) || has_name(root, MORE, &|name| has(&joined(MORE, name)))
}

/// Tells whether Red Hat's or SUSE's scripts are told of an interface.
fn has_scripts(root: &dyn RootView) -> bool {
    ["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"]
        .iter()
        .any(|directory| {
            has_name(root, directory, &|name| {
                name.starts_with("ifcfg-") && name != "ifcfg-lo"
            })
        })
}

/// Leaves out the last directory where it is but another name of the one before.
fn directories<'a>(root: &dyn RootView, all: &'a [&'a str; 4]) -> impl Iterator<Item = &'a str> {
    let merged = root.is_link("/lib").unwrap_or(false);
    all.iter()
        .copied()
        .filter(move |path| !(merged && path.starts_with("/lib/")))
}

fn has_name(root: &dyn RootView, directory: &str, wanted: &dyn Fn(&str) -> bool) -> bool {
    names(root, directory).iter().any(|name| wanted(name))
}

/// Names the entries of a directory; none if it cannot be listed.
fn names(root: &dyn RootView, directory: &str) -> Vec<String> {
    let mut names = Vec::new();
    let _ = root.list(directory, &mut |name| {
        if names.len() < MAX_NAMES {
            names.push(String::from(name));
        }
    });
    names
}

/// The most entries of a directory that are looked at; Debian's largest has some 400 units.
const MAX_NAMES: usize = 4096;

fn joined(directory: &str, name: &str) -> String {
    [directory, "/", name].concat()
}

#[cfg(test)]
pub(crate) mod tests;
