//! The tests that `cargo test` runs: on this machine, and the library's on the other processor.
//!
//! Nothing may be skipped here: what a test needs is fetched first, and a test that would pass over a
//! program that is missing fails instead. What cannot be had on this machine at all is named.

use std::env;
use std::ffi::OsString;

use crate::arch::Arch;
use crate::cargo;
use crate::debian::{self, Flavour};
use crate::fault::Fault;
use crate::fetch::{Lab, Tool};
use crate::progress;
use crate::toolbox;

/// The first QEMU whose emulation of single programs knows the system call openat2.
const OPENAT2_SINCE: (u32, u32) = (9, 2);

/// The tests of what stands on openat2: every path below a root.
const OPENAT2_TESTS: [&str; 4] = [
    "engine::managers::tests::",
    "engine::plan::resolver::tests::",
    "linux::root::",
    "linux::mount::switch::tests::init_is_found_through_links",
];

/// The tests that damage good input thousands of times: slow in an emulator, and what they look for is the
/// same on every processor.
const MUTATIONS: [&str; 2] = ["panic", "mutated"];

/// By what the tests are told how many of them run side by side.
const THREADS: &str = "RUST_TEST_THREADS";

/// Runs every test of the workspace on this machine.
pub fn on_host(lab: &Lab) -> Result<(), Fault> {
    let tools = toolbox::fill(lab, &toolbox::PROGRAMS)?;
    let systems = Flavour::ALL
        .iter()
        .try_for_each(|&flavour| debian::archive(lab, flavour).map(drop));
    let mut command = cargo::command(lab, "test");
    command
        .args(["--workspace", "--no-fail-fast"])
        .env("PATH", path_with(tools))
        .env("PREROOT_STRICT", "1");
    if env::var_os(THREADS).is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // Those that take long wait for a lease to end, or for a budget.
        command.env(THREADS, (processors * 2).to_string());
    }
    if let Err(fault) = systems {
        debian::leave_out(fault, "the tests in an installed Debian")?;
        command.env("PREROOT_WITHOUT_DEBIAN", "1");
    }
    cargo::run(&mut command, "cargo test --workspace")
}

/// Runs the library's tests as built for the other processor, in an emulator of one program.
///
/// An older emulator lacks a system call; the tests that need it are named and left out. That code
/// runs on the other processor all the same when a whole machine boots.
pub fn on_other(lab: &Lab) -> Result<(), Fault> {
    let other = match Arch::host() {
        Some(Arch::Aarch64) => Arch::X86_64,
        _ => Arch::Aarch64,
    };
    let traits = other.traits();
    let emulator = lab.tool(traits.user)?;
    let target = traits.target;
    let mut command = cargo::command(lab, "test");
    command
        .args(["--package", "preroot", "--lib", "--target", target])
        .env(runner(target), emulator.program())
        .env("PREROOT_STRICT", "1");
    let mut left_out = MUTATIONS.to_vec();
    progress::say(format_args!(
        "left out, as they damage input in the same way everywhere: {}",
        MUTATIONS.join(", ")
    ));
    if version(&emulator)? < OPENAT2_SINCE {
        let (major, minor) = OPENAT2_SINCE;
        progress::say(format_args!(
            "left out, as {} before {major}.{minor} has no openat2: {}",
            traits.user,
            OPENAT2_TESTS.join(", ")
        ));
        left_out.extend(OPENAT2_TESTS);
    }
    command.arg("--");
    for name in left_out {
        command.args(["--skip", name]);
    }
    cargo::run(
        &mut command,
        &format!(
            "cargo test --package preroot --lib --target {target}, in {}",
            traits.user
        ),
    )
}

/// Asks an emulator for its version.
fn version(emulator: &Tool) -> Result<(u32, u32), Fault> {
    let said = progress::run(emulator.command().arg("--version"))?;
    parse_version(&said).ok_or_else(|| Fault::Content {
        path: emulator.program().to_owned(),
        why: format!("its version cannot be told from `{}`", said.trim()),
    })
}

/// Reads `qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.split_once(" version ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Puts a directory ahead of all others on `PATH`.
fn path_with(first: std::path::PathBuf) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first).chain(env::split_paths(&path));
    env::join_paths(all).unwrap_or(path)
}

/// Names the variable by which cargo is told how to run programs of a target.
fn runner(target: &str) -> String {
    let target = target.replace('-', "_").to_uppercase();
    format!("CARGO_TARGET_{target}_RUNNER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_is_as_cargo_documents_it() {
        assert_eq!(
            runner("aarch64-unknown-linux-musl"),
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER"
        );
    }

    #[test]
    fn version_is_read_as_qemu_says_it() {
        let debian = "qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright";
        assert_eq!(parse_version(debian), Some((7, 2)));
        assert_eq!(
            parse_version("qemu-aarch64 version 10.0.2\n"),
            Some((10, 0))
        );
        assert_eq!(parse_version("qemu-aarch64"), None);
        assert!((7, 2) < OPENAT2_SINCE && OPENAT2_SINCE < (10, 0));
    }

    #[test]
    fn directory_of_ours_comes_first() {
        let path = path_with("/ours".into());
        assert_eq!(env::split_paths(&path).next(), Some("/ours".into()));
        assert!(env::split_paths(&path).count() > 1);
    }
}
