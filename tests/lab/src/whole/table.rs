//! Who shares a disk: its partitions, and which firmware can boot it.
//!
//! Written from UEFI 2.10, chapter 5, and what every PC takes for a partition table before that. It
//! reads what is given to it and never beyond; a table that is damaged is one with less in it.

use crate::qemu::Firmware;

/// How much of a disk's beginning is needed: the tables of any partitioner.
pub(super) const HEAD: usize = 1 << 20;

/// What a table counts in; disks with larger sectors are not for Azure.
pub(super) const SECTOR: u64 = 512;

/// More partitions than any image has; a damaged table could claim any number.
const MOST: usize = 128;

/// Where the first program of a PC's boot loader stands.
const BOOT_CODE: usize = 440;

const GPT_SIGNATURE: &[u8] = b"EFI PART";

/// Types of a GUID partition table, as they stand on the disk.
const EFI_SYSTEM: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// Types of an old partition table.
const OLD_EFI_SYSTEM: u8 = 0xef;
const OLD_PROTECTIVE: u8 = 0xee;
const OLD_EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// What a partition is for, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The programs that UEFI starts.
    EfiSystem,
    /// The part of a boot loader that a BIOS starts.
    BiosBoot,
    /// Anything else.
    Other,
}

/// One partition; places are counted in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partition {
    /// Its number, as in `/dev/sda1`.
    pub(super) number: usize,
    /// Where it begins.
    pub(super) start: u64,
    /// How long it is.
    pub(super) length: u64,
    /// What it is for.
    pub(super) purpose: Purpose,
}

/// What the beginning of a disk says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Its partitions, in the order of their numbers.
    pub(super) partitions: Vec<Partition>,
    /// Whether a PC with a BIOS finds a program to start.
    pub(super) has_boot_code: bool,
}

impl Table {
    /// Reads the beginning of a disk.
    pub(super) fn read(head: &[u8]) -> Self {
        let is_bootable = head.get(510..512) == Some(&[0x55, 0xaa]);
        let code = head.get(..BOOT_CODE).unwrap_or_default();
        let has_boot_code = is_bootable && code.iter().any(|byte| *byte != 0);
        let partitions = guid_table(head).unwrap_or_else(|| {
            if is_bootable {
                old_table(head)
            } else {
                Vec::new()
            }
        });
        Self {
            partitions,
            has_boot_code,
        }
    }

    /// Says which firmware boots the disk: a BIOS, unless there is only something for UEFI.
    pub(super) fn firmware(&self) -> Firmware {
        let has = |purpose| self.partitions.iter().any(|part| part.purpose == purpose);
        if has(Purpose::EfiSystem) && !has(Purpose::BiosBoot) && !self.has_boot_code {
            Firmware::Uefi
        } else {
            Firmware::Bios
        }
    }
}

fn number_at<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut whole = [0; 8];
    whole
        .get_mut(..N)?
        .copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(whole))
}

fn guid_table(head: &[u8]) -> Option<Vec<Partition>> {
    let header = head.get(SECTOR as usize..)?;
    if !header.starts_with(GPT_SIGNATURE) {
        return None;
    }
    let first = number_at::<8>(header, 72)?.checked_mul(SECTOR)? as usize;
    let (count, size) = (number_at::<4>(header, 80)?, number_at::<4>(header, 84)?);
    let size = usize::try_from(size).ok().filter(|size| *size >= 128)?;
    let entries = head.get(first..)?.chunks_exact(size);
    let mut partitions = Vec::new();
    for (index, entry) in entries.enumerate().take(MOST.min(count as usize)) {
        let kind = entry.get(..16)?;
        if kind.iter().all(|byte| *byte == 0) {
            continue;
        }
        let (start, last) = (number_at::<8>(entry, 32)?, number_at::<8>(entry, 40)?);
        let sectors = last.checked_sub(start).and_then(|more| more.checked_add(1));
        let place = start.checked_mul(SECTOR).zip(sectors?.checked_mul(SECTOR));
        let Some((start, length)) = place else {
            continue;
        };
        let purpose = match kind {
            kind if kind == EFI_SYSTEM => Purpose::EfiSystem,
            kind if kind == BIOS_BOOT => Purpose::BiosBoot,
            _ => Purpose::Other,
        };
        partitions.push(Partition {
            number: index + 1,
            start,
            length,
            purpose,
        });
    }
    Some(partitions)
}

