//! Small files of the running system: `/proc`, `/sys`, `/run`.
//!
//! Not for files of the real root: those are `root`'s.

use core::ffi::CStr;

use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{self, Errno};

use super::{content, path, sysfs};

/// The kernel's command line is never longer.
pub const MAX_COMMAND_LINE: usize = 4096;

/// For root only.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Reads a file into `buffer`; what does not fit is left out. `None` if it cannot be read.
pub fn read<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    sysfs::read(CWD, path, buffer).ok()
}

/// Reads the kernel's command line; empty when there is no `/proc`.
pub fn command_line(buffer: &mut [u8; MAX_COMMAND_LINE]) -> &[u8] {
    read("/proc/cmdline", buffer).unwrap_or_default()
}

/// Tells whether there is something.
pub fn exists(path: &str) -> bool {
    path::open(CWD, path, OFlags::PATH).is_ok()
}

/// Makes a directory, or finds it made; tells whether it is there.
pub fn make_directory(path: &str) -> bool {
    matches!(path::make_directory(CWD, path), Ok(()) | Err(Errno::EXIST))
}

/// Removes an empty directory; one that is not empty, or is no directory, stays.
pub fn remove_directory(path: &str) {
    let _ = path::terminated(path).and_then(|path| rustix::fs::rmdir(path.as_c_str()));
}

/// Removes a file, if it is there.
pub fn remove_file(path: &CStr) {
    let _ = rustix::fs::unlink(path);
}

/// Opens a directory, for what is named by its descriptor.
pub fn open_directory(path: &str) -> Option<OwnedFd> {
    path::open(CWD, path, OFlags::PATH | OFlags::DIRECTORY).ok()
}

/// Writes a file that only root may read, and the directory that it lies in.
///
/// A reader sees the old or the new content, never half of it. Tells whether it worked.
pub fn write_private(directory: &str, name: &str, content: &[u8]) -> bool {
    make_directory(directory) && replace(directory, name, content, PRIVATE).is_ok()
}

/// Writes a file that everybody may read, and the directories that it lies in; one that is as wanted is
/// left alone. Tells whether it is there.
pub fn write_public(path: &str, content: &[u8]) -> bool {
    for (at, _) in path.match_indices('/').skip(1) {
        make_directory(path.get(..at).unwrap_or_default());
    }
    let Some((directory, name)) = path.rsplit_once('/') else {
        return false;
    };
    let mut buffer = alloc::vec![0; content.len().saturating_add(1)];
    read(path, &mut buffer) == Some(content)
        || replace(directory, name, content, Mode::from_raw_mode(0o644)).is_ok()
}

fn replace(directory: &str, name: &str, text: &[u8], mode: Mode) -> io::Result<()> {
    const TEMPORARY: &str = ".new";
    let directory = sysfs::open_directory(CWD, directory)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let file = path::open(directory.as_fd(), TEMPORARY, flags)?;
    rustix::fs::fchmod(&file, mode)?;
    content::write(file.as_fd(), text)?;
    let (old, new) = (path::terminated(TEMPORARY)?, path::terminated(name)?);
    rustix::fs::renameat(&directory, old.as_c_str(), &directory, new.as_c_str())
}
