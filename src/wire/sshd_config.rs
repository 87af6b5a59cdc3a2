//! `sshd_config`, as sshd reads it: what it says globally, and what for one user.
//!
//! Not a checker: sshd refuses to start with lines that are passed over here. Files and directories are
//! the caller's. Follows `sshd_config(5)` and, where that is silent, OpenSSH's `servconf.c` and `misc.c`:
//! sshd reads its files twice, first for the global settings, where whatever is in a `Match` block but
//! `Match all` is left out, then for a user, where only what is in `Match` blocks counts and overrides
//! the global settings; each time the first value wins.

use alloc::string::String;
use alloc::vec::Vec;

use super::accounts;

/// Where relative names of included files start.
const DIRECTORY: &str = "/etc/ssh/";
/// How deep files may include others, as in sshd.
const DEPTH_MAX: u32 = 16;
/// Most files that are read; a file that includes itself would never end.
const FILES_MAX: u32 = 256;
/// Most files that one pattern gives.
const NAMES_MAX: usize = 128;

/// A way to the files of a root.
pub trait Files {
    /// Reads a file; nothing when there is none.
    fn read(&self, path: &str) -> Option<accounts::File>;
    /// Names each entry of a directory.
    fn list(&self, directory: &str, each: &mut dyn FnMut(&str));
}

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// It does not.
    No,
    /// It depends on the connection.
    Maybe,
    /// It does.
    Yes,
}

/// One line that counts for somebody.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The keyword as it is written: upper and lower case are the same.
    pub keyword: &'a str,
    arguments: &'a str,
    /// Whether it is one of the global settings.
    pub global: bool,
    /// Whether it overrides them for the user.
    pub user: Holds,
    /// The file that it is in.
    pub path: &'a str,
}

impl Setting<'_> {
    /// Tells whether this is the keyword.
    pub fn is(&self, keyword: &str) -> bool {
        self.keyword.eq_ignore_ascii_case(keyword)
    }

    /// Gives the arguments, without quotes and escapes.
    #[inline(never)]
    pub fn words(&self) -> Vec<String> {
        words(self.arguments)
    }

    /// Gives the value of an option that is on or off.
    pub fn flag(&self) -> Option<bool> {
        let words = self.words();
        let word = words.first()?;
        if word.eq_ignore_ascii_case("yes") {
            Some(true)
        } else if word.eq_ignore_ascii_case("no") {
            Some(false)
        } else {
            None
        }
    }
}

/// Goes through the settings of a file and of those that it includes, in the order in which sshd does.
pub fn read(files: &dyn Files, path: &str, user: Option<&str>, each: &mut dyn FnMut(Setting<'_>)) {
    let mut reader = Reader {
        files,
        user,
        each,
        left: FILES_MAX,
    };
    let start = Scope {
        global: true,
        user: Holds::No,
        in_block: false,
    };
    reader.file(path, 0, start);
}

/// For whom the lines from here on count.
#[derive(Clone, Copy)]
struct Scope {
    global: bool,
    user: Holds,
    /// Whether a `Match` line stands above them, here or where this file is included.
    in_block: bool,
}

struct Reader<'a> {
    files: &'a dyn Files,
    user: Option<&'a str>,
    each: &'a mut dyn FnMut(Setting<'_>),
    left: u32,
}

