//! The kernel command line, read by the kernel's own rules.
//!
//! Not a list of what the kernel knows: it splits, unquotes and finds, and understands the arguments
//! that say where the root is. Follows `next_arg()` and `parse_args()` of the kernel's `lib/cmdline.c`
//! and `kernel/params.c`, `Documentation/admin-guide/kernel-parameters.rst`, and for the names of a
//! root `block/early-lookup.c`; udev's links are understood too, since no udev runs beside us.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// Longest device path, label or id that `root=` may name; a btrfs label has 255 bytes.
pub const MAX_NAME: usize = 255;

/// What one `root=` says.
type Name = String;

/// One argument: `name` or `name=value`, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument<'a> {
    /// What stands before the first `=`.
    pub name: &'a str,
    /// What stands after it.
    pub value: Option<&'a str>,
}

/// The command line as `/proc/cmdline` gives it.
#[derive(Clone, Copy, Debug)]
pub struct CommandLine<'a> {
    text: &'a [u8],
}

impl<'a> CommandLine<'a> {
    /// Takes the text of `/proc/cmdline`; what follows a NUL is not part of it.
    pub fn new(text: &'a [u8]) -> Self {
        let text = text.split(|&byte| byte == 0).next().unwrap_or(text);
        Self { text }
    }

    /// Walks over the arguments for the kernel and for us: those before a bare `--`.
    ///
    /// A word that is not UTF-8 is left out.
    pub fn arguments(&self) -> Arguments<'a> {
        Arguments(Words { rest: self.text })
    }

    /// Finds the last `name=value`, or the empty string when the last one is the bare `name`.
    ///
    /// Dashes and underscores in the name are alike, as they are to the kernel.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        let mut last = None;
        for argument in self.arguments() {
            if same_name(argument.name, name) {
                last = Some(argument.value.unwrap_or(""));
            }
        }
        last
    }

    /// Tells whether `name` is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Finds the value of `preroot.NAME`; the empty string when it is given without one.
    pub fn preroot(&self, name: &str) -> Option<&'a str> {
        let mut last = None;
        for parameter in self.module_parameters("preroot") {
            if same_name(parameter.name, name) {
                last = Some(parameter.value.unwrap_or(""));
            }
        }
        last
    }

    /// Walks over the `MODULE.parameter[=value]` of one module, as `parameter` and value.
    pub fn module_parameters(&self, module: &str) -> impl Iterator<Item = Argument<'a>> {
        self.arguments().filter_map(move |argument| {
            let (owner, parameter) = argument.name.split_once('.')?;
            let ours = !parameter.is_empty() && same_name(owner, module);
            ours.then_some(Argument {
                name: parameter,
                value: argument.value,
            })
        })
    }

    /// Reads `root=`; `None` when there is none.
    pub fn root(&self) -> Option<Result<RootSpec, RootSpecFault>> {
        Some(RootSpec::parse(self.value("root")?))
    }

    /// Walks over the file system types of `rootfstype=`, in their order.
    pub fn root_types(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let list = self.value("rootfstype").unwrap_or("");
        list.split(',')
            .filter(|name| !name.is_empty() && *name != "auto")
    }

    /// Gives the mount options of `rootflags=`; empty when there are none.
    pub fn root_flags(&self) -> &'a str {
        self.value("rootflags").unwrap_or("")
    }

    /// Tells how long the root device may take to appear, where the command line says so.
    ///
    /// `rootwait` and values that are no number mean forever, as to the kernel. `rootdelay=S` asks the
    /// kernel to sleep; we take it as the least time that is worth waiting for the device.
    pub fn root_wait(&self) -> RootWait {
        let delay = self
            .value("rootdelay")
            .and_then(seconds)
            .unwrap_or(Duration::ZERO);
        match self.value("rootwait") {
            Some(text) => {
                seconds(text).map_or(RootWait::Forever, |wait| RootWait::For(wait.max(delay)))
            }
            None if delay.is_zero() => RootWait::Unsaid,
            None => RootWait::For(delay),
        }
    }

    /// Tells whether the root is to be mounted writable: the last of `ro` and `rw` decides.
    pub fn root_writable(&self) -> Option<bool> {
        let mut last = None;
        for argument in self.arguments() {
            match argument {
                Argument {
                    name: "rw",
                    value: None,
                } => last = Some(true),
                Argument {
                    name: "ro",
                    value: None,
                } => last = Some(false),
                _ => {}
            }
        }
        last
    }

    /// Gives the program of `init=`.
    pub fn init(&self) -> Option<&'a str> {
        self.value("init").filter(|path| !path.is_empty())
    }

    /// Walks over the words for the real init: run levels and all that follows `--`.
    ///
    /// The kernel gives its first program every bare word that nobody in the kernel knew, and we
    /// cannot know which those are: the own argument vector of PID 1 is the better source where
    /// there is one. As in the kernel, `init=` takes away the words before it.
    pub fn init_arguments(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let text = self.text;
        let last_init = Words { rest: text }
            .take_while(|word| !word.ends_options())
            .enumerate()
            .filter(|(_, word)| {
                word.argument()
                    .is_some_and(|argument| argument.name == "init")
            })
            .last()
            .map(|(index, _)| index);
        let mut after_dashes = false;
        Words { rest: text }
            .enumerate()
            .filter_map(move |(index, word)| {
                if after_dashes {
                    return Some(word.whole);
                }
                if word.ends_options() {
                    after_dashes = true;
                    return None;
                }
                let kept =
                    RUN_LEVELS.contains(&word.whole) && last_init.is_none_or(|init| index > init);
                kept.then_some(word.whole)
            })
    }
}

