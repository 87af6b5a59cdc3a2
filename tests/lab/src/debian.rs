//! A Debian as it is after an installation: real account files, PAM, sshd, sudo and systemd; on
//! request with the agents of others.
//!
//! Where [`rootfs`](crate::rootfs) has some files of some packages, here every package has run its own
//! scripts, in namespaces, on the processor that they were built for: it is the host's. Each flavour is
//! made once and kept as an archive, which a test unpacks where it likes; the plain one as a disk too,
//! for a machine. Nothing of the system is touched; an ordinary user needs a line in `/etc/subuid`,
//! as files have owners.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::apt::Apt;
use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::{Lab, Tool, count, create_directory, list, on_path, remove_directory};
use crate::progress::{self, Step};

/// The UUID of the disk's file system.
const UUID: &str = "7a0e4c52-3f0b-4d5e-8a61-0c0ffeedeb12";

/// How large the disk is.
const SIZE: &str = "320M";

/// What is installed, with all that it depends on; APT knows the essential packages by a pattern.
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

/// What comes on top with the agents, besides Azure's.
const WITH_AGENTS: [&str; 2] = [
    "cloud-init",
    // waagent counts with it what the firewall drops, and complains where it cannot.
    "iptables",
];

/// What comes on top with the network managers: each of them is switched on by its installation.
const WITH_NETWORKS: [&str; 7] = [
    "dbus",
    "dhcpcd",
    "ifupdown",
    "iputils-ping",
    "isc-dhcp-client",
    "netplan.io",
    "network-manager",
];

/// What comes on top where an initramfs is made of it: the generators, which make none by themselves.
const WITH_GENERATORS: [&str; 6] = [
    // `hostnamectl` asks over it.
    "dbus",
    "dracut-core",
    "e2fsprogs",
    "initramfs-tools-core",
    "squashfs-tools",
    "zstd",
];

/// What comes on top where the root cannot be written to, and users come from elsewhere.
const WITH_CREDENTIALS: [&str; 3] = ["dbus", "libnss-systemd", "login"];

/// The first systemd that takes credentials from an initramfs.
const CREDENTIALS_SINCE: u32 = 254;

/// What Azure's agent is called: in Debian, in Ubuntu.
const AZURE_AGENT: [&str; 2] = ["waagent", "walinuxagent"];

const SCRIPT: &str = include_str!("../data/debian.sh");

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
        include_str!("../data/debian-init.sh"),
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

/// What an image has whose root shall never be written to.
const READ_ONLY_ADDITIONS: &[(&str, &str, u32)] = &[
    (
        "etc/fstab",
        "UUID=7a0e4c52-3f0b-4d5e-8a61-0c0ffeedeb12 / ext4 ro 0 1\n\
         tmpfs /home tmpfs mode=0755 0 0\n\
         tmpfs /tmp tmpfs mode=1777 0 0\n\
         tmpfs /var tmpfs mode=0755 0 0\n",
        0o644,
    ),
    (
        "etc/ssh/sshd_config.d/50-image.conf",
        "HostKey /run/host-key/ssh_host_ed25519_key\n",
        0o644,
    ),
    (
        "etc/sudoers.d/image",
        "%sudo ALL=(ALL:ALL) NOPASSWD: ALL\n",
        0o440,
    ),
    (
        "etc/systemd/system/host-key.service",
        "[Unit]\nDescription=Makes a host key for this boot\nBefore=ssh.service\n\
         ConditionPathExists=!/run/host-key/ssh_host_ed25519_key\n\n\
         [Service]\nType=oneshot\nRuntimeDirectory=host-key\nRuntimeDirectoryPreserve=yes\n\
         ExecStart=ssh-keygen -q -t ed25519 -N \"\" -f /run/host-key/ssh_host_ed25519_key\n",
        0o644,
    ),
    // What a machine makes for itself is in no image.
    (
        "usr/sbin/lab-seal",
        "#!/bin/sh\nrm -f /etc/ssh/ssh_host_*\n",
        0o755,
    ),
];

const READ_ONLY_LINKS: &[(&str, &str)] = &[(
    "etc/systemd/system/ssh.service.requires/host-key.service",
    "/etc/systemd/system/host-key.service",
)];

