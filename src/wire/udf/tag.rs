//! The descriptor tag, with which every UDF structure begins (ECMA-167 3/7.2).

use super::bytes::{byte, u16_at, u32_at};

/// The bytes of a tag.
pub(super) const TAG: usize = 16;

/// Tag identifiers (ECMA-167 3/7.2.1, 4/7.2.1).
pub(super) mod identifier {
    pub(in super::super) const PRIMARY_VOLUME: u16 = 1;
    pub(in super::super) const ANCHOR: u16 = 2;
    pub(in super::super) const VOLUME_POINTER: u16 = 3;
    pub(in super::super) const PARTITION: u16 = 5;
    pub(in super::super) const LOGICAL_VOLUME: u16 = 6;
    pub(in super::super) const TERMINATING: u16 = 8;
    pub(in super::super) const FILE_SET: u16 = 256;
    pub(in super::super) const FILE_IDENTIFIER: u16 = 257;
    pub(in super::super) const ALLOCATION_EXTENT: u16 = 258;
    pub(in super::super) const FILE_ENTRY: u16 = 261;
    pub(in super::super) const EXTENDED_FILE_ENTRY: u16 = 266;
}

/// A tag whose own checksum is right.
#[derive(Clone, Copy)]
pub(super) struct Tag {
    pub(super) identifier: u16,
    pub(super) crc: u16,
    /// Bytes after the tag that the CRC covers.
    pub(super) crc_length: u16,
    pub(super) location: u32,
}

impl Tag {
    /// Parses a tag and checks its version and its checksum.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let tag = bytes.get(..TAG)?;
        let version = u16_at(tag, 2)?;
        let stored = byte(tag, 4)?;
        let sum = tag.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        // ECMA-167 2nd edition says 2, 3rd edition 3; writers mix them within one volume.
        if !matches!(version, 2 | 3) || sum.wrapping_sub(stored) != stored {
            return None;
        }
        Some(Self {
            identifier: u16_at(tag, 0)?,
            crc: u16_at(tag, 8)?,
            crc_length: u16_at(tag, 10)?,
            location: u32_at(tag, 12)?,
        })
    }

    /// Parses the tag of a descriptor that lies whole in `bytes` and checks all of it.
    ///
    /// `location` is the block where it was found, counted as its standard wants: from the start of
    /// the volume for volume descriptors, from the start of the partition for everything else.
    pub(super) fn verify(bytes: &[u8], location: u32) -> Option<Self> {
        let tag = Self::parse(bytes)?;
        let end = TAG.checked_add(usize::from(tag.crc_length))?;
        let crc = crc(0, bytes.get(TAG..end)?);
        (tag.location == location && tag.crc == crc).then_some(tag)
    }
}

/// Continues the CRC of ECMA-167 3/7.2.6 (CRC-16/XMODEM) over more bytes; it begins with zero.
pub(super) fn crc(begin: u16, bytes: &[u8]) -> u16 {
    // The polynomial x^16 + x^12 + x^5 + 1, a byte at a time without a table.
    bytes.iter().fold(begin, |crc, byte| {
        let mut crc = crc.swap_bytes() ^ u16::from(*byte);
        crc ^= (crc & 0xFF) >> 4;
        crc ^= crc << 12;
        crc ^ ((crc & 0xFF) << 5)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_example_in_the_standard() {
        // ECMA-167 3/7.2.6: the CRC of 70 6A 77 is 3299.
        assert_eq!(crc(0, &[0x70, 0x6A, 0x77]), 0x3299);
        assert_eq!(crc(crc(0, &[0x70]), &[0x6A, 0x77]), 0x3299);
    }

    /// A tag for block 256 over the three bytes of that example, with one byte to spare.
    fn descriptor() -> [u8; 20] {
        let mut bytes = [
            2, 0, 2, 0, 0, 0, 0, 0, 0x99, 0x32, 3, 0, 0, 1, 0, 0, 0x70, 0x6A, 0x77, 9,
        ];
        bytes[4] = bytes[..16]
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes
    }

    #[test]
    fn good_tag_passes_at_its_own_place_only() {
        let bytes = descriptor();
        assert_eq!(Tag::verify(&bytes, 256).map(|tag| tag.identifier), Some(2));
        assert!(Tag::verify(&bytes, 257).is_none());
    }

    #[test]
    fn every_flipped_bit_that_the_sums_cover_is_noticed() {
        for bit in 0..19 * 8 {
            let mut bytes = descriptor();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Tag::verify(&bytes, 256).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn crc_that_reaches_beyond_the_block_is_refused() {
        let mut bytes = descriptor();
        bytes[10] = 5;
        bytes[4] = bytes[4].wrapping_add(2);
        assert!(Tag::verify(&bytes, 256).is_none());
    }
}
