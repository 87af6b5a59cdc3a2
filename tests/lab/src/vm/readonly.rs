//! Promises about a Debian whose root cannot be written to: it is provisioned anew on every boot, and
//! its disk stays as it was, to the last byte.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::guest::{Desk, Guest, HOST_NAME, KEY, USER};
use super::login::ASKED;
use super::scene::{Broken, Scene, Seen};
use super::visit::{Errand, LIMIT, Visit};
use crate::arch::Arch;
use crate::boot::{Disc, Options};
use crate::debian::{self, Flavour};
use crate::distro::Initramfs;
use crate::fault::Fault;

/// How the kernel finds a squashfs, and what has the initramfs lay a file system in memory over it.
const SQUASHFS: [&str; 3] = [
    "root=/dev/vda",
    "rootfstype=squashfs",
    "systemd.volatile=overlay",
];

const PASSWORD: &str = "Plain-2b7d51&Words";

/// Where the user comes to, and what is there.
const HOME: &str = "/home/deskadmin
deskadmin:deskadmin 700
deskadmin:deskadmin 700
deskadmin:deskadmin 600";

/// How much of two disks is compared at a time.
const CHUNK: u64 = 1 << 20;

/// How the real root is mounted then.
const OVERLAY: &str = "overlay / overlay ";

pub(super) fn squashfs_under_an_overlay(scene: &Scene) -> Result<(), Broken> {
    let distro = scene.distro()?;
    let desk = Desk::set(&scene.lab, &scene.directory.join("squashfs"))?;
    let desk = Arc::new(desk);
    let document = desk.written("document.xml", desk.document().build().as_bytes())?;
    let options = |disc| {
        let mut append = vec!["systemd.show_status=0"];
        append.extend(SQUASHFS);
        Options {
            initramfs: Some(distro.initramfs(Initramfs::DracutSystemd)),
            root_disk: Some(distro.squashfs()),
            disc,
            document: Some(document.clone()),
            writable: false,
            time_limit: LIMIT,
            ..scene.options(&append)
        }
    };
    let visit = Visit::pay(&desk, Errand::First, options(Disc::Made))?;
    visit.seen.became_ready()?;
    visit.only("failed", "units failed", |_| false)?;
    visit.fact("state", "running")?;
    visit.fact("static_hostname", HOST_NAME)?;
    visit.fact("hostname", HOST_NAME)?;
    visit.only("process", "left behind", |process| {
        !process.contains("preroot") && !process.contains("(deleted)")
    })?;
    let mut mounts = visit.words.lines("mounts");
    let is_laid_over = mounts.any(|mount| mount.starts_with(OVERLAY));
    visit
        .seen
        .expect(is_laid_over, || "the root is no overlay".to_owned())?;
    wrote_nothing(&visit.seen, &distro.squashfs())
}

pub(super) fn ext4_by_credentials(scene: &Scene) -> Result<(), Broken> {
    let image = debian::disk(&scene.lab, Flavour::ReadOnly, Arch::X86_64)?;
    let desk = Desk::set(&scene.lab, &scene.directory.join("credentials"))?;
    let desk = Arc::new(desk);
    let document = desk.document().password(PASSWORD).build();
    let document = desk.written("document.xml", document.as_bytes())?;
    for disc in [Disc::Made, Disc::Empty] {
        // The metadata service knows of no password.
        let is_asked = disc == Disc::Made;
        let options = Options {
            root_disk: Some(image.clone()),
            disc,
            document: Some(document.clone()),
            writable: false,
            time_limit: LIMIT,
            ..scene.options(&["systemd.show_status=0"])
        };
        let deed = move |guest: &mut Guest<'_>| is_known(guest, is_asked);
        let visit = Visit::pay_and(&desk, Errand::Unannounced, Arc::new(deed), options)?;
        visit.seen.became_ready()?;
        visit.only("failed", "units failed", |_| false)?;
        visit.fact("state", "running")?;
        visit.fact("hostname", HOST_NAME)?;
        visit.only("process", "left behind", |process| {
            !process.contains("preroot") && !process.contains("(deleted)")
        })?;
        wrote_nothing(&visit.seen, &image)?;
    }
    Ok(())
}

