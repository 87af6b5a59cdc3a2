//! Whose code is in the program, and by which licence: Debian's `copyright` against what cargo links.
//!
//! The file is written by people, because who holds a copyright stands in no field. Held against it are
//! the names and licences of the crates, as cargo tells them for both processors: a new crate, another
//! licence, or a crate that is no more is a fault, which says what to write. Its form is that of
//! <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>.

use std::collections::{BTreeMap, BTreeSet};

use crate::arch::Arch;
use crate::cargo;
use crate::fault::Fault;
use crate::fetch::Lab;
use crate::progress;

use super::{ours, text};

/// Where the file has the crates.
const CRATES: &str = "vendor/";

/// Licences, each by its name, of which one may choose.
type Choice = BTreeSet<String>;

/// Sees that the file tells the licence of every crate that is linked, and that it has each one's text.
pub(super) fn check(lab: &Lab) -> Result<(), Fault> {
    let path = ours(lab).join("copyright");
    let file = text(&path)?;
    compare(&linked(lab)?, &file).map_err(|why| Fault::Content { path, why })
}

/// Asks cargo what is linked into the program, on either processor.
fn linked(lab: &Lab) -> Result<BTreeMap<String, Choice>, Fault> {
    let mut command = cargo::command(lab, "tree");
    command.args(["--package", "preroot", "--edges", "normal", "--locked"]);
    command.args(["--prefix", "none", "--format", "{p}|{l}"]);
    for arch in [Arch::X86_64, Arch::Aarch64] {
        command.args(["--target", arch.traits().target]);
    }
    Ok(parse_tree(&progress::run(&mut command)?))
}

/// Reads `NAME vVERSION|LICENCE` lines; the program itself is none of its parts.
fn parse_tree(text: &str) -> BTreeMap<String, Choice> {
    text.lines()
        .filter_map(|line| {
            let (package, licence) = line.split_once('|')?;
            let name = package.split(' ').next()?;
            // Repeated lines end in ` (*)`.
            Some((name.to_owned(), choice(licence.trim_end_matches(" (*)"))))
        })
        .filter(|(name, _)| name != "preroot")
        .collect()
}

/// Takes `MIT OR Apache-2.0`, cargo's old `MIT/Apache-2.0`, and Debian's `MIT or Apache-2.0`.
fn choice(licence: &str) -> Choice {
    licence
        .to_lowercase()
        .replace('/', " or ")
        .replace("-exception", " exception")
        .split(" or ")
        .map(|name| name.trim().to_owned())
        .collect()
}

/// A paragraph: its fields with all their lines.
type Paragraph<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn paragraphs(file: &str) -> Vec<Paragraph<'_>> {
    let mut found: Vec<Paragraph<'_>> = Vec::new();
    for block in file.split("\n\n") {
        let mut paragraph = Paragraph::new();
        let mut field = "";
        for line in block.lines() {
            match line.split_once(':') {
                Some((name, value)) if !line.starts_with(' ') => {
                    field = name;
                    paragraph.insert(field, vec![value.trim()]);
                }
                _ => paragraph.entry(field).or_default().push(line.trim()),
            }
        }
        found.push(paragraph);
    }
    found
}

/// Says what is wrong with the file.
fn compare(linked: &BTreeMap<String, Choice>, file: &str) -> Result<(), String> {
    let (mut told, mut named, mut texts) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for paragraph in paragraphs(file) {
        let licence = paragraph.get("License").and_then(|lines| lines.first());
        let choice = licence.map(|licence| choice(licence)).unwrap_or_default();
        let Some(files) = paragraph.get("Files") else {
            texts.extend(choice);
            continue;
        };
        for name in &choice {
            named.extend(name.split(" and ").map(str::to_owned));
        }
        if paragraph.get("Copyright").is_none_or(Vec::is_empty) {
            return Err(format!("nobody holds the copyright of {}", files.join(" ")));
        }
        for name in files.iter().filter_map(|file| file.strip_prefix(CRATES)) {
            told.insert(name.trim_end_matches("/*").to_owned(), choice.clone());
        }
    }
    for (name, choice) in linked {
        let licence = choice.iter().map(String::as_str).collect::<Vec<_>>();
        let licence = licence.join(" or ");
        match told.get(name) {
            None => {
                return Err(format!(
                    "the crate {name} is linked and not told of: write a paragraph \
                     `Files: {CRATES}{name}/*` with its holders and `License: {licence}`"
                ));
            }
            Some(told) if told != choice => {
                return Err(format!("the crate {name} has the licence {licence}"));
            }
            Some(_) => {}
        }
    }
    if let Some(name) = told.keys().find(|name| !linked.contains_key(*name)) {
        return Err(format!("the crate {name} is not linked any more"));
    }
    if let Some(name) = named.difference(&texts).next() {
        return Err(format!("the text of the licence {name} is not there"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "Format: x\n\nFiles: *\nCopyright: us\nLicense: MIT or Apache-2.0\n\n\
        Files: vendor/a/*\n       vendor/b/*\nCopyright: them\nLicense: Apache-2.0 or MIT\n\n\
        License: MIT\n text: a\n .\n b\n\nLicense: Apache-2.0\n text\n";

    fn of(tree: &str) -> Result<(), String> {
        compare(&parse_tree(tree), FILE)
    }

    const TREE: &str = "preroot v0.1.0 (/somewhere)|MIT OR Apache-2.0\na v1.0.0|MIT OR Apache-2.0\n\
        b v0.1.0|MIT/Apache-2.0\na v1.0.0|MIT OR Apache-2.0 (*)\n";

    #[test]
    fn file_tells_of_what_cargo_links_today() {
        check(&Lab::open().unwrap()).unwrap();
    }

    #[test]
    fn order_and_spelling_of_a_choice_make_no_difference() {
        of(TREE).unwrap();
        let with = "Apache-2.0 WITH LLVM-exception OR MIT";
        assert_eq!(
            choice(with),
            choice("MIT or Apache-2.0 with LLVM exception")
        );
        assert_ne!(choice(with), choice("MIT or Apache-2.0"));
    }

    #[test]
    fn new_crate_is_noticed_with_what_to_write() {
        let said = of(&format!("{TREE}new v2.0.0|0BSD\n")).unwrap_err();
        assert!(
            said.contains("vendor/new/*") && said.contains("0bsd"),
            "{said}"
        );
    }

    #[test]
    fn crate_that_went_or_changed_its_licence_is_noticed() {
        let said = of("a v1.0.0|MIT OR Apache-2.0\n").unwrap_err();
        assert!(said.contains("crate b"), "{said}");
        let said = of(&TREE.replace("MIT/Apache-2.0", "GPL-3.0")).unwrap_err();
        assert!(said.contains("crate b") && said.contains("gpl"), "{said}");
    }

    #[test]
    fn licence_without_its_text_is_noticed() {
        let tree = parse_tree(TREE);
        let without = FILE.replace("License: MIT\n text: a", "Comment: x\n text: a");
        let said = compare(&tree, &without).unwrap_err();
        assert!(said.contains("mit"), "{said}");
    }
}
