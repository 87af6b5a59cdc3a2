//! Files below a root.
//!
//! Every path goes through `openat2` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: whatever links an
//! image has, nothing outside the root is read or written. Not a decision maker: what to write is
//! `engine::plan`'s. One function writes files (house rule C8): temporary name in the same directory,
//! owner, mode and labels first, data, fsync, rename, fsync of the directory.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    self, AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, RawDir, ResolveFlags, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::engine::plan::{Act, Action, Change, Kind, Plan, RootFault, RootView, Stat};

/// Most links that are followed to the file that is replaced, as in the kernel.
const LINKS_MAX: usize = 40;
/// Longest path that the kernel takes.
const PATH_MAX: usize = 4096;
/// What temporary files start with; sudo and others skip such names, and a later run knows them.
const TEMPORARY: &str = ".preroot-";
/// Largest label or other extended attribute that is copied.
const XATTR_MAX: usize = 4096;

/// The file whose lock all tools for account files take, in the C library's protocol.
const ACCOUNT_LOCK: &str = "/etc/.pwd.lock";
/// The files that this lock is for.
const ACCOUNTS: [&str; 6] = [
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/subgid",
];

/// An installed system below some directory.
pub struct Root {
    fd: OwnedFd,
    owned: bool,
}

/// What became of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Files and directories that were written, or removed.
    pub written: u32,
    /// Those that were as planned already.
    pub unchanged: u32,
}

/// The directory that holds a file, and the file's name in it.
struct Spot {
    directory: OwnedFd,
    name: String,
}

/// Makes a fault of what was tried out of an errno.
fn fault(act: Act) -> impl Fn(Errno) -> RootFault {
    move |errno| RootFault {
        act,
        errno: errno.raw_os_error(),
    }
}

