//! Mounts: the kernel's own file systems, the root, a disc.
//!
//! Not a mount table, and no fsck: what the kernel refuses is said in words and left alone. Follows
//! mount(2), `systemd.io/INITRD_INTERFACE` for what init expects below `/run`, and util-linux's names
//! of the options.

mod options;
mod switch;
mod watch;

use core::ffi::CStr;
use core::fmt;

pub use options::Options;
use rustix::fd::BorrowedFd;
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags as Used};
use rustix::io::{self, Errno};
use rustix::mount::{MountFlags, UnmountFlags};
pub use switch::{NoInit, SwitchFault, enter_real_root, find_init};
pub use watch::Mounts;

use super::path::{self, terminated};
use super::sysfs;

/// One of the kernel's own file systems.
struct Api {
    path: &'static str,
    kind: &'static str,
    flags: MountFlags,
    data: &'static CStr,
}

const SAFE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// File systems that know no writes, as statfs(2) names them: squashfs, erofs, ISO 9660.
const NEVER_WRITTEN: [u32; 3] = [0x7371_7368, 0xe0f5_e1e2, 0x9660];

const API: [Api; 4] = [
    Api {
        path: "/proc",
        kind: "proc",
        flags: SAFE,
        data: c"",
    },
    Api {
        path: "/sys",
        kind: "sysfs",
        flags: SAFE,
        data: c"",
    },
    Api {
        path: "/dev",
        kind: "devtmpfs",
        flags: MountFlags::NOSUID,
        data: c"mode=0755",
    },
    Api {
        path: "/run",
        kind: "tmpfs",
        flags: MountFlags::NOSUID
            .union(MountFlags::NODEV)
            .union(MountFlags::STRICTATIME),
        data: c"mode=0755",
    },
];

/// Which of the kernel's own file systems cannot be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiFault {
    /// Where it belongs.
    pub path: &'static str,
    /// The kernel's answer.
    pub errno: Errno,
}

impl fmt::Display for ApiFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, errno } = self;
        match *errno {
            Errno::NODEV => write!(
                f,
                "{path} cannot be mounted: this kernel is built without it"
            ),
            _ => write!(f, "{path} cannot be mounted: {errno}"),
        }
    }
}

/// Mounts `/proc`, `/sys`, `/dev` and `/run` where they are not mounted yet.
///
/// Goes on after a failure and gives the first one: with three of the four a boot may still come far
/// enough to say what is wrong.
pub fn api_file_systems() -> Result<(), ApiFault> {
    let mut first = Ok(());
    for api in &API {
        let fault = |errno| ApiFault {
            path: api.path,
            errno,
        };
        first = first.and(mount_api(api).map_err(fault));
    }
    first
}

fn mount_api(api: &Api) -> io::Result<()> {
    match path::make_directory(CWD, api.path) {
        Ok(()) => {}
        // On a read-only initramfs the directory is there or the mount says so.
        Err(Errno::EXIST | Errno::ROFS) => {
            let path = terminated(api.path)?;
            if rustix::fs::stat(path.as_c_str())?.st_dev != rustix::fs::stat(c"/")?.st_dev {
                return Ok(());
            }
        }
        Err(errno) => return Err(errno),
    }
    match mount(api.kind, api.path, api.kind, api.flags, api.data) {
        Err(Errno::BUSY) => Ok(()),
        other => other,
    }
}

/// Calls `mount(2)`.
///
/// The texts become the kernel's here: left to rustix, each is copied in a function of its own.
fn mount(source: &str, target: &str, kind: &str, flags: MountFlags, data: &CStr) -> io::Result<()> {
    let source = terminated(source)?;
    let target = terminated(target)?;
    let kind = terminated(kind)?;
    rustix::mount::mount(
        source.as_c_str(),
        target.as_c_str(),
        kind.as_c_str(),
        flags,
        data,
    )
}

/// Gives the first three descriptors a console, where the kernel found none for its first program.
///
/// Before `/dev` is mounted the kernel cannot open one. Without any the descriptors lead to
/// `/dev/null`: left closed, the next open file would be taken for the console.
pub fn open_console() -> io::Result<()> {
    // SAFETY: the descriptor is only asked for its flags; one that is not open is refused by the kernel.
    let error_output = unsafe { BorrowedFd::borrow_raw(2) };
    if rustix::io::fcntl_getfd(error_output).is_ok() {
        return Ok(());
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let console = rustix::fs::openat(CWD, c"/dev/console", flags, Mode::empty())
        .or_else(|_| rustix::fs::openat(CWD, c"/dev/null", flags, Mode::empty()))?;
    rustix::stdio::dup2_stdin(&console)?;
    rustix::stdio::dup2_stdout(&console)?;
    rustix::stdio::dup2_stderr(&console)?;
    // When the console was opened as one of the three, closing it would undo the above.
    if rustix::fd::AsRawFd::as_raw_fd(&console) <= 2 {
        let _ = rustix::fd::IntoRawFd::into_raw_fd(console);
    }
    Ok(())
}

/// Longest name of a file system type that a fault can tell.
const MAX_TYPE: usize = 15;

/// The name of a file system type, as far as it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeName {
    text: [u8; MAX_TYPE],
    len: u8,
}

