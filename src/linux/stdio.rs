//! Standard output and standard error, for the commands that a person calls.

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::termios::isatty;

/// Prints to standard output; tells whether it worked.
pub fn print(text: &str) -> bool {
    // SAFETY: nothing in this program closes standard output.
    let stdout = unsafe { BorrowedFd::borrow_raw(1) };
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(stdout, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Tells whether somebody sits behind standard error.
pub fn stderr_is_terminal() -> bool {
    // SAFETY: nothing in this program closes standard error.
    isatty(unsafe { BorrowedFd::borrow_raw(2) })
}
