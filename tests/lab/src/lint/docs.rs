//! What the pages for people say of files and of commands, held against these.
//!
//! Not a reader of prose. Relative links lead to a file, and to a heading in it; what stands in code as
//! a command line of `cargo lab`, `preroot` or the packer, or as `preroot.NAME=`, is in the help that the
//! program prints, and each promise of `cargo lab vm` is one; a link leads to each page of `docs/`. Code is what Markdown takes for it: between
//! backticks, between fences, or four blanks in behind an empty line. The helps are read from the
//! sources, as nothing is run here.

use core::fmt;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::each_file;
use crate::fault::Fault;
use crate::fetch::{Lab, list};
use crate::progress;

/// Where the helps stand: of `preroot`, of the packer, and one file for each verb of `cargo lab`.
const PREROOT: &str = "src/command/help.rs";
const PACKER: &str = "initramfs/src/main.rs";
const VERBS: &str = "tests/lab/src/command";
/// Where the promises of `cargo lab vm` have their names.
const PROMISES: &str = "tests/lab/src/vm.rs";

/// Reads all pages; what is wrong with them is shown, and the first of it is the fault.
pub(super) fn check(lab: &Lab) -> Result<(), Fault> {
    let pages = pages(lab.project(), lab.target())?;
    let helps = Helps::read(lab.project())?;
    let flaws = look(&pages, &helps, &|path| lab.project().join(path).exists());
    for flaw in &flaws {
        progress::say(format_args!("  {flaw}"));
    }
    progress::say(format_args!("{} pages, {} flaws", pages.len(), flaws.len()));
    match flaws.into_iter().next() {
        None => Ok(()),
        Some(Flaw { page, line, what }) => Err(Fault::Content {
            path: page,
            why: format!("line {line}: {what}"),
        }),
    }
}

/// A page, from the top of the project.
struct Page {
    path: PathBuf,
    lines: Vec<Line>,
}

/// A line of a page: what is code in it, and the rest.
#[derive(Default)]
struct Line {
    prose: String,
    code: Vec<String>,
}

/// What is wrong with a page.
#[derive(Debug, PartialEq, Eq)]
struct Flaw {
    page: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.page.display(), self.line, self.what)
    }
}

/// Finds the pages of the project.
fn pages(project: &Path, target: &Path) -> Result<Vec<Page>, Fault> {
    let mut found = Vec::new();
    each_file(project, target, |path| {
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(path).map_err(Fault::file("read", path))?;
            let path = path.strip_prefix(project).unwrap_or(path).to_owned();
            found.push(Page::new(path, &text));
        }
        Ok(())
    })?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl Page {
    fn new(path: PathBuf, text: &str) -> Self {
        let (mut fenced, mut indented, mut after_nothing) = (false, false, true);
        let mut lines: Vec<Line> = Vec::new();
        // Whether the command goes on on the next line, and where it began.
        let mut open: Option<usize> = None;
        for (at, line) in text.lines().enumerate() {
            let words = line.trim();
            let fence = words.starts_with("```");
            indented = !fenced && line.starts_with("    ") && (indented || after_nothing);
            if fence {
                fenced = !fenced;
                lines.push(Line::default());
            } else if fenced || indented {
                let piece = words.trim_end_matches('\\');
                match open.and_then(|start| lines[start].code.first_mut()) {
                    Some(command) => {
                        command.push_str(piece);
                        lines.push(Line::default());
                    }
                    None => lines.push(Line {
                        prose: String::new(),
                        code: vec![piece.to_owned()],
                    }),
                }
                let start = open.unwrap_or(at);
                open = words.ends_with('\\').then_some(start);
            } else {
                open = None;
                lines.push(Line::of_text(line));
            }
            // An empty line ends no block, and one may begin behind it.
            after_nothing = words.is_empty();
            indented |= after_nothing && lines.last().is_some_and(|line| !line.code.is_empty());
        }
        Self { path, lines }
    }

    /// Gives the anchors that headings are, as GitHub makes them.
    fn anchors(&self) -> impl Iterator<Item = String> {
        self.lines.iter().filter_map(|line| {
            let heading = line.prose.strip_prefix('#')?.trim_start_matches('#');
            let words = heading.trim().chars().filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                c if c.is_alphanumeric() => c.to_lowercase().next(),
                _ => None,
            });
            Some(words.collect())
        })
    }

    /// Gives where the relative links lead, from the top of the project: page or file, and anchor.
    fn links(&self) -> impl Iterator<Item = (usize, &str, PathBuf, &str)> {
        let numbered = (1..).zip(&self.lines);
        let links = numbered.flat_map(|(number, line)| {
            let pieces = line.prose.split("](").skip(1);
            pieces.filter_map(move |piece| Some((number, piece.split_once(')')?.0)))
        });
        links
            .filter(|(_, link)| !link.contains(':'))
            .map(|(number, link)| {
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let from = self.path.parent().unwrap_or(Path::new(""));
                let to = match file {
                    "" => self.path.clone(),
                    file => plain(&from.join(file)),
                };
                (number, link, to, anchor)
            })
    }
}

