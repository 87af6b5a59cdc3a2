//! File systems that the root mounts later, mounted below it for a while.
//!
//! Many images have a `/home` or a `/var` of their own, which no initramfs mounts: what is written to
//! their directories in the root would be hidden as soon as they come. Only those are mounted in which
//! we read or write, as `/etc/fstab` says; read-only until there is something to write, because
//! nobody has checked them yet. Nothing is waited for, unlocked or assembled here. Follows fstab(5).
//!
//! The mounts are in a namespace of this process's own: they end with it, however it ends.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rustix::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use rustix::fs::{CWD, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::{DIRECTORY_FLAGS, Root};
use crate::engine::plan::RootView as _;
use crate::linux::block;
use crate::linux::module::Modules;
use crate::linux::mount::{self, MountFault};
use crate::linux::path;
use crate::wire::accounts;
use crate::wire::cmdline::{CommandLine, RootSpec};
use crate::wire::fstab::Entry;

/// Where we read or write.
const POINTS: [&str; 5] = ["/usr", "/var", "/var/lib", "/home", "/var/home"];

/// Why a file system of fstab is not mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMounted {
    /// It is on no device: a directory of another one, or on the network.
    NoDevice,
    /// Its device is not there, or locked.
    Absent,
    /// It cannot be mounted.
    Fault(MountFault),
}

impl fmt::Display for NotMounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str("it is no file system on a device"),
            Self::Absent => f.write_str("its device is not there, or locked"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

/// The file systems that are mounted below a root; they are unmounted when this is dropped.
pub struct Below {
    mounts: Vec<Mount>,
    /// What could not be mounted, and why.
    pub missed: Vec<(String, NotMounted)>,
    /// The namespace that this process was in before.
    before: Option<OwnedFd>,
}

struct Mount {
    fd: OwnedFd,
    writable: bool,
}

/// Gives a path that leads to what is open.
fn path_of(fd: &OwnedFd) -> String {
    alloc::fmt::format(format_args!("/proc/self/fd/{}", fd.as_raw_fd()))
}

impl Root {
    /// Lists the file systems of fstab in which we read or write and that are not mounted.
    fn missing(&self) -> Vec<Entry> {
        let fstab = self.read("/etc/fstab", accounts::FILE_MAX).ok().flatten();
        let mut missing = Vec::new();
        for entry in accounts::lines(&fstab.unwrap_or_default()).filter_map(Entry::parse) {
            let device = |path: &str| self.stat(path).ok().flatten().map(|stat| stat.device);
            // What is mounted here is on another device than its directory.
            if POINTS.contains(&entry.point.as_str())
                && !entry.has("noauto")
                && device(&entry.point) == device(&[&entry.point, "/.."].concat())
            {
                missing.push(entry);
            }
        }
        missing
    }
}

impl Below {
    /// Mounts what fstab lists and nobody has mounted.
    ///
    /// Opens the root anew when it mounts anything.
    pub fn mount(root: &mut Root, path: &str) -> Self {
        let mut below = Self {
            mounts: Vec::new(),
            missed: Vec::new(),
            before: None,
        };
        let missing = root.missing();
        if missing.is_empty() {
            return below;
        }
        let before = namespace();
        // Without a namespace of our own it works as well, as long as nobody kills us.
        // SAFETY: this program has one thread, and does not rely on sharing its mounts with others.
        let own = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
        if own.is_ok() {
            below.before = before;
            let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            let _ = rustix::mount::mount_change("/", all);
            match Root::open(path) {
                Ok(new) => *root = new,
                Err(_) => return below,
            }
        }
        for entry in missing {
            match mount_one(root, &entry) {
                Ok(mount) => below.mounts.push(mount),
                Err(NotMounted::Absent) if entry.has("nofail") => {}
                Err(why) => below.missed.push((entry.point, why)),
            }
        }
        below
    }

    /// Does something where all others see it.
    pub fn outside<T>(&self, act: impl FnOnce() -> T) -> T {
        let own = self.before.as_ref().and_then(|_| namespace());
        enter(self.before.as_ref());
        let done = act();
        enter(own.as_ref());
        done
    }

    /// Makes writable what fstab does not want read-only and what can be.
    pub fn make_writable(&self) {
        for mount in self.mounts.iter().filter(|mount| mount.writable) {
            let _ = mount::remount(&path_of(&mount.fd), true);
        }
    }
}

/// Opens the namespace of mounts that this process is in.
fn namespace() -> Option<OwnedFd> {
    path::open(CWD, "/proc/self/ns/mnt", OFlags::RDONLY).ok()
}

/// Goes into a namespace of mounts, if it is known.
fn enter(namespace: Option<&OwnedFd>) {
    if let Some(namespace) = namespace {
        let kind = Some(LinkNameSpaceType::Mount);
        let _ = rustix::thread::move_into_link_name_space(namespace.as_fd(), kind);
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        while let Some(mount) = self.mounts.pop() {
            // We hold it open: it goes when that is closed, which is next.
            let _ = rustix::mount::unmount(&*path_of(&mount.fd), UnmountFlags::DETACH);
        }
    }
}

#[inline(never)]
fn mount_one(root: &Root, entry: &Entry) -> Result<Mount, NotMounted> {
    let named = entry.source.contains('=') || entry.source.starts_with("/dev/");
    if !named || entry.has("bind") || entry.has("rbind") {
        return Err(NotMounted::NoDevice);
    }
    // A name that only a device manager knows may be there all the same.
    let found = RootSpec::parse(&entry.source)
        .ok()
        .and_then(|spec| block::find(&spec));
    let device = found.map_or_else(|| entry.source.clone(), |device| device.path);
    if !device.starts_with('/') || rustix::fs::stat(device.as_str()).is_err() {
        return Err(NotMounted::Absent);
    }
    let types = match entry.kind.as_str() {
        "" | "auto" => {
            let known = block::probe(&device).ok_or(NotMounted::Fault(MountFault::NoType))?;
            known.kind.mount_types()
        }
        kind => &[kind],
    };
    if let Some(mut modules) = Modules::open_running(CommandLine::new(b"")) {
        for kind in types {
            // What is missing or built in, the mount will tell.
            let _ = modules.load(kind);
        }
    }
    let open = || {
        root.open_in(&entry.point, DIRECTORY_FLAGS)
            .map_err(|errno| NotMounted::Fault(MountFault::Kernel(errno)))
    };
    let point = open()?;
    let mounted = mount::mount_read_only(&device, types, &entry.options, &path_of(&point));
    let mounted = mounted.map_err(NotMounted::Fault)?;
    Ok(Mount {
        // The other one is what lies under it now.
        fd: open()?,
        writable: !mounted.read_only,
    })
}
