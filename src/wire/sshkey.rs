//! OpenSSH public key lines, as the platform hands them over and as `authorized_keys` holds them.
//!
//! Not a key library: nothing is signed, verified or generated. A key is cleaned of the line breaks that
//! Azure's stores are known to leave in it and checked so far that sshd will accept the line, because a
//! key that sshd silently ignores locks its owner out. Formats: RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4 and
//! OpenSSH's `PROTOCOL.u2f`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::names::shown;
use super::{accounts, base64};

/// Longest key line, as sshd reads them.
pub const LINE_MAX: usize = 16 * 1024;

/// Shortest modulus of an RSA key, in bytes: no sshd of the last years takes less.
const RSA_MIN: usize = 128;

/// Longest part of an unknown type that is repeated in a message.
const TYPE_SHOWN: usize = 40;

/// Says what the type of a key asks of its body.
struct Type {
    name: &'static str,
    /// Number of length-prefixed fields, the type itself included.
    fields: usize,
    /// The one content that the second field may have.
    curve: Option<&'static str>,
    /// The one length that the field with the point may have: the second, or the one behind the curve.
    point: Option<usize>,
}

const ED25519_POINT: Option<usize> = Some(32);

/// The types that are accepted; `ssh-dss` and certificates are not among them.
const TYPES: [Type; 7] = [
    Type {
        name: "ssh-ed25519",
        fields: 2,
        curve: None,
        point: ED25519_POINT,
    },
    Type {
        name: "ssh-rsa",
        fields: 3,
        curve: None,
        point: None,
    },
    Type {
        name: "ecdsa-sha2-nistp256",
        fields: 3,
        curve: Some("nistp256"),
        point: Some(65),
    },
    Type {
        name: "ecdsa-sha2-nistp384",
        fields: 3,
        curve: Some("nistp384"),
        point: Some(97),
    },
    Type {
        name: "ecdsa-sha2-nistp521",
        fields: 3,
        curve: Some("nistp521"),
        point: Some(133),
    },
    Type {
        name: "sk-ssh-ed25519@openssh.com",
        fields: 3,
        curve: None,
        point: ED25519_POINT,
    },
    Type {
        name: "sk-ecdsa-sha2-nistp256@openssh.com",
        fields: 4,
        curve: Some("nistp256"),
        point: Some(65),
    },
];

/// Says why a key is refused.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyFault {
    /// There is no text.
    Empty,
    /// The line is longer than sshd reads.
    TooLong,
    /// The type is not one that we know; the text starts like this.
    UnknownType(Box<str>),
    /// The line starts with options, which the platform has no business to set.
    Options,
    /// There is no body after the type.
    NoBody,
    /// The body is not base64.
    NotBase64,
    /// The body names another type than the line does.
    OtherType,
    /// The body is cut or has the wrong parts for its type.
    Structure,
    /// It has fewer bits than sshd takes.
    Short,
    /// A control character is in the line.
    Control,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "it is longer than {LINE_MAX} bytes"),
            Self::UnknownType(name) => {
                write!(f, "type '{name}' is not supported")
            }
            Self::Options => f.write_str("it starts with options"),
            Self::NoBody => f.write_str("there is nothing after its type"),
            Self::NotBase64 => f.write_str("its body is not base64"),
            Self::OtherType => f.write_str("its body is of another type than the line says"),
            Self::Structure => f.write_str("its body is cut or damaged"),
            Self::Short => write!(f, "it has fewer than {} bits", RSA_MIN * 8),
            Self::Control => f.write_str("it has a control character"),
        }
    }
}

impl fmt::Debug for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One checked key as one line: type, body, and a comment when it came with one.
pub struct PublicKey {
    line: String,
    kind: &'static str,
}

impl PublicKey {
    /// Cleans and checks one key; line breaks anywhere in it are dropped, not taken as a second line.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        if text.len() > LINE_MAX {
            return Err(KeyFault::TooLong);
        }
        let mut joined = String::with_capacity(text.len());
        for c in text.trim().chars() {
            if !matches!(c, '\r' | '\n') {
                joined.push(c);
            }
        }
        let (word, rest) = split_word(&joined);
        if word.is_empty() {
            return Err(KeyFault::Empty);
        }
        let Some(kind) = TYPES.iter().find(|kind| kind.name == word) else {
            let later = accounts::words(rest.as_bytes())
                .any(|word| TYPES.iter().any(|kind| kind.name.as_bytes() == word));
            return Err(if later {
                KeyFault::Options
            } else {
                KeyFault::UnknownType(shown(word, TYPE_SHOWN, |c| c.is_ascii_graphic()))
            });
        };
        let (body, comment) = split_word(rest);
        if body.is_empty() {
            return Err(KeyFault::NoBody);
        }
        if comment.chars().any(char::is_control) {
            return Err(KeyFault::Control);
        }
        let blob = base64::decode(body.as_bytes()).ok_or(KeyFault::NotBase64)?;
        check(kind, &blob)?;

        let mut line = String::with_capacity(joined.len());
        for (word, gap) in [(word, ""), (body, " "), (comment.trim_end(), " ")] {
            if !word.is_empty() {
                line.push_str(gap);
                line.push_str(word);
            }
        }
        Ok(Self {
            line,
            kind: kind.name,
        })
    }

    /// Shows the line, without a line break.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Names the type, such as `ssh-ed25519`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Shows the key itself in base64: equal for equal keys, whatever their comments.
    pub fn body(&self) -> &str {
        split_word(split_word(&self.line).1).0
    }

    /// Tells whether a line of an `authorized_keys` file already holds this key.
    pub fn is_on(&self, line: &[u8]) -> bool {
        !line.trim_ascii_start().starts_with(b"#")
            && accounts::words(line).any(|word| word == self.body().as_bytes())
    }
}

