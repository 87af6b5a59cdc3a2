//! Whole disk images of a Debian with one agent, which boot by themselves.
//!
//! They are what `cargo lab boot --disk` is tried with: real systems around agents that are not ours, and
//! one around ours. Each is made of a Debian that need not be installed again, with the lab's kernel and an
//! initramfs made in it, and kept as a sparse file until its recipe changes. No loop device and no root
//! of the host is needed. Nothing boots here.

mod loader;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::apt::Apt;
use crate::arch::Arch;
use crate::debian::{self, Flavour};
use crate::distro;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, list, remove_directory};
use crate::gpt::{FIRST, Kind, Partition, SECTOR};
use crate::install::{self, Generator};
use crate::kernel::Kernel;
use crate::product;
use crate::progress::{self, Step};
pub use crate::qemu::Firmware;
use loader::{Loader, menu};

/// The UUID of the root's file system.
const UUID: &str = "5d1c0f0e-7f43-4d0b-9a35-0c0ffeed15c0";

/// The ids of the partitions.
const BOOT_ID: &str = "5d1c0f0e-7f43-4d0b-9a35-0c0ffeed15c1";
const ROOT_ID: &str = "5d1c0f0e-7f43-4d0b-9a35-0c0ffeed15c2";

const MIB: u64 = 1 << 20;

/// How large a disk is. Azure takes whole MiB only.
const SIZE: u64 = 600 * MIB;

/// How large the boot loader's partition is.
const BOOT_SIZE: u64 = 5 * MIB;

/// What the rest of it is left for: the second table, in a MiB of its own.
const END: u64 = MIB;

/// What a Debian with agents lacks to boot by itself. D-Bus, since without it nobody heeds the power button.
const PACKAGES: [&str; 5] = ["dbus", "e2fsprogs", "initramfs-tools-core", "kmod", "zstd"];

/// What waagent needs to have the name of the machine published: Debian's own way to a network.
const IFUPDOWN: &str = "ifupdown";

/// And what it does.
const INTERFACES: &str = "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet dhcp\n";

const SCRIPT: &str = include_str!("../data/image.sh");

/// What is switched off: an emulated machine would do it for nobody.
const MASKED: [&str; 12] = [
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty@tty1.service",
    // Each starts a program to load what is there or is not missed.
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
];

/// The drivers of the disk in QEMU's machines and in Azure's; a few, since a machine unpacks them all.
const DRIVERS: &str = "ata_piix\nhv_storvsc\nnvme\nsd_mod\nvirtio_blk\nvirtio_pci\nvirtio_scsi\n";

/// cloud-init makes a key of every type that it knows; of the type RSA an emulated machine makes one for
/// half a minute.
const KEYS: &str = "ssh_genkeytypes: [ecdsa, ed25519]\n";

/// Who provisions the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// preroot, from an initramfs by initramfs-tools.
    Preroot,
    /// Debian's cloud-init.
    CloudInit,
    /// Debian's build of Azure's Linux agent.
    Waagent,
}

impl Agent {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Preroot, Self::CloudInit, Self::Waagent];

    /// Gives the name that its own project uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preroot => "preroot",
            Self::CloudInit => "cloud-init",
            Self::Waagent => "waagent",
        }
    }

    /// Takes an agent by its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Gives further kernel arguments.
    fn append(self) -> &'static [&'static str] {
        match self {
            // The emulator's card is none of Azure's, so it is named; as Azure's is named in most images.
            Self::Preroot => &["net.ifnames=0", "preroot.nic=eth0"],
            Self::Waagent => &["net.ifnames=0"],
            Self::CloudInit => &[],
        }
    }

    /// Gives the Debian that it is made of.
    fn flavour(self) -> Flavour {
        match self {
            Self::Preroot => Flavour::WithGenerators,
            Self::CloudInit | Self::Waagent => Flavour::WithAgents,
        }
    }
}

/// Both kinds of firmware, by the words that options and files have for them.
pub const FIRMWARE: [(&str, Firmware); 2] = [("bios", Firmware::Bios), ("uefi", Firmware::Uefi)];

