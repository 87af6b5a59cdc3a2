//! The package in a Debian, whose own dpkg and generators do with it what they do with every package.

use std::env;
use std::path::PathBuf;

use lab::debian::{self, Flavour};
use lab::fetch::Lab;
use lab::package::Recipe;
use lab::package::trial::{Facts, in_debian};

use super::{Place, program, recipe};

/// What every package of ours leaves until it is purged, of what the test has laid beside it.
const STATE: [&str; 3] = [
    "etc/preroot.conf",
    "var/lib/preroot",
    "var/lib/preroot/configured",
];

/// Says, and notes, that a test needs what cannot be had here; fails where nothing may be left out.
pub(crate) fn is_left_out(why: &str) -> bool {
    // Set by whoever has found that no Debian can be made, and has said so.
    let is_known = env::var_os("PREROOT_WITHOUT_DEBIAN").is_some();
    let is_strict = ["CI", "PREROOT_STRICT"]
        .iter()
        .any(|name| env::var_os(name).is_some());
    if !is_strict {
        eprintln!("left out: {why}");
    }
    is_known || !is_strict
}

fn archive(lab: &Lab, flavour: Flavour) -> Option<PathBuf> {
    let made = debian::made(lab, flavour);
    if made.is_none() {
        let name = flavour.name();
        let why = format!("no installed Debian is there; `cargo lab fetch {name}` makes one");
        assert!(is_left_out(&why), "{why}");
    }
    made
}

/// Installs, upgrades, removes and purges; the second version has another program.
fn lead_through(flavour: Flavour, generator: Option<&str>) -> Option<Facts> {
    let lab = Lab::open().unwrap();
    let archive = archive(&lab, flavour)?;
    let place = Place::new(generator.unwrap_or("none"));
    let old = recipe(&lab).build(&lab, place.path()).unwrap();
    let mut bytes = std::fs::read(program()).unwrap();
    bytes.push(b'\n');
    let other = place.path().join("program");
    std::fs::write(&other, bytes).unwrap();
    let new = Recipe {
        program: other,
        version: "99.0".to_owned(),
        ..recipe(&lab)
    };
    let new = new.build(&lab, place.path()).unwrap();
    Some(in_debian(&lab, &archive, generator, &old, &new).unwrap())
}

/// Holds what is so whoever makes the initramfs.
fn is_clean(facts: &Facts) {
    assert_eq!(facts.of("bare", "left"), [""; 0]);
    assert_eq!(facts.of("installed", "damaged"), [""; 0]);
    assert!(facts.of("installed", "file").contains(&"/usr/bin/preroot"));
    assert_ne!(
        facts.of("installed", "installed"),
        facts.of("upgraded", "installed")
    );
    assert_eq!(facts.of("removed", "left"), STATE);
    // The file of settings is of whoever wrote it.
    assert_eq!(facts.of("purged", "left"), STATE[..1]);
    assert_eq!(
        facts.of("purged", "known"),
        ["dpkg-query: no packages found matching preroot"]
    );
}

/// Holds that the image is made anew each time, and has the program while that is installed.
fn is_in_the_image(facts: &Facts, hooks: &[&str]) {
    // Where there is no kernel yet there is nothing to make, and nothing to say.
    assert_eq!(facts.of("bare", "said"), [""; 0]);
    assert_eq!(facts.of("bare", "boot"), [""; 0]);
    for step in ["installed", "upgraded"] {
        assert_eq!(
            facts.of(step, "program"),
            facts.of(step, "installed"),
            "{step}"
        );
        let has = facts.of(step, "has");
        for name in hooks.iter().chain(&["usr/bin/preroot"]) {
            assert!(has.contains(name), "{step}: {name} is not among {has:?}");
        }
        let is_driver = |name: &&str| name.contains("/hv_netvsc.ko");
        assert!(has.iter().any(is_driver), "{step}: {has:?}");
    }
    let images = ["installed", "upgraded", "removed"].map(|step| facts.of(step, "image"));
    for (image, other) in [(0, 1), (0, 2), (1, 2)] {
        assert_ne!(images[image], images[other]);
    }
    assert_ne!(images[2], ["none"]);
    let has = facts.of("removed", "has");
    assert!(
        !has.iter().any(|name| name.contains("bin/preroot")),
        "{has:?}"
    );
    assert_eq!(facts.of("removed", "program"), [""; 0]);
}

#[test]
fn initramfs_tools_makes_its_image_anew_each_time() {
    let flavour = Flavour::WithGenerators;
    let Some(facts) = lead_through(flavour, Some("initramfs-tools")) else {
        return;
    };
    is_clean(&facts);
    let hooks = [
        "scripts/init-top/preroot",
        "scripts/local-bottom/preroot",
        "scripts/panic/preroot",
    ];
    is_in_the_image(&facts, &hooks);
}

#[test]
fn dracut_makes_its_image_anew_each_time() {
    let flavour = Flavour::WithGenerators;
    let Some(facts) = lead_through(flavour, Some("dracut")) else {
        return;
    };
    is_clean(&facts);
    let units = ["preroot", "preroot-prefetch", "preroot-failed"]
        .map(|name| format!("usr/lib/systemd/system/{name}.service"));
    is_in_the_image(&facts, &units.each_ref().map(String::as_str));
    for step in ["installed", "upgraded", "removed"] {
        let said = facts.of(step, "said");
        let is_error = |line: &&str| line.contains("ERROR") || line.contains("FATAL");
        assert!(!said.iter().any(is_error), "{step}: {said:?}");
    }
}

#[test]
fn without_a_generator_nothing_is_made_and_nothing_said() {
    let Some(facts) = lead_through(Flavour::Plain, None) else {
        return;
    };
    is_clean(&facts);
    for step in ["bare", "installed", "upgraded", "removed", "purged"] {
        assert_eq!(facts.of(step, "said"), [""; 0], "{step}");
    }
    // A systemd that runs hears of its units, and of what has to be started anew; one that does not
    // run is not asked.
    assert_eq!(facts.of("bare", "asked"), [""; 0]);
    assert_eq!(facts.of("installed", "asked"), ["--system daemon-reload"]);
    assert_eq!(
        facts.of("upgraded", "asked"),
        [
            "--system daemon-reload",
            "try-restart preroot-lease.service"
        ]
    );
    assert_eq!(
        facts.of("removed", "asked"),
        [
            "stop preroot-lease.service preroot-ready.service",
            "--system daemon-reload"
        ]
    );
}
