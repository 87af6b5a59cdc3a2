//! The partitions of a disk: GPT, primary or backup, and MBR with its logical partitions.
//!
//! Not where they lie: the kernel has cut the disk already; this is for the ids and names that it
//! does not tell. Follows UEFI 2.10 chapter 5 and, where real disks differ, the kernel's
//! `block/partitions/{efi,msdos}.c`, whose numbers and PARTUUIDs these are.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::ops::ControlFlow;

use crc::{Crc, Table};
use embedded_io::{Error as _, ErrorKind, Read, Seek, SeekFrom};

use super::superblock::push_uuid;

/// Bit by bit: a table would outweigh all the rest of this file, for 16 KiB once a disk.
const CRC: Crc<u32, Table<0>> = Crc::<u32, Table<0>>::new(&crc::CRC_32_ISO_HDLC);

/// Largest logical sector of any disk.
const MAX_SECTOR: usize = 4096;
/// The only entry size in use; the kernel refuses others too.
const ENTRY_BYTES: usize = 128;
/// sfdisk and sgdisk make 128, or more when they are asked to.
const MAX_ENTRIES: u32 = 4096;
/// Logical partitions of an MBR disk; the kernel stops at this many too.
const MAX_LOGICAL: u32 = 100;

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as in `sda2`.
    pub number: u32,
    /// Its PARTUUID in lower case: a GUID, or `SSSSSSSS-PP` of an MBR disk.
    pub id: String,
    /// Its type: a GUID, or `0x83` of an MBR disk.
    pub kind: String,
    /// Its PARTLABEL; empty on an MBR disk.
    pub label: String,
}

/// Why there are no partitions to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFault {
    /// There is no partition table.
    NoTable,
    /// There is a GPT, but neither copy is whole.
    Damaged,
    /// The disk cannot be read.
    Io(ErrorKind),
}

impl fmt::Display for TableFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable => f.write_str("no partition table"),
            Self::Damaged => f.write_str("both copies of the partition table are damaged"),
            Self::Io(kind) => write!(f, "the disk cannot be read: {kind:?}"),
        }
    }
}

/// Shows every partition of a disk to `visit`, which may break off.
///
/// `sector_bytes` is the disk's logical sector size, 512 or 4096.
pub fn each_partition<D: Read + Seek>(
    disk: D,
    sector_bytes: usize,
    visit: &mut dyn FnMut(&Partition) -> ControlFlow<()>,
) -> Result<(), TableFault> {
    if !sector_bytes.is_power_of_two() || !(512..=MAX_SECTOR).contains(&sector_bytes) {
        return Err(TableFault::NoTable);
    }
    let mut disk = Disk {
        device: disk,
        sector_bytes: sector_bytes as u64,
        last: 0,
        buffer: alloc::vec![0; MAX_SECTOR],
    };
    let bytes = disk
        .device
        .seek(SeekFrom::End(0))
        .map_err(|fault| TableFault::Io(fault.kind()))?;
    disk.last = bytes
        .checked_div(disk.sector_bytes)
        .unwrap_or(0)
        .saturating_sub(1);

    let first = BootRecord::parse(disk.sector(0)?).ok_or(TableFault::NoTable)?;
    if first.slots.iter().any(|slot| slot.kind == PROTECTIVE) {
        return each_gpt(&mut disk, visit);
    }
    each_mbr(&mut disk, &first, visit)
}

/// A disk that is read by sectors.
struct Disk<D> {
    device: D,
    sector_bytes: u64,
    last: u64,
    buffer: Vec<u8>,
}

impl<D: Read + Seek> Disk<D> {
    fn sector(&mut self, number: u64) -> Result<&[u8], TableFault> {
        let len = (self.sector_bytes as usize).min(MAX_SECTOR);
        self.bytes(number, 0, len)
    }

    /// Reads up to a sector's worth of bytes behind the start of a sector.
    fn bytes(&mut self, sector: u64, offset: u64, len: usize) -> Result<&[u8], TableFault> {
        let at = sector
            .checked_mul(self.sector_bytes)
            .and_then(|at| at.checked_add(offset));
        let at = at.ok_or(TableFault::Damaged)?;
        self.device
            .seek(SeekFrom::Start(at))
            .map_err(|fault| TableFault::Io(fault.kind()))?;
        let buffer = self.buffer.get_mut(..len).ok_or(TableFault::Damaged)?;
        self.device
            .read_exact(buffer)
            .map_err(|fault| match fault {
                embedded_io::ReadExactError::UnexpectedEof => TableFault::NoTable,
                embedded_io::ReadExactError::Other(fault) => TableFault::Io(fault.kind()),
            })?;
        Ok(buffer)
    }
}

