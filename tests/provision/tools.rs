//! Programs of others that tests compare with or talk to.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::namespace::is_strict;

/// Starts the command line of a program, or says why the test that needs it is skipped.
pub(crate) fn tool(name: &str, package: &str) -> Option<Command> {
    let found = find(name);
    if found.is_none() {
        let missing = format!(
            "{name} is not in PATH nor below PREROOT_TOOLS; the package that has it is {package}"
        );
        assert!(!is_strict(), "{missing}");
        println!("skipped: {missing}");
    }
    found
}

/// Finds a program below `PREROOT_TOOLS`, which may be a tree of unpacked packages, or in `PATH`.
pub(crate) fn find(name: &str) -> Option<Command> {
    if let Some(tree) = env::var_os("PREROOT_TOOLS").map(PathBuf::from) {
        let places = ["", "bin", "sbin", "usr/bin", "usr/sbin"];
        let file = places.iter().map(|place| tree.join(place).join(name));
        if let Some(program) = file.into_iter().find(|path| path.is_file()) {
            let mut command = Command::new(program);
            command.env("LD_LIBRARY_PATH", libraries(&tree));
            return Some(command);
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    // Administrators' programs are not in everybody's PATH.
    let administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(administrators)
        .map(|place| place.join(name))
        .find(|path| path.is_file())
        .map(Command::new)
}

/// The directories of a tree that have libraries, as `LD_LIBRARY_PATH` wants them.
fn libraries(tree: &Path) -> std::ffi::OsString {
    let mut found = Vec::new();
    for usual in ["usr/lib", "lib"].map(|usual| tree.join(usual)) {
        // One level down: `usr/lib/x86_64-linux-gnu`.
        let below = fs::read_dir(&usual).into_iter().flatten().flatten();
        found.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
        found.push(usual);
    }
    env::join_paths(found).unwrap()
}