impl TypeName {
    fn new(name: &str) -> Self {
        let mut text = [0; MAX_TYPE];
        let len = name.floor_char_boundary(MAX_TYPE);
        text[..len].copy_from_slice(&name.as_bytes()[..len]);
        Self {
            text,
            len: len as u8,
        }
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.text[..usize::from(self.len)]).unwrap_or("?"))
    }
}

/// Why a file system is not mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountFault {
    /// There is no type to try.
    NoType,
    /// The kernel does not know the type.
    UnknownType(TypeName),
    /// There is no such file system on the device, or an option is wrong.
    NotThatType(TypeName),
    /// The device is gone.
    NoDevice,
    /// The device is in use.
    Busy,
    /// The file system is damaged.
    Damaged(TypeName),
    /// The device cannot be read.
    Unreadable,
    /// There is no directory to mount on.
    NoTarget,
    /// The options are too long.
    LongOptions,
    /// The kernel refuses.
    Kernel(Errno),
}

impl fmt::Display for MountFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoType => f.write_str("nothing known lies on it: name its type (rootfstype=)"),
            Self::UnknownType(name) => {
                write!(
                    f,
                    "the kernel has no {name} file system; is its module in the initramfs?"
                )
            }
            Self::NotThatType(name) => {
                write!(
                    f,
                    "there is no sound {name} file system on it, or a mount option is wrong"
                )
            }
            Self::NoDevice => f.write_str("the device is gone"),
            Self::Busy => f.write_str("the device is in use"),
            Self::Damaged(name) => write!(
                f,
                "its {name} file system is damaged: run fsck from elsewhere"
            ),
            Self::Unreadable => f.write_str("the device reports a read error"),
            Self::NoTarget => f.write_str("there is no directory to mount it on"),
            Self::LongOptions => f.write_str("the mount options are too long"),
            Self::Kernel(errno) => write!(f, "the kernel refuses: {errno}"),
        }
    }
}

/// What was mounted, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The type that fitted.
    pub kind: TypeName,
    /// Whether it is read-only, because it was asked for or because the device allows no more.
    pub read_only: bool,
}

/// Mounts the root on `target`, by the first of `types` that fits.
///
/// The words of `rootflags` come after `writable` and may overrule it.
pub fn mount_root(
    device: &str,
    types: &[&str],
    writable: bool,
    rootflags: &str,
    target: &str,
) -> Result<Mounted, MountFault> {
    let base = if writable {
        MountFlags::empty()
    } else {
        MountFlags::RDONLY
    };
    let options = Options::parse(base, rootflags).ok_or(MountFault::LongOptions)?;
    make_target(target)?;
    mount_first(device, types, &options, target)
}

/// Mounts a disc read-only, as UDF or else as ISO 9660.
pub fn mount_disc(device: &str, target: &str) -> Result<Mounted, MountFault> {
    let options = Options::parse(SAFE | MountFlags::RDONLY, "").ok_or(MountFault::LongOptions)?;
    make_target(target)?;
    mount_first(device, &["udf", "iso9660"], &options, target)
}

/// Mounts a file system read-only on a directory that is there, by the first of `types` that fits.
///
/// `options` are those of fstab; what comes back tells whether they want it read-only for good.
pub fn mount_read_only(
    device: &str,
    types: &[&str],
    options: &str,
    target: &str,
) -> Result<Mounted, MountFault> {
    let mut options =
        Options::parse(MountFlags::empty(), options).ok_or(MountFault::LongOptions)?;
    let read_only = options.flags.contains(MountFlags::RDONLY);
    options.flags |= MountFlags::RDONLY;
    let mounted = mount_first(device, types, &options, target)?;
    Ok(Mounted {
        read_only,
        ..mounted
    })
}

fn make_target(target: &str) -> Result<(), MountFault> {
    match path::make_directory(CWD, target) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(_) => Err(MountFault::NoTarget),
    }
}

fn mount_first(
    device: &str,
    types: &[&str],
    options: &Options,
    target: &str,
) -> Result<Mounted, MountFault> {
    let mut first = None;
    for kind in types {
        match mount_as(device, kind, options, target) {
            Ok(read_only) => {
                return Ok(Mounted {
                    kind: TypeName::new(kind),
                    read_only,
                });
            }
            // Another type may fit; the first one's answer is what counts if none does.
            Err(errno @ (Errno::NODEV | Errno::INVAL)) => first = first.or(Some((kind, errno))),
            Err(errno) => {
                first = Some((kind, errno));
                break;
            }
        }
    }
    let fault = first.map(|(kind, errno)| fault_of(errno, TypeName::new(kind)));
    Err(fault.unwrap_or(MountFault::NoType))
}

