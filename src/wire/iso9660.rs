//! ISO 9660 volumes, read only: from the volume descriptors to the bytes of a file.
//!
//! Follows ECMA-119, its supplement Joliet (UCS-2 names) and, of Rock Ridge, the names. Not here:
//! links, access rights, compressed files, relocated directories, volume sets, interleaved files.
//! Of numbers written in both byte orders the little-endian one is read, as Linux does: what nobody
//! reads, writers get wrong.

mod record;
mod susp;

use alloc::boxed::Box;

use embedded_io::{Read, Seek};

use self::record::{Extent, Record};
use self::susp::SystemUse;
use super::disc::fault::{DiscFault, Feature, Structure};
use super::disc::names::{Match, matched, text};
use super::disc::sectors::{SECTOR, Sectors, sector_of};
use super::disc::{Label, PATH_DEPTH};

/// Where the volume descriptors begin (ECMA-119 6.2.1).
const DESCRIPTORS: u64 = 16 * SECTOR;
/// Volume descriptors that are looked at; real discs have two to four.
const DESCRIPTOR_COUNT: u64 = 32;

/// How a directory tree spells its names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Plain,
    /// UCS-2, big endian.
    Joliet,
    /// Rock Ridge; the entries begin after so many bytes of each system use area.
    RockRidge {
        skip: usize,
    },
}

/// A volume whose root directory is known.
pub(in crate::wire) struct Iso9660 {
    block_size: u64,
    label: Label,
    spelling: Spelling,
    root: Extent,
}

/// What is done with each extent of a file.
type Visit<'a, D> = dyn FnMut(&mut Sectors<D>, Extent) -> Result<(), DiscFault> + 'a;

/// A file that has been found.
struct File {
    directory: Extent,
    /// Where its first record is in the directory.
    position: u64,
    length: u64,
}

impl Iso9660 {
    /// Finds the volume on a device; `NoFileSystem` when there is no volume descriptor.
    ///
    /// Rock Ridge names are preferred over Joliet ones, as Linux does: they are the original ones.
    pub(in crate::wire) fn open<D: Read + Seek>(
        sectors: &mut Sectors<D>,
    ) -> Result<Box<Self>, DiscFault> {
        let mut primary = None;
        let mut joliet = None;
        for index in 0..DESCRIPTOR_COUNT {
            let offset = DESCRIPTORS.saturating_add(index.saturating_mul(SECTOR));
            let block = sectors.view(offset, SECTOR as usize)?;
            let sector = sector_of(offset);
            let damaged = DiscFault::Damaged {
                structure: Structure::IsoVolume,
                sector,
            };
            let kind = block.first().filter(|_| block.get(1..6) == Some(b"CD001"));
            match kind {
                Some(1) if primary.is_none() => {
                    primary = Some(Self::parse(block, offset, Spelling::Plain).ok_or(damaged)?);
                }
                Some(2) if joliet.is_none() && is_joliet(block) => {
                    // A broken one is passed over: the primary tree still serves.
                    joliet = Self::parse(block, offset, Spelling::Joliet);
                }
                Some(0..=254) => {}
                _ => break,
            }
        }
        let mut primary = primary.ok_or(DiscFault::NoFileSystem)?;
        let own = Record::next(sectors, primary.root, &mut 0)?;
        if let Some(skip) = own.as_ref().and_then(susp::announced) {
            primary.spelling = Spelling::RockRidge { skip };
            return Ok(primary);
        }
        Ok(joliet.unwrap_or(primary))
    }

    /// Parses a primary or supplementary volume descriptor (ECMA-119 8.4, 8.5).
    fn parse(block: &[u8], offset: u64, spelling: Spelling) -> Option<Box<Self>> {
        let block_size = u16::from_le_bytes(block.get(128..)?.first_chunk().copied()?);
        let root = Record::parse(block.get(156..190)?, offset.saturating_add(156))?;
        if !matches!(block_size, 512 | 1024 | 2048) || !root.is_directory() {
            return None;
        }
        let block_size = u64::from(block_size);
        let mut label = text(block.get(40..72)?, spelling == Spelling::Joliet);
        let used = label.trim_end_matches([' ', '\0']).len();
        label.truncate(used);
        Some(Box::new(Self {
            block_size,
            label,
            spelling,
            root: root.extent(block_size),
        }))
    }