#[expect(clippy::inline_always, reason = "the check is shorter than a call")]
#[inline(always)]
fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*field))
}

#[expect(clippy::inline_always, reason = "the check is shorter than a call")]
#[inline(always)]
fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*field))
}

/// What a GPT header says.
struct Header {
    entries_at: u64,
    entries: u32,
    entries_crc: u32,
}

impl Header {
    /// Reads the header in `sector`, which says that it lies in sector `here`.
    fn parse(sector: &[u8], here: u64) -> Option<Self> {
        if !sector.starts_with(b"EFI PART") || u64_at(sector, 24)? != here {
            return None;
        }
        let size = u32_at(sector, 12)? as usize;
        let header = sector.get(..size).filter(|header| header.len() >= 92)?;
        let mut digest = CRC.digest();
        // The sum is made with its own field as zeros.
        digest.update(header.get(..16)?);
        digest.update(&[0; 4]);
        digest.update(header.get(20..)?);
        let found = Self {
            entries_at: u64_at(header, 72)?,
            entries: u32_at(header, 80)?,
            entries_crc: u32_at(header, 88)?,
        };
        let sound = digest.finalize() == u32_at(header, 16)?
            && u32_at(header, 84)? == ENTRY_BYTES as u32
            && found.entries <= MAX_ENTRIES;
        sound.then_some(found)
    }
}

#[inline(never)] // In one frame with its caller each access to the stack is longer.
fn each_gpt<D: Read + Seek>(
    disk: &mut Disk<D>,
    visit: &mut dyn FnMut(&Partition) -> ControlFlow<()>,
) -> Result<(), TableFault> {
    for place in [1, disk.last] {
        let Some(header) = Header::parse(disk.sector(place)?, place) else {
            continue;
        };
        let mut digest = CRC.digest();
        for index in 0..header.entries {
            digest.update(disk.entry(&header, index)?);
        }
        if digest.finalize() != header.entries_crc {
            continue;
        }
        for index in 0..header.entries {
            let partition = gpt_partition(disk.entry(&header, index)?, index.saturating_add(1));
            if partition.is_some_and(|partition| visit(&partition).is_break()) {
                break;
            }
        }
        return Ok(());
    }
    Err(TableFault::Damaged)
}

impl<D: Read + Seek> Disk<D> {
    fn entry(&mut self, header: &Header, index: u32) -> Result<&[u8], TableFault> {
        let offset = u64::from(index).saturating_mul(ENTRY_BYTES as u64);
        self.bytes(header.entries_at, offset, ENTRY_BYTES)
    }
}

