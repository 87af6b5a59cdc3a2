//! The tests that `cargo test` runs: on this machine, and the library's on the other processor.
//!
//! Nothing may be skipped here: what a test needs is fetched first, and a test that would pass over a
//! program that is missing fails instead.

use std::env;
use std::ffi::OsString;

use crate::arch::Arch;
use crate::cargo;
use crate::fault::Fault;
use crate::fetch::Lab;
use crate::toolbox;

/// Runs every test of the workspace on this machine.
pub fn on_host(lab: &Lab) -> Result<(), Fault> {
    let tools = toolbox::fill(lab, &toolbox::PROGRAMS)?;
    let mut command = cargo::command(lab, "test");
    command
        .args(["--workspace", "--no-fail-fast"])
        .env("PATH", path_with(tools))
        .env("PREROOT_STRICT", "1");
    cargo::run(&mut command, "cargo test --workspace")
}

/// Runs the library's tests as built for the other processor, in an emulator of one program.
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
    cargo::run(
        &mut command,
        &format!(
            "cargo test --package preroot --lib --target {target}, in {}",
            traits.user
        ),
    )
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
    fn directory_of_ours_comes_first() {
        let path = path_with("/ours".into());
        assert_eq!(env::split_paths(&path).next(), Some("/ours".into()));
        assert!(env::split_paths(&path).count() > 1);
    }
}