    pub(in crate::wire) fn label(&self) -> &Label {
        &self.label
    }

    /// Says whether names come from a Joliet tree.
    pub(in crate::wire) fn joliet(&self) -> bool {
        self.spelling == Spelling::Joliet
    }

    /// Says whether names come from Rock Ridge.
    pub(in crate::wire) fn rock_ridge(&self) -> bool {
        matches!(self.spelling, Spelling::RockRidge { .. })
    }

    /// Tells the length of a file, and reads all of it into the front of `out` if that is given.
    pub(in crate::wire) fn file<D: Read + Seek>(
        &self,
        sectors: &mut Sectors<D>,
        path: &str,
        out: Option<&mut [u8]>,
    ) -> Result<u64, DiscFault> {
        let file = self.find(sectors, path)?;
        let Some(out) = out else {
            return Ok(file.length);
        };
        let mut out = DiscFault::front(out, file.length)?;
        let mut position = file.position;
        self.extents(
            sectors,
            file.directory,
            &mut position,
            &mut |sectors, extent| {
                let count = usize::try_from(extent.length)
                    .unwrap_or(usize::MAX)
                    .min(out.len());
                let (front, back) = core::mem::take(&mut out).split_at_mut(count);
                out = back;
                sectors.read(extent.offset, front)
            },
        )?;
        Ok(file.length)
    }

    /// Visits the extents of the file whose first record is at `position` of a directory.
    fn extents<D: Read + Seek>(
        &self,
        sectors: &mut Sectors<D>,
        directory: Extent,
        position: &mut u64,
        visit: &mut Visit<'_, D>,
    ) -> Result<(), DiscFault> {
        let mut before: Option<Record> = None;
        loop {
            let sector = sector_of(directory.offset.saturating_add(*position));
            let structure = Structure::DirectoryRecord;
            let damaged = DiscFault::Damaged { structure, sector };
            let record = Record::next(sectors, directory, position)?.ok_or(damaged)?;
            if record.is_interleaved() {
                let feature = Feature::InterleavedFile;
                return Err(DiscFault::Unsupported { feature, sector });
            }
            // The parts of a file bear one name and follow each other (ECMA-119 9.1.6).
            if before.is_some_and(|before| before.name() != record.name()) {
                return Err(damaged);
            }
            visit(sectors, record.extent(self.block_size))?;
            if !record.continues() {
                return Ok(());
            }
            before = Some(record);
        }
    }

    fn find<D: Read + Seek>(
        &self,
        sectors: &mut Sectors<D>,
        path: &str,
    ) -> Result<File, DiscFault> {
        let mut directory = self.root;
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        for _ in 0..PATH_DEPTH {
            let name = names.next().ok_or(DiscFault::NotFound)?;
            let last = names.peek().is_none();
            let (position, is_directory) = self.find_in(sectors, directory, name)?;
            if is_directory == last {
                return Err(DiscFault::NotFound);
            }
            let mut length = 0_u64;
            let mut extent = directory;
            self.extents(sectors, directory, &mut { position }, &mut |_, part| {
                length = length.saturating_add(part.length);
                extent = part;
                Ok(())
            })?;
            if last {
                return Ok(File {
                    directory,
                    position,
                    length,
                });
            }
            directory = extent;
        }
        Err(DiscFault::NotFound)
    }