/// Units and generators that this machine has no use for, and that an emulated one takes a third of its
/// start for.
const READ_ONLY_MASKED: [&str; 26] = [
    "system/dev-hugepages.mount",
    "system/dev-mqueue.mount",
    "system/getty@.service",
    "system/modprobe@.service",
    "system/proc-sys-fs-binfmt_misc.automount",
    "system/sys-fs-fuse-connections.mount",
    "system/sys-kernel-config.mount",
    "system/sys-kernel-debug.mount",
    "system/sys-kernel-tracing.mount",
    "system/systemd-ask-password-console.path",
    "system/systemd-ask-password-wall.path",
    "system/systemd-journal-catalog-update.service",
    "system/systemd-logind.service",
    "system/systemd-networkd-persistent-storage.service",
    "system/systemd-pstore.service",
    "system/systemd-update-done.service",
    "system-generators/systemd-debug-generator",
    "system-generators/systemd-getty-generator",
    "system-generators/systemd-gpt-auto-generator",
    "system-generators/systemd-hibernate-resume-generator",
    "system-generators/systemd-rc-local-generator",
    "system-generators/systemd-run-generator",
    "system-generators/systemd-ssh-generator",
    "system-generators/systemd-system-update-generator",
    "system-generators/systemd-sysv-generator",
    "system-generators/systemd-tpm2-generator",
];

/// How the names of the files end.
const ARCHIVE: &str = "tar";
const DISK: &str = "ext4";

/// Which Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// What a machine needs that people log in to.
    Plain,
    /// The same with cloud-init and waagent.
    WithAgents,
    /// The plain one with every network manager and DHCP client that Debian has to offer.
    WithNetworks,
    /// What a machine needs that makes its own initramfs.
    WithGenerators,
    /// The plain one for a root that is never written to, with a systemd that takes credentials.
    ReadOnly,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::WithAgents,
        Self::WithNetworks,
        Self::WithGenerators,
        Self::ReadOnly,
    ];

    /// Gives the name that `cargo lab fetch` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "debian",
            Self::WithAgents => "debian-agents",
            Self::WithNetworks => "debian-networks",
            Self::WithGenerators => "debian-generators",
            Self::ReadOnly => "debian-read-only",
        }
    }

    /// Lists what is kept of it, by the ends of the files' names.
    fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::ReadOnly => &[ARCHIVE, DISK],
            Self::WithAgents | Self::WithNetworks | Self::WithGenerators => &[ARCHIVE],
        }
    }

    /// Lists the packages to ask APT for.
    fn packages(self, apt: &Apt) -> Result<Vec<&'static str>, Fault> {
        let mut packages = PACKAGES.to_vec();
        match self {
            Self::Plain => {}
            Self::WithAgents => {
                packages.extend(WITH_AGENTS);
                let [debian, ubuntu] = AZURE_AGENT;
                let is_debian = apt.field(debian, "Version")?.is_some();
                packages.push(if is_debian { debian } else { ubuntu });
            }
            Self::WithNetworks => packages.extend(WITH_NETWORKS),
            Self::WithGenerators => packages.extend(WITH_GENERATORS),
            Self::ReadOnly => packages.extend(WITH_CREDENTIALS),
        }
        Ok(packages)
    }

    /// Opens the APT that has them.
    fn apt(self, lab: &Lab, arch: Arch) -> Result<Apt, Fault> {
        let apt = Apt::for_guest(lab, arch)?;
        let version = || apt.field("systemd", "Version");
        if self == Self::ReadOnly && version()?.is_none_or(|own| major(&own) < CREDENTIALS_SINCE) {
            return Apt::for_next_guest(lab, arch);
        }
        Ok(apt)
    }
}

/// Gives a Debian's archive, if it has been made and its recipe is still the same.
pub fn made(lab: &Lab, flavour: Flavour) -> Option<PathBuf> {
    let arch = Arch::host()?;
    is_made(lab, flavour, arch).then(|| path(lab, flavour, arch, ARCHIVE))
}

/// Gives a Debian's archive, and makes it if it is not there yet.
pub fn archive(lab: &Lab, flavour: Flavour) -> Result<PathBuf, Fault> {
    let arch = host()?;
    make(lab, flavour, arch)?;
    Ok(path(lab, flavour, arch, ARCHIVE))
}

