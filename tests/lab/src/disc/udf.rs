//! Writes the UDF half of a disc: ECMA-167 with the bounds of OSTA UDF 1.02, 1.50 and 2.01.
//!
//! One volume, one read-only partition with a type 1 map, strategy 4, no free space, no streams.
//! Section numbers are of ECMA-167 (3rd edition) unless a UDF document is named.

use super::ecma167::{charspec, compressed_unicode, crc, dstring, identifier, long_ad, timestamp};
use super::image::{Extent, Fields, Image, SECTOR};
use super::{Node, Revision};

/// 3/8.4.2.1 puts an anchor here.
const ANCHOR: u32 = 256;
/// The first sector that no UDF structure of this writer wants.
pub(super) const FIRST_FREE: u32 = ANCHOR + 1;
const MAIN_SEQUENCE: u32 = 32;
const RESERVE_SEQUENCE: u32 = 48;
/// UDF 1.02 2.2.3.1: each sequence is 16 sectors at least.
const SEQUENCE_SECTORS: u32 = 16;
const INTEGRITY: u32 = 64;
const INTEGRITY_SECTORS: u32 = 2;

/// UDF 1.02 3.2.1: the first ids are kept for other systems.
const FIRST_UNIQUE_ID: u64 = 16;
/// The bit of an identifier that names a directory, and that names the parent (4/14.4.3).
const DIRECTORY: u8 = 1 << 1;
const PARENT: u8 = 1 << 3;
/// The type bits of an extent that holds more allocation descriptors (4/14.14.1.1).
const CONTINUED: u32 = 3 << 30;

impl Revision {
    fn number(self) -> u16 {
        match self {
            Self::R102 => 0x0102,
            Self::R150 => 0x0150,
            Self::R201 => 0x0201,
        }
    }

    /// 3/7.2.2: 2 for the second edition of ECMA-167, 3 for the third.
    fn tag_version(self) -> u16 {
        if self == Self::R201 { 3 } else { 2 }
    }

    fn standard(self) -> &'static [u8; 5] {
        if self == Self::R201 {
            b"NSR03"
        } else {
            b"NSR02"
        }
    }

    /// The length of a file entry, or of an extended one, ahead of its allocation descriptors.
    fn entry_length(self) -> usize {
        if self == Self::R201 { 216 } else { 176 }
    }
}

/// Is where each structure of the volume goes, before any of them is written.
pub(super) struct Plan {
    revision: Revision,
    embedded: bool,
    long_allocation: bool,
    /// The first sector of the recognition sequence.
    recognition: u32,
    /// The first sector of the partition; its blocks are counted from there.
    start: u32,
    /// The sectors of directories that are not inside their entries, for each node.
    directories: Vec<Option<Extent>>,
    end: u32,
}

impl Plan {
    pub(super) fn new(
        revision: Revision,
        embedded: bool,
        long_allocation: bool,
        (recognition, start): (u32, u32),
        nodes: &[Node],
    ) -> Self {
        // Blocks 0 and 1 are the file set and its terminator; then one entry for each node.
        let mut next = start + 2 + nodes.len() as u32;
        let directories = Vec::new();
        let mut plan = Self {
            revision,
            embedded,
            long_allocation,
            recognition,
            start,
            directories,
            end: 0,
        };
        for node in nodes {
            let extent = (node.is_directory() && !plan.is_embedded(nodes, node)).then(|| {
                let bytes = plan.identifiers(nodes, node, 0).len() as u32;
                let extent = Extent {
                    sector: next,
                    bytes,
                };
                next += extent.sectors();
                extent
            });
            plan.directories.push(extent);
        }
        plan.end = next;
        plan
    }

    /// Gives the first sector behind what is planned; file content goes there.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// Says whether a file or directory is stored inside its entry.
    pub(super) fn is_embedded(&self, nodes: &[Node], node: &Node) -> bool {
        let length = match &node.content {
            Some(content) => content.len(),
            None => self.identifiers(nodes, node, 0).len(),
        };
        self.embedded && length <= SECTOR - self.revision.entry_length()
    }

