//! A disk with one partition: a GUID partition table around a file system.
//!
//! Written from UEFI 2.10, chapter 5, for the kernel to read; nothing here reads one.

use crc::{CRC_32_ISO_HDLC, Crc};

/// The partition's id.
pub(super) const UUID: &str = "8b6c7a52-3f19-4d20-9c41-d2e5f60718a9";

/// The partition's name.
pub(super) const LABEL: &str = "lab-partition";

const SECTOR: usize = 512;

/// Where the partition begins; where tools put it.
const FIRST: usize = 2048;

/// How many entries a table has, and how long each is.
const ENTRIES: (usize, usize) = (128, 128);

/// The sectors of a table's entries.
const TABLE: usize = ENTRIES.0 * ENTRIES.1 / SECTOR;

/// The partition's type: a Linux file system.
const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

const DISK: &str = "41d0a2c4-56e7-4f80-a1b2-c3d4e5f60718";

const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Makes a disk whose only partition holds this.
pub(super) fn disk(content: &[u8]) -> Vec<u8> {
    let sectors = content.len().div_ceil(SECTOR);
    let end = FIRST + sectors;
    // Behind it, the second table and the second header.
    let total = end + TABLE + 1;
    let mut disk = vec![0; total * SECTOR];
    disk[FIRST * SECTOR..][..content.len()].copy_from_slice(content);

    let mut table = vec![0; TABLE * SECTOR];
    let mut entry = [guid(LINUX), guid(UUID)].concat();
    entry.extend((FIRST as u64).to_le_bytes());
    entry.extend((end as u64 - 1).to_le_bytes());
    entry.extend(0_u64.to_le_bytes());
    entry.extend(LABEL.encode_utf16().flat_map(u16::to_le_bytes));
    table[..entry.len()].copy_from_slice(&entry);

    for (own, other, at) in [(1, total - 1, 2), (total - 1, 1, end)] {
        disk[at * SECTOR..][..table.len()].copy_from_slice(&table);
        let header = header(own, other, at, end - 1, &table);
        disk[own * SECTOR..][..header.len()].copy_from_slice(&header);
    }
    // One entry that covers all, so that old tools see no empty disk.
    disk[446..462].copy_from_slice(&[
        0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
    ]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Makes a header; all places are counted in sectors.
fn header(own: usize, other: usize, entries: usize, last: usize, table: &[u8]) -> Vec<u8> {
    let mut bytes = b"EFI PART\x00\x00\x01\x00".to_vec();
    // Its length, its checksum (filled in below), nothing.
    bytes.extend([92, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for place in [own, other, FIRST, last] {
        bytes.extend((place as u64).to_le_bytes());
    }
    bytes.extend(guid(DISK));
    bytes.extend((entries as u64).to_le_bytes());
    for number in [ENTRIES.0 as u32, ENTRIES.1 as u32, CRC32.checksum(table)] {
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
        let content = vec![7; 3 * SECTOR + 1];
        let disk = disk(&content);
        let total = disk.len() / SECTOR;
        for (own, other) in [(1, total - 1), (total - 1, 1)] {
            let mut header = disk[own * SECTOR..][..92].to_vec();
            let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
            assert_eq!((number(24), number(32)), (own as u64, other as u64));
            assert_eq!(number(48) - number(40), 3, "four sectors of content");
            let entries = number(72) as usize;
            assert_eq!(disk[entries * SECTOR..][..16], guid(LINUX));
            let checksum = u32::from_le_bytes(header[16..20].try_into().unwrap());
            header[16..20].fill(0);
            assert_eq!(checksum, CRC32.checksum(&header));
        }
        assert!(disk[FIRST * SECTOR..].starts_with(&content));
    }
}