/// Bare words that every init knows and no kernel does.
const RUN_LEVELS: [&[u8]; 10] = [
    b"single",
    b"s",
    b"S",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"emergency",
    b"rescue",
];

/// Tells whether two names are the same with dashes and underscores alike.
pub fn same_name(one: &str, other: &str) -> bool {
    let fold = |byte: u8| if byte == b'-' { b'_' } else { byte };
    one.bytes().map(fold).eq(other.bytes().map(fold))
}

fn seconds(text: &str) -> Option<Duration> {
    text.parse::<u32>()
        .ok()
        .map(|seconds| Duration::from_secs(u64::from(seconds)))
}

/// How long to wait for the root device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootWait {
    /// The command line does not say.
    Unsaid,
    /// This long.
    For(Duration),
    /// Until it is there.
    Forever,
}

/// One word, cut by the kernel's rules.
#[derive(Clone, Copy)]
struct Word<'a> {
    /// The word as init would get it: outer quotes gone, those around a value kept.
    whole: &'a [u8],
    name: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> Word<'a> {
    fn ends_options(&self) -> bool {
        self.value.is_none() && self.name == b"--"
    }

    fn argument(self) -> Option<Argument<'a>> {
        let name = str::from_utf8(self.name).ok()?;
        let value = match self.value {
            Some(value) => Some(str::from_utf8(value).ok()?),
            None => None,
        };
        Some(Argument { name, value })
    }
}

/// The arguments of a command line.
pub struct Arguments<'a>(Words<'a>);

impl<'a> Iterator for Arguments<'a> {
    type Item = Argument<'a>;

    fn next(&mut self) -> Option<Argument<'a>> {
        loop {
            let word = self.0.next().filter(|word| !word.ends_options())?;
            if let Some(argument) = word.argument() {
                return Some(argument);
            }
        }
    }
}

struct Words<'a> {
    rest: &'a [u8],
}

/// The kernel's `isspace`, which counts Latin-1's no-break space.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0xa0)
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let start = self.rest.iter().position(|&byte| !is_space(byte))?;
        let (_, text) = self.rest.split_at_checked(start)?;
        let (text, quoted) = match text.strip_prefix(b"\"") {
            Some(inner) => (inner, true),
            None => (text, false),
        };
        let mut in_quotes = quoted;
        let mut equals = None;
        let mut end = text.len();
        for (at, &byte) in text.iter().enumerate() {
            if is_space(byte) && !in_quotes {
                end = at;
                break;
            }
            // An `=` in front of everything is part of the name, as in the kernel.
            if byte == b'=' && equals.is_none() && at > 0 {
                equals = Some(at);
            }
            if byte == b'"' {
                in_quotes = !in_quotes;
            }
        }
        let (word, rest) = text.split_at_checked(end)?;
        self.rest = rest;
        let word = if quoted {
            word.strip_suffix(b"\"").unwrap_or(word)
        } else {
            word
        };
        let (name, value) = match equals.and_then(|at| word.split_at_checked(at)) {
            None => (word, None),
            Some((name, value)) => {
                let value = value.strip_prefix(b"=").unwrap_or(value);
                let bare = value
                    .strip_prefix(b"\"")
                    .map(|v| v.strip_suffix(b"\"").unwrap_or(v));
                (name, Some(bare.unwrap_or(value)))
            }
        };
        Some(Word {
            whole: word,
            name,
            value,
        })
    }
}