    /// Writes all of it and returns the number of sectors that the disc now has.
    pub(super) fn write(
        &self,
        image: &mut Image,
        label: &str,
        nodes: &[Node],
        extents: &[Vec<Extent>],
        mut next: u32,
        at_least: u32,
    ) -> u32 {
        for (index, node) in nodes.iter().enumerate() {
            self.write_entry(image, nodes, index, node, &extents[index], &mut next);
        }
        // One more sector at the very end is the second anchor (3/8.4.2.1).
        let last = next.max(at_least.saturating_sub(1));
        let blocks = last - self.start;

        self.write_recognition(image);
        for sequence in [MAIN_SEQUENCE, RESERVE_SEQUENCE] {
            self.write_sequence(image, sequence, label, blocks);
        }
        self.write_integrity(image, nodes, blocks);
        self.write_file_set(image, label);
        for sector in [ANCHOR, last] {
            let mut anchor = Fields::new(512);
            let length = SEQUENCE_SECTORS * SECTOR as u32;
            anchor
                .u32(16, length)
                .u32(20, MAIN_SEQUENCE)
                .u32(24, length)
                .u32(28, RESERVE_SEQUENCE);
            self.seal(&mut anchor, 2, sector);
            image.write(sector, &anchor.0);
        }
        last + 1
    }

    /// 2/8.3: the volume recognition sequence, behind that of ISO 9660 if there is one.
    fn write_recognition(&self, image: &mut Image) {
        let names = [b"BEA01", self.revision.standard(), b"TEA01"];
        for (sector, name) in (self.recognition..).zip(names) {
            let mut descriptor = Fields::new(SECTOR);
            descriptor.bytes(1, name).u8(6, 1);
            image.write(sector, &descriptor.0);
        }
    }

    /// 3/8.4.2: the volume descriptor sequence.
    fn write_sequence(&self, image: &mut Image, start: u32, label: &str, blocks: u32) {
        let mut primary = Fields::new(512);
        primary
            .u32(16, 1)
            .bytes(24, &dstring(label, 32))
            .u16(56, 1)
            .u16(58, 1)
            .u16(60, 2)
            .u16(62, 2)
            .u32(64, 1)
            .u32(68, 1)
            // UDF 1.02 2.2.2.5: unique in its first 16 letters, the first 8 being a time.
            .bytes(72, &dstring(&format!("65f2c3dd00000001{label}"), 128))
            .bytes(200, &charspec())
            .bytes(264, &charspec())
            .bytes(344, &[0; 32])
            .bytes(376, &timestamp())
            .bytes(388, &self.implementation())
            .u16(488, 0);

        let mut use_volume = Fields::new(512);
        use_volume
            .u32(16, 2)
            .bytes(20, &self.udf_identifier("*UDF LV Info"))
            .bytes(52, &charspec())
            .bytes(116, &dstring(label, 128))
            .bytes(352, &self.implementation());

        let mut partition = Fields::new(512);
        let mut contents = [0; 32];
        contents[1] = b'+';
        contents[2..7].copy_from_slice(self.revision.standard());
        partition
            .u32(16, 3)
            .u16(20, 1)
            .u16(22, 0)
            .bytes(24, &contents)
            // 3/10.5.7: read only.
            .u32(184, 1)
            .u32(188, self.start)
            .u32(192, blocks)
            .bytes(196, &self.implementation());

        let mut logical = Fields::new(512);
        logical
            .u32(16, 4)
            .bytes(20, &charspec())
            .bytes(84, &dstring(label, 128))
            .u32(212, SECTOR as u32)
            .bytes(216, &self.domain())
            .bytes(248, &long_ad(SECTOR as u32 * 2, 0, 0))
            .u32(264, 6)
            .u32(268, 1)
            .bytes(272, &self.implementation())
            .u32(432, INTEGRITY_SECTORS * SECTOR as u32)
            .u32(436, INTEGRITY)
            // 3/10.7.2: a type 1 map of partition 0 on volume 1.
            .bytes(440, &[1, 6, 1, 0, 0, 0]);

        let mut unallocated = Fields::new(24);
        unallocated.u32(16, 5);
        let terminator = Fields::new(512);

        let all = [
            (1, primary),
            (4, use_volume),
            (5, partition),
            (6, logical),
            (7, unallocated),
            (8, terminator),
        ];
        for (sector, (id, mut descriptor)) in (start..).zip(all) {
            self.seal(&mut descriptor, id, sector);
            image.write(sector, &descriptor.0);
        }
    }