/// Gives the processor that a Debian can be made for: this machine's.
pub(crate) fn host() -> Result<Arch, Fault> {
    Arch::host().ok_or_else(|| missing("use an x86_64 or aarch64 machine"))
}

/// Gives a Debian as an ext4 file system; copy it before anything writes to it.
pub fn disk(lab: &Lab, flavour: Flavour, arch: Arch) -> Result<PathBuf, Fault> {
    if Arch::host() != Some(arch) {
        let name = arch.traits().name;
        return Err(missing(&format!(
            "it is made on the processor that it is for; use an {name} machine"
        )));
    }
    make(lab, flavour, arch)?;
    Ok(path(lab, flavour, arch, DISK))
}

/// Unpacks an archive into a directory, as root of some namespace.
pub fn unpack(archive: &Path, root: &Path) -> Result<(), Fault> {
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "-xpf"]).arg(archive);
    progress::run(tar.arg("-C").arg(root)).map(drop)
}

/// Says what is left out where a Debian cannot be had; fails if that is not the fault, or nothing may be.
pub(crate) fn leave_out(fault: Fault, what: &str) -> Result<(), Fault> {
    let strict = ["CI", "PREROOT_STRICT"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    if strict || !matches!(fault, Fault::Missing { .. }) {
        return Err(fault);
    }
    progress::say(format_args!("left out: {what}; {fault}"));
    Ok(())
}

/// Says that there is no such system, and what to do about it.
fn missing(fix: &str) -> Fault {
    Fault::Missing {
        what: "an installed Debian".to_owned(),
        fix: fix.to_owned(),
    }
}

/// Installs a Debian for this processor, which is the host's, unless that has been done.
fn make(lab: &Lab, flavour: Flavour, arch: Arch) -> Result<(), Fault> {
    if is_made(lab, flavour, arch) {
        return Ok(());
    }
    if on_path("apt-get").is_none() || on_path("dpkg-deb").is_none() {
        return Err(missing(
            "it is made from Debian's or Ubuntu's packages; use a machine that has APT",
        ));
    }
    let (mke2fs, unshare) = (lab.tool("mke2fs")?, lab.tool("unshare")?);
    let _lock = lab.lock()?;
    if is_made(lab, flavour, arch) {
        return Ok(());
    }
    let apt = flavour.apt(lab, arch)?;
    let archives = apt.with_dependencies(&flavour.packages(&apt)?)?;
    let work = lab.directory().join("debian.work");
    remove_directory(&work)?;
    let (packages, additions) = (work.join("packages"), work.join("additions"));
    create_directory(&packages)?;
    for archive in &archives {
        let name = archive.file_name().unwrap_or_default();
        fs::hard_link(archive, packages.join(name)).map_err(Fault::file("link", archive))?;
    }
    add(&additions, ADDITIONS, LINKS)?;
    if flavour == Flavour::ReadOnly {
        add(&additions, READ_ONLY_ADDITIONS, READ_ONLY_LINKS)?;
        for name in READ_ONLY_MASKED {
            let place = format!("etc/systemd/{name}");
            add(&additions, &[], &[(&place, "/dev/null")])?;
        }
    }
    let script = work.join("debian.sh");
    fs::write(&script, SCRIPT).map_err(Fault::file("write", &script))?;
    let mut step = Step::begin(format!(
        "installing {} ({})",
        flavour.name(),
        count(archives.len())
    ));
    let part = |kind: &str| work.join("root").with_extension(kind);
    let mut command = inside(&unshare, &mke2fs);
    command.arg(&script);
    command.args([&packages, &additions, &part(ARCHIVE)]);
    if flavour.kinds().contains(&DISK) {
        command.arg(part(DISK)).args([UUID, SIZE]);
    }
    step.run(&mut command, &String::new)?;
    let prefix = prefix(flavour, arch);
    for old in list(lab.directory()) {
        let name = old.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&prefix) && old.is_file() {
            fs::remove_file(&old).map_err(Fault::file("remove", &old))?;
        }
    }
    for kind in flavour.kinds() {
        let part = part(kind);
        fs::rename(&part, path(lab, flavour, arch, kind)).map_err(Fault::file("rename", &part))?;
    }
    remove_directory(&work)?;
    step.end();
    Ok(())
}

