//! UDF volumes, read only: from the recognition sequence to the bytes of a file.
//!
//! Follows ECMA-167 (3rd edition) and OSTA UDF 1.02 to 2.60. Reads plain, sparable (without relocated
//! sectors) and metadata partitions. Not here: virtual partitions (write-once media), strategy 4096,
//! named streams, extended attributes, links, access rights.
//!
//! The order of the files is the order of the way: [`volume`] finds the descriptors, [`partition`]
//! turns addresses into places, [`file`] reads file entries and their extents, [`directory`] finds names.

mod bytes;
mod directory;
mod file;
mod name;
mod partition;
mod tag;
mod volume;

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
    pub(in crate::wire) fn open<D: Read + Seek>(
        sectors: &mut Sectors<D>,
    ) -> Result<Self, DiscFault> {
        if !volume::recognized(sectors)? {
            return Err(DiscFault::NoFileSystem);
        }
        volume::try_anchors(sectors, |sectors, anchor| {
            let described = volume::describe(sectors, anchor)?;
            let partitions = Partitions::open(sectors, &described)?;
            let root = root_directory(sectors, &partitions, described.file_set)?;
            let (revision, label) = (described.revision, described.label);
            Ok(Self {
                revision,
                label,
                partitions,
                root,
            })
        })
    }

    /// Tells the revision in the standard's own digits: 0x0102 is UDF 1.02.
    pub(in crate::wire) fn revision(&self) -> u16 {
        self.revision
    }

    pub(in crate::wire) fn label(&self) -> &Label {
        &self.label
    }

    /// Tells the length of a file in bytes.
    pub(in crate::wire) fn file_length<D: Read + Seek>(
        &self,
        sectors: &mut Sectors<D>,
        path: &str,
    ) -> Result<u64, DiscFault> {
        Ok(self.find(sectors, path)?.length)
    }

    /// Reads a whole file into the front of `out`.
    pub(in crate::wire) fn read_file<D: Read + Seek>(
        &self,
        sectors: &mut Sectors<D>,
        path: &str,
        out: &mut [u8],
    ) -> Result<usize, DiscFault> {
        let entry = self.find(sectors, path)?;
        let length = usize::try_from(entry.length).ok();
        let Some(out) = length.and_then(|length| out.get_mut(..length)) else {
            return Err(DiscFault::Full {
                needed: entry.length,
            });
        };
        Stream::new(&entry).read(sectors, &self.partitions, out)?;
        Ok(out.len())
    }

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
