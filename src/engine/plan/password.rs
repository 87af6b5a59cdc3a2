//! The password as shadow holds it: SHA-512 crypt.
//!
//! Not a choice of methods: `$6$` with the default rounds is what every C library of the last fifteen
//! years verifies. Format: Drepper, "Unix crypt using SHA-256 and SHA-512", 22.c to 22.e.

use alloc::string::String;

use base64ct::{Base64ShaCrypt, Encoding};
use sha_crypt::{Params, sha512_crypt};
use zeroize::{Zeroize, Zeroizing};

/// Letters that a salt is made of.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Length of the whole: `$6$`, 16 letters of salt, `$`, 86 letters of hash.
const LENGTH: usize = 106;

/// Hashes a password with sixteen random bytes; nothing only when the libraries refuse.
pub(super) fn hash(password: &[u8], random: [u8; 16]) -> Option<Zeroizing<String>> {
    let salt = random.map(|byte| {
        ALPHABET
            .get(usize::from(byte & 63))
            .copied()
            .unwrap_or(b'.')
    });
    let mut digest = sha512_crypt(password, &salt, Params::RECOMMENDED);

    // The format takes the bytes in an order of its own, three at a time, and the last one alone.
    let mut ordered = Zeroizing::new([0_u8; 64]);
    let orders = (0..21_usize).flat_map(|group| {
        let first = group.wrapping_mul(22) % 63;
        [
            first.wrapping_add(42) % 63,
            first.wrapping_add(21) % 63,
            first,
        ]
    });
    for (slot, index) in ordered.iter_mut().zip(orders.chain([63])) {
        *slot = digest.get(index).copied().unwrap_or_default();
    }
    digest.zeroize();

    let mut letters = Zeroizing::new([0_u8; 86]);
    let encoded = Base64ShaCrypt::encode(&*ordered, &mut *letters).ok()?;
    let mut line = Zeroizing::new(String::with_capacity(LENGTH));
    line.push_str("$6$");
    line.push_str(core::str::from_utf8(&salt).ok()?);
    line.push('$');
    line.push_str(encoded);
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns salt letters back into bytes that make them.
    fn random(letters: &[u8; 16]) -> [u8; 16] {
        letters.map(|letter| ALPHABET.iter().position(|l| *l == letter).unwrap() as u8)
    }

    #[test]
    fn hash_is_the_one_that_openssl_makes() {
        let line = hash(b"Not-A-Real-1!pw&x", random(b"abcdefgh./012345")).unwrap();
        assert_eq!(
            line.as_str(),
            "$6$abcdefgh./012345$ygAPYnQNuvWS49Zd5lAx0nsBtGMCMRVH58Af2ECuOIdN9MMHU.JNAtaPWDUppWUvRKn0aBUKi9eaODfqS0Nia/"
        );
    }

    #[test]
    fn random_bytes_make_salt_letters() {
        for byte in [0, 63, 64, 200, 255] {
            let line = hash(b"x", [byte; 16]).unwrap();
            assert_eq!(line.len(), LENGTH);
            assert!(line[3..19].bytes().all(|letter| ALPHABET.contains(&letter)));
        }
    }
}
