//! What the units say, compared with what they must say; that systemd makes of it what is meant is shown
//! by whole boots.

use std::collections::BTreeMap;
use std::fs;

use lab::fetch::Lab;

/// The units of the initramfs, and those of the running system.
const INITRAMFS: [&str; 3] = ["preroot-prefetch", "preroot", "preroot-failed"];
const RUNNING: [&str; 2] = ["preroot-ready", "preroot-lease"];

/// A unit's settings, of all its sections, each with the values it has.
struct Unit(BTreeMap<String, Vec<String>>);

impl Unit {
    fn read(name: &str) -> Self {
        let path = Lab::open()
            .unwrap()
            .project()
            .join("initramfs/systemd")
            .join(format!("{name}.service"));
        let mut settings: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in fs::read_to_string(path).unwrap().lines() {
            if line.is_empty() || line.starts_with(['#', '[']) {
                continue;
            }
            let (key, value) = line.split_once('=').unwrap();
            let values = settings.entry(key.to_owned()).or_default();
            values.push(value.to_owned());
        }
        Self(settings)
    }

    /// Gives the values of a setting that is not a list.
    fn values(&self, key: &str) -> Vec<&str> {
        let values = self.0.get(key).into_iter().flatten();
        values.map(String::as_str).collect()
    }

    /// Says whether a setting that is a list has this word.
    fn lists(&self, key: &str, word: &str) -> bool {
        let values = self.values(key);
        values
            .iter()
            .flat_map(|value| value.split_whitespace())
            .any(|listed| listed == word)
    }
}

#[test]
fn no_unit_is_failed_where_there_is_no_azure() {
    for name in INITRAMFS.iter().chain(&RUNNING) {
        assert!(Unit::read(name).lists("SuccessExitStatus", "99"), "{name}");
    }
}

#[test]
fn units_of_the_initramfs_do_nothing_in_the_running_system() {
    for name in INITRAMFS {
        let unit = Unit::read(name);
        let conditions = unit.values("ConditionPathExists");
        assert!(conditions.contains(&"/etc/initrd-release"), "{name}");
        assert!(conditions.contains(&"!/proc/vmcore"), "{name}");
        assert_eq!(unit.values("DefaultDependencies"), ["no"], "{name}");
    }
}

/// systemd carries what failed over to the running system, which would be degraded for good.
#[test]
fn failure_in_the_initramfs_is_forgotten_in_the_running_system() {
    for name in INITRAMFS {
        let unit = Unit::read(name);
        assert_eq!(unit.values("CollectMode"), ["inactive-or-failed"], "{name}");
    }
}

#[test]
fn no_unit_of_the_initramfs_outlives_it() {
    for name in INITRAMFS {
        let unit = Unit::read(name);
        for target in ["initrd-switch-root.target", "shutdown.target"] {
            assert!(unit.lists("Conflicts", target), "{name}: {target}");
            // Without an order it would be stopped at the same time as the switch is made.
            assert!(unit.lists("Before", target), "{name}: {target}");
        }
    }
}

#[test]
fn root_is_not_switched_to_before_it_is_written() {
    let unit = Unit::read("preroot");
    assert_eq!(unit.values("Type"), ["oneshot"]);
    assert!(unit.lists("WantedBy", "initrd.target"));
    for later in [
        "initrd.target",
        "initrd-cleanup.service",
        "initrd-switch-root.service",
    ] {
        assert!(unit.lists("Before", later), "{later}");
    }
    // /usr and what fstab wants in the initramfs come behind initrd-parse-etc.service.
    for earlier in ["initrd-root-fs.target", "initrd-fs.target"] {
        assert!(unit.lists("After", earlier), "{earlier}");
        assert!(unit.lists("Requires", earlier), "{earlier}");
    }
    assert_eq!(unit.values("ConditionPathIsMountPoint"), ["/sysroot"]);
}

/// The program ends at 1200 s by itself, and says why.
#[test]
fn systemd_is_more_patient_than_the_program() {
    let limit = |name: &str| -> u32 {
        let unit = Unit::read(name);
        unit.values("TimeoutStartSec")[0].parse().unwrap()
    };
    assert!(limit("preroot") > 1200);
    assert!(limit("preroot-failed") > 60);
}

/// The prefetch ends only when the writing has begun: who waits for its end waits for ever.
#[test]
fn nothing_waits_for_the_end_of_the_prefetch() {
    let unit = Unit::read("preroot-prefetch");
    assert_eq!(unit.values("Type"), ["exec"]);
    for target in ["initrd.target", "basic.target", "sysinit.target"] {
        assert!(!unit.lists("Before", target), "{target}");
    }
}

#[test]
fn failure_is_told_before_a_shell_opens() {
    let unit = Unit::read("preroot-failed");
    for (shell, wanting) in [
        ("emergency.service", "emergency.target"),
        ("dracut-emergency.service", "dracut-emergency.service"),
    ] {
        assert!(unit.lists("Before", shell), "{shell}");
        assert!(unit.lists("WantedBy", wanting), "{wanting}");
    }
}

/// Nothing of ours may hold up a boot that has nothing to report.
#[test]
fn units_of_the_running_system_pull_in_no_waiting() {
    for name in RUNNING {
        let unit = Unit::read(name);
        for key in ["Wants", "Requires"] {
            assert!(!unit.lists(key, "network-online.target"), "{name}");
        }
        assert_eq!(unit.values("Type"), ["exec"], "{name}");
        assert!(
            unit.values("ConditionPathExists")[0].starts_with("/run/preroot/"),
            "{name}"
        );
    }
}

/// systemd cannot look into what openat2 is given, so it has it answer ENOSYS.
#[test]
fn hardening_leaves_the_program_its_system_calls() {
    for name in RUNNING {
        let unit = Unit::read(name);
        assert_eq!(unit.values("RestrictSUIDSGID"), [""; 0], "{name}");
        assert_eq!(unit.values("SystemCallFilter"), [""; 0], "{name}");
        assert!(unit.lists("DeviceAllow", "/dev/kmsg"), "{name}");
    }
}

/// The kernel lets nobody else bind a port that low, and DHCP clients have 68.
#[test]
fn lease_may_do_what_a_dhcp_client_does() {
    let unit = Unit::read("preroot-lease");
    for capability in ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"] {
        assert!(
            unit.lists("CapabilityBoundingSet", capability),
            "{capability}"
        );
    }
    for family in ["AF_INET", "AF_NETLINK", "AF_PACKET", "AF_UNIX"] {
        assert!(unit.lists("RestrictAddressFamilies", family), "{family}");
    }
}
