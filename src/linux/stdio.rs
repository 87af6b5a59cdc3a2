//! Standard output and standard error, for the commands that a person calls.

use rustix::fd::BorrowedFd;
use rustix::termios::isatty;

use super::content;

/// Prints to standard output; tells whether it worked.
pub fn print(text: &str) -> bool {
    // SAFETY: nothing in this program closes standard output.
    let stdout = unsafe { BorrowedFd::borrow_raw(1) };
    content::write(stdout, text.as_bytes()).is_ok()
}

/// Tells whether somebody sits behind standard error.
pub fn stderr_is_terminal() -> bool {
    // SAFETY: nothing in this program closes standard error.
    isatty(unsafe { BorrowedFd::borrow_raw(2) })
}
