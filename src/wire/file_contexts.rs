//! The security labels that a root's own `SELinux` policy gives to paths.
//!
//! Follows selinux(8), `file_contexts(5)` and libselinux's `label_file.c`: of the lines that fit a path the
//! last one counts, but one without special letters beats all that have some. The patterns are PCRE,
//! anchored at both ends; read is the part of it that policies use: letters, `.`, `[...]`, `(...)`, `|`,
//! `?`, `*`, `+` and `\`. A line with anything else fits nothing. Not a policy: whether the kernel knows
//! a label is not asked here.
//!
//! The files are large, so they are gone through once, line by line, for all paths at the same time. A
//! pattern is followed by the set of all places that it can have reached, so no pattern takes
//! exponential time, and all of them together get a bounded number of steps.

use alloc::vec::Vec;

use super::accounts;

/// Longest path that is looked up: its places are the bits of one number.
const PATH_MAX: usize = 127;
/// Most parts of patterns that are tried for all paths together; a policy of 6000 lines takes 20000.
const STEPS_MAX: u32 = 1 << 20;
/// Deepest brackets in a pattern; policies have three.
const DEPTH_MAX: u32 = 8;

/// Files of the policy that rewrite the beginnings of paths before they are looked up, in their order.
pub const SUBSTITUTIONS: [&str; 2] = [".subs", ".subs_dist"];
/// Files of the policy with labels, in their order.
pub const CONTEXTS: [&str; 3] = ["", ".homedirs", ".local"];

/// Reads `/etc/selinux/config`; gives the policy's name unless `SELinux` is off.
pub fn policy(config: &[u8]) -> Option<&str> {
    let mode = accounts::assignment(config, "SELINUX")?;
    let on = ["enforcing", "permissive"]
        .iter()
        .any(|name| mode.eq_ignore_ascii_case(name));
    let name = accounts::assignment(config, "SELINUXTYPE").unwrap_or("targeted");
    (on && !name.is_empty() && !name.contains(['/', '.'])).then_some(name)
}

/// What a policy says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label<'a> {
    /// Nothing that is understood.
    Unknown,
    /// That it shall have none.
    None,
    /// This one.
    Context(&'a [u8]),
}

/// A path to look up, and the best line so far.
struct Wanted {
    path: Vec<u8>,
    /// What substitution makes of the path, until its file ends.
    next: Option<Vec<u8>>,
    is_directory: bool,
    is_exact: bool,
    context: Vec<u8>,
}

/// Looks paths up in the files of a policy.
pub struct Lookup {
    wanted: Vec<Wanted>,
    steps: u32,
}

impl Default for Lookup {
    fn default() -> Self {
        Self {
            wanted: Vec::new(),
            steps: STEPS_MAX,
        }
    }
}

impl Lookup {
    /// Adds a path to look up.
    pub fn want(&mut self, path: &str, is_directory: bool) {
        self.wanted.push(Wanted {
            path: path.as_bytes().into(),
            next: None,
            is_directory,
            is_exact: false,
            context: Vec::new(),
        });
    }

    /// Takes a line of a file of [`SUBSTITUTIONS`]; of several that fit the last one counts.
    pub fn take_substitution(&mut self, line: &[u8]) {
        let Some([source, target, _]) = fields(line) else {
            return;
        };
        for wanted in &mut self.wanted {
            if let Some(rest @ ([] | [b'/', ..])) = wanted.path.strip_prefix(source) {
                let target = target.strip_suffix(b"/").unwrap_or(target);
                wanted.next = Some([target, rest].concat());
            }
        }
    }

    /// Ends a file of [`SUBSTITUTIONS`].
    pub fn substitute(&mut self) {
        for wanted in &mut self.wanted {
            if let Some(path) = wanted.next.take() {
                wanted.path = path;
            }
        }
    }

    /// Takes a line of a file of [`CONTEXTS`].
    pub fn take(&mut self, line: &[u8]) {
        let Some([pattern, mut kind, mut context]) = fields(line) else {
            return;
        };
        if context.is_empty() {
            (kind, context) = (b"", kind);
        }
        let (start, is_exact) = beginning(pattern);
        for wanted in &mut self.wanted {
            let kind_fits = match kind {
                b"" => true,
                b"--" => !wanted.is_directory,
                b"-d" => wanted.is_directory,
                _ => false,
            };
            if kind_fits
                && is_exact >= wanted.is_exact
                && wanted.path.starts_with(start)
                && fits(pattern, &wanted.path, &mut self.steps)
            {
                wanted.is_exact = is_exact;
                wanted.context = context.into();
            }
        }
    }

