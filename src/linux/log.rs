//! Lines for the person at the console: the kernel's log, or standard error.
//!
//! Not a logging framework: a line is one `write(2)`, without buffer or heap, and no failure of it is
//! one that anybody would hear of. The form of the lines follows the design, section 4.

use alloc::string::String;
use core::cell::{Cell, RefCell};
use core::ffi::CStr;
use core::fmt::{self, Write};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};

use super::sys;

/// The kernel takes records of less than 1 KiB, its own prefix included, and refuses longer ones.
const MAX_LINE: usize = 900;

/// How many lines the kernel takes from one open `/dev/kmsg` within five seconds.
///
/// Unless `printk.devkmsg=on`, it drops the rest and says nothing to the writer
/// (`DEFAULT_RATELIMIT_BURST`). The count is kept for each open file, so we open anew in time.
const KMSG_BURST: u8 = 10;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed; a person must do something.
    Error,
    /// Something is not as it should be; the boot goes on well.
    Warning,
    /// A phase is done: what a person reads on a good day.
    Notice,
    /// Detail.
    Info,
}

impl Level {
    /// The kernel's mark for it.
    const fn mark(self) -> &'static str {
        match self {
            Self::Error => "<3>",
            Self::Warning => "<4>",
            Self::Notice => "<5>",
            Self::Info => "<6>",
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Kmsg {
        path: &'static CStr,
        file: RefCell<OwnedFd>,
        left: Cell<u8>,
    },
    Stderr,
}

impl Log {
    /// Opens the kernel's log; `None` where there is none (no `/dev` yet, or a container).
    pub fn kmsg() -> Option<Self> {
        Self::kmsg_at(c"/dev/kmsg")
    }

    fn kmsg_at(path: &'static CStr) -> Option<Self> {
        let file = RefCell::new(open(path)?);
        Some(Self {
            sink: Sink::Kmsg {
                path,
                file,
                left: Cell::new(KMSG_BURST),
            },
        })
    }

    /// Writes to standard error, whatever that is.
    pub fn stderr() -> Self {
        Self { sink: Sink::Stderr }
    }

    /// Writes one line; it is cut where it is too long, and a control character becomes `?`.
    pub fn line(&self, level: Level, text: fmt::Arguments<'_>) {
        let mut line = Line::new();
        if matches!(self.sink, Sink::Kmsg { .. }) {
            line.push_str(level.mark());
        }
        line.push_str("preroot: ");
        // An error is the line being full, or a `Display` that gave up: what is there is written.
        let _ = line.write_fmt(text);
        self.write(line.finish());
    }

    fn write(&self, line: &[u8]) {
        match &self.sink {
            Sink::Kmsg { path, file, left } => {
                if left.get() == 0 {
                    left.set(KMSG_BURST);
                    // If it cannot be opened again (no `/dev` any more) the old one still serves.
                    if let Some(file_anew) = open(path) {
                        file.replace(file_anew);
                    }
                }
                left.set(left.get().saturating_sub(1));
                write_once(file.borrow().as_fd(), line);
            }
            Sink::Stderr => {
                // SAFETY: descriptor 2 is never closed by this program; if its parent gave it
                // none, the write fails, which is ignored.
                let stderr = unsafe { BorrowedFd::borrow_raw(2) };
                write_once(stderr, line);
            }
        }
    }
}

/// How much of the kernel's log is of interest to who looks for a reason.
const TAIL: usize = 2560;

/// Gives the last lines of the kernel's log, without their levels; nothing if it may not be read.
pub fn kernel_tail() -> String {
    let mut buffer = alloc::vec![0; TAIL];
    let length = sys::read_kernel_log(&mut buffer).unwrap_or(0);
    tail(buffer.get(..length).unwrap_or_default())
}

/// Leaves the levels out of lines of the kernel's log, and the first, of which the front may be missing.
fn tail(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines = text.trim_end().split('\n').skip(1);
    let mut tail = String::new();
    for line in lines {
        let level = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        let line = level.map_or(line, |(_, line)| line);
        if !tail.is_empty() {
            tail.push('\n');
        }
        tail.push_str(line);
    }
    tail
}

fn open(path: &CStr) -> Option<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )
    .ok()
}

/// Writes and forgets: a log that fails must not take the boot with it.
fn write_once(file: BorrowedFd<'_>, line: &[u8]) {
    let _ = rustix::io::write(file, line);
}

/// One line under construction, with room for its newline.
struct Line {
    bytes: [u8; MAX_LINE + 1],
    length: usize,
    full: bool,
}

impl Line {
    const fn new() -> Self {
        Self {
            bytes: [0; MAX_LINE + 1],
            length: 0,
            full: false,
        }
    }

