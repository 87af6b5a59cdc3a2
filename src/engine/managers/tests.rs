//! Roots as lists of files, laid out on the disk and looked at as real ones are.

use super::*;
use crate::linux::root::Root;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

const CASES: &str = include_str!("../../../tests/data/managers/cases.txt");

/// A root on the disk, which goes when it is dropped.
pub(crate) struct Laid(PathBuf);

impl Laid {
    /// Lays out a list: `PATH` is an empty file, `PATH/` a directory, `PATH: TEXT` a file with that text,
    /// in which `|` ends a line, and `PATH -> TARGET` a link.
    pub(crate) fn out(list: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = std::format!("preroot-laid-{}-{number}", process::id());
        let laid = Self(std::env::temp_dir().join(name));
        fs::create_dir(&laid.0).unwrap();
        for line in list.lines() {
            let at = |path: &str| {
                let path = laid.0.join(path.strip_prefix('/').unwrap());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                path
            };
            if let Some((path, target)) = line.split_once(" -> ") {
                std::os::unix::fs::symlink(target, at(path)).unwrap();
            } else if let Some((path, text)) = line.split_once(": ") {
                fs::write(at(path), text.replace('|', "\n")).unwrap();
            } else if let Some(path) = line.strip_suffix('/') {
                fs::create_dir_all(at(path)).unwrap();
            } else {
                fs::write(at(line), "").unwrap();
            }
        }
        laid
    }

    /// Opens it.
    pub(crate) fn root(&self) -> Root {
        Root::open_unowned(self.0.to_str().unwrap()).unwrap()
    }

    /// Where it is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }
}

impl Drop for Laid {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn managers_of_all_kinds_of_roots_are_found() {
    let mut found = BTreeSet::new();
    let mut count = 0;
    for case in CASES.split("\n\n").filter(|case| !case.trim().is_empty()) {
        let mut lines = case.lines().filter(|line| !line.starts_with('#'));
        let Some(expected) = lines.next() else {
            continue;
        };
        let expected = expected.strip_prefix("= ").expect(case);
        let list: std::vec::Vec<_> = lines.collect();
        let laid = Laid::out(&list.join("\n"));
        assert_eq!(find(&laid.root()).unwrap_or("nobody"), expected, "{case}");
        found.insert(expected);
        count += 1;
    }
    assert!(count >= 40, "{count} cases");
    // Each that can be found is found in one of them.
    for (who, ..) in &SERVICES {
        assert!(found.contains(who), "no case has {who}");
    }
}

#[test]
fn resolved_counts_where_systemd_starts_it() {
    const LINK: &str =
        "/etc/systemd/system/sysinit.target.wants/systemd-resolved.service -> /usr/lib/systemd/x";
    assert!(has_resolved(&Laid::out(LINK).root()));
    assert!(!has_resolved(
        &Laid::out("/usr/lib/systemd/system/systemd-resolved.service").root()
    ));
    let masked = [
        LINK,
        "/etc/systemd/system/systemd-resolved.service -> /dev/null",
    ]
    .join("\n");
    assert!(!has_resolved(&Laid::out(&masked).root()));
}

#[test]
fn each_service_is_listed_once() {
    let names = || SERVICES.iter().flat_map(|(.., names)| names.split(' '));
    assert_eq!(names().collect::<BTreeSet<_>>().len(), names().count());
}
