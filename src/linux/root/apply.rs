//! Carrying a plan out.
//!
//! The one place that writes below a root (house rule C8): a temporary name in the same directory, mode,
//! owner and labels first, data, sync, rename, sync. Not the place that knows what to write.

use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::labels::{self, Labels};
use super::{FILE_FLAGS, Root, Spot, fault, stat};
use crate::engine::plan::{Act, Action, Change, Plan, RootFault};
use crate::linux::content;

/// Largest label or other extended attribute that is copied.
const XATTR_MAX: usize = 4096;

/// The file whose lock all tools for account files take, in the C library's protocol.
pub(super) const ACCOUNT_LOCK: &str = "/etc/.pwd.lock";
/// The files that this lock is for.
const ACCOUNTS: [&str; 6] = [
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/subgid",
];

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Files and directories that were written, or removed.
    pub written: u32,
    /// Those that were as planned already.
    pub unchanged: u32,
    /// Lines for tmpfiles.d(5) that give the security labels which could not be set; mostly none.
    pub relabel: String,
}

/// What came of the beginning of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    /// There is nothing to do.
    Not,
    /// It is begun.
    Yes,
    /// A directory was made that was not there before.
    Made,
}

impl Begun {
    fn when(differs: bool) -> Self {
        if differs { Self::Yes } else { Self::Not }
    }
}

/// A change that is begun: a file that waits to take its place or to be removed, a directory that is made.
struct Staged<'a> {
    /// Its place in the plan.
    index: usize,
    change: &'a Change,
    spot: Spot,
    begun: Begun,
}

impl Staged<'_> {
    /// Takes the place of the old file, or removes it.
    fn put(&self) -> Result<(), RootFault> {
        let Spot {
            directory,
            name,
            temporary,
        } = &self.spot;
        match self.change.action {
            Action::Directory => Ok(()),
            Action::Remove => remove(directory.as_fd(), name),
            Action::Write(_) => fs::renameat(directory, &**temporary, directory, &**name)
                .map_err(fault(Act::Replace)),
        }
    }

    /// Removes what waits; the failure that led here is the one that matters.
    fn discard(&self) {
        let Spot {
            directory,
            name,
            temporary,
        } = &self.spot;
        if self.begun == Begun::Made {
            // One that somebody has put something in stays.
            let _ = fs::unlinkat(directory, &**name, AtFlags::REMOVEDIR);
        } else if let Action::Write(_) = self.change.action {
            let _ = remove(directory.as_fd(), temporary);
        }
    }
}

/// What labels the one change that is being begun.
struct Labelling<'a> {
    labels: &'a Labels,
    index: usize,
    /// It has not got the label that it should have.
    missing: bool,
}

impl Labelling<'_> {
    fn set(&mut self, fd: BorrowedFd<'_>, parent: BorrowedFd<'_>) {
        self.missing = !self.labels.set(self.index, fd, parent);
    }
}

