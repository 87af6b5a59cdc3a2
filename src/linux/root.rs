//! Files below a root.
//!
//! Every path goes through `openat2` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: whatever links an
//! image has, nothing outside the root is read or written. Not a decision maker: what to write is
//! `engine::plan`'s.

mod apply;
mod below;
mod cover;
mod labels;

use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use super::{content, path};
use crate::engine::plan::{Act, Change, Kind, RootFault, RootView, Stat, TEMPORARY};
pub use apply::Applied;
pub use below::{Below, NotMounted};

/// Most links that are followed to the file that is replaced, as in the kernel.
const LINKS_MAX: usize = 40;
/// Longest path that the kernel takes.
const PATH_MAX: usize = 4096;

/// An installed system below some directory.
pub struct Root {
    fd: OwnedFd,
    owned: bool,
}

/// The directory that holds a file, the file's name in it, and what it is called while it is written.
struct Spot {
    directory: OwnedFd,
    name: CString,
    temporary: CString,
}

impl Spot {
    fn new(directory: OwnedFd, name: &str) -> Result<Self, RootFault> {
        // The kernel is given the name without a root to stay in: it must be one, and lead nowhere.
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(fault(Act::Find)(Errno::ISDIR));
        }
        Ok(Self {
            directory,
            name: joined("", name)?,
            temporary: joined(TEMPORARY, name)?,
        })
    }
}

/// Makes a fault of what was tried out of an errno.
fn fault(act: Act) -> impl Fn(Errno) -> RootFault {
    move |errno| RootFault {
        act,
        errno: errno.raw_os_error(),
    }
}

/// Puts two pieces together, for the kernel.
fn joined(one: &str, two: &str) -> Result<CString, RootFault> {
    CString::new([one, two].concat()).map_err(|_| fault(Act::Find)(Errno::INVAL))
}

