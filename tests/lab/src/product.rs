//! The product, built by cargo, and the initramfs around it, packed by the project's own tool.
//!
//! Both are run as programs: the lab does not depend on preroot, so that it cannot agree with it by
//! accident.

use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::cargo;
use crate::fault::Fault;
use crate::fetch::Lab;
use crate::kernel::Kernel;

/// Builds the product for a machine.
pub fn build(lab: &Lab, arch: Arch) -> Result<PathBuf, Fault> {
    let target = arch.traits().target;
    let mut command = cargo::command(lab, "build");
    command.args(["--release", "--package", "preroot", "--target", target]);
    cargo::run(&mut command, &format!("building preroot for {target}"))?;
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
    let mut command = cargo::command(lab, "run");
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
    cargo::run(&mut command, "packing the initramfs")
}
