//! A Debian that boots as Debians do: its initramfs made by its own generators, with preroot installed
//! as its packages would install it.
//!
//! One disk, the same as a squashfs, and one of each [`Initramfs`] for the lab's kernel. They are made
//! anew when the program, a hook, the kernel or the recipe changes, out of a Debian that need not be
//! installed again. What a generator calls an error is one here. It does not boot anything.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::debian::{self, Flavour};
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, list, remove_directory};
use crate::install::{self, Generator};
use crate::kernel::Kernel;
use crate::product;
use crate::progress::Step;

/// The UUID of the disk's file system.
const UUID: &str = "b7c1b1a4-60a5-4f0e-9d54-0c0ffeed1570";

/// How large the disk is.
const SIZE: &str = "400M";

/// What the names of the files begin with.
const PREFIX: &str = "distro-";

/// What the disk's file is called.
const DISK: &str = "disk";
const SQUASHFS: &str = "squashfs";

const SCRIPT: &str = include_str!("../data/distro.sh");

/// Files of ours besides those that every Debian of the lab has: where, what, with what mode.
const ADDITIONS: &[(&str, &str, u32)] = &[
    // The kernel mounts the root to be read only, as everywhere; who makes it writable looks here.
    (
        "etc/fstab",
        "UUID=b7c1b1a4-60a5-4f0e-9d54-0c0ffeed1570 / ext4 defaults,errors=remount-ro 0 1\n",
        0o644,
    ),
    // While the image is made there is no such device to ask.
    ("etc/initramfs-tools/conf.d/lab", "FSTYPE=ext4\n", 0o644),
];

/// What is switched on and off in it.
const LINKS: &[(&str, &str)] = &[
    // The disk has no kernel modules, so there is no automount.
    (
        "etc/systemd/system/proc-sys-fs-binfmt_misc.automount",
        "/dev/null",
    ),
];

/// An initramfs, by who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initramfs {
    /// dracut, with systemd as the initramfs' init.
    DracutSystemd,
    /// dracut, with its own init.
    Dracut,
    /// Debian's own, around busybox.
    InitramfsTools,
}

impl Initramfs {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::DracutSystemd, Self::Dracut, Self::InitramfsTools];

    /// Gives the name that its files have.
    pub fn name(self) -> &'static str {
        match self {
            Self::DracutSystemd => "dracut-systemd",
            Self::Dracut => "dracut",
            Self::InitramfsTools => "initramfs-tools",
        }
    }
}

/// The files of a Debian with its own initramfs.
#[derive(Debug, Clone)]
pub struct Distro {
    directory: PathBuf,
}

impl Distro {
    /// Gives it, and makes it if it is not there yet.
    pub fn make(lab: &Lab) -> Result<Self, Fault> {
        let arch = debian::host()?;
        let archive = debian::archive(lab, Flavour::WithGenerators)?;
        let kernel = Kernel::fetch(lab, arch)?;
        let preroot = product::build(lab, arch)?;
        let mke2fs = lab.tool("mke2fs")?;
        let unshare = lab.tool("unshare")?;
        let _lock = lab.lock()?;
        let work = lab.directory().join("distro.work");
        remove_directory(&work)?;
        let (additions, into) = (work.join("additions"), work.join("made"));
        create_directory(&into)?;
        debian::add(&additions, ADDITIONS, LINKS)?;
        let generators = [Generator::Dracut, Generator::InitramfsTools];
        install::lay(lab.project(), &preroot, &generators, &additions, false)?;
        let release = kernel.modules.file_name().unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(include_str!("distro.rs"));
        hash.update(SCRIPT);
        // Their names say what is in them.
        hash.update(archive.as_os_str().as_encoded_bytes());
        hash.update(release.as_encoded_bytes());
        digest(&additions, &mut hash)?;
        let mut name = format!("{PREFIX}{}-", arch.traits().debian);
        for byte in hash.finalize().iter().take(6) {
            let _ = write!(name, "{byte:02x}");
        }
        let made = Self {
            directory: lab.directory().join(name),
        };
        if !made.directory.is_dir() {
            let script = work.join("distro.sh");
            fs::write(&script, SCRIPT).map_err(Fault::file("write", &script))?;
            let mut step =
                Step::begin("making initramfs with dracut and initramfs-tools (3 images)");
            let mut command = debian::inside(&unshare, &mke2fs);
            command.arg(&script).arg(&archive);
            let tree = kernel.image.parent().and_then(Path::parent);
            command.arg(&additions).arg(tree.unwrap_or(Path::new("/")));
            command.arg(release).arg(&into).args([UUID, SIZE]);
            step.run(&mut command, &String::new)?;
            for initramfs in Initramfs::ALL {
                without_errors(&into.join(initramfs.name()).with_extension("log"))?;
            }
            step.end();
            for old in list(lab.directory()) {
                let name = old.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with(PREFIX) && old.is_dir() {
                    remove_directory(&old)?;
                }
            }
            fs::rename(&into, &made.directory).map_err(Fault::file("rename", &into))?;
        }
        remove_directory(&work)?;
        Ok(made)
    }

