//! A Debian as it is after an installation: real account files, PAM, sshd, sudo and systemd.
//!
//! Where [`rootfs`](crate::rootfs) has some files of some packages, here every package has run its own
//! scripts. It is made once, in namespaces of its own, and kept twice: as an archive, which a test
//! unpacks where it likes, and as a disk for a machine. Nothing of the system is touched; an
//! ordinary user needs a line in `/etc/subuid`, as files have owners.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::apt::Apt;
use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, list, on_path, remove_directory};
use crate::progress::Step;

/// The UUID of the disk's file system.
pub const UUID: &str = "7a0e4c52-3f0b-4d5e-8a61-0c0ffeedeb12";

/// How large the disk is.
const SIZE: &str = "320M";

/// What is installed, with all that it depends on.
const PACKAGES: [&str; 9] = [
    "?essential",
    // In place of a package that moves files about and needs all of Perl.
    "usr-is-merged",
    "busybox-static",
    "iproute2",
    "openssh-server",
    "passwd",
    "sudo",
    "systemd-sysv",
    "udev",
];

const SCRIPT: &str = include_str!("../data/installed.sh");

/// Files of ours: where, what, with what mode.
const ADDITIONS: &[(&str, &str, u32)] = &[
    (
        "etc/fstab",
        "# The root is mounted by the initramfs.\n",
        0o644,
    ),
    ("etc/hostname", "localhost\n", 0o644),
    (
        "etc/hosts",
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        0o644,
    ),
    (
        "etc/systemd/network/10-lab.network",
        "[Match]\nName=en* eth*\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n",
        0o644,
    ),
    (
        "etc/systemd/system/lab-told.service",
        "[Unit]\nDescription=Tells the lab that the system is up\n\
         After=ssh.service systemd-networkd-wait-online.service\n\
         Wants=systemd-networkd-wait-online.service\n\n\
         [Service]\nType=oneshot\nExecStart=/usr/sbin/lab-init told\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        0o644,
    ),
    (
        "usr/sbin/lab-init",
        include_str!("../data/installed-init.sh"),
        0o755,
    ),
];

/// What a person would have switched on with `systemctl enable`, and off with `systemctl mask`.
const LINKS: &[(&str, &str)] = &[
    (
        "etc/systemd/system/multi-user.target.wants/lab-told.service",
        "/etc/systemd/system/lab-told.service",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "/lib/systemd/system/systemd-networkd.service",
    ),
    ("etc/systemd/system/apt-daily.timer", "/dev/null"),
    ("etc/systemd/system/apt-daily-upgrade.timer", "/dev/null"),
    ("etc/systemd/system/e2scrub_reap.service", "/dev/null"),
    // Its prompt would cut our lines in two.
    ("etc/systemd/system/serial-getty@.service", "/dev/null"),
];

/// A Debian that has been made.
#[derive(Debug, Clone)]
pub struct Debian {
    /// All of it, with its owners.
    pub archive: PathBuf,
    /// The same as an ext4 file system; copy it before anything writes to it.
    pub disk: PathBuf,
}

impl Debian {
    /// Gives the Debian of this lab, if it has been made and its recipe is still the same.
    pub fn made(lab: &Lab) -> Option<Self> {
        let debian = Self::at(lab);
        (debian.archive.is_file() && debian.disk.is_file()).then_some(debian)
    }