    /// Appends what fits, whole characters only.
    fn push_str(&mut self, text: &str) {
        for character in text.chars() {
            let character = if character.is_control() {
                '?'
            } else {
                character
            };
            let end = self.length + character.len_utf8();
            // Full for good: a shorter character after one that did not fit would be a lie.
            if self.full || end > MAX_LINE {
                self.full = true;
                return;
            }
            if let Some(room) = self.bytes.get_mut(self.length..end) {
                character.encode_utf8(room);
                self.length = end;
            }
        }
    }

    fn finish(&mut self) -> &[u8] {
        if let Some(end) = self.bytes.get_mut(self.length) {
            *end = b'\n';
        }
        self.bytes.get(..=self.length).unwrap_or(b"\n")
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        // Tells a long `Display` to stop early.
        if self.full { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::format;
    use std::fs;
    use std::path::PathBuf;
    use std::string::ToString;
    use std::vec::Vec;

    /// A file that plays `/dev/kmsg`; each test has its own.
    fn stand_in(name: &str) -> (PathBuf, &'static CStr) {
        let path = std::env::temp_dir().join(format!("preroot-log-{}-{name}", std::process::id()));
        fs::write(&path, "").unwrap();
        let c = CString::new(path.to_str().unwrap()).unwrap();
        (path, std::boxed::Box::leak(c.into_boxed_c_str()))
    }

    fn taken(path: &PathBuf) -> String {
        let text = fs::read_to_string(path).unwrap();
        fs::remove_file(path).unwrap();
        text
    }

    #[test]
    fn a_line_carries_level_name_text_and_newline() {
        let (path, c) = stand_in("plain");
        let log = Log::kmsg_at(c).unwrap();
        log.line(
            Level::Notice,
            format_args!("dhcp ok ip={} ms={}", "10.0.0.4/24", 6),
        );
        log.line(Level::Error, format_args!("disc failed"));
        assert_eq!(
            taken(&path),
            "<5>preroot: dhcp ok ip=10.0.0.4/24 ms=6\n<3>preroot: disc failed\n"
        );
    }

    #[test]
    fn tail_has_whole_lines_without_levels() {
        let log = b"of a line\n<6>[    1.000000] one\n<27>[    2.000000] two <3> \xff\n";
        assert_eq!(
            tail(log),
            "[    1.000000] one\n[    2.000000] two <3> \u{fffd}"
        );
        assert_eq!(tail(b"<6>[    1.000000] cut"), "");
        assert_eq!(tail(b""), "");
    }

    #[test]
    fn control_characters_cannot_start_a_line_of_their_own() {
        let (path, c) = stand_in("control");
        let log = Log::kmsg_at(c).unwrap();
        log.line(
            Level::Info,
            format_args!("a\n<0>b\u{1b}[31m\u{9b}c\td\u{e9}"),
        );
        assert_eq!(taken(&path), "<6>preroot: a?<0>b?[31m?c?d\u{e9}\n");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        // The prefix of 12 bytes leaves 888: with one byte before them, 443 two-byte characters.
        let mut line = Line::new();
        line.push_str("<4>preroot: ");
        let _ = write!(line, "x{}y", "\u{e9}".repeat(600));
        let text = core::str::from_utf8(line.finish()).unwrap();
        assert_eq!(text, format!("<4>preroot: x{}\n", "\u{e9}".repeat(443)));
        assert!(text.len() <= MAX_LINE + 1);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole() {
        let mut line = Line::new();
        line.push_str(&"z".repeat(MAX_LINE));
        assert!(!line.full);
        assert_eq!(line.finish().len(), MAX_LINE + 1);
    }

    #[test]
    fn no_open_file_takes_more_lines_than_the_kernel_lets_through() {
        let (path, c) = stand_in("burst");
        let log = Log::kmsg_at(c).unwrap();
        let mut files = Vec::new();
        for number in 0..25 {
            log.line(Level::Info, format_args!("{number}"));
            // Moved away after each line: what is opened anew goes to a file of its own.
            if number % 10 == 9 {
                files.push(taken(&path).lines().count().to_string());
                fs::write(&path, "").unwrap();
            }
        }
        files.push(taken(&path).lines().count().to_string());
        assert_eq!(files, ["10", "10", "5"]);
    }

    #[test]
    fn a_log_that_went_away_is_no_failure() {
        let (path, c) = stand_in("gone");
        let log = Log::kmsg_at(c).unwrap();
        fs::remove_file(&path).unwrap();
        for _ in 0..30 {
            log.line(Level::Info, format_args!("into the void"));
        }
        assert!(Log::kmsg_at(c).is_none());
    }
}
