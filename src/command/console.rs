//! What the person at the console is told: a line a phase, and a line when something takes long.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use super::options::LogTo;
use crate::linux::log::{Level, Log};
use crate::linux::stdio;

/// A wait longer than this is worth a line.
const PATIENCE: Duration = Duration::from_secs(2);
/// And another line each time it has doubled, from here.
const REMINDER: Duration = Duration::from_secs(30);
const HALF: Duration = Duration::from_millis(500);

/// Opens the log that was asked for.
pub(super) fn open(log: LogTo) -> Log {
    match log {
        LogTo::Stderr => Log::stderr(),
        LogTo::Auto if stdio::stderr_is_terminal() => Log::stderr(),
        LogTo::Auto | LogTo::Kmsg => Log::kmsg().unwrap_or_else(Log::stderr),
    }
}

/// Notices when the same thing is awaited for long.
#[derive(Debug, Default)]
pub(super) struct Patience {
    awaited: String,
    since: Duration,
    next: Duration,
}

impl Patience {
    /// Notes what is awaited now and says so when it has been for long; `until` is when it is
    /// given up.
    pub(super) fn awaiting(
        &mut self,
        now: Duration,
        log: &Log,
        what: fmt::Arguments<'_>,
        until: Duration,
    ) {
        let what = alloc::fmt::format(what);
        if what != self.awaited {
            *self = Patience {
                awaited: what,
                since: now,
                next: now.saturating_add(PATIENCE),
            };
        }
        if now >= self.next {
            let waited = now.saturating_sub(self.since);
            log.line(
                Level::Notice,
                format_args!(
                    "waiting for {} since {} s, for {} s more",
                    self.awaited,
                    waited.as_secs(),
                    // A wait just begun has a little less than its whole length.
                    until.saturating_sub(now).saturating_add(HALF).as_secs()
                ),
            );
            self.next = now.saturating_add(waited.max(REMINDER));
        }
    }

    /// Returns when the next line may be due.
    pub(super) fn due(&self) -> Duration {
        self.next
    }
}

/// Prints to standard output in one go; tells whether it worked.
pub(super) fn print(text: fmt::Arguments<'_>) -> bool {
    stdio::print(&alloc::fmt::format(text))
}
