//! The product, built by cargo, and the initramfs around it, packed by the project's own tool.
//!
//! Both are run as programs: the lab does not depend on preroot, so that it cannot agree with it by
//! accident.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::Lab;
use crate::kernel::Kernel;
use crate::progress::{self, Step};

/// Builds the product for a machine.
pub fn build(lab: &Lab, arch: Arch) -> Result<PathBuf, Fault> {
    let target = arch.traits().target;
    let mut command = cargo(lab, "build");
    command.args(["--release", "--package", "preroot", "--target", target]);
    run(command, &format!("building preroot for {target}"))?;
    Ok(lab.target().join(target).join("release/preroot"))
}

/// Packs the product, and the modules that it needs of a kernel, into an initramfs.
///
/// `root_fs` names the only file systems that the root may have; `without` leaves modules out.
pub fn pack(
    lab: &Lab,
    preroot: &Path,
    kernel: &Kernel,
    root_fs: Option<&str>,
    without: &[String],
    output: &Path,
) -> Result<(), Fault> {
    let mut command = cargo(lab, "run");
    command
        .args(["--package", "initramfs", "--", "--preroot"])
        .arg(preroot);
    command
        .arg("--modules")
        .arg(&kernel.modules)
        .arg("--output")
        .arg(output);
    if let Some(names) = root_fs {
        command.args(["--root-fs", names]);
    }
    if !without.is_empty() {
        command.arg("--without").arg(without.join(","));
    }
    run(command, "packing the initramfs")
}

/// Starts a command line of cargo in the project, building into the same directory as the caller.
fn cargo(lab: &Lab, verb: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(lab.project())
        .arg(verb)
        .arg("--target-dir")
        .arg(lab.target());
    command
}

/// Runs cargo, whose own progress is shown as it comes.
fn run(mut command: Command, what: &str) -> Result<(), Fault> {
    if progress::is_quiet() {
        return progress::run(&mut command).map(|_| ());
    }
    let step = Step::begin(what);
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status();
    let status = status.map_err(Fault::file("run", Path::new("cargo")))?;
    if !status.success() {
        return Err(Fault::Program {
            command: what.to_owned(),
            ended: format!("failed ({status})"),
            said: String::new(),
        });
    }
    step.end();
    Ok(())
}