    /// 3/10.10, with UDF 1.02 2.2.6.4 behind it.
    fn write_integrity(&self, image: &mut Image, nodes: &[Node], blocks: u32) {
        let directories = nodes.iter().filter(|node| node.is_directory()).count() as u32;
        let number = self.revision.number();
        let mut integrity = Fields::new(88 + 46);
        integrity
            .bytes(16, &timestamp())
            // Closed, as a finished volume is.
            .u32(28, 1)
            .u64(40, FIRST_UNIQUE_ID + nodes.len() as u64)
            .u32(72, 1)
            .u32(76, 46)
            .u32(80, 0)
            .u32(84, blocks)
            .bytes(88, &self.implementation())
            .u32(120, nodes.len() as u32 - directories)
            .u32(124, directories)
            .u16(128, number)
            .u16(130, number)
            .u16(132, number);
        self.seal(&mut integrity, 9, INTEGRITY);
        image.write(INTEGRITY, &integrity.0);
        let mut terminator = Fields::new(512);
        self.seal(&mut terminator, 8, INTEGRITY + 1);
        image.write(INTEGRITY + 1, &terminator.0);
    }

    /// 4/14.1.
    fn write_file_set(&self, image: &mut Image, label: &str) {
        let mut set = Fields::new(512);
        set.bytes(16, &timestamp())
            .u16(28, 3)
            .u16(30, 3)
            .u32(32, 1)
            .u32(36, 1)
            .bytes(48, &charspec())
            .bytes(112, &dstring(label, 128))
            .bytes(240, &charspec())
            .bytes(304, &dstring(label, 32))
            .bytes(400, &long_ad(SECTOR as u32, entry_block(0), 0))
            .bytes(416, &self.domain());
        self.seal(&mut set, 256, 0);
        image.write(self.start, &set.0);
        let mut terminator = Fields::new(512);
        self.seal(&mut terminator, 8, 1);
        image.write(self.start + 1, &terminator.0);
    }

    /// 4/14.9 or 4/14.17: a file entry or an extended one, and what is behind or in it.
    fn write_entry(
        &self,
        image: &mut Image,
        nodes: &[Node],
        index: usize,
        node: &Node,
        file: &[Extent],
        next: &mut u32,
    ) {
        let block = entry_block(index);
        let inside = self.is_embedded(nodes, node);
        let names;
        let (content, extents): (&[u8], &[Extent]) = match (&node.content, &self.directories[index])
        {
            (Some(content), _) => (content, file),
            (None, Some(extent)) => {
                names = self.identifiers(nodes, node, extent.sector - self.start);
                image.write(extent.sector, &names);
                (&names, core::slice::from_ref(extent))
            }
            (None, None) => {
                names = self.identifiers(nodes, node, block);
                (&names, &[])
            }
        };
        let fixed = self.revision.entry_length();
        let descriptors = if inside {
            content.to_vec()
        } else {
            self.allocation(image, extents, SECTOR - fixed, next)
        };
        let recorded = if inside {
            0
        } else {
            extents.iter().map(|e| u64::from(e.sectors())).sum()
        };

        let mut entry = Fields::new(fixed + descriptors.len());
        let allocation = if inside {
            3
        } else {
            u16::from(self.long_allocation)
        };
        let (kind, permissions) = if node.is_directory() {
            (4, 0b101)
        } else {
            (5, 0b100)
        };
        // 4/14.9.6: each directory inside counts its parent once more.
        let inner = node
            .children
            .iter()
            .filter(|&&child| nodes[child].is_directory())
            .count();
        entry
            // 4/14.6: strategy 4, one entry, the kind of file, how it is allocated.
            .u16(20, 4)
            .u16(24, 1)
            .u8(27, kind)
            .u16(34, allocation)
            // UDF 1.02 2.3.6: no owner, no group; the same for others, group and owner.
            .u32(36, u32::MAX)
            .u32(40, u32::MAX)
            .u32(44, permissions | permissions << 5 | permissions << 10)
            .u16(48, 1 + inner as u16)
            .u64(56, content.len() as u64);
        let unique = if index == 0 { 0 } else { unique_id(index) };
        if self.revision == Revision::R201 {
            entry.u64(64, content.len() as u64).u64(72, recorded);
            for at in [80, 92, 104, 116] {
                entry.bytes(at, &timestamp());
            }
            entry
                .u32(128, 1)
                .bytes(168, &self.implementation())
                .u64(200, unique);
        } else {
            entry.u64(64, recorded);
            for at in [72, 84, 96] {
                entry.bytes(at, &timestamp());
            }
            entry
                .u32(108, 1)
                .bytes(128, &self.implementation())
                .u64(160, unique);
        }
        entry
            .u32(fixed - 4, descriptors.len() as u32)
            .bytes(fixed, &descriptors);
        let id = if self.revision == Revision::R201 {
            266
        } else {
            261
        };
        self.seal(&mut entry, id, block);
        image.write(self.start + block, &entry.0);
    }

    fn descriptor_length(&self) -> usize {
        if self.long_allocation { 16 } else { 8 }
    }

