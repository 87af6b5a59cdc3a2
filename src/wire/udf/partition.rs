//! The partition maps of the logical volume: from a block of a partition to a place on the device.

use alloc::vec::Vec;

use embedded_io::{Read, Seek};

use super::super::disc::fault::{DiscFault, Feature, Structure};
use super::super::disc::sectors::{Sectors, sector_of};
use super::Address;
use super::bytes::{byte, u16_at, u32_at};
use super::file::{Entry, EntryKind, Stream};
use super::tag::Tag;
use super::volume::Described;

/// Partition maps that are kept. UDF 2.60 describes two at most.
const MAPS: usize = 4;
/// Pieces of a metadata file that are kept; mastered discs have one.
const RUNS: usize = 32;
/// Sparing table entries that are looked at: the table of 32 spare packets, many times over.
const SPARES: u32 = 4096;

/// The maps of an open volume.
pub(super) struct Partitions {
    block_size: u32,
    maps: Vec<Map>,
    /// The pieces of the metadata file, in its own order.
    metadata: Vec<Run>,
    offset: u64,
}

#[derive(Clone, Copy)]
enum Map {
    /// Blocks of the volume in a row.
    Plain { start: u32, length: u32 },
    /// Blocks of the metadata file (UDF 2.50, 2.2.10).
    Metadata,
}

/// Blocks of the volume in a row.
#[derive(Clone, Copy)]
struct Run {
    start: u64,
    blocks: u32,
}

/// The kind of partition that a map asks for (UDF 2.2.8, 2.2.9, 2.2.10).
enum Wanted<'m> {
    Plain,
    Sparable {
        /// Where the tables are: numbers of four bytes.
        tables: &'m [u8],
        table_length: u32,
    },
    Metadata {
        main: u32,
        mirror: u32,
    },
}

impl Partitions {
    /// Understands the maps of a logical volume.
    #[inline(never)] // In one frame with its caller each access to the stack is longer.
    pub(super) fn open<D: Read + Seek>(
        sectors: &mut Sectors<D>,
        described: &Described,
    ) -> Result<Self, DiscFault> {
        let mut this = Self {
            block_size: described.block_size,
            maps: Vec::new(),
            metadata: Vec::new(),
            offset: described.offset,
        };
        let sector = sector_of(described.offset);
        let damaged = DiscFault::Damaged {
            structure: Structure::LogicalVolume,
            sector,
        };
        let mut maps = described.maps.as_slice();
        let mut metadata = None;
        for index in 0..described.map_count {
            let size = byte(maps, 1).map(usize::from).filter(|size| *size >= 6);
            let Some((map, rest)) = size.and_then(|size| maps.split_at_checked(size)) else {
                return Err(damaged);
            };
            maps = rest;
            let (number, wanted) = parse(map, sector)?;
            let partition = described
                .partitions
                .iter()
                .find(|known| known.number == number);
            let partition = partition.ok_or(DiscFault::Damaged {
                structure: Structure::Partition,
                sector,
            })?;
            match wanted {
                Wanted::Plain => {}
                Wanted::Sparable {
                    tables,
                    table_length,
                } => {
                    no_relocation(sectors, described.block_size, tables, table_length)?;
                }
                Wanted::Metadata { main, mirror } => metadata = Some((index, main, mirror)),
            }
            let map = Map::Plain {
                start: partition.start,
                length: partition.length,
            };
            if this.maps.len() == MAPS {
                return Err(DiscFault::Unsupported {
                    feature: Feature::ManyPartitions,
                    sector,
                });
            }
            this.maps.push(map);
        }
        if let Some((index, main, mirror)) = metadata {
            // The metadata file itself is found through the plain partition below it, which is how
            // its map is entered so far.
            let index = index as u16;
            this.metadata = this
                .metadata_runs(
                    sectors,
                    Address {
                        block: main,
                        partition: index,
                    },
                )
                .or_else(|fault| {
                    let mirror = Address {
                        block: mirror,
                        partition: index,
                    };
                    this.metadata_runs(sectors, mirror).map_err(|_| fault)
                })?;
            if let Some(map) = this.maps.get_mut(usize::from(index)) {
                *map = Map::Metadata;
            }
        }
        Ok(this)
    }

    /// Tells the size of a block, in bytes.
    pub(super) fn block_size(&self) -> usize {
        self.block_size as usize
    }

    /// Finds the byte where a block begins, and how many bytes follow it in a row.
    pub(super) fn locate(&self, address: Address) -> Result<(u64, u64), DiscFault> {
        let outside = DiscFault::Damaged {
            structure: Structure::Partition,
            sector: sector_of(self.offset),
        };
        let size = u64::from(self.block_size);
        let (block, blocks) = match *self
            .maps
            .get(usize::from(address.partition))
            .ok_or(outside)?
        {
            Map::Plain { start, length } => {
                let blocks = length
                    .checked_sub(address.block)
                    .filter(|blocks| *blocks > 0);
                (
                    u64::from(start).saturating_add(u64::from(address.block)),
                    blocks.ok_or(outside)?,
                )
            }
            Map::Metadata => {
                let mut skip = address.block;
                let run = self
                    .metadata
                    .iter()
                    .find(|run| match skip.checked_sub(run.blocks) {
                        Some(beyond) => {
                            skip = beyond;
                            false
                        }
                        None => true,
                    });
                let run = run.ok_or(outside)?;
                (
                    run.start.saturating_add(u64::from(skip)),
                    run.blocks.saturating_sub(skip),
                )
            }
        };
        Ok((
            block.saturating_mul(size),
            u64::from(blocks).saturating_mul(size),
        ))
    }

