//! A whole system with the agents of others, installed by its own package manager.
//!
//! It is of the distribution's own packages, their installation scripts run in namespaces, and kept as one
//! archive with its owners. Nothing boots it: tests run programs in it (the root that boots is `rootfs`).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::apt::Apt;
use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, list, on_path, remove_directory};
use crate::progress::Step;

const INSTALL: &str = include_str!("../data/debian.sh");

/// What the system is made from: when this changes, it is made again.
const RECIPE: [&str; 2] = [INSTALL, include_str!("debian.rs")];

/// The packages, with all that they depend on; APT knows the essential ones by a pattern.
const PACKAGES: [&str; 10] = [
    "?essential",
    "cloud-init",
    "iproute2",
    // waagent counts with it what the firewall drops, and complains where it cannot.
    "iptables",
    "openssh-server",
    "passwd",
    "sudo",
    "systemd-sysv",
    "udev",
    // Else a converter for systems with an unmerged `/usr` is taken, and all of Perl with it.
    "usr-is-merged",
];

/// What the Azure agent's package is called: in Debian, in Ubuntu.
const AGENT: [&str; 2] = ["waagent", "walinuxagent"];

/// Gives the system's archive, if it has been made.
pub fn cached(lab: &Lab) -> Option<PathBuf> {
    let path = path(lab, Arch::host()?);
    path.is_file().then_some(path)
}

/// Gives the system's archive, made anew if its recipe has changed.
pub fn archive(lab: &Lab) -> Result<PathBuf, Fault> {
    let missing = |fix: &str| Fault::Missing {
        what: "a Debian with the agents of others".to_owned(),
        fix: fix.to_owned(),
    };
    let arch = Arch::host().ok_or_else(|| missing("use an x86_64 or aarch64 machine"))?;
    let path = path(lab, arch);
    if path.is_file() {
        return Ok(path);
    }
    if on_path("apt-get").is_none() || on_path("dpkg-deb").is_none() {
        return Err(missing(
            "it is made from Debian's or Ubuntu's packages; use one of those",
        ));
    }
    let unshare = lab.tool("unshare")?;
    let _lock = lab.lock()?;
    if path.is_file() {
        return Ok(path);
    }
    let apt = Apt::for_guest(lab, arch)?;
    let mut agent = AGENT[0];
    for name in AGENT {
        if apt.field(name, "Version")?.is_some() {
            agent = name;
            break;
        }
    }
    let archives = apt.with_dependencies(&[&PACKAGES[..], &[agent]].concat())?;
    let mut step = Step::begin(format!(
        "installing {agent}, cloud-init and what they need ({} packages)",
        archives.len()
    ));
    let tree = lab.directory().join("debian.tree");
    create_directory(&tree)?;
    let script = lab.directory().join("debian.sh");
    fs::write(&script, INSTALL).map_err(Fault::file("write", &script))?;
    let part = path.with_extension("part");
    let mut command = unshare.command();
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--net"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.arg("sh").args([&script, &tree, &part]);
    command.args(&archives);
    let path_of_ours = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path_of_ours}:/usr/sbin:/sbin"));
    step.run(&mut command, &String::new)?;
    let prefix = prefix(arch);
    for old in list(lab.directory()) {
        let name = old.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(".tar") {
            fs::remove_file(&old).map_err(Fault::file("remove", &old))?;
        }
    }
    remove_directory(&tree)?;
    fs::rename(&part, &path).map_err(Fault::file("rename", &part))?;
    step.end();
    Ok(path)
}

/// Starts a command line that unpacks the system into a directory, as root of some namespace.
pub fn unpack(archive: &Path, root: &Path) -> Command {
    let mut command = Command::new("tar");
    command.arg("-x").arg("--numeric-owner").arg("-p");
    command.arg("-f").arg(archive).arg("-C").arg(root);
    command
}

fn prefix(arch: Arch) -> String {
    format!("debian-{}-", arch.traits().debian)
}

fn path(lab: &Lab, arch: Arch) -> PathBuf {
    let mut hash = Sha256::new();
    for part in RECIPE {
        hash.update(part);
    }
    let key = hash
        .finalize()
        .iter()
        .take(6)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
    lab.directory().join(format!("{}{key}.tar", prefix(arch)))
}
