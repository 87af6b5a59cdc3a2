//! From the start of the device to the logical volume: recognition sequence, anchor, descriptors.

use alloc::boxed::Box;
use alloc::vec::Vec;

use embedded_io::{Read, Seek};

use super::super::disc::Label;
use super::super::disc::fault::{DiscFault, Feature, Structure};
use super::super::disc::sectors::{SECTOR, Sectors, sector_of};
use super::bytes::{long_ad, u16_at, u32_at};
use super::tag::{Tag, identifier};
use super::{Address, name};

/// Where the volume recognition sequence begins (ECMA-167 2/8.3).
const RECOGNITION: u64 = 32768;
/// Recognition structures that are looked at; real discs have three to eight.
const RECOGNITIONS: u64 = 64;
/// Descriptors that are looked at in one sequence, those behind pointers included.
const DESCRIPTORS: u32 = 64;
/// Partition descriptors that are kept. UDF allows two at most (one read-only, one not).
const PARTITIONS: usize = 4;
/// Bytes of partition maps that are kept: four of the largest.
const MAPS: usize = 4 * 64;

/// Says whether the recognition sequence names UDF (NSR02 or NSR03, ECMA-167 3/9.1).
///
/// BEA01 before it and TEA01 behind it are not asked for: a writer that forgot one of them has
/// still said what the disc is.
pub(super) fn recognized<D: Read + Seek>(sectors: &mut Sectors<D>) -> Result<bool, DiscFault> {
    const BEFORE: [&[u8; 5]; 4] = [b"BEA01", b"BOOT2", b"CD001", b"CDW02"];
    let mut unknown = false;
    for index in 0..RECOGNITIONS {
        let offset = RECOGNITION.saturating_add(index.saturating_mul(SECTOR));
        let name = sectors.view(offset, 8)?.get(1..6).unwrap_or_default();
        if [b"NSR02", b"NSR03"].iter().any(|known| name == *known) {
            return Ok(true);
        }
        if BEFORE.iter().any(|known| name == *known) {
            unknown = false;
        } else if unknown || name == b"TEA01" {
            return Ok(false);
        } else {
            // With blocks of 4096 bytes every second sector here is empty.
            unknown = true;
        }
    }
    Ok(false)
}

/// An anchor volume descriptor pointer, which leads to the descriptor sequences.
#[derive(Clone, Copy)]
pub(super) struct Anchor {
    block_size: u32,
    main: Extent,
    reserve: Extent,
    offset: u64,
}

impl Anchor {
    /// Counts the whole blocks of an extent.
    fn blocks(&self, extent: Extent) -> u32 {
        extent.length.checked_div(self.block_size).unwrap_or(0)
    }
}

/// An extent of the volume (`extent_ad`, ECMA-167 3/7.1).
#[derive(Clone, Copy)]
struct Extent {
    length: u32,
    block: u32,
}

impl Extent {
    fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            length: u32_at(bytes, at)?,
            block: u32_at(bytes, at.checked_add(4)?)?,
        })
    }
}

/// A place where an anchor may be (ECMA-167 3/8.4.2.1, UDF 2.2.3).
enum Place {
    Block(u32),
    FromEnd(u64),
}

const PLACES: [Place; 4] = [
    Place::Block(256),
    Place::FromEnd(1),
    Place::FromEnd(257),
    Place::Block(512),
];

impl Place {
    fn block(&self, length: Option<u64>, block_size: u32) -> Option<u32> {
        match *self {
            Self::Block(block) => Some(block),
            Self::FromEnd(blocks) => {
                let count = length?.checked_div(u64::from(block_size))?;
                u32::try_from(count.checked_sub(blocks)?).ok()
            }
        }
    }
}

/// What an anchor is tried for.
type Open<'a, D, T> = dyn FnMut(&mut Sectors<D>, &Anchor) -> Result<T, DiscFault> + 'a;

