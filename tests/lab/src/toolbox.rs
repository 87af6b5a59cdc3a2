//! A directory of programs for tests that look for them on `PATH`.
//!
//! Each program that the system lacks is a small script there, which runs the private copy with its
//! private libraries: those must reach that program and nothing else, least of all cargo.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::fault::Fault;
use crate::fetch::{Lab, Tool, create_directory, remove_directory};

/// What the tests of this project compare with or talk to.
pub const PROGRAMS: [&str; 20] = [
    "blkid",
    "bsdcpio",
    "cpio",
    "dhcpcd",
    "dhcpd",
    "dnsmasq",
    "genisoimage",
    "gzip",
    "ip",
    "isoinfo",
    "mkudffs",
    "mount",
    "nsenter",
    "openssl",
    "ssh-keygen",
    "sshd",
    "udfinfo",
    "unshare",
    "xz",
    "zstd",
];

/// Fetches these programs and gives the directory that has all of them.
pub fn fill(lab: &Lab, programs: &[&str]) -> Result<PathBuf, Fault> {
    let directory = lab.directory().join("bin");
    // What the system has got since is taken from there.
    remove_directory(&directory)?;
    create_directory(&directory)?;
    for program in programs {
        let tool = lab.tool(program)?;
        let path = directory.join(program);
        fs::write(&path, script(&tool)).map_err(Fault::file("write", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))
            .map_err(Fault::file("make executable", &path))?;
    }
    Ok(directory)
}

/// Writes the script that runs a program with the environment that it needs.
///
/// The program may start others of this directory, as `unshare` does: what `PATH` is then stays, only
/// the program's own directories come first.
fn script(tool: &Tool) -> String {
    let command = tool.command();
    let ours = std::env::var_os("PATH").unwrap_or_default();
    let ours = ours.to_string_lossy();
    let mut text = "#!/bin/sh\n".to_owned();
    for (name, value) in command.get_envs() {
        let Some(value) = value else { continue };
        let value = value.to_string_lossy();
        let _ = match value.strip_suffix(&*ours) {
            Some(first) if name == "PATH" => {
                writeln!(text, "export PATH={}\"$PATH\"", quoted(first.as_ref()))
            }
            _ => writeln!(
                text,
                "export {}={}",
                name.display(),
                quoted(value.as_ref().as_ref())
            ),
        };
    }
    let _ = writeln!(text, "exec {} \"$@\"", quoted(command.get_program()));
    text
}

/// Quotes a word for the shell.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn word_with_everything_in_it_survives_the_shell() {
        let word = "a b'c\"d$e`f\\g";
        let said = progress::run(
            Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", quoted(word.as_ref()))),
        );
        assert_eq!(said.unwrap(), word);
    }

    #[test]
    fn script_runs_the_program_with_its_arguments() {
        let lab = Lab::open().unwrap();
        let path = std::env::temp_dir().join(format!("lab-toolbox-{}", std::process::id()));
        fs::write(&path, script(&lab.tool("gzip").unwrap())).unwrap();
        let said = progress::run(Command::new("sh").arg(&path).args(["--version"])).unwrap();
        assert!(said.starts_with("gzip"), "{said}");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn private_program_keeps_the_path_of_who_runs_it() {
        let tree = std::env::temp_dir().join(format!("lab-tree-{}", std::process::id()));
        let program = tree.join("usr/bin/sh");
        create_directory(&tree.join("usr/bin")).unwrap();
        symlink("/bin/sh", &program).unwrap();
        let path = tree.join("script");
        fs::write(&path, script(&Tool::private(program, &tree))).unwrap();
        let mut command = Command::new("/bin/sh");
        command.arg(&path).args(["-c", "echo \"$PATH\""]);
        command.env("PATH", "/of/the/caller");
        let said = progress::run(&mut command).unwrap();
        assert!(said.starts_with(&*tree.to_string_lossy()), "{said}");
        assert!(said.trim_end().ends_with(":/of/the/caller"), "{said}");
        remove_directory(&tree).unwrap();
    }

    #[test]
    fn every_program_can_be_fetched() {
        for program in PROGRAMS {
            assert!(
                crate::fetch::known_programs().any(|known| known == program),
                "{program}"
            );
        }
    }
}
