//! Directory records (ECMA-119 9.1).

use alloc::boxed::Box;

use embedded_io::{Read, Seek};

use super::super::disc::fault::{DiscFault, Structure};
use super::super::disc::sectors::{SECTOR, Sectors, sector_of};

/// The bytes of a record before its name.
const FIXED: usize = 33;
/// File flags (ECMA-119 9.1.6).
const DIRECTORY: u8 = 0x02;
const ASSOCIATED: u8 = 0x04;
const MULTI_EXTENT: u8 = 0x80;

/// Bytes of the device in a row.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A directory record, with its name and its system use area.
pub(super) struct Record {
    bytes: Box<[u8]>,
    /// Where on the device it was found.
    pub(super) offset: u64,
}

impl Record {
    /// Takes a record from bytes that begin with it; nothing when it contradicts itself.
    pub(super) fn parse(from: &[u8], offset: u64) -> Option<Self> {
        let &length = from.first()?;
        let from = from.get(..usize::from(length))?;
        let name = FIXED.checked_add(usize::from(*from.get(32)?))?;
        if name == FIXED || name > from.len() {
            return None;
        }
        Some(Self {
            bytes: from.into(),
            offset,
        })
    }

    /// Reads the record at `position` of a directory, or behind it, and moves on; nothing at the end.
    pub(super) fn next<D: Read + Seek>(
        sectors: &mut Sectors<D>,
        directory: Extent,
        position: &mut u64,
    ) -> Result<Option<Self>, DiscFault> {
        while *position < directory.length {
            let offset = directory.offset.saturating_add(*position);
            // No record crosses a sector; what is left of one is filled with zeros.
            let inside = *position % SECTOR;
            let room = SECTOR.saturating_sub(inside);
            let sector = sectors.view(offset, room as usize)?;
            if sector.first() == Some(&0) {
                *position = position.saturating_add(room);
                continue;
            }
            let structure = Structure::DirectoryRecord;
            let damaged = DiscFault::Damaged {
                structure,
                sector: sector_of(offset),
            };
            let record = Self::parse(sector, offset).ok_or(damaged)?;
            *position = position.saturating_add(record.bytes.len() as u64);
            return Ok(Some(record));
        }
        Ok(None)
    }

    fn flag(&self, flag: u8) -> bool {
        self.bytes.get(25).is_some_and(|flags| flags & flag != 0)
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self
            .bytes
            .get(at..)
            .and_then(|bytes| bytes.first_chunk().copied());
        u32::from_le_bytes(bytes.unwrap_or_default())
    }

    pub(super) fn is_directory(&self) -> bool {
        self.flag(DIRECTORY)
    }

    /// Says whether the file goes on with the next record.
    pub(super) fn continues(&self) -> bool {
        self.flag(MULTI_EXTENT)
    }

    /// Says whether it names the directory itself, its parent, or the associate of another file.
    pub(super) fn is_aside(&self) -> bool {
        self.flag(ASSOCIATED) || matches!(self.name(), [0 | 1])
    }

    pub(super) fn is_interleaved(&self) -> bool {
        self.bytes.get(26..28) != Some(&[0, 0])
    }

    /// Tells where its data lies, behind an extended attribute record if there is one.
    pub(super) fn extent(&self, block_size: u64) -> Extent {
        let attributes = self.bytes.get(1).copied().unwrap_or(0);
        let block = u64::from(self.number(2)).saturating_add(u64::from(attributes));
        let offset = block.saturating_mul(block_size);
        Extent {
            offset,
            length: u64::from(self.number(10)),
        }
    }

    fn name_end(&self) -> usize {
        FIXED.saturating_add(self.bytes.get(32).copied().unwrap_or(0).into())
    }

    pub(super) fn name(&self) -> &[u8] {
        self.bytes.get(FIXED..self.name_end()).unwrap_or_default()
    }

    /// Shows what follows the name.
    pub(super) fn system_use(&self) -> &[u8] {
        // A byte of padding follows a name of even length, which ends at an odd place.
        let start = self.name_end().next_multiple_of(2);
        self.bytes.get(start..).unwrap_or_default()
    }
}