/// How an image is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As it is, with holes where there is nothing.
    Raw,
    /// QEMU's own.
    Qcow2,
    /// A VHD of fixed size, as Azure takes it.
    Vhd,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Qcow2, Self::Vhd];

    /// Gives its name, which is also how its files end.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
        }
    }

    /// Takes it by its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Gives the words that the emulator's tool has for it.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Raw => &["raw"],
            Self::Qcow2 => &["qcow2"],
            // Without the last the size would be rounded to what a disk of old has in cylinders.
            Self::Vhd => &["vpc", "-o", "subformat=fixed,force_size=on"],
        }
    }
}

/// Gives a raw image, and makes it if it is not there yet; copy it before anything writes to it.
pub fn make(lab: &Lab, agent: Agent, firmware: Firmware) -> Result<PathBuf, Fault> {
    let arch = processor(Arch::host())?;
    let archive = debian::archive(lab, agent.flavour())?;
    let kernel = Kernel::fetch(lab, arch)?;
    let program = match agent {
        Agent::Preroot => Some(product::build(lab, arch)?),
        Agent::CloudInit | Agent::Waagent => None,
    };
    let (mke2fs, unshare) = (lab.tool("mke2fs")?, lab.tool("unshare")?);
    let loader = Loader::fetch(lab, firmware)?;
    let _lock = lab.lock()?;
    let work = lab.directory().join("image.work");
    remove_directory(&work)?;
    let (additions, packages) = (work.join("additions"), work.join("packages"));
    create_directory(&packages)?;
    let release = kernel.modules.file_name().unwrap_or_default();
    let release = release.to_string_lossy().into_owned();
    add(
        &additions,
        agent,
        &menu(firmware, &release, UUID, agent.append()),
    )?;
    if let Some(program) = program {
        let generators = [Generator::InitramfsTools];
        install::lay(lab.project(), &program, &generators, &additions, false)?;
    }
    let started_by = firmware.name().to_lowercase();
    let prefix = format!("image-{}-{started_by}-", agent.name());
    let name = format!("{prefix}{}.raw", key(&archive, &release, &additions)?);
    let image = lab.directory().join(name);
    if !image.is_file() {
        let mut step = Step::begin(format!(
            "making a disk with {} for {} ({} MiB)",
            agent.name(),
            firmware.name(),
            SIZE / MIB
        ));
        if agent.flavour() == Flavour::WithAgents {
            let mut wanted = PACKAGES.to_vec();
            if agent == Agent::Waagent {
                wanted.push(IFUPDOWN);
            }
            for archive in Apt::for_guest(lab, arch)?.with_dependencies(&wanted)? {
                let name = archive.file_name().unwrap_or_default();
                fs::hard_link(&archive, packages.join(name))
                    .map_err(Fault::file("link", &archive))?;
            }
        }
        let script = work.join("image.sh");
        fs::write(&script, SCRIPT).map_err(Fault::file("write", &script))?;
        let disk = work.join("disk");
        let [boot, root] = partitions(firmware);
        let mut command = debian::inside(&unshare, &mke2fs);
        command
            .arg(&script)
            .args([&archive, &packages, &additions])
            .arg(agent.name());
        let tree = kernel.image.parent().and_then(Path::parent);
        command.arg(tree.unwrap_or(Path::new("/")));
        command.arg(&release).arg(&disk).args([
            (root.first * SECTOR).to_string(),
            UUID.to_owned(),
            (root.sectors * SECTOR / 1024).to_string(),
        ]);
        step.run(&mut command, &String::new)?;
        distro::without_errors(&work.join("initramfs.log"))?;
        let file = File::options().write(true).open(&disk);
        let file = file.map_err(Fault::file("write", &disk))?;
        file.set_len(SIZE).map_err(Fault::file("write", &disk))?;
        loader.install(&file, &disk, SIZE / SECTOR, &[boot, root], UUID)?;
        for old in list(lab.directory()) {
            let name = old.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&prefix) {
                fs::remove_file(&old).map_err(Fault::file("remove", &old))?;
            }
        }
        fs::rename(&disk, &image).map_err(Fault::file("rename", &disk))?;
        step.end();
    }
    remove_directory(&work)?;
    Ok(image)
}

