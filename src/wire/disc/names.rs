//! Names on a disc: how they are spelled and how they compare with the one that is wanted.

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
///
/// Not generic over the spelling: one copy in the program is enough.
pub(in crate::wire) fn matched(found: &mut dyn Iterator<Item = char>, wanted: &str) -> Match {
    let mut best = Match::Exact;
    let mut wanted = wanted.chars();
    loop {
        match (found.next(), wanted.next()) {
            (None, None) => return best,
            (Some(found), Some(wanted)) if found == wanted => {}
            (Some(found), Some(wanted)) if found.eq_ignore_ascii_case(&wanted) => {
                best = Match::Similar;
            }
            _ => return Match::No,
        }
    }
}

/// Decodes Latin-1 or, if `wide`, big-endian UTF-16, as which everybody reads the UCS-2 of the standards.
pub(in crate::wire) fn characters(name: &[u8], wide: bool) -> impl Iterator<Item = char> + '_ {
    let units = name
        .chunks_exact(if wide { 2 } else { 1 })
        .map(|unit| match *unit {
            [high, low] => u16::from_be_bytes([high, low]),
            [only] => u16::from(only),
            _ => 0,
        });
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(found: &str, wanted: &str) -> Match {
        matched(&mut found.chars(), wanted)
    }

    #[test]
    fn only_ascii_letters_fold() {
        assert_eq!(compare("Ovf-Env.xml", "Ovf-Env.xml"), Match::Exact);
        assert_eq!(compare("OVF-ENV.XML", "ovf-env.xml"), Match::Similar);
        assert_eq!(compare("ÄRGER", "ärger"), Match::No);
        assert_eq!(compare("ovf-env.xml ", "ovf-env.xml"), Match::No);
        assert_eq!(compare("ovf-env.xm", "ovf-env.xml"), Match::No);
    }
}