impl Root {
    /// Opens the root below `path`.
    pub fn open(path: &str) -> Result<Self, RootFault> {
        let fd = path::open(CWD, path, DIRECTORY_FLAGS).map_err(fault(Act::OpenRoot))?;
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

    /// Reads a file unless it is from before `since`, in seconds since 1970, or cannot be read.
    pub fn read_since(&self, path: &str, since: i64, limit: usize) -> Option<Vec<u8>> {
        let fd = self.open_in(path, FILE_FLAGS).ok()?;
        let changed = stat(fd.as_fd(), Act::Read).ok()?.st_mtime;
        if changed < since {
            return None;
        }
        self.read(path, limit).ok()?
    }

    /// Finds the directory and the name that a change really means, through links where they may be.
    fn spot(&self, change: &Change) -> Result<Spot, RootFault> {
        let (system, user) =
            change
                .path
                .split_at_checked(change.trusted)
                .ok_or(fault(Act::Find)(Errno::INVAL))?;
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
        Spot::new(directory, name)
    }

    /// Follows links to the end; the last name need not exist.
    fn follow(&self, path: &str) -> Result<Spot, RootFault> {
        let mut path = String::from(path);
        for _ in 0..LINKS_MAX {
            let whole = path.trim_end_matches('/');
            let (parent, name) = whole.rsplit_once('/').unwrap_or(("", whole));
            let spot = Spot::new(self.open_directory(parent)?, name)?;
            let mut buffer = [MaybeUninit::<u8>::uninit(); PATH_MAX];
            let target = match fs::readlinkat_raw(&spot.directory, &*spot.name, &mut buffer) {
                Ok((target, _)) => core::str::from_utf8(target),
                Err(Errno::INVAL | Errno::NOENT) => return Ok(spot),
                Err(errno) => return Err(fault(Act::Find)(errno)),
            };
            let target = target.map_err(|_| fault(Act::Find)(Errno::ILSEQ))?;
            path = if target.starts_with('/') {
                String::from(target)
            } else {
                // The kernel takes the `..` in it from the directory's real place, and stops at the root.
                [parent, "/", target].concat()
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
        let stat = stat(fd.as_fd(), Act::Read)?;
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
        let length = content::read(fd.as_fd(), &mut content)
            .map_err(fault(Act::Read))?
            .len();
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

    fn target(&self, path: &str) -> Result<Option<String>, RootFault> {
        let fd = match self.open_in(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(fault(Act::Find)(errno)),
        };
        let mut buffer = [MaybeUninit::<u8>::uninit(); PATH_MAX];
        match fs::readlinkat_raw(&fd, c"", &mut buffer) {
            Ok((target, _)) => match core::str::from_utf8(target) {
                Ok(target) => Ok(Some(String::from(target))),
                Err(_) => Err(fault(Act::Find)(Errno::ILSEQ)),
            },
            // What is opened is no link.
            Err(Errno::INVAL | Errno::NOENT) => Ok(None),
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

fn stat(fd: BorrowedFd<'_>, act: Act) -> Result<fs::Stat, RootFault> {
    fs::fstat(fd).map_err(fault(act))
}

/// Looks at what is open, and tells whether it is a link.
fn look(fd: BorrowedFd<'_>) -> Result<(Stat, bool), RootFault> {
    let stat = stat(fd, Act::Find)?;
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
    let path = joined("", path).map_err(|_| Errno::INVAL)?;
    let mut tries = 1;
    loop {
        match fs::openat2(directory, &*path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::identity::Identity;
    use crate::engine::plan::{self, Action, Context, Plan, Steps, TEMPORARY};
    use crate::wire::ovf;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, SystemTime};
    use std::{env, format, fs as host, process};

    /// A directory of its own for one test: `inside` is the root, `outside` must stay as it is.
    struct Scratch(PathBuf);

    impl Scratch {
        /// In memory where there is such a place: what is synced there does not wait for other writers.
        fn new() -> Self {
            let memory = Path::new("/dev/shm");
            if memory.is_dir() {
                Self::below(memory)
            } else {
                Self::below(&env::temp_dir())
            }
        }

        fn below(directory: &Path) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("preroot-test-{}-{number}", process::id()));
            host::create_dir_all(path.join("inside/etc")).unwrap();
            host::create_dir_all(path.join("outside/etc")).unwrap();
            for name in ["hostname", "passwd"] {
                host::write(path.join("outside").join(name), "keep").unwrap();
                host::write(path.join("outside/etc").join(name), "keep").unwrap();
            }
            Self(path)
        }

        fn inside(&self, path: &str) -> PathBuf {
            self.0.join("inside").join(path.trim_start_matches('/'))
        }

        fn outside(&self, path: &str) -> PathBuf {
            self.0.join("outside").join(path)
        }

        fn root(&self) -> Root {
            Root::open_unowned(self.inside("").to_str().unwrap()).unwrap()
        }

        fn text(&self, path: &str) -> String {
            host::read_to_string(self.inside(path)).unwrap()
        }

        fn apply(&self, changes: Vec<Change>) -> Result<Applied, (usize, RootFault)> {
            self.root().apply(&Plan {
                changes,
                ..Plan::default()
            })
        }

        #[track_caller]
        fn assert_outside_is_untouched(&self) {
            for name in ["hostname", "passwd", "etc/hostname", "etc/passwd"] {
                assert_eq!(
                    host::read_to_string(self.outside(name)).unwrap(),
                    "keep",
                    "{name}"
                );
            }
            assert_eq!(host::read_dir(self.outside("")).unwrap().count(), 3);
            assert_eq!(host::read_dir(self.outside("etc")).unwrap().count(), 2);
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = host::remove_dir_all(&self.0);
        }
    }

    fn change(path: &str, mode: u32, action: Action) -> Change {
        Change {
            path: path.into(),
            trusted: path.len(),
            owner: (0, 0),
            mode,
            action,
            purpose: String::new(),
        }
    }

    fn write(path: &str, content: &str) -> Change {
        change(
            path,
            0o644,
            Action::Write(content.as_bytes().to_vec().into()),
        )
    }

    /// A change below a home directory of which only the first `trusted` bytes are the system's.
    fn in_home(path: &str, trusted: &str, action: Action) -> Change {
        Change {
            trusted: trusted.len(),
            ..change(path, 0o600, action)
        }
    }

    fn errno(done: Result<Applied, (usize, RootFault)>) -> Option<Errno> {
        let (_, fault) = done.expect_err("it is refused");
        Some(Errno::from_raw_os_error(fault.errno)).filter(|_| fault.errno != 0)
    }

    /// Gives everything below a directory an old time, and tells later what got a new one.
    fn age(directory: &Path) {
        for entry in host::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                age(&path);
            }
            if !path.is_symlink() {
                let file = host::File::open(&path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
                    .unwrap();
            }
        }
    }

    fn touched(directory: &Path, out: &mut Vec<PathBuf>) {
        for entry in host::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                touched(&path, out);
            }
            if path.metadata().unwrap().mtime() != 1 {
                out.push(path);
            }
        }
    }

    #[test]
    fn written_file_has_content_and_mode_and_leaves_nothing_else() {
        let scratch = Scratch::new();
        let secret = change(
            "/etc/shadow-like",
            0o440,
            Action::Write(b"x\n".to_vec().into()),
        );
        let applied = scratch
            .apply(vec_of([write("/etc/hostname", "vm\n"), secret]))
            .unwrap();
        assert_eq!(
            applied,
            Applied {
                written: 2,
                unchanged: 0,
                relabel: String::new(),
            }
        );
        assert_eq!(scratch.text("etc/hostname"), "vm\n");
        let mode = |path| {
            scratch
                .inside(path)
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!(
            (mode("etc/hostname"), mode("etc/shadow-like")),
            (0o644, 0o440)
        );
        assert_eq!(host::read_dir(scratch.inside("etc")).unwrap().count(), 2);
    }

    fn vec_of<const N: usize>(changes: [Change; N]) -> Vec<Change> {
        changes.into_iter().collect()
    }

    #[test]
    fn owner_is_set_where_owners_count() {
        let scratch = Scratch::new();
        let root = Root::open(scratch.inside("").to_str().unwrap()).unwrap();
        // The one owner that every user may give.
        let own = scratch.inside("etc").metadata().unwrap();
        let owner = (own.uid(), own.gid());
        let plan = Plan {
            changes: vec_of([Change {
                owner,
                ..write("/etc/hostname", "vm\n")
            }]),
            ..Plan::default()
        };
        assert_eq!(root.apply(&plan).unwrap().written, 1);
        assert_eq!(root.stat("/etc/hostname").unwrap().unwrap().owner, owner);
        assert_eq!(root.apply(&plan).unwrap().unchanged, 1);
    }

    #[test]
    fn what_is_as_planned_keeps_its_time() {
        let scratch = Scratch::new();
        let changes = || {
            vec_of([
                write("/etc/hostname", "vm\n"),
                change("/etc/empty", 0o600, Action::Write(Vec::new().into())),
                change("/home", 0o755, Action::Directory),
                change("/etc/none", 0, Action::Remove),
            ])
        };
        assert_eq!(
            scratch.apply(changes()).unwrap(),
            Applied {
                written: 3,
                unchanged: 1,
                relabel: String::new(),
            }
        );
        age(&scratch.inside(""));
        assert_eq!(
            scratch.apply(changes()).unwrap(),
            Applied {
                written: 0,
                unchanged: 4,
                relabel: String::new(),
            }
        );
        let mut found = Vec::new();
        touched(&scratch.inside(""), &mut found);
        assert_eq!(found, [""; 0].map(PathBuf::from));
    }

    #[test]
    fn content_or_mode_that_differs_is_replaced() {
        for (content, mode) in [
            ("vm\n", 0o600),
            ("v", 0o644),
            ("vm\nlonger", 0o644),
            ("", 0o644),
        ] {
            let scratch = Scratch::new();
            let path = scratch.inside("etc/hostname");
            host::write(&path, content).unwrap();
            host::set_permissions(&path, host::Permissions::from_mode(mode)).unwrap();
            let old = path.metadata().unwrap().ino();
            assert_eq!(
                scratch
                    .apply(vec_of([write("/etc/hostname", "vm\n")]))
                    .unwrap()
                    .written,
                1
            );
            assert_eq!(scratch.text("etc/hostname"), "vm\n");
            assert_eq!(
                path.metadata().unwrap().permissions().mode() & 0o7777,
                0o644
            );
            // A new file took its place: whoever had the old one open still reads it whole.
            assert_ne!(path.metadata().unwrap().ino(), old);
        }
    }

    #[test]
    fn absolute_links_lead_inside_the_root() {
        let scratch = Scratch::new();
        let outside = scratch.outside("hostname");
        let outside = outside.to_str().unwrap();
        symlink(outside, scratch.inside("etc/hostname")).unwrap();
        let within = scratch.inside(outside);
        host::create_dir_all(within.parent().unwrap()).unwrap();
        scratch
            .apply(vec_of([write("/etc/hostname", "vm\n")]))
            .unwrap();
        assert_eq!(host::read_to_string(&within).unwrap(), "vm\n");
        assert!(scratch.inside("etc/hostname").is_symlink());
        assert_eq!(
            scratch.root().read("/etc/hostname", 99).unwrap().unwrap(),
            b"vm\n"
        );
        scratch.assert_outside_is_untouched();
    }

    #[test]
    fn links_up_and_out_stop_at_the_root() {
        let scratch = Scratch::new();
        host::write(scratch.inside("hostname"), "old").unwrap();
        symlink("../../../outside/hostname", scratch.inside("etc/hostname")).unwrap();
        // Inside the root the link means /outside/hostname, whose directory is not there.
        let done = scratch.apply(vec_of([write("/etc/hostname", "vm\n")]));
        assert_eq!(errno(done), Some(Errno::NOENT));
        host::create_dir(scratch.inside("outside")).unwrap();
        scratch
            .apply(vec_of([write("/etc/hostname", "vm\n")]))
            .unwrap();
        assert_eq!(scratch.text("outside/hostname"), "vm\n");
        scratch.assert_outside_is_untouched();
    }

    #[test]
    fn link_to_the_root_is_refused_before_another_root_is_taken_for_it() {
        for target in ["/", "//", "/.", "..", "../..", "../../etc/.."] {
            let scratch = Scratch::new();
            host::create_dir(scratch.inside("home")).unwrap();
            symlink(target, scratch.inside("home/ops")).unwrap();
            // Asked for as it is, the root of whoever runs this needs no change.
            let mode = host::metadata("/").unwrap().mode() & 0o7777;
            let done = scratch.apply([change("/home/ops", mode, Action::Directory)].into());
            assert_eq!(errno(done), Some(Errno::ISDIR), "{target}");
            let done = scratch.apply([write("/home/ops", "x")].into());
            assert_eq!(errno(done), Some(Errno::ISDIR), "{target}");
            assert!(scratch.inside("home/ops").is_symlink());
        }
    }

    #[test]
    fn linked_directories_stay_inside_the_root() {
        let scratch = Scratch::new();
        host::create_dir(scratch.inside("usr")).unwrap();
        symlink("../../../../../..", scratch.inside("usr/up")).unwrap();
        symlink(scratch.outside(""), scratch.inside("home")).unwrap();
        scratch
            .apply(vec_of([write("/usr/up/etc/passwd", "p\n")]))
            .unwrap();
        assert_eq!(scratch.text("etc/passwd"), "p\n");
        let done = scratch.apply(vec_of([write("/home/passwd", "p\n")]));
        assert_eq!(errno(done), Some(Errno::NOENT));
        scratch.assert_outside_is_untouched();
    }

    #[test]
    fn link_to_a_link_is_followed_to_its_end() {
        let scratch = Scratch::new();
        host::create_dir_all(scratch.inside("var/real")).unwrap();
        symlink("/var/second", scratch.inside("etc/hostname")).unwrap();
        symlink("real/name", scratch.inside("var/second")).unwrap();
        scratch
            .apply(vec_of([write("/etc/hostname", "vm\n")]))
            .unwrap();
        assert_eq!(scratch.text("var/real/name"), "vm\n");
    }

    #[test]
    fn links_in_a_circle_are_refused() {
        let scratch = Scratch::new();
        symlink("passwd", scratch.inside("etc/hostname")).unwrap();
        symlink("hostname", scratch.inside("etc/passwd")).unwrap();
        let done = scratch.apply(vec_of([write("/etc/hostname", "vm\n")]));
        assert_eq!(errno(done), Some(Errno::LOOP));
    }

    #[test]
    fn no_link_is_followed_where_a_user_may_have_put_it() {
        let scratch = Scratch::new();
        host::create_dir_all(scratch.inside("home/ops/real")).unwrap();
        host::write(scratch.inside("etc/passwd"), "keep").unwrap();
        let keys = || {
            in_home(
                "/home/ops/.ssh/keys",
                "/home/ops",
                Action::Write(b"k".to_vec().into()),
            )
        };

        symlink("real", scratch.inside("home/ops/.ssh")).unwrap();
        assert_eq!(errno(scratch.apply(vec_of([keys()]))), Some(Errno::LOOP));
        let directory = in_home("/home/ops/.ssh", "/home/ops", Action::Directory);
        assert!(errno(scratch.apply(vec_of([directory]))).is_some());

        host::remove_file(scratch.inside("home/ops/.ssh")).unwrap();
        host::create_dir(scratch.inside("home/ops/.ssh")).unwrap();
        symlink("../../../etc/passwd", scratch.inside("home/ops/.ssh/keys")).unwrap();
        assert_eq!(errno(scratch.apply(vec_of([keys()]))), Some(Errno::LOOP));
        assert_eq!(scratch.text("etc/passwd"), "keep");

        let up = in_home("/home/ops/../../etc/passwd", "/home/ops", Action::Remove);
        assert_eq!(errno(scratch.apply(vec_of([up]))), Some(Errno::XDEV));
        assert!(scratch.inside("etc/passwd").exists());
    }

    #[test]
    fn home_behind_a_link_of_the_system_is_reached() {
        let scratch = Scratch::new();
        host::create_dir_all(scratch.inside("var/home/ops")).unwrap();
        symlink("/var/home", scratch.inside("home")).unwrap();
        let changes = vec_of([
            in_home("/home/ops/.ssh", "/home/ops", Action::Directory),
            in_home(
                "/home/ops/.ssh/keys",
                "/home/ops",
                Action::Write(b"k".to_vec().into()),
            ),
        ]);
        scratch.apply(changes).unwrap();
        assert_eq!(scratch.text("var/home/ops/.ssh/keys"), "k");
    }

    #[test]
    fn left_over_of_a_killed_run_is_removed() {
        for content in ["vm\n", "other\n"] {
            let scratch = Scratch::new();
            let path = scratch.inside("etc/hostname");
            host::write(&path, content).unwrap();
            host::set_permissions(&path, host::Permissions::from_mode(0o644)).unwrap();
            host::write(scratch.inside("etc/.preroot-hostname"), "v").unwrap();
            scratch
                .apply(vec_of([write("/etc/hostname", "vm\n")]))
                .unwrap();
            assert_eq!(scratch.text("etc/hostname"), "vm\n");
            assert_eq!(host::read_dir(scratch.inside("etc")).unwrap().count(), 1);
        }
    }

    #[test]
    fn planted_temporary_name_is_not_written_through() {
        let scratch = Scratch::new();
        host::write(scratch.inside("etc/passwd"), "keep").unwrap();
        symlink("passwd", scratch.inside("etc/.preroot-hostname")).unwrap();
        scratch
            .apply(vec_of([write("/etc/hostname", "vm\n")]))
            .unwrap();
        assert_eq!(scratch.text("etc/passwd"), "keep");
        assert!(!scratch.inside("etc/hostname").is_symlink());
    }

    #[test]
    fn failure_anywhere_is_named_by_its_index_and_replaces_nothing() {
        let scratch = Scratch::new();
        let changes = vec_of([
            write("/etc/one", "1"),
            write("/missing/two", "2"),
            write("/etc/three", "3"),
        ]);
        let fault = RootFault {
            act: Act::Find,
            errno: 2,
        };
        assert_eq!(scratch.apply(changes), Err((1, fault)));
        assert_eq!(host::read_dir(scratch.inside("etc")).unwrap().count(), 0);
    }

    #[test]
    fn failed_write_leaves_the_old_file_and_no_temporary_one() {
        let scratch = Scratch::new();
        host::create_dir(scratch.inside("etc/hostname")).unwrap();
        let done = scratch.apply(vec_of([write("/etc/hostname", "vm\n")]));
        assert_eq!(
            done,
            Err((
                0,
                RootFault {
                    act: Act::WrongKind,
                    errno: 0
                }
            ))
        );
        assert!(scratch.inside("etc/hostname").is_dir());
        assert_eq!(host::read_dir(scratch.inside("etc")).unwrap().count(), 1);
    }

    #[test]
    fn pipe_in_place_of_a_file_is_refused_without_waiting() {
        let scratch = Scratch::new();
        let path = scratch.inside("etc/hostname");
        fs::mkfifoat(fs::CWD, path.to_str().unwrap(), Mode::RUSR | Mode::WUSR).unwrap();
        let done = scratch.apply(vec_of([write("/etc/hostname", "vm\n")]));
        assert_eq!(
            done,
            Err((
                0,
                RootFault {
                    act: Act::WrongKind,
                    errno: 0
                }
            ))
        );
        let read = scratch.root().read("/etc/hostname", 99);
        assert_eq!(
            read,
            Err(RootFault {
                act: Act::WrongKind,
                errno: 0
            })
        );
        assert!(path.metadata().unwrap().file_type().is_fifo());
    }

    #[test]
    fn attributes_of_the_replaced_file_are_copied() {
        let scratch = Scratch::below(&env::temp_dir());
        let path = scratch.inside("etc/hostname");
        host::write(&path, "old").unwrap();
        match fs::setxattr(
            path.to_str().unwrap(),
            "user.mine",
            b"yes",
            fs::XattrFlags::empty(),
        ) {
            // Not on this file system.
            Err(Errno::OPNOTSUPP) => return,
            done => done.unwrap(),
        }
        scratch
            .apply(vec_of([write("/etc/hostname", "vm\n")]))
            .unwrap();
        let mut value = [0; 8];
        assert_eq!(
            fs::getxattr(path.to_str().unwrap(), "user.mine", &mut value),
            Ok(3)
        );
        assert_eq!(&value[..3], b"yes");
    }

    #[test]
    fn access_lists_go_to_the_new_file_and_capabilities_do_not() {
        let scratch = Scratch::below(&env::temp_dir());
        let path = scratch.inside("etc/hostname");
        host::write(&path, "old").unwrap();
        let path = path.to_str().unwrap();
        // Version 2, then user::rw- user:12:r-- group::r-- mask::r-- other::r--.
        let list = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x0c\0\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
        // Version 2, CAP_NET_RAW, permitted and effective.
        let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let set = |name, value: &[u8]| fs::setxattr(path, name, value, fs::XattrFlags::empty());
        let has_list = set("system.posix_acl_access", list).is_ok();
        let has_capability = set("security.capability", capability).is_ok();
        scratch
            .apply(vec_of([write("/etc/hostname", "vm\n")]))
            .unwrap();
        let mut value = [0; 64];
        if has_list {
            let length = fs::getxattr(path, "system.posix_acl_access", &mut value).unwrap();
            assert_eq!(&value[..length], list);
        }
        if has_capability {
            let found = fs::getxattr(path, "security.capability", &mut value);
            assert_eq!(found, Err(Errno::NODATA));
        }
    }

    #[test]
    fn failure_leaves_no_directory_that_was_not_there() {
        let scratch = Scratch::new();
        host::create_dir(scratch.inside("srv")).unwrap();
        let changes = vec_of([
            change("/srv", 0o700, Action::Directory),
            change("/home", 0o755, Action::Directory),
            change("/home/ops", 0o700, Action::Directory),
            write("/home/ops/file", "1"),
            write("/missing/two", "2"),
        ]);
        assert_eq!(errno(scratch.apply(changes)), Some(Errno::NOENT));
        assert!(!scratch.inside("home").exists());
        assert!(scratch.inside("srv").exists());
    }

    #[test]
    fn stale_locks_of_others_stop_nothing() {
        let scratch = Scratch::new();
        // What vipw and useradd leave when they are killed: a number, and links to their own files.
        for name in ["passwd.lock", "shadow.lock", "group.lock", "gshadow.lock"] {
            host::write(scratch.inside("etc").join(name), "4194305\0").unwrap();
        }
        host::write(scratch.inside("etc/passwd.4194305"), "4194305\0").unwrap();
        host::write(scratch.inside("etc/ptmp"), "").unwrap();
        host::write(scratch.inside("etc/.pwd.lock"), "").unwrap();
        let done = scratch.apply(vec_of([write("/etc/passwd", "p\n")]));
        assert_eq!(done.unwrap().written, 1);
        assert_eq!(scratch.text("etc/passwd"), "p\n");
    }

    #[test]
    fn lock_that_somebody_holds_is_named_at_once() {
        let scratch = Scratch::new();
        let lock = host::File::create(scratch.inside("etc/.pwd.lock")).unwrap();
        // Locks of this kind are a process's own: another one has to hold it.
        let Some(mut holder) = hold(&lock) else {
            return;
        };
        let done = scratch.apply(vec_of([write("/etc/passwd", "p\n")]));
        holder.kill().unwrap();
        holder.wait().unwrap();
        let (index, fault) = done.unwrap_err();
        assert_eq!((index, fault.act), (0, Act::Lock));
        assert_eq!(host::read_dir(scratch.inside("etc")).unwrap().count(), 1);
    }

    /// Lets perl hold a lock of the whole file, as lckpwdf(3) does.
    fn hold(lock: &host::File) -> Option<process::Child> {
        use std::io::Read as _;
        let program = "use Fcntl; open(F, '+<&=', 0); $b = pack('ssx4qqlx4', F_WRLCK, 0, 0, 0, 0); \
                       fcntl(F, F_SETLK, $b) or die; $| = 1; print 'x'; sleep 60";
        let mut perl = process::Command::new("perl")
            .args(["-e", program])
            .stdin(lock.try_clone().unwrap())
            .stdout(process::Stdio::piped())
            .spawn()
            .ok()?;
        let mut said = [0];
        perl.stdout.take()?.read_exact(&mut said).unwrap();
        Some(perl)
    }

    #[test]
    fn reading_is_bounded_and_absence_is_no_fault() {
        let scratch = Scratch::new();
        host::write(scratch.inside("etc/hostname"), "12345").unwrap();
        let root = scratch.root();
        assert_eq!(root.read("/etc/hostname", 5).unwrap().unwrap(), b"12345");
        let fault = RootFault {
            act: Act::ReadLarge,
            errno: 0,
        };
        assert_eq!(root.read("/etc/hostname", 4), Err(fault));
        assert_eq!(root.read("/etc/none", 4), Ok(None));
        assert_eq!(root.read("/etc/hostname/none", 4), Ok(None));
        assert_eq!(root.stat("/none"), Ok(None));
        assert_eq!(root.is_link("/none"), Ok(false));
        assert_eq!(
            root.list("/none", &mut |_| panic!("nothing is there")),
            Ok(())
        );
        let found = root.stat("/etc/hostname").unwrap().unwrap();
        assert_eq!((found.kind, found.size), (Kind::File, 5));
        assert_eq!(root.stat("/").unwrap().unwrap().kind, Kind::Directory);
        let missing = Root::open("/nonexistent/root").err().unwrap();
        assert_eq!(
            missing,
            RootFault {
                act: Act::OpenRoot,
                errno: 2
            }
        );
    }

    #[test]
    fn list_names_every_entry_of_a_large_directory_once() {
        let scratch = Scratch::new();
        for number in 0..300 {
            host::write(
                scratch.inside(&format!("etc/entry-with-a-long-name-{number}")),
                "",
            )
            .unwrap();
        }
        let mut names = std::collections::BTreeSet::new();
        scratch
            .root()
            .list("/etc", &mut |name| {
                assert!(names.insert(String::from(name)));
            })
            .unwrap();
        assert_eq!(names.len(), 300);
    }

    fn copy_tree(from: &Path, to: &Path) {
        host::create_dir_all(to).unwrap();
        for entry in host::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                copy_tree(&path, &target);
            } else {
                host::copy(&path, &target).unwrap();
            }
        }
    }

    /// A Debian root on disk, and the identity of a user with a key.
    fn debian() -> (Scratch, Identity) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let scratch = Scratch::new();
        copy_tree(&data.join("roots/debian"), &scratch.inside(""));
        host::create_dir_all(scratch.inside("etc/sudoers.d")).unwrap();
        let document = host::read(data.join("identity/keys-only.xml")).unwrap();
        let disc = ovf::parse(&document).ok().unwrap();
        (scratch, Identity::new(Some(disc), None).ok().unwrap())
    }

    const CONTEXT: Context<'static> = Context {
        vm_id: "a-b",
        today_days: 20_000,
        salt: [0; 16],
        host_key_seed: None,
        steps: Steps::ALL,
        settings: crate::engine::plan::Settings::DEFAULT,
        output: crate::engine::plan::Output::Files,
    };

