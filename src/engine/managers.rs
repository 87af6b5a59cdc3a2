//! Who in the root will configure the network, if anybody.
//!
//! Nothing of theirs is understood but whether they are enabled, by the rules of the init system that
//! starts them, and, where one does nothing without it, whether they are told to do anything. Not which
//! interface they mean: whoever configures any is trusted with ours. Where nobody is found, the address
//! stays in the kernel. Follows systemd.unit(5), interfaces(5), sysvinit, `OpenRC`, runit, dinit and s6-rc.

use super::plan::{Kind, RootView};
use crate::wire::accounts::{FILE_MAX, lines, words};

/// Who configures networks, what that does nothing without, and its services in any init system.
#[rustfmt::skip]
static SERVICES: [(&str, Needs, &str); 11] = [
    ("systemd-networkd", Needs::Networks, "systemd-networkd"),
    ("NetworkManager", Needs::Nothing, "NetworkManager network-manager networkmanager"),
    ("ifupdown", Needs::Interfaces, "networking"),
    ("the network script", Needs::Scripts, "network"),
    ("OpenRC", Needs::Nothing, "net ifup"),
    ("dhcpcd", Needs::Nothing, "dhcpcd dhcpcd5"),
    ("dhclient", Needs::Nothing, "dhclient"),
    ("udhcpc", Needs::Nothing, "udhcpc"),
    ("ConnMan", Needs::Nothing, "connman connmand"),
    ("wicked", Needs::Nothing, "wicked wickedd"),
    ("netctl", Needs::Nothing, "netctl"),
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

/// Where services are that are started, and how they are named there.
static PLACES: [(Names, &str); 4] = [
    (
        Names::Units,
        "/etc/systemd/system /usr/lib/systemd/system /lib/systemd/system \
         /usr/local/lib/systemd/system",
    ),
    (
        Names::Ordered,
        "/etc/rcS.d /etc/rc2.d /etc/rc3.d /etc/rc5.d /etc/rc.d/rc3.d /etc/rc.d/rc5.d \
         /etc/init.d/rc3.d /etc/init.d",
    ),
    (Names::Levels, "/etc/runlevels"),
    (
        Names::Kept,
        "/etc/service /service /var/service /etc/runit/runsvdir/default \
         /etc/runit/runsvdir/current /etc/dinit.d/boot.d /etc/s6/adminsv/default/contents.d",
    ),
];

/// How services are named in a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// As units, in the `.wants` and `.requires` of systemd.
    Units,
    /// `S10NAME`, as sysvinit and others start them in their order.
    Ordered,
    /// By themselves, or with an interface behind a dot, in a directory for each runlevel of `OpenRC`.
    Levels,
    /// By themselves, or with an interface behind a dash, as runit, dinit and s6-rc keep them running.
    Kept,
}

/// Where networkd has networks, and how the names begin of those that come with it.
const NETWORKS: &str = "/etc/systemd/network /usr/lib/systemd/network /lib/systemd/network \
                        /usr/local/lib/systemd/network";
const OWN_NETWORKS: &str = "80-6rd- 80-container- 80-namespace- 80-vm- 80-wifi-";
const INTERFACES: &str = "/etc/network/interfaces";
const MORE_INTERFACES: &str = "/etc/network/interfaces.d";

/// Names who in the root configures the network.
///
/// What cannot be looked at counts as not there: that a manager's files are damaged does not make it work.
pub fn find(root: &dyn RootView) -> Option<&'static str> {
    let netplan = || has_netplan(root).then_some("netplan");
    find_service(root, &|name| service(root, name)).or_else(netplan)
}

/// Tells whether systemd-resolved will answer the root's questions.
pub fn has_resolved(root: &dyn RootView) -> bool {
    let is_resolved = |name: &str| (name == "systemd-resolved").then_some("");
    find_service(root, &is_resolved).is_some()
}

/// Tells who the service of this name is, if it is one that configures the network here.
fn service(root: &dyn RootView, name: &str) -> Option<&'static str> {
    let (who, needs, _) = SERVICES
        .iter()
        .find(|(.., names)| names.split(' ').any(|known| known == name))?;
    let acts = match needs {
        Needs::Nothing => true,
        Needs::Networks => has_networks(root),
        Needs::Interfaces => has_interfaces(root),
        Needs::Scripts => has_interfaces(root) || has_scripts(root),
    };
    acts.then_some(who)
}

