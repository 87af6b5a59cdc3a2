//! What lies on a block device, told from its first bytes.
//!
//! Not a check that the file system is sound, and not all that `blkid` knows: the types that may hold
//! a root, the discs, and those that stand in the way of one (swap, LUKS, LVM, RAID), so that a
//! message can name them. Offsets follow the kernel's `fs/*/` headers, ECMA-119 and ECMA-167, the LUKS
//! and LVM2 on-disk formats and `md_p.h`; the answers are those of `blkid -p`.

use alloc::string::String;
use core::fmt::{self, Write as _};

/// How many first bytes of a device are looked at: the btrfs superblock at 64 KiB is the last.
///
/// Fewer are fine when the device is shorter. Not seen from here: RAID metadata at the end of a
/// device (md 0.90 and 1.0), and the label of a UDF volume, which lies behind 512 KiB.
pub const PROBE_BYTES: usize = 68 << 10;

/// The type of what lies on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext2: no journal, no newer features.
    Ext2,
    /// ext3: a journal, no newer features.
    Ext3,
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// EROFS.
    Erofs,
    /// `SquashFS` 4.
    Squashfs,
    /// FAT12, FAT16 or FAT32.
    Vfat,
    /// ISO 9660.
    Iso9660,
    /// UDF, also beside ISO 9660.
    Udf,
    /// Swap space.
    Swap,
    /// An encrypted container.
    Luks,
    /// A physical volume of LVM2.
    Lvm2,
    /// A member of a Linux software RAID.
    Md,
}

impl Kind {
    /// Gives the name that `blkid` and `rootfstype=` use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Erofs => "erofs",
            Self::Squashfs => "squashfs",
            Self::Vfat => "vfat",
            Self::Iso9660 => "iso9660",
            Self::Udf => "udf",
            Self::Swap => "swap",
            Self::Luks => "crypto_LUKS",
            Self::Lvm2 => "LVM2_member",
            Self::Md => "linux_raid_member",
        }
    }

    /// Gives the types to try in `mount`, best first; none when it cannot be mounted.
    ///
    /// The ext4 driver mounts its ancestors, which few kernels still have drivers for.
    pub fn mount_types(self) -> &'static [&'static str] {
        match self {
            Self::Ext2 => &["ext4", "ext2"],
            Self::Ext3 => &["ext4", "ext3"],
            Self::Ext4 => &["ext4"],
            Self::Xfs => &["xfs"],
            Self::Btrfs => &["btrfs"],
            Self::Erofs => &["erofs"],
            Self::Squashfs => &["squashfs"],
            Self::Vfat => &["vfat"],
            Self::Iso9660 => &["iso9660"],
            Self::Udf => &["udf", "iso9660"],
            Self::Swap | Self::Luks | Self::Lvm2 | Self::Md => &[],
        }
    }

    /// Says why it cannot hold a root that we mount; `None` when it can.
    pub fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Swap => Some("is swap space, not a file system"),
            Self::Luks => Some("is LUKS: that needs dracut or mkinitcpio"),
            Self::Lvm2 => Some("is a volume of LVM: that needs dracut or mkinitcpio"),
            Self::Md => Some("is a member of a RAID: that needs dracut or mkinitcpio"),
            _ => None,
        }
    }
}

/// Gives the kernel module that mounts a file system type.
pub fn module_of(file_system: &str) -> &str {
    match file_system {
        "ext2" | "ext3" => "ext4",
        "iso9660" => "isofs",
        other => other,
    }
}

/// Type, id and label of what lies on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The type.
    pub kind: Kind,
    /// The id as `blkid` prints it: 8-4-4-4-12, `ABCD-1234` for FAT; empty when there is none.
    pub uuid: String,
    /// The label without padding; empty when there is none or it is not UTF-8.
    pub label: String,
}