    #[test]
    fn applied_plan_leaves_nothing_to_plan_or_to_write() {
        let (scratch, identity) = debian();
        let root = scratch.root();
        let plan = plan::plan(&identity, &root, &CONTEXT).ok().unwrap();
        let applied = root.apply(&plan).unwrap();
        assert_eq!(applied.written as usize, plan.changes.len());
        assert!(
            scratch
                .text("etc/passwd")
                .contains("\nopsadmin:x:1000:1000::/home/opsadmin:")
        );
        assert!(
            plan::plan(&identity, &root, &CONTEXT)
                .ok()
                .unwrap()
                .is_empty()
        );
        age(&scratch.inside(""));
        assert_eq!(root.apply(&plan).unwrap().written, 0);
        let mut found = Vec::new();
        touched(&scratch.inside(""), &mut found);
        // Taking the lock of the account files is no change.
        assert_eq!(found, [""; 0].map(PathBuf::from));
    }

    #[test]
    fn what_is_not_there_is_not_covered() {
        let scratch = Scratch::new();
        let from = scratch.inside("etc/none");
        let root = scratch.root();
        let act = |path: &str| root.cover(path, from.to_str().unwrap()).unwrap_err().act;
        assert_eq!(act("/etc/hostname"), Act::Find);
        host::write(scratch.inside("etc/hostname"), "image\n").unwrap();
        assert_eq!(act("/etc/hostname"), Act::Cover);
    }