impl Reader<'_> {
    /// Reads one file; a block in it counts for nobody for whom the file itself does not.
    #[inline(never)]
    fn file(&mut self, path: &str, depth: u32, start: Scope) {
        let Some(left) = self.left.checked_sub(1) else {
            return;
        };
        self.left = left;
        let Some(content) = self.files.read(path) else {
            return;
        };
        let mut scope = start;
        for line in accounts::lines(&content) {
            let mut rest = valid(line).trim_ascii();
            let keyword = cut(&mut rest);
            if keyword.starts_with('#') || rest.is_empty() {
                continue;
            }
            if keyword.eq_ignore_ascii_case("match") {
                let most = if start.in_block {
                    start.user
                } else {
                    Holds::Yes
                };
                let (all, holds) = self.holds(rest);
                scope = Scope {
                    global: start.global && all,
                    user: holds.min(most),
                    in_block: true,
                };
            } else if keyword.eq_ignore_ascii_case("include") {
                if depth < DEPTH_MAX {
                    self.include(rest, depth.saturating_add(1), scope);
                }
            } else if scope.global || scope.user != Holds::No {
                (self.each)(Setting {
                    keyword,
                    arguments: rest,
                    global: scope.global,
                    user: scope.user,
                    path,
                });
            }
        }
    }

    /// Reads the files that an `Include` line names.
    fn include(&mut self, patterns: &str, depth: u32, scope: Scope) {
        for pattern in words(patterns) {
            let directory = if pattern.starts_with('/') {
                ""
            } else {
                DIRECTORY
            };
            let mut names = Vec::new();
            self.expand(directory, &pattern, &mut names);
            for name in names {
                self.file(&name, depth, scope);
            }
        }
    }

    /// Collects the paths that match a pattern below `directory`, in the order of their bytes.
    #[inline(never)]
    fn expand(&self, directory: &str, pattern: &str, names: &mut Vec<String>) {
        // What comes before the first part with a wildcard is a directory, and the rest is for below.
        let (mut start, mut end, mut wild) = (0, pattern.len(), false);
        for (at, byte) in pattern.bytes().enumerate() {
            match byte {
                b'/' if wild => {
                    end = at;
                    break;
                }
                b'/' => start = at.saturating_add(1),
                b'*' | b'?' | b'[' | b'\\' => wild = true,
                _ => {}
            }
        }
        if !wild {
            return insert(names, [directory, pattern].concat());
        }
        let piece = |from, to| pattern.get(from..to).unwrap_or_default();
        let (part, below) = (piece(start, end), piece(end, pattern.len()));
        let directory = [directory, piece(0, start)].concat();
        let mut found = Vec::new();
        self.files.list(&directory, &mut |name| {
            // A pattern finds no hidden file that it does not name.
            if (!name.starts_with('.') || part.starts_with('.')) && matches(part, name) {
                insert(&mut found, [&directory, name].concat());
            }
        });
        for path in found {
            if below.is_empty() {
                insert(names, path);
            } else {
                self.expand(&path, below, names);
            }
        }
    }

    /// Tells whether a `Match` line is for everyone, and whether it is for the user.
    #[inline(never)]
    fn holds(&self, mut criteria: &str) -> (bool, Holds) {
        let mut holds = Holds::Yes;
        while !criteria.is_empty() {
            let attribute = cut(&mut criteria);
            if attribute.starts_with('#') {
                break;
            }
            if attribute.eq_ignore_ascii_case("all") {
                return (true, Holds::Yes);
            }
            // The one attribute without a value: our user is a valid one.
            let one = if attribute.eq_ignore_ascii_case("invalid-user") {
                Holds::No
            } else {
                let value = cut(&mut criteria);
                match self.user {
                    _ if !attribute.eq_ignore_ascii_case("user") => Holds::Maybe,
                    Some(user) if is_in(value, user) => Holds::Yes,
                    _ => Holds::No,
                }
            };
            holds = holds.min(one);
        }
        (false, holds)
    }
}

/// Puts a path in its place among others.
#[inline(never)]
fn insert(names: &mut Vec<String>, path: String) {
    if names.len() < NAMES_MAX {
        let place = names.iter().position(|name| *name > path);
        names.insert(place.unwrap_or(names.len()), path);
    }
}

/// Gives the line, or what is before a byte that is not UTF-8.
fn valid(line: &[u8]) -> &str {
    match core::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => line
            .get(..error.valid_up_to())
            .and_then(|line| core::str::from_utf8(line).ok())
            .unwrap_or_default(),
    }
}

/// Takes the first word: up to white space or one `=`, or what is in quotes.
#[inline(never)]
fn cut<'a>(rest: &mut &'a str) -> &'a str {
    let (text, is_end): (&str, fn(u8) -> bool) = match rest.strip_prefix('"') {
        Some(quoted) => (quoted, |byte| byte == b'"'),
        None => (rest, |byte| {
            byte.is_ascii_whitespace() || matches!(byte, b'=' | b'"')
        }),
    };
    let end = text.bytes().position(is_end).unwrap_or(text.len());
    let (word, after) = text.split_at_checked(end).unwrap_or((text, ""));
    let after = after.strip_prefix('"').unwrap_or(after).trim_ascii_start();
    *rest = after.strip_prefix('=').unwrap_or(after).trim_ascii_start();
    word
}