    /// Gives the root disk; copy it before anything writes to it.
    pub fn disk(&self) -> PathBuf {
        self.directory.join(DISK)
    }

    /// Gives the root disk as a squashfs, which cannot be written to.
    pub fn squashfs(&self) -> PathBuf {
        self.directory.join(SQUASHFS)
    }

    /// Gives the initramfs that a generator made.
    pub fn initramfs(&self, which: Initramfs) -> PathBuf {
        self.directory.join(which.name())
    }
}

/// Fails if a generator says in its log that something went wrong, which it survives.
pub(crate) fn without_errors(log: &Path) -> Result<(), Fault> {
    let text = fs::read(log).map_err(Fault::file("read", log))?;
    let text = String::from_utf8_lossy(&text);
    let mut wrong = text.lines().filter(|line| is_error(line));
    match wrong.next() {
        None => Ok(()),
        Some(line) => Err(Fault::Content {
            path: log.to_owned(),
            why: line.to_owned(),
        }),
    }
}

/// Says whether a line of a generator's tells of an error.
fn is_error(line: &str) -> bool {
    // initramfs-tools and dpkg begin with a letter, dracut says it in words.
    let is_marked = ["E: ", "W: "].iter().any(|mark| line.starts_with(mark));
    is_marked
        || ["ERROR", "FATAL", "WARNING", "failed"]
            .iter()
            .any(|word| line.contains(word))
}

/// Takes all that is in a directory into a hash: names, modes, contents.
pub(crate) fn digest(directory: &Path, hash: &mut Sha256) -> Result<(), Fault> {
    for path in list(directory) {
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        if path.is_symlink() {
            let target = fs::read_link(&path).map_err(Fault::file("read", &path))?;
            hash.update(target.as_os_str().as_encoded_bytes());
        } else if path.is_dir() {
            digest(&path, hash)?;
        } else {
            let data = path.metadata().map_err(Fault::file("read", &path))?;
            hash.update(data.permissions().mode().to_le_bytes());
            hash.update(fs::read(&path).map_err(Fault::file("read", &path))?);
        }
        hash.update([0]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaint_of_a_generator_is_told_from_its_usual_talk() {
        for wrong in [
            "dracut-install: ERROR: installing '/usr/bin/preroot'",
            "dracut: FATAL: preroot: /usr/lib/systemd/system/preroot.service is missing",
            "E: /usr/share/initramfs-tools/hooks/preroot failed with return 1.",
            "W: Couldn't identify type of root file system",
        ] {
            assert!(is_error(wrong), "{wrong}");
        }
        for usual in [
            "dracut: *** Including module: base ***",
            "dracut: Skipping udev rule: 40-redhat.rules",
            "dracut: dracut module 'rngd' will not be installed, because command 'rngd' could not be found!",
        ] {
            assert!(!is_error(usual), "{usual}");
        }
    }

    #[test]
    fn changed_hook_gives_another_hash() {
        let tree = std::env::temp_dir().join(format!("lab-distro-{}", std::process::id()));
        let file = tree.join("usr/lib/hook");
        let hashed = |text: &str, mode| {
            create_directory(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let mut hash = Sha256::new();
            digest(&tree, &mut hash).unwrap();
            hash.finalize()
        };
        let first = hashed("a", 0o644);
        assert_eq!(first, hashed("a", 0o644));
        assert_ne!(first, hashed("b", 0o644));
        assert_ne!(first, hashed("a", 0o755));
        remove_directory(&tree).unwrap();
    }
}