    /// Finds a name in a directory: where its record is and whether it is a directory.
    #[inline(never)] // In one frame with its caller each access to the stack is longer.
    fn find_in<D: Read + Seek>(
        &self,
        sectors: &mut Sectors<D>,
        directory: Extent,
        name: &str,
    ) -> Result<(u64, bool), DiscFault> {
        let mut position = 0;
        let mut similar = None;
        let mut continued = false;
        loop {
            let start = position;
            let Some(record) = Record::next(sectors, directory, &mut position)? else {
                break;
            };
            // Later parts of a file bear its name as well; the first one is where it begins.
            let later_part = core::mem::replace(&mut continued, record.continues());
            if record.is_aside() || later_part {
                continue;
            }
            let system_use = match self.spelling {
                Spelling::RockRidge { skip } => {
                    SystemUse::read(sectors, &record, skip, self.block_size)?
                }
                Spelling::Plain | Spelling::Joliet => SystemUse::default(),
            };
            let matched = match system_use.name.as_deref().map(core::str::from_utf8) {
                Some(Ok(found)) => matched(found, name),
                Some(Err(_)) => Match::No,
                None => {
                    let found = without_version(record.name(), self.spelling);
                    matched(&text(found, self.joliet()), name)
                }
            };
            let found = match matched {
                Match::No => continue,
                // A link has no data here, and nobody needs one on a provisioning disc.
                Match::Exact | Match::Similar if system_use.link => Err(DiscFault::NotFound),
                Match::Exact | Match::Similar => match system_use.special {
                    Some(feature) => Err(DiscFault::Unsupported {
                        feature,
                        sector: sector_of(record.offset),
                    }),
                    None => Ok((start, record.is_directory())),
                },
            };
            if matched == Match::Exact {
                return found;
            }
            similar = similar.or(Some(found));
        }
        similar.unwrap_or(Err(DiscFault::NotFound))
    }
}

/// Says whether a supplementary descriptor is for Joliet, by its escape sequences (levels 1 to 3).
fn is_joliet(block: &[u8]) -> bool {
    block.get(88..90) == Some(b"%/") && matches!(block.get(90), Some(b'@' | b'C' | b'E'))
}

