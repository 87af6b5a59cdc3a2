//! The content of open files, read and written to its end.
//!
//! Not for sockets, whose messages have ends of their own.

use rustix::fd::BorrowedFd;
use rustix::io::{self, Errno};

/// Reads until the buffer is full or the file ends; gives what was read.
pub(super) fn read<'b>(file: BorrowedFd<'_>, buffer: &'b mut [u8]) -> io::Result<&'b mut [u8]> {
    let mut length = 0;
    while length < buffer.len() {
        match rustix::io::read(file, &mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(&mut buffer[..length])
}

/// Writes all of it.
pub(super) fn write(file: BorrowedFd<'_>, mut content: &[u8]) -> io::Result<()> {
    while !content.is_empty() {
        match rustix::io::write(file, content) {
            Ok(done) => content = &content[done..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
