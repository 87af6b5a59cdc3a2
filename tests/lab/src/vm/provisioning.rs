//! Promises about the disc and what is made of it.

use std::fs;
use std::path::PathBuf;

use super::scene::{Broken, Scene, Seen};
use super::snapshot::{self, Snapshot};
use crate::arch::Arch;
use crate::boot::{DOCUMENT, Disc, Options};
use crate::disc::Builder;
use crate::fault::Fault;

/// The most lines that a boot without trouble may write.
const LINES: usize = 20;

/// The sectors of a disc.
const SECTOR: usize = 2048;

/// Where the partition of a UDF disc begins: behind the anchor, which has a fixed place.
const PARTITION: usize = 257;

/// A password that stands nowhere else.
const PASSWORD: &str = "Plain-6f1c0e-Words";

pub(super) fn ready_with_identity(scene: &Scene) -> Result<(), Broken> {
    let usual = scene.usual()?;
    usual.expect(usual.failed.is_none(), || {
        usual.failed.clone().unwrap_or_default()
    })?;
    let lines = usual.said.len();
    usual.expect((1..=LINES).contains(&lines), || {
        format!("{lines} lines on the console, not 1 to {LINES}")
    })
}

pub(super) fn aarch64_ready_with_identity(_: &Scene) -> Result<(), Broken> {
    Seen::of(&Options {
        arch: Arch::Aarch64,
        ..Options::default()
    })?
    .passed()
}

pub(super) fn without_udf_and_isofs_modules(scene: &Scene) -> Result<(), Broken> {
    let seen = Seen::of(&Options {
        initramfs: None,
        without: vec!["udf".to_owned(), "isofs".to_owned()],
        ..scene.options(&[])
    })?;
    seen.passed()?;
    seen.same_files(scene, &*scene.usual()?)
}

pub(super) fn kernel_mount_gives_the_same(scene: &Scene) -> Result<(), Broken> {
    let seen = Seen::of(&scene.options(&["preroot.disc-reader=kernel"]))?;
    seen.says("mounted by the kernel")?;
    seen.passed()?;
    seen.same_files(scene, &*scene.usual()?)
}

pub(super) fn second_boot_changes_nothing(scene: &Scene) -> Result<(), Broken> {
    let usual = scene.usual()?;
    let before = snapshot::take(&scene.lab, &usual.root_disk)?;
    let boot = |append: &[&str]| {
        Seen::of(&Options {
            root_disk: Some(usual.root_disk.clone()),
            // The platform takes the disc away at a reboot, and we have ejected it before.
            disc: Disc::Empty,
            ..scene.options(append)
        })
    };
    // Nobody in this root configures the network, so the lease is kept on each boot.
    let seen = boot(&[])?;
    unchanged(scene, &seen, &before)?;
    seen.untold()?;
    seen.says("network kept nic=eth0 ip=10.0.0.4/24 routes=3")?;
    let routes: Vec<_> = seen.0.words.lines("route").collect();
    let default = routes
        .iter()
        .any(|route| route.starts_with("default via 10.0.0.1 dev eth0"));
    seen.expect(default, || format!("routes: {}", routes.join(", ")))?;
    let seen = boot(&["preroot.network=release"])?;
    unchanged(scene, &seen, &before)?;
    seen.silent()
}

/// The root disk is as it was, and nobody had anything to do.
fn unchanged(scene: &Scene, seen: &Seen, before: &Snapshot) -> Result<(), Broken> {
    seen.went_on()?;
    seen.says("nothing to do")?;
    seen.fact("hostname", "vm-desk01")?;
    let after = snapshot::take(&scene.lab, &seen.0.root_disk)?;
    let changed = snapshot::differences(before, &after);
    seen.expect(changed.is_empty(), || {
        format!("changed on the root disk:\n{changed}")
    })
}

pub(super) fn disc_unreadable(scene: &Scene) -> Result<(), Broken> {
    broken_disc(
        scene,
        "zeros",
        &vec![0; 600 * SECTOR],
        "failure to read the provisioning disc",
    )
}

pub(super) fn disc_damaged(scene: &Scene) -> Result<(), Broken> {
    let mut disc = Builder::new().file("ovf-env.xml", DOCUMENT).build();
    // What says that there is a volume stays; what is in it goes.
    let end = disc.len() - SECTOR;
    disc[PARTITION * SECTOR..end].fill(0);
    broken_disc(
        scene,
        "damaged",
        &disc,
        "failure to read the provisioning disc",
    )
}

