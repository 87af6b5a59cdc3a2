//! The mkinitcpio of this system, where it has one: it builds an image with the hook, in both flavours.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use lab::fetch::Lab;

use super::{Place, data};

#[test]
fn mkinitcpio_of_this_system_takes_the_hook() {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join("mkinitcpio").is_file())
    });
    if !found {
        // It is packaged for Arch and its like alone: nothing could fetch it.
        let _ = writeln!(
            io::stderr(),
            "skipped: mkinitcpio_of_this_system_takes_the_hook: there is no mkinitcpio in PATH"
        );
        return;
    }
    for (flavour, hooks, expected) in [
        (
            "busybox",
            "base udev preroot",
            ["hooks/preroot", "usr/bin/preroot"],
        ),
        (
            "systemd",
            "base systemd preroot",
            [
                "usr/lib/systemd/system/initrd.target.wants/preroot.service",
                "usr/bin/preroot",
            ],
        ),
    ] {
        let image = build(flavour, hooks);
        for path in expected {
            assert!(image.lines().any(|line| line == path), "{flavour}: {path}");
        }
    }
}

/// Builds an image without a kernel in a view of this system that has preroot, and lists it.
fn build(flavour: &str, hooks: &str) -> String {
    let lab = Lab::open().unwrap();
    let place = Place::new(&format!("real-{flavour}"));
    let system = place.system(&lab, false);
    for target in ["initrd-root-fs.target", "initrd-fs.target"] {
        fs::remove_file(system.join("usr/lib/systemd/system").join(target)).unwrap();
    }
    let configuration = place.0.join("mkinitcpio.conf");
    fs::write(
        &configuration,
        format!("HOOKS=({hooks})\nCOMPRESSION=cat\n"),
    )
    .unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh"])
        .arg(data(&lab, "mkinitcpio-real.sh"))
        .args([&*place.0, &system, &configuration].map(Path::as_os_str))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flavour}: {said}");
    for line in said.lines().filter(|line| line.contains("ERROR")) {
        assert!(!line.contains("preroot"), "{flavour}: {line}");
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}
