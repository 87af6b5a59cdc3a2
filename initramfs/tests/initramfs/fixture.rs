//! A module tree made of nothing but names, and the tools of others that check our work.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The kernel of the fixture.
pub(crate) const RELEASE: &str = "6.1.0-9-test";

/// Makes an empty directory of this name for one test.
pub(crate) fn scratch(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Makes `base/lib/modules/RELEASE` with these lines of `modules.dep`, and a file for each module.
pub(crate) fn tree(base: &Path, dependencies: &str) -> PathBuf {
    let directory = base.join("lib/modules").join(RELEASE);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("modules.dep"), dependencies).unwrap();
    for line in dependencies.lines() {
        let (path, _) = line.split_once(':').unwrap();
        let path = path
            .rsplit_once(&format!("{RELEASE}/"))
            .map_or(path, |(_, inside)| inside);
        let file = directory.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, module(path)).unwrap();
    }
    directory
}

/// Makes bytes that pass for an x86-64 kernel module.
pub(crate) fn module(name: &str) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(18, 0);
    bytes.extend_from_slice(&62_u16.to_le_bytes());
    bytes.resize(64, 0);
    bytes.extend_from_slice(format!("{name}\0vermagic={RELEASE} SMP\0").as_bytes());
    bytes
}

/// Makes a script that passes for preroot.
pub(crate) fn preroot(base: &Path) -> PathBuf {
    let path = base.join("preroot");
    fs::write(&path, "#!/bin/sh\n").unwrap();
    path
}

/// Finds a program on PATH; where everything must be checked, one that is missing is a failure.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|p| p.is_file());
    if found.is_none() {
        let strict = ["CI", "PREROOT_STRICT"]
            .iter()
            .any(|name| env::var_os(name).is_some());
        assert!(
            !strict,
            "{name} is not installed, and this test must not be skipped"
        );
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// Runs a program in a directory, fails with its words when it fails, and gives its output.
pub(crate) fn run(program: &Path, arguments: &[&str], directory: &Path) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} {arguments:?}: {said}",
        program.display()
    );
    output.stdout
}
