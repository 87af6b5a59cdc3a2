//! The switch from the initramfs to the real root: all of it but the exec.
//!
//! Follows util-linux's `switch_root(8)`: move the kernel's file systems over, move the root onto `/`,
//! and give the memory of the initramfs back.

use core::fmt;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{self, Errno};
use rustix::mount::UnmountFlags;

use super::super::path::{self, terminated};
use super::super::sysfs;

/// What is moved into the real root.
const MOVED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
/// How deep the initramfs is emptied; each level is some 2 KiB of stack.
const MAX_DEPTH: u8 = 40;

/// `RAMFS_MAGIC` and `TMPFS_MAGIC` of `include/uapi/linux/magic.h`.
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x8584_58f6, 0x0102_1994];

/// Why the switch did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchFault {
    /// The real root's directory cannot be entered.
    NoDirectory(Errno),
    /// Nothing is mounted there.
    NotMounted,
    /// The kernel refuses to put it onto `/`.
    NotMoved(Errno),
    /// The kernel refuses to make it the root of this process.
    NotEntered(Errno),
}

impl fmt::Display for SwitchFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory(errno) => write!(f, "the real root cannot be entered: {errno}"),
            Self::NotMounted => f.write_str("no file system is mounted as the real root"),
            Self::NotMoved(errno) => write!(f, "the real root cannot be moved onto /: {errno}"),
            Self::NotEntered(errno) => write!(f, "the real root cannot become the root: {errno}"),
        }
    }
}

/// Makes the mounted `path` the root of this process; gives the number of files that were removed.
///
/// `/dev`, `/proc`, `/sys` and `/run` go along where they can; where the real root is read-only and has
/// no directory for one, it is taken off. What the initramfs held is removed when it is in memory.
// Kept apart: a larger frame costs its caller more than the call.
#[inline(never)]
pub fn enter_real_root(path: &str) -> Result<u32, SwitchFault> {
    let new = sysfs::open_directory(CWD, path).map_err(SwitchFault::NoDirectory)?;
    let new_device = device_of(&new).map_err(SwitchFault::NoDirectory)?;
    let old = sysfs::open_directory(CWD, "/").map_err(SwitchFault::NoDirectory)?;
    let old_device = device_of(&old).map_err(SwitchFault::NoDirectory)?;
    if new_device == old_device {
        return Err(SwitchFault::NotMounted);
    }
    for api in MOVED {
        // One that is not mounted stays with the initramfs.
        let mounted = look(CWD, api).is_ok_and(|stat| stat.st_dev != old_device);
        if mounted && move_api(&new, new_device, path, api).is_err() {
            let _ = terminated(api)
                .and_then(|api| rustix::mount::unmount(api.as_c_str(), UnmountFlags::DETACH));
        }
    }
    rustix::process::fchdir(&new).map_err(SwitchFault::NoDirectory)?;
    rustix::mount::mount_move(c".", c"/").map_err(SwitchFault::NotMoved)?;
    rustix::process::chroot(c".").map_err(SwitchFault::NotEntered)?;
    rustix::process::chdir(c"/").map_err(SwitchFault::NotEntered)?;
    Ok(remove_old_root(&old, old_device))
}

fn device_of(directory: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(directory)?.st_dev)
}

/// Looks at what `path` names, without following a link.
fn look(at: BorrowedFd<'_>, path: &str) -> io::Result<Stat> {
    rustix::fs::statat(at, terminated(path)?.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)
}

/// Moves one mount over; fails when there is no place for it or the place is taken.
fn move_api(new: &OwnedFd, new_device: u64, path: &str, api: &str) -> io::Result<()> {
    let name = api.trim_start_matches('/');
    let place = match look(new.as_fd(), name) {
        Err(Errno::NOENT) => {
            path::make_directory(new.as_fd(), name)?;
            look(new.as_fd(), name)?
        }
        other => other?,
    };
    if FileType::from_raw_mode(place.st_mode) != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    if place.st_dev != new_device {
        return Err(Errno::BUSY);
    }
    let target = terminated(&[path, api].concat())?;
    rustix::mount::mount_move(terminated(api)?.as_c_str(), target.as_c_str())
}

