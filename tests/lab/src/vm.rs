//! Whole boots, each a promise of the product that is kept or broken before one's eyes.
//!
//! A promise is a row of a table and a function: it boots the real kernel once or twice under given
//! circumstances and looks at what came of it: the console, what the platform was told, what the real
//! init found, and what is on the root disk afterwards. What can be seen without a kernel is tested
//! elsewhere.

mod circumstances;
mod courier;
mod distros;
mod guest;
mod images;
mod later;
mod login;
mod network;
mod provisioning;
mod readonly;
mod root;
mod scene;
mod snapshot;
mod unmanaged;
mod visit;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::arch::Arch;
use crate::debian::{self, Flavour};
use crate::fault::Fault;
use crate::fetch::Lab;
use crate::progress;

pub use scene::Broken;
use scene::Scene;

/// The most machines that run side by side unless somebody says otherwise: each has half a gigabyte.
const MOST_SIDE_BY_SIDE: usize = 6;

/// How many machines run side by side.
///
/// An emulated processor keeps one of ours busy, but for some promises it mostly waits: one more than
/// there are processors took two thirds of the time of as many as there are.
pub fn side_by_side() -> usize {
    thread::available_parallelism().map_or(1, |processors| {
        (processors.get() + 1).min(MOST_SIDE_BY_SIDE)
    })
}

/// One thing that the product promises of a boot.
pub struct Promise {
    /// What it is called.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    check: fn(&Scene) -> Result<(), Broken>,
    /// Whether the machine is an installed Debian, which cannot be made everywhere.
    in_debian: bool,
    /// Whether that Debian makes its own initramfs.
    in_distro: bool,
    /// Whether it is one whose root is never written to.
    in_read_only: bool,
}

impl Promise {
    const fn in_distro(self) -> Self {
        Self {
            in_distro: true,
            ..self
        }
    }

    const fn in_read_only(self) -> Self {
        Self {
            in_read_only: true,
            ..self
        }
    }

    const fn in_debian(self) -> Self {
        Self {
            in_debian: true,
            ..self
        }
    }
}

/// Makes a row of [`PROMISES`].
const fn promise(
    name: &'static str,
    about: &'static str,
    check: fn(&Scene) -> Result<(), Broken>,
) -> Promise {
    Promise {
        name,
        about,
        check,
        in_debian: false,
        in_distro: false,
        in_read_only: false,
    }
}

/// The one promise that needs another processor's kernel, disk and emulator.
const AARCH64: &str = "aarch64_ready_with_identity";