impl Superblock {
    /// Reads the first [`PROBE_BYTES`] of a device; `None` when nothing known is there.
    ///
    /// Where several would fit, the outer container wins: what is inside LUKS or RAID shows through
    /// in some layouts, and mounting it would damage it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        const PROBES: [fn(Bytes<'_>, &mut Superblock) -> Option<Kind>; 12] = [
            luks, lvm2, md, swap, btrfs, xfs, ext, erofs, squashfs, udf, iso9660, vfat,
        ];
        let mut found = Self::new(Kind::Ext4);
        // A probe that fits says the kind, and only such a one writes the id and the label.
        found.kind = PROBES
            .iter()
            .find_map(|probe| probe(Bytes(bytes), &mut found))?;
        Some(found)
    }

    /// Tells whether `uuid` names this; upper and lower case are alike.
    pub fn has_uuid(&self, uuid: &str) -> bool {
        !self.uuid.is_empty() && self.uuid.eq_ignore_ascii_case(uuid)
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            uuid: String::new(),
            label: String::new(),
        }
    }

    /// Takes 16 bytes as a UUID; all zeros mean that there is none.
    fn set_uuid(&mut self, id: Option<&[u8]>) {
        if let Some(id) = id.and_then(<[u8]>::as_array)
            && *id != [0; 16]
        {
            push_uuid(&mut self.uuid, id);
        }
    }

    /// Takes letters and digits as the id, with dashes before the places in `dashes`.
    fn set_id(&mut self, letters: &[u8], dashes: &[usize]) {
        for (at, letter) in letters.iter().enumerate() {
            if letter.is_ascii_alphanumeric() {
                if dashes.contains(&at) {
                    self.uuid.push('-');
                }
                self.uuid.push(*letter as char);
            }
        }
    }

    /// Takes a label that ends at the first NUL, or at its field, less the spaces that pad it.
    fn set_label(&mut self, field: Option<&[u8]>) {
        if let Some(text) = field.and_then(text) {
            self.label = text.trim_end().into();
        }
    }
}

/// Reads text that ends at the first NUL, or at its field.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0);
    str::from_utf8(field.get(..end.unwrap_or(field.len()))?).ok()
}

/// Writes a UUID in lower case, 8-4-4-4-12.
pub(super) fn push_uuid(text: &mut String, id: &[u8; 16]) {
    for (at, byte) in id.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
}

/// The first bytes of a device; every read is checked.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn at(self, offset: usize, len: usize) -> Option<&'a [u8]> {
        self.0.get(offset..)?.get(..len)
    }

    fn array<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.at(offset, N)?.try_into().ok()
    }

    fn has(self, offset: usize, magic: &[u8]) -> bool {
        self.at(offset, magic.len()) == Some(magic)
    }

    fn u8(self, offset: usize) -> Option<u8> {
        self.0.get(offset).copied()
    }

    fn u16_le(self, offset: usize) -> Option<u16> {
        self.array(offset).map(u16::from_le_bytes)
    }

    fn u32_le(self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_le_bytes)
    }

    fn u32_be(self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_be_bytes)
    }

    // Out of line: it has many callers.
    #[inline(never)]
    fn part(self, offset: usize) -> Option<Self> {
        self.0.get(offset..).map(Self)
    }
}

fn luks(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    if !start.has(0, b"LUKS\xba\xbe") {
        return None;
    }
    found.uuid = start.at(168, 40).and_then(text)?.into();
    // Version 1 has the name of its cipher where version 2 has the label.
    if start.array(6).map(u16::from_be_bytes) == Some(2) {
        found.set_label(start.at(24, 48));
    }
    Some(Kind::Luks)
}

fn lvm2(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    // The label is in one of the first four sectors.
    let label = [0, 512, 1024, 1536]
        .iter()
        .filter_map(|&offset| start.part(offset))
        .find(|label| label.has(0, b"LABELONE") && label.has(24, b"LVM2 001"))?;
    let id = label.at(label.u32_le(20)? as usize, 32)?;
    found.set_id(id, &[6, 10, 14, 18, 22, 26]);
    Some(Kind::Lvm2)
}

fn md(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    // Version 1.1 lies at the start, 1.2 after 4 KiB.
    let block = [0, 4096]
        .iter()
        .filter_map(|&offset| start.part(offset))
        .find(|block| block.u32_le(0) == Some(0xa92b_4efc) && block.u32_le(4) == Some(1))?;
    found.set_uuid(block.at(16, 16));
    found.set_label(block.at(32, 32));
    Some(Kind::Md)
}

fn swap(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    // The mark ends the first page, and pages have several sizes.
    [4086, 8182, 16374, 32758, 65526]
        .iter()
        .find(|&&mark| start.has(mark, b"SWAPSPACE2"))?;
    found.set_uuid(start.at(1036, 16));
    found.set_label(start.at(1052, 16));
    Some(Kind::Swap)
}

fn btrfs(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    let block = start
        .part(0x10000)
        .filter(|block| block.has(0x40, b"_BHRfS_M"))?;
    found.set_uuid(block.at(0x20, 16));
    found.set_label(block.at(0x12b, 256));
    Some(Kind::Btrfs)
}

fn xfs(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    let block_size = start.has(0, b"XFSB").then(|| start.u32_be(4)).flatten()?;
    if !block_size.is_power_of_two() || !(512..=65536).contains(&block_size) {
        return None;
    }
    found.set_uuid(start.at(32, 16));
    found.set_label(start.at(108, 12));
    Some(Kind::Xfs)
}

