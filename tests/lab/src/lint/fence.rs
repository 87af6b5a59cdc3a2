//! The fence around `unsafe`: where the word stands in the product's code, and where it must not.
//!
//! Comments, strings and the names of lints do not count; every block, function, implementation and
//! attribute does. The compiler's `deny(unsafe_code)` can be lifted by one line anywhere, this cannot.

use core::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::fetch::list;

/// Where the word may stand, from the top of the project.
const INSIDE: [&str; 2] = ["src/linux", "src/main.rs"];

/// A file that holds the word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the top of the project.
    pub file: PathBuf,
    /// The lines, one for each time.
    pub lines: Vec<usize>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<28} {:>3}",
            self.file.display().to_string(),
            self.lines.len()
        )
    }
}

/// What was found on either side of the fence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    /// Where it may stand.
    pub inside: Vec<Finding>,
    /// Where it must not.
    pub outside: Vec<Finding>,
}

impl Fence {
    /// Reads the product's code.
    pub fn look(project: &Path) -> Result<Self, Fault> {
        let mut fence = Self::default();
        let mut directories = vec![project.join("src")];
        while let Some(directory) = directories.pop() {
            for path in list(&directory) {
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).map_err(Fault::file("read", &path))?;
                    let file = path.strip_prefix(project).unwrap_or(&path).to_owned();
                    fence.add(Finding {
                        file,
                        lines: unsafe_lines(&text),
                    });
                }
            }
        }
        fence.inside.sort_by(|a, b| a.file.cmp(&b.file));
        fence.outside.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(fence)
    }

    fn add(&mut self, finding: Finding) {
        if finding.lines.is_empty() {
            return;
        }
        if INSIDE.iter().any(|place| finding.file.starts_with(place)) {
            self.inside.push(finding);
        } else {
            self.outside.push(finding);
        }
    }
}

/// Finds the keyword in a source, and gives the line of each.
fn unsafe_lines(source: &str) -> Vec<usize> {
    let code = without_text(source);
    let mut lines = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let count = words.filter(|word| *word == "unsafe").count();
        lines.extend(std::iter::repeat_n(number + 1, count));
    }
    lines
}

/// Blanks out comments, strings and characters, and leaves the lines as they are.
fn without_text(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !ends_in_a_word(&code) => raw_string(rest).unwrap_or(0),
            '\'' => character(rest).unwrap_or(0),
            _ => 0,
        };
        if length == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let (text, after) = rest.split_at(length);
            code.extend(text.chars().filter(|&c| c == '\n'));
            // What stood on either side are still two words.
            code.push(' ');
            rest = after;
        }
    }
    code
}

fn ends_in_a_word(code: &str) -> bool {
    // `br"..."` is a raw string too, `for"` is not one.
    code.chars()
        .next_back()
        .is_some_and(|c| c != 'b' && (c.is_alphanumeric() || c == '_'))
}

/// Measures a block comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Measures a string with escapes.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Measures a raw string; `None` if it is none.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|&c| c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - body.len();
    Some(
        body.find(&end)
            .map_or(text.len(), |at| start + at + end.len()),
    )
}

/// Measures a character; `None` if it is a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        let (_, _escaped) = chars.next()?;
        return chars.find(|&(_, c)| c == '\'').map(|(at, _)| at + 1);
    }
    chars
        .next()
        .filter(|&(_, c)| c == '\'')
        .map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_keyword_counts() {
        let source = "#[unsafe(no_mangle)]\nunsafe extern \"C\" fn f() {}\n\
                      fn g() { unsafe { h() } unsafe { h() } }\nunsafe impl Send for X {}\n";
        assert_eq!(unsafe_lines(source), [1, 2, 3, 3, 4]);
    }

    #[test]
    fn comments_strings_and_other_words_do_not_count() {
        let source = "// unsafe { }\n/* unsafe /* unsafe */ unsafe */\n\"unsafe \\\" unsafe\";\n\
                      r#\"unsafe \" unsafe\"#; br\"unsafe\"; '\"'; b'\\'';\n#![deny(unsafe_code)]\n\
                      fn f<'a>(unsafety: &'a str) {}\n";
        assert!(unsafe_lines(source).is_empty());
    }

    #[test]
    fn what_follows_a_string_or_a_lifetime_is_still_read() {
        assert_eq!(
            unsafe_lines("'a': loop {}\nf('\\u{41}', \"x\"); unsafe {}"),
            [2]
        );
        assert_eq!(
            unsafe_lines("struct S<'a>(&'a u8);\nunsafe impl X for S<'_> {}"),
            [2]
        );
        assert_eq!(unsafe_lines("\"\n\n\";unsafe {}"), [3]);
    }

    #[test]
    fn only_the_two_places_are_inside() {
        let mut fence = Fence::default();
        for file in [
            "src/linux/sys.rs",
            "src/main.rs",
            "src/linux.rs",
            "src/wire/main.rs",
        ] {
            fence.add(Finding {
                file: file.into(),
                lines: vec![1],
            });
        }
        let outside: Vec<_> = fence
            .outside
            .iter()
            .map(|finding| finding.file.clone())
            .collect();
        assert_eq!(fence.inside.len(), 2);
        assert_eq!(
            outside,
            [Path::new("src/linux.rs"), Path::new("src/wire/main.rs")]
        );
    }
}