/// Gives the processor that an image is for, which must be the one of the machine that makes it.
fn processor(host: Option<Arch>) -> Result<Arch, Fault> {
    match host {
        Some(Arch::X86_64) => Ok(Arch::X86_64),
        _ => Err(Fault::Missing {
            what: "a whole disk image".to_owned(),
            fix: "it is made on the processor that it is for; use an x86_64 machine".to_owned(),
        }),
    }
}

/// Writes an image down in a format; a file of that name is replaced.
pub fn write(lab: &Lab, image: &Path, format: Format, output: &Path) -> Result<(), Fault> {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = output.with_file_name(name);
    let mut command = lab.tool("qemu-img")?.command();
    command.args(["convert", "-f", "raw", "-O"]);
    command.args(format.words()).arg(image).arg(&part);
    let written = progress::run(&mut command)
        .and_then(|_| fs::rename(&part, output).map_err(Fault::file("write", output)));
    if written.is_err() {
        // It may not even have been begun.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Gives the boot loader's partition and the root's.
fn partitions(firmware: Firmware) -> [Partition; 2] {
    let boot = Partition {
        kind: match firmware {
            Firmware::Bios => Kind::BiosBoot,
            Firmware::Uefi => Kind::EfiSystem,
        },
        id: BOOT_ID,
        name: "boot",
        first: FIRST,
        sectors: BOOT_SIZE / SECTOR,
    };
    let first = boot.first + boot.sectors;
    let root = Partition {
        kind: Kind::Linux,
        id: ROOT_ID,
        name: "root",
        first,
        sectors: (SIZE - END) / SECTOR - first,
    };
    [boot, root]
}

/// Writes what a disk has besides its Debian.
fn add(tree: &Path, agent: Agent, menu: &str) -> Result<(), Fault> {
    let fstab = format!("UUID={UUID} / ext4 defaults,errors=remount-ro 0 1\n");
    let mut drivers = DRIVERS.to_owned();
    let mut files = vec![
        ("boot/grub/grub.cfg", menu, 0o644),
        // Else cloud-init makes that of the United States, for which there are no files.
        ("etc/default/locale", "LANG=C.UTF-8\n", 0o644),
        ("etc/fstab", fstab.as_str(), 0o644),
        // While the initramfs is made there is no root to ask for its kind.
        (
            "etc/initramfs-tools/conf.d/lab",
            "FSTYPE=ext4\nMODULES=list\n",
            0o644,
        ),
    ];
    match agent {
        // Azure's card is there by its own doing; the emulator's is not.
        Agent::Preroot => drivers.push_str("virtio_net\n"),
        Agent::CloudInit => files.push(("etc/cloud/cloud.cfg.d/90-lab.cfg", KEYS, 0o644)),
        Agent::Waagent => files.push(("etc/network/interfaces", INTERFACES, 0o644)),
    }
    files.push(("etc/initramfs-tools/modules", &drivers, 0o644));
    let masked = MASKED.map(|unit| format!("etc/systemd/system/{unit}"));
    let links = masked.iter().map(|unit| (unit.as_str(), "/dev/null"));
    debian::add(tree, &files, &links.collect::<Vec<_>>())
}

/// Gives what a file's name ends with; when the recipe or the product changes it is another.
fn key(archive: &Path, release: &str, additions: &Path) -> Result<String, Fault> {
    let mut hash = Sha256::new();
    hash.update(include_str!("image.rs"));
    hash.update(include_str!("image/loader.rs"));
    hash.update(include_str!("gpt.rs"));
    hash.update(SCRIPT);
    // Their names say what is in them.
    hash.update(archive.as_os_str().as_encoded_bytes());
    hash.update(release);
    distro::digest(additions, &mut hash)?;
    let mut key = String::new();
    for byte in hash.finalize().iter().take(6) {
        let _ = write!(key, "{byte:02x}");
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt::{self, BEHIND};

    #[test]
    fn table_is_what_another_program_reads_in_it() {
        let lab = Lab::open().unwrap();
        for (firmware, boot) in [
            (Firmware::Bios, "21686148-6449-6E6F-744E-656564454649"),
            (Firmware::Uefi, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"),
        ] {
            let name = format!("lab-table-{firmware:?}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let sectors = SIZE / SECTOR;
            let tables = gpt::tables(ROOT_ID, sectors, &partitions(firmware));
            let file = File::create(&path).unwrap();
            file.set_len(SIZE).unwrap();
            let write = |bytes: &[u8], at| {
                use std::os::unix::fs::FileExt as _;
                file.write_all_at(bytes, at * SECTOR).unwrap();
            };
            write(&tables.head, 0);
            write(&tables.tail, sectors - BEHIND);
            let mut sfdisk = lab.tool("sfdisk").unwrap().command();
            let read = progress::run(sfdisk.arg("--json").arg(&path)).unwrap();
            let verified = |argument: &str| {
                let mut sfdisk = lab.tool("sfdisk").unwrap().command();
                progress::run(sfdisk.arg(argument).arg(&path)).unwrap()
            };
            assert!(verified("--verify").contains("No errors detected"));
            fs::remove_file(&path).unwrap();
            let read: serde_json::Value = serde_json::from_str(&read).unwrap();
            let table = &read["partitiontable"];
            assert_eq!(table["label"], "gpt");
            assert_eq!(table["id"], ROOT_ID.to_uppercase());
            let linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
            // In sectors: 1 MiB, 5 MiB, and all but a MiB of the rest.
            for (index, start, size, kind, name) in [
                (0, 2048, 10240, boot, "boot"),
                (1, 12288, 1_214_464, linux, "root"),
            ] {
                let partition = &table["partitions"][index];
                assert_eq!(partition["start"], start);
                assert_eq!(partition["size"], size);
                assert_eq!(partition["type"], kind);
                assert_eq!(partition["name"], name);
            }
            assert!(table["partitions"][2].is_null());
        }
    }

    #[test]
    fn vhd_has_a_size_that_azure_takes() {
        let lab = Lab::open().unwrap();
        let name = format!("lab-vhd-{}", std::process::id());
        let raw = std::env::temp_dir().join(&name);
        let vhd = raw.with_extension("vhd");
        let file = File::create(&raw).unwrap();
        file.set_len(3 * MIB).unwrap();
        write(&lab, &raw, Format::Vhd, &vhd).unwrap();
        let bytes = fs::read(&vhd).unwrap();
        fs::remove_file(&raw).unwrap();
        fs::remove_file(&vhd).unwrap();
        // Microsoft's Virtual Hard Disk Image Format Specification: the footer stands behind the data;
        // in it the current size at 48 and the type at 60, of which 2 is fixed.
        assert_eq!(bytes.len() as u64, 3 * MIB + 512);
        let footer = &bytes[3 << 20..];
        assert_eq!(footer[..8], *b"conectix");
        assert_eq!(footer[48..56], (3 * MIB).to_be_bytes());
        assert_eq!(footer[60..64], [0, 0, 0, 2]);
        assert!(SIZE.is_multiple_of(MIB));
    }

    #[test]
    fn file_that_cannot_be_written_leaves_nothing_behind() {
        let lab = Lab::open().unwrap();
        let directory = std::env::temp_dir().join(format!("lab-write-{}", std::process::id()));
        create_directory(&directory).unwrap();
        let absent = directory.join("absent");
        let output = directory.join("disk.raw");
        write(&lab, &absent, Format::Raw, &output).unwrap_err();
        assert!(list(&directory).is_empty());
        remove_directory(&directory).unwrap();
    }

    #[test]
    fn other_processor_is_refused_with_advice() {
        for host in [Some(Arch::Aarch64), None] {
            let said = processor(host).unwrap_err().to_string();
            assert!(said.contains("use an x86_64 machine"), "{said}");
        }
        assert_eq!(processor(Some(Arch::X86_64)).unwrap(), Arch::X86_64);
    }

    #[test]
    fn agents_have_nothing_of_each_other() {
        for agent in Agent::ALL {
            let tree = std::env::temp_dir().join(format!(
                "lab-image-{}-{}",
                agent.name(),
                std::process::id()
            ));
            add(&tree, agent, "").unwrap();
            let has = |path: &str| tree.join(path).exists();
            assert_eq!(has("etc/cloud"), agent == Agent::CloudInit);
            assert_eq!(has("etc/network"), agent == Agent::Waagent);
            assert!(tree.join("etc/systemd/system/fstrim.timer").is_symlink());
            remove_directory(&tree).unwrap();
        }
    }
}