/// Every promise; those that take longest come first, so that nobody waits for a last one.
pub static PROMISES: &[Promise] = &[
    promise(
        "image_with_waagent",
        "a whole disk with waagent: Ready accepted, and a timeline that tells how",
        images::with_waagent,
    )
    .in_debian(),
    promise(
        "image_with_cloud_init",
        "a whole disk with cloud-init: the same",
        images::with_cloud_init,
    )
    .in_debian(),
    promise(
        "image_with_preroot",
        "a whole disk with preroot: the same, and Ready before the login prompt",
        images::with_preroot,
    )
    .in_debian(),
    promise(
        "dracut_with_systemd",
        "Debian with dracut and systemd in its initramfs: as if we had never been there",
        distros::dracut_with_systemd,
    )
    .in_distro(),
    promise(
        "dracut_without_systemd",
        "the same with dracut's own init",
        distros::dracut_without_systemd,
    )
    .in_distro(),
    promise(
        "initramfs_tools",
        "the same with Debian's own initramfs",
        distros::initramfs_tools,
    )
    .in_distro(),
    promise(
        "no_network_manager",
        "Debian without a network manager: pinged and logged in to, on every boot",
        unmanaged::no_network_manager,
    )
    .in_distro(),
    promise(
        "read_only_ext4_by_credentials",
        "a root that stays read-only: systemd's credentials bring it all, and no byte is written",
        readonly::ext4_by_credentials,
    )
    .in_read_only(),
    promise(
        "read_only_squashfs_under_an_overlay",
        "a root in memory over a squashfs: provisioned on every boot, and no byte is written",
        readonly::squashfs_under_an_overlay,
    )
    .in_distro(),
    promise(
        "ready_later",
        "ready = later: the running system tells the platform, once",
        later::ready_later,
    )
    .in_distro(),
    promise(
        "courier_dracut",
        "dracut finds no root: the platform is told why, and dracut goes on as ever",
        courier::dracut,
    )
    .in_distro(),
    promise(
        "courier_initramfs_tools",
        "the same with Debian's own initramfs",
        courier::initramfs_tools,
    )
    .in_distro(),
    promise(
        "ready_with_identity",
        "the machine has its identity, the platform accepted Ready, 20 lines at most",
        provisioning::ready_with_identity,
    ),
    promise(
        "wireserver_503_five_times",
        "a busy WireServer is asked again until it answers",
        network::wireserver_503_five_times,
    ),
    promise(
        AARCH64,
        "the same on the other processor",
        provisioning::aarch64_ready_with_identity,
    ),
    promise(
        "lost_ready_is_repeated_by_the_next_boot",
        "a boot that was not heard is made good by the next, without a disc",
        network::lost_ready_is_repeated_by_the_next_boot,
    ),
    promise(
        "dhcp_never",
        "no DHCP server: identity, a message, and the boot goes on",
        network::dhcp_never,
    ),
    promise(
        "wireserver_never",
        "a silent WireServer: identity, a message, and the boot goes on",
        network::wireserver_never,
    ),
    promise(
        "root_missing",
        "no root: a message, the platform is told, the machine restarts",
        root::missing,
    ),
    promise(
        "disc_unreadable",
        "a disc of zeros: a message, the platform is told, the boot goes on",
        provisioning::disc_unreadable,
    ),
    promise(
        "disc_damaged",
        "a disc that lost its directory: the same",
        provisioning::disc_damaged,
    ),
    promise(
        "document_damaged",
        "a document that ends in the middle: the same, at once",
        provisioning::document_damaged,
    ),
    promise(
        "no_disc",
        "an empty drive: said, nothing is changed, Ready, and the boot goes on",
        provisioning::no_disc,
    ),
    promise(
        "second_boot_changes_nothing",
        "no file is touched; the lease is kept, or no frame is sent",
        provisioning::second_boot_changes_nothing,
    ),
    promise(
        "kernel_mount_gives_the_same",
        "the disc read by the kernel: the same files, byte for byte",
        provisioning::kernel_mount_gives_the_same,
    ),
    promise(
        "without_udf_and_isofs_modules",
        "no kernel module for discs: the same files, byte for byte",
        provisioning::without_udf_and_isofs_modules,
    ),
    promise(
        "password_is_nowhere_in_plain",
        "a password leaves nothing behind but its hash",
        provisioning::password_is_nowhere_in_plain,
    ),
    promise(
        "wireserver_410_then_200",
        "stale goal state and stale report: both are repeated, Ready is accepted",
        network::wireserver_410_then_200,
    ),
    promise(
        "lost_ready_is_repeated",
        "a Ready that was not answered is sent again",
        network::lost_ready_is_repeated,
    ),
    promise(
        "visitor_logs_in",
        "an installed Debian: a real SSH client comes in, by key and by password",
        login::visitor_logs_in,
    )
    .in_debian(),
    promise(
        "secrets_are_nowhere_else",
        "password and custom data are not in memory, on disk, console or wire",
        login::secrets_are_nowhere_else,
    )
    .in_debian(),
    promise(
        "host_key_is_the_one_on_the_console",
        "the SSH client accepts the host key that the console shows, and no other",
        login::host_key_is_the_one_on_the_console,
    )
    .in_debian(),
    promise(
        "visitor_logs_in_under_systemd",
        "the same Debian with systemd, its network and its sshd: nothing fails",
        login::visitor_logs_in_under_systemd,
    )
    .in_debian(),
    promise("root_by_label", "root=LABEL= is found", root::by_label),
    promise("root_by_device", "root=/dev/vda is found", root::by_device),
    promise(
        "root_by_partition_device",
        "root=/dev/vda1 is found",
        root::by_partition_device,
    ),
    promise(
        "root_by_partuuid",
        "root=PARTUUID= is found",
        root::by_partuuid,
    ),
    promise(
        "root_by_partlabel",
        "root=PARTLABEL= is found",
        root::by_partlabel,
    ),
    promise(
        "not_azure",
        "another machine: nothing is done, the real init runs",
        circumstances::not_azure,
    ),
    promise(
        "off_switch",
        "preroot=off: nothing is done, the real init runs",
        circumstances::off_switch,
    ),
];

