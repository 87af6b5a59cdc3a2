//! The kernel's module index: modules.dep, modules.alias, modules.builtin, modules.softdep.
//!
//! Not the loading, and not the binary forms of these files. Each file is read by lines through a
//! small buffer, for a full tree's are larger than all our memory. Follows depmod(8), `modules.dep`(5),
//! modprobe.d(5) and fnmatch(3); names are compared with dashes and underscores alike, as kmod does.

use alloc::vec::Vec;
use core::str::SplitAsciiWhitespace;

use embedded_io::Read;

use super::cmdline::same_name;

/// Longest line that is read; longer ones are passed over.
pub const MAX_LINE: usize = 4096;

/// Cuts what a reader gives into lines, without their ends.
pub struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    too_long: bool,
    at_end: bool,
}

impl<R: Read> Lines<R> {
    /// Starts at the reader's place.
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: alloc::vec![0; MAX_LINE],
            start: 0,
            end: 0,
            too_long: false,
            at_end: false,
        }
    }

    /// Gives the next line that fits and is UTF-8; `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<&str>, R::Error> {
        loop {
            let (from, to) = loop {
                let filled = self.buffer.get(self.start..self.end).unwrap_or(&[]);
                if let Some(at) = filled.iter().position(|&byte| byte == b'\n') {
                    let (from, to) = (self.start, self.start.saturating_add(at));
                    self.start = to.saturating_add(1);
                    if core::mem::take(&mut self.too_long) {
                        continue;
                    }
                    break (from, to);
                }
                if self.at_end {
                    let from = core::mem::replace(&mut self.start, self.end);
                    if from >= self.end || core::mem::take(&mut self.too_long) {
                        return Ok(None);
                    }
                    break (from, self.end);
                }
                self.fill()?;
            };
            // Asked twice, for a borrow that is given away in a loop does not end with the round.
            if self
                .buffer
                .get(from..to)
                .is_some_and(|line| str::from_utf8(line).is_ok())
            {
                let line = self.buffer.get(from..to).unwrap_or(&[]);
                return Ok(str::from_utf8(line).ok());
            }
        }
    }

    fn fill(&mut self) -> Result<(), R::Error> {
        let kept = self.end.saturating_sub(self.start);
        if kept == self.buffer.len() {
            self.too_long = true;
            self.end = 0;
        } else {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end = kept;
        }
        self.start = 0;
        let room = self.buffer.get_mut(self.end..).unwrap_or(&mut []);
        let got = self.source.read(room)?;
        self.at_end = got == 0;
        self.end = self.end.saturating_add(got).min(self.buffer.len());
        Ok(())
    }
}

/// How a module file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// As it is loaded.
    Plain,
    /// By gzip, xz or zstd: the kernel has to decompress it.
    Compressed,
}

/// Tells the module's name and how its file is stored; `None` when it is no module's file.
///
/// The name keeps the spelling of the file: `hv_netvsc` of `kernel/.../hv_netvsc.ko.xz`.
pub fn split_path(path: &str) -> Option<(&str, Storage)> {
    const COMPRESSED: [&str; 3] = [".ko.xz", ".ko.zst", ".ko.gz"];
    let file = path.rsplit('/').next().unwrap_or(path);
    let plain = file.strip_suffix(".ko").map(|name| (name, Storage::Plain));
    let compressed = || {
        let name = COMPRESSED.iter().find_map(|end| file.strip_suffix(end))?;
        Some((name, Storage::Compressed))
    };
    let (name, storage) = plain.or_else(compressed)?;
    (!name.is_empty()).then_some((name, storage))
}

/// One line of modules.dep: a module and all that it needs.
#[derive(Clone, Copy, Debug)]
pub struct Dependencies<'a> {
    /// The module's file, below the module directory.
    pub path: &'a str,
    needs: &'a str,
}

impl<'a> Dependencies<'a> {
    /// Reads `path: need need`; `None` for anything else.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (path, needs) = line.split_once(':')?;
        split_path(path)?;
        Some(Self { path, needs })
    }

    /// Tells whether this is the line of the module with that name.
    pub fn is_of(&self, name: &str) -> bool {
        split_path(self.path).is_some_and(|(own, _)| same_name(own, name))
    }

    /// Walks over the files to load before the module, the deepest first.
    ///
    /// depmod lists all of them, not only the direct ones, each before what it needs itself.
    pub fn in_order(&self) -> impl Iterator<Item = &'a str> {
        self.needs.split_ascii_whitespace().rev()
    }
}