impl Line {
    /// Takes a line of text apart: what is between backticks, and what is not.
    fn of_text(text: &str) -> Self {
        let mut line = Self::default();
        let pieces: Vec<_> = text.split('`').collect();
        // A last backtick without its partner is one.
        let whole = pieces.len() % 2 == 1;
        for (at, piece) in pieces.iter().enumerate() {
            if at % 2 == 0 || !whole && at + 1 == pieces.len() {
                line.prose.push_str(piece);
            } else {
                // In a table a bar stands behind a backslash. A heading has its code in its anchor.
                line.code.push(piece.replace("\\|", "|"));
                if text.starts_with('#') {
                    line.prose.push_str(piece);
                }
            }
        }
        line
    }
}

/// Takes `..` and `.` out of a path.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// What the programs say of themselves.
struct Helps {
    preroot: String,
    packer: String,
    verbs: BTreeMap<String, String>,
    promises: String,
}

impl Helps {
    fn read(project: &Path) -> Result<Self, Fault> {
        let read = |path: &Path| {
            let text = fs::read_to_string(path).map_err(Fault::file("read", path))?;
            help(&text).ok_or_else(|| Fault::Content {
                path: path.to_owned(),
                why: "there is no HELP in it".to_owned(),
            })
        };
        let mut verbs = BTreeMap::new();
        for path in list(&project.join(VERBS)) {
            let verb = path.file_stem().unwrap_or_default().to_string_lossy();
            if verb != "mod" && path.is_file() {
                verbs.insert(verb.into_owned(), read(&path)?);
            }
        }
        let promises = project.join(PROMISES);
        Ok(Self {
            preroot: read(&project.join(PREROOT))?,
            packer: read(&project.join(PACKER))?,
            verbs,
            promises: fs::read_to_string(&promises).map_err(Fault::file("read", &promises))?,
        })
    }

    /// Says what is wrong with a command line; nothing where it is another program's.
    fn flaw(&self, words: &[&str]) -> Option<String> {
        let words = &words[words.iter().take_while(|word| is_before(word)).count()..];
        let (program, help, rest) = match words {
            ["chroot", _, rest @ ..] => return self.flaw(rest),
            ["cargo", "lab", "vm", name, ..]
                if is_name(name) && !self.promises.contains(&format!("\"{name}\"")) =>
            {
                return Some(format!("there is no promise {name}"));
            }
            ["cargo", "lab", verb, rest @ ..] if is_name(verb) => match self.verbs.get(*verb) {
                Some(help) => (format!("cargo lab {verb}"), help, rest),
                None => return Some(format!("there is no `cargo lab {verb}`")),
            },
            ["cargo", "run", rest @ ..] if rest.contains(&"initramfs") => {
                let own = rest.iter().position(|word| *word == "--")?;
                ("initramfs".to_owned(), &self.packer, &rest[own + 1..])
            }
            [first, rest @ ..] if first.rsplit('/').next() == Some("preroot") => {
                if let Some(verb) = rest.first().filter(|verb| is_name(verb))
                    && !has(&self.preroot, "\n  ", verb)
                {
                    return Some(format!("there is no `preroot {verb}`"));
                }
                ("preroot".to_owned(), &self.preroot, rest)
            }
            _ => return None,
        };
        rest.iter()
            .map(|word| word.trim_matches(['[', ']']))
            .filter_map(|word| word.strip_prefix("--"))
            .map(|option| option.split('=').next().unwrap_or(option))
            .find(|option| !matches!(*option, "" | "help") && !has(help, "--", option))
            .map(|option| format!("`{program}` has no --{option}"))
    }