/// Tries anchor after anchor until one leads to what `open` wants.
///
/// The block size is not written down before the logical volume descriptor, but an anchor carries its own
/// block number, which fits its place for one block size only. Optical drives come first.
pub(super) fn try_anchors<D: Read + Seek, T>(
    sectors: &mut Sectors<D>,
    open: &mut Open<'_, D, T>,
) -> Result<T, DiscFault> {
    let length = sectors.length();
    let mut fault = None;
    for place in &PLACES {
        for &block_size in &[2048, 512, 4096, 1024] {
            let Some(block) = place.block(length, block_size) else {
                continue;
            };
            let result = match anchor(sectors, block_size, block) {
                Ok(None) | Err(DiscFault::Short { .. }) => continue,
                Ok(Some(anchor)) => open(sectors, &anchor),
                Err(fault) => Err(fault),
            };
            match result {
                Ok(value) => return Ok(value),
                // What an anchor led to says more than a sector that could not be read.
                Err(found) if matches!(fault, None | Some(DiscFault::Device { .. })) => {
                    fault = Some(found);
                }
                Err(_) => {}
            }
        }
    }
    let sector = sector_of(SECTOR.saturating_mul(256));
    Err(fault.unwrap_or(DiscFault::Damaged {
        structure: Structure::Anchor,
        sector,
    }))
}

#[inline(never)] // In one frame with its caller each access to the stack is longer.
fn anchor<D: Read + Seek>(
    sectors: &mut Sectors<D>,
    block_size: u32,
    block: u32,
) -> Result<Option<Anchor>, DiscFault> {
    let offset = u64::from(block).saturating_mul(u64::from(block_size));
    let bytes = sectors.view(offset, 512)?;
    let parse = || {
        let tag = Tag::verify(bytes, block)?;
        let (main, reserve) = (Extent::parse(bytes, 16)?, Extent::parse(bytes, 24)?);
        let anchor = Anchor {
            block_size,
            main,
            reserve,
            offset,
        };
        (tag.identifier == identifier::ANCHOR).then_some(anchor)
    };
    Ok(parse())
}

/// What the volume descriptors say.
pub(super) struct Described {
    pub(super) block_size: u32,
    pub(super) revision: u16,
    pub(super) label: Label,
    pub(super) file_set: Address,
    pub(super) partitions: Vec<Partition>,
    /// The partition maps of the logical volume, as they are on the disc.
    pub(super) maps: Vec<u8>,
    pub(super) map_count: u32,
    /// Where the logical volume descriptor is.
    pub(super) offset: u64,
}

/// A partition descriptor (ECMA-167 3/10.5).
#[derive(Clone, Copy)]
pub(super) struct Partition {
    sequence: u32,
    pub(super) number: u16,
    pub(super) start: u32,
    pub(super) length: u32,
}

/// Reads the main descriptor sequence, else the reserve one.
pub(super) fn describe<D: Read + Seek>(
    sectors: &mut Sectors<D>,
    anchor: &Anchor,
) -> Result<Box<Described>, DiscFault> {
    sequence(sectors, anchor, anchor.main)
        .or_else(|fault| sequence(sectors, anchor, anchor.reserve).map_err(|_| fault))
}

