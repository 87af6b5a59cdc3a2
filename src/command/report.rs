//! `preroot report`: one word to the platform, and nothing else.
//!
//! `ready` is for the running system, when the report was left to it; `failed` for an initramfs that does
//! not come to its end.

use super::options::{Options, Task};
use super::provision;
use super::rooted::RUNNING;
use super::supervisor::Supervised;
use super::words::Order;
use super::{Exit, misused, prefetch, text, worker};
use crate::linux::log::Level;
use crate::linux::{clock, files};
use crate::wire::report::{MAX_JSON, Outcome, Report};

/// What is said of a failure of which nothing is known.
const UNKNOWN: &str = "the initramfs failed";

/// Runs the command.
pub(super) fn run<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Exit {
    match arguments.next().map(text) {
        Some("ready") => ready(arguments),
        Some("failed") => failed(arguments),
        Some(other) => misused(format_args!("report ready or failed, not '{other}'")),
        None => misused(format_args!("report what? ready or failed")),
    }
}

fn ready<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Exit {
    let start = clock::monotonic();
    let mut options = Options::of(Task::Ready);
    options.root = Some(RUNNING.into());
    let log = match provision::prepare(&mut options, arguments) {
        Ok(log) => log,
        Err(exit) => return exit,
    };
    let exit = Supervised::see_through(&options, start, None, &log);
    if exit == Exit::Done {
        files::remove_file(worker::LATER);
    }
    exit
}

fn failed<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Exit {
    let start = clock::monotonic();
    let mut options = Options::of(Task::Failed);
    let log = match provision::prepare(&mut options, arguments) {
        Ok(log) => log,
        Err(exit) => return exit,
    };
    // Whatever the whole of a boot may take.
    options.timeout = options.timeout.min(worker::COURIER);
    let mut buffer = alloc::vec![0; MAX_JSON];
    let earlier = files::read(worker::REPORT, &mut buffer).and_then(Report::from_json);
    if earlier.is_some_and(|earlier| earlier.result == Outcome::Ready) {
        log.line(
            Level::Notice,
            format_args!("failure not reported: the platform knows that this machine is ready"),
        );
        return Exit::Done;
    }
    let order = Order::NoRoot(options.reason.as_deref().unwrap_or(UNKNOWN));
    if let Some(exit) = prefetch::ask(&order, &log) {
        return exit;
    }
    Supervised::see_through(&options, start, Some(&order), &log)
}
