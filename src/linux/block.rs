//! Block devices: optical drives, and the one that holds the root.
//!
//! Not a device manager: nothing is remembered, every question looks at sysfs anew, and the nodes are
//! devtmpfs's. Follows the kernel's `Documentation/ABI/testing/sysfs-block` and, for the drives,
//! `include/uapi/linux/cdrom.h`.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ffi::c_void;
use core::fmt;
use core::ops::ControlFlow;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, OFlags};
use rustix::io::{self, Errno};
use rustix::ioctl::{IntegerSetter, Ioctl, IoctlOutput, NoArg, Opcode};

use super::{path, sysfs};
use crate::wire::cmdline::RootSpec;
use crate::wire::gpt;
use crate::wire::superblock::{Kind, PROBE_BYTES, Superblock};
use crate::wire::uevent::Properties;

/// Longest name of a device; the kernel's own limit (`DISK_NAME_LEN`).
const MAX_NAME: usize = 32;
/// Optical drives that are looked at; a VM has one or two.
const MAX_DRIVES: usize = 8;
/// Longest path of a node: directory, name, and what a test puts in front.
const MAX_PATH: usize = 256;

/// The path of a device node.
pub type NodePath = String;

/// What an optical drive says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveStatus {
    /// It does not tell.
    NoInfo,
    /// It is empty.
    NoDisc,
    /// Its tray is out.
    TrayOpen,
    /// It is still looking: ask again later.
    NotReady,
    /// It holds a disc.
    DiscOk,
}

/// `CDROM_DRIVE_STATUS` of the slot in use.
struct StatusQuery;

const CDROM_DRIVE_STATUS: Opcode = 0x5326;
const CDROMEJECT: Opcode = 0x5309;
const CDROM_LOCKDOOR: Opcode = 0x5329;
/// `CDSL_CURRENT`, which is `INT_MAX`.
const CURRENT_SLOT: usize = i32::MAX as usize;

// SAFETY: the request takes a plain number, neither reads nor writes memory of ours, and its answer
// is the return value.
unsafe impl Ioctl for StatusQuery {
    type Output = DriveStatus;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        CDROM_DRIVE_STATUS
    }

    fn as_ptr(&mut self) -> *mut c_void {
        core::ptr::without_provenance_mut(CURRENT_SLOT)
    }

    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> io::Result<DriveStatus> {
        Ok(match answer {
            1 => DriveStatus::NoDisc,
            2 => DriveStatus::TrayOpen,
            3 => DriveStatus::NotReady,
            4 => DriveStatus::DiscOk,
            _ => DriveStatus::NoInfo,
        })
    }
}

/// An optical drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    name: String,
    path: NodePath,
}

/// Lists the optical drives that are there now, by name.
pub fn optical_drives() -> Vec<Drive> {
    Places::HOST.optical_drives()
}

/// Tells whether a device is an optical drive, by its name or its path in sysfs.
pub fn is_optical(path: &str) -> bool {
    let name = path.rsplit('/').next();
    name.and_then(|name| name.strip_prefix("sr"))
        .is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
        })
}

impl Drive {
    /// Gives the kernel's name, such as `sr0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the path of its node.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Asks the drive for its state, without waiting for a disc.
    pub fn status(&self) -> io::Result<DriveStatus> {
        let drive = self.control()?;
        // SAFETY: the request is one that `sr` and `cdrom` know and others refuse.
        unsafe { rustix::ioctl::ioctl(&drive, StatusQuery) }
    }

    /// Opens the disc for reading; the kernel takes its size anew.
    pub fn open(&self) -> io::Result<Media> {
        Media::open(&self.path)
    }

    /// Unlocks the door and opens the tray. The disc must not be mounted or open.
    pub fn eject(&self) -> io::Result<()> {
        let drive = self.control()?;
        // SAFETY: the request takes a plain number.
        let unlock = unsafe { IntegerSetter::<CDROM_LOCKDOOR>::new_usize(0) };
        // A drive without a lock refuses this, and may well open.
        // SAFETY: as above; nothing of ours is read or written.
        let _ = unsafe { rustix::ioctl::ioctl(&drive, unlock) };
        // SAFETY: the request takes nothing.
        let eject = unsafe { NoArg::<CDROMEJECT>::new() };
        // SAFETY: as above; nothing of ours is read or written.
        unsafe { rustix::ioctl::ioctl(&drive, eject) }
    }