/// One line of modules.alias: what a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias<'a> {
    /// The pattern for a device's modalias, or another name of the module.
    pub pattern: &'a str,
    /// The module.
    pub module: &'a str,
}

impl<'a> Alias<'a> {
    /// Reads `alias PATTERN MODULE`; `None` for anything else.
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut words = [""; 4];
        for (word, found) in words.iter_mut().zip(line.split_ascii_whitespace()) {
            *word = found;
        }
        match words {
            ["alias", pattern, module, ""] if !module.is_empty() => Some(Self { pattern, module }),
            _ => None,
        }
    }

    /// Tells whether the module is for this modalias.
    #[inline(never)] // In one frame with its caller each access to the stack is longer.
    pub fn is_for(&self, modalias: &str) -> bool {
        glob_matches(self.pattern, modalias)
    }
}

/// One line of modules.softdep: what else to load around a module, if it is there.
#[derive(Clone, Copy, Debug)]
pub struct SoftDependencies<'a> {
    /// The module.
    pub module: &'a str,
    words: &'a str,
}

impl<'a> SoftDependencies<'a> {
    /// Reads `softdep MODULE pre: A B post: C`; `None` for anything else.
    pub fn parse(line: &'a str) -> Option<Self> {
        let rest = line.trim_start().strip_prefix("softdep")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let (module, words) = rest.split_once([' ', '\t'])?;
        Some(Self { module, words })
    }

    /// Walks over the names to load before the module.
    pub fn before(&self) -> Section<'a> {
        self.section("pre:")
    }

    /// Walks over the names to load after it.
    pub fn after(&self) -> Section<'a> {
        self.section("post:")
    }

    fn section(&self, wanted: &'static str) -> Section<'a> {
        Section {
            words: self.words.split_ascii_whitespace(),
            wanted,
            inside: false,
        }
    }
}

/// The names in one section of soft dependencies.
pub struct Section<'a> {
    words: SplitAsciiWhitespace<'a>,
    wanted: &'static str,
    inside: bool,
}

impl<'a> Iterator for Section<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let word = self.words.next()?;
            if word.ends_with(':') {
                self.inside = word == self.wanted;
            } else if self.inside {
                return Some(word);
            }
        }
    }
}

/// Matches as fnmatch(3) without flags does, for `*`, `?`, `[set]`, `[!set]` and `\`.
///
/// Outside a set dashes and underscores are alike. Takes at most pattern times text steps.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // Where to go on after a mismatch: behind the last star, one byte further in the text.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(after_star) = pattern.strip_prefix(b"*") {
            pattern = after_star;
            if pattern.is_empty() {
                return true;
            }
            retry = Some((pattern, text));
            continue;
        }
        if pattern.is_empty() && text.is_empty() {
            return true;
        }
        let step = text
            .split_first()
            .and_then(|(&byte, rest)| Some((match_one(pattern, byte)?, rest)));
        if let Some((next_pattern, next_text)) = step {
            (pattern, text) = (next_pattern, next_text);
            continue;
        }
        match retry.and_then(|(after_star, from)| Some((after_star, from.get(1..)?))) {
            Some((after_star, from)) => {
                (pattern, text) = (after_star, from);
                retry = Some((after_star, from));
            }
            None => return false,
        }
    }
}

/// Matches one byte; gives what is left of the pattern when it fits.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let fold = |byte: u8| if byte == b'-' { b'_' } else { byte };
    let (&first, rest) = pattern.split_first()?;
    let (literal, rest) = match (first, rest) {
        (b'?', _) => return Some(rest),
        (b'[', _) => match match_set(rest, byte) {
            Set::Fits(rest) => return Some(rest),
            Set::FitsNot => return None,
            Set::Open => (first, rest),
        },
        (b'\\', [escaped, rest @ ..]) => (*escaped, rest),
        _ => (first, rest),
    };
    (fold(literal) == fold(byte)).then_some(rest)
}

