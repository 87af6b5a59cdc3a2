//! Small files of the running system: `/proc`, `/sys`, `/run`.
//!
//! Not for files of the real root: those are `root`'s.

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// The kernel's command line is never longer.
pub const MAX_COMMAND_LINE: usize = 4096;

/// Reads a file into `buffer`; what does not fit is left out. `None` if it cannot be read.
pub fn read<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let file =
        rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(&file, buffer.get_mut(filled..)?) {
            Ok(0) => break,
            Ok(count) => filled = filled.checked_add(count)?,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    buffer.get(..filled)
}

/// Reads the kernel's command line; empty when there is no `/proc`.
pub fn command_line(buffer: &mut [u8; MAX_COMMAND_LINE]) -> &[u8] {
    read("/proc/cmdline", buffer).unwrap_or_default()
}

/// Makes a directory, or finds it made; tells whether it is there.
pub fn make_directory(path: &str) -> bool {
    matches!(
        rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)),
        Ok(()) | Err(Errno::EXIST)
    )
}

/// Removes an empty directory; one that is not empty, or is no directory, stays.
pub fn remove_directory(path: &str) {
    let _ = rustix::fs::rmdir(path);
}

/// Opens a directory, for what is named by its descriptor.
pub fn open_directory(path: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

/// Writes a file that only root may read, and the directory that it lies in.
///
/// A reader sees the old or the new content, never half of it. Tells whether it worked.
pub fn write_private(directory: &str, name: &str, content: &[u8]) -> bool {
    if !make_directory(directory) {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::openat(CWD, directory, flags, Mode::empty()) else {
        return false;
    };
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let temporary = ".new";
    let Ok(file) = rustix::fs::openat(&directory, temporary, flags, Mode::from_raw_mode(0o600))
    else {
        return false;
    };
    let mut rest = content;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    rustix::fs::renameat(&directory, temporary, &directory, name).is_ok()
}