    /// Opens the drive itself: without `O_NONBLOCK` the kernel asks for a disc.
    fn control(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        path::open(CWD, &self.path, flags)
    }
}

/// A disc, a disk, or an image of one, open for reading.
pub struct Media {
    file: OwnedFd,
    position: u64,
    length: u64,
}

impl Media {
    /// Opens a device or a file; `ENOMEDIUM` and an empty file are the same to callers.
    pub fn open(path: &str) -> io::Result<Self> {
        let file = path::open(CWD, path, OFlags::RDONLY)?;
        let length = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?;
        if length == 0 {
            return Err(Errno::NOMEDIUM);
        }
        Ok(Self {
            file,
            position: 0,
            length,
        })
    }

    /// Gives the length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl AsFd for Media {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A failed read, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaFault(pub Errno);

impl fmt::Display for MediaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Errno::IO => "the device reports a read error",
            Errno::NOMEDIUM => "there is no disc",
            Errno::INVAL => "that lies outside the device",
            _ => "the device cannot be read",
        })
    }
}

impl core::error::Error for MediaFault {}

impl embedded_io::Error for MediaFault {
    fn kind(&self) -> embedded_io::ErrorKind {
        match self.0 {
            Errno::NOMEDIUM | Errno::NOENT | Errno::NODEV | Errno::NXIO => {
                embedded_io::ErrorKind::NotFound
            }
            Errno::INVAL => embedded_io::ErrorKind::InvalidInput,
            _ => embedded_io::ErrorKind::Other,
        }
    }
}

impl embedded_io::ErrorType for Media {
    type Error = MediaFault;
}

impl embedded_io::Read for Media {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, MediaFault> {
        let n = loop {
            match rustix::io::pread(&self.file, &mut *buffer, self.position) {
                Err(Errno::INTR) => {}
                other => break other.map_err(MediaFault)?,
            }
        };
        self.position = self.position.saturating_add(n as u64);
        Ok(n)
    }
}

impl embedded_io::Seek for Media {
    fn seek(&mut self, to: embedded_io::SeekFrom) -> Result<u64, MediaFault> {
        let place = match to {
            embedded_io::SeekFrom::Start(place) => Some(place),
            embedded_io::SeekFrom::End(by) => self.length.checked_add_signed(by),
            embedded_io::SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        // The kernel's offsets have a sign.
        self.position = place
            .filter(|place| i64::try_from(*place).is_ok())
            .ok_or(MediaFault(Errno::INVAL))?;
        Ok(self.position)
    }
}

/// The device that a `root=` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The path of its node.
    pub path: NodePath,
    /// What lies on it; `None` when that is nothing we know.
    pub kind: Option<Kind>,
    /// Whether the kernel holds it read-only.
    pub read_only: bool,
    /// How many further devices fit the same words; this one is the first by name.
    pub others: u8,
}

/// Looks for the device; `None` when it is not there (yet).
pub fn find(spec: &RootSpec) -> Option<Device> {
    Places::HOST.find(spec)
}

/// Where sysfs and the nodes are.
#[derive(Clone, Copy)]
struct Places<'a> {
    sys: &'a str,
    dev: &'a str,
}

/// One device as sysfs shows it.
struct Node {
    name: String,
    directory: OwnedFd,
    uevent: Vec<u8>,
}

impl Node {
    fn open(name: &str, directory: OwnedFd) -> Option<Self> {
        if name.len() > MAX_NAME {
            return None;
        }
        let uevent = sysfs::read(&directory, "uevent", &mut [0; 1024])
            .ok()?
            .into();
        let node = Self {
            name: name.into(),
            directory,
            uevent,
        };
        // The hidden paths of a multipath NVMe disk have no node.
        node.properties().value("DEVNAME").is_some().then_some(node)
    }