    #[test]
    fn every_prefix_of_a_plan_with_half_a_file_behind_it_is_finished_by_the_next() {
        let (whole, identity) = debian();
        let plan = plan::plan(&identity, &whole.root(), &CONTEXT).ok().unwrap();
        whole.root().apply(&plan).unwrap();
        for cut in 0..plan.changes.len() {
            let (scratch, _) = debian();
            let root = scratch.root();
            let mut first = plan::plan(&identity, &root, &CONTEXT).ok().unwrap();
            let next = first.changes.split_off(cut);
            root.apply(&first).unwrap();
            // Directories have no temporary names.
            if matches!(next[0].action, Action::Write(_)) {
                let (parent, name) = next[0].path.rsplit_once('/').unwrap();
                let half = scratch.inside(parent).join(format!("{TEMPORARY}{name}"));
                host::write(half, "ha").unwrap();
            }
            // The clock and the random source do not stand still.
            let context = Context {
                salt: [9; 16],
                host_key_seed: None,
                ..CONTEXT
            };
            root.apply(&plan::plan(&identity, &root, &context).ok().unwrap())
                .unwrap();
            for change in &plan.changes {
                if let Action::Write(content) = &change.action {
                    let found = host::read(scratch.inside(&change.path)).unwrap();
                    assert_eq!(found, **content, "{} cut at {cut}", change.path);
                }
            }
            let mut directories = Vec::from([scratch.inside("")]);
            while let Some(directory) = directories.pop() {
                for entry in host::read_dir(directory).unwrap() {
                    let path = entry.unwrap().path();
                    let name = path.file_name().unwrap().to_str().unwrap();
                    assert!(!name.starts_with(TEMPORARY), "{path:?} cut at {cut}");
                    if path.is_dir() {
                        directories.push(path);
                    }
                }
            }
        }
    }
}
