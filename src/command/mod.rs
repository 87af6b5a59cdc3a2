//! One file per command; each reads as the story of what it does.

#![forbid(unsafe_code)]

mod console;
mod disc;
mod help;
mod init;
mod keep;
mod lease;
mod options;
mod prefetch;
mod provision;
mod report;
mod rooted;
mod status;
mod supervisor;
mod uplink;
mod words;
mod worker;

use core::fmt;

use crate::linux::log::{Level, Log};
use crate::linux::process::Arguments;

/// How a run ends, for whoever called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Not on this platform.
    NotHere = 99,
    /// Called in a way that makes no sense.
    Misused = 100,
    /// It failed; the boot goes on all the same.
    Failed = 111,
}

/// Runs the command that the arguments name and returns the exit code.
pub fn run(arguments: Arguments) -> i32 {
    let program = arguments.program();
    let name = program
        .rsplit(|&byte| byte == b'/')
        .next()
        .unwrap_or(program);
    let mut rest = arguments.iter();
    let exit = if name == b"init" {
        init::run()
    } else if rest.clone().any(|word| word == b"--help" || word == b"-h") {
        help::print()
    } else {
        match rest.next().map(text) {
            Some("init") => init::run(),
            Some("provision") => provision::run(rest),
            Some("lease") => lease::run(rest),
            Some("prefetch") => prefetch::run(rest),
            Some("report") => report::run(rest),
            Some("status") => status::run(rest),
            Some("help") => help::print(),
            Some("--version" | "-V") => help::version(),
            Some(other) => misused(format_args!("there is no command '{other}'")),
            None => misused(format_args!("a command is missing")),
        }
    };
    exit as i32
}

/// Shows an argument, or a question mark for one that is no text.
fn text(argument: &[u8]) -> &str {
    core::str::from_utf8(argument).unwrap_or("?")
}

/// Says what is wrong with the call, and where to read how it should be.
fn misused(what: fmt::Arguments<'_>) -> Exit {
    Log::stderr().line(Level::Error, format_args!("{what}; see preroot --help"));
    Exit::Misused
}