impl Root {
    /// Opens the root below `path`.
    pub fn open(path: &str) -> Result<Self, RootFault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(fault(Act::OpenRoot))?;
        Ok(Self { fd, owned: true })
    }

    /// Opens a root whose files all belong to the caller: owners are neither set nor compared.
    ///
    /// For trying things out on a directory without being root.
    pub fn open_unowned(path: &str) -> Result<Self, RootFault> {
        Ok(Self {
            owned: false,
            ..Self::open(path)?
        })
    }

    /// Brings everything below the root to the disk.
    pub fn sync(&self) -> Result<(), RootFault> {
        fs::syncfs(&self.fd).map_err(fault(Act::Sync))
    }

    /// Makes a plan true, in its order; stops at the first failure and tells which change it was.
    ///
    /// What is already as planned is not touched. Killed at any point, the same plan made again
    /// finishes the work and removes what was left over.
    pub fn apply(&self, plan: &Plan) -> Result<Applied, (usize, RootFault)> {
        let mut applied = Applied::default();
        let mut lock = None;
        for (index, change) in plan.changes.iter().enumerate() {
            let done = (|| {
                if lock.is_none() && ACCOUNTS.contains(&change.path.as_str()) {
                    lock = Some(self.lock_accounts()?);
                }
                self.apply_one(change)
            })();
            match done {
                Ok(true) => applied.written += 1,
                Ok(false) => applied.unchanged += 1,
                Err(fault) => return Err((index, fault)),
            }
        }
        Ok(applied)
    }

    /// Makes one change; tells whether there was anything to do.
    fn apply_one(&self, change: &Change) -> Result<bool, RootFault> {
        let spot = self.spot(change)?;
        match &change.action {
            Action::Write(content) => self.write(&spot, change, content),
            Action::Directory => self.directory(&spot, change),
            Action::Remove => match fs::unlinkat(&spot.directory, &*spot.name, AtFlags::empty()) {
                Ok(()) => fs::fsync(&spot.directory)
                    .map_err(fault(Act::Sync))
                    .map(|()| true),
                Err(Errno::NOENT) => Ok(false),
                Err(errno) => Err(fault(Act::Remove)(errno)),
            },
        }
    }

    /// Replaces a file, unless it is as wanted.
    fn write(&self, spot: &Spot, change: &Change, content: &[u8]) -> Result<bool, RootFault> {
        let directory = spot.directory.as_fd();
        let temporary = format!("{TEMPORARY}{}", spot.name);
        // Whoever wrote this was killed; its content may be half.
        let left_over = match fs::unlinkat(directory, &*temporary, AtFlags::empty()) {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(fault(Act::Remove)(errno)),
        };

        let old = open_file(directory, &spot.name)?;
        if let Some(old) = &old
            && self.is_as_wanted(old.as_fd(), change, FileType::RegularFile)?
            && has_content(old.as_fd(), content)?
        {
            if left_over {
                fs::fsync(directory).map_err(fault(Act::Sync))?;
            }
            return Ok(false);
        }

        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = fs::openat(directory, &*temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(fault(Act::Create))?;
        let filled = (|| {
            self.own(new.as_fd(), change, old.as_ref().map(AsFd::as_fd))?;
            write_all(new.as_fd(), content)?;
            fs::fsync(&new).map_err(fault(Act::Sync))?;
            fs::renameat(directory, &*temporary, directory, &*spot.name)
                .map_err(fault(Act::Replace))
        })();
        if filled.is_err() {
            // The failure that matters is the first one.
            let _ = fs::unlinkat(directory, &*temporary, AtFlags::empty());
        }
        filled?;
        fs::fsync(directory).map_err(fault(Act::Sync))?;
        Ok(true)
    }

    /// Creates a directory, or gives one that is there the wanted owner and mode.
    fn directory(&self, spot: &Spot, change: &Change) -> Result<bool, RootFault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || fs::openat(&spot.directory, &*spot.name, flags, Mode::empty());
        let fd = match open() {
            Ok(fd) if self.is_as_wanted(fd.as_fd(), change, FileType::Directory)? => {
                return Ok(false);
            }
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                // Nobody else may look inside before it has its owner.
                fs::mkdirat(&spot.directory, &*spot.name, Mode::RWXU)
                    .map_err(fault(Act::Create))?;
                open().map_err(fault(Act::Create))?
            }
            Err(errno) => return Err(fault(Act::Find)(errno)),
        };
        self.own(fd.as_fd(), change, None)?;
        fs::fsync(&fd).map_err(fault(Act::Sync))?;
        fs::fsync(&spot.directory).map_err(fault(Act::Sync))?;
        Ok(true)
    }

    /// Sets owner, the attributes of what is replaced, and the mode.
    fn own(
        &self,
        fd: BorrowedFd<'_>,
        change: &Change,
        old: Option<BorrowedFd<'_>>,
    ) -> Result<(), RootFault> {
        if self.owned {
            let (user, group) = change.owner;
            fs::fchown(fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
                .map_err(fault(Act::Own))?;
        }
        if let Some(old) = old {
            copy_attributes(old, fd)?;
        }
        // Last: a change of owner clears bits, and an access list brings its own.
        fs::fchmod(fd, Mode::from_raw_mode(change.mode)).map_err(fault(Act::Own))
    }

    fn is_as_wanted(
        &self,
        fd: BorrowedFd<'_>,
        change: &Change,
        kind: FileType,
    ) -> Result<bool, RootFault> {
        let stat = fs::fstat(fd).map_err(fault(Act::Find))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(RootFault {
                act: Act::WrongKind,
                errno: 0,
            });
        }
        Ok(stat.st_mode & 0o7777 == change.mode
            && (!self.owned || (stat.st_uid, stat.st_gid) == change.owner))
    }

    /// Finds the directory and the name that a change really means, through links where they may be.
    fn spot(&self, change: &Change) -> Result<Spot, RootFault> {
        let (system, user) = change
            .path
            .split_at_checked(change.trusted)
            .ok_or(RootFault {
                act: Act::Find,
                errno: Errno::INVAL.raw_os_error(),
            })?;
        let user = user.trim_start_matches('/');
        if user.is_empty() {
            return self.follow(system);
        }
        let home = self.open_directory(system)?;
        let (parent, name) = user.rsplit_once('/').unwrap_or((".", user));
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let directory =
            openat2(home.as_fd(), parent, DIRECTORY_FLAGS, resolve).map_err(fault(Act::Find))?;
        Ok(Spot {
            directory,
            name: String::from(name),
        })
    }

    /// Follows links to the end; the last name need not exist.
    fn follow(&self, path: &str) -> Result<Spot, RootFault> {
        let mut path = String::from(path);
        for _ in 0..LINKS_MAX {
            let (parent, name) = path
                .trim_end_matches('/')
                .rsplit_once('/')
                .unwrap_or(("", &path));
            if matches!(name, "" | "." | "..") {
                return Err(fault(Act::Find)(Errno::ISDIR));
            }
            let directory = self.open_directory(parent)?;
            let mut buffer = [MaybeUninit::<u8>::uninit(); PATH_MAX];
            let target = match fs::readlinkat_raw(&directory, name, &mut buffer) {
                Ok((target, _)) => core::str::from_utf8(target),
                Err(Errno::INVAL | Errno::NOENT) => {
                    return Ok(Spot {
                        directory,
                        name: String::from(name),
                    });
                }
                Err(errno) => return Err(fault(Act::Find)(errno)),
            };
            let target = target.map_err(|_| fault(Act::Find)(Errno::ILSEQ))?;
            path = if target.starts_with('/') {
                String::from(target)
            } else {
                // The kernel takes the `..` in it from the directory's real place, and stops at the root.
                format!("{parent}/{target}")
            };
        }
        Err(fault(Act::Find)(Errno::LOOP))
    }

    fn open_directory(&self, path: &str) -> Result<OwnedFd, RootFault> {
        self.open_in(if path.is_empty() { "/" } else { path }, DIRECTORY_FLAGS)
            .map_err(fault(Act::Find))
    }

    fn open_in(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        openat2(
            self.fd.as_fd(),
            path,
            flags,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Takes the lock of the account files; the kernel gives it back when we end, however we end.
    ///
    /// The hard-link locks beside it (`passwd.lock`) are not made: each tool that makes them takes this
    /// lock too, and one left behind by a killed PID 1 would look held for ever.
    fn lock_accounts(&self) -> Result<OwnedFd, RootFault> {
        let spot = self.follow(ACCOUNT_LOCK)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&spot.directory, &*spot.name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(fault(Act::Lock))?;
        fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(fault(Act::Lock))?;
        Ok(fd)
    }
}

const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

impl RootView for Root {
    fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, RootFault> {
        let fd = match self.open_in(path, FILE_FLAGS) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(fault(Act::Read)(errno)),
        };
        let stat = fs::fstat(&fd).map_err(fault(Act::Read))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(RootFault {
                act: Act::WrongKind,
                errno: 0,
            });
        }
        let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        if size > limit {
            return Err(RootFault {
                act: Act::ReadLarge,
                errno: 0,
            });
        }
        // One allocation of the right size: a growing one would leave copies of shadow behind.
        let mut content = alloc::vec![0; size];
        let length = read_full(fd.as_fd(), &mut content)?;
        content.truncate(length);
        Ok(Some(content))
    }

    fn stat(&self, path: &str) -> Result<Option<Stat>, RootFault> {
        match self.open_in(path, OFlags::PATH | OFlags::CLOEXEC) {
            Ok(fd) => Ok(Some(look(fd.as_fd())?.0)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(fault(Act::Find)(errno)),
        }
    }

    fn is_link(&self, path: &str) -> Result<bool, RootFault> {
        match self.open_in(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
            Ok(fd) => Ok(look(fd.as_fd())?.1),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(fault(Act::Find)(errno)),
        }
    }

    fn list(&self, directory: &str, each: &mut dyn FnMut(&str)) -> Result<(), RootFault> {
        let fd = match self.open_in(directory, DIRECTORY_FLAGS) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(fault(Act::List)(errno)),
        };
        let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(fault(Act::List))?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => each(name),
            }
        }
        Ok(())
    }
}

