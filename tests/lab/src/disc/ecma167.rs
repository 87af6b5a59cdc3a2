//! The basic types of ECMA-167 and of OSTA UDF: identifiers, text, times, checks.
//!
//! No structure of a volume, and no place on it: those are in `udf`. Section numbers are of ECMA-167
//! (3rd edition) unless a UDF document is named.

use super::image::Fields;

/// 1/7.4.
pub(super) fn identifier(name: &str, suffix: [u8; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[1..=name.len()].copy_from_slice(name.as_bytes());
    bytes[24..].copy_from_slice(&suffix);
    bytes
}

/// 4/14.14.2, always of partition 0.
pub(super) fn long_ad(length: u32, block: u32, unique: u32) -> [u8; 16] {
    let mut bytes = Fields::new(16);
    bytes.u32(0, length).u32(4, block).u32(12, unique);
    bytes.0.try_into().expect("it was made 16 long")
}

/// UDF 1.02 2.1.2: CS0.
pub(super) fn charspec() -> [u8; 64] {
    let mut bytes = [0; 64];
    let name = b"OSTA Compressed Unicode";
    bytes[1..=name.len()].copy_from_slice(name);
    bytes
}

/// UDF 1.02 2.1.1: one byte a letter when all fit, else two.
pub(super) fn compressed_unicode(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    let units: Vec<u16> = text.encode_utf16().collect();
    if units.iter().all(|&unit| unit < 0x100) {
        core::iter::once(8)
            .chain(units.iter().map(|&unit| unit as u8))
            .collect()
    } else {
        core::iter::once(16)
            .chain(units.iter().flat_map(|unit| unit.to_be_bytes()))
            .collect()
    }
}

/// 1/7.2.12: text of a fixed length, whose last byte is the length that is used.
pub(super) fn dstring(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = compressed_unicode(text);
    assert!(bytes.len() < length, "{text} is too long for a label");
    let used = bytes.len() as u8;
    bytes.resize(length, 0);
    bytes[length - 1] = used;
    bytes
}

/// 1/7.3: always the same moment, so that discs can be compared: 2024-03-14 09:26:53 UTC.
pub(super) fn timestamp() -> [u8; 12] {
    let [low, high] = 2024_u16.to_le_bytes();
    [0, 1 << 4, low, high, 3, 14, 9, 26, 53, 0, 0, 0]
}

/// 3/7.2.6: CRC-ITU-T, polynomial x^16 + x^12 + x^5 + 1, from 0, most significant bit first.
pub(super) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_that_of_the_standard() {
        // The example of ECMA-167 3/7.2.6.
        assert_eq!(crc(&[0x70, 0x6a, 0x77]), 0x3299);
    }

    #[test]
    fn letters_take_one_byte_until_one_needs_two() {
        assert_eq!(compressed_unicode("a\u{e9}"), [8, b'a', 0xe9]);
        assert_eq!(compressed_unicode("a\u{20ac}"), [16, 0, b'a', 0x20, 0xac]);
    }

    #[test]
    fn dstring_ends_with_its_length() {
        let field = dstring("ab", 32);
        assert_eq!(
            (field.len(), &field[..4], field[31]),
            (32, &[8, b'a', b'b', 0][..], 3)
        );
    }
}