/// Splits arguments at blanks, takes quotes and escapes away, and ends at a comment.
#[inline(never)]
fn words(arguments: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = arguments.chars().peekable();
    while let Some(c) = chars.next() {
        let c = match (c, quote) {
            (' ' | '\t', None) => {
                words.extend(word.take());
                continue;
            }
            ('#', None) if word.is_none() => break,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
                continue;
            }
            (c, Some(open)) if c == open => {
                quote = None;
                continue;
            }
            ('\\', _) => chars
                .next_if(|next| {
                    matches!(next, '\'' | '"' | '\\') || *next == ' ' && quote.is_none()
                })
                .unwrap_or(c),
            (c, _) => c,
        };
        word.get_or_insert_default().push(c);
    }
    words.extend(word);
    words
}

/// Tells whether a list of patterns, some of them negated, is for `name`.
pub fn is_in(patterns: &str, name: &str) -> bool {
    let mut found = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if matches(negated, name) => return false,
            Some(_) => {}
            None => found |= matches(pattern, name),
        }
    }
    found
}

/// Tells whether the whole of `text` fits a pattern of `*`, `?`, `[...]` and escaped characters.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // Where to try again with one byte more for the last star.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        let fits = match (pattern, text) {
            ([], []) => return true,
            ([b'*', after @ ..], _) => {
                again = Some((after, text));
                pattern = after;
                continue;
            }
            (_, []) => return false,
            (_, [first, more @ ..]) => one(pattern, *first).map(|after| (after, more)),
        };
        (pattern, text) = match (fits, again) {
            (Some(fits), _) => fits,
            (None, Some((after, [_, more @ ..]))) => {
                again = Some((after, more));
                (after, more)
            }
            (None, _) => return false,
        };
    }
}

