//! An Ed25519 host key in the files that OpenSSH reads, and what people compare of it.
//!
//! Not a key library: nothing is signed or verified. Formats: OpenSSH's `PROTOCOL.key`, RFC 8709 4 and
//! RFC 8032 5.1.5 for the public half; the fingerprint is that of ssh-keygen(1).

use alloc::string::String;
use alloc::vec::Vec;

use curve25519_dalek::EdwardsPoint;
use sha2::{Digest as _, Sha256, Sha512};
use zeroize::{Zeroize as _, Zeroizing};

use super::accounts::File;
use super::base64;

/// The type's name, in the key and before it.
pub const KIND: &str = "ssh-ed25519";

const PRIVATE_START: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
const PRIVATE_END: &str = "-----END OPENSSH PRIVATE KEY-----\n";
/// How many letters OpenSSH puts on a line.
const LINE: usize = 70;

/// What a private key file starts with: no cipher, no key for it, one pair, the length of its public half.
const HEAD: &[u8] = b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01\0\0\0\x33";
/// What a public key starts with.
const PUBLIC: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";
/// Two numbers that are equal after a decryption that went well; nothing is encrypted here.
const CHECK: &[u8] = &[1; 8];
/// The length of the secret half: the seed, and once more the public half.
const SECRET: &[u8] = b"\0\0\0\x40";
/// The length of what comes before the comment in the private part.
const BEFORE_COMMENT: usize = CHECK.len() + PUBLIC.len() + 32 + SECRET.len() + 64 + 4;
/// Up to a multiple of eight bytes, the private part is filled with these.
const FILL: &[u8] = &[1, 2, 3, 4, 5, 6, 7];
/// Room for a private key with a comment as long as a host name can be.
const ROOM: usize = 512;

/// A key pair as the two files that ssh-keygen would make.
pub struct HostKey {
    /// The private key.
    pub private: File,
    /// The public key: one line.
    pub public: String,
}

impl HostKey {
    /// Makes a key pair of 32 secret random bytes.
    #[inline(never)]
    pub fn new(seed: &[u8; 32], comment: &str) -> Self {
        let mut hash = Sha512::digest(seed);
        let mut scalar = Zeroizing::new([0; 32]);
        for (to, from) in scalar.iter_mut().zip(&hash) {
            *to = *from;
        }
        hash.as_mut_slice().zeroize();
        let point = EdwardsPoint::mul_base_clamped(*scalar)
            .compress()
            .to_bytes();

        let mut body = String::new();
        base64::encode(&[PUBLIC, &point].concat(), &mut body);
        let public = [KIND, " ", &body, " ", comment, "\n"].concat();

        let length = BEFORE_COMMENT.saturating_add(comment.len());
        let fill = length.wrapping_neg() % 8;
        // Exactly one allocation each: a growing one would leave unwiped copies behind.
        let mut whole = Zeroizing::new(Vec::with_capacity(ROOM));
        for piece in [
            HEAD,
            PUBLIC,
            &point,
            &(length.saturating_add(fill) as u32).to_be_bytes(),
            CHECK,
            PUBLIC,
            &point,
            SECRET,
            seed,
            &point,
            &(comment.len() as u32).to_be_bytes(),
            comment.as_bytes(),
            FILL.get(..fill).unwrap_or_default(),
        ] {
            whole.extend_from_slice(piece);
        }

        let mut letters = Zeroizing::new(String::with_capacity(ROOM.saturating_mul(2)));
        base64::encode(&whole, &mut letters);
        let mut private = Zeroizing::new(Vec::with_capacity(ROOM.saturating_mul(2)));
        private.extend_from_slice(PRIVATE_START.as_bytes());
        for line in letters.as_bytes().chunks(LINE) {
            private.extend_from_slice(line);
            private.push(b'\n');
        }
        private.extend_from_slice(PRIVATE_END.as_bytes());
        Self { private, public }
    }
}