    /// Gives the Debian of this lab, and makes it if it is not there yet.
    pub fn make(lab: &Lab) -> Result<Self, Fault> {
        if let Some(debian) = Self::made(lab) {
            return Ok(debian);
        }
        if on_path("apt-get").is_none() || on_path("dpkg-deb").is_none() {
            return Err(Fault::Missing {
                what: "an installed Debian".to_owned(),
                fix: "it is made from Debian's packages: use a machine that has APT".to_owned(),
            });
        }
        let (mke2fs, unshare) = (lab.tool("mke2fs")?, lab.tool("unshare")?);
        let _lock = lab.lock()?;
        if let Some(debian) = Self::made(lab) {
            return Ok(debian);
        }
        let archives = Apt::for_guest(lab, Arch::X86_64)?.with_dependencies(&PACKAGES)?;
        let work = lab.directory().join("installed.work");
        remove_directory(&work)?;
        let (packages, additions) = (work.join("packages"), work.join("additions"));
        create_directory(&packages)?;
        for archive in &archives {
            let name = archive.file_name().unwrap_or_default();
            fs::hard_link(archive, packages.join(name)).map_err(Fault::file("link", archive))?;
        }
        add(&additions)?;
        let script = work.join("installed.sh");
        fs::write(&script, SCRIPT).map_err(Fault::file("write", &script))?;
        let mut step = Step::begin(format!(
            "installing a Debian ({} packages, {SIZE}B)",
            archives.len()
        ));
        let part = Self {
            archive: work.join("root.tar"),
            disk: work.join("root.ext4"),
        };
        let mut command = unshare.command();
        command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        if !is_root() {
            command.args(["--user", "--map-root-user", "--map-auto"]);
        }
        command.args(["--", "sh"]).arg(&script).args([
            &packages,
            &additions,
            &part.archive,
            &part.disk,
        ]);
        command.args([UUID, SIZE]);
        with_program(&mut command, mke2fs.program());
        step.run(&mut command, &String::new)?;
        let debian = Self::at(lab);
        for old in list(lab.directory()) {
            let name = old.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("installed-") && old.is_file() {
                fs::remove_file(&old).map_err(Fault::file("remove", &old))?;
            }
        }
        for (from, to) in [(&part.archive, &debian.archive), (&part.disk, &debian.disk)] {
            fs::rename(from, to).map_err(Fault::file("rename", from))?;
        }
        remove_directory(&work)?;
        step.end();
        Ok(debian)
    }

    /// Names the files; when the recipe changes they are others.
    fn at(lab: &Lab) -> Self {
        let mut hash = Sha256::new();
        hash.update(include_str!("installed.rs"));
        hash.update(SCRIPT);
        for (path, text, _) in ADDITIONS {
            hash.update(path);
            hash.update(text);
        }
        let mut key = String::new();
        for byte in hash.finalize().iter().take(6) {
            let _ = write!(key, "{byte:02x}");
        }
        let file = |end| lab.directory().join(format!("installed-{key}.{end}"));
        Self {
            archive: file("tar"),
            disk: file("ext4"),
        }
    }
}

/// Writes the files of ours into a directory.
fn add(tree: &Path) -> Result<(), Fault> {
    let above = |path: &Path| path.parent().map_or(Ok(()), create_directory);
    for (path, text, mode) in ADDITIONS {
        let path = tree.join(path);
        above(&path)?;
        fs::write(&path, text).map_err(Fault::file("write", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(*mode))
            .map_err(Fault::file("chmod", &path))?;
    }
    for (link, target) in LINKS {
        let link = tree.join(link);
        above(&link)?;
        symlink(target, &link).map_err(Fault::file("create", &link))?;
    }
    Ok(())
}

/// Lets a command line find a program that is not on its `PATH`.
fn with_program(command: &mut Command, program: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = program.parent().map(Path::to_owned);
    let all = std::env::split_paths(&path).chain(first);
    if let Ok(path) = std::env::join_paths(all) {
        command.env("PATH", path);
    }
}

/// Says whether files can be given to anybody without further ado.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_change_with_the_recipe_and_with_nothing_else() {
        let lab = Lab::open().unwrap();
        let (one, two) = (Debian::at(&lab), Debian::at(&lab));
        assert_eq!(one.archive, two.archive);
        assert_eq!(one.archive.with_extension("ext4"), one.disk);
    }

    #[test]
    fn additions_are_written_with_their_modes() {
        let tree = std::env::temp_dir().join(format!("lab-additions-{}", std::process::id()));
        add(&tree).unwrap();
        let init = tree.join("usr/sbin/lab-init").metadata().unwrap();
        assert_eq!(init.permissions().mode() & 0o777, 0o755);
        assert!(tree.join(LINKS[0].0).is_symlink());
        remove_directory(&tree).unwrap();
    }
}