/// Mounts by one type; tells whether it came out read-only.
fn mount_as(device: &str, kind: &str, options: &Options, target: &str) -> io::Result<bool> {
    let mount = |flags| mount(device, target, kind, flags, options.data());
    let mut flags = options.flags;
    let mut answer = mount(flags);
    if let Err(Errno::ROFS | Errno::ACCESS) = answer
        && !flags.contains(MountFlags::RDONLY)
    {
        flags |= MountFlags::RDONLY;
        answer = mount(flags);
    }
    answer.map(|()| flags.contains(MountFlags::RDONLY))
}

fn fault_of(errno: Errno, name: TypeName) -> MountFault {
    match errno {
        Errno::NODEV => MountFault::UnknownType(name),
        Errno::INVAL => MountFault::NotThatType(name),
        Errno::NXIO | Errno::NOENT | Errno::NOMEDIUM => MountFault::NoDevice,
        Errno::BUSY => MountFault::Busy,
        Errno::UCLEAN | Errno::BADMSG => MountFault::Damaged(name),
        Errno::IO => MountFault::Unreadable,
        Errno::NOTDIR => MountFault::NoTarget,
        other => MountFault::Kernel(other),
    }
}

fn used_flags(path: &str) -> io::Result<Used> {
    Ok(rustix::fs::statvfs(terminated(path)?.as_c_str())?.f_flag)
}

/// Tells whether what is mounted at `path` takes no writes; of what cannot be asked, it says no.
pub fn is_read_only(path: &str) -> bool {
    used_flags(path).is_ok_and(|used| used.contains(Used::RDONLY))
}

/// Tells whether nothing makes what is mounted at `path` writable: its kind knows no writes, or its
/// device takes none, as those of dm-verity.
pub fn is_read_only_for_good(path: &str) -> bool {
    let Ok(path) = terminated(path) else {
        return false;
    };
    let kind = rustix::fs::statfs(path.as_c_str()).map(|found| found.f_type);
    if kind.is_ok_and(|kind| NEVER_WRITTEN.iter().any(|never| kind == (*never).into())) {
        return true;
    }
    let Ok(stat) = rustix::fs::stat(path.as_c_str()) else {
        return false;
    };
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let switch = alloc::format!("/sys/dev/block/{major}:{minor}/ro");
    sysfs::read_number(CWD, &switch) == Some(1)
}

/// Makes a mounted file system writable, or read-only again; its other flags stay.
pub fn remount(path: &str, writable: bool) -> io::Result<()> {
    let mut flags = flags_in_use(path)?;
    flags.set(MountFlags::RDONLY, !writable);
    rustix::mount::mount_remount(terminated(path)?.as_c_str(), flags, c"")
}

/// Gives the flags that a remount would take away if they were not named again.
fn flags_in_use(path: &str) -> io::Result<MountFlags> {
    const PAIRS: [(Used, MountFlags); 7] = [
        (Used::NOSUID, MountFlags::NOSUID),
        (Used::NODEV, MountFlags::NODEV),
        (Used::NOEXEC, MountFlags::NOEXEC),
        (Used::SYNCHRONOUS, MountFlags::SYNCHRONOUS),
        (Used::NOATIME, MountFlags::NOATIME),
        (Used::NODIRATIME, MountFlags::NODIRATIME),
        (Used::RELATIME, MountFlags::RELATIME),
    ];
    let used = used_flags(path)?;
    let named = PAIRS
        .iter()
        .filter(|(flag, _)| used.contains(*flag))
        .map(|(_, flag)| *flag);
    Ok(named.fold(MountFlags::empty(), MountFlags::union))
}

/// Takes a file system off its directory; `EBUSY` while somebody uses it.
pub fn unmount(path: &str) -> io::Result<()> {
    rustix::mount::unmount(terminated(path)?.as_c_str(), UnmountFlags::NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_kernels_answers_become_advice() {
        let name = TypeName::new("xfs");
        let cases = [
            (
                Errno::NODEV,
                "the kernel has no xfs file system; is its module in the initramfs?",
            ),
            (
                Errno::UCLEAN,
                "its xfs file system is damaged: run fsck from elsewhere",
            ),
            (Errno::BUSY, "the device is in use"),
        ];
        for (errno, words) in cases {
            assert_eq!(fault_of(errno, name).to_string(), words);
        }
    }

    #[test]
    fn a_type_name_is_cut_between_letters() {
        assert_eq!(TypeName::new("ext4").to_string(), "ext4");
        assert_eq!(
            TypeName::new("abcdefghijklmnß").to_string(),
            "abcdefghijklmn"
        );
    }

    #[test]
    fn without_a_type_there_is_nothing_to_try() {
        let options = Options::parse(MountFlags::RDONLY, "").unwrap();
        assert_eq!(
            mount_first("/dev/null", &[], &options, "/nowhere"),
            Err(MountFault::NoType)
        );
    }
}