/// Reads the four places of an old table; what is inside an extended partition is not looked for.
fn old_table(head: &[u8]) -> Vec<Partition> {
    let entries = head.get(446..510).unwrap_or_default().chunks_exact(16);
    let read = |(index, entry): (usize, &[u8])| {
        let kind = *entry.get(4)?;
        let (start, sectors) = (number_at::<4>(entry, 8)?, number_at::<4>(entry, 12)?);
        if kind == 0 || kind == OLD_PROTECTIVE || OLD_EXTENDED.contains(&kind) || sectors == 0 {
            return None;
        }
        Some(Partition {
            number: index + 1,
            start: start * SECTOR,
            length: sectors * SECTOR,
            purpose: if kind == OLD_EFI_SYSTEM {
                Purpose::EfiSystem
            } else {
                Purpose::Other
            },
        })
    };
    entries.enumerate().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Typed from the specifications' tables, not from the code above.
    const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
    const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
    const BIOS: &str = "21686148-6449-6E6F-744E-656564454649";

    fn guid(text: &str) -> Vec<u8> {
        let hex = |part: &str| -> Vec<u8> {
            (0..part.len() / 2)
                .map(|at| u8::from_str_radix(&part[at * 2..at * 2 + 2], 16).unwrap())
                .collect()
        };
        let parts: Vec<_> = text.split('-').map(hex).collect();
        let swapped = |part: &[u8]| part.iter().rev().copied().collect::<Vec<_>>();
        [
            swapped(&parts[0]),
            swapped(&parts[1]),
            swapped(&parts[2]),
            parts[3].clone(),
            parts[4].clone(),
        ]
        .concat()
    }

    /// A disk with a GUID partition table: type, first and last sector of each partition.
    fn gpt(entries: &[(&str, u64, u64)]) -> Vec<u8> {
        let mut disk = vec![0; 64 * 512];
        disk[450] = 0xee;
        disk[454..462].copy_from_slice(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[584..592].copy_from_slice(&2_u64.to_le_bytes());
        disk[592..596].copy_from_slice(&128_u32.to_le_bytes());
        disk[596..600].copy_from_slice(&128_u32.to_le_bytes());
        for (index, (kind, first, last)) in entries.iter().enumerate() {
            let entry = &mut disk[1024 + index * 128..][..128];
            entry[..16].copy_from_slice(&guid(kind));
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        }
        disk
    }

    /// A disk with an old table: type, first sector and number of sectors of each partition.
    fn old(entries: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut disk = vec![0; 64 * 512];
        for (index, (kind, first, sectors)) in entries.iter().enumerate() {
            let entry = &mut disk[446 + index * 16..][..16];
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&first.to_le_bytes());
            entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        }
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    fn with_boot_code(mut disk: Vec<u8>) -> Vec<u8> {
        // As GRUB's begins.
        disk[..2].copy_from_slice(&[0xeb, 0x63]);
        disk
    }

    #[test]
    fn disk_with_nothing_but_an_efi_partition_to_boot_from_is_for_uefi() {
        for disk in [
            gpt(&[(ESP, 2048, 4095), (LINUX, 4096, 8191)]),
            old(&[(0xef, 2048, 2048), (0x83, 4096, 4096)]),
        ] {
            assert_eq!(Table::read(&disk).firmware(), Firmware::Uefi);
        }
    }

    #[test]
    fn disk_that_a_bios_can_boot_is_booted_by_one() {
        for disk in [
            gpt(&[(ESP, 2048, 4095), (BIOS, 34, 2047), (LINUX, 4096, 8191)]),
            with_boot_code(gpt(&[(ESP, 2048, 4095), (LINUX, 4096, 8191)])),
            with_boot_code(old(&[(0x83, 2048, 2048)])),
            with_boot_code(old(&[(0xef, 2048, 2048), (0x83, 4096, 4096)])),
            gpt(&[(LINUX, 2048, 4095)]),
            vec![0; 4096],
            Vec::new(),
        ] {
            assert_eq!(Table::read(&disk).firmware(), Firmware::Bios);
        }
    }

    #[test]
    fn partitions_are_found_with_their_numbers_and_places() {
        let mut disk = gpt(&[(ESP, 2048, 4095), (LINUX, 4096, 8191), (LINUX, 8192, 8192)]);
        // The second one is removed; the third keeps its number.
        disk[1024 + 128..1024 + 144].fill(0);
        let found: Vec<_> = Table::read(&disk)
            .partitions
            .iter()
            .map(|part| (part.number, part.start, part.length))
            .collect();
        assert_eq!(found, [(1, 1 << 20, 1 << 20), (3, 4 << 20, 512)]);
        let disk = old(&[(0, 0, 0), (0x83, 2048, 4096), (0x05, 8192, 2048)]);
        let found = Table::read(&disk).partitions;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].number, found[0].start), (2, 1 << 20));
        assert_eq!(found[0].length, 2 << 20);
    }

    #[test]
    fn table_that_is_damaged_does_no_harm() {
        let good = [
            gpt(&[(ESP, 2048, 4095), (BIOS, 34, 2047), (LINUX, 4096, 8191)]),
            old(&[(0xef, 2048, 2048), (0x83, 4096, u32::MAX)]),
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for round in 0..4000 {
            let mut disk = good[round % 2].clone();
            for _ in 0..=random(8) {
                let at = if random(2) == 0 {
                    440 + random(1200)
                } else {
                    random(disk.len())
                };
                disk[at] = random(256) as u8;
            }
            if round % 5 == 0 {
                disk.truncate(random(disk.len()));
            }
            let table = Table::read(&disk);
            assert!(table.partitions.len() <= MOST);
        }
    }
}
