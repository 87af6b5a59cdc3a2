//! Promises about an initramfs that does not come to its end: the platform is told before its own
//! emergency shell opens, which it does as ever.

use std::time::Duration;

use super::scene::{Broken, Scene, Seen};
use crate::boot::Options;
use crate::distro::Initramfs;
use crate::platform::{Platform, Verdict};
use crate::qemu::Exit;

/// A root that never comes.
const ROOT: &str = "root=UUID=00000000-dead-4bad-8bad-000000000000";

/// How many lines of the console the platform must have been told at least.
const LEAST: usize = 5;

pub(super) fn dracut(scene: &Scene) -> Result<(), Broken> {
    given_up(
        scene,
        Initramfs::DracutSystemd,
        &["rd.timeout=10", "systemd.show_status=0"],
        "emergency.target was reached",
        "Entering emergency mode.",
    )
}

pub(super) fn initramfs_tools(scene: &Scene) -> Result<(), Broken> {
    given_up(
        scene,
        Initramfs::InitramfsTools,
        // Where the machine shall restart, the scripts for a failure are not run.
        &["panic=", "preroot.nic=ens3"],
        "the root was not found",
        "built-in shell",
    )
}

/// Boots without a root, up to the shell that shows this.
fn given_up(
    scene: &Scene,
    initramfs: Initramfs,
    append: &[&str],
    reason: &str,
    shell: &str,
) -> Result<(), Broken> {
    let distro = scene.distro()?;
    let mut all = vec![ROOT];
    all.extend(append);
    let seen = Seen::of(&Options {
        initramfs: Some(distro.initramfs(initramfs)),
        root_disk: Some(distro.disk()),
        writable: false,
        time_limit: Duration::from_mins(4),
        stop_at: Some(shell.to_owned()),
        ..scene.options(&all)
    })?;
    seen.failure_told(reason)?;
    let verdict = seen.0.platform.as_ref().map(Platform::verdict);
    let told = match &verdict {
        Some(Verdict::Failed { description }) => description.split_once("kernel_log="),
        _ => None,
    };
    // The lines of preroot say the reason once more.
    let kernels = |line: &&str| line.starts_with('[') && !line.contains("preroot: ");
    let lines = seen.0.console.lines().filter(kernels);
    let has_log = told.is_some_and(|(_, log)| {
        lines.filter(|line| log.contains(line)).count() >= LEAST && log.contains(reason)
    });
    seen.expect(has_log, || {
        format!("the kernel's log is not in what the platform was told: {verdict:?}")
    })?;
    seen.expect(seen.0.exit == Exit::Stopped, || {
        format!(
            "there was no shell (`{shell}`): the machine ended with {:?}",
            seen.0.exit
        )
    })
}
