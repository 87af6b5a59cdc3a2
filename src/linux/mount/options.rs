//! Mount options as people write them, cut into the kernel's flags and the file system's own words.

use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::mount::MountFlags;

/// Longest text for the file system; the kernel command line is hardly longer.
const MAX_DATA: usize = 2048;

/// A word, the flags that it sets, and the flags that it takes away.
type Word = (&'static str, MountFlags, MountFlags);

const NONE: MountFlags = MountFlags::empty();
const ATIME: MountFlags = MountFlags::NOATIME
    .union(MountFlags::RELATIME)
    .union(MountFlags::STRICTATIME);

const WORDS: [Word; 25] = [
    ("defaults", NONE, NONE),
    ("ro", MountFlags::RDONLY, NONE),
    ("rw", NONE, MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID, NONE),
    ("suid", NONE, MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV, NONE),
    ("dev", NONE, MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC, NONE),
    ("exec", NONE, MountFlags::NOEXEC),
    ("sync", MountFlags::SYNCHRONOUS, NONE),
    ("async", NONE, MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC, NONE),
    ("noatime", MountFlags::NOATIME, ATIME),
    ("atime", NONE, MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME, NONE),
    ("diratime", NONE, MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME, ATIME),
    ("norelatime", NONE, MountFlags::RELATIME),
    ("strictatime", MountFlags::STRICTATIME, ATIME),
    ("nostrictatime", NONE, MountFlags::STRICTATIME),
    ("lazytime", MountFlags::LAZYTIME, NONE),
    ("nolazytime", NONE, MountFlags::LAZYTIME),
    ("silent", MountFlags::SILENT, NONE),
    ("loud", NONE, MountFlags::SILENT),
    ("nosymfollow", MountFlags::NOSYMFOLLOW, NONE),
];

/// Words of fstab that are for mount(8) and systemd, not for the kernel.
const NOT_FOR_THE_KERNEL: [&str; 8] = [
    "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner",
];

/// What a mount is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The kernel's flags.
    pub flags: MountFlags,
    /// The file system's own words, with a NUL at the end.
    data: Vec<u8>,
}

impl Options {
    /// Reads words with commas between them, on top of `flags`; `None` when they are too long.
    ///
    /// A comma between quotes does not cut (`SELinux` contexts hold some), and the last word wins.
    pub fn parse(mut flags: MountFlags, text: &str) -> Option<Self> {
        let mut data = Vec::new();
        let mut in_quotes = false;
        let words = text.split(|letter| {
            in_quotes ^= letter == '"';
            letter == ',' && !in_quotes
        });
        for word in words.filter(|word| !word.is_empty()) {
            if let Some((_, set, clear)) = WORDS.iter().find(|(name, ..)| *name == word) {
                flags = flags.difference(*clear).union(*set);
            } else if !NOT_FOR_THE_KERNEL.contains(&word) && !word.starts_with("x-") {
                if !data.is_empty() {
                    data.push(b',');
                }
                data.extend_from_slice(word.as_bytes());
            }
        }
        data.push(0);
        (data.len() <= MAX_DATA).then_some(Self { flags, data })
    }

    /// Gives the file system's own words.
    pub fn data(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.data).unwrap_or(c"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (MountFlags, std::string::String) {
        let options = Options::parse(MountFlags::RDONLY, text).unwrap();
        (options.flags, options.data().to_str().unwrap().into())
    }

    #[test]
    fn flags_and_words_of_the_file_system_are_told_apart() {
        let (flags, data) = parse("noatime,,data=ordered,nodev,subvol=@,errors=panic");
        assert_eq!(
            flags,
            MountFlags::RDONLY | MountFlags::NOATIME | MountFlags::NODEV
        );
        assert_eq!(data, "data=ordered,subvol=@,errors=panic");
    }

    #[test]
    fn the_last_of_two_opposites_wins() {
        assert_eq!(parse("rw").0, NONE);
        assert_eq!(parse("rw,ro").0, MountFlags::RDONLY);
        assert_eq!(
            parse("noatime,relatime,nosuid,suid").0,
            MountFlags::RDONLY | MountFlags::RELATIME
        );
    }

    #[test]
    fn words_for_mount_and_systemd_do_not_reach_the_kernel() {
        assert_eq!(
            parse("defaults,nofail,x-systemd.device-timeout=9,x-initrd.mount"),
            (MountFlags::RDONLY, std::string::String::new())
        );
    }

    #[test]
    fn a_comma_between_quotes_does_not_cut() {
        let text = "context=\"system_u:object_r:etc_t:s0:c1,c2\",ro";
        assert_eq!(
            parse(text).1,
            "context=\"system_u:object_r:etc_t:s0:c1,c2\""
        );
    }

    #[test]
    fn options_that_are_too_long_are_refused() {
        let word = "x".repeat(MAX_DATA);
        assert_eq!(Options::parse(NONE, &word), None);
        assert!(Options::parse(NONE, &word[1..]).is_some());
    }
}
