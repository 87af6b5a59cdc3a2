//! Standard output and standard error, for the commands that a person calls.

use rustix::fd::BorrowedFd;
use rustix::fs::{fstat, major, minor};
use rustix::termios::isatty;

use super::content;

/// The number of `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);

/// Prints to standard output; tells whether it worked.
pub fn print(text: &str) -> bool {
    // SAFETY: nothing in this program closes standard output.
    let stdout = unsafe { BorrowedFd::borrow_raw(1) };
    content::write(stdout, text.as_bytes()).is_ok()
}

/// Tells whether standard error is somebody's terminal.
///
/// The console is nobody's: scripts of an initramfs have it for all they print, and the kernel's log is
/// shown there, too, and kept.
pub fn stderr_is_terminal() -> bool {
    // SAFETY: nothing in this program closes standard error.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let is_console = || {
        let number = fstat(stderr).map(|stat| (major(stat.st_rdev), minor(stat.st_rdev)));
        number == Ok(CONSOLE)
    };
    isatty(stderr) && !is_console()
}