/// Which block device holds the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSpec {
    /// A node below `/dev`, by its path.
    Device(Name),
    /// A device number.
    Number {
        /// The driver's number.
        major: u32,
        /// The device's number within it.
        minor: u32,
    },
    /// The file system with this UUID, in the form that `blkid` prints.
    Uuid(Name),
    /// The file system with this label.
    Label(Name),
    /// The partition with this id.
    PartUuid {
        /// A GUID, or `SSSSSSSS-PP` of an MBR disk.
        id: Name,
        /// How many partitions further the root is (`/PARTNROFF=`).
        offset: i32,
    },
    /// The GPT partition with this name.
    PartLabel(Name),
}

/// Why a `root=` cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootSpecFault {
    /// There is nothing after `root=`.
    Empty,
    /// The name is longer than any device has.
    TooLong,
    /// It has none of the known forms.
    Unknown,
    /// It is a link that only udev makes.
    UdevLink,
    /// It needs more than a disk driver: device mapper, RAID, a network file system.
    NotADisk,
}

impl fmt::Display for RootSpecFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "root= is empty",
            Self::TooLong => "root= is too long",
            Self::Unknown => {
                "root= is none of /dev/NAME, UUID=, LABEL=, PARTUUID=, PARTLABEL=, MAJOR:MINOR"
            }
            Self::UdevLink => "root= is a link that udev makes: use UUID= or PARTUUID=",
            Self::NotADisk => "root= is not a plain disk: that needs dracut or mkinitcpio",
        })
    }
}

/// First words of a `root=` that other initramfs generators understand and we do not.
const NOT_DISKS: [&str; 18] = [
    "/dev/mapper/",
    "/dev/dm-",
    "/dev/md",
    "/dev/nfs",
    "/dev/cifs",
    "/dev/ram",
    "nfs",
    "nbd",
    "iscsi",
    "live",
    "zfs",
    "ZFS=",
    "mtd",
    "ubi",
    "gpt-auto",
    "dissect",
    "tmpfs",
    "overlay",
];

impl RootSpec {
    /// Reads the value of `root=`.
    pub fn parse(text: &str) -> Result<Self, RootSpecFault> {
        let text = unquote(text);
        if text.is_empty() {
            return Err(RootSpecFault::Empty);
        }
        if let Some((tag, value)) = text.split_once('=') {
            return Self::from_tag(tag, unquote(value));
        }
        if let Some((link, name)) = text
            .strip_prefix("/dev/disk/by-")
            .and_then(|link| link.split_once('/'))
        {
            return match link {
                "uuid" => Self::from_tag("UUID", name),
                "label" => Self::from_tag("LABEL", name),
                "partuuid" => Self::from_tag("PARTUUID", name),
                "partlabel" => Self::from_tag("PARTLABEL", name),
                _ => Err(RootSpecFault::UdevLink),
            };
        }
        if text.starts_with("/dev/disk/") {
            return Err(RootSpecFault::UdevLink);
        }
        if NOT_DISKS.iter().any(|prefix| text.starts_with(prefix)) {
            return Err(RootSpecFault::NotADisk);
        }
        if let Some(name) = text.strip_prefix("/dev/") {
            let plain = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
            return if plain {
                named(text).map(Self::Device)
            } else {
                Err(RootSpecFault::Unknown)
            };
        }
        number(text).ok_or(RootSpecFault::Unknown)
    }

    fn from_tag(tag: &str, value: &str) -> Result<Self, RootSpecFault> {
        if value.is_empty() {
            return Err(RootSpecFault::Empty);
        }
        let make: fn(Name) -> Self = match tag {
            "UUID" => Self::Uuid,
            "LABEL" => Self::Label,
            "PARTLABEL" => Self::PartLabel,
            "PARTUUID" => return Self::from_part_uuid(value),
            _ if NOT_DISKS
                .iter()
                .any(|prefix| prefix.strip_suffix('=') == Some(tag)) =>
            {
                return Err(RootSpecFault::NotADisk);
            }
            _ => return Err(RootSpecFault::Unknown),
        };
        let name = match tag {
            "UUID" => named(value),
            _ => decode(value),
        };
        name.map(make)
    }

