//! What agents wrote into their logs, read off a machine's disk without mounting it.
//!
//! Only ext2, ext3 and ext4 can be read here; of anything else it is said what it is.

use std::fs;
use std::path::Path;

use super::image;
use super::table::{HEAD, Partition, Purpose, Table};
use crate::ext4;
use crate::fault::Fault;
use crate::fetch::Lab;

/// Where agents leave something about themselves.
const PATHS: [&str; 5] = [
    "/var/log/waagent.log",
    "/var/log/cloud-init.log",
    "/var/log/cloud-init-output.log",
    "/var/log/azure-init.log",
    REPORT,
];

/// What preroot leaves, for programs.
pub const REPORT: &str = "/var/lib/preroot/report.json";

/// One log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where it was.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// What was found on a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The logs.
    pub logs: Vec<Log>,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
}

impl Found {
    /// Writes the logs to files of a directory.
    pub(super) fn keep(&self, directory: &Path) -> Result<(), Fault> {
        for log in &self.logs {
            let name = log.path.rsplit('/').next().unwrap_or_default();
            let path = directory.join(name);
            fs::write(&path, &log.text).map_err(Fault::file("write", &path))?;
        }
        Ok(())
    }
}

/// Looks for logs on all partitions of a qcow2 image; `work` is a directory for copies.
pub(super) fn read(
    lab: &Lab,
    image: &Path,
    size: u64,
    table: &Table,
    work: &Path,
) -> Result<Found, Fault> {
    let whole = [Partition {
        number: 0,
        start: 0,
        length: size,
        purpose: Purpose::Other,
    }];
    let partitions = match &table.partitions[..] {
        [] => &whole[..],
        partitions => partitions,
    };
    let mut found = Found::default();
    for partition in partitions {
        if partition.purpose != Purpose::Other || partition.start >= size {
            continue;
        }
        let length = partition.length.min(size - partition.start);
        let place = |length| (partition.start, length);
        let copy = work.join("partition.img");
        let head = image::read(lab, image, place(length.min(HEAD as u64)), &copy)?;
        match FileSystem::of(&head) {
            Some(FileSystem::Ext) => {
                image::copy(lab, image, place(length), &copy)?;
                found.logs.extend(logs(lab, &copy)?);
            }
            Some(FileSystem::Other(name)) => found.unreadable.push(format!(
                "partition {} is {name}, which cannot be read here",
                partition.number
            )),
            None => {}
        }
        fs::remove_file(&copy).map_err(Fault::file("remove", &copy))?;
    }
    Ok(found)
}

/// Reads the logs of one file system, which is a copy that may be repaired.
fn logs(lab: &Lab, copy: &Path) -> Result<Vec<Log>, Fault> {
    // A machine that was ended by force has left its last words in the journal.
    let mut replay = lab.tool("e2fsck")?.command();
    replay.args(["-y", "-E", "journal_only"]).arg(copy);
    replay
        .output()
        .map_err(Fault::file("run e2fsck on", copy))?;
    let mut logs = Vec::new();
    for path in PATHS {
        // Of /var there may be a partition of its own.
        for inside in [path, path.trim_start_matches("/var")] {
            if let Some(bytes) = ext4::read(lab, copy, inside)? {
                logs.push(Log {
                    path: path.to_owned(),
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                });
                break;
            }
        }
    }
    Ok(logs)
}

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileSystem {
    /// One that debugfs reads.
    Ext,
    /// Another one that may hold a root.
    Other(&'static str),
}

impl FileSystem {
    /// Knows it by its first bytes, as the tools of each have them.
    fn of(head: &[u8]) -> Option<Self> {
        let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
        if has(1024 + 56, &[0x53, 0xef]) {
            return Some(Self::Ext);
        }
        let others: [(usize, &[u8], &str); 7] = [
            (0, b"XFSB", "xfs"),
            (0x1_0040, b"_BHRfS_M", "btrfs"),
            (0x200, b"LABELONE", "LVM"),
            (0, b"LUKS\xba\xbe", "encrypted"),
            (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "erofs"),
            (0, b"hsqs", "squashfs"),
            (0x400, &[0x10, 0x20, 0xf5, 0xf2], "f2fs"),
        ];
        let found = others.iter().find(|(at, magic, _)| has(*at, magic));
        found.map(|(_, _, name)| Self::Other(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_known_by_the_bytes_that_their_tools_write() {
        let with = |at: usize, magic: &[u8]| {
            let mut head = vec![0; 128 << 10];
            head[at..at + magic.len()].copy_from_slice(magic);
            FileSystem::of(&head)
        };
        assert_eq!(with(1080, b"\x53\xef"), Some(FileSystem::Ext));
        assert_eq!(with(0, b"XFSB"), Some(FileSystem::Other("xfs")));
        assert_eq!(with(65600, b"_BHRfS_M"), Some(FileSystem::Other("btrfs")));
        assert_eq!(with(512, b"LABELONE"), Some(FileSystem::Other("LVM")));
        assert_eq!(with(3, b"mkfs.fat"), None);
        assert_eq!(FileSystem::of(&[]), None);
    }
}