/// Cuts the version number, and the dot of a name without extension, as in `NAME.;1`.
fn without_version(name: &[u8], spelling: Spelling) -> &[u8] {
    let width = if spelling == Spelling::Joliet { 2 } else { 1 };
    let is = |unit: &[u8], wanted: u8| unit.last() == Some(&wanted) && matches!(unit, [_] | [0, _]);
    let units = name.chunks_exact(width);
    let mut end = units
        .take_while(|unit| !is(unit, b';'))
        .count()
        .saturating_mul(width);
    let last = end
        .checked_sub(width)
        .and_then(|start| name.get(start..end));
    if end > width && last.is_some_and(|unit| is(unit, b'.')) {
        end = end.saturating_sub(width);
    }
    name.get(..end).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::super::disc::testing::{Drive, check_files, exercise, find, golden};
    use super::super::disc::{Disc, DiscFault, Feature, Kind, Structure};
    use super::*;
    use crate::wire::testing::Random;

    fn put(image: &mut [u8], at: usize, number: u32) {
        image[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    /// Where the directory record is that bears a name.
    fn record_of(image: &[u8], name: &[u8]) -> usize {
        find(image, name) - 33
    }

    #[test]
    fn version_and_lonely_dot_are_cut() {
        assert_eq!(
            without_version(b"OVF_ENV.XML;1", Spelling::Plain),
            b"OVF_ENV.XML"
        );
        assert_eq!(without_version(b"EMPTY.;1", Spelling::Plain), b"EMPTY");
        assert_eq!(without_version(b"A;12", Spelling::Plain), b"A");
        assert_eq!(without_version(b".", Spelling::Plain), b".");
        assert_eq!(without_version(b"", Spelling::Plain), b"");
        let name = b"\0a\0.\0;\x001";
        assert_eq!(without_version(name, Spelling::Joliet), b"\0a");
        // U+2E3B and U+3B2E hold the bytes of a dot and a semicolon, but are neither.
        let name = b"\x2E\x3B\x3B\x2E";
        assert_eq!(without_version(name, Spelling::Joliet), name);
    }

    #[test]
    fn file_in_two_extents_is_read_whole() {
        let mut golden = golden("iso-plain");
        let at = record_of(&golden.image, b"CUSTOMDA.BIN;1");
        let length = usize::from(golden.image[at]);
        let record = golden.image[at..at + length].to_vec();
        let sector_end = at.next_multiple_of(2048);
        golden
            .image
            .copy_within(at..sector_end - length, at + length);
        let extent = u32::from_le_bytes(record[2..6].try_into().unwrap());
        put(&mut golden.image, at + 10, 100 * 2048);
        golden.image[at + 25] |= 0x80;
        put(&mut golden.image, at + length + 2, extent + 100);
        put(&mut golden.image, at + length + 10, 300_000 - 100 * 2048);
        check_files(&mut Disc::open(Drive::new(&golden.image)).unwrap(), &golden);

        // A part that bears another name belongs to another file.
        golden.image[at + length + 33] = b'D';
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        let structure = Structure::DirectoryRecord;
        let fault = DiscFault::Damaged {
            structure,
            sector: (at / 2048) as u32,
        };
        assert_eq!(disc.file_length("customda.bin"), Err(fault));
    }

    #[test]
    fn interleaved_file_is_refused() {
        let mut golden = golden("iso-plain");
        let at = record_of(&golden.image, b"CUSTOMDA.BIN;1");
        golden.image[at + 26] = 1;
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        let feature = Feature::InterleavedFile;
        let fault = DiscFault::Unsupported {
            feature,
            sector: (at / 2048) as u32,
        };
        assert_eq!(disc.file_length("customda.bin"), Err(fault));
        assert_eq!(disc.file_length("small.txt"), Ok(25));
    }

    #[test]
    fn extended_attribute_record_is_stepped_over() {
        let mut golden = golden("iso-plain");
        let at = record_of(&golden.image, b"CUSTOMDA.BIN;1");
        let extent = u32::from_le_bytes(golden.image[at + 2..at + 6].try_into().unwrap());
        put(&mut golden.image, at + 2, extent - 2);
        golden.image[at + 1] = 2;
        check_files(&mut Disc::open(Drive::new(&golden.image)).unwrap(), &golden);
    }

    #[test]
    fn joliet_is_passed_over_where_its_escape_sequence_is_missing() {
        let mut golden = golden("iso-joliet");
        golden.image[17 * 2048 + 88..][..3].fill(0);
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        assert_eq!(
            disc.kind(),
            Kind::Iso9660 {
                joliet: false,
                rock_ridge: false
            }
        );
        assert_eq!(disc.file_length("ovf_env.xml"), Ok(1029));
    }

    #[test]
    fn rock_ridge_entry_continued_in_itself_is_refused() {
        let mut golden = golden("iso-rock");
        let at = record_of(&golden.image, b"NNNNNNNN.TXT;1");
        let entry = at + find(&golden.image[at..], b"CE\x1C\x01");
        let entry = golden.image[entry..entry + 28].to_vec();
        let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
        let area = (number(4) * 2048 + number(12)) as usize;
        golden.image[area..area + 28].copy_from_slice(&entry);
        let mut disc = Disc::open(Drive::new(&golden.image)).unwrap();
        let sector = (at / 2048) as u32;
        let fault = DiscFault::Damaged {
            structure: Structure::Tangle,
            sector,
        };
        // The names before it are still there.
        assert_eq!(disc.file_length("CustomData.bin"), Ok(300_000));
        assert_eq!(disc.file_length("small.txt"), Err(fault));
    }

    #[test]
    fn no_changed_byte_makes_it_panic_or_run_on() {
        let mut random = Random::new();
        let mut out = vec![0; 300_000];
        let mut opened = 0;
        for name in ["iso-plain", "iso-joliet", "iso-rock", "xorriso-rock-joliet"] {
            let original = golden(name).image;
            // Volume descriptors, path tables and directories: all that comes before the data.
            let end = find(&original, b"000000000000000000007919") / 2048 * 2048;
            let used: Vec<usize> = (16 * 2048..end).filter(|at| original[*at] != 0).collect();
            let mut image = original.clone();
            for _ in 0..1000 {
                let first = random.below(used.len());
                let count = 1 + random.below(3);
                let places: Vec<usize> = (0..count)
                    .map(|index| used[(first + index * random.below(40)) % used.len()])
                    .collect();
                for at in &places {
                    image[*at] = match random.below(4) {
                        0 => 0,
                        1 => 0xFF,
                        2 => image[*at] ^ 1 << random.below(8),
                        _ => random.below(256) as u8,
                    };
                }
                opened += usize::from(exercise(&image, &mut out));
                for at in places {
                    image[at] = original[at];
                }
            }
        }
        assert!((2000..4000).contains(&opened), "{opened} of 4000 opened");
    }
}