/// Looks at what is open, and tells whether it is a link.
fn look(fd: BorrowedFd<'_>) -> Result<(Stat, bool), RootFault> {
    let stat = fs::fstat(fd).map_err(fault(Act::Find))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let found = Stat {
        kind: match kind {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            _ => Kind::Other,
        },
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        device: stat.st_dev,
    };
    Ok((found, kind == FileType::Symlink))
}

/// `openat2` that goes on when the kernel saw a rename beside it and gave up.
fn openat2(
    directory: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    const TRIES: usize = 16;
    for _ in 1..TRIES {
        match fs::openat2(directory, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
    fs::openat2(directory, path, flags, Mode::empty(), resolve)
}

/// Opens the file that is to be replaced; not through a link, and without waiting for a pipe's other end.
fn open_file(directory: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, RootFault> {
    match fs::openat(
        directory,
        name,
        FILE_FLAGS | OFlags::NOFOLLOW,
        Mode::empty(),
    ) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(fault(Act::Find)(errno)),
    }
}

fn has_content(fd: BorrowedFd<'_>, content: &[u8]) -> Result<bool, RootFault> {
    let mut rest = content;
    let mut buffer = zeroize::Zeroizing::new([0_u8; 1024]);
    loop {
        let length = read_full(fd, &mut *buffer)?;
        let piece = buffer.get(..length).unwrap_or_default();
        match rest.strip_prefix(piece) {
            Some(more) if length > 0 => rest = more,
            Some(_) => return Ok(rest.is_empty()),
            None => return Ok(false),
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, RootFault> {
    let mut length = 0;
    while length < buffer.len() {
        match rustix::io::read(fd, &mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(fault(Act::Read)(errno)),
        }
    }
    Ok(length)
}

fn write_all(fd: BorrowedFd<'_>, mut content: &[u8]) -> Result<(), RootFault> {
    while !content.is_empty() {
        match rustix::io::write(fd, content) {
            Ok(done) => content = &content[done..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(fault(Act::Write)(errno)),
        }
    }
    Ok(())
}

/// Copies the security label and the other extended attributes of the file that is replaced.
///
/// Only the label must arrive: a system that enforces its policy refuses a login without it.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), RootFault> {
    const LABEL: &[u8] = b"security.selinux";
    let mut names = [0_u8; 1024];
    let length = match fs::flistxattr(from, &mut names) {
        Ok(length) => length,
        // A file system without them, or with more of them than anyone has.
        Err(Errno::OPNOTSUPP | Errno::RANGE) => 0,
        Err(errno) => return Err(fault(Act::Own)(errno)),
    };
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
        }
    }
    Ok(())
}