/// Reads one volume descriptor sequence (ECMA-167 3/8.4.2) and keeps the prevailing descriptors.
fn sequence<D: Read + Seek>(
    sectors: &mut Sectors<D>,
    anchor: &Anchor,
    extent: Extent,
) -> Result<Box<Described>, DiscFault> {
    let size = u64::from(anchor.block_size);
    let mut block = extent.block;
    let mut left = anchor.blocks(extent);
    let mut partitions = Vec::<Partition>::new();
    let mut logical: Option<(u32, Box<Described>)> = None;
    let mut primary: Option<(u32, Label)> = None;
    let mut damaged = None;
    for _ in 0..DESCRIPTORS {
        if left == 0 {
            break;
        }
        let offset = u64::from(block).saturating_mul(size);
        let bytes = sectors.view(offset, anchor.block_size as usize)?;
        let here = DiscFault::Damaged {
            structure: Structure::VolumeDescriptors,
            sector: sector_of(offset),
        };
        let Some(tag) = Tag::verify(bytes, block) else {
            // A sequence may end with an empty block instead of a terminating descriptor. Anything
            // else is damage, which matters only if something is missing in the end.
            if bytes.iter().all(|byte| *byte == 0) {
                break;
            }
            damaged = damaged.or(Some(here));
            (block, left) = (block.saturating_add(1), left.saturating_sub(1));
            continue;
        };
        let number = u32_at(bytes, 16).unwrap_or(0);
        (block, left) = (block.saturating_add(1), left.saturating_sub(1));
        match tag.identifier {
            identifier::TERMINATING => break,
            identifier::VOLUME_POINTER => {
                let next = Extent::parse(bytes, 20).ok_or(here)?;
                (block, left) = (next.block, anchor.blocks(next));
            }
            identifier::PRIMARY_VOLUME if primary.as_ref().is_none_or(|kept| kept.0 <= number) => {
                let label = bytes.get(24..56).and_then(name::label);
                primary = Some((number, label.unwrap_or_default()));
            }
            identifier::PARTITION => {
                let partition = Partition::parse(bytes).ok_or(here)?;
                let is_full = partitions.len() == PARTITIONS;
                match partitions
                    .iter_mut()
                    .find(|kept| kept.number == partition.number)
                {
                    Some(kept) if kept.sequence <= number => *kept = partition,
                    Some(_) => {}
                    None if is_full => {
                        return Err(DiscFault::Unsupported {
                            feature: Feature::ManyPartitions,
                            sector: sector_of(offset),
                        });
                    }
                    None => partitions.push(partition),
                }
            }
            identifier::LOGICAL_VOLUME if logical.as_ref().is_none_or(|kept| kept.0 <= number) => {
                logical = Some((number, Described::parse(bytes, anchor.block_size, offset)?));
            }
            _ => {}
        }
    }
    let nothing = DiscFault::Damaged {
        structure: Structure::VolumeDescriptors,
        sector: sector_of(anchor.offset),
    };
    let (_, mut described) = logical.ok_or(damaged.unwrap_or(nothing))?;
    if partitions.is_empty() {
        return Err(damaged.unwrap_or(nothing));
    }
    described.partitions = partitions;
    if described.label.is_empty() {
        described.label = primary.map(|(_, label)| label).unwrap_or_default();
    }
    Ok(described)
}

impl Partition {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            sequence: u32_at(bytes, 16)?,
            number: u16_at(bytes, 22)?,
            start: u32_at(bytes, 188)?,
            length: u32_at(bytes, 192)?,
        })
    }
}

impl Described {
    /// Parses a logical volume descriptor (ECMA-167 3/10.6); its partitions are filled in later.
    #[inline(never)] // In one frame with its caller each access to the stack is longer.
    fn parse(bytes: &[u8], block_size: u32, offset: u64) -> Result<Box<Self>, DiscFault> {
        let sector = sector_of(offset);
        let damaged = DiscFault::Damaged {
            structure: Structure::LogicalVolume,
            sector,
        };
        let parse = || {
            let maps = u32_at(bytes, 264).and_then(|length| usize::try_from(length).ok())?;
            let maps = bytes.get(440..440_usize.checked_add(maps)?)?;
            let (_, file_set) = long_ad(bytes, 248)?;
            Some((
                u32_at(bytes, 212)?,
                u16_at(bytes, 240)?,
                file_set,
                maps,
                u32_at(bytes, 268)?,
            ))
        };
        let (stated, revision, file_set, maps, map_count) = parse().ok_or(damaged)?;
        if stated != block_size {
            let feature = Feature::BlockSize;
            let known = matches!(stated, 512 | 1024 | 2048 | 4096);
            return Err(if known {
                damaged
            } else {
                DiscFault::Unsupported { feature, sector }
            });
        }
        if maps.len() > MAPS {
            let feature = Feature::ManyPartitions;
            return Err(DiscFault::Unsupported { feature, sector });
        }
        Ok(Box::new(Self {
            block_size,
            revision,
            // A label is for people to read; a broken one is no reason to refuse the disc.
            label: bytes.get(84..212).and_then(name::label).unwrap_or_default(),
            file_set,
            partitions: Vec::new(),
            maps: maps.into(),
            map_count,
            offset,
        }))
    }
}
