//! `preroot status`: what happened on this boot.

use super::{Exit, console, misused, text, worker};
use crate::linux::files;
use crate::linux::log::{Level, Log};
use crate::wire::report::{MAX_JSON, Report};

/// Runs the command.
pub(super) fn run<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Exit {
    let mut json = false;
    for argument in arguments {
        match text(argument) {
            "--json" => json = true,
            other => return misused(format_args!("{other}: status takes only --json")),
        }
    }
    let log = Log::stderr();
    let mut buffer = alloc::vec![0; MAX_JSON];
    let Some(text) = files::read(worker::REPORT, &mut buffer) else {
        log.line(
            Level::Error,
            format_args!(
                "no report of this boot at {}: preroot did not run, or you are not root",
                worker::REPORT
            ),
        );
        return Exit::Failed;
    };
    let printed = if json {
        let text = core::str::from_utf8(text).unwrap_or("");
        console::print(format_args!("{text}\n"))
    } else {
        let Some(report) = Report::from_json(text) else {
            log.line(Level::Error, format_args!("{} is damaged", worker::REPORT));
            return Exit::Failed;
        };
        console::print(format_args!("{report}"))
    };
    if printed { Exit::Done } else { Exit::Failed }
}
