//! Base64 as the platform writes it: RFC 4648 4, padded, and in one way only.
//!
//! Decoding is not for secrets that somebody could time: what comes in base64 are public keys and custom
//! data. What is encoded may be secret: no branch and no address depends on it.

use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

/// Decodes a whole text, or gives nothing when no encoder would have written it.
pub fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let letters = text.strip_suffix(b"=").unwrap_or(text);
    let letters = letters.strip_suffix(b"=").unwrap_or(letters);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    // Exactly one allocation: a growing vector would leave unwiped copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    for group in letters.chunks(4) {
        let mut word = 0;
        for position in 0..4 {
            word = word << 6 | group.get(position).copied().map_or(Some(0), value)?;
        }
        let [_, decoded @ ..] = word.to_be_bytes();
        // Bits that the padding says are not there must be zero.
        let (decoded, spare) = decoded.split_at_checked(group.len().saturating_sub(1))?;
        if spare.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(decoded);
    }
    Some(bytes)
}

/// Gives the six bits that a letter stands for.
fn value(letter: u8) -> Option<u32> {
    let (first, of_first) = match letter {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(letter.wrapping_sub(first).wrapping_add(of_first)))
}

/// Appends the letters for these bytes, padded.
pub fn encode(bytes: &[u8], out: &mut String) {
    for group in bytes.chunks(3) {
        let mut word = 0_u32;
        for position in 0..3 {
            word = word << 8 | u32::from(group.get(position).copied().unwrap_or(0));
        }
        for position in 0..4 {
            let shift = 18_u32.saturating_sub(6_u32.saturating_mul(position));
            out.push(if position as usize > group.len() {
                '='
            } else {
                letter(word >> shift & 63)
            });
        }
    }
}

/// Gives the letter for six bits: `A`, and the steps that are made on the way to it.
fn letter(bits: u32) -> char {
    let mut letter = 65_u32.wrapping_add(bits);
    // From `Z` to `a`, from `z` to `0`, from `9` to `+`, from `+` to `/`.
    for (last, step) in [
        (25_u32, 6_u32),
        (51, 75_u32.wrapping_neg()),
        (61, 15_u32.wrapping_neg()),
        (62, 3),
    ] {
        // All ones where `bits` is beyond `last`.
        let beyond = (last.wrapping_sub(bits) >> 31).wrapping_neg();
        letter = letter.wrapping_add(step & beyond);
    }
    char::from(letter as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use base64ct::{Base64, Encoding as _};

    #[test]
    fn texts_are_taken_or_refused_as_the_reference_does() {
        let mut random = Random::new();
        let mut taken = 0;
        for round in 0..20_000 {
            let good: Vec<u8> = (0..random.below(24))
                .map(|_| random.below(256) as u8)
                .collect();
            let mut text = Base64::encode_string(&good).into_bytes();
            if round % 4 > 0 {
                text = random.damage(&text);
            }
            if round % 4 > 1 {
                // Damage that is all of the right letters: lengths, padding and spare bits.
                text.retain(|byte| value(*byte).is_some() || *byte == b'=');
            }
            let reference = core::str::from_utf8(&text)
                .ok()
                .and_then(|text| Base64::decode_vec(text).ok());
            let decoded = decode(&text).map(|bytes| bytes.to_vec());
            assert_eq!(decoded, reference, "{}", text.escape_ascii());
            taken += u32::from(decoded.is_some());
        }
        assert!((6_000..19_000).contains(&taken), "{taken} taken");
    }

    #[test]
    fn spare_bits_and_missing_padding_are_refused() {
        assert_eq!(decode(b"QQ==").as_deref(), Some(&b"A".to_vec()));
        for text in [
            "QR==", "QQ=", "QQ", "QQ===", "====", "=", "QUF=", "Q===", "QQ==QQ==",
        ] {
            assert!(decode(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn encoded_bytes_are_the_letters_of_the_reference() {
        let mut random = Random::new();
        let all: Vec<u8> = (0..=255).collect();
        for length in 0..400 {
            let bytes: Vec<u8> = match length {
                0 => all.clone(),
                _ => (0..length).map(|_| random.below(256) as u8).collect(),
            };
            let mut text = String::from("x");
            encode(&bytes, &mut text);
            assert_eq!(text, std::format!("x{}", Base64::encode_string(&bytes)));
        }
    }
}