/// Empties the old root when it is in memory: the kernel keeps it for ever, under the new one.
fn remove_old_root(old: &OwnedFd, device: u64) -> u32 {
    let kind = rustix::fs::fstatfs(old).map(|stat| stat.f_type);
    let mut removed = 0;
    if kind.is_ok_and(|kind| MEMORY_FILE_SYSTEMS.contains(&kind)) {
        remove_content(old.as_fd(), device, 0, &mut removed);
    }
    removed
}

/// Removes all below a directory that is on `device`; what resists stays.
fn remove_content(directory: BorrowedFd<'_>, device: u64, depth: u8, removed: &mut u32) {
    let Ok(listing) = sysfs::open_directory(directory, ".") else {
        return;
    };
    let _ = sysfs::each_name(&listing, &mut |name, kind| {
        let mut flags = AtFlags::empty();
        if kind == FileType::Directory {
            let open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Ok(inner) = path::open(directory, name, open) else {
                return;
            };
            // Something is mounted here: neither ours nor in the way.
            if depth >= MAX_DEPTH || device_of(&inner) != Ok(device) {
                return;
            }
            remove_content(inner.as_fd(), device, depth + 1, removed);
            flags = AtFlags::REMOVEDIR;
        }
        let gone = terminated(name)
            .and_then(|name| rustix::fs::unlinkat(directory, name.as_c_str(), flags));
        if gone.is_ok() {
            *removed = removed.saturating_add(1);
        }
    });
}

/// What the kernel itself tries, in its order.
const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// There is no program to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoInit;

impl fmt::Display for NoInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the real root has no /sbin/init, /etc/init, /bin/init or /bin/sh: is it the right one?")
    }
}

/// Finds the program to go on with: that of `init=`, else the first that the kernel would try.
///
/// Works before the switch and after it: links are followed as if `root` were the root. When the
/// answer is not what was `asked` for, that one is missing or cannot be executed.
pub fn find_init<'a>(root: BorrowedFd<'_>, asked: Option<&'a str>) -> Result<&'a str, NoInit> {
    asked
        .into_iter()
        .chain(INITS)
        .find(|path| is_executable(root, path).unwrap_or(false))
        .ok_or(NoInit)
}

fn is_executable(root: BorrowedFd<'_>, path: &str) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = match rustix::fs::openat2(
        root,
        terminated(path)?.as_c_str(),
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    ) {
        // Before Linux 5.6; an absolute link is then right only after the switch.
        Err(Errno::NOSYS) => path::open(root, path.trim_start_matches('/'), flags),
        other => other,
    }?;
    let stat = rustix::fs::fstat(&file)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn init_is_found_through_links_that_stay_in_the_root() {
        let path = std::env::temp_dir().join(std::format!("preroot-init-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        for directory in ["usr/lib/systemd", "usr/sbin", "etc"] {
            fs::create_dir_all(path.join(directory)).unwrap();
        }
        symlink("usr/sbin", path.join("sbin")).unwrap();
        let root = sysfs::open_directory(CWD, path.to_str().unwrap()).unwrap();
        assert_eq!(find_init(root.as_fd(), None), Err(NoInit));

        // Absolute, as on every Debian: outside, this host's systemd would be met.
        symlink("/usr/lib/systemd/own-systemd", path.join("usr/sbin/init")).unwrap();
        let systemd = path.join("usr/lib/systemd/own-systemd");
        fs::write(&systemd, "").unwrap();
        assert_eq!(
            find_init(root.as_fd(), None),
            Err(NoInit),
            "it is not executable"
        );
        fs::set_permissions(&systemd, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_init(root.as_fd(), None), Ok("/sbin/init"));
        assert_eq!(
            find_init(root.as_fd(), Some("/etc")),
            Ok("/sbin/init"),
            "a directory"
        );
        assert_eq!(find_init(root.as_fd(), Some("/missing")), Ok("/sbin/init"));
        let asked = "/usr/lib/systemd/own-systemd";
        assert_eq!(find_init(root.as_fd(), Some(asked)), Ok(asked));
        symlink("/../../../../bin/sh", path.join("escape")).unwrap();
        assert_eq!(
            find_init(root.as_fd(), Some("/escape")),
            Ok("/sbin/init"),
            "out of the root"
        );
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_directory_where_nothing_is_mounted_is_not_entered() {
        assert_eq!(
            enter_real_root("/nowhere"),
            Err(SwitchFault::NoDirectory(Errno::NOENT))
        );
        assert_eq!(enter_real_root("/"), Err(SwitchFault::NotMounted));
    }
}
