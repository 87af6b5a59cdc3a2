//! Promises about the root: found by each of its names, and missed with a clear word.

use std::fs;

use super::scene::{Broken, Scene, Seen};
use crate::arch::Arch;
use crate::boot::Options;
use crate::fault::Fault;
use crate::gpt::{self, BEHIND, FIRST, Kind, Partition, SECTOR};
use crate::qemu::Exit;
use crate::rootfs;

/// The id and the name of the partition.
const UUID: &str = "8b6c7a52-3f19-4d20-9c41-d2e5f60718a9";
const LABEL: &str = "lab-partition";

/// The id of the disk.
const DISK: &str = "41d0a2c4-56e7-4f80-a1b2-c3d4e5f60718";

pub(super) fn missing(scene: &Scene) -> Result<(), Broken> {
    let root = "root=UUID=00000000-dead-4bad-8bad-000000000000";
    let seen = Seen::of(&scene.options(&[root, "rootwait=5"]))?;
    let words = "did not appear within 5 s";
    seen.says(words)?;
    seen.says("restart")?;
    seen.failure_told(words)?;
    seen.expect(!seen.0.words.began, || "a real init ran".to_owned())?;
    seen.expect(seen.0.exit == Exit::Restarted, || {
        format!(
            "the machine ended with {:?}, not with a restart",
            seen.0.exit
        )
    })
}

pub(super) fn by_label(scene: &Scene) -> Result<(), Broken> {
    found(scene, "LABEL=lab-root", false)
}

pub(super) fn by_device(scene: &Scene) -> Result<(), Broken> {
    found(scene, "/dev/vda", false)
}

pub(super) fn by_partition_device(scene: &Scene) -> Result<(), Broken> {
    found(scene, "/dev/vda1", true)
}

pub(super) fn by_partuuid(scene: &Scene) -> Result<(), Broken> {
    found(scene, &format!("PARTUUID={UUID}"), true)
}

pub(super) fn by_partlabel(scene: &Scene) -> Result<(), Broken> {
    found(scene, &format!("PARTLABEL={LABEL}"), true)
}

/// Boots with the root named in this way, on a disk with or without partitions.
///
/// Nothing is provisioned: that has its own promises, and takes its time.
fn found(scene: &Scene, name: &str, partitioned: bool) -> Result<(), Broken> {
    let mut options = scene.options(&[&format!("root={name}"), "preroot=off"]);
    if partitioned {
        let image = rootfs::image(&scene.lab, Arch::X86_64)?;
        let file_system = fs::read(&image).map_err(Fault::file("read", &image))?;
        let label: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let disk = scene.directory.join(format!("disk-{label}.img"));
        fs::write(&disk, partitioned_disk(&file_system)).map_err(Fault::file("write", &disk))?;
        options = Options {
            root_disk: Some(disk),
            ..options
        };
    }
    let seen = Seen::of(&options)?;
    seen.went_on()?;
    seen.says(&format!("mount ok root={name} "))?;
    let device = if partitioned { "/dev/vda1" } else { "/dev/vda" };
    let mounted = format!("{device} / ext4 rw");
    let mounts = &seen.0.words;
    let right = mounts
        .lines("mounts")
        .any(|line| line.starts_with(&mounted));
    seen.expect(right, || format!("`{mounted}` is not among the mounts"))
}

/// Makes a disk whose only partition holds this.
fn partitioned_disk(content: &[u8]) -> Vec<u8> {
    let partition = Partition {
        kind: Kind::Linux,
        id: UUID,
        name: LABEL,
        first: FIRST,
        sectors: (content.len() as u64).div_ceil(SECTOR),
    };
    let end = FIRST + partition.sectors;
    let tables = gpt::tables(DISK, end + BEHIND, &[partition]);
    let mut disk = tables.head;
    disk.resize((FIRST * SECTOR) as usize, 0);
    disk.extend(content);
    disk.resize((end * SECTOR) as usize, 0);
    disk.extend(tables.tail);
    disk
}
