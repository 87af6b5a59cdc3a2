//! The file systems that a root mounts later: `/etc/fstab`.
//!
//! Follows fstab(5) and getmntent(3): words between blanks, octal escapes in them. Not a mounter, and no
//! judge of whether an entry makes sense.

use alloc::string::String;
use alloc::vec::Vec;

use super::accounts;

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What is mounted: a device, `UUID=`, `LABEL=` and so on.
    pub source: String,
    /// Where, without a slash at the end.
    pub point: String,
    /// The type, or `auto`.
    pub kind: String,
    /// Options, with commas between them.
    pub options: String,
}

impl Entry {
    /// Reads a line; nothing for a comment, or for one that has not even a source and a point.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut words = accounts::words(line);
        let first = words.next().filter(|word| !word.starts_with(b"#"))?;
        let source = plain(first)?;
        let mut point = plain(words.next()?)?;
        point.truncate(point.trim_end_matches('/').len());
        let mut rest = || plain(words.next().unwrap_or_default());
        Some(Self {
            source,
            point,
            kind: rest()?,
            options: rest()?,
        })
    }

    /// Tells whether an option is set, by its whole name.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|word| word == option)
    }

    /// Tells whether a path lies at or below the point; nothing lies below the root's own line.
    pub fn holds(&self, path: &str) -> bool {
        !self.point.is_empty()
            && path
                .strip_prefix(self.point.as_str())
                .is_some_and(|rest| matches!(rest.as_bytes().first(), None | Some(b'/')))
    }
}

/// Takes the octal escapes out of a word: `\040` is a blank.
fn plain(mut word: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(word.len());
    loop {
        word = match word {
            [
                b'\\',
                high @ b'0'..=b'3',
                middle @ b'0'..=b'7',
                low @ b'0'..=b'7',
                rest @ ..,
            ] => {
                out.push((high & 3) << 6 | (middle & 7) << 3 | low & 7);
                rest
            }
            [letter, rest @ ..] => {
                out.push(*letter);
                rest
            }
            [] => return String::from_utf8(out).ok(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::vec::Vec;

    fn entry(line: &str) -> [String; 4] {
        let entry = Entry::parse(line.as_bytes()).unwrap();
        [entry.source, entry.point, entry.kind, entry.options]
    }

    #[test]
    fn words_are_told_apart_by_any_blanks() {
        assert_eq!(
            entry("UUID=1-2\t/home/  ext4 \tdefaults,nofail 0 2"),
            ["UUID=1-2", "/home", "ext4", "defaults,nofail"]
        );
        assert_eq!(entry("/dev/sda1 /"), ["/dev/sda1", "", "", ""]);
    }

    #[test]
    fn octal_escapes_are_the_letters() {
        assert_eq!(
            entry("LABEL=my\\040disk /a\\011b\\134c xfs x=\\0,y=\\400"),
            ["LABEL=my disk", "/a\tb\\c", "xfs", "x=\\0,y=\\400"]
        );
    }

    #[test]
    fn comments_and_halves_are_no_entries() {
        for line in [
            "",
            "   ",
            "# /dev/sda1 / ext4",
            "#",
            "/dev/sda1",
            "\\377 /x",
        ] {
            assert_eq!(Entry::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn options_are_found_by_their_whole_name() {
        let entry = Entry::parse(b"x /x auto noauto,x-systemd.automount,ro").unwrap();
        assert!(entry.has("noauto") && entry.has("ro"));
        assert!(!entry.has("auto") && !entry.has("rw"));
    }

    #[test]
    fn what_lies_below_a_point_is_held_by_it() {
        let entry = Entry::parse(b"x /home auto").unwrap();
        assert!(entry.holds("/home") && entry.holds("/home/ops"));
        assert!(!entry.holds("/homes") && !entry.holds("/"));
        assert!(!Entry::parse(b"x / auto").unwrap().holds("/home"));
    }

    #[test]
    fn mutated_lines_never_panic() {
        let mut random = Random::new();
        let good = b"LABEL=my\\040disk /var/lib\\011x btrfs subvol=@home,noatime 0 2";
        let mut whole = 0;
        for _ in 0..5000 {
            let mut line: Vec<u8> = good.to_vec();
            for _ in 0..random.below(5) {
                let at = random.below(line.len());
                line[at] = b" \t\\#0123/=\xff,"[random.below(12)];
            }
            line.truncate(line.len() - random.below(30));
            whole += u32::from(Entry::parse(&line).is_some_and(|entry| entry.holds("/var/lib\tx")));
        }
        assert!((200..4900).contains(&whole), "{whole}");
    }
}
