//! How a name on a disc compares with the name that is wanted.

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
pub(in crate::wire) fn matched(found: impl Iterator<Item = char> + Clone, wanted: &str) -> Match {
    let folded = |character: char| character.to_ascii_lowercase();
    if found.clone().eq(wanted.chars()) {
        Match::Exact
    } else if found.map(folded).eq(wanted.chars().map(folded)) {
        Match::Similar
    } else {
        Match::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ascii_letters_fold() {
        assert_eq!(matched("Ovf-Env.xml".chars(), "Ovf-Env.xml"), Match::Exact);
        assert_eq!(
            matched("OVF-ENV.XML".chars(), "ovf-env.xml"),
            Match::Similar
        );
        assert_eq!(matched("ÄRGER".chars(), "ärger"), Match::No);
        assert_eq!(matched("ovf-env.xml ".chars(), "ovf-env.xml"), Match::No);
        assert_eq!(matched("ovf-env.xm".chars(), "ovf-env.xml"), Match::No);
    }
}
