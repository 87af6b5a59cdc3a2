//! UDF volumes, read only: from the recognition sequence to the bytes of a file.
//!
//! Follows ECMA-167 (3rd edition) and OSTA UDF 1.02 to 2.60. Reads plain, sparable (without relocated
//! sectors) and metadata partitions. Not here: virtual partitions (write-once media), strategy 4096,
//! named streams, extended attributes, links, access rights.
//!
//! The order of the files is the order of the way: `volume` finds the descriptors, `partition`
//! turns addresses into places, `file` reads file entries and their extents, `directory` finds names.

mod bytes;
mod directory;
mod file;
mod name;
mod partition;
mod tag;
mod volume;

use alloc::boxed::Box;

use embedded_io::{Read, Seek};

use self::file::{Entry, EntryKind, Stream};
use self::partition::Partitions;
use self::tag::{Tag, identifier};
use super::disc::fault::{DiscFault, Structure};
use super::disc::sectors::{Sectors, sector_of};
use super::disc::{Label, PATH_DEPTH};

/// A block of a partition (`lb_addr`, ECMA-167 4/7.1); the partition is an index of the logical volume's maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    block: u32,
    partition: u16,
}

/// A volume whose root directory is known.
pub(in crate::wire) struct Udf {
    revision: u16,
    label: Label,
    partitions: Partitions,
    root: Entry,
}

impl Udf {
    /// Finds the volume on a device; `NoFileSystem` when nothing promises one.
    #[inline(never)] // In one frame with its caller each access to the stack is longer.
    pub(in crate::wire) fn open<D: Read + Seek>(
        sectors: &mut Sectors<D>,
    ) -> Result<Box<Self>, DiscFault> {
        if !volume::recognized(sectors)? {
            return Err(DiscFault::NoFileSystem);
        }
        volume::try_anchors(sectors, &mut |sectors, anchor| {
            let described = volume::describe(sectors, anchor)?;
            let partitions = Partitions::open(sectors, &described)?;
            let root = root_directory(sectors, &partitions, described.file_set)?;
            let (revision, label) = (described.revision, described.label);
            Ok(Box::new(Self {
                revision,
                label,
                partitions,
                root,
            }))
        })
    }

    /// Tells the revision in the standard's own digits: 0x0102 is UDF 1.02.
    pub(in crate::wire) fn revision(&self) -> u16 {
        self.revision
    }

    pub(in crate::wire) fn label(&self) -> &Label {
        &self.label
    }

    /// Tells the length of a file, and reads all of it into the front of `out` if that is given.
    pub(in crate::wire) fn file<D: Read + Seek>(
        &self,
        sectors: &mut Sectors<D>,
        path: &str,
        out: Option<&mut [u8]>,
    ) -> Result<u64, DiscFault> {
        let entry = self.find(sectors, path)?;
        let Some(out) = out else {
            return Ok(entry.length);
        };
        let out = DiscFault::front(out, entry.length)?;
        Stream::new(&entry).read(sectors, &self.partitions, out)?;
        Ok(entry.length)
    }

    #[inline(never)] // In one frame with its caller each access to the stack is longer.
    fn find<D: Read + Seek>(
        &self,
        sectors: &mut Sectors<D>,
        path: &str,
    ) -> Result<Entry, DiscFault> {
        let mut entry = self.root;
        for (depth, name) in path.split('/').filter(|name| !name.is_empty()).enumerate() {
            if entry.kind != EntryKind::Directory || depth >= PATH_DEPTH {
                return Err(DiscFault::NotFound);
            }
            let address = directory::find(sectors, &self.partitions, &entry, name)?;
            entry = Entry::read(
                sectors,
                &self.partitions,
                address.ok_or(DiscFault::NotFound)?,
            )?;
        }
        if entry.kind == EntryKind::File {
            Ok(entry)
        } else {
            Err(DiscFault::NotFound)
        }
    }
}