    /// Says which kernel argument of ours in a piece of code there is not.
    fn unknown_argument(&self, code: &str) -> Option<String> {
        let mut pieces = code.split("preroot.");
        let mut before = pieces.next()?;
        for piece in pieces {
            let name = piece.find(|c: char| !(c.is_ascii_lowercase() || "-.".contains(c)));
            let inside = before.ends_with(|c: char| c.is_alphanumeric() || "/-_".contains(c));
            if let Some(name) = name.map(|end| (&piece[..end], &piece[end..]))
                && !inside
                && name.1.starts_with('=')
                && !has(&self.preroot, "--", name.0)
                && !has(&self.preroot, "preroot.", name.0)
            {
                return Some(format!("there is no `preroot.{}=`", name.0));
            }
            before = piece;
        }
        None
    }
}

/// Finds the help in the source of a command.
fn help(source: &str) -> Option<String> {
    let (_, help) = source.split_once("HELP: &str = \"\\")?;
    let (help, _) = help.split_once("\n\";")?;
    Some(help.to_owned())
}

/// Tells whether a help has a word behind these characters.
fn has(help: &str, before: &str, word: &str) -> bool {
    let sought = format!("{before}{word}");
    help.match_indices(&sought).any(|(at, _)| {
        let after = help[at + sought.len()..].chars().next();
        after.is_none_or(|c| !(c.is_alphanumeric() || "-_.".contains(c)))
    })
}

/// Tells a word of a command from an option and from what stands for one (`VERB`).
fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Tells what may stand before a program: a prompt, `sudo`, variables.
fn is_before(word: &str) -> bool {
    matches!(word, "$" | "sudo" | "exec") || word.contains('=') && !word.starts_with('-')
}

/// Takes a line of a shell apart into its commands.
fn commands(code: &str) -> impl Iterator<Item = Vec<&str>> {
    let end = code.match_indices('#').map(|(at, _)| at).find(|&at| {
        let before = code[..at].chars().next_back();
        before.is_none_or(char::is_whitespace)
    });
    code[..end.unwrap_or(code.len())]
        .split(['|', ';', '&', '('])
        .map(|command| command.split_whitespace().collect())
}