/// Says whether all that is kept of a Debian is there.
fn is_made(lab: &Lab, flavour: Flavour, arch: Arch) -> bool {
    let mut kinds = flavour.kinds().iter();
    kinds.all(|kind| path(lab, flavour, arch, kind).is_file())
}

/// Gives what the names of a Debian's files begin with, and those of no other's.
fn prefix(flavour: Flavour, arch: Arch) -> String {
    format!("{}-{}-", flavour.name(), arch.traits().debian)
}

/// Takes the first number of a version.
fn major(version: &str) -> u32 {
    let digits = version.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Names a file; when the recipe changes it is another.
fn path(lab: &Lab, flavour: Flavour, arch: Arch, kind: &str) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(include_str!("debian.rs"));
    hash.update(SCRIPT);
    for (path, text, _) in ADDITIONS {
        hash.update(path);
        hash.update(text);
    }
    let mut name = prefix(flavour, arch);
    for byte in hash.finalize().iter().take(6) {
        let _ = write!(name, "{byte:02x}");
    }
    lab.directory().join(format!("{name}.{kind}"))
}

/// Writes files (where, what, with what mode) and links (where, to what) into a directory.
pub(crate) fn add(
    tree: &Path,
    files: &[(&str, &str, u32)],
    links: &[(&str, &str)],
) -> Result<(), Fault> {
    let above = |path: &Path| path.parent().map_or(Ok(()), create_directory);
    for (path, text, mode) in files {
        let path = tree.join(path);
        above(&path)?;
        fs::write(&path, text).map_err(Fault::file("write", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(*mode))
            .map_err(Fault::file("chmod", &path))?;
    }
    for (link, target) in links {
        let link = tree.join(link);
        above(&link)?;
        symlink(target, &link).map_err(Fault::file("create", &link))?;
    }
    Ok(())
}

/// Starts a command line for a shell script that is root in namespaces of its own, and has `mke2fs`.
pub(crate) fn inside(unshare: &Tool, mke2fs: &Tool) -> Command {
    let mut command = unshare.command();
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--net"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.args(["--", "sh"]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let last = mke2fs.program().parent().map(Path::to_owned);
    let all = std::env::split_paths(&path).chain(last);
    if let Ok(path) = std::env::join_paths(all) {
        command.env("PATH", path);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_debians_share_a_file() {
        let lab = Lab::open().unwrap();
        let mut paths = Vec::new();
        for arch in [Arch::X86_64, Arch::Aarch64] {
            for flavour in Flavour::ALL {
                let own = prefix(flavour, arch);
                for kind in flavour.kinds() {
                    paths.push((own.clone(), path(&lab, flavour, arch, kind)));
                }
            }
        }
        assert_eq!(paths.len(), 14);
        // What is removed as old is of the same flavour and processor.
        let prefixes: Vec<_> = paths.iter().map(|(own, _)| own.clone()).collect();
        for (own, path) in &paths {
            let name = path.file_name().unwrap().to_str().unwrap();
            for prefix in &prefixes {
                assert_eq!(name.starts_with(prefix), prefix == own, "{name}, {prefix}");
            }
        }
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 14);
    }

    #[test]
    fn disk_for_a_foreign_processor_is_refused() {
        let lab = Lab::open().unwrap();
        let foreign = match Arch::host() {
            Some(Arch::X86_64) => Arch::Aarch64,
            _ => Arch::X86_64,
        };
        assert!(matches!(
            disk(&lab, Flavour::Plain, foreign),
            Err(Fault::Missing { .. })
        ));
    }

    #[test]
    fn version_begins_with_its_major_number() {
        assert_eq!(major("252.39-1~deb12u2"), 252);
        assert_eq!(major("257.13-1~deb13u1"), 257);
        assert_eq!(major("260~rc1-1"), 260);
        assert_eq!(major("none"), 0);
    }

    #[test]
    fn additions_are_written_with_their_modes() {
        let tree = std::env::temp_dir().join(format!("lab-additions-{}", std::process::id()));
        add(&tree, ADDITIONS, LINKS).unwrap();
        let init = tree.join("usr/sbin/lab-init").metadata().unwrap();
        assert_eq!(init.permissions().mode() & 0o777, 0o755);
        assert!(tree.join(LINKS[0].0).is_symlink());
        remove_directory(&tree).unwrap();
    }
}
