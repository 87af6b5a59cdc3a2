//! Names on a disc: how they are spelled and how they compare with the one that is wanted.

use alloc::string::String;

/// The outcome of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wire) enum Match {
    /// Every character is the same.
    Exact,
    /// The same but for the case of ASCII letters.
    Similar,
    /// Another name.
    No,
}

/// Compares a name on the disc with the wanted one.
pub(in crate::wire) fn matched(found: &str, wanted: &str) -> Match {
    if found == wanted {
        Match::Exact
    } else if found.eq_ignore_ascii_case(wanted) {
        Match::Similar
    } else {
        Match::No
    }
}

/// Decodes Latin-1 or, if `wide`, big-endian UTF-16, as which everybody reads the UCS-2 of the standards.
///
/// No structure has room for more than 255 bytes of a name.
pub(in crate::wire) fn text(name: &[u8], wide: bool) -> String {
    let units = name
        .chunks_exact(if wide { 2 } else { 1 })
        .map(|unit| match *unit {
            [high, low] => u16::from_be_bytes([high, low]),
            [only] => u16::from(only),
            _ => 0,
        });
    let mut text = String::new();
    for character in char::decode_utf16(units) {
        text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ascii_letters_fold() {
        assert_eq!(matched("Ovf-Env.xml", "Ovf-Env.xml"), Match::Exact);
        assert_eq!(matched("OVF-ENV.XML", "ovf-env.xml"), Match::Similar);
        assert_eq!(matched("ÄRGER", "ärger"), Match::No);
        assert_eq!(matched("ovf-env.xml ", "ovf-env.xml"), Match::No);
        assert_eq!(matched("ovf-env.xm", "ovf-env.xml"), Match::No);
    }
}
