//! What is written of the program's commands and options, held against its own help.
//!
//! The manual pages, the example of its settings and the completions have each option that the help has
//! and no other, and the pages are free of what mandoc complains of. That the completions work is shown
//! by running them; whether the pages are right is for people to say.

use std::collections::BTreeSet;
use std::path::Path;

use crate::fault::Fault;
use crate::fetch::{Lab, list};
use crate::progress;

/// Where the program's help is.
const HELP: &str = "src/command/help.rs";

/// The pages.
const COMMANDS_PAGE: &str = "package/man/preroot.8";
const SETTINGS_PAGE: &str = "package/man/preroot.conf.5";

/// The headings under which the second page has the settings that a root may have, and the others.
const ANYWHERE: &str = ".Ss In the root or in the initramfs";
const INITRAMFS_ONLY: &str = ".Ss In the initramfs only";

/// What mandoc says of the machine that it runs on, and not of the page.
const OF_THE_MACHINE: [&str; 2] = ["referenced manual not found", "outdated mandoc.db"];

type Names = BTreeSet<String>;

/// Compares the names, then has mandoc read the pages.
pub(super) fn check(lab: &Lab) -> Result<(), Fault> {
    let read = |path: &str| text(lab, path);
    let help = Help::parse(&read(HELP)?);
    let settings = read(SETTINGS_PAGE)?;
    let (anywhere, only) = settings.split_once(INITRAMFS_ONLY).unwrap_or_default();
    let (_, anywhere) = anywhere.split_once(ANYWHERE).unwrap_or_default();
    let example = read("package/preroot.conf")?;
    let (page, bash) = (read(COMMANDS_PAGE)?, "package/completions/preroot.bash");
    let (zsh, fish) = (
        "package/completions/_preroot",
        "package/completions/preroot.fish",
    );
    for (path, found, expected) in [
        (COMMANDS_PAGE, behind(&page, &["Fl \\-"]), &help.options),
        (COMMANDS_PAGE, entries(&page), &help.commands),
        (COMMANDS_PAGE, kernel(&page), &help.kernel),
        (
            SETTINGS_PAGE,
            behind(anywhere, &[".It Ic "]),
            &help.anywhere,
        ),
        (SETTINGS_PAGE, behind(only, &[".It Ic "]), &help.only),
        (
            "package/preroot.conf",
            behind(&example, &["\n#"]),
            &help.settings(),
        ),
        (bash, behind(&read(bash)?, &["--"]), &help.options),
        (zsh, behind(&read(zsh)?, &["--"]), &help.options),
        (fish, behind(&read(fish)?, &[" -l "]), &help.options),
    ] {
        same(&found, expected).map_err(|why| Fault::Content {
            path: lab.project().join(path),
            why,
        })?;
    }
    pages(lab)
}

fn text(lab: &Lab, path: &str) -> Result<String, Fault> {
    let path = lab.project().join(path);
    std::fs::read_to_string(&path).map_err(Fault::file("read", &path))
}

/// The names that the help has.
struct Help {
    commands: Names,
    options: Names,
    /// The options that are settings, too: those that a root may have, and the others.
    anywhere: Names,
    only: Names,
    /// The kernel arguments that are no options, and the names of those.
    kernel: Names,
}

impl Help {
    /// Takes them out of the source, whose text is the help as it is printed.
    fn parse(source: &str) -> Self {
        let (_, help) = source.split_once("HELP: &str = \"\\\n").unwrap_or_default();
        let (help, _) = help.split_once("\";").unwrap_or_default();
        let (commands, rest) = help.split_once("options of provision").unwrap_or_default();
        let (options, _) = rest.split_once("kernel arguments").unwrap_or_default();
        let mut found = Self {
            commands: commands
                .lines()
                .filter_map(|line| line.strip_prefix("  "))
                .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
                .map(word)
                .collect(),
            options: behind(help, &["--"]),
            anywhere: Names::new(),
            only: Names::new(),
            kernel: kernel(help),
        };
        for line in options.lines() {
            if let Some(rest) = line.strip_prefix("  --") {
                let is_anywhere = rest.contains(" * ") || rest.ends_with(" *");
                let names = if is_anywhere {
                    &mut found.anywhere
                } else {
                    &mut found.only
                };
                names.insert(word(rest));
            }
        }
        // What is for `init` alone has no place among the options.
        let alone = found
            .kernel
            .iter()
            .filter_map(|name| name.strip_prefix("preroot."));
        found.only.extend(alone.map(str::to_owned));
        found
    }

    fn settings(&self) -> Names {
        self.anywhere.union(&self.only).cloned().collect()
    }
}