/// Reads one entry; `None` when it is not in use.
fn gpt_partition(entry: &[u8], number: u32) -> Option<Partition> {
    let kind = entry.first_chunk::<16>().filter(|kind| **kind != [0; 16])?;
    let id = entry.get(16..)?.first_chunk::<16>()?;
    let mut partition = Partition {
        number,
        id: guid(id),
        kind: guid(kind),
        label: String::new(),
    };
    let units = entry
        .get(56..)?
        .as_chunks::<2>()
        .0
        .iter()
        .map(|unit| u16::from_le_bytes(*unit));
    for letter in char::decode_utf16(units.take_while(|&unit| unit != 0)) {
        partition
            .label
            .push(letter.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Some(partition)
}

/// Writes a GUID, of which the first three fields are little-endian.
fn guid(bytes: &[u8; 16]) -> String {
    let mut id = *bytes;
    for field in [0..4, 4..6, 6..8] {
        if let Some(field) = id.get_mut(field) {
            field.reverse();
        }
    }
    let mut text = String::new();
    push_uuid(&mut text, &id);
    text
}

const PROTECTIVE: u8 = 0xee;

/// A master boot record, or one link of the chain of logical partitions.
struct BootRecord {
    signature: u32,
    slots: [Slot; 4],
}

#[derive(Clone, Copy, Default)]
struct Slot {
    kind: u8,
    start: u32,
    sectors: u32,
}

impl Slot {
    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

impl BootRecord {
    /// Reads one; `None` when it is something else, such as the boot sector of a FAT.
    fn parse(sector: &[u8]) -> Option<Self> {
        if sector.get(510..512)? != [0x55, 0xaa] {
            return None;
        }
        let mut slots = [Slot::default(); 4];
        let entries = sector.get(446..510)?.as_chunks::<16>().0;
        for (slot, entry) in slots.iter_mut().zip(entries) {
            let [active, _, _, _, kind, ..] = *entry;
            if active & 0x7f != 0 {
                return None;
            }
            *slot = Slot {
                kind,
                start: u32_at(entry, 8)?,
                sectors: u32_at(entry, 12)?,
            };
        }
        Some(Self {
            signature: u32_at(sector, 440)?,
            slots,
        })
    }
}

#[inline(never)] // In one frame with its caller each access to the stack is longer.
fn each_mbr<D: Read + Seek>(
    disk: &mut Disk<D>,
    first: &BootRecord,
    visit: &mut dyn FnMut(&Partition) -> ControlFlow<()>,
) -> Result<(), TableFault> {
    let mut show = |number: u32, slot: Slot| {
        let mut partition = Partition {
            number,
            ..Partition::default()
        };
        let _ = write!(partition.id, "{:08x}-{number:02x}", first.signature);
        let _ = write!(partition.kind, "{:#x}", slot.kind);
        visit(&partition)
    };
    let mut any = false;
    for (number, &slot) in (1..).zip(&first.slots) {
        if slot.kind == 0 || slot.sectors == 0 {
            continue;
        }
        any = true;
        if show(number, slot).is_break() {
            return Ok(());
        }
    }
    let Some(extended) = first.slots.iter().find(|slot| slot.is_extended()) else {
        return if any {
            Ok(())
        } else {
            Err(TableFault::NoTable)
        };
    };
    // Each link holds one partition and where the next link is, counted from the first link.
    let base = u64::from(extended.start);
    let (mut here, mut number) = (base, 5_u32);
    for _ in 0..MAX_LOGICAL {
        let Some(link) = BootRecord::parse(disk.sector(here)?) else {
            break;
        };
        for slot in link.slots.iter().take(2) {
            if slot.sectors == 0 || slot.is_extended() {
                continue;
            }
            if show(number, *slot).is_break() {
                return Ok(());
            }
            number = number.saturating_add(1);
        }
        let next = link
            .slots
            .iter()
            .find(|slot| slot.is_extended() && slot.sectors != 0);
        match next {
            Some(slot) => here = base.saturating_add(u64::from(slot.start)),
            None => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::path::PathBuf;
    use std::string::ToString;
    use std::{format, fs, vec};

    /// A disk in memory.
    struct Image<'a> {
        bytes: &'a [u8],
        at: u64,
    }

    impl embedded_io::ErrorType for Image<'_> {
        type Error = core::convert::Infallible;
    }

    impl Read for Image<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
            let left = self.bytes.get(self.at as usize..).unwrap_or(&[]);
            let n = left.len().min(buffer.len());
            buffer[..n].copy_from_slice(&left[..n]);
            self.at += n as u64;
            Ok(n)
        }
    }

    impl Seek for Image<'_> {
        fn seek(&mut self, to: SeekFrom) -> Result<u64, Self::Error> {
            self.at = match to {
                SeekFrom::Start(at) => at,
                SeekFrom::End(0) => self.bytes.len() as u64,
                other => unreachable!("{other:?}"),
            };
            Ok(self.at)
        }
    }

    fn data() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/partitions")
    }

    /// Undoes `od -Ax -tx1` behind a line with the length.
    fn image(name: &str) -> Vec<u8> {
        let text = fs::read_to_string(data().join(format!("{name}.hex"))).unwrap();
        let mut lines = text.lines();
        let mut bytes = vec![0; lines.next().unwrap().parse().unwrap()];
        for line in lines {
            let mut words = line.split_ascii_whitespace();
            let offset = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
            for (at, word) in words.enumerate() {
                bytes[offset + at] = u8::from_str_radix(word, 16).unwrap();
            }
        }
        bytes
    }

    fn partitions(bytes: &[u8], sector_bytes: usize) -> Result<Vec<Partition>, TableFault> {
        let mut all = Vec::new();
        each_partition(Image { bytes, at: 0 }, sector_bytes, &mut |partition| {
            all.push(partition.clone());
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// Undoes the escapes of `partx -r`.
    fn unescape(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut pieces = text.split("\\x");
        bytes.extend(pieces.next().unwrap().bytes());
        for piece in pieces {
            bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
            bytes.extend(piece[2..].bytes());
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn real_tables_are_told_as_libblkid_tells_them() {
        for (name, sector) in [
            ("gpt", 512),
            ("gpt-4k", 4096),
            ("mbr", 512),
            ("damaged", 512),
            ("moved", 512),
        ] {
            let expect = fs::read_to_string(data().join(format!("{name}.expect"))).unwrap();
            let expect: Vec<_> = expect
                .lines()
                .map(|line| {
                    let mut words = line.split(' ');
                    let mut word = || unescape(words.next().unwrap());
                    (word(), word(), word(), word())
                })
                .collect();
            assert!(expect.len() > 2, "{name}");
            let found: Vec<_> = partitions(&image(name), sector)
                .unwrap()
                .iter()
                .map(|p| {
                    (
                        p.number.to_string(),
                        p.id.clone(),
                        p.kind.clone(),
                        p.label.clone(),
                    )
                })
                .collect();
            assert_eq!(found, expect, "{name}");
        }
    }

    #[test]
    fn two_damaged_copies_are_said_to_be_damaged() {
        let mut bytes = image("damaged");
        let last = bytes.len() - 512;
        bytes[last + 60] ^= 1;
        assert_eq!(partitions(&bytes, 512), Err(TableFault::Damaged));
    }

    #[test]
    fn a_header_that_was_copied_elsewhere_does_not_count() {
        let mut bytes = image("gpt");
        let last = bytes.len() - 512;
        let backup = bytes[last..].to_vec();
        // Sound in itself, but it says that it is the last sector.
        bytes[512..1024].copy_from_slice(&backup);
        bytes[last..].fill(0);
        assert_eq!(partitions(&bytes, 512), Err(TableFault::Damaged));
    }

    #[test]
    fn disks_without_a_table_have_none() {
        assert_eq!(partitions(&[0; 4096], 512), Err(TableFault::NoTable));
        assert_eq!(partitions(&[], 512), Err(TableFault::NoTable));
        assert_eq!(partitions(&image("gpt"), 520), Err(TableFault::NoTable));
        let mut fat = [0; 4096];
        fat[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(partitions(&fat, 512), Err(TableFault::NoTable));
        fat[446] = 0x13;
        fat[450] = 0x83;
        assert_eq!(partitions(&fat, 512), Err(TableFault::NoTable));
    }

    #[test]
    fn a_chain_of_logical_partitions_in_a_ring_ends() {
        let mut bytes = image("mbr");
        let third = &image("mbr")[446 + 32..446 + 48];
        let start = u32_at(third, 8).unwrap() as usize * 512;
        // The first link's second slot leads back to the first link.
        bytes[start + 446 + 16 + 4] = 5;
        bytes[start + 446 + 16 + 8..start + 446 + 16 + 12].fill(0);
        bytes[start + 446 + 16 + 12] = 1;
        let found = partitions(&bytes, 512).unwrap();
        assert_eq!(found.len(), 3 + MAX_LOGICAL as usize);
    }

    #[test]
    fn the_visitor_may_break_off() {
        for name in ["gpt", "mbr"] {
            let bytes = image(name);
            let mut seen = 0;
            each_partition(
                Image {
                    bytes: &bytes,
                    at: 0,
                },
                512,
                &mut |partition| {
                    seen += 1;
                    if partition.number == 2 {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                },
            )
            .unwrap();
            assert_eq!(seen, 2, "{name}");
        }
    }

    #[test]
    fn no_mutation_makes_it_panic() {
        let mut random = Random::new();
        let goods = [
            (image("gpt"), 512),
            (image("mbr"), 512),
            (image("gpt-4k"), 4096),
        ]
        .map(|(bytes, sector)| {
            (
                bytes.iter().take(128 * 1024).copied().collect::<Vec<u8>>(),
                sector,
            )
        });
        let (mut read, mut refused) = (0, 0);
        for round in 0..1500 {
            let (good, sector) = &goods[round % goods.len()];
            let mut bytes = good.clone();
            for _ in 0..random.below(4) {
                let at = [446 + random.below(66), sector + random.below(92)][random.below(2)];
                bytes[at] = random.any() as u8;
            }
            if round % 5 == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            match partitions(&bytes, *sector) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(read > 200 && refused > 200, "{read} {refused}");
    }
}