    /// Tells what was found for the path that was added as number `index`, counted from 0.
    pub fn label(&self, index: usize) -> Label<'_> {
        match self
            .wanted
            .get(index)
            .map_or(&[][..], |found| &found.context)
        {
            b"" => Label::Unknown,
            // A search that was given up may have missed a better line.
            _ if self.steps == 0 => Label::Unknown,
            b"<<none>>" => Label::None,
            context => Label::Context(context),
        }
    }
}

/// Gives the first words of a line that is no comment and has two at least.
fn fields(line: &[u8]) -> Option<[&[u8]; 3]> {
    let mut words = accounts::words(line);
    let first = words.next().filter(|word| !word.starts_with(b"#"))?;
    Some([first, words.next()?, words.next().unwrap_or_default()])
}

/// Gives the letters that a pattern surely begins with, and tells whether it has no special ones at all.
fn beginning(pattern: &[u8]) -> (&[u8], bool) {
    let mut plain = None;
    let mut at = 0_usize;
    let mut is_exact = true;
    while let Some(&letter) = pattern.get(at) {
        let sure = match letter {
            // What stands before these may be left out.
            b'?' | b'*' | b'{' => at.saturating_sub(1),
            b'|' => 0,
            _ => at,
        };
        if b".^$?*+|[({".contains(&letter) {
            plain = plain.min(Some(sure)).or(Some(sure));
            is_exact = false;
            break;
        }
        if letter == b'\\' {
            plain = plain.or(Some(at));
            at = at.saturating_add(1);
        }
        at = at.saturating_add(1);
    }
    (until(pattern, plain.unwrap_or(pattern.len())), is_exact)
}

fn until(pattern: &[u8], end: usize) -> &[u8] {
    pattern.get(..end).unwrap_or_default()
}

/// Tells whether a pattern describes the whole path.
fn fits(pattern: &[u8], path: &[u8], steps: &mut u32) -> bool {
    let mut search = Search { path, steps };
    path.len() <= PATH_MAX
        && search
            .follow(pattern, 1, DEPTH_MAX)
            .is_some_and(|reached| reached >> path.len() & 1 == 1)
}

/// A path that is compared with patterns; bit `n` of a set stands for the place before its byte `n`.
struct Search<'a> {
    path: &'a [u8],
    steps: &'a mut u32,
}

impl Search<'_> {
    /// Gives the places that a pattern leads to from those in `from`; nothing when it is not understood.
    fn follow(&mut self, pattern: &[u8], from: u128, depth: u32) -> Option<u128> {
        let depth = depth.checked_sub(1)?;
        let mut rest = pattern;
        let mut reached = 0;
        let mut here = from;
        while !rest.is_empty() {
            if let Some(other) = rest.strip_prefix(b"|") {
                reached |= here;
                here = from;
                rest = other;
                continue;
            }
            let (part, after) = rest.split_at_checked(part_length(rest)?)?;
            let (optional, repeated, after) = match after {
                [b'?', after @ ..] => (true, false, after),
                [b'*', after @ ..] => (true, true, after),
                [b'+', after @ ..] => (false, true, after),
                _ => (false, false, after),
            };
            // Whether as little or as much as possible: of the whole path it is the same.
            let after = if optional || repeated {
                after.strip_prefix(b"?").unwrap_or(after)
            } else {
                after
            };
            let mut there = self.step(part, here, depth)?;
            let mut before = if repeated { 0 } else { there };
            while there != before {
                before = there;
                there |= self.step(part, there, depth)?;
            }
            here = if optional { here | there } else { there };
            rest = after;
        }
        Some(reached | here)
    }

    /// Gives the places behind one part of a pattern.
    fn step(&mut self, part: &[u8], from: u128, depth: u32) -> Option<u128> {
        *self.steps = self.steps.checked_sub(1)?;
        if let [b'(', inner @ .., b')'] = part {
            let inner = inner.strip_prefix(b"?:").unwrap_or(inner);
            return self.follow(inner, from, depth);
        }
        let mut reached = 0;
        for (place, &letter) in self.path.iter().enumerate() {
            let is_here = from >> place & 1 == 1;
            if is_here && is_letter(part, letter) {
                reached |= 2 << place;
            }
        }
        Some(reached)
    }
}

