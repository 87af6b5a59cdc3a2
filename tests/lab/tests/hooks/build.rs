//! What the build hooks put into an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lab::fetch::Lab;

use super::{MODULES, Place, data, expected_modules, names};

const UNITS: &str = "usr/lib/systemd/system";

/// An image that a hook has built, or tried to.
struct Image {
    tree: PathBuf,
    output: Output,
    _place: Place,
}

impl Image {
    fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Fails unless the hook was content.
    fn accepted(self) -> Self {
        assert!(self.output.status.success(), "{}", self.said());
        assert_eq!(self.said(), "");
        self
    }

    fn has(&self, path: &str) -> bool {
        // A link that leads nowhere is not there.
        fs::metadata(self.tree.join(path)).is_ok()
    }
}

/// Fails unless the links start the units of an initramfs with systemd.
fn starts_its_units(image: &Image) {
    let wants = |unit: &str| names(&image.tree.join(UNITS).join(format!("{unit}.wants")));
    let of = |unit: &str| wants(unit).into_iter().collect::<Vec<_>>();
    assert_eq!(
        of("initrd.target"),
        ["preroot-prefetch.service", "preroot.service"]
    );
    assert_eq!(of("emergency.target"), ["preroot-failed.service"]);
    for (target, unit) in [
        ("initrd.target", "preroot-prefetch.service"),
        ("initrd.target", "preroot.service"),
        ("emergency.target", "preroot-failed.service"),
    ] {
        let link = format!("{UNITS}/{target}.wants/{unit}");
        assert!(image.has(&link), "{link} leads nowhere");
        // An absolute one would lead out of the image where it is looked at from outside.
        let to = fs::read_link(image.tree.join(&link)).unwrap();
        assert!(to.is_relative(), "{}", to.display());
    }
}

fn mkinitcpio(name: &str, systemd: bool, kernel: &[&str], settings: bool) -> Image {
    let lab = Lab::open().unwrap();
    let place = Place::new(name);
    let system = place.system(&lab, settings);
    let tree = place.0.join("image");
    fs::create_dir(&tree).unwrap();
    let mut command = lab.tool("bash").unwrap().command();
    command
        .arg(data(&lab, "mkinitcpio.sh"))
        .arg(system.join("usr/lib/initcpio/install/preroot"))
        .env("HOOKS", system.join("usr/lib/initcpio/hooks"))
        .env("SYSTEM", &system)
        .env("BUILDROOT", &tree)
        .env("MODULES", kernel.join(" "));
    if systemd {
        command.arg("systemd");
    }
    let output = command.output().unwrap();
    Image {
        tree,
        output,
        _place: place,
    }
}

#[test]
fn mkinitcpio_with_busybox_gets_the_runtime_hook() {
    let image = mkinitcpio("busybox", false, &MODULES, false).accepted();
    assert!(image.has("usr/bin/preroot") && image.has("hooks/preroot"));
    let functions = fs::read_to_string(image.tree.join("functions")).unwrap();
    assert_eq!(
        functions.lines().collect::<Vec<_>>(),
        ["run_hook", "run_latehook", "run_emergencyhook"]
    );
    assert!(!image.has(UNITS), "units are of no use without systemd");
}

#[test]
fn mkinitcpio_with_systemd_gets_units_that_start() {
    let image = mkinitcpio("systemd", true, &MODULES, false).accepted();
    assert!(image.has("usr/bin/preroot") && !image.has("hooks/preroot"));
    starts_its_units(&image);
    for unit in ["initrd-root-fs.target", "initrd-fs.target"] {
        assert!(image.has(&format!("{UNITS}/{unit}")), "{unit}");
    }
}

