//! Paths as texts, for calls of the kernel that want them to end with a NUL.
//!
//! Given a text, rustix copies it into 4 KiB on the stack of whoever calls, by code that is there once
//! for each call. Here it is copied to the heap, in one place.

use alloc::ffi::CString;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{self, Errno};

/// Ends a path with a NUL; one that holds a NUL is refused as rustix does.
pub(super) fn terminated(path: &str) -> io::Result<CString> {
    CString::new(path).map_err(|_| Errno::INVAL)
}

/// Opens what `path` leads to from `at`, for this program only; what is created belongs to its owner.
pub(super) fn open(at: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let path = terminated(path)?;
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::openat(at, path.as_c_str(), flags | OFlags::CLOEXEC, mode)
}

/// Makes a directory that everybody may enter.
pub(super) fn make_directory(at: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let path = terminated(path)?;
    rustix::fs::mkdirat(at, path.as_c_str(), Mode::from_raw_mode(0o755))
}
