//! GUID partition tables.
//!
//! Written from UEFI 2.10, chapter 5, for the kernel, firmware and boot loaders to read; nothing here
//! reads one.

use crc::{CRC_32_ISO_HDLC, Crc};

/// The bytes of a sector.
pub(crate) const SECTOR: u64 = 512;

/// Where the first partition begins; where tools put it.
pub(crate) const FIRST: u64 = 2048;

/// How many entries a table has, and how long each is.
const ENTRIES: (u32, u32) = (128, 128);

/// The sectors of a table's entries.
const TABLE: u64 = ENTRIES.0 as u64 * ENTRIES.1 as u64 / SECTOR;

/// The sectors behind the last partition: the second table and the second header.
pub(crate) const BEHIND: u64 = TABLE + 1;

/// Where the bytes that a BIOS runs end in the first sector.
pub(crate) const BOOT_CODE: usize = 440;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A boot loader without a file system, for a BIOS.
    BiosBoot,
    /// The system partition of UEFI.
    EfiSystem,
    /// A file system of Linux.
    Linux,
}

impl Kind {
    fn id(self) -> &'static str {
        match self {
            Self::BiosBoot => "21686148-6449-6e6f-744e-656564454649",
            Self::EfiSystem => "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            Self::Linux => "0fc63daf-8483-4772-8e79-3d69d8477de4",
        }
    }
}

/// One partition; its place is counted in sectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Partition {
    pub(crate) kind: Kind,
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) first: u64,
    pub(crate) sectors: u64,
}

/// What stands at the two ends of a disk.
pub(crate) struct Tables {
    /// The first sectors: one for old tools, a header, a table.
    pub(crate) head: Vec<u8>,
    /// The last sectors: a table, a header.
    pub(crate) tail: Vec<u8>,
}

const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Makes the tables of a disk that has this id and so many sectors.
pub(crate) fn tables(disk: &str, sectors: u64, partitions: &[Partition]) -> Tables {
    let mut table = Vec::new();
    for partition in partitions {
        let mut entry = [guid(partition.kind.id()), guid(partition.id)].concat();
        entry.extend(partition.first.to_le_bytes());
        entry.extend((partition.first + partition.sectors - 1).to_le_bytes());
        entry.extend(0_u64.to_le_bytes());
        entry.extend(partition.name.encode_utf16().flat_map(u16::to_le_bytes));
        entry.resize(ENTRIES.1 as usize, 0);
        table.extend(entry);
    }
    table.resize((TABLE * SECTOR) as usize, 0);

    let last = sectors - 1;
    let header = |own, other, entries| {
        let mut header = header(disk, [own, other, FIRST, last - BEHIND], entries, &table);
        header.resize(SECTOR as usize, 0);
        header
    };
    // One entry that covers all, so that old tools see no empty disk.
    let mut head = vec![0; SECTOR as usize];
    head[446..458].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    let covered = u32::try_from(last).unwrap_or(u32::MAX);
    head[458..462].copy_from_slice(&covered.to_le_bytes());
    head[510..].copy_from_slice(&[0x55, 0xaa]);
    head.extend(header(1, last, 2));
    head.extend(&table);
    let mut tail = table.clone();
    tail.extend(header(last, 1, last - TABLE));
    Tables { head, tail }
}

/// Makes a header; all places are counted in sectors.
fn header(disk: &str, places: [u64; 4], entries: u64, table: &[u8]) -> Vec<u8> {
    let mut bytes = b"EFI PART\x00\x00\x01\x00".to_vec();
    // Its length, its checksum (filled in below), nothing.
    bytes.extend([92, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for place in places {
        bytes.extend(place.to_le_bytes());
    }
    bytes.extend(guid(disk));
    bytes.extend(entries.to_le_bytes());
    for number in [ENTRIES.0, ENTRIES.1, CRC32.checksum(table)] {
        bytes.extend(number.to_le_bytes());
    }
    let checksum = CRC32.checksum(&bytes);
    bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Writes an id as it stands on a disk: its first three parts are little-endian.
fn guid(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    for (index, part) in text.split('-').enumerate() {
        let digits: Vec<u8> = (0..part.len() / 2)
            .filter_map(|at| u8::from_str_radix(part.get(at * 2..at * 2 + 2)?, 16).ok())
            .collect();
        if index < 3 {
            bytes.extend(digits.iter().rev());
        } else {
            bytes.extend(digits);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_stands_on_the_disk_in_its_mixed_order() {
        // UEFI 2.10, appendix A.
        let bytes = guid("00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(bytes[..8], [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66]);
        assert_eq!(bytes[8..], [0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
    }

    #[test]
    fn both_headers_are_whole_and_name_each_other() {
        let partition = |kind, first, sectors| Partition {
            kind,
            id: "00112233-4455-6677-8899-aabbccddeeff",
            name: "one",
            first,
            sectors,
        };
        let total = FIRST + 7 + BEHIND;
        let partitions = [
            partition(Kind::BiosBoot, FIRST, 3),
            partition(Kind::Linux, FIRST + 3, 4),
        ];
        let made = tables("00112233-4455-6677-8899-aabbccddeeff", total, &partitions);
        let mut disk = made.head;
        disk.resize(((total - BEHIND) * SECTOR) as usize, 0);
        disk.extend(made.tail);
        assert_eq!(disk.len() as u64, total * SECTOR);
        let sector = |at: u64| &disk[(at * SECTOR) as usize..];
        for (own, other) in [(1, total - 1), (total - 1, 1)] {
            let mut header = sector(own)[..92].to_vec();
            let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
            assert_eq!((number(24), number(32)), (own, other));
            assert_eq!((number(40), number(48)), (FIRST, total - BEHIND - 1));
            let entries = sector(number(72));
            assert_eq!(entries[..16], guid(Kind::BiosBoot.id()));
            assert_eq!(entries[128..144], guid(Kind::Linux.id()));
            let place =
                |at: usize| u64::from_le_bytes(entries[at..at + 8].try_into().unwrap()) - FIRST;
            assert_eq!([32, 40, 160, 168].map(place), [0, 2, 3, 6]);
            let checksum = u32::from_le_bytes(header[16..20].try_into().unwrap());
            header[16..20].fill(0);
            assert_eq!(checksum, CRC32.checksum(&header));
        }
    }
}