#[test]
fn mkinitcpio_says_that_units_are_missing() {
    let lab = Lab::open().unwrap();
    let place = Place::new("no-units");
    let system = place.system(&lab, false);
    fs::remove_file(system.join(UNITS).join("preroot.service")).unwrap();
    let output = lab
        .tool("bash")
        .unwrap()
        .command()
        .arg(data(&lab, "mkinitcpio.sh"))
        .arg(system.join("usr/lib/initcpio/install/preroot"))
        .arg("systemd")
        .env("SYSTEM", &system)
        .env("BUILDROOT", place.0.join("image"))
        .env("MODULES", "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("units of preroot"), "{said}");
}

#[test]
fn mkinitcpio_help_fits_a_terminal() {
    let image = mkinitcpio("help", false, &[], false).accepted();
    let help = fs::read_to_string(image.tree.join("help")).unwrap();
    assert!(help.contains("'systemd'") && help.lines().all(|line| line.len() <= 80));
}

fn dracut(name: &str, included: &str, variables: &[(&str, &str)]) -> Image {
    let lab = Lab::open().unwrap();
    let place = Place::new(name);
    let system = place.system(&lab, variables.contains(&("settings", "yes")));
    if variables.contains(&("units", "no")) {
        fs::remove_file(system.join(UNITS).join("preroot.service")).unwrap();
    }
    if variables.contains(&("program", "no")) {
        fs::remove_file(system.join("usr/bin/preroot")).unwrap();
    }
    let tree = place.0.join("image");
    fs::create_dir(&tree).unwrap();
    let output = lab
        .tool("bash")
        .unwrap()
        .command()
        .arg(data(&lab, "dracut.sh"))
        .arg(system.join("usr/lib/dracut/modules.d/55preroot"))
        .env("SYSTEM", &system)
        .env("initdir", &tree)
        .env("MODULES", MODULES.join(" "))
        .env("INCLUDED", included)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    Image {
        tree,
        output,
        _place: place,
    }
}

#[test]
fn dracut_without_systemd_gets_hooks() {
    let image = dracut("d-hooks", "base", &[]).accepted();
    for hook in [
        "hooks/pre-trigger/60-preroot-prefetch.sh",
        "hooks/pre-pivot/60-preroot-provision.sh",
        "hooks/emergency/99-preroot-failed.sh",
        "usr/bin/preroot",
    ] {
        assert!(image.has(hook), "{hook}");
    }
    assert!(!image.has(UNITS));
}

#[test]
fn dracut_with_systemd_gets_units_that_start() {
    let image = dracut("d-units", "base systemd", &[]).accepted();
    starts_its_units(&image);
    let own = format!("{UNITS}/dracut-emergency.service.wants/preroot-failed.service");
    assert!(image.has(&own));
    assert!(!image.has("hooks"));
}

#[test]
fn dracut_stops_when_units_are_missing() {
    let image = dracut("d-no-units", "systemd", &[("units", "no")]);
    assert_eq!(image.output.status.code(), Some(1));
    assert!(image.said().contains("preroot.service is missing"));
}

#[test]
fn dracut_needs_no_module_that_only_some_versions_have() {
    let image = dracut("d-depends", "", &[]).accepted();
    let depends = fs::read_to_string(image.tree.join("depends")).unwrap();
    assert_eq!(depends, "base\n");
}

#[test]
fn dracut_leaves_images_alone_that_save_a_crash() {
    for variable in [
        ("IN_KDUMP", "1"),
        ("add_dracutmodules", " kdump "),
        ("dracutmodules", "base kdumpbase"),
        ("force_add_dracutmodules", "kdump"),
        ("mount_needs", "1"),
        ("program", "no"),
    ] {
        let image = dracut("d-kdump", "systemd", &[variable]);
        assert_eq!(image.output.status.code(), Some(1), "{variable:?}");
        assert_eq!(names(&image.tree).len(), 0, "{variable:?}");
    }
    // It is Fedora's module of ordinary images.
    dracut("d-early", "", &[("add_dracutmodules", "earlykdump")]).accepted();
}

/// Runs the hook of initramfs-tools below the root of the system, as it names its files there.
fn initramfs_tools(name: &str, kernel: &[&str], settings: bool) -> Option<Image> {
    let lab = Lab::open().unwrap();
    let place = Place::new(name);
    let system = place.system(&lab, settings);
    let functions = system.join("usr/share/initramfs-tools/hook-functions");
    fs::copy(data(&lab, "initramfs-tools.sh"), functions).unwrap();
    fs::create_dir(system.join("image")).unwrap();
    let output = super::initramfs::below(
        &lab,
        &system,
        &["sh", "/usr/share/initramfs-tools/hooks/preroot"],
        &[("DESTDIR", "/image"), ("MODULES", &kernel.join(" "))],
    )?;
    Some(Image {
        tree: system.join("image"),
        output,
        _place: place,
    })
}

#[test]
fn initramfs_tools_gets_the_program() {
    let Some(image) = initramfs_tools("it", &MODULES, false) else {
        return;
    };
    assert!(image.accepted().has("usr/bin/preroot"));
}

#[test]
fn scripts_of_initramfs_tools_name_what_they_come_behind() {
    let lab = Lab::open().unwrap();
    let place = Place::new("it-prereqs");
    let system = place.system(&lab, false);
    for (script, expected) in [
        ("hooks/preroot", "\n"),
        ("scripts/init-top/preroot", "udev\n"),
        ("scripts/local-bottom/preroot", "\n"),
        ("scripts/panic/preroot", "\n"),
    ] {
        // What asks runs them as programs.
        let path = system.join("usr/share/initramfs-tools").join(script);
        let output = Command::new(path).arg("prereqs").output().unwrap();
        assert!(output.status.success(), "{script}");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{script}"
        );
    }
}

/// Builds with every generator that can be had here.
fn with_each(name: &str, kernel: &[&str], settings: bool, look: impl Fn(&str, &Path)) {
    let given = if settings { "yes" } else { "no" };
    let image = mkinitcpio(&format!("{name}-m"), false, kernel, settings).accepted();
    look("mkinitcpio", &image.tree);
    let variables = [("MODULES", &*kernel.join(" ")), ("settings", given)];
    let image = dracut(&format!("{name}-d"), "", &variables).accepted();
    look("dracut", &image.tree);
    if let Some(image) = initramfs_tools(&format!("{name}-i"), kernel, settings) {
        look("initramfs-tools", &image.accepted().tree);
    }
}

#[test]
fn every_generator_takes_the_same_modules() {
    with_each("all", &MODULES, false, |generator, tree| {
        let taken = names(&tree.join("modules"));
        assert_eq!(taken, expected_modules(&MODULES), "{generator}");
    });
}

#[test]
fn module_that_is_built_in_or_missing_is_no_error() {
    let few = ["hv_vmbus", "hv_netvsc", "sr_mod"];
    with_each("few", &few, false, |generator, tree| {
        let taken = names(&tree.join("modules"));
        assert_eq!(taken, expected_modules(&few), "{generator}");
    });
    with_each("none", &[], false, |generator, tree| {
        assert_eq!(names(&tree.join("modules")).len(), 0, "{generator}");
    });
}

#[test]
fn settings_of_the_host_are_taken_along_if_there_are_any() {
    for settings in [false, true] {
        with_each("conf", &[], settings, |generator, tree| {
            let taken = fs::read_to_string(tree.join("etc/preroot.conf"));
            assert_eq!(taken.is_ok(), settings, "{generator}");
            assert!(taken.is_err() || taken.unwrap() == "timeout = 900\n");
        });
    }
}