/// Gives the length of the first part of a pattern: a letter, a class, or what stands in brackets.
fn part_length(pattern: &[u8]) -> Option<usize> {
    let mut depth = 0_u32;
    let mut at = 0_usize;
    loop {
        let rest = pattern.get(at..)?;
        let length = match rest {
            // Before a letter or digit it is no escape but a word of its own.
            [b'\\', escaped, ..] if !escaped.is_ascii_alphanumeric() => 2,
            [b'[', class @ ..] => class_length(class)?.checked_add(1)?,
            [b'(', ..] => {
                depth = depth.checked_add(1)?;
                1
            }
            [b')', ..] => {
                depth = depth.checked_sub(1)?;
                1
            }
            [b'\\' | b'^' | b'$' | b'{', ..] | [] => return None,
            [b'?' | b'*' | b'+' | b'|', ..] if depth == 0 => return None,
            _ => 1,
        };
        at = at.checked_add(length)?;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Gives the length of a class behind its `[`, with the `]`; nothing for one that names other classes.
fn class_length(class: &[u8]) -> Option<usize> {
    let start = usize::from(class.starts_with(b"^"));
    let mut at = start;
    loop {
        let length = match class.get(at..)? {
            // As the first letter it does not end the class.
            [b']', ..] if at > start => return at.checked_add(1),
            [b'\\', escaped, ..] if !escaped.is_ascii_alphanumeric() => 2,
            [b'\\', ..] | [b'[', b':' | b'.' | b'=', ..] => return None,
            _ => 1,
        };
        at = at.checked_add(length)?;
    }
}

/// Tells whether a part that stands for one letter stands for this one.
fn is_letter(part: &[u8], letter: u8) -> bool {
    match part {
        [b'.'] => true,
        [b'[', class @ .., b']'] => {
            let negated = class.starts_with(b"^");
            let mut rest = class.get(usize::from(negated)..).unwrap_or_default();
            let mut found = false;
            while let Some((first, after)) = member(rest) {
                let last = after.strip_prefix(b"-").and_then(member);
                let (last, after) = last.unwrap_or((first, after));
                found |= (first..=last).contains(&letter);
                rest = after;
            }
            found != negated
        }
        _ => part.last() == Some(&letter),
    }
}

/// Takes the first letter of a class.
fn member(class: &[u8]) -> Option<(u8, &[u8])> {
    match class {
        [b'\\', escaped, rest @ ..] => Some((*escaped, rest)),
        [plain, rest @ ..] => Some((*plain, rest)),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::format;
    use std::fs;
    use std::path::Path;
    use std::string::{String, ToString as _};
    use std::time::{Duration, Instant};

    fn matches(pattern: &str, path: &str) -> bool {
        let mut lookup = Lookup::default();
        lookup.want(path, false);
        lookup.take(format!("{pattern} x").as_bytes());
        lookup.label(0) == Label::Context(b"x")
    }

    fn found(path: &str, is_directory: bool, lines: &str) -> String {
        let mut lookup = Lookup::default();
        lookup.want(path, is_directory);
        lines.lines().for_each(|line| lookup.take(line.as_bytes()));
        match lookup.label(0) {
            Label::Unknown => "unknown".to_string(),
            Label::None => "none".to_string(),
            Label::Context(context) => String::from_utf8_lossy(context).to_string(),
        }
    }

    #[test]
    fn patterns_are_anchored_expressions() {
        let cases = [
            ("/etc/passwd", "/etc/passwd", true),
            ("/etc/passwd", "/etc/passwd-", false),
            ("/etc/passwd[-\\+]?", "/etc/passwd", true),
            ("/etc/passwd[-\\+]?", "/etc/passwd-", true),
            ("/etc/passwd[-\\+]?", "/etc/passwd+", true),
            ("/etc/passwd[-\\+]?", "/etc/passwd\\", false),
            ("/etc/\\.pwd\\.lock", "/etc/.pwd.lock", true),
            ("/etc/\\.pwd\\.lock", "/etc/.pwdxlock", false),
            ("/etc(/.*)?", "/etc", true),
            ("/etc(/.*)?", "/etc/a/b", true),
            ("/etc(/.*)?", "/etcetera", false),
            ("/etc/.+", "/etc/", false),
            ("/home/[^/]+/\\.ssh(/.*)?", "/home/u/.ssh/keys", true),
            ("/home/[^/]+/\\.ssh(/.*)?", "/home/u/v/.ssh/keys", false),
            ("/var/(a|bc|d(e|f))x", "/var/bcx", true),
            ("/var/(a|bc|d(e|f))x", "/var/dfx", true),
            ("/var/(a|bc|d(e|f))x", "/var/dx", false),
            ("/var/(?:a|b)+", "/var/abba", true),
            ("/x[0-9]+-[a-c]", "/x2024-b", true),
            ("/x[0-9]+-[a-c]", "/x-b", false),
            ("/x[]a]", "/x]", true),
            ("/x[^]a]", "/x]", false),
            ("/x[a-]", "/x-", true),
            ("/(.*/)?bin/ls", "/usr/local/bin/ls", true),
            ("/(.*/)?bin/ls", "/bin/ls", true),
            ("/a(/.*?)", "/a/b", true),
            ("/a(b*)*c", "/abbbc", true),
            ("/abc?", "/ab", true),
            ("/a|/b", "/b", true),
            ("/a|/b", "/bc", false),
            ("/(|a)b", "/b", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_not_understood_fits_nothing() {
        let cases = [
            ("/a{2}", "/aa"),
            ("/\\d", "/1"),
            ("/[[:digit:]]", "/1"),
            ("/[\\d]", "/1"),
            ("^/a$", "/a"),
            ("/(?=a)a", "/a"),
            ("/a*+", "/a"),
            ("/(a", "/a"),
            ("/a)", "/a"),
            ("/[a", "/a"),
            ("/a\\", "/a"),
            ("/((((((((((a))))))))))", "/a"),
        ];
        for (pattern, path) in cases {
            assert!(!matches(pattern, path), "{pattern}");
        }
    }

    #[test]
    fn last_line_counts_but_one_without_special_letters_beats_it() {
        let rules = "/.* default\n/etc/hostname name\n/etc/.* etc\n/etc/h.* h\n";
        assert_eq!(found("/etc/hostname", false, rules), "name");
        assert_eq!(found("/etc/hosts", false, rules), "h");
        assert_eq!(found("/etc/passwd", false, rules), "etc");
        assert_eq!(found("/srv", true, rules), "default");
        // An escaped dot is no special letter.
        let rules = "/a\\.b plain\n/a.b other\n/a\\.b last\n/a.b other";
        assert_eq!(found("/a.b", false, rules), "last");
    }

    #[test]
    fn kinds_comments_and_none_are_heeded() {
        let rules = "# /a x\n\n/a\n/a -- file\n/a -d dir\n/a -l link\n/b <<none>>\n";
        assert_eq!(found("/a", false, rules), "file");
        assert_eq!(found("/a", true, rules), "dir");
        assert_eq!(found("/b", false, rules), "none");
        assert_eq!(found("/c", false, rules), "unknown");
    }

    #[test]
    fn policy_is_named_only_when_it_is_on() {
        let named = [
            ("SELINUX=enforcing\nSELINUXTYPE=default\n", Some("default")),
            ("SELINUX=Permissive \n", Some("targeted")),
            ("SELINUX=disabled\nSELINUXTYPE=targeted\n", None),
            ("#SELINUX=enforcing\nSELINUXTYPE=targeted\n", None),
            ("SELINUX=enforcing\nSELINUXTYPE=../..\n", None),
            ("", None),
        ];
        for (config, expected) in named {
            assert_eq!(policy(config.as_bytes()), expected, "{config}");
        }
    }

    #[test]
    fn substitutions_rewrite_the_beginning_once_each() {
        let mut lookup = Lookup::default();
        for path in ["/lib64/x", "/lib64x", "/run/lock/y", "/data"] {
            lookup.want(path, false);
        }
        let files = [
            "# mine\n/data /lib64\n",
            "/lib64 /usr/lib\n/run /var/run\n/run/lock /var/lock\n/usr /other\n",
        ];
        for file in files {
            file.lines()
                .for_each(|line| lookup.take_substitution(line.as_bytes()));
            lookup.substitute();
        }
        let paths: Vec<_> = lookup
            .wanted
            .iter()
            .map(|wanted| str::from_utf8(&wanted.path).unwrap())
            .collect();
        assert_eq!(paths, ["/usr/lib/x", "/lib64x", "/var/lock/y", "/usr/lib"]);
    }

    /// Looks paths up in a folder of real rules.
    fn look_up(folder: &Path, wanted: &[&str]) -> Lookup {
        let read = |name: &str| {
            fs::read_to_string(folder.join(format!("file_contexts{name}"))).unwrap_or_default()
        };
        let mut lookup = Lookup::default();
        for line in wanted {
            let mut words = line.split('\t');
            let kind = words.next().unwrap();
            lookup.want(words.next().unwrap(), kind == "dir");
        }
        for name in SUBSTITUTIONS {
            let file = read(name);
            file.lines()
                .for_each(|line| lookup.take_substitution(line.as_bytes()));
            lookup.substitute();
        }
        for name in CONTEXTS {
            let file = read(name);
            file.lines().for_each(|line| lookup.take(line.as_bytes()));
        }
        lookup
    }

    #[test]
    fn real_rules_give_the_labels_that_matchpathcon_gives() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/selinux");
        let mut count = 0;
        for folder in fs::read_dir(data).unwrap() {
            let folder = folder.unwrap().path();
            if !folder.is_dir() {
                continue;
            }
            let expected = fs::read_to_string(folder.join("expect")).unwrap();
            let lines: std::vec::Vec<_> = expected.lines().collect();
            // As many as a plan has changes.
            for wanted in lines.chunks(30) {
                let lookup = look_up(&folder, wanted);
                for (index, line) in wanted.iter().enumerate() {
                    let expected = match line.rsplit('\t').next().unwrap() {
                        "<<none>>" => Label::None,
                        context => Label::Context(context.as_bytes()),
                    };
                    assert_eq!(lookup.label(index), expected, "{} {line}", folder.display());
                    count += 1;
                }
                assert!(lookup.steps > STEPS_MAX / 2);
            }
        }
        assert!(count > 200, "{count}");
    }

    #[test]
    fn no_pattern_takes_long() {
        let path = format!("/{}", "a".repeat(120));
        let start = Instant::now();
        for pattern in [
            "/(a*)*b",
            "/(a|a)*b",
            "/((a+)+)+b",
            "/(((((a*)*)*)*)*)*b",
            "/(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)b",
            "/((a|aa)(aaa|a))*((a|aa)*(aaaa)*)*b",
        ] {
            assert!(!matches(pattern, &path), "{pattern}");
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn search_that_is_given_up_knows_nothing() {
        let mut lookup = Lookup::default();
        lookup.want("/aaaa", false);
        lookup.take(b"/.* x");
        assert_eq!(lookup.label(0), Label::Context(b"x"));
        for _ in 0..STEPS_MAX {
            lookup.take(b"/a(a)(a)ab y");
        }
        assert_eq!(lookup.label(0), Label::Unknown);
    }

    #[test]
    fn mutated_rules_never_panic() {
        let mut random = Random::new();
        let rule = b"/home/[^/]+/\\.(ssh|gnupg)(/.*)?\t--\tsystem_u:object_r:ssh_home_t:s0";
        let mut fitting = 0;
        for _ in 0..20_000 {
            let mut line = rule.to_vec();
            for _ in 0..random.below(4) {
                let at = random.below(line.len());
                line[at] = b"()[]^$|?*+.\\{}-/a \xff"[random.below(19)];
            }
            line.truncate(line.len() - random.below(8));
            let mut lookup = Lookup::default();
            lookup.want("/home/ops/.ssh/authorized_keys", false);
            lookup.take(&line);
            lookup.take_substitution(&line);
            lookup.substitute();
            fitting += u32::from(lookup.label(0) != Label::Unknown);
        }
        assert!((2000..19_000).contains(&fitting), "{fitting}");
    }
}
