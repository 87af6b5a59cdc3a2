//! File entries and the extents they list (ECMA-167 4/14.9, 4/14.17, 4/14.14).

use embedded_io::{Read, Seek};

use super::super::disc::fault::{DiscFault, Feature, Structure};
use super::super::disc::sectors::{Sectors, sector_of};
use super::Address;
use super::bytes::{byte, long_ad, u16_at, u32_at, u64_at};
use super::partition::Partitions;
use super::tag::{Tag, identifier};

/// Continuations of an allocation descriptor list that are followed. Each holds at least 30.
const CONTINUATIONS: u16 = 512;

/// What a file entry describes (ECMA-167 4/14.6.6, UDF 2.3.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    /// The metadata file or its mirror.
    Metadata,
    Other,
}

/// The form in which a file entry lists its data (ECMA-167 4/14.6.8).
#[derive(Clone, Copy)]
enum Form {
    Short,
    Long,
    Embedded,
}

/// A file entry or extended file entry.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    /// The length of the data in bytes.
    pub(super) length: u64,
    form: Form,
    /// The partition of the entry itself, in which short allocation descriptors count.
    partition: u16,
    /// Where on the device the allocation descriptors, or the embedded data, begin.
    list: u64,
    list_length: u32,
}

impl Entry {
    /// Reads and checks the entry at an address.
    pub(super) fn read<D: Read + Seek>(
        sectors: &mut Sectors<D>,
        partitions: &Partitions,
        address: Address,
    ) -> Result<Self, DiscFault> {
        let (offset, _) = partitions.locate(address)?;
        let sector = sector_of(offset);
        let damaged = DiscFault::Damaged {
            structure: Structure::FileEntry,
            sector,
        };
        let unsupported = |feature| Err(DiscFault::Unsupported { feature, sector });
        let block = sectors.view(offset, partitions.block_size())?;
        let tag = Tag::verify(block, address.block).ok_or(damaged)?;
        let tail = match tag.identifier {
            identifier::FILE_ENTRY => 168_usize,
            identifier::EXTENDED_FILE_ENTRY => 208,
            _ => return Err(damaged),
        };
        let parse = || {
            let attributes = usize::try_from(u32_at(block, tail)?).ok()?;
            let list_length = u32_at(block, tail.checked_add(4)?)?;
            let list = tail.checked_add(8)?.checked_add(attributes)?;
            let end = list.checked_add(usize::try_from(list_length).ok()?)?;
            block.get(list..end)?;
            let icb = (u16_at(block, 20)?, byte(block, 27)?, u16_at(block, 34)?);
            Some((icb, u64_at(block, 56)?, list, list_length))
        };
        let ((strategy, kind, flags), length, list, list_length) = parse().ok_or(damaged)?;
        if strategy != 4 {
            return unsupported(Feature::IcbStrategy);
        }
        let form = match flags & 7 {
            0 => Form::Short,
            1 => Form::Long,
            2 => return unsupported(Feature::ExtendedAllocation),
            3 => Form::Embedded,
            _ => return Err(damaged),
        };
        let kind = match kind {
            4 => EntryKind::Directory,
            // 0 is "not specified", 249 a file for real-time playing.
            0 | 5 | 249 => EntryKind::File,
            250 | 251 => EntryKind::Metadata,
            _ => EntryKind::Other,
        };
        let list = offset.saturating_add(list as u64);
        Ok(Self {
            kind,
            length,
            form,
            partition: address.partition,
            list,
            list_length,
        })
    }
}

/// Reads the data of an entry from its start to its end.
pub(super) struct Stream {
    form: Form,
    partition: u16,
    /// The next allocation descriptor.
    list: u64,
    list_left: u32,
    continuations: u16,
    /// What is left of an extent that the partition does not hold in a row.
    extent: (Address, u64),
    /// The bytes in a row that come next, nowhere on the device for a hole.
    pub(super) run: (Option<u64>, u64),
}

impl Stream {
    pub(super) fn new(entry: &Entry) -> Self {
        let (run, list_left) = match entry.form {
            Form::Embedded => ((Some(entry.list), u64::from(entry.list_length)), 0),
            Form::Short | Form::Long => ((None, 0), entry.list_length),
        };
        Self {
            form: entry.form,
            partition: entry.partition,
            list: entry.list,
            list_left,
            continuations: 0,
            extent: (
                Address {
                    block: 0,
                    partition: 0,
                },
                0,
            ),
            run,
        }
    }

    /// Tells where on the device it stands, for messages.
    pub(super) fn place(&self) -> u64 {
        self.run.0.unwrap_or(self.list)
    }