    /// Lists the pieces of a metadata file or its mirror.
    fn metadata_runs<D: Read + Seek>(
        &self,
        sectors: &mut Sectors<D>,
        address: Address,
    ) -> Result<Vec<Run>, DiscFault> {
        let sector = sector_of(self.locate(address)?.0);
        let damaged = DiscFault::Damaged {
            structure: Structure::MetadataFile,
            sector,
        };
        let entry = Entry::read(sectors, self, address).map_err(|fault| match fault {
            DiscFault::Damaged { .. } => damaged,
            other => other,
        })?;
        if entry.kind != EntryKind::Metadata {
            return Err(damaged);
        }
        let mut stream = Stream::new(&entry);
        let mut runs = Vec::new();
        let mut left = entry.length;
        while left > 0 {
            if !stream.next_run(sectors, self)? {
                return Err(damaged);
            }
            let (start, length) = stream.run;
            let size = u64::from(self.block_size);
            // A hole in the metadata file would shift every address behind it.
            let start = start.ok_or(damaged)?.checked_div(size).ok_or(damaged)?;
            let blocks = length.min(left).div_ceil(size);
            let blocks = u32::try_from(blocks).map_err(|_| damaged)?;
            if runs.len() == RUNS {
                return Err(DiscFault::Unsupported {
                    feature: Feature::FragmentedMetadata,
                    sector,
                });
            }
            runs.push(Run { start, blocks });
            left = left.saturating_sub(length);
        }
        Ok(runs)
    }
}

/// Parses one partition map (ECMA-167 3/10.7): the partition's number and what lies on it.
#[inline(never)] // In one frame with its caller each access to the stack is longer.
fn parse(map: &[u8], sector: u32) -> Result<(u16, Wanted<'_>), DiscFault> {
    let damaged = DiscFault::Damaged {
        structure: Structure::LogicalVolume,
        sector,
    };
    let unsupported = |feature| DiscFault::Unsupported { feature, sector };
    if byte(map, 0) == Some(1) {
        return Ok((u16_at(map, 4).ok_or(damaged)?, Wanted::Plain));
    }
    if byte(map, 0) != Some(2) || map.len() != 64 {
        return Err(unsupported(Feature::PartitionMap));
    }
    let number = u16_at(map, 38).ok_or(damaged)?;
    let name = map.get(5..28).unwrap_or_default();
    let wanted = if name.starts_with(b"*UDF Metadata Partition") {
        Some(Wanted::Metadata {
            main: u32_at(map, 40).ok_or(damaged)?,
            mirror: u32_at(map, 44).ok_or(damaged)?,
        })
    } else if name.starts_with(b"*UDF Sparable Partition") {
        let count = usize::from(byte(map, 42).ok_or(damaged)?);
        let places = map.get(48..).unwrap_or_default();
        // A map has room for four places, whatever it says.
        let tables = places.get(..count.saturating_mul(4)).unwrap_or(places);
        Some(Wanted::Sparable {
            tables,
            table_length: u32_at(map, 44).ok_or(damaged)?,
        })
    } else {
        None
    };
    let virtual_partition = name.starts_with(b"*UDF Virtual Partition");
    let unknown = if virtual_partition {
        Feature::VirtualPartition
    } else {
        Feature::PartitionMap
    };
    Ok((number, wanted.ok_or(unsupported(unknown))?))
}

/// Reads the first sound sparing table (UDF 2.2.12) and refuses one that has moved anything.
#[inline(never)] // In one frame with its caller each access to the stack is longer.
fn no_relocation<D: Read + Seek>(
    sectors: &mut Sectors<D>,
    block_size: u32,
    tables: &[u8],
    table_length: u32,
) -> Result<(), DiscFault> {
    let mut fault = DiscFault::Damaged {
        structure: Structure::SparingTable,
        sector: 0,
    };
    for table in tables.as_chunks().0 {
        let table = u32::from_le_bytes(*table);
        let offset = u64::from(table).saturating_mul(u64::from(block_size));
        match relocates(sectors, offset, table, block_size, table_length) {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let feature = Feature::RelocatedSectors;
                return Err(DiscFault::Unsupported {
                    feature,
                    sector: sector_of(offset),
                });
            }
            Err(found) => fault = found,
        }
    }
    Err(fault)
}

/// Says whether a sparing table moves any packet.
fn relocates<D: Read + Seek>(
    sectors: &mut Sectors<D>,
    offset: u64,
    location: u32,
    block_size: u32,
    table_length: u32,
) -> Result<bool, DiscFault> {
    let sector = sector_of(offset);
    let damaged = DiscFault::Damaged {
        structure: Structure::SparingTable,
        sector,
    };
    let block = sectors.view(offset, block_size as usize)?;
    // The table may be longer than a block, so its CRC is left alone; the name guards it as well.
    let tag = Tag::parse(block).filter(|tag| tag.identifier == 0 && tag.location == location);
    let named = block
        .get(17..36)
        .is_some_and(|name| name == b"*UDF Sparing Table\0");
    let entries = u16_at(block, 48)
        .filter(|_| tag.is_some() && named)
        .ok_or(damaged)?;
    let entries = u32::from(entries);
    if entries > SPARES || entries.saturating_mul(8).saturating_add(56) > table_length {
        return Err(damaged);
    }
    for entry in 0..entries {
        let at = offset.saturating_add(u64::from(entry.saturating_mul(8).saturating_add(56)));
        let original = u32_at(sectors.view(at, 8)?, 0).ok_or(damaged)?;
        // FFFFFFFF is a free spare packet, FFFFFFF0 a bad one; anything below has been moved there.
        if original < 0xFFFF_FFF0 {
            return Ok(true);
        }
    }
    Ok(false)
}