/// Takes the word that a text begins with.
fn word(text: &str) -> String {
    let is_in = |c: char| c.is_ascii_lowercase() || c == '-' || c == '.';
    let end = text.find(|c| !is_in(c)).unwrap_or(text.len());
    text[..end].trim_end_matches(['.', '-']).to_owned()
}

/// Lists the words behind any of these.
fn behind(text: &str, marks: &[&str]) -> Names {
    marks
        .iter()
        .flat_map(|mark| text.split(mark).skip(1))
        .map(word)
        .filter(|name| !name.is_empty())
        .collect()
}

/// Lists the commands that the page has an entry for.
fn entries(page: &str) -> Names {
    let (_, commands) = page.split_once(".Sh COMMANDS").unwrap_or_default();
    let (commands, _) = commands.split_once("\n.Sh ").unwrap_or_default();
    behind(commands, &["\n.It Cm "])
}

/// Lists the arguments of the kernel's that are no options: `preroot`, `preroot.onfail`.
fn kernel(text: &str) -> Names {
    text.split(|c: char| c.is_whitespace())
        .filter_map(|word| word.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| *name == "preroot" || name.starts_with("preroot."))
        .filter(|name| !name.contains("NAME"))
        .map(str::to_owned)
        .collect()
}

/// Names what is in one of both only.
fn same(found: &Names, expected: &Names) -> Result<(), String> {
    if let Some(name) = expected.difference(found).next() {
        return Err(format!("`{name}` of the program's help is not in it"));
    }
    match found.difference(expected).next() {
        Some(name) => Err(format!("the program's help has no `{name}`")),
        None if found.is_empty() => Err("no names are found in it".to_owned()),
        None => Ok(()),
    }
}

/// Has mandoc read the pages.
fn pages(lab: &Lab) -> Result<(), Fault> {
    let mandoc = lab.tool("mandoc")?;
    for page in list(&lab.project().join("package/man")) {
        let output = mandoc
            .command()
            .args(["-T", "lint", "-W", "style"])
            .arg(&page)
            .output()
            .map_err(Fault::file("run", mandoc.program()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        complaints(&page, &said)?;
    }
    progress::say(format_args!(
        "manual pages and completions have what the help has"
    ));
    Ok(())
}

fn complaints(page: &Path, said: &str) -> Result<(), Fault> {
    let mut lines = said.lines();
    match lines.find(|line| !OF_THE_MACHINE.iter().any(|words| line.contains(words))) {
        None => Ok(()),
        Some(line) => Err(Fault::Content {
            path: page.to_owned(),
            why: line.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "const HELP: &str = \"\\\nusage: x COMMAND\n\ncommands:\n  go          all\n\
        \x20             of it; --now\n  see\n  --help\n\noptions of provision:\n  --one DIR   a\n\
        \x20 --two.b WHAT * b\n  --three X *\n            see --one\n\nkernel arguments of their own:\n\
        \x20 preroot=off  x\n  preroot.fail=WHAT   y\n\";\n";

    fn names(words: &[&str]) -> Names {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn help_gives_its_names() {
        let help = Help::parse(SOURCE);
        assert_eq!(help.commands, names(&["go", "see"]));
        let all = ["now", "help", "one", "two.b", "three"];
        assert_eq!(help.options, names(&all));
        assert_eq!(help.anywhere, names(&["two.b", "three"]));
        assert_eq!(help.only, names(&["one", "fail"]));
        assert_eq!(help.kernel, names(&["preroot", "preroot.fail"]));
    }

    #[test]
    fn own_help_has_what_everybody_knows() {
        let lab = Lab::open().unwrap();
        let help = Help::parse(&text(&lab, HELP).unwrap());
        assert!(
            help.commands
                .is_superset(&names(&["provision", "report", "status"]))
        );
        assert!(help.anywhere.contains("customdata.exec") && help.only.contains("vm-id"));
        assert!(
            help.options
                .is_superset(&names(&["json", "reason", "version", "dry-run"]))
        );
    }

    #[test]
    fn difference_is_named_in_both_directions() {
        let (one, two) = (names(&["a"]), names(&["a", "b"]));
        assert!(same(&one, &two).unwrap_err().contains("`b`"));
        assert!(same(&two, &one).unwrap_err().contains("no `b`"));
        assert!(same(&Names::new(), &Names::new()).is_err());
        same(&two, &two).unwrap();
    }

    #[test]
    fn complaint_of_the_page_is_told_from_one_of_the_machine() {
        let page = Path::new("x.8");
        complaints(
            page,
            "x.8:1:1: STYLE: referenced manual not found: Xr y 8\n",
        )
        .unwrap();
        complaints(page, "x.8:1:1: WARNING: skipping paragraph macro\n").unwrap_err();
    }
}