/// Gives the fingerprint of a public key's body as ssh-keygen shows it, `SHA256:` and 43 letters.
#[inline(never)]
pub fn fingerprint(body: &str) -> Option<String> {
    let blob = base64::decode(body.as_bytes())?;
    let mut text = String::from("SHA256:");
    base64::encode(&Sha256::digest(&*blob), &mut text);
    text.truncate(text.trim_end_matches('=').len());
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sshkey::PublicKey;
    use std::{format, vec};

    /// Made by `ssh-keygen -t ed25519 -N '' -C root@vm-demo01`; no machine has it.
    const PRIVATE: &str = include_str!("../../tests/data/hostkey/ed25519");
    const PUBLIC: &str = include_str!("../../tests/data/hostkey/ed25519.pub");

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        core::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
    }

    /// Takes the armour off.
    fn whole(private: &str) -> Vec<u8> {
        let letters = private.strip_prefix(PRIVATE_START).unwrap();
        let letters = letters.strip_suffix(PRIVATE_END).unwrap();
        base64::decode(letters.replace('\n', "").as_bytes())
            .unwrap()
            .to_vec()
    }

    #[test]
    fn key_of_the_same_seed_is_the_one_that_ssh_keygen_wrote() {
        let theirs = whole(PRIVATE);
        // Magic, three words, count, public part, length of the private part.
        let checks = 15 + 8 + 8 + 4 + 4 + 4 + 51 + 4;
        // Two numbers, the type, the public half, and a length come before the seed.
        let start = checks + 8 + 15 + 36 + 4;
        let seed = theirs[start..start + 32].try_into().unwrap();
        let ours = HostKey::new(&seed, "root@vm-demo01");
        assert_eq!(ours.public, PUBLIC);
        let text = core::str::from_utf8(&ours.private).unwrap();
        let mut whole = whole(text);
        assert_eq!(whole[checks..checks + 4], whole[checks + 4..checks + 8]);
        whole[checks..checks + 8].copy_from_slice(&theirs[checks..checks + 8]);
        assert_eq!(whole, theirs);
        let lengths = |text: &str| -> Vec<usize> { text.lines().map(str::len).collect() };
        assert_eq!(lengths(text), lengths(PRIVATE));
    }

    #[test]
    fn public_halves_are_those_of_rfc_8032() {
        for (seed, point) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            ),
            (
                "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
                "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
            ),
        ] {
            let mut blob = vec![0, 0, 0, 11];
            blob.extend_from_slice(KIND.as_bytes());
            blob.extend_from_slice(&[0, 0, 0, 32]);
            blob.extend_from_slice(&hex::<32>(point));
            let mut body = String::new();
            base64::encode(&blob, &mut body);
            let key = HostKey::new(&hex(seed), "x");
            assert_eq!(key.public, format!("{KIND} {body} x\n"));
        }
    }

    #[test]
    fn comment_of_any_length_fills_the_last_block_and_fits_the_room() {
        for length in 0..=80 {
            let key = HostKey::new(&[3; 32], &"c".repeat(length));
            let whole = whole(core::str::from_utf8(&key.private).unwrap());
            let private = whole.len() - (15 + 8 + 8 + 4 + 4 + 4 + 51 + 4);
            assert!(private.is_multiple_of(8), "{length}");
            assert!(whole.len() <= ROOM && key.private.capacity() == 2 * ROOM);
            assert!(PublicKey::parse(&key.public).is_ok());
        }
    }

    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        for (line, expected) in [
            (PUBLIC, "SHA256:kqhuAXES69wVqUaWvAnU7ql116uP2iP+aJzZi/hH9LY"),
            (
                include_str!("../../tests/data/sshkey/rsa.pub"),
                "SHA256:rXrZqzQH3dP6Ej2snyxDhQoC2/R5DruZ4WPHTneg49s",
            ),
            (
                include_str!("../../tests/data/sshkey/ecdsa.pub"),
                "SHA256:BGg/WzKNN4lACJDHUgNx7GqSIOBEEnIo5iCjn3oHIzQ",
            ),
        ] {
            let key = PublicKey::parse(line).unwrap();
            assert_eq!(fingerprint(key.body()).as_deref(), Some(expected));
        }
        assert_eq!(fingerprint("not base64!"), None);
    }
}