/// Follows the file set descriptor (ECMA-167 4/14.1) to the root directory.
fn root_directory<D: Read + Seek>(
    sectors: &mut Sectors<D>,
    partitions: &Partitions,
    file_set: Address,
) -> Result<Entry, DiscFault> {
    let (offset, _) = partitions.locate(file_set)?;
    let damaged = DiscFault::Damaged {
        structure: Structure::FileSet,
        sector: sector_of(offset),
    };
    let block = sectors.view(offset, partitions.block_size())?;
    let tag = Tag::verify(block, file_set.block).ok_or(damaged)?;
    let root = bytes::long_ad(block, 400);
    let root = root.filter(|(length, _)| tag.identifier == identifier::FILE_SET && *length != 0);
    let (_, root) = root.ok_or(damaged)?;
    let entry = Entry::read(sectors, partitions, root)?;
    if entry.kind == EntryKind::Directory {
        Ok(entry)
    } else {
        Err(damaged)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Range;
    use std::vec;
    use std::vec::Vec;

    use super::super::disc::testing::{Drive, Golden, check_files, exercise, find, golden};
    use super::super::disc::{Disc, DiscFault, Feature, Structure};
    use super::tag::{TAG, Tag, crc};
    use crate::wire::testing::Random;

    /// Makes the sums of a descriptor right again.
    fn seal(bytes: &mut [u8]) {
        let length = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        let end = (TAG + length).min(bytes.len());
        let sum = crc(0, &bytes[TAG..end]);
        bytes[8..10].copy_from_slice(&sum.to_le_bytes());
        bytes[4] = 0;
        bytes[4] = bytes[..TAG]
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    }

    /// Finds every descriptor by its sums, with its identifier.
    fn descriptors(image: &[u8]) -> Vec<(u16, Range<usize>)> {
        let mut found = Vec::new();
        for start in (0..image.len() - TAG).step_by(4) {
            let bytes = &image[start..];
            // Spares the sums of what is no tag.
            if !matches!(bytes[..4], [_, 0 | 1, 2 | 3, 0]) || bytes[..2] == [0, 0] {
                continue;
            }
            let tag = Tag::parse(bytes).and_then(|tag| Tag::verify(bytes, tag.location));
            if let Some(tag) = tag.filter(|tag| tag.crc_length > 0) {
                let end = start + TAG + usize::from(tag.crc_length);
                found.push((tag.identifier, start..end));
            }
        }
        found
    }

    fn place_of(image: &[u8], identifier: u16) -> usize {
        let all = descriptors(image);
        all.iter()
            .find(|(found, _)| *found == identifier)
            .unwrap()
            .1
            .start
    }

    fn number(image: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
    }

    fn put(image: &mut [u8], at: usize, number: u32) {
        image[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    /// Where the entry of the file is whose name stands in the only identifier that bears it.
    fn entry_of(golden: &Golden, block_size: usize, name: &str) -> usize {
        let name = [b"\x08", name.as_bytes()].concat();
        let identifier = find(&golden.image, &name) - 38;
        let partition = place_of(&golden.image, 5);
        let start = number(&golden.image, partition + 188) as usize;
        (start + number(&golden.image, identifier + 24) as usize) * block_size
    }

    #[test]
    fn metadata_partition_is_read_through_its_pieces_and_its_mirror() {
        const SIZE: usize = 2048;
        let mut golden = golden("udf-201-2048");
        let described = place_of(&golden.image, 5);
        let start = number(&golden.image, described + 188) as usize;
        let length = number(&golden.image, described + 192) as usize;
        let end = (start + length) * SIZE;

        // The blocks of the partition are dealt out as the metadata file in three pieces, in
        // another order than they lie, so that every address has to pass the map.
        let (first, second) = (100, 300);
        let blocks = golden.image[start * SIZE..end].to_vec();
        let pieces = [first..second, second..length, 0..first];
        let moved: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| blocks[piece.start * SIZE..piece.end * SIZE].iter().copied())
            .collect();
        golden.image[start * SIZE..end].copy_from_slice(&moved);
        let runs = [
            (length - first, first),
            (0, second - first),
            (second - first, length - second),
        ];

        // The file and its mirror follow the partition, which grows by them. The volume's reserve
        // descriptors that were there are not needed.
        let entry = |kind: u8, block: usize| {
            let mut bytes = vec![0_u8; SIZE];
            bytes[..4].copy_from_slice(&[0x0A, 0x01, 3, 0]);
            put(&mut bytes, 12, block as u32);
            bytes[20] = 4;
            bytes[27] = kind;
            bytes[56..64].copy_from_slice(&((length * SIZE) as u64).to_le_bytes());
            put(&mut bytes, 212, 24);
            for (index, (at, count)) in runs.iter().enumerate() {
                put(&mut bytes, 216 + index * 8, (count * SIZE) as u32);
                put(&mut bytes, 220 + index * 8, *at as u32);
            }
            bytes[10..12].copy_from_slice(&(240_u16 - 16).to_le_bytes());
            seal(&mut bytes);
            bytes
        };
        golden.image[end..end + SIZE].copy_from_slice(&entry(250, length));
        golden.image[end + SIZE..end + 2 * SIZE].copy_from_slice(&entry(251, length + 1));
        put(&mut golden.image, described + 192, length as u32 + 2);
        seal(&mut golden.image[described..described + 512]);

        let volume = place_of(&golden.image, 6);
        put(&mut golden.image, volume + 264, 64);
        let map = &mut golden.image[volume + 440..volume + 504];
        map.fill(0);
        map[..2].copy_from_slice(&[2, 64]);
        map[5..28].copy_from_slice(b"*UDF Metadata Partition");
        map[36] = 1;
        put(map, 40, length as u32);
        put(map, 44, length as u32 + 1);
        put(map, 48, u32::MAX);
        golden.image[volume + 10..volume + 12].copy_from_slice(&(504_u16 - 16).to_le_bytes());
        seal(&mut golden.image[volume..volume + 512]);

        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        check_files(&mut disc, &golden);

        golden.image[end + 300] ^= 1;
        golden.image[end + 30] ^= 1;
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        check_files(&mut disc, &golden);

        golden.image[end + SIZE + 30] ^= 1;
        let sector = (end / SIZE) as u32;
        let fault = DiscFault::Damaged {
            structure: Structure::MetadataFile,
            sector,
        };
        assert_eq!(Disc::open(Drive::new(&golden.image)).err(), Some(fault));
    }

    #[test]
    fn continuation_that_leads_to_itself_is_refused() {
        let mut golden = golden("udf-150-512");
        let entry = entry_of(&golden, 512, "holes.bin");
        let list = entry + 176 + number(&golden.image, entry + 168) as usize;
        let length = number(&golden.image, entry + 172) as usize;
        let start = number(&golden.image, place_of(&golden.image, 5) + 188) as usize;
        // The last descriptor of the entry is the one that goes on.
        let next = list + length - 16;
        assert_eq!(number(&golden.image, next) >> 30, 3);
        let block = number(&golden.image, next + 4);
        let extent = (start + block as usize) * 512;
        put(&mut golden.image, extent + 24, 3 << 30 | 512);
        put(&mut golden.image, extent + 28, block);
        seal(&mut golden.image[extent..extent + 512]);
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        let sector = (extent / 2048) as u32;
        let fault = DiscFault::Damaged {
            structure: Structure::Tangle,
            sector,
        };
        assert_eq!(
            disc.read_file("holes.bin", &mut vec![0; 1 << 20]),
            Err(fault)
        );
    }

    #[test]
    fn file_whose_extents_end_before_it_does_is_refused() {
        let mut golden = golden("udf-102-2048");
        let entry = entry_of(&golden, 2048, "CustomData.bin");
        golden.image[entry + 58] += 1;
        seal(&mut golden.image[entry..entry + 2048]);
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        assert_eq!(disc.file_length("CustomData.bin"), Ok(300_000 + 65536));
        let fault = disc.read_file("CustomData.bin", &mut vec![0; 1 << 20]);
        let sector = (entry / 2048) as u32;
        let damaged = DiscFault::Damaged {
            structure: Structure::Allocation,
            sector,
        };
        assert_eq!(fault, Err(damaged));
    }

    #[test]
    fn extent_outside_of_its_partition_is_refused() {
        let mut golden = golden("udf-102-2048");
        let entry = entry_of(&golden, 2048, "CustomData.bin");
        let list = entry + 176 + number(&golden.image, entry + 168) as usize;
        put(&mut golden.image, list + 4, 0x00FF_FFFF);
        seal(&mut golden.image[entry..entry + 2048]);
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        let fault = disc.read_file("CustomData.bin", &mut vec![0; 300_000]);
        let outside = |fault| {
            matches!(
                fault,
                DiscFault::Damaged {
                    structure: Structure::Partition,
                    ..
                }
            )
        };
        assert!(fault.is_err_and(outside));
    }

    #[test]
    fn extended_allocation_descriptors_are_named_and_refused() {
        let mut golden = golden("udf-102-2048");
        let entry = entry_of(&golden, 2048, "CustomData.bin");
        golden.image[entry + 34] = golden.image[entry + 34] & !7 | 2;
        seal(&mut golden.image[entry..entry + 2048]);
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        let sector = (entry / 2048) as u32;
        let fault = DiscFault::Unsupported {
            feature: Feature::ExtendedAllocation,
            sector,
        };
        assert_eq!(disc.file_length("CustomData.bin"), Err(fault));
    }

    #[test]
    fn descriptors_behind_a_pointer_are_found_and_a_circle_of_pointers_ends() {
        let mut golden = golden("udf-102-2048");
        let anchor = place_of(&golden.image, 2);
        let main = number(&golden.image, anchor + 20) as usize;
        let reserve = number(&golden.image, anchor + 28) as usize;
        let pointer = |at: usize, to: usize| {
            let mut bytes = vec![0_u8; 2048];
            bytes[..4].copy_from_slice(&[3, 0, 2, 0]);
            put(&mut bytes, 12, at as u32);
            put(&mut bytes, 20, 16 * 2048);
            put(&mut bytes, 24, to as u32);
            bytes[10..12].copy_from_slice(&496_u16.to_le_bytes());
            seal(&mut bytes);
            bytes
        };
        golden.image[main * 2048..][..2048].copy_from_slice(&pointer(main, reserve));
        check_files(&mut Disc::open(Drive::new(&golden.image)).unwrap(), &golden);

        golden.image[reserve * 2048..][..2048].copy_from_slice(&pointer(reserve, main));
        let structure = Structure::VolumeDescriptors;
        let fault = Disc::open(Drive::new(&golden.image)).err();
        let damaged = |fault| matches!(fault, DiscFault::Damaged { structure: found, .. } if found == structure);
        assert!(fault.is_some_and(damaged), "{fault:?}");
    }

    #[test]
    fn no_flipped_byte_makes_it_panic_or_run_on() {
        let mut random = Random::new();
        let mut out = vec![0; 300_000];
        for name in [
            "udf-102-2048",
            "udf-150-512",
            "iso-udf-rock-joliet",
            "udf-201-sparable",
        ] {
            let mut image = golden(name).image;
            let all = descriptors(&image);
            for _ in 0..500 {
                let (_, range) = &all[random.below(all.len())];
                let at = range.start + random.below(range.len());
                let before = image[at];
                image[at] ^= 1 << random.below(8);
                exercise(&image, &mut out);
                image[at] = before;
            }
        }
    }

    /// As above, but the sums are made right again, so that what they guard is put to the test.
    #[test]
    fn no_forged_descriptor_makes_it_panic_or_run_on() {
        let mut random = Random::new();
        let mut out = vec![0; 300_000];
        let mut opened = 0;
        for name in [
            "udf-102-2048",
            "udf-150-512",
            "udf-201-512-longad",
            "udf-201-sparable",
        ] {
            let original = golden(name).image;
            let all = descriptors(&original);
            let mut by_kind = BTreeMap::<u16, Vec<&Range<usize>>>::new();
            for (identifier, range) in &all {
                by_kind.entry(*identifier).or_default().push(range);
            }
            let kinds: Vec<u16> = by_kind.keys().copied().collect();
            let mut image = original.clone();
            for _ in 0..750 {
                let ranges = &by_kind[&kinds[random.below(kinds.len())]];
                let range = ranges[random.below(ranges.len())].clone();
                for _ in 0..=random.below(3) {
                    let at = range.start + TAG + random.below((range.len() - TAG).min(500));
                    image[at] = match random.below(4) {
                        0 => 0,
                        1 => 0xFF,
                        2 => image[at].wrapping_add(1),
                        _ => random.below(256) as u8,
                    };
                }
                // A file identifier may lie inside a file entry: the inner sums first.
                let holders = all
                    .iter()
                    .filter(|(_, holder)| holder.contains(&range.start));
                let mut holders: Vec<_> = holders.map(|(_, holder)| holder.clone()).collect();
                holders.sort_by_key(|holder| core::cmp::Reverse(holder.start));
                for holder in &holders {
                    seal(&mut image[holder.clone()]);
                }
                opened += usize::from(exercise(&image, &mut out));
                for holder in holders {
                    image[holder.clone()].copy_from_slice(&original[holder]);
                }
                image[range.clone()].copy_from_slice(&original[range]);
            }
        }
        // Else the sums were not made right and the test tests nothing.
        assert!((1500..3000).contains(&opened), "{opened} of 3000 opened");
    }
}