    fn from_part_uuid(value: &str) -> Result<Self, RootSpecFault> {
        let (id, offset) = match value.split_once('/') {
            Some((id, rest)) => (id, part_offset(rest).ok_or(RootSpecFault::Unknown)?),
            None => (value, 0),
        };
        named(id).map(|id| Self::PartUuid { id, offset })
    }
}

impl fmt::Display for RootSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => f.write_str(path),
            Self::Number { major, minor } => write!(f, "{major}:{minor}"),
            Self::Uuid(id) => write!(f, "UUID={id}"),
            Self::Label(label) => write!(f, "LABEL={label}"),
            Self::PartUuid { id, offset: 0 } => write!(f, "PARTUUID={id}"),
            Self::PartUuid { id, offset } => write!(f, "PARTUUID={id}/PARTNROFF={offset}"),
            Self::PartLabel(label) => write!(f, "PARTLABEL={label}"),
        }
    }
}

fn named(text: &str) -> Result<Name, RootSpecFault> {
    if text.len() > MAX_NAME {
        return Err(RootSpecFault::TooLong);
    }
    Ok(text.into())
}

fn unquote(text: &str) -> &str {
    ['"', '\'']
        .iter()
        .find_map(|&quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

/// Undoes udev's encoding of a label: `\x20` is a space.
fn decode(text: &str) -> Result<Name, RootSpecFault> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, tail) = match tail {
            [b'x', high, low, tail @ ..] if first == b'\\' => {
                let digit = |byte: &u8| (*byte as char).to_digit(16).map(|digit| digit as u8);
                match (digit(high), digit(low)) {
                    (Some(high), Some(low)) => ((high << 4) | low, tail),
                    _ => (first, rest.get(1..).unwrap_or(&[])),
                }
            }
            _ => (first, tail),
        };
        if bytes.len() == MAX_NAME {
            return Err(RootSpecFault::TooLong);
        }
        bytes.push(byte);
        rest = tail;
    }
    Name::from_utf8(bytes).map_err(|_| RootSpecFault::Unknown)
}

/// Reads `PARTNROFF=` and a number with or without a sign.
fn part_offset(text: &str) -> Option<i32> {
    let text = text.strip_prefix("PARTNROFF=")?;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    // The parser takes a sign of its own.
    let number: u32 = digits.parse().ok().filter(|_| !digits.starts_with('+'))?;
    let number = i32::try_from(number).ok()?;
    Some(if text.starts_with('-') {
        number.saturating_neg()
    } else {
        number
    })
}