/// Matches the first part of a pattern with one byte and gives what is behind it.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', after @ ..] => Some(after),
        [b'[', class @ ..] => {
            let (negated, mut class) = match class {
                [b'!', class @ ..] => (true, class),
                class => (false, class),
            };
            let mut found = false;
            let mut first = true;
            loop {
                class = match class {
                    [] => return None,
                    [b']', after @ ..] if !first => return (found != negated).then_some(after),
                    [low, b'-', high, after @ ..] if *high != b']' => {
                        found |= (*low..=*high).contains(&byte);
                        after
                    }
                    [same, after @ ..] => {
                        found |= *same == byte;
                        after
                    }
                };
                first = false;
            }
        }
        [b'\\', same, after @ ..] | [same, after @ ..] if *same == byte => Some(after),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use std::collections::BTreeMap;
    use std::{format, vec};

    /// Files that are only a map.
    struct Memory(BTreeMap<&'static str, Vec<u8>>);

    impl Files for Memory {
        fn read(&self, path: &str) -> Option<accounts::File> {
            Some(accounts::File::new(self.0.get(path)?.clone()))
        }

        fn list(&self, directory: &str, each: &mut dyn FnMut(&str)) {
            let directory = format!("{}/", directory.trim_end_matches('/'));
            // Twice and backwards: the order of a directory says nothing.
            for path in self.0.keys().rev() {
                if let Some(name) = path.strip_prefix(&*directory)
                    && !name.contains('/')
                {
                    each(name);
                }
            }
        }
    }

    /// Shows each setting: its file's last letter, for whom it counts, keyword and words.
    fn shown(files: &[(&'static str, &str)], user: Option<&str>) -> Vec<String> {
        let mut all = Vec::new();
        let files = files
            .iter()
            .map(|(path, text)| (*path, text.as_bytes().to_vec()));
        read(&Memory(files.collect()), "/main", user, &mut |setting| {
            let global = if setting.global { "all" } else { "-" };
            let user = match setting.user {
                Holds::No => "-",
                Holds::Maybe => "maybe",
                Holds::Yes => "user",
            };
            all.push(format!(
                "{global} {user} {} {:?}",
                setting.keyword,
                setting.words()
            ));
        });
        all
    }

    #[test]
    fn included_files_come_in_the_order_of_their_bytes() {
        let files = [
            ("/main", "Include d/*.conf\n"),
            ("/etc/ssh/d/9.conf", "A 9\n"),
            ("/etc/ssh/d/10.conf", "A 10\n"),
            ("/etc/ssh/d/Z.conf", "A Z\n"),
            ("/etc/ssh/d/.conf", "A hidden\n"),
            ("/etc/ssh/d/a.conf.old", "A old\n"),
        ];
        assert_eq!(
            shown(&files, None),
            ["all - A [\"10\"]", "all - A [\"9\"]", "all - A [\"Z\"]"]
        );
    }

    #[test]
    fn block_ends_with_the_file_that_it_is_in() {
        let files = [
            ("/main", "Include x\nB 2\nMatch User u\nInclude x\nC 3\n"),
            (
                "/etc/ssh/x",
                "A 1\nMatch User v\nA 2\nMatch User u Address 1.2.3.4\nA 3\n",
            ),
        ];
        assert_eq!(
            shown(&files, Some("u")),
            [
                "all - A [\"1\"]",
                "- maybe A [\"3\"]",
                "all - B [\"2\"]",
                "- user A [\"1\"]",
                "- maybe A [\"3\"]",
                "- user C [\"3\"]",
            ]
        );
        assert_eq!(
            shown(&files, Some("w")),
            ["all - A [\"1\"]", "all - B [\"2\"]"]
        );
    }

    #[test]
    fn nobody_in_particular_is_no_user_of_a_block() {
        let files = [(
            "/main",
            "Match User *\nA 1\nMatch Host h\nA 2\nMatch all\nA 3\n",
        )];
        assert_eq!(
            shown(&files, None),
            ["- maybe A [\"2\"]", "all user A [\"3\"]"]
        );
    }

    #[test]
    fn quotes_escapes_and_comments_are_taken_away() {
        for (line, words) in [
            (r#"K a "b c" d"#, &["a", "b c", "d"][..]),
            (r#"K "" x"#, &["", "x"]),
            (r"K a\ b c\d 'e\'f'", &["a b", r"c\d", "e'f"]),
            ("K a#b # c", &["a#b"]),
            ("K\t=\ta", &["a"]),
            ("\"K\" a", &["a"]),
            ("K=a", &["a"]),
            ("K  a \r", &["a"]),
            ("K a\u{c}", &["a"]),
        ] {
            assert_eq!(
                shown(&[("/main", line)], None),
                [format!("all - K {words:?}")],
                "{line}"
            );
        }
        for line in ["", "K", "# K a", "  #K a", "K =", "\"\""] {
            assert!(shown(&[("/main", line)], None).is_empty(), "{line}");
        }
    }

    #[test]
    fn files_that_include_themselves_come_to_an_end() {
        let files = [("/main", "Include /main /main /mai*\nA 1\n")];
        let count = shown(&files, None).len();
        assert!((1..=FILES_MAX as usize).contains(&count), "{count}");
    }

    #[test]
    fn patterns_match_as_glob_does() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf~", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1c2b", false),
            ("?", "", false),
            ("[ab]x", "bx", true),
            ("[!ab]x", "bx", false),
            ("[0-9][]a]", "7]", true),
            ("[0-9", "7", false),
            ("[a-]", "-", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn mutated_configurations_never_panic_and_always_end() {
        let main = "Include d/[a-c]*.conf \"x y\" d\\*\nPasswordAuthentication=no # c\n\
            Match User !a,b* Address 10.0.0.0/8\nInclude d/b*\nHostKey 'q\"\\' \\\"\n\
            Match all\nAuthorizedKeysFile %h/a b\n";
        let mut random = Random::new();
        for _ in 0..3_000 {
            let files = vec![
                ("/main", random.damage(main.as_bytes())),
                ("/etc/ssh/d/b.conf", random.damage(main.as_bytes())),
                (
                    "/etc/ssh/d/c.conf",
                    random.damage(b"Include ../*/*/c.conf\n"),
                ),
            ];
            let mut count = 0;
            read(
                &Memory(files.into_iter().collect()),
                "/main",
                Some("bob"),
                &mut |setting| count += setting.words().len() + setting.path.len(),
            );
            assert!(count < 100_000, "{count}");
        }
    }
}
