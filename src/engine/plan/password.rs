//! The password as shadow holds it: SHA-512 crypt.
//!
//! Not a choice of methods: `$6$` with the default rounds is what every C library of the last fifteen
//! years verifies. yescrypt, the default of some distributions, takes 16 MiB to make a hash of their usual
//! cost (128 * r * N with N = 4096 and r = 32) and 1 MiB of the lowest; all of this program runs in
//! 400 KiB, and whoever logs in and changes the password gets the distribution's own. Format: Drepper,
//! "Unix crypt using SHA-256 and SHA-512", 22.c to 22.e.

use alloc::string::String;

use sha_crypt::{Params, sha512_crypt};
use zeroize::{Zeroize, Zeroizing};

/// Letters that a salt is made of.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Length of the whole: `$6$`, 16 letters of salt, `$`, 86 letters of hash.
const LENGTH: usize = 106;

/// Gives the letter for the lowest six bits.
fn letter(bits: u32) -> u8 {
    ALPHABET
        .get((bits & 63) as usize)
        .copied()
        .unwrap_or_default()
}

/// Hashes a password with sixteen random bytes.
#[inline(never)]
pub(super) fn hash(password: &[u8], random: [u8; 16]) -> Zeroizing<String> {
    let salt = random.map(|byte| letter(byte.into()));
    let mut digest = sha512_crypt(password, &salt, Params::RECOMMENDED);

    // Exactly one allocation: a growing string would leave unwiped copies behind.
    let mut line = Zeroizing::new(String::with_capacity(LENGTH));
    line.push_str("$6$");
    line.extend(salt.map(char::from));
    line.push('$');
    let byte = |index: usize| u32::from(digest.get(index % 63).copied().unwrap_or_default());
    // The format takes the bytes in an order of its own, three at a time, and the last one alone.
    for first in (0..21_usize).map(|group| group.wrapping_mul(22)) {
        let [high, middle, low] = [first, first.wrapping_add(21), first.wrapping_add(42)].map(byte);
        let mut bits = high << 16 | middle << 8 | low;
        for _ in 0..4 {
            line.push(letter(bits).into());
            bits >>= 6;
        }
    }
    let [.., last] = digest;
    for bits in [last, last >> 6] {
        line.push(letter(bits.into()).into());
    }
    digest.zeroize();
    line
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
        let line = hash(b"Not-A-Real-1!pw&x", random(b"abcdefgh./012345"));
        assert_eq!(
            line.as_str(),
            "$6$abcdefgh./012345$ygAPYnQNuvWS49Zd5lAx0nsBtGMCMRVH58Af2ECuOIdN9MMHU.JNAtaPWDUppWUvRKn0aBUKi9eaODfqS0Nia/"
        );
    }

    #[test]
    fn random_bytes_make_salt_letters() {
        for byte in [0, 63, 64, 200, 255] {
            let line = hash(b"x", [byte; 16]);
            assert_eq!(line.len(), LENGTH);
            assert!(line[3..19].bytes().all(|letter| ALPHABET.contains(&letter)));
        }
    }
}