/// Looks for a service that is started.
fn find_service(
    root: &dyn RootView,
    who: &dyn Fn(&str) -> Option<&'static str>,
) -> Option<&'static str> {
    for (names, directories) in &PLACES {
        for directory in directories.split(' ') {
            let mut found = None;
            let mut look = |directory: &str, entry: &str| {
                if found.is_none() {
                    found = name_of(*names, entry)
                        .and_then(|name| {
                            let short = name.split_once('-').filter(|_| *names == Names::Kept);
                            who(name).or_else(|| who(short?.0))
                        })
                        .filter(|_| !is_off(root, directory, entry));
                }
            };
            let _ = root.list(directory, &mut |entry| match names {
                Names::Ordered | Names::Kept => look(directory, entry),
                Names::Units | Names::Levels => {
                    if is_started(entry, *names) {
                        let inner = [directory, "/", entry].concat();
                        let _ = root.list(&inner, &mut |entry| look(&inner, entry));
                    }
                }
            });
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// Tells whether what a directory holds is started on an ordinary boot.
fn is_started(directory: &str, names: Names) -> bool {
    // Of systemd, not what is for the initramfs or for a machine in trouble.
    match directory.rsplit_once('.') {
        Some((target, "wants" | "requires")) if names == Names::Units => {
            !["initrd", "emergency", "rescue"]
                .iter()
                .any(|other| target.starts_with(other))
        }
        _ => names == Names::Levels && !matches!(directory, "nonetwork" | "shutdown"),
    }
}

/// Takes the service's name from that of an entry.
fn name_of(names: Names, entry: &str) -> Option<&str> {
    match (names, entry.as_bytes()) {
        (Names::Units, _) => match entry.rsplit_once('.')? {
            (name, "service" | "socket") => name.split('@').next(),
            _ => None,
        },
        (Names::Ordered, [b'S', b'0'..=b'9', b'0'..=b'9', ..]) => entry.get(3..),
        (Names::Ordered, _) => None,
        (Names::Levels, _) if entry == "net.lo" => None,
        (Names::Levels, _) => entry.split('.').next(),
        (Names::Kept, _) => Some(entry),
    }
}

/// Tells whether something keeps a service from being started: systemd's mask, which is a link to
/// `/dev/null` or an empty file and holds for sysvinit's scripts, too, or runit's file `down`.
fn is_off(root: &dyn RootView, directory: &str, entry: &str) -> bool {
    let masked = |unit: &str| {
        let path = ["/etc/systemd/system/", unit, ".service"].concat();
        match root.stat(&path) {
            Ok(Some(stat)) => stat.kind != Kind::File || stat.size == 0,
            // `/dev` is another file system, which is not there.
            _ => root.is_link(&path).unwrap_or(false),
        }
    };
    let unit = entry.rsplit_once('.').map_or(entry, |(unit, _)| unit);
    let unit = name_of(Names::Ordered, entry).unwrap_or(unit);
    masked(unit)
        || unit.split('@').next().is_some_and(masked)
        || has(root, &[directory, "/", entry, "/down"].concat())
}

/// Tells whether there is a netplan, which tells others what to do while the machine starts.
fn has_netplan(root: &dyn RootView) -> bool {
    (has(root, "/usr/sbin/netplan") || has(root, "/usr/libexec/netplan/generate"))
        && has_name(
            root,
            "/etc/netplan /usr/lib/netplan /lib/netplan",
            &|name| matches!(name.rsplit_once('.'), Some((_, "yaml"))),
        )
}

/// Tells whether networkd is told of any network but those of containers and the like.
fn has_networks(root: &dyn RootView) -> bool {
    has_name(root, NETWORKS, &|name| {
        matches!(name.rsplit_once('.'), Some((_, "network")))
            && !OWN_NETWORKS.split(' ').any(|own| name.starts_with(own))
    }) || has_netplan(root)
}

/// Tells whether `interfaces` has an interface to be set up that is not the loopback.
fn has_interfaces(root: &dyn RootView) -> bool {
    let has = |path: &str| {
        let file = root.read(path, FILE_MAX).ok().flatten().unwrap_or_default();
        lines(&file).any(|line| {
            let mut words = words(line);
            let word = words.next();
            matches!(word, Some(b"auto" | b"allow-auto" | b"allow-hotplug"))
                && words.any(|name| name != b"lo")
        })
    };
    has(INTERFACES)
        || has_name(root, MORE_INTERFACES, &|name| {
            has(&[MORE_INTERFACES, "/", name].concat())
        })
}

/// Tells whether Red Hat's or SUSE's scripts are told of an interface.
fn has_scripts(root: &dyn RootView) -> bool {
    let places = "/etc/sysconfig/network-scripts /etc/sysconfig/network";
    has_name(root, places, &|name| {
        name.starts_with("ifcfg-") && name != "ifcfg-lo"
    })
}

fn has(root: &dyn RootView, path: &str) -> bool {
    matches!(root.stat(path), Ok(Some(_)))
}

/// Tells whether one of these directories has such an entry.
fn has_name(root: &dyn RootView, directories: &str, wanted: &dyn Fn(&str) -> bool) -> bool {
    let mut found = false;
    for directory in directories.split(' ') {
        let _ = root.list(directory, &mut |name| found = found || wanted(name));
    }
    found
}

#[cfg(test)]
pub(crate) mod tests;