    /// Describes extents in so much room; the last place points to a block with the rest.
    fn allocation(
        &self,
        image: &mut Image,
        extents: &[Extent],
        room: usize,
        next: &mut u32,
    ) -> Vec<u8> {
        let fit = room / self.descriptor_length();
        let mut bytes = Vec::new();
        let (here, rest) = if extents.len() <= fit {
            (extents, &[][..])
        } else {
            extents.split_at(fit - 1)
        };
        for extent in here {
            self.describe(&mut bytes, extent.bytes, extent.sector - self.start);
        }
        if !rest.is_empty() {
            const HEAD: usize = 24;
            let block = *next - self.start;
            *next += 1;
            let more = self.allocation(image, rest, SECTOR - HEAD, next);
            // 4/14.5.
            let mut descriptor = Fields::new(HEAD + more.len());
            descriptor.u32(20, more.len() as u32).bytes(HEAD, &more);
            self.seal(&mut descriptor, 258, block);
            image.write(self.start + block, &descriptor.0);
            self.describe(&mut bytes, CONTINUED | SECTOR as u32, block);
        }
        bytes
    }

    fn describe(&self, bytes: &mut Vec<u8>, length: u32, block: u32) {
        if self.long_allocation {
            bytes.extend_from_slice(&long_ad(length, block, 0));
        } else {
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&block.to_le_bytes());
        }
    }

    /// 4/14.4: the content of a directory whose first byte is in this block.
    fn identifiers(&self, nodes: &[Node], node: &Node, block: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let parent = (node.parent, PARENT | DIRECTORY, Vec::new());
        let children = node.children.iter().map(|&child| {
            let kind = if nodes[child].is_directory() {
                DIRECTORY
            } else {
                0
            };
            (child, kind, compressed_unicode(&nodes[child].name))
        });
        for (target, characteristics, name) in core::iter::once(parent).chain(children) {
            assert!(
                name.len() <= 255,
                "a name on a UDF disc has 254 bytes at most"
            );
            let mut identifier = Fields::new((38 + name.len()).next_multiple_of(4));
            let unique = if target == 0 {
                0
            } else {
                unique_id(target) as u32
            };
            // UDF 2.00 2.3.4.3 brought the unique id into the implementation's bytes.
            let unique = if self.revision == Revision::R201 {
                unique
            } else {
                0
            };
            identifier
                .u16(16, 1)
                .u8(18, characteristics)
                .u8(19, name.len() as u8)
                .bytes(20, &long_ad(SECTOR as u32, entry_block(target), unique))
                .bytes(38, &name);
            self.seal(&mut identifier, 257, block + (bytes.len() / SECTOR) as u32);
            bytes.extend_from_slice(&identifier.0);
        }
        bytes
    }

    /// 3/7.2: puts the tag with its two checks in front of a descriptor.
    fn seal(&self, descriptor: &mut Fields, id: u16, location: u32) {
        let crc = crc(&descriptor.0[16..]);
        let length = descriptor.0.len() as u16 - 16;
        descriptor
            .u16(0, id)
            .u16(2, self.revision.tag_version())
            .u16(6, 1)
            .u16(8, crc)
            .u16(10, length)
            .u32(12, location);
        let sum = descriptor.0[..16]
            .iter()
            .fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        descriptor.u8(4, sum);
    }

    /// UDF 1.02 2.1.4.3: the domain, whose suffix has the revision and says "write protected".
    fn domain(&self) -> [u8; 32] {
        let mut suffix = [0; 8];
        suffix[..2].copy_from_slice(&self.revision.number().to_le_bytes());
        suffix[2] = 0b11;
        identifier("*OSTA UDF Compliant", suffix)
    }

    /// An identifier that UDF itself defines: revision and system in the suffix.
    fn udf_identifier(&self, name: &str) -> [u8; 32] {
        let mut suffix = [0, 0, 4, 5, 0, 0, 0, 0];
        suffix[..2].copy_from_slice(&self.revision.number().to_le_bytes());
        identifier(name, suffix)
    }

    /// Who wrote this: a system of the UNIX kind, Linux.
    #[expect(
        clippy::unused_self,
        reason = "it reads as one of the three identifiers"
    )]
    fn implementation(&self) -> [u8; 32] {
        identifier("*preroot lab", [4, 5, 0, 0, 0, 0, 0, 0])
    }
}

/// The block of a node's entry: behind the file set and its terminator.
fn entry_block(index: usize) -> u32 {
    2 + index as u32
}

fn unique_id(index: usize) -> u64 {
    FIRST_UNIQUE_ID + index as u64 - 1
}