fn ext(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    let block = start
        .part(1024)
        .filter(|block| block.u16_le(56) == Some(0xef53))?;
    let (compatible, incompatible, read_only) =
        (block.u32_le(92)?, block.u32_le(96)?, block.u32_le(100)?);
    // An external journal looks like a file system and is none.
    if incompatible & 0x8 != 0 {
        return None;
    }
    let has_journal = compatible & 0x4 != 0;
    // What ext3 and ext2 know: filetype, recover (ext3), meta_bg; sparse_super, large_file, btree_dir.
    let known = if has_journal { 0x16 } else { 0x12 };
    let old = incompatible & !known == 0 && read_only & !0x7 == 0;
    let kind = match (old, has_journal) {
        (true, true) => Kind::Ext3,
        (true, false) => Kind::Ext2,
        (false, _) => Kind::Ext4,
    };
    found.set_uuid(block.at(104, 16));
    found.set_label(block.at(120, 16));
    Some(kind)
}

fn erofs(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    let block = start
        .part(1024)
        .filter(|block| block.u32_le(0) == Some(0xe0f5_e1e2))?;
    found.set_uuid(block.at(48, 16));
    found.set_label(block.at(64, 16));
    Some(Kind::Erofs)
}

fn squashfs(start: Bytes<'_>, _: &mut Superblock) -> Option<Kind> {
    let version_4 = start.has(0, b"hsqs") && start.u16_le(28) == Some(4);
    version_4.then_some(Kind::Squashfs)
}