    fn properties(&self) -> Properties<'_> {
        Properties::of_file(&self.uevent)
    }

    /// Gives the partition's number; `None` for a whole disk.
    fn partition(&self) -> Option<u32> {
        self.properties().value("PARTN")?.parse().ok()
    }

    /// Gives the disk that this is a partition of.
    fn disk(&self) -> Option<Self> {
        Self::open("disk", sysfs::open_directory(&self.directory, "..").ok()?)
    }

    /// Tells whether it is worth reading: floppies and optical drives take seconds to say no.
    fn is_disk(&self) -> bool {
        let skipped = ["sr", "fd", "ram", "zram"];
        let is_skipped = skipped.iter().any(|kind| {
            let number = self.name.strip_prefix(kind);
            number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        });
        // A loop device without a file has no size either.
        !is_skipped && sysfs::read_number(&self.directory, "size").is_some_and(|size| size > 0)
    }

    /// Tells whether the kernel found partitions on it.
    fn is_partitioned(&self) -> bool {
        let Ok(listing) = sysfs::open_directory(&self.directory, ".") else {
            return false;
        };
        let mut found = false;
        let _ = sysfs::each_name(&listing, &mut |name, _| {
            found |= name.starts_with(self.name.as_str());
        });
        found
    }
}

impl Places<'_> {
    const HOST: Places<'static> = Places {
        sys: "/sys",
        dev: "/dev",
    };

    fn class(self) -> io::Result<OwnedFd> {
        sysfs::open_directory(CWD, &join(&[self.sys, "/class/block"]))
    }

    /// Shows every block device.
    fn each(self, visit: &mut dyn FnMut(Node)) {
        let Ok(class) = self.class() else { return };
        let Ok(listing) = sysfs::open_directory(&class, ".") else {
            return;
        };
        let _ = sysfs::each_name(&listing, &mut |name, _| {
            let directory = sysfs::open_directory(&class, name).ok();
            if let Some(node) = directory.and_then(|directory| Node::open(name, directory)) {
                visit(node);
            }
        });
    }

    fn optical_drives(self) -> Vec<Drive> {
        let mut drives = Vec::<Drive>::new();
        self.each(&mut |node| {
            // A ninth drive is not looked at.
            if drives.len() < MAX_DRIVES && is_optical(&node.name) {
                let path = self.path(&node);
                let name = node.name;
                let place = drives.partition_point(|known| by_name(&known.name, &name).is_lt());
                drives.insert(place, Drive { name, path });
            }
        });
        drives
    }

    fn path(self, node: &Node) -> NodePath {
        join(&[
            self.dev,
            "/",
            node.properties().value("DEVNAME").unwrap_or(""),
        ])
    }

    fn find(self, spec: &RootSpec) -> Option<Device> {
        match spec {
            RootSpec::Device(path) => {
                // sysfs has a name with a slash in it as `cciss!c0d0`.
                let mut name = String::new();
                for letter in path.strip_prefix("/dev/")?.chars() {
                    name.push(if letter == '/' { '!' } else { letter });
                }
                let directory = sysfs::open_directory(self.class().ok()?, &name).ok()?;
                Some(self.device(&Node::open(&name, directory)?, 0))
            }
            RootSpec::Number { major, minor } => {
                let mut path = join(&[self.sys, "/dev/block/"]);
                fmt::Write::write_fmt(&mut path, format_args!("{major}:{minor}")).ok()?;
                Some(self.device(
                    &Node::open("numbered", sysfs::open_directory(CWD, &path).ok()?)?,
                    0,
                ))
            }
            RootSpec::Uuid(uuid) => {
                self.first(&|node| self.superblock_fits(node, &|found| found.has_uuid(uuid)))
            }
            RootSpec::Label(label) => self
                .first(&|node| self.superblock_fits(node, &|found| found.label == *label.as_str())),
            RootSpec::PartLabel(label) => self.first(&|node| self.has_partition_label(node, label)),
            RootSpec::PartUuid { id, offset: 0 } => {
                self.first(&|node| self.has_partition_id(node, id))
            }
            RootSpec::PartUuid { id, offset } => self.first(&|node| {
                let number = node
                    .partition()
                    .and_then(|number| number.checked_add_signed(offset.wrapping_neg()));
                number.is_some_and(|number| {
                    self.table_has(node, number, &|found| found.id.eq_ignore_ascii_case(id))
                })
            }),
        }
    }

    /// Gives the first device by name of all that fit.
    fn first(self, fits: &dyn Fn(&Node) -> bool) -> Option<Device> {
        let mut best: Option<Node> = None;
        let mut count = 0_u8;
        self.each(&mut |node| {
            if node.is_disk() && fits(&node) {
                count = count.saturating_add(1);
                if best
                    .as_ref()
                    .is_none_or(|best| by_name(&node.name, &best.name).is_lt())
                {
                    best = Some(node);
                }
            }
        });
        Some(self.device(&best?, count.saturating_sub(1)))
    }

    fn device(self, node: &Node, others: u8) -> Device {
        let path = self.path(node);
        Device {
            kind: probe(&path).map(|found| found.kind),
            read_only: sysfs::read_number(&node.directory, "ro") == Some(1),
            path,
            others,
        }
    }

    /// Reads the superblock of a partition or of a disk that has none.
    fn superblock_fits(self, node: &Node, fits: &dyn Fn(&Superblock) -> bool) -> bool {
        // A disc image written to a disk shows the same file system on the disk and on its partition.
        if node.partition().is_none() && node.is_partitioned() {
            return false;
        }
        probe(&self.path(node)).is_some_and(|found| fits(&found))
    }

    fn has_partition_id(self, node: &Node, id: &str) -> bool {
        // Kernels from 6.16 on tell it.
        if let Some(told) = node.properties().value("PARTUUID") {
            return told.eq_ignore_ascii_case(id);
        }
        let number = node.partition();
        number.is_some_and(|number| {
            self.table_has(node, number, &|found| found.id.eq_ignore_ascii_case(id))
        })
    }

    fn has_partition_label(self, node: &Node, label: &str) -> bool {
        // The kernel puts `!` where a letter is not ASCII: then only the table knows.
        match node.properties().value("PARTNAME") {
            Some(told) if label.is_ascii() => told == label,
            _ => {
                let number = node.partition();
                number.is_some_and(|number| {
                    self.table_has(node, number, &|found| found.label == *label)
                })
            }
        }
    }

    /// Looks into the partition table of the disk that `node` is on.
    fn table_has(self, node: &Node, number: u32, fits: &dyn Fn(&gpt::Partition) -> bool) -> bool {
        let Some(disk) = node.disk() else {
            return false;
        };
        let Ok(media) = Media::open(&self.path(&disk)) else {
            return false;
        };
        let sector = sysfs::read_number(&disk.directory, "queue/logical_block_size").unwrap_or(512);
        let mut found = false;
        let _ = gpt::each_partition(media, sector as usize, &mut |partition| {
            found |= partition.number == number && fits(partition);
            if found {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        found
    }
}

/// Tells what lies on a device; `None` when it is nothing known or cannot be read.
pub fn probe(path: &str) -> Option<Superblock> {
    let file = path::open(CWD, path, OFlags::RDONLY).ok()?;
    let mut bytes = alloc::vec![0; PROBE_BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(&file, &mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            // What was read so far may do.
            Err(_) => break,
        }
    }
    Superblock::parse(&bytes[..filled])
}

/// Orders `sda2` before `sda10`.
fn by_name(one: &str, other: &str) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// Puts pieces of a path together; one that is too long is empty, which no file is.
fn join(pieces: &[&str]) -> NodePath {
    let path = pieces.concat();
    if path.len() > MAX_PATH {
        return NodePath::new();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_io::{Read as _, Seek as _, SeekFrom};
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::string::{String, ToString};
    use std::{format, fs, vec};

    /// A sysfs and a devtmpfs of files.
    struct Host(PathBuf);

    impl Host {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("preroot-block-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            for directory in ["sys/class/block", "sys/dev/block", "sys/devices", "dev"] {
                fs::create_dir_all(path.join(directory)).unwrap();
            }
            Self(path)
        }

        /// Adds a device: `sda`, or `sda/sda1` with its number in the uevent text.
        fn add(&self, place: &str, uevent: &str, content: &[u8]) -> &Self {
            let name = place.rsplit('/').next().unwrap();
            let directory = self.0.join("sys/devices").join(place);
            fs::create_dir_all(&directory).unwrap();
            let numbers = self.0.join("sys/dev/block").read_dir().unwrap().count();
            fs::write(
                directory.join("uevent"),
                format!("MAJOR=8\nMINOR={numbers}\nDEVNAME={name}\n{uevent}"),
            )
            .unwrap();
            fs::write(directory.join("size"), format!("{}\n", content.len() / 512)).unwrap();
            fs::write(directory.join("ro"), "0\n").unwrap();
            fs::write(self.0.join("dev").join(name), content).unwrap();
            symlink(&directory, self.0.join("sys/class/block").join(name)).unwrap();
            symlink(
                &directory,
                self.0.join("sys/dev/block").join(format!("8:{numbers}")),
            )
            .unwrap();
            self
        }

        fn ask<T>(&self, question: impl FnOnce(Places<'_>) -> T) -> T {
            let path = |name: &str| self.0.join(name).to_str().unwrap().to_string();
            question(Places {
                sys: &path("sys"),
                dev: &path("dev"),
            })
        }

        fn optical_drives(&self) -> std::vec::Vec<Drive> {
            self.ask(|places| places.optical_drives().into_iter().collect())
        }

        /// Gives the found node's name and the number of others.
        fn find(&self, root: &str) -> Option<(String, u8)> {
            let spec = RootSpec::parse(root).unwrap();
            let device = self.ask(|places| places.find(&spec))?;
            let name = Path::new(device.path.as_str()).file_name().unwrap();
            Some((name.to_str().unwrap().to_string(), device.others))
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Reads the `od -Ax -tx1` form of the test data into `len` bytes.
    fn image(path: &str, len: usize) -> std::vec::Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data")
            .join(path);
        let mut bytes = vec![0; len];
        for line in fs::read_to_string(path)
            .unwrap()
            .lines()
            .filter(|line| line.contains(' '))
        {
            let mut words = line.split_ascii_whitespace();
            let offset = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
            for (at, word) in words.enumerate() {
                bytes[offset + at] = u8::from_str_radix(word, 16).unwrap();
            }
        }
        bytes
    }

    fn file_system(name: &str) -> std::vec::Vec<u8> {
        image(&format!("superblock/{name}.hex"), PROBE_BYTES)
    }

    /// A disc drive, a disk with a GPT and three partitions, and a disk without any.
    fn host(name: &str) -> Host {
        let host = Host::new(name);
        let partition = |number: u32, name: &str| {
            format!("DEVTYPE=partition\nPARTN={number}\nPARTNAME={name}\n")
        };
        host.add(
            "sda",
            "DEVTYPE=disk\n",
            &image("partitions/gpt.hex", 8 << 20),
        )
        .add(
            "sda/sda1",
            &partition(1, "EFI System"),
            &file_system("fat32"),
        )
        .add("sda/sda2", &partition(2, "root"), &file_system("ext4"))
        .add("sda/sda5", &partition(5, "gr!!e"), &file_system("xfs"))
        .add("sdb", "DEVTYPE=disk\n", &file_system("btrfs"))
        .add("sr1", "DEVTYPE=disk\n", &file_system("bridge"))
        .add("sr0", "DEVTYPE=disk\n", &file_system("ext4"))
        .add("loop0", "DEVTYPE=disk\n", b"")
        .add("ram0", "DEVTYPE=disk\n", &file_system("ext3"));
        host
    }

    #[test]
    fn the_root_is_found_by_every_name_it_has() {
        let host = host("names");
        let is = |name: &str| Some((name.to_string(), 0));
        assert_eq!(host.find("/dev/sda2"), is("sda2"));
        assert_eq!(host.find("8:2"), is("sda2"));
        assert_eq!(host.find("LABEL=root\\x20ext4"), is("sda2"));
        assert_eq!(host.find("LABEL=EFI\\x20SYSTEM"), is("sda1"));
        assert_eq!(host.find("UUID=1234-abcd"), is("sda1"));
        assert_eq!(host.find("PARTLABEL=root"), is("sda2"));
        assert_eq!(host.find("PARTLABEL=größe"), is("sda5"));
        assert_eq!(
            host.find("PARTUUID=ABCDEF01-2345-6789-abcd-ef0123456789"),
            is("sda2")
        );
        assert_eq!(
            host.find("PARTUUID=11111111-2222-3333-4444-555555555501/PARTNROFF=1"),
            is("sda2")
        );
        assert_eq!(
            host.find("PARTUUID=11111111-2222-3333-4444-555555555505/PARTNROFF=-3"),
            is("sda2")
        );
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let host = host("nothing");
        for root in [
            "/dev/sdc",
            "9:9",
            "LABEL=other",
            "PARTLABEL=other",
            "PARTUUID=1234abcd-01",
            "LABEL=root\\x20ext3",
        ] {
            assert_eq!(host.find(root), None, "{root}");
        }
    }

    #[test]
    fn of_several_that_fit_the_first_by_name_is_taken_and_the_others_counted() {
        let host = host("several");
        // The xfs of sda5 and the btrfs of sdb have the same id as the ext4 of sda2.
        let uuid = "UUID=11111111-2222-3333-4444-5555555555FF";
        assert_eq!(host.find(uuid), Some(("sdb".to_string(), 2)));
        host.add(
            "sda/sda10",
            "DEVTYPE=partition\nPARTN=10\nPARTNAME=root\n",
            &file_system("ext4"),
        );
        assert_eq!(host.find("PARTLABEL=root"), Some(("sda2".to_string(), 1)));
    }

    #[test]
    fn an_id_that_the_kernel_tells_needs_no_table() {
        let host = Host::new("told");
        host.add("vda", "DEVTYPE=disk\n", b"");
        host.add(
            "vda/vda1",
            "PARTN=1\nPARTUUID=aa-01\n",
            &file_system("ext4"),
        );
        assert_eq!(host.find("PARTUUID=AA-01"), Some(("vda1".to_string(), 0)));
    }

    #[test]
    fn the_device_tells_its_type_and_whether_it_is_writable() {
        let host = host("type");
        let spec = RootSpec::parse("/dev/sda2").unwrap();
        let device = host.ask(|places| places.find(&spec)).unwrap();
        assert_eq!((device.kind, device.read_only), (Some(Kind::Ext4), false));
        fs::write(host.0.join("sys/devices/sda/sda2/ro"), "1\n").unwrap();
        assert!(host.ask(|places| places.find(&spec)).unwrap().read_only);
    }

    #[test]
    fn a_disk_with_partitions_is_not_taken_for_the_file_system_on_its_partition() {
        let host = Host::new("hybrid");
        host.add("sda", "DEVTYPE=disk\n", &file_system("ext4"));
        assert_eq!(
            host.find("LABEL=root\\x20ext4"),
            Some(("sda".to_string(), 0))
        );
        host.add("sda/sda1", "PARTN=1\n", &file_system("ext4"));
        assert_eq!(
            host.find("LABEL=root\\x20ext4"),
            Some(("sda1".to_string(), 0))
        );
    }

    #[test]
    fn optical_drives_are_listed_by_name() {
        let drives = host("drives").optical_drives();
        assert_eq!(
            drives.iter().map(Drive::name).collect::<std::vec::Vec<_>>(),
            ["sr0", "sr1"]
        );
        assert!(drives[0].path().ends_with("/dev/sr0"));
    }

    #[test]
    fn drive_is_known_by_its_name() {
        let path = "/devices/pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/block/sr0";
        assert!(is_optical(path));
        assert!(is_optical("sr12"));
        for other in [
            "/devices/pci0000:00/0000:00:01.1/ata2",
            "sr",
            "srx",
            "sr0/x",
            "sda",
            "",
        ] {
            assert!(!is_optical(other), "{other}");
        }
    }

    #[test]
    fn a_file_is_no_drive() {
        let host = host("file");
        let drive = &host.optical_drives()[0];
        assert_eq!(drive.status(), Err(Errno::NOTTY));
        assert_eq!(drive.eject(), Err(Errno::NOTTY));
    }

    #[test]
    fn media_are_read_at_any_place() {
        let host = host("media");
        let path = host.0.join("dev/x");
        fs::write(&path, b"0123456789").unwrap();
        let mut media = Media::open(path.to_str().unwrap()).unwrap();
        assert_eq!(media.length(), 10);
        let mut two = [0; 2];
        assert_eq!(media.seek(SeekFrom::Start(4)), Ok(4));
        media.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"45");
        assert_eq!(media.seek(SeekFrom::Current(-1)), Ok(5));
        media.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"56");
        assert_eq!(media.seek(SeekFrom::End(-1)), Ok(9));
        assert_eq!(media.read(&mut two), Ok(1));
        assert_eq!(media.read(&mut two), Ok(0));
        assert_eq!(
            media.seek(SeekFrom::Current(-11)),
            Err(MediaFault(Errno::INVAL))
        );
        assert_eq!(
            media.seek(SeekFrom::Start(u64::MAX)),
            Err(MediaFault(Errno::INVAL))
        );
    }

    #[test]
    fn an_empty_image_is_no_medium() {
        let host = host("empty");
        let path = host.0.join("dev/loop0");
        assert_eq!(
            Media::open(path.to_str().unwrap()).err(),
            Some(Errno::NOMEDIUM)
        );
        assert_eq!(Media::open("/nonexistent").err(), Some(Errno::NOENT));
    }

    #[test]
    fn a_path_that_is_too_long_is_no_path() {
        assert_eq!(join(&["/sys", &"x".repeat(MAX_PATH)]).as_str(), "");
    }
}