/// Reads `MAJOR:MINOR` in decimal, or the kernel's packed number in hexadecimal (`fe01`).
fn number(text: &str) -> Option<RootSpec> {
    if let Some((major, minor)) = text.split_once(':') {
        let major = major.parse().ok().filter(|&major| major < 1 << 12)?;
        let minor = minor.parse().ok().filter(|&minor| minor < 1 << 20)?;
        return Some(RootSpec::Number { major, minor });
    }
    // `from_str_radix` takes a sign, which the kernel does not.
    let packed = text
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then_some(text)?;
    let packed = u32::from_str_radix(packed, 16).ok()?;
    Some(RootSpec::Number {
        major: (packed & 0x000f_ff00) >> 8,
        minor: (packed & 0xff) | ((packed >> 12) & 0x000f_ff00),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn arguments(text: &str) -> Vec<(&str, Option<&str>)> {
        CommandLine::new(text.as_bytes())
            .arguments()
            .map(|a| (a.name, a.value))
            .collect()
    }

    fn root(text: &str) -> Result<RootSpec, RootSpecFault> {
        RootSpec::parse(text)
    }

    fn name(text: &str) -> Name {
        Name::from(text)
    }

    #[test]
    fn words_are_cut_at_spaces_and_kept_together_by_quotes() {
        assert_eq!(
            arguments("  quiet a=1\tb=\"two words\" \"c=three words\" d= e\n"),
            [
                ("quiet", None),
                ("a", Some("1")),
                ("b", Some("two words")),
                ("c", Some("three words")),
                ("d", Some("")),
                ("e", None)
            ]
        );
    }

    #[test]
    fn quotes_inside_a_value_stay_as_in_the_kernel() {
        assert_eq!(
            arguments("dyndbg=\"file a.c +p\" x=a\"b c\"d"),
            [("dyndbg", Some("file a.c +p")), ("x", Some("a\"b c\"d"))]
        );
        assert_eq!(arguments("a=\"open end"), [("a", Some("open end"))]);
    }

    #[test]
    fn only_the_first_equals_sign_cuts() {
        assert_eq!(
            arguments("root=UUID=ab =x"),
            [("root", Some("UUID=ab")), ("=x", None)]
        );
    }

    #[test]
    fn last_value_wins_and_dashes_are_underscores() {
        let line = CommandLine::new(b"panic-x=1 panic_x=2 panic-x=3");
        assert_eq!(line.value("panic_x"), Some("3"));
        assert!(!line.has("panic"));
    }

    #[test]
    fn nothing_after_two_dashes_is_an_option() {
        let line = CommandLine::new(b"root=/dev/a -- root=/dev/b --x");
        assert_eq!(line.value("root"), Some("/dev/a"));
        let words: Vec<_> = line.init_arguments().collect();
        assert_eq!(words, [&b"root=/dev/b"[..], b"--x"]);
    }

    #[test]
    fn a_word_that_is_not_utf8_hides_only_itself() {
        let line = CommandLine::new(b"a=\xff\xfe root=/dev/vda1");
        assert_eq!(line.value("root"), Some("/dev/vda1"));
        assert!(!line.has("a"));
    }

    #[test]
    fn run_levels_go_to_init_unless_init_comes_after_them() {
        let words = |text: &'static str| -> Vec<&[u8]> {
            CommandLine::new(text.as_bytes()).init_arguments().collect()
        };
        assert_eq!(words("quiet ro single 3 splash"), [&b"single"[..], b"3"]);
        assert_eq!(words("1 init=/bin/sh emergency"), [&b"emergency"[..]]);
        assert_eq!(words("s -- -x \"a b\""), [&b"s"[..], b"-x", b"a b"]);
    }

    #[test]
    fn module_parameters_are_found_by_either_spelling() {
        let line = CommandLine::new(b"hv-netvsc.ring_size=64 hv_netvsc.debug usb.x=1 hv_netvsc.=2");
        let found: Vec<_> = line
            .module_parameters("hv_netvsc")
            .map(|p| (p.name, p.value))
            .collect();
        assert_eq!(found, [("ring_size", Some("64")), ("debug", None)]);
    }

    #[test]
    fn own_options_are_found_by_either_spelling() {
        let line = CommandLine::new(
            b"preroot.wait-root=5 preroot.wait_root=7 preroot.dry-run preroot=off",
        );
        assert_eq!(line.preroot("wait-root"), Some("7"));
        assert_eq!(line.preroot("dry_run"), Some(""));
        assert_eq!(line.preroot("ready"), None);
        assert_eq!(line.value("preroot"), Some("off"));
    }

    #[test]
    fn root_options_are_read() {
        let line = CommandLine::new(
            b"root=LABEL=x ro rootfstype=ext4,,xfs rootflags=noatime,data=ordered init=/sbin/x rw",
        );
        assert_eq!(line.root_types().collect::<Vec<_>>(), ["ext4", "xfs"]);
        assert_eq!(line.root_flags(), "noatime,data=ordered");
        assert_eq!(line.root_writable(), Some(true));
        assert_eq!(line.init(), Some("/sbin/x"));
        assert_eq!(CommandLine::new(b"rw=1 quiet").root_writable(), None);
    }

    #[test]
    fn waiting_for_the_root_is_as_long_as_the_longer_of_both_words() {
        let wait = |text: &'static str| CommandLine::new(text.as_bytes()).root_wait();
        assert_eq!(wait("quiet"), RootWait::Unsaid);
        assert_eq!(wait("rootwait"), RootWait::Forever);
        assert_eq!(wait("rootwait=oops"), RootWait::Forever);
        assert_eq!(wait("rootwait=10"), RootWait::For(Duration::from_secs(10)));
        assert_eq!(wait("rootdelay=300"), RootWait::For(Duration::from_mins(5)));
        assert_eq!(
            wait("rootwait=10 rootdelay=300"),
            RootWait::For(Duration::from_mins(5))
        );
    }

    #[test]
    fn every_form_of_root_is_understood() {
        let uuid = "11111111-2222-3333-4444-555555555555";
        assert_eq!(root("/dev/vda1"), Ok(RootSpec::Device(name("/dev/vda1"))));
        assert_eq!(
            root("/dev/cciss/c0d0p1"),
            Ok(RootSpec::Device(name("/dev/cciss/c0d0p1")))
        );
        assert_eq!(
            root(&std::format!("UUID={uuid}")),
            Ok(RootSpec::Uuid(name(uuid)))
        );
        assert_eq!(root("UUID=\"AB-CD\""), Ok(RootSpec::Uuid(name("AB-CD"))));
        assert_eq!(
            root("LABEL=my\\x20root"),
            Ok(RootSpec::Label(name("my root")))
        );
        assert_eq!(
            root("LABEL=\"my root\""),
            Ok(RootSpec::Label(name("my root")))
        );
        assert_eq!(root("LABEL=a\\xzz"), Ok(RootSpec::Label(name("a\\xzz"))));
        assert_eq!(
            root("PARTLABEL=r\\xc3\\xa4"),
            Ok(RootSpec::PartLabel(name("rä")))
        );
        assert_eq!(
            root("PARTUUID=12345678-02/PARTNROFF=-1"),
            Ok(RootSpec::PartUuid {
                id: name("12345678-02"),
                offset: -1
            })
        );
        assert_eq!(
            root("8:17"),
            Ok(RootSpec::Number {
                major: 8,
                minor: 17
            })
        );
        assert_eq!(
            root("fe01"),
            Ok(RootSpec::Number {
                major: 254,
                minor: 1
            })
        );
        // 259:300 as the kernel packs it.
        assert_eq!(
            root("11032c"),
            Ok(RootSpec::Number {
                major: 259,
                minor: 0x12c
            })
        );
    }

    #[test]
    fn links_that_udev_would_make_are_resolved_without_udev() {
        assert_eq!(root("/dev/disk/by-uuid/ab"), Ok(RootSpec::Uuid(name("ab"))));
        assert_eq!(
            root("/dev/disk/by-label/my\\x20root"),
            Ok(RootSpec::Label(name("my root")))
        );
        assert_eq!(
            root("/dev/disk/by-partlabel/r"),
            Ok(RootSpec::PartLabel(name("r")))
        );
        assert_eq!(
            root("/dev/disk/by-partuuid/ab"),
            Ok(RootSpec::PartUuid {
                id: name("ab"),
                offset: 0
            })
        );
        assert_eq!(
            root("/dev/disk/by-path/pci-0"),
            Err(RootSpecFault::UdevLink)
        );
        assert_eq!(root("/dev/disk/azure/root"), Err(RootSpecFault::UdevLink));
    }

    #[test]
    fn roots_that_are_not_ours_are_refused_by_name() {
        for text in [
            "/dev/mapper/vg-root",
            "/dev/nfs",
            "nfs:1.2.3.4:/x",
            "ZFS=tank",
            "zfs:AUTO",
            "/dev/md0",
        ] {
            assert_eq!(root(text), Err(RootSpecFault::NotADisk), "{text}");
        }
        assert_eq!(root(""), Err(RootSpecFault::Empty));
        assert_eq!(root("LABEL="), Err(RootSpecFault::Empty));
        assert_eq!(root("sda1"), Err(RootSpecFault::Unknown));
        assert_eq!(root("+1"), Err(RootSpecFault::Unknown));
        assert_eq!(root("/dev/../etc/x"), Err(RootSpecFault::Unknown));
        assert_eq!(root("WWID=1"), Err(RootSpecFault::Unknown));
        assert_eq!(root("LABEL=\\xff"), Err(RootSpecFault::Unknown));
        let long = std::format!("LABEL={}", "x".repeat(MAX_NAME + 1));
        assert_eq!(root(&long), Err(RootSpecFault::TooLong));
    }

    #[test]
    fn a_root_prints_as_it_was_written() {
        for text in [
            "/dev/vda1",
            "UUID=ab",
            "LABEL=a b",
            "PARTUUID=ab/PARTNROFF=2",
            "PARTLABEL=x",
            "8:1",
        ] {
            assert_eq!(root(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn no_mutation_makes_it_panic() {
        let good = b"root=LABEL=\\x20a \"b=c d\" x=\"y z\" rootwait=3 -- a \"b c\" preroot.a=1 init=/x 11032c";
        let mut random = Random::new();
        let mut longest = 0;
        for _ in 0..5000 {
            let mut text = good.to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(text.len());
                text[at] = random.any() as u8;
            }
            text.truncate(random.below(text.len() + 1));
            let line = CommandLine::new(&text);
            longest = longest.max(line.arguments().count());
            let _ = (line.root(), line.root_wait(), line.init_arguments().count());
            let lossy = String::from_utf8_lossy(&text).into_owned();
            for word in lossy.split(' ') {
                let _ = RootSpec::parse(word);
            }
        }
        assert!(longest > 4);
    }
}