/// A way to put what was staged in its place; it leaves behind which change it was busy with.
type Commit = fn(&[Staged<'_>], &mut usize) -> Result<(), RootFault>;

/// Puts everything that was staged in its place, and waits until it is on the disk.
fn commit(staged: &[Staged<'_>], at: &mut usize) -> Result<(), RootFault> {
    let Some((last, others)) = staged.split_last() else {
        return Ok(());
    };
    sync_all(staged, at)?;
    put_all(others, at)?;
    // The last one says that the others are there.
    sync_all(others, at)?;
    let last = core::slice::from_ref(last);
    put_all(last, at)?;
    sync_all(last, at)
}

fn put_all(staged: &[Staged<'_>], at: &mut usize) -> Result<(), RootFault> {
    for new in staged {
        *at = new.index;
        new.put()?;
    }
    Ok(())
}

/// Brings to the disk what was done for these, one file system after the other.
///
/// One `syncfs` costs what one `fsync` costs; a file and its directory each would need one.
fn sync_all(staged: &[Staged<'_>], at: &mut usize) -> Result<(), RootFault> {
    let mut done: Vec<u64> = Vec::new();
    for new in staged {
        *at = new.index;
        let device = stat(new.spot.directory.as_fd(), Act::Sync)?.st_dev;
        if !done.contains(&device) {
            fs::syncfs(&new.spot.directory).map_err(fault(Act::Sync))?;
            done.push(device);
        }
    }
    Ok(())
}

impl Root {
    /// Makes a plan true; when anything fails, tells which change it was.
    ///
    /// First every new file is written beside the one it replaces, then all of them are brought to the
    /// disk at once, then they take their places in the order of the plan, the last one only when the
    /// others are on the disk. So a full disk, a read-only root or a link in the way replaces nothing; and
    /// killed at any point, the same plan made again finishes the work. What is already as planned is not
    /// touched.
    pub fn apply(&self, plan: &Plan) -> Result<Applied, (usize, RootFault)> {
        self.carry_out(plan, commit, &self.labels(plan))
    }

    /// Makes a plan true without waiting for the disk: for what may be lost with the power, because
    /// the next boot makes it again.
    pub fn note(&self, plan: &Plan) -> Result<Applied, (usize, RootFault)> {
        self.carry_out(plan, put_all, &Labels::Parent)
    }

    /// The same with the labels of the root's policy: for what stays and is used at once.
    pub fn refresh(&self, plan: &Plan) -> Result<Applied, (usize, RootFault)> {
        self.carry_out(plan, put_all, &self.labels(plan))
    }

    fn carry_out(
        &self,
        plan: &Plan,
        commit: Commit,
        labels: &Labels,
    ) -> Result<Applied, (usize, RootFault)> {
        let mut at = 0;
        let mut staged = Vec::new();
        let done = self.stage_and(plan, commit, labels, &mut staged, &mut at);
        if done.is_err() {
            // What has taken its place already is not there any more, and so is not removed.
            staged.iter().rev().for_each(Staged::discard);
        }
        done.map_err(|fault| (at, fault))
    }

    /// Does all of it, except for what remains to be done when it fails.
    // Out of line, as others here: in its one caller it makes every access to a large frame longer.
    #[inline(never)]
    fn stage_and<'a>(
        &self,
        plan: &'a Plan,
        commit: Commit,
        labels: &Labels,
        staged: &mut Vec<Staged<'a>>,
        at: &mut usize,
    ) -> Result<Applied, RootFault> {
        let is_account = |change: &Change| ACCOUNTS.contains(&change.path.as_str());
        let mut applied = Applied::default();
        let mut label = Labelling {
            labels,
            index: plan.changes.len(),
            missing: false,
        };
        let _lock = match plan.changes.iter().position(is_account) {
            Some(index) => {
                *at = index;
                Some(self.lock_accounts(&mut label)?)
            }
            None => None,
        };
        if label.missing {
            labels::request(&mut applied.relabel, ACCOUNT_LOCK);
        }
        for (index, change) in plan.changes.iter().enumerate() {
            *at = index;
            let spot = self.spot(change)?;
            let mut label = Labelling {
                labels,
                index,
                missing: false,
            };
            let begun = match &change.action {
                Action::Write(content) => {
                    Begun::when(self.write(&spot, change, content, &mut label)?)
                }
                Action::Directory => self.directory(&spot, change, &mut label)?,
                Action::Remove => Begun::when(exists(spot.directory.as_fd(), &spot.name)?),
            };
            if label.missing {
                labels::request(&mut applied.relabel, &change.path);
            }
            if begun == Begun::Not {
                applied.unchanged += 1;
            } else {
                applied.written += 1;
                staged.push(Staged {
                    index,
                    change,
                    spot,
                    begun,
                });
            }
        }
        commit(staged, at)?;
        Ok(applied)
    }

    /// Writes a file under its temporary name, unless the one it would replace is as wanted.
    #[inline(never)]
    fn write(
        &self,
        spot: &Spot,
        change: &Change,
        content: &[u8],
        label: &mut Labelling<'_>,
    ) -> Result<bool, RootFault> {
        let directory = spot.directory.as_fd();
        // Whoever wrote this was killed; its content may be half.
        match remove(directory, &spot.temporary) {
            Ok(()) => {}
            Err(fault) if fault.errno == Errno::NOENT.raw_os_error() => {}
            Err(fault) => return Err(fault),
        }

        let old = open_file(directory, &spot.name)?;
        if let Some(old) = &old
            && self.is_as_wanted(old.as_fd(), change, FileType::RegularFile)?
            && has_content(old.as_fd(), content)?
        {
            return Ok(false);
        }

        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = open(directory, &spot.temporary, flags).map_err(fault(Act::Create))?;
        let filled = self
            .own(new.as_fd(), change, old.as_ref().map(AsFd::as_fd))
            .and_then(|has_label| {
                if !has_label {
                    label.set(new.as_fd(), directory);
                }
                content::write(new.as_fd(), content).map_err(fault(Act::Write))
            });
        if filled.is_err() {
            // The failure that matters is the first one.
            let _ = remove(directory, &spot.temporary);
        }
        filled.map(|()| true)
    }

    /// Creates a directory, or gives one that is there the wanted owner and mode.
    #[inline(never)]
    fn directory(
        &self,
        spot: &Spot,
        change: &Change,
        label: &mut Labelling<'_>,
    ) -> Result<Begun, RootFault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || open(spot.directory.as_fd(), &spot.name, flags);
        let mut begun = Begun::Yes;
        let fd = match open() {
            Ok(fd) if self.is_as_wanted(fd.as_fd(), change, FileType::Directory)? => {
                return Ok(Begun::Not);
            }
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                // Nobody else may look inside before it has its owner.
                fs::mkdirat(&spot.directory, &*spot.name, Mode::RWXU)
                    .map_err(fault(Act::Create))?;
                begun = Begun::Made;
                open().map_err(fault(Act::Create))?
            }
            Err(errno) => return Err(fault(Act::Find)(errno)),
        };
        // Before it has its owner, for the same reason as the mode.
        if begun == Begun::Made || !labels::has_label(fd.as_fd()) {
            label.set(fd.as_fd(), spot.directory.as_fd());
        }
        self.own(fd.as_fd(), change, None)?;
        Ok(begun)
    }

    /// Sets mode and owner, and the attributes of what is replaced; tells whether a label was among them.
    fn own(
        &self,
        fd: BorrowedFd<'_>,
        change: &Change,
        old: Option<BorrowedFd<'_>>,
    ) -> Result<bool, RootFault> {
        let set_mode = || fs::fchmod(fd, Mode::from_raw_mode(change.mode)).map_err(fault(Act::Own));
        // Mode first: a directory that has its owner is taken as finished by the next run.
        set_mode()?;
        if self.owned {
            let (user, group) = change.owner;
            fs::fchown(fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
                .map_err(fault(Act::Own))?;
        }
        let Some(old) = old else {
            return Ok(false);
        };
        let has_label = copy_attributes(old, fd)?;
        // Again: an access list brings a mode of its own.
        set_mode()?;
        Ok(has_label)
    }

    fn is_as_wanted(
        &self,
        fd: BorrowedFd<'_>,
        change: &Change,
        kind: FileType,
    ) -> Result<bool, RootFault> {
        let stat = stat(fd, Act::Find)?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(RootFault {
                act: Act::WrongKind,
                errno: 0,
            });
        }
        Ok(stat.st_mode & 0o7777 == change.mode
            && (!self.owned || (stat.st_uid, stat.st_gid) == change.owner))
    }

    /// Takes the lock of the account files; the kernel gives it back when we end, however we end.
    ///
    /// The hard-link locks beside it (`passwd.lock`) are not made: each tool that makes them takes this
    /// lock too, and one left behind by a killed PID 1 would look held for ever.
    fn lock_accounts(&self, label: &mut Labelling<'_>) -> Result<OwnedFd, RootFault> {
        let spot = self.follow(ACCOUNT_LOCK)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open(spot.directory.as_fd(), &spot.name, flags).map_err(fault(Act::Lock))?;
        if !labels::has_label(fd.as_fd()) {
            label.set(fd.as_fd(), spot.directory.as_fd());
        }
        fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(fault(Act::Lock))?;
        Ok(fd)
    }
}

/// Opens a file or directory; one that is created is its owner's alone.
fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Opens the file that is to be replaced; not through a link, and without waiting for a pipe's other end.
fn open_file(directory: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, RootFault> {
    match open(directory, name, FILE_FLAGS | OFlags::NOFOLLOW) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(fault(Act::Find)(errno)),
    }
}

fn remove(directory: BorrowedFd<'_>, name: &CStr) -> Result<(), RootFault> {
    fs::unlinkat(directory, name, AtFlags::empty()).map_err(fault(Act::Remove))
}

fn exists(directory: BorrowedFd<'_>, name: &CStr) -> Result<bool, RootFault> {
    match fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(fault(Act::Find)(errno)),
    }
}

fn has_content(fd: BorrowedFd<'_>, content: &[u8]) -> Result<bool, RootFault> {
    let mut rest = content;
    let mut buffer = zeroize::Zeroizing::new([0_u8; 1024]);
    loop {
        let piece = &*content::read(fd, &mut *buffer).map_err(fault(Act::Read))?;
        match rest.strip_prefix(piece) {
            Some(more) if !piece.is_empty() => rest = more,
            Some(_) => return Ok(rest.is_empty()),
            None => return Ok(false),
        }
    }
}

/// Copies the security label and the other extended attributes of the file that is replaced.
///
/// Only the label must arrive: a system that enforces its policy refuses a login without it. Tells
/// whether there was one.
#[inline(never)]
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, RootFault> {
    const LABEL: &[u8] = labels::LABEL.to_bytes();
    let mut names = [0_u8; 1024];
    let length = match fs::flistxattr(from, &mut names) {
        Ok(length) => length,
        // A file system without them, or with more of them than anyone has.
        Err(Errno::OPNOTSUPP | Errno::RANGE) => 0,
        Err(errno) => return Err(fault(Act::Own)(errno)),
    };
    let mut has_label = false;
    let mut value = [0_u8; XATTR_MAX];
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        // Signatures and capabilities belong to the old content.
        if name.starts_with(b"security.") && name != LABEL && !name.starts_with(b"security.SMACK") {
            continue;
        }
        let copied = fs::fgetxattr(from, name, &mut value)
            .and_then(|length| fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()));
        if name == LABEL {
            copied.map_err(fault(Act::Own))?;
            has_label = true;
        }
    }
    Ok(has_label)
}
