//! Everything about every file of an ext4 image but when it was last read: content's place, size,
//! owner, mode, times.
//!
//! A file that was written anew, with the same content even, shows another inode, time or extent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::fault::Fault;
use crate::fetch::Lab;
use crate::progress;

/// The number of the root directory.
const ROOT: u32 = 2;

/// Lines that say when a file was last read, or follow from it.
const READ_ONLY: [&str; 2] = [" atime:", "Inode checksum:"];

/// How many differences are shown.
const SHOWN: usize = 20;

/// Each path with all that is known of it.
pub(super) type Snapshot = BTreeMap<String, String>;

/// Looks at every file of an image that nobody has mounted.
pub(super) fn take(lab: &Lab, image: &Path) -> Result<Snapshot, Fault> {
    let mut paths = vec![(String::from("/"), ROOT)];
    let mut level = paths.clone();
    while !level.is_empty() {
        let listed = ask(lab, image, "ls -p", &level)?;
        let mut below = Vec::new();
        for ((directory, _), listing) in level.iter().zip(&listed) {
            for entry in listing.lines().filter_map(parse_entry) {
                let path = format!("{directory}{}", entry.name);
                paths.push((path.clone(), entry.inode));
                if entry.is_directory {
                    below.push((format!("{path}/"), entry.inode));
                }
            }
        }
        level = below;
    }
    let known = ask(lab, image, "stat", &paths)?;
    Ok(paths
        .into_iter()
        .map(|(path, _)| path)
        .zip(known.iter().map(|text| without_reading(text)))
        .collect())
}

/// Asks `debugfs` the same about many inodes, and gives an answer for each.
fn ask(
    lab: &Lab,
    image: &Path,
    question: &str,
    inodes: &[(String, u32)],
) -> Result<Vec<String>, Fault> {
    let script = image.with_extension("questions");
    let mut text = String::new();
    for (_, inode) in inodes {
        let _ = writeln!(text, "{question} <{inode}>");
    }
    fs::write(&script, text).map_err(Fault::file("write", &script))?;
    let mut command = lab.tool("debugfs")?.command();
    let said = progress::run(command.arg("-f").arg(&script).arg(image));
    fs::remove_file(&script).map_err(Fault::file("remove", &script))?;
    let answers = answers(&said?);
    if answers.len() == inodes.len() {
        return Ok(answers);
    }
    Err(Fault::Content {
        path: image.to_owned(),
        why: format!(
            "debugfs gave {} answers to {} questions",
            answers.len(),
            inodes.len()
        ),
    })
}

/// Takes the answers apart: each question is repeated before its answer.
fn answers(said: &str) -> Vec<String> {
    let mut answers: Vec<String> = Vec::new();
    for line in said.lines() {
        if line.starts_with("debugfs: ") {
            answers.push(String::new());
        } else if let Some(answer) = answers.last_mut() {
            answer.push_str(line);
            answer.push('\n');
        }
    }
    answers
}

/// An entry of a directory.
struct Entry<'a> {
    inode: u32,
    is_directory: bool,
    name: &'a str,
}

/// Reads a line `/INODE/MODE/UID/GID/NAME/SIZE/`; `None` if it is no file's, or the directory itself.
fn parse_entry(line: &str) -> Option<Entry<'_>> {
    let mut fields = line.strip_prefix('/')?.split('/');
    let inode = fields.next()?.parse().ok()?;
    let mode = fields.next()?;
    let name = fields.nth(2)?;
    if inode == 0 || matches!(name, "." | "..") {
        return None;
    }
    Some(Entry {
        inode,
        is_directory: mode.starts_with("04"),
        name,
    })
}

/// Leaves out what reading changes.
fn without_reading(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !READ_ONLY.iter().any(|start| line.starts_with(start)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Names what is there in one and not, or not the same, in the other; empty if nothing is.
pub(super) fn differences(before: &Snapshot, after: &Snapshot) -> String {
    shown(changes(before, after))
}

/// Lists what is not the same: what became of it, and its path.
pub(super) fn changes<'a>(
    before: &'a Snapshot,
    after: &'a Snapshot,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    paths.into_iter().filter_map(|path| {
        let what = match (before.get(path), after.get(path)) {
            (Some(a), Some(b)) if a == b => return None,
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "gone",
            (None, _) => "new",
        };
        Some((what, path.as_str()))
    })
}

/// Shows changes, a line each, but not too many.
pub(super) fn shown<'a>(changes: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    let mut text = String::new();
    let mut count = 0;
    for (what, path) in changes {
        count += 1;
        if count <= SHOWN {
            let _ = writeln!(text, "{what} {path}");
        }
    }
    if count > SHOWN {
        let _ = writeln!(text, "and {} more", count - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "debugfs: ls -p <2>\n/2/040755/0/0/.//\n/2/040755/0/0/..//\n\
        /11/040700/0/0/lost+found//\n/13/120777/0/0/bin/7/\n/17/100644/0/42/a b/12/\n/0/000000/0/0//\n";

    #[test]
    fn listing_gives_names_and_tells_directories() {
        let answers = answers(LISTING);
        assert_eq!(answers.len(), 1);
        let entries: Vec<_> = answers[0]
            .lines()
            .filter_map(parse_entry)
            .map(|entry| (entry.inode, entry.is_directory, entry.name))
            .collect();
        assert_eq!(
            entries,
            [
                (11, true, "lost+found"),
                (13, false, "bin"),
                (17, false, "a b")
            ]
        );
    }

    #[test]
    fn time_of_reading_is_no_difference_and_any_other_is() {
        let stat = "Inode: 5\n ctime: 0x1\n atime: 0x2\n mtime: 0x3\nInode checksum: 0x4\nEXTENTS:\n(0):9\n";
        let take = |text: &str| Snapshot::from([("/x".to_owned(), without_reading(text))]);
        let before = take(stat);
        let read = take(
            &stat
                .replace("atime: 0x2", "atime: 0x9")
                .replace("0x4", "0x8"),
        );
        assert_eq!(differences(&before, &read), "");
        let written = take(&stat.replace("mtime: 0x3", "mtime: 0x9"));
        assert_eq!(differences(&before, &written), "changed /x\n");
        assert_eq!(differences(&before, &Snapshot::new()), "gone /x\n");
        assert_eq!(differences(&Snapshot::new(), &before), "new /x\n");
    }

    #[test]
    fn written_file_is_seen_in_an_image() {
        let lab = Lab::open().unwrap();
        let mke2fs = lab.tool("mke2fs").unwrap();
        let image = std::env::temp_dir().join(format!("lab-snapshot-{}", std::process::id()));
        let _ = fs::remove_file(&image);
        let mut command = mke2fs.command();
        command.args(["-q", "-t", "ext4"]).arg(&image).arg("2M");
        progress::run(&mut command).unwrap();
        let file = image.with_extension("file");
        fs::write(&file, "content").unwrap();
        crate::ext4::insert(&lab, &image, &file, "/file", 0o644).unwrap();
        let before = take(&lab, &image).unwrap();
        assert!(before["/file"].contains("Size: 7"), "{before:?}");
        assert_eq!(differences(&before, &take(&lab, &image).unwrap()), "");
        crate::ext4::insert(&lab, &image, &file, "/lost+found/more", 0o644).unwrap();
        let after = take(&lab, &image).unwrap();
        let changed = differences(&before, &after);
        assert!(changed.contains("new /lost+found/more"), "{changed}");
        fs::remove_file(&file).unwrap();
        fs::remove_file(&image).unwrap();
    }
}
