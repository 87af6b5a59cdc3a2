//! The checks that read the code and run none of it.
//!
//! Format, clippy with every warning an error (the workspace on the host, the product on both of
//! its targets), documentation, the fence around `unsafe`, shellcheck for every shell file, manual pages
//! and completions against the program's help, and the pages for people against the files and the helps
//! that they speak of.

mod docs;
mod fence;
mod manual;
mod shell;

use std::path::Path;

use crate::arch::Arch;
use crate::cargo;
use crate::fault::Fault;
use crate::fetch::{Lab, list};
use crate::progress;

pub use fence::{Fence, Finding};

/// One check.
pub struct Check {
    /// The word for it.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    run: fn(&Lab) -> Result<(), Fault>,
}

/// Every check, the cheapest first.
pub static CHECKS: &[Check] = &[
    Check {
        name: "fmt",
        about: "the format is rustfmt's",
        run: format,
    },
    Check {
        name: "unsafe",
        about: "`unsafe` stands in src/linux and src/main.rs only; says how often",
        run: unsafe_code,
    },
    Check {
        name: "shell",
        about: "shellcheck finds nothing in the shell files",
        run: shell::check,
    },
    Check {
        name: "manual",
        about: "man pages and completions have what the help has; mandoc finds nothing",
        run: manual::check,
    },
    Check {
        name: "pages",
        about: "links, commands and options in the pages for people are there",
        run: docs::check,
    },
    Check {
        name: "clippy",
        about: "no warning in the workspace on this machine, nor in the product on its targets",
        run: clippy,
    },
    Check {
        name: "doc",
        about: "no warning in the documentation, private items included",
        run: documentation,
    },
];

impl Check {
    /// Runs the check; what it finds is a fault.
    pub fn run(&self, lab: &Lab) -> Result<(), Fault> {
        (self.run)(lab)
    }
}

/// Shows every file of the project, but for what is built and what is hidden; `.ci` is not.
fn each_file(
    project: &Path,
    target: &Path,
    mut visit: impl FnMut(&Path) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut directories = vec![project.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in list(&directory) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // A link leads to what is found elsewhere, or out of the project.
            if path.is_symlink() || path == target || path == project.join("target") {
                continue;
            }
            if !path.is_dir() {
                visit(&path)?;
            } else if !name.starts_with('.') || name == ".ci" {
                directories.push(path);
            }
        }
    }
    Ok(())
}

/// Compares with the format that rustfmt would give.
fn format(lab: &Lab) -> Result<(), Fault> {
    let mut command = cargo::command(lab, "fmt");
    command.args(["--all", "--check"]);
    cargo::run(&mut command, "cargo fmt --all --check")
}

/// Runs clippy for this machine, then for each target of the product.
fn clippy(lab: &Lab) -> Result<(), Fault> {
    let mut command = cargo::command(lab, "clippy");
    command.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    cargo::run(&mut command, "cargo clippy --workspace --all-targets")?;
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let target = arch.traits().target;
        let mut command = cargo::command(lab, "clippy");
        command.args(["--package", "preroot", "--lib", "--bin", "preroot"]);
        command.args(["--target", target, "--", "-D", "warnings"]);
        cargo::run(
            &mut command,
            &format!("cargo clippy --package preroot --target {target}"),
        )?;
    }
    Ok(())
}

/// Builds the documentation of every package.
///
/// Where a program carries the name of its library, cargo documents the library only.
fn documentation(lab: &Lab) -> Result<(), Fault> {
    let mut command = cargo::command(lab, "doc");
    command
        .args(["--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    cargo::run(
        &mut command,
        "cargo doc --no-deps --document-private-items, warnings denied",
    )
}

/// Counts `unsafe` and sees that it stays where it belongs.
fn unsafe_code(lab: &Lab) -> Result<(), Fault> {
    let fence = Fence::look(lab.project())?;
    for finding in &fence.inside {
        progress::say(format_args!("  {finding}"));
    }
    progress::say(format_args!(
        "unsafe: {} times in src/linux and src/main.rs, {} outside",
        fence
            .inside
            .iter()
            .map(|finding| finding.lines.len())
            .sum::<usize>(),
        fence
            .outside
            .iter()
            .map(|finding| finding.lines.len())
            .sum::<usize>(),
    ));
    match fence.outside.first() {
        None => Ok(()),
        Some(finding) => Err(Fault::Content {
            path: finding.file.clone(),
            why: format!(
                "`unsafe` in line {}: it may stand in src/linux and src/main.rs only",
                finding.lines.first().copied().unwrap_or_default()
            ),
        }),
    }
}