/// Finds what is wrong with the pages.
fn look(pages: &[Page], helps: &Helps, exists: &dyn Fn(&Path) -> bool) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for page in pages {
        let mut tell = |line, what| {
            let page = page.path.clone();
            flaws.push(Flaw { page, line, what });
        };
        for (line, link, to, anchor) in page.links() {
            let linked = pages.iter().find(|page| page.path == to);
            if linked.is_none() && !exists(&to) {
                tell(line, format!("({link}) leads nowhere"));
            } else if !anchor.is_empty()
                && !linked.is_some_and(|page| page.anchors().any(|known| known == anchor))
            {
                tell(line, format!("({link}) leads to no heading"));
            }
        }
        for (number, line) in (1..).zip(&page.lines) {
            for code in &line.code {
                commands(code)
                    .filter_map(|words| helps.flaw(&words))
                    .chain(helps.unknown_argument(code))
                    .for_each(|what| tell(number, what));
            }
        }
        let is_linked = || {
            let others = pages.iter().filter(|other| other.path != page.path);
            let mut links = others.flat_map(Page::links);
            links.any(|(_, _, to, _)| to == page.path)
        };
        if page.path.starts_with("docs") && !is_linked() {
            tell(1, "no other page leads here".to_owned());
        }
    }
    flaws
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "\n  provision   all\n  report ready\n  --root DIR\n  --customdata.exec YES *\n\
                        kernel:\n  preroot.onfail=WHAT\n";

    fn helps() -> Helps {
        let verb = |name: &str, help: &str| (name.to_owned(), help.to_owned());
        Helps {
            preroot: HELP.to_owned(),
            packer: "  --modules DIR\n".to_owned(),
            verbs: [verb("boot", "--disc FILE\n"), verb("vm", "--list\n")].into(),
            promises: "(\"no_disc\", 1)".to_owned(),
        }
    }

    fn flaws(pages: &[(&str, &str)]) -> Vec<String> {
        let pages: Vec<_> = pages
            .iter()
            .map(|(path, text)| Page::new(PathBuf::from(path), text))
            .collect();
        look(&pages, &helps(), &|path| path == Path::new("src/there.rs"))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn said_of(text: &str) -> Vec<String> {
        flaws(&[("README.md", text)])
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let other = "# One\n\n## `preroot report`, and *more*\n";
        let ways = "[a](docs/a.md) [b](docs/a.md#one) [c](docs/a.md#preroot-report-and-more)\n\
                    [d](#top) [e](src/there.rs) [f](https://example.org/x.md#y) `[g](nowhere)`\n\
                    # Top\n";
        assert_eq!(flaws(&[("README.md", ways), ("docs/a.md", other)]), [""; 0]);
        let astray = "[a](docs/a.md)\n[b](docs/b.md)\n[c](docs/a.md#two) [d](#top)\n";
        assert_eq!(
            flaws(&[("README.md", astray), ("docs/a.md", other)]),
            [
                "README.md:2: (docs/b.md) leads nowhere",
                "README.md:3: (docs/a.md#two) leads to no heading",
                "README.md:3: (#top) leads to no heading",
            ]
        );
    }

    #[test]
    fn links_start_from_their_page() {
        let pages = [
            ("README.md", "[a](docs/deep/a.md)"),
            ("docs/deep/a.md", "[b](../b.md) [c](../../README.md)"),
            ("docs/b.md", "[a](./a.md)"),
        ];
        assert_eq!(flaws(&pages), ["docs/b.md:1: (./a.md) leads nowhere"]);
    }

    #[test]
    fn page_that_nobody_links_to_is_named() {
        let own = ("docs/a.md", "# A\n[self](a.md)\n");
        assert_eq!(
            flaws(&[("README.md", "no link"), own]),
            ["docs/a.md:1: no other page leads here"]
        );
        assert_eq!(flaws(&[("README.md", "[a](docs/a.md)"), own]), [""; 0]);
    }

    #[test]
    fn commands_and_options_are_those_of_the_help() {
        for good in [
            "`cargo lab boot --disc none`",
            "`cargo lab VERB --whatever` `cargo lab vm no_disc` `cargo lab vm NAME`",
            "    cargo lab vm --list | grep --word root   # preroot nonsense\n",
            "`preroot provision --root=/mnt`",
            "`/usr/bin/preroot report ready`",
            "`apt-get install preroot`",
            "`preroot.customdata.exec=yes preroot.onfail=shell preroot.NAME=VALUE`",
            "`/etc/preroot.conf` `systemctl status preroot.service --lines=3`",
            "preroot provisions; cargo lab nonsense is prose here",
            "`cargo run --release --package initramfs -- --modules DIR`",
            "text\n    preroot in the middle of a paragraph\n",
        ] {
            assert_eq!(said_of(good), [""; 0], "{good}");
        }
        for (bad, what) in [
            ("`cargo lab fly`", "there is no `cargo lab fly`"),
            ("`cargo lab vm disc`", "there is no promise disc"),
            ("`cargo lab boot --list`", "`cargo lab boot` has no --list"),
            ("`cargo lab boot [--lis]`", "`cargo lab boot` has no --lis"),
            ("`preroot generalize`", "there is no `preroot generalize`"),
            ("`preroot rep`", "there is no `preroot rep`"),
            ("`preroot provision --roo /`", "`preroot` has no --roo"),
            ("`sudo preroot fly`", "there is no `preroot fly`"),
            ("`chroot R preroot fly`", "there is no `preroot fly`"),
            ("`A=1 /x/preroot fly`", "there is no `preroot fly`"),
            (
                "`preroot.customdata=1`",
                "there is no `preroot.customdata=`",
            ),
            ("`ro preroot.nics=eth0`", "there is no `preroot.nics=`"),
            (
                "`cargo run --package initramfs -- --root X`",
                "`initramfs` has no --root",
            ),
        ] {
            assert_eq!(said_of(bad), [format!("README.md:1: {what}")], "{bad}");
        }
    }

    #[test]
    fn blocks_are_code_and_a_backslash_goes_on() {
        let fenced = "```\ncargo lab boot \\\n    --list\n```\n`preroot fly`\n";
        assert_eq!(
            said_of(fenced),
            [
                "README.md:2: `cargo lab boot` has no --list",
                "README.md:5: there is no `preroot fly`",
            ]
        );
        let indented = "text:\n\n    preroot provision\n\n    preroot fly\n\ntext\n";
        assert_eq!(
            said_of(indented),
            ["README.md:5: there is no `preroot fly`"]
        );
    }

    #[test]
    fn helps_of_the_sources_are_found() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let helps = Helps::read(&project).unwrap();
        assert!(has(&helps.preroot, "\n  ", "provision") && has(&helps.preroot, "--", "wait-root"));
        assert!(has(&helps.packer, "--", "modules"));
        assert!(has(&helps.verbs["boot"], "--", "scenario") && !helps.verbs.contains_key("mod"));
        assert!(helps.promises.contains("\"no_disc\""));
        assert_eq!(help("const HELP: String"), None);
    }
}
