//! The entries of a system use area (SUSP 1.12), of which Rock Ridge makes its names (RRIP 1.12).

use alloc::vec::Vec;

use embedded_io::{Read, Seek};

use super::super::disc::fault::{DiscFault, Feature, Structure};
use super::super::disc::sectors::{SECTOR, Sectors, sector_of};
use super::record::Record;

/// Continuations that are followed for one record.
const CONTINUATIONS: u8 = 16;
/// The longest name, as everywhere in Unix.
const NAME: usize = 255;
/// Bytes that CD-ROM XA puts before the entries.
const XA: usize = 14;
/// Flags of a name entry that stands for `.` or `..`. That it goes on is seen by the next one coming.
const NAME_OF_ANOTHER: u8 = 2 | 4;

/// What the entries of one record say.
#[derive(Default)]
pub(super) struct SystemUse {
    /// The name, if an entry gives one.
    pub(super) name: Option<Vec<u8>>,
    /// The record is a symbolic link.
    pub(super) link: bool,
    /// Something that keeps the record's extent from being its data.
    pub(super) special: Option<Feature>,
}

/// Says how many bytes precede the entries of each record, if the root's own record says that there are any.
pub(super) fn announced(root: &Record) -> Option<usize> {
    let area = root.system_use();
    [0, XA]
        .into_iter()
        .find_map(|skip| match *area.get(skip..)? {
            [b'S', b'P', 7, 1, 0xBE, 0xEF, skip, ..] => Some(usize::from(skip)),
            _ => None,
        })
}

impl SystemUse {
    /// Reads the entries of a record and of its continuations.
    #[inline(never)] // In one frame with its caller each access to the stack is longer.
    pub(super) fn read<D: Read + Seek>(
        sectors: &mut Sectors<D>,
        record: &Record,
        skip: usize,
        block_size: u64,
    ) -> Result<Self, DiscFault> {
        let mut this = Self::default();
        let sector = sector_of(record.offset);
        let damaged = DiscFault::Damaged {
            structure: Structure::SystemUse,
            sector,
        };
        let area = record.system_use().get(skip..).unwrap_or_default();
        let mut next = this.take(area).map_err(|Senseless| damaged)?;
        for _ in 0..CONTINUATIONS {
            let Some(Continuation {
                block,
                offset,
                length,
            }) = next
            else {
                return Ok(this);
            };
            if u64::from(length) > SECTOR || u64::from(offset) >= SECTOR {
                return Err(damaged);
            }
            let place = u64::from(block)
                .saturating_mul(block_size)
                .saturating_add(offset.into());
            let area = sectors.view(place, length as usize)?;
            next = this.take(area).map_err(|Senseless| damaged)?;
        }
        Err(DiscFault::Damaged {
            structure: Structure::Tangle,
            sector,
        })
    }

    /// Takes the entries of one area and tells where they go on.
    fn take(&mut self, mut area: &[u8]) -> Result<Option<Continuation>, Senseless> {
        let mut continuation = None;
        while let [first, second, length, _, ..] = *area {
            // Padding, or an end that nobody marked.
            if length < 4 {
                break;
            }
            let (entry, rest) = area
                .split_at_checked(usize::from(length))
                .ok_or(Senseless)?;
            let data = entry.get(4..).unwrap_or_default();
            match &[first, second] {
                b"NM" => self.take_name(data)?,
                b"CE" => continuation = Some(Continuation::parse(data)?),
                b"SL" => self.link = true,
                b"CL" => self.special = Some(Feature::RelocatedDirectory),
                b"ZF" => self.special = Some(Feature::CompressedFile),
                b"ST" => break,
                _ => {}
            }
            area = rest;
        }
        Ok(continuation)
    }

    fn take_name(&mut self, data: &[u8]) -> Result<(), Senseless> {
        let (&flags, part) = data.split_first().ok_or(Senseless)?;
        if flags & NAME_OF_ANOTHER != 0 {
            return Ok(());
        }
        let name = self.name.get_or_insert_default();
        if name.len().saturating_add(part.len()) > NAME {
            return Err(Senseless);
        }
        name.extend_from_slice(part);
        Ok(())
    }
}

/// Entries that contradict themselves.
struct Senseless;

/// Where the entries of a record go on.
struct Continuation {
    block: u32,
    offset: u32,
    length: u32,
}

impl Continuation {
    /// Takes the little-endian halves of three numbers in both byte orders.
    fn parse(data: &[u8]) -> Result<Self, Senseless> {
        let number = |at: usize| {
            let bytes = data
                .get(at..)
                .and_then(|bytes| bytes.first_chunk().copied());
            bytes.map(u32::from_le_bytes).ok_or(Senseless)
        };
        Ok(Self {
            block: number(0)?,
            offset: number(8)?,
            length: number(16)?,
        })
    }
}