pub(super) fn document_damaged(scene: &Scene) -> Result<(), Broken> {
    let (half, _) = DOCUMENT.split_at(DOCUMENT.find("</wa:ProvisioningSection>").unwrap_or(0));
    let disc = Builder::new().file("ovf-env.xml", half).build();
    broken_disc(scene, "half", &disc, "ovf-env.xml")
}

/// Boots with a disc that gives no identity: said on the console, told to the platform, and no more.
fn broken_disc(scene: &Scene, name: &str, sectors: &[u8], words: &str) -> Result<(), Broken> {
    let seen = Seen::of(&Options {
        disc: Disc::Image(written(scene, name, sectors)?),
        ..scene.options(&[])
    })?;
    seen.went_on()?;
    seen.says("failed: ")?;
    seen.says(words)?;
    seen.failure_told(words)?;
    seen.untouched_files(scene)
}

pub(super) fn no_disc(scene: &Scene) -> Result<(), Broken> {
    let seen = Seen::of(&Options {
        disc: Disc::Empty,
        ..scene.options(&[])
    })?;
    seen.went_on()?;
    seen.says("disc absent")?;
    seen.ready()?;
    seen.fact("hostname", "localhost")?;
    seen.has_file("/etc/sudoers.d/preroot", false)
}

pub(super) fn password_is_nowhere_in_plain(scene: &Scene) -> Result<(), Broken> {
    let user = "<UserName>deskadmin</UserName>";
    let with_password = DOCUMENT
        .replace(
            user,
            &format!("{user}<UserPassword>{PASSWORD}</UserPassword>"),
        )
        .replace(
            "<DisableSshPasswordAuthentication>true<",
            "<DisableSshPasswordAuthentication>false<",
        );
    let document = written(scene, "password.xml", with_password.as_bytes())?;
    let seen = Seen::of(&Options {
        document: Some(document),
        ..scene.options(&[])
    })?;
    seen.passed()?;
    // The init shows no more of a hash than how it begins.
    seen.fact("password", "$")?;
    let disk = fs::read(&seen.0.root_disk).map_err(Fault::file("read", &seen.0.root_disk))?;
    seen.expect(!holds_password(&disk), || {
        "the password is on the root disk".to_owned()
    })?;
    seen.expect(!holds_password(seen.0.console.as_bytes()), || {
        "the password is on the console".to_owned()
    })?;
    let journal = seen.journal().join("\n");
    seen.expect(!holds_password(journal.as_bytes()), || {
        "the password was sent to the platform".to_owned()
    })
}

/// Looks for the password; what is empty, most of a disk, is passed over quickly.
fn holds_password(bytes: &[u8]) -> bool {
    const BLOCK: usize = 4096;
    (0..bytes.len()).step_by(BLOCK).any(|start| {
        let block = &bytes[start..bytes.len().min(start + BLOCK)];
        if *block == [0; BLOCK] {
            return false;
        }
        // It may begin in one block and end in the next.
        let end = bytes.len().min(start + BLOCK + PASSWORD.len());
        bytes[start..end]
            .windows(PASSWORD.len())
            .any(|part| part == PASSWORD.as_bytes())
    })
}

/// Writes a file for a boot.
fn written(scene: &Scene, name: &str, content: &[u8]) -> Result<PathBuf, Fault> {
    let path = scene.directory.join(name);
    fs::write(&path, content).map_err(Fault::file("write", &path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_found_wherever_it_stands() {
        for at in [0, 1, 4090, 4096, 8191, 20_000 - PASSWORD.len()] {
            let mut bytes = vec![0; 20_000];
            assert!(!holds_password(&bytes));
            bytes[at..at + PASSWORD.len()].copy_from_slice(PASSWORD.as_bytes());
            assert!(holds_password(&bytes), "{at}");
        }
    }

    #[test]
    fn document_has_the_places_that_are_changed() {
        for place in [
            "<UserName>deskadmin</UserName>",
            "<DisableSshPasswordAuthentication>true<",
            "</wa:ProvisioningSection>",
        ] {
            assert!(DOCUMENT.contains(place), "{place}");
        }
    }
}