/// Adds `key` unless an equal one is there already, and tells whether it did.
pub fn push_unique(keys: &mut Vec<PublicKey>, key: PublicKey) -> bool {
    let new = keys.iter().all(|known| known.body() != key.body());
    if new {
        keys.push(key);
    }
    new
}

/// Splits the first word off, both parts without white space around them.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_ascii_start();
    let end = text
        .find(|c: char| c.is_ascii_whitespace())
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii_start())
}

/// Walks the fields of a key's body to its very end.
fn check(kind: &Type, blob: &[u8]) -> Result<(), KeyFault> {
    let mut rest = blob;
    let point_at = if kind.curve.is_some() { 2 } else { 1 };
    for index in 0..kind.fields {
        let (length, tail) = rest.split_first_chunk::<4>().ok_or(KeyFault::Structure)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (field, tail) = tail.split_at_checked(length).ok_or(KeyFault::Structure)?;
        match index {
            0 if field != kind.name.as_bytes() => return Err(KeyFault::OtherType),
            1 if kind.curve.is_some_and(|curve| curve.as_bytes() != field) => {
                return Err(KeyFault::Structure);
            }
            _ if index == point_at && kind.point.is_some_and(|point| point != length) => {
                return Err(KeyFault::Structure);
            }
            // The modulus of RSA, whose sign may need a byte of zeros.
            2 if kind.point.is_none()
                && field.strip_prefix(&[0]).unwrap_or(field).len() < RSA_MIN =>
            {
                return Err(KeyFault::Short);
            }
            _ if field.is_empty() => return Err(KeyFault::Structure),
            _ => {}
        }
        rest = tail;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(KeyFault::Structure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use base64ct::{Base64, Encoding as _};
    use std::format;

    const ED25519: &str = include_str!("../../tests/data/sshkey/ed25519.pub");
    const RSA: &str = include_str!("../../tests/data/sshkey/rsa.pub");
    const ECDSA: &str = include_str!("../../tests/data/sshkey/ecdsa.pub");
    const ECDSA521: &str = include_str!("../../tests/data/sshkey/ecdsa521.pub");

    fn fault(text: &str) -> KeyFault {
        PublicKey::parse(text).err().expect("the key is refused")
    }

    /// Builds the base64 body of a key from its fields.
    fn body(fields: &[&[u8]]) -> String {
        let mut blob = Vec::new();
        for field in fields {
            blob.extend_from_slice(&(field.len() as u32).to_be_bytes());
            blob.extend_from_slice(field);
        }
        Base64::encode_string(&blob)
    }

    #[test]
    fn keys_made_by_ssh_keygen_pass_unchanged_but_for_their_line_break() {
        for text in [ED25519, RSA, ECDSA, ECDSA521] {
            let key = PublicKey::parse(text).unwrap();
            assert_eq!(key.line(), text.trim_end());
            assert!(text.contains(key.body()) && text.starts_with(key.kind()));
        }
    }

    #[test]
    fn line_breaks_inside_and_after_a_key_are_dropped() {
        let clean = RSA.trim_end();
        let folded = format!(
            "{}\r\n{}\n{}\r\n",
            &clean[..80],
            &clean[80..144],
            &clean[144..]
        );
        assert_eq!(PublicKey::parse(&folded).unwrap().line(), clean);
    }

    #[test]
    fn white_space_between_words_becomes_one_space() {
        let text = ED25519.trim_end().replace(' ', " \t ");
        assert_eq!(PublicKey::parse(&text).unwrap().line(), ED25519.trim_end());
    }

    #[test]
    fn security_keys_and_keys_without_a_comment_pass() {
        let sk = "sk-ssh-ed25519@openssh.com";
        let line = format!("{sk} {}", body(&[sk.as_bytes(), &[7; 32], b"ssh:"]));
        assert_eq!(PublicKey::parse(&line).unwrap().line(), line);
        let sk = "sk-ecdsa-sha2-nistp256@openssh.com";
        let line = format!(
            "{sk} {}",
            body(&[sk.as_bytes(), b"nistp256", &[4; 65], b"ssh:"])
        );
        assert_eq!(PublicKey::parse(&line).unwrap().line(), line);
    }

    #[test]
    fn unknown_types_are_refused_by_name() {
        let old = format!("ssh-dss {} me", body(&[b"ssh-dss", b"p"]));
        assert_eq!(
            format!("{}", fault(&old)),
            "type 'ssh-dss' is not supported"
        );
        let pem = "-----BEGIN CERTIFICATE-----\r\nMIIB";
        assert_eq!(
            format!("{}", fault(pem)),
            "type '-----BEGIN' is not supported"
        );
        let rude = format!("\u{1b}[2J{}", "x".repeat(100));
        let shown = format!("type '?[2J{}' is not supported", "x".repeat(36));
        assert_eq!(format!("{}", fault(&rude)), shown);
    }

    #[test]
    fn options_are_refused() {
        let text = format!("command=\"/bin/rm -rf /\",no-pty {ED25519}");
        assert_eq!(fault(&text), KeyFault::Options);
    }

    #[test]
    fn body_of_another_type_is_refused() {
        let swapped = ED25519.replacen("ssh-ed25519", "ssh-rsa", 1);
        assert_eq!(fault(&swapped), KeyFault::OtherType);
    }

    #[test]
    fn damaged_bodies_are_refused() {
        assert_eq!(fault("ssh-rsa"), KeyFault::NoBody);
        assert_eq!(fault(" \r\n"), KeyFault::Empty);
        assert_eq!(fault("ssh-rsa AAAA!"), KeyFault::NotBase64);
        // Cut at a multiple of four, the rest is still base64.
        let cut = &RSA[..8 + 64];
        assert_eq!(fault(cut), KeyFault::Structure);
        let short = format!("ssh-ed25519 {}", body(&[b"ssh-ed25519", &[7; 31]]));
        assert_eq!(fault(&short), KeyFault::Structure);
        let long = format!("ssh-ed25519 {}", body(&[b"ssh-ed25519", &[7; 32], b"more"]));
        assert_eq!(fault(&long), KeyFault::Structure);
        let curve = format!(
            "ecdsa-sha2-nistp256 {}",
            body(&[b"ecdsa-sha2-nistp256", b"nistp384", &[4; 65]])
        );
        assert_eq!(fault(&curve), KeyFault::Structure);
        for (curve, lengths) in [("nistp256", [64, 66]), ("nistp384", [65, 96])] {
            for length in lengths {
                let name = format!("ecdsa-sha2-{curve}");
                let point = std::vec![4; length];
                let fields = [name.as_bytes(), curve.as_bytes(), &point];
                let key = format!("{name} {}", body(&fields));
                assert_eq!(fault(&key), KeyFault::Structure, "{curve} {length}");
            }
        }
    }

    #[test]
    fn rsa_keys_that_are_too_short_for_sshd_are_refused() {
        let key = |modulus: &[u8]| format!("ssh-rsa {}", body(&[b"ssh-rsa", &[1, 0, 1], modulus]));
        let mut modulus = std::vec![0];
        modulus.resize(128, 0xc5);
        assert_eq!(fault(&key(&modulus)), KeyFault::Short);
        assert_eq!(fault(&key(&modulus[1..])), KeyFault::Short);
        modulus.push(0xc5);
        assert!(PublicKey::parse(&key(&modulus)).is_ok());
    }

    #[test]
    fn control_characters_in_a_comment_are_refused() {
        assert_eq!(
            fault(&format!("{} a\u{7}b", ED25519.trim_end())),
            KeyFault::Control
        );
    }

    #[test]
    fn a_line_longer_than_sshd_reads_is_refused() {
        let long = format!("{} {}", ED25519.trim_end(), "c".repeat(LINE_MAX));
        assert_eq!(fault(&long), KeyFault::TooLong);
    }

    #[test]
    fn equal_keys_are_kept_once_whatever_their_comments() {
        let mut keys = Vec::new();
        assert!(push_unique(&mut keys, PublicKey::parse(ED25519).unwrap()));
        let other_comment = ED25519.replace("demo@laptop", "again");
        assert!(!push_unique(
            &mut keys,
            PublicKey::parse(&other_comment).unwrap()
        ));
        assert!(push_unique(&mut keys, PublicKey::parse(RSA).unwrap()));
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn a_key_is_found_behind_options_but_not_in_a_comment_line() {
        let key = PublicKey::parse(ED25519).unwrap();
        assert!(key.is_on(ED25519.trim_end().as_bytes()));
        assert!(key.is_on(format!("no-pty,from=\"10.0.0.0/8\" {ED25519}").as_bytes()));
        assert!(!key.is_on(format!("# {ED25519}").as_bytes()));
        assert!(!key.is_on(RSA.as_bytes()));
    }

    #[test]
    fn mutated_keys_never_panic_and_never_pass_with_a_line_break() {
        let mut random = Random::new();
        for round in 0..5_000 {
            let seed = [ED25519, RSA, ECDSA, ECDSA521][round % 4];
            let bytes = random.damage(seed.as_bytes());
            if let Ok(key) = PublicKey::parse(&String::from_utf8_lossy(&bytes)) {
                assert!(!key.line().contains(['\r', '\n', '\0']));
            }
        }
    }
}