    /// Fills `out` with what comes next; the caller never asks beyond the entry's length.
    pub(super) fn read<D: Read + Seek>(
        &mut self,
        sectors: &mut Sectors<D>,
        partitions: &Partitions,
        mut out: &mut [u8],
    ) -> Result<(), DiscFault> {
        while !out.is_empty() {
            if self.run.1 == 0 {
                let sector = sector_of(self.list);
                let ended = DiscFault::Damaged {
                    structure: Structure::Allocation,
                    sector,
                };
                if !self.next_run(sectors, partitions)? {
                    return Err(ended);
                }
            }
            let (place, left) = self.run;
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
            let (front, back) = out.split_at_mut(count);
            match place {
                Some(offset) => sectors.read(offset, front)?,
                None => front.fill(0),
            }
            let count = count as u64;
            self.run = (
                place.map(|offset| offset.saturating_add(count)),
                left.saturating_sub(count),
            );
            out = back;
        }
        Ok(())
    }

    /// Goes on to the next bytes in a row; `false` at the end.
    pub(super) fn next_run<D: Read + Seek>(
        &mut self,
        sectors: &mut Sectors<D>,
        partitions: &Partitions,
    ) -> Result<bool, DiscFault> {
        while self.extent.1 == 0 {
            let size: u32 = match self.form {
                Form::Short => 8,
                Form::Long => 16,
                Form::Embedded => return Ok(false),
            };
            let Some(left) = self.list_left.checked_sub(size) else {
                return Ok(false);
            };
            let sector = sector_of(self.list);
            let damaged = DiscFault::Damaged {
                structure: Structure::Allocation,
                sector,
            };
            let descriptor = sectors.view(self.list, size as usize)?;
            let parsed = match self.form {
                Form::Long => long_ad(descriptor, 0),
                _ => u32_at(descriptor, 0)
                    .zip(u32_at(descriptor, 4))
                    .map(|(length, block)| {
                        (
                            length,
                            Address {
                                block,
                                partition: self.partition,
                            },
                        )
                    }),
            };
            let (length, address) = parsed.ok_or(damaged)?;
            self.list = self.list.saturating_add(u64::from(size));
            self.list_left = left;
            // The two top bits are the type (ECMA-167 4/14.14.1.1), the rest is the length.
            let (kind, length) = (length >> 30, u64::from(length & 0x3FFF_FFFF));
            // Only the last extent may end inside a block. Linux now and then leaves another one that
            // does, and then counts it as whole blocks; the length of the file ends the last one.
            let length = length.next_multiple_of(partitions.block_size() as u64);
            match kind {
                // A length of zero ends the list, whatever follows.
                _ if length == 0 => return Ok(false),
                0 => self.extent = (address, length),
                3 => self.follow(sectors, partitions, address)?,
                _ => {
                    self.run = (None, length);
                    return Ok(true);
                }
            }
        }
        let (address, length) = self.extent;
        let (offset, in_a_row) = partitions.locate(address)?;
        let run = length.min(in_a_row);
        // A run shorter than its extent ends with a block, so the next one starts with a block.
        let blocks = run.checked_div(partitions.block_size() as u64).unwrap_or(0);
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let next = Address {
            block: address.block.saturating_add(blocks),
            ..address
        };
        self.extent = (next, length.saturating_sub(run));
        self.run = (Some(offset), run);
        Ok(true)
    }

    /// Goes on with the list in an allocation extent descriptor (ECMA-167 4/14.5).
    fn follow<D: Read + Seek>(
        &mut self,
        sectors: &mut Sectors<D>,
        partitions: &Partitions,
        address: Address,
    ) -> Result<(), DiscFault> {
        let (offset, _) = partitions.locate(address)?;
        let sector = sector_of(offset);
        let damaged = DiscFault::Damaged {
            structure: Structure::Allocation,
            sector,
        };
        self.continuations = self.continuations.saturating_add(1);
        if self.continuations > CONTINUATIONS {
            return Err(DiscFault::Damaged {
                structure: Structure::Tangle,
                sector,
            });
        }
        let block = sectors.view(offset, partitions.block_size())?;
        let tag = Tag::verify(block, address.block).ok_or(damaged)?;
        let length = u32_at(block, 20).ok_or(damaged)?;
        let room = (block.len() as u64).saturating_sub(24);
        if tag.identifier != identifier::ALLOCATION_EXTENT || u64::from(length) > room {
            return Err(damaged);
        }
        self.list = offset.saturating_add(24);
        self.list_left = length;
        Ok(())
    }
}
