//! The shell files of the project: which there are, in which shell's language, and shellcheck's word.
//!
//! A shell file is one that ends in `.sh` or `.bash`, or begins by naming a shell. The build directory and what
//! begins with a dot, but `.ci`, are not looked into.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::each_file;
use crate::fault::Fault;
use crate::fetch::Lab;
use crate::progress;

/// How much of a file is read to see its first line.
const FIRST_LINE: u64 = 128;

/// The shells that write themselves in another way than shellcheck does.
const SHELLS: [(&str, &str); 5] = [
    ("sh", "sh"),
    ("bash", "bash"),
    ("dash", "dash"),
    // Closest of those that shellcheck knows.
    ("ash", "dash"),
    ("ksh", "ksh"),
];

/// Runs shellcheck over all shell files.
pub(super) fn check(lab: &Lab) -> Result<(), Fault> {
    let files = files(lab.project(), lab.target())?;
    if files.is_empty() {
        progress::say(format_args!("no shell files"));
        return Ok(());
    }
    let shellcheck = lab.tool("shellcheck")?;
    for (shell, files) in files {
        progress::say(format_args!(
            "shellcheck of {} in the language of {shell}",
            count(files.len())
        ));
        let mut command = shellcheck.command();
        command
            .current_dir(lab.project())
            .args(["--color=never", "--external-sources"])
            .arg(format!("--shell={shell}"))
            .arg("--")
            .args(&files);
        progress::run(&mut command)?;
    }
    Ok(())
}

fn count(files: usize) -> String {
    if files == 1 {
        "one file".to_owned()
    } else {
        format!("{files} files")
    }
}

/// Finds the shell files, by their languages.
fn files(project: &Path, target: &Path) -> Result<BTreeMap<&'static str, Vec<PathBuf>>, Fault> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    each_file(project, target, |path| {
        if let Some(shell) = shell(path, &first_line(path)?) {
            let file = path.strip_prefix(project).unwrap_or(path).to_owned();
            found.entry(shell).or_default().push(file);
        }
        Ok(())
    })?;
    for files in found.values_mut() {
        files.sort();
    }
    Ok(found)
}

/// Reads the first line of a file, or its beginning.
fn first_line(path: &Path) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Fault::file("read", path))?;
    file.take(FIRST_LINE)
        .read_to_end(&mut bytes)
        .map_err(Fault::file("read", path))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Tells the language of a file by its first line, else by its name; `None` if it is no shell file.
fn shell(path: &Path, first_line: &str) -> Option<&'static str> {
    let named = first_line.strip_prefix("#!").and_then(|line| {
        // `#!/bin/sh`, `#!/usr/bin/env bash`, `#!/usr/bin/env -S sh -eu`, `#!/bin/busybox sh`
        line.split_whitespace()
            .filter_map(|word| word.rsplit('/').next())
            .find_map(|word| SHELLS.iter().find(|(shell, _)| *shell == word))
    });
    match named {
        Some((_, shell)) => Some(shell),
        None if first_line.starts_with("#!") => None,
        None => match path.extension()?.to_str()? {
            "sh" => Some("sh"),
            "bash" => Some("bash"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_is_that_of_the_first_line() {
        for (line, expected) in [
            ("#!/bin/sh", Some("sh")),
            ("#! /bin/bash -eu", Some("bash")),
            ("#!/usr/bin/env bash", Some("bash")),
            ("#!/usr/bin/ash", Some("dash")),
            ("#!/bin/busybox sh", Some("sh")),
            ("#!/usr/bin/python3", None),
            ("echo sh", None),
        ] {
            assert_eq!(shell(Path::new("run"), line), expected, "{line}");
        }
    }

    #[test]
    fn name_counts_where_no_line_names_a_shell() {
        assert_eq!(
            shell(Path::new("module-setup.sh"), "# called by dracut"),
            Some("sh")
        );
        assert_eq!(shell(Path::new("tool.sh"), "#!/usr/bin/python3"), None);
    }

    #[test]
    fn own_shell_files_are_found() {
        let lab = Lab::open().unwrap();
        let files = files(lab.project(), lab.target()).unwrap();
        assert!(
            files["sh"].contains(&PathBuf::from("tests/lab/data/init.sh")),
            "{files:?}"
        );
    }

    #[test]
    fn hooks_and_scripts_of_the_package_are_found() {
        let lab = Lab::open().unwrap();
        let files = files(lab.project(), lab.target()).unwrap();
        for (shell, path) in [
            ("bash", "dracut/55preroot/module-setup.sh"),
            ("bash", "mkinitcpio/install/preroot"),
            ("dash", "mkinitcpio/hooks/preroot"),
            ("sh", "initramfs/initramfs-tools/hooks/preroot"),
            ("bash", "package/completions/preroot.bash"),
            ("sh", "package/deb/postinst"),
            ("sh", "initramfs/initramfs-tools/scripts/panic/preroot"),
        ] {
            assert!(files[shell].contains(&PathBuf::from(path)), "{path}");
        }
    }
}
