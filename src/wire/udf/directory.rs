//! Directories: rows of file identifiers (ECMA-167 4/14.4).

use alloc::vec::Vec;

use embedded_io::{Read, Seek};

use super::super::disc::fault::{DiscFault, Structure};
use super::super::disc::names::{Match, matched};
use super::super::disc::sectors::{Sectors, sector_of};
use super::bytes::{byte, long_ad, u16_at};
use super::file::{Entry, Stream};
use super::partition::Partitions;
use super::tag::{TAG, Tag, crc, identifier};
use super::{Address, name};

/// The bytes of a file identifier before implementation use and name.
const FIXED: usize = 38;
/// Characteristics (ECMA-167 4/14.4.3) of an entry that names nothing: deleted, or the parent.
const DELETED: u8 = 4;
const PARENT: u8 = 8;

/// Finds a name in a directory: as it is spelled, else with ASCII letters of either case.
pub(super) fn find<D: Read + Seek>(
    sectors: &mut Sectors<D>,
    partitions: &Partitions,
    directory: &Entry,
    wanted: &str,
) -> Result<Option<Address>, DiscFault> {
    let mut stream = Stream::new(directory);
    let mut left = directory.length;
    let mut similar = None;
    while left > 0 {
        let identifier = Identifier::read(sectors, partitions, &mut stream, &mut left)?;
        if identifier.characteristics & (DELETED | PARENT) != 0 {
            continue;
        }
        let found = name::text(&identifier.name);
        match found.map_or(Match::No, |found| matched(&found, wanted)) {
            Match::Exact => return Ok(Some(identifier.icb)),
            Match::Similar => similar = similar.or(Some(identifier.icb)),
            Match::No => {}
        }
    }
    Ok(similar)
}

struct Identifier {
    characteristics: u8,
    icb: Address,
    name: Vec<u8>,
}

impl Identifier {
    /// Reads the identifier that comes next, which may cross blocks and extents.
    #[inline(never)] // In one frame with its caller each access to the stack is longer.
    fn read<D: Read + Seek>(
        sectors: &mut Sectors<D>,
        partitions: &Partitions,
        stream: &mut Stream,
        left: &mut u64,
    ) -> Result<Self, DiscFault> {
        let mut part = Part {
            sectors,
            partitions,
            stream,
            left,
            crc: 0,
            covered: 0,
        };
        let mut head = [0; FIXED];
        part.read(&mut head)?;
        let damaged = part.damaged();
        // The location in the tag is not looked at: Linux leaves the old one when it moves a directory
        // out of its file entry, and others write the block where the directory begins.
        let tag = Tag::parse(&head).filter(|tag| tag.identifier == identifier::FILE_IDENTIFIER);
        let tag = tag.ok_or(damaged)?;
        part.covered = tag.crc_length;
        part.sum(head.get(TAG..).unwrap_or_default());
        let parse = || {
            Some((
                byte(&head, 18)?,
                byte(&head, 19)?,
                long_ad(&head, 20)?,
                u16_at(&head, 36)?,
            ))
        };
        let (characteristics, name_length, (_, icb), use_length) = parse().ok_or(damaged)?;

        let mut skipped = usize::from(use_length);
        let mut scrap = [0; 64];
        while skipped > 0 {
            let count = skipped.min(scrap.len());
            part.read_summed(scrap.get_mut(..count).unwrap_or_default())?;
            skipped = skipped.saturating_sub(count);
        }
        let mut name = alloc::vec![0; usize::from(name_length)];
        part.read_summed(&mut name)?;
        let length = FIXED
            .saturating_add(usize::from(use_length))
            .saturating_add(usize::from(name_length));
        let padding = length.next_multiple_of(4).saturating_sub(length);
        part.read_summed(scrap.get_mut(..padding).unwrap_or_default())?;
        if part.crc != tag.crc || part.covered != 0 {
            return Err(damaged);
        }
        Ok(Self {
            characteristics,
            icb,
            name,
        })
    }
}

/// The rest of a directory while one identifier is taken from it.
struct Part<'a, D> {
    sectors: &'a mut Sectors<D>,
    partitions: &'a Partitions,
    stream: &'a mut Stream,
    left: &'a mut u64,
    crc: u16,
    /// Bytes that the CRC has still to cover.
    covered: u16,
}

impl<D: Read + Seek> Part<'_, D> {
    fn damaged(&self) -> DiscFault {
        let sector = sector_of(self.stream.place());
        DiscFault::Damaged {
            structure: Structure::FileIdentifier,
            sector,
        }
    }

    fn read(&mut self, out: &mut [u8]) -> Result<(), DiscFault> {
        *self.left = self
            .left
            .checked_sub(out.len() as u64)
            .ok_or(self.damaged())?;
        self.stream.read(self.sectors, self.partitions, out)
    }

    fn sum(&mut self, bytes: &[u8]) {
        let covered = bytes.get(..usize::from(self.covered)).unwrap_or(bytes);
        self.crc = crc(self.crc, covered);
        self.covered = self.covered.saturating_sub(covered.len() as u16);
    }

    fn read_summed(&mut self, out: &mut [u8]) -> Result<(), DiscFault> {
        self.read(out)?;
        self.sum(out);
        Ok(())
    }
}
