//! What can be wrong with a disc, and where.
//!
//! Not a log: a fault is a small value that travels up to whoever decides what to say.

use core::fmt;

use embedded_io::ErrorKind;

/// Says why a disc or a file on it cannot be read.
///
/// Sectors are counted in units of 2048 bytes from the start of the device, whatever block size the
/// file system uses, so that they can be handed to `dd bs=2048 skip=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscFault {
    /// The drive or its driver refused to seek or to read.
    Device {
        /// The first sector that was asked for.
        sector: u32,
        /// The reason as the device gave it.
        kind: ErrorKind,
    },
    /// The device ends before this sector.
    Short {
        /// The first sector that was asked for.
        sector: u32,
    },
    /// The disc carries neither UDF nor ISO 9660.
    NoFileSystem,
    /// The disc uses something that this reader does not know.
    Unsupported {
        /// The thing that is not known.
        feature: Feature,
        /// The sector that asks for it.
        sector: u32,
    },
    /// A structure of the file system contradicts itself or its standard.
    Damaged {
        /// The structure at fault.
        structure: Structure,
        /// The sector that holds it.
        sector: u32,
    },
    /// There is no regular file of this name.
    NotFound,
    /// The caller's buffer is smaller than the file.
    Full {
        /// The length of the file in bytes, or the largest number for one of 4 GiB and more.
        needed: u32,
    },
}

impl DiscFault {
    /// Gives the front of `out` that a file of so many bytes fills, or says that it does not fit.
    pub(in crate::wire) fn front(out: &mut [u8], length: u64) -> Result<&mut [u8], Self> {
        let count = usize::try_from(length).ok();
        let front = count.and_then(|count| out.get_mut(..count));
        front.ok_or(Self::full(length))
    }

    /// Says that a file of so many bytes does not fit.
    pub(in crate::wire) fn full(length: u64) -> Self {
        // Four bytes, so that a fault fits in a register.
        let needed = u32::try_from(length).unwrap_or(u32::MAX);
        Self::Full { needed }
    }
}

impl fmt::Display for DiscFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Device { sector, kind } => {
                write!(f, "the drive failed at sector {sector}: {kind:?}")
            }
            Self::Short { sector } => write!(f, "the disc ends before sector {sector}"),
            Self::NoFileSystem => f.write_str("the disc carries neither UDF nor ISO 9660"),
            Self::Unsupported { feature, sector } => {
                write!(
                    f,
                    "the disc uses {feature} (sector {sector}), which is not supported"
                )
            }
            Self::Damaged { structure, sector } => {
                write!(f, "the disc is damaged: {structure} at sector {sector}")
            }
            Self::NotFound => f.write_str("no such file on the disc"),
            Self::Full { needed } => write!(f, "the file needs a buffer of {needed} bytes"),
        }
    }
}

/// Names what a disc may use and this reader does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// UDF on write-once media, addressed through a virtual allocation table.
    VirtualPartition,
    /// UDF on rewritable media with sectors that have been moved to a spare place.
    RelocatedSectors,
    /// A UDF partition map of an unknown type.
    PartitionMap,
    /// A UDF metadata file in more pieces than this reader keeps.
    FragmentedMetadata,
    /// More UDF partitions than this reader keeps.
    ManyPartitions,
    /// A UDF block size other than 512, 1024, 2048 or 4096.
    BlockSize,
    /// An ICB strategy other than 4.
    IcbStrategy,
    /// Extended allocation descriptors.
    ExtendedAllocation,
    /// An ISO 9660 file in interleaved mode.
    InterleavedFile,
    /// A Rock Ridge directory that was moved elsewhere because of its depth.
    RelocatedDirectory,
    /// A file compressed by zisofs.
    CompressedFile,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VirtualPartition => "a UDF virtual partition (VAT)",
            Self::RelocatedSectors => "relocated sectors of a UDF sparable partition",
            Self::PartitionMap => "a UDF partition map of an unknown type",
            Self::FragmentedMetadata => "a UDF metadata file in many pieces",
            Self::ManyPartitions => "more UDF partitions than this reader keeps",
            Self::BlockSize => "an unusual UDF block size",
            Self::IcbStrategy => "a UDF ICB strategy other than 4",
            Self::ExtendedAllocation => "UDF extended allocation descriptors",
            Self::InterleavedFile => "an interleaved ISO 9660 file",
            Self::RelocatedDirectory => "a relocated Rock Ridge directory",
            Self::CompressedFile => "zisofs compression",
        })
    }
}

/// Names the structure that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// The UDF volume recognition sequence promises a volume, but no anchor leads to it.
    Anchor,
    /// The UDF volume descriptor sequences.
    VolumeDescriptors,
    /// The UDF logical volume descriptor.
    LogicalVolume,
    /// A UDF partition, or a block outside its partition.
    Partition,
    /// The sparing table of a UDF sparable partition.
    SparingTable,
    /// The UDF metadata file and its mirror.
    MetadataFile,
    /// The UDF file set descriptor.
    FileSet,
    /// A UDF file entry.
    FileEntry,
    /// A UDF allocation descriptor, or a continuation of them.
    Allocation,
    /// A UDF file identifier.
    FileIdentifier,
    /// An ISO 9660 volume descriptor.
    IsoVolume,
    /// An ISO 9660 directory record.
    DirectoryRecord,
    /// A Rock Ridge entry.
    SystemUse,
    /// References that lead nowhere or in circles.
    Tangle,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anchor => "no UDF anchor",
            Self::VolumeDescriptors => "UDF volume descriptors",
            Self::LogicalVolume => "UDF logical volume descriptor",
            Self::Partition => "UDF partition",
            Self::SparingTable => "UDF sparing table",
            Self::MetadataFile => "UDF metadata file",
            Self::FileSet => "UDF file set descriptor",
            Self::FileEntry => "UDF file entry",
            Self::Allocation => "UDF allocation descriptors",
            Self::FileIdentifier => "UDF file identifier",
            Self::IsoVolume => "ISO 9660 volume descriptor",
            Self::DirectoryRecord => "ISO 9660 directory record",
            Self::SystemUse => "Rock Ridge entry",
            Self::Tangle => "references without end",
        })
    }
}