/// Looks whether every part of the system knows the user, and its name.
fn is_known(guest: &mut Guest<'_>, by_password: bool) -> Result<(), Fault> {
    let passwd = format!("{USER}:x:1000:1000:{USER}:/home/{USER}:/bin/bash");
    let mut facts = vec![
        ("hostnamectl hostname", HOST_NAME),
        ("id -un; id -u; id -g", "deskadmin\n1000\n1000"),
        (
            "id -Gn | tr ' ' '\\n' | sort",
            "adm\ndeskadmin\nsudo\nsystemd-journal",
        ),
        ("getent passwd deskadmin", &passwd),
        ("getent passwd 1000", &passwd),
        ("getent group deskadmin", "deskadmin:x:1000:"),
        ("getent group 1000", "deskadmin:x:1000:"),
        ("pwd; stat -c '%U:%G %a' . .ssh .ssh/authorized_keys", HOME),
        (
            "sudo -n getent shadow deskadmin | cut -d : -f 2 | cut -c -3",
            if by_password { "$6$" } else { "*" },
        ),
        (
            "sudo -n systemd-creds --system --no-legend list | cut -d ' ' -f 1 | sort",
            "system.hostname\ntmpfiles.extra",
        ),
        ("findmnt -no OPTIONS / | cut -d , -f 1", "ro"),
    ];
    // As somebody who cannot read what passwords are compared with.
    let su = |password: &str| {
        format!("echo '{password}' | sudo -n -u nobody su deskadmin -c 'id -un' || echo no")
    };
    let (right, wrong) = (su(PASSWORD), su("another"));
    if by_password {
        facts.extend([(right.as_str(), USER), (wrong.as_str(), "no")]);
    }
    // One after the other, as an emulated machine takes its time with whoever comes in.
    let (commands, answers): (Vec<_>, Vec<_>) = facts.into_iter().unzip();
    let [commands, answers] = [commands, answers].map(|lines| lines.join("\n") + "\n");
    guest.comes_in("by key", &KEY, "sh -s", &commands, &answers)?;
    if !by_password {
        return Ok(());
    }
    guest.desk.written("password", PASSWORD.as_bytes())?;
    guest.comes_in("by password", &ASKED, "id -un", "", "deskadmin\n")
}

/// Fails unless the root disk is as the image, byte for byte.
fn wrote_nothing(seen: &Seen, image: &Path) -> Result<(), Broken> {
    let disk = &seen.0.root_disk;
    let open = |path: &Path| File::open(path).map_err(Fault::file("read", path));
    let differs = first_difference(open(image)?, open(disk)?).map_err(Fault::file("read", disk))?;
    seen.expect(differs.is_none(), || {
        format!("the root disk was written to, at byte {differs:?}")
    })
}

/// Finds the first byte in which one file is not as the other, if it is only that one is longer.
fn first_difference(mut one: impl Read, mut other: impl Read) -> io::Result<Option<u64>> {
    let mut at = 0;
    loop {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        one.by_ref().take(CHUNK).read_to_end(&mut left)?;
        other.by_ref().take(CHUNK).read_to_end(&mut right)?;
        if left != right {
            let same = left.iter().zip(&right).take_while(|(l, r)| l == r).count();
            return Ok(Some(at + same as u64));
        }
        if left.is_empty() {
            return Ok(None);
        }
        at += left.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_byte_and_lost_end_are_differences() {
        let find = |one: &[u8], other: &[u8]| first_difference(one, other).unwrap();
        assert_eq!(find(b"", b""), None);
        assert_eq!(find(b"squash", b"squash"), None);
        assert_eq!(find(b"squash", b"squish"), Some(3));
        assert_eq!(find(b"squash", b"squa"), Some(4));
        assert_eq!(find(b"squa", b"squash"), Some(4));
    }
}