/// How a promise came out.
pub struct Kept {
    /// The promise.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Why it was broken, if it was.
    pub broken: Option<Broken>,
}

/// Looks at the promises of these names, or all, so many side by side; `tell` hears of each as it
/// ends.
///
/// Returns how many were kept and how many were broken.
pub fn run(
    lab: &Lab,
    wanted: &[String],
    jobs: usize,
    keep_going: bool,
    tell: &(dyn Fn(&Kept) + Sync),
) -> Result<(usize, usize), Fault> {
    let mut chosen: VecDeque<_> = PROMISES
        .iter()
        .filter(|promise| wanted.is_empty() || wanted.iter().any(|name| name == promise.name))
        .collect();
    let scene = Scene::set(lab)?;
    if chosen.iter().any(|promise| promise.name == AARCH64) {
        scene::fetch(lab, Arch::Aarch64)?;
    }
    if chosen.iter().any(|promise| promise.in_debian)
        && let Err(fault) = debian::disk(lab, Flavour::Plain, Arch::X86_64)
    {
        // Who asks for one by its name wants to know.
        if !wanted.is_empty() {
            return Err(fault);
        }
        debian::leave_out(fault, "the promises about visitors")?;
        chosen.retain(|promise| !promise.in_debian);
    }
    if chosen.iter().any(|promise| promise.in_read_only)
        && let Err(fault) = debian::disk(lab, Flavour::ReadOnly, Arch::X86_64)
    {
        if !wanted.is_empty() {
            return Err(fault);
        }
        debian::leave_out(fault, "the promise about systemd's credentials")?;
        chosen.retain(|promise| !promise.in_read_only);
    }
    if chosen.iter().any(|promise| promise.in_distro)
        && let Err(fault) = scene.distro()
    {
        if !wanted.is_empty() {
            return Err(fault);
        }
        debian::leave_out(fault, "the promises about the initramfs of distributions")?;
        chosen.retain(|promise| !promise.in_distro);
    }
    let queue = Mutex::new(chosen);
    let counts = Mutex::new((0, 0));
    // What a boot says of its own steps would be said by two at once.
    let quiet = progress::is_quiet();
    progress::set_quiet(true);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = lock(&queue).pop_front();
                    let Some(promise) = next else { return };
                    if !quiet {
                        progress::line(format_args!("booting for {}", promise.name));
                    }
                    let start = Instant::now();
                    let broken = (promise.check)(&scene).err();
                    let mut counts = lock(&counts);
                    if broken.is_none() {
                        counts.0 += 1;
                    } else {
                        counts.1 += 1;
                        if !keep_going {
                            lock(&queue).clear();
                        }
                    }
                    tell(&Kept {
                        name: promise.name,
                        took: start.elapsed(),
                        broken,
                    });
                }
            });
        }
    });
    progress::set_quiet(quiet);
    let counts = *lock(&counts);
    Ok(counts)
}

/// Locks; what a thread that panicked left is still whole, as nothing is done by halves.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promise_has_a_name_of_its_own() {
        let mut names: Vec<_> = PROMISES.iter().map(|promise| promise.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PROMISES.len());
    }
}