/// The volume recognition sequence: 2048-byte descriptors from sector 16 on.
fn descriptors(start: Bytes<'_>) -> impl Iterator<Item = Bytes<'_>> {
    (16..32).map_while(move |sector: usize| start.part(sector.checked_mul(2048)?))
}

fn udf(start: Bytes<'_>, _: &mut Superblock) -> Option<Kind> {
    let mut after_begin = descriptors(start).skip_while(|descriptor| !descriptor.has(1, b"BEA01"));
    after_begin
        .find(|descriptor| descriptor.has(1, b"NSR02") || descriptor.has(1, b"NSR03"))
        .map(|_| Kind::Udf)
}

fn iso9660(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    let volume = descriptors(start)
        .take_while(|descriptor| descriptor.has(1, b"CD001") && !descriptor.has(0, &[255]))
        .find(|descriptor| descriptor.has(0, &[1]))?;
    found.set_label(volume.at(40, 32));
    // The id is the date of the last change, else of the making: YYYYMMDDHHMMSScc.
    let date = [830, 813]
        .iter()
        .filter_map(|&offset| volume.at(offset, 16))
        .find(|date| {
            date.iter().all(u8::is_ascii_digit) && date.iter().any(|&digit| digit != b'0')
        });
    found.set_id(date.unwrap_or_default(), &[4, 6, 8, 10, 12, 14]);
    Some(Kind::Iso9660)
}

fn vfat(start: Bytes<'_>, found: &mut Superblock) -> Option<Kind> {
    let fat32 = start.has(82, b"FAT32   ");
    let fat16 = start.has(54, b"FAT16   ") || start.has(54, b"FAT12   ");
    let sector = start.u16_le(11)?;
    let sane = start.has(510, &[0x55, 0xaa])
        && sector.is_power_of_two()
        && (512..=4096).contains(&sector)
        && start.u8(13)?.is_power_of_two()
        && start.u16_le(14)? != 0
        && matches!(start.u8(16)?, 1 | 2)
        && start.u8(21)? >= 0xf0;
    if !sane || !(fat16 || fat32) {
        return None;
    }
    let (serial, label) = if fat32 { (67, 71) } else { (39, 43) };
    let serial = start.u32_le(serial)?;
    if serial != 0 {
        let _ = write!(found.uuid, "{:04X}-{:04X}", serial >> 16, serial & 0xffff);
    }
    let label = start.at(label, 11).filter(|label| *label != b"NO NAME    ");
    found.set_label(label);
    Some(Kind::Vfat)
}

impl fmt::Display for Superblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::path::PathBuf;
    use std::vec::Vec;
    use std::{format, fs, vec};

    fn data() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/superblock")
    }

    /// Undoes `od -Ax -tx1`.
    fn unhex(text: &str) -> Vec<u8> {
        let mut bytes = vec![0; PROBE_BYTES];
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let offset = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
            for (at, word) in words.enumerate() {
                bytes[offset + at] = u8::from_str_radix(word, 16).unwrap();
            }
        }
        bytes
    }

    fn cases() -> Vec<(String, Vec<u8>, String)> {
        let mut cases = Vec::new();
        for entry in fs::read_dir(data()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "hex") {
                let name = path.file_stem().unwrap().to_str().unwrap().into();
                let expect = fs::read_to_string(path.with_extension("expect")).unwrap();
                cases.push((name, unhex(&fs::read_to_string(&path).unwrap()), expect));
            }
        }
        cases
    }

    fn expected(text: &str, key: &str) -> String {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or("")
            .replace('\\', "")
    }

    #[test]
    fn real_file_systems_are_told_as_blkid_tells_them() {
        let cases = cases();
        assert!(cases.len() > 20, "the data is missing");
        for (name, bytes, expect) in cases {
            let kind = expected(&expect, "TYPE");
            let Some(found) = Superblock::parse(&bytes) else {
                assert!(matches!(kind.as_str(), "" | "jbd"), "{name}: nothing found");
                continue;
            };
            assert_eq!(found.kind.name(), kind, "{name}");
            if found.kind != Kind::Udf {
                assert_eq!(found.uuid.as_str(), expected(&expect, "UUID"), "{name}");
                assert_eq!(found.label.as_str(), expected(&expect, "LABEL"), "{name}");
            }
        }
    }

    #[test]
    fn a_uuid_is_the_same_in_either_case_and_no_uuid_is_none() {
        let mut block = Superblock::new(Kind::Ext4);
        assert!(!block.has_uuid(""));
        block.set_uuid(Some(&[0; 16]));
        assert!(!block.has_uuid("00000000-0000-0000-0000-000000000000"));
        block.set_uuid(Some(&[0xab; 16]));
        assert!(block.has_uuid("ABABABAB-abab-abab-abab-abababababab"));
    }

    #[test]
    fn a_label_that_is_not_utf8_is_no_label() {
        let mut block = Superblock::new(Kind::Xfs);
        block.set_label(Some(b"\xff\xfe"));
        assert_eq!(block.label, "");
    }

    #[test]
    fn what_cannot_be_a_root_says_so() {
        for (name, bytes, expect) in cases() {
            let Some(found) = Superblock::parse(&bytes) else {
                continue;
            };
            let stands_in_the_way = ["swap", "crypto_LUKS", "LVM2_member", "linux_raid_member"]
                .contains(&&*expected(&expect, "TYPE"));
            assert_eq!(found.kind.obstacle().is_some(), stands_in_the_way, "{name}");
            assert_eq!(
                found.kind.mount_types().is_empty(),
                stands_in_the_way,
                "{name}"
            );
        }
    }

    #[test]
    fn an_outer_container_hides_what_is_inside() {
        let cases = cases();
        let of = |wanted: &str| {
            cases
                .iter()
                .find(|(name, ..)| name == wanted)
                .unwrap()
                .1
                .clone()
        };
        let mut both = of("ext4");
        for (to, from) in both.iter_mut().zip(of("luks2").iter().take(1024)) {
            *to = *from;
        }
        assert_eq!(Superblock::parse(&both).unwrap().kind, Kind::Luks);
    }

    #[test]
    fn a_boot_sector_without_a_fat_is_not_vfat() {
        let cases = cases();
        let fat = &cases.iter().find(|(name, ..)| name == "fat32").unwrap().1;
        for (offset, byte) in [(510, 0), (11, 3), (13, 3), (16, 7), (21, 0), (82, b'N')] {
            let mut other = fat.clone();
            other[offset] = byte;
            assert_eq!(Superblock::parse(&other), None, "byte {offset}");
        }
    }

    #[test]
    fn no_mutation_makes_it_panic() {
        let mut random = Random::new();
        // Flips go where something is written, so that most of them matter.
        let cases: Vec<(Vec<u8>, Vec<usize>)> = cases()
            .into_iter()
            .map(|(_, bytes, _)| {
                let written = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
                (bytes, written)
            })
            .collect();
        let (mut hits, mut misses) = (0, 0);
        for round in 0..4000 {
            let (good, written) = &cases[round % cases.len()];
            let mut bytes = good.clone();
            for _ in 0..random.below(8) {
                if let Some(&at) = written.get(random.below(written.len().max(1))) {
                    bytes[at] = random.any() as u8;
                }
            }
            if round % 3 == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            match Superblock::parse(&bytes) {
                Some(found) => hits += usize::from(format!("{found}{found:?}").len() > 4),
                None => misses += 1,
            }
        }
        assert!(hits > 500 && misses > 100);
    }
}