enum Set<'a> {
    /// The byte is in the set; the pattern goes on here.
    Fits(&'a [u8]),
    FitsNot,
    /// There is no closing bracket: the opening one is an ordinary byte.
    Open,
}

/// Matches `set]`, where a bracket that comes first is part of the set.
fn match_set(set: &[u8], byte: u8) -> Set<'_> {
    let (negated, mut rest) = match set {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    let mut first = true;
    loop {
        rest = match rest {
            [b']', rest @ ..] if !first => {
                return if found == negated {
                    Set::FitsNot
                } else {
                    Set::Fits(rest)
                };
            }
            [low, b'-', high, rest @ ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                rest
            }
            [one, rest @ ..] => {
                found |= *one == byte;
                rest
            }
            [] => return Set::Open,
        };
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::string::{String, ToString};
    use std::vec::Vec;

    /// Gives its text in pieces of an awkward size.
    struct Pieces<'a> {
        text: &'a [u8],
        size: usize,
    }

    impl embedded_io::ErrorType for Pieces<'_> {
        type Error = core::convert::Infallible;
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
            let n = self.size.min(buffer.len()).min(self.text.len());
            buffer[..n].copy_from_slice(&self.text[..n]);
            self.text = &self.text[n..];
            Ok(n)
        }
    }

    fn lines(text: &[u8], size: usize) -> Vec<String> {
        let mut lines = Lines::new(Pieces { text, size });
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            all.push(line.to_string());
        }
        all
    }

    #[test]
    fn lines_come_whole_however_the_reader_cuts_them() {
        let text = b"one\n\ntwo three\nlast without end";
        for size in 1..40 {
            assert_eq!(
                lines(text, size),
                ["one", "", "two three", "last without end"],
                "{size}"
            );
        }
        assert_eq!(lines(b"", 7), Vec::<String>::new());
        assert_eq!(lines(b"a\n", 7), ["a"]);
    }

    #[test]
    fn a_line_that_is_too_long_hides_only_itself() {
        for excess in [0, 1, 2, 5000, 9000] {
            let long = "x".repeat(MAX_LINE + excess);
            let text = std::format!("before\n{long}\nafter\n{long}");
            for size in [1, 1000, 4096, 20000] {
                assert_eq!(
                    lines(text.as_bytes(), size),
                    ["before", "after"],
                    "{excess} {size}"
                );
            }
        }
        let fits = "x".repeat(MAX_LINE - 1);
        assert_eq!(
            lines(std::format!("{fits}\ny").as_bytes(), 1 << 16),
            [&*fits, "y"]
        );
    }

    #[test]
    fn a_line_that_is_not_utf8_hides_only_itself() {
        assert_eq!(lines(b"a\n\xff\xfe\nb\n", 3), ["a", "b"]);
    }

    #[test]
    fn module_names_come_from_all_kinds_of_files() {
        assert_eq!(
            split_path("kernel/fs/udf/udf.ko"),
            Some(("udf", Storage::Plain))
        );
        for end in ["xz", "zst", "gz"] {
            let path = std::format!("kernel/drivers/net/hv-x.ko.{end}");
            assert_eq!(split_path(&path), Some(("hv-x", Storage::Compressed)));
        }
        for path in ["kernel/fs/udf/udf.o", "kernel/.ko", "", "x.ko.bz2", "udf"] {
            assert_eq!(split_path(path), None, "{path}");
        }
    }

    #[test]
    fn the_deepest_dependency_is_loaded_first() {
        // As depmod of kmod 30 wrote it for Debian's 6.1.
        let line = "kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko";
        let dependencies = Dependencies::parse(line).unwrap();
        assert!(dependencies.is_of("virtio-blk") && dependencies.is_of("virtio_blk"));
        assert!(!dependencies.is_of("virtio"));
        assert_eq!(
            dependencies.in_order().collect::<Vec<_>>(),
            [
                "kernel/drivers/virtio/virtio_ring.ko",
                "kernel/drivers/virtio/virtio.ko"
            ]
        );
        assert_eq!(
            Dependencies::parse("kernel/lib/crc-itu-t.ko:")
                .unwrap()
                .in_order()
                .count(),
            0
        );
        assert!(Dependencies::parse("# comment: x").is_none());
    }

    #[test]
    fn aliases_are_read() {
        let alias = Alias::parse("alias scsi:t-0x05* sr_mod").unwrap();
        assert_eq!(
            alias,
            Alias {
                pattern: "scsi:t-0x05*",
                module: "sr_mod"
            }
        );
        assert!(alias.is_for("scsi:t-0x05") && !alias.is_for("scsi:t-0x00"));
        for line in [
            "# Aliases extracted from modules themselves.",
            "alias x",
            "",
            "alias a b c",
        ] {
            assert_eq!(Alias::parse(line), None, "{line}");
        }
    }

    #[test]
    fn soft_dependencies_have_a_before_and_an_after() {
        let soft = SoftDependencies::parse(
            "softdep btrfs pre: crc32c blake2b post: raid6_pq pre: xxhash64",
        )
        .unwrap();
        assert_eq!(soft.module, "btrfs");
        assert_eq!(
            soft.before().collect::<Vec<_>>(),
            ["crc32c", "blake2b", "xxhash64"]
        );
        assert_eq!(soft.after().collect::<Vec<_>>(), ["raid6_pq"]);
        for line in [
            "# Soft dependencies",
            "softdepx a pre: b",
            "softdep",
            "softdep a",
        ] {
            assert!(SoftDependencies::parse(line).is_none(), "{line}");
        }
    }

    #[test]
    fn globs_match_as_fnmatch_does() {
        // pattern, text, answer of glibc's fnmatch(pattern, text, 0)
        let cases = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "a", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "ab", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("[abc]x", "bx", true),
            ("[!abc]x", "bx", false),
            ("[!abc]x", "dx", true),
            ("[a-f0-9]*", "7z", true),
            ("[a-f]", "g", false),
            ("[]a]", "]", true),
            ("[!]a]", "]", false),
            ("[a", "[a", true),
            ("[a-]", "b", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            (
                "pci:v00001AF4d*sv*sd*bc*sc*i*",
                "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00",
                true,
            ),
            (
                "pci:v00001AF4d*sv*sd*bc*sc*i*",
                "pci:v00008086d00001237sv00001AF4sd00001100bc06sc00i00",
                false,
            ),
            (
                "cpu:type:x86,ven*fam*mod*:feature:*0094*",
                "cpu:type:x86,ven0000fam0006mod001A:feature:,0000,0094,0095",
                true,
            ),
            ("acpi*:VMBUS:*", "acpi:VMBUS:", true),
        ];
        for (pattern, text, answer) in cases {
            assert_eq!(glob_matches(pattern, text), answer, "{pattern} {text}");
        }
    }

    #[test]
    fn dashes_and_underscores_match_each_other_outside_sets() {
        assert!(glob_matches("net-pf-17", "net_pf_17"));
        assert!(glob_matches("crypto_crc32c", "crypto-crc32c"));
        assert!(!glob_matches("[-]", "_"));
    }

    #[test]
    fn a_glob_of_many_stars_ends_in_time() {
        let pattern = "*a".repeat(2000);
        let text = "a".repeat(1999) + &"b".repeat(4000);
        assert!(!glob_matches(&pattern, &text));
    }

    #[test]
    fn no_mutation_makes_it_panic() {
        let good =
            b"alias pci:v00001AF4d[0-9]*sv*i\\* virtio_pci\nsoftdep ext4 pre: crc32c post: x\n\
            kernel/fs/isofs/isofs.ko.xz: kernel/drivers/cdrom/cdrom.ko.xz kernel/lib/zisofs.ko\n";
        let mut random = Random::new();
        let mut parsed = 0;
        for _ in 0..5000 {
            let mut text = good.to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(text.len());
                text[at] = b"*?[]!-\\: \na\xff"[random.below(12)];
            }
            text.truncate(random.below(text.len() + 1));
            for line in lines(&text, 1 + random.below(50)) {
                if let Some(alias) = Alias::parse(&line) {
                    let _ = alias.is_for("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00");
                    parsed += 1;
                }
                if let Some(soft) = SoftDependencies::parse(&line) {
                    parsed += usize::from(soft.before().count() + soft.after().count() > 0);
                }
                if let Some(dependencies) = Dependencies::parse(&line) {
                    parsed += dependencies.in_order().count();
                }
            }
        }
        assert!(parsed > 2000);
    }
}
