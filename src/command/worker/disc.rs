//! The provisioning disc: what its reader has to say.

use core::time::Duration;

use super::{Verdict, Who, Worker};
use crate::command::console;
use crate::command::disc::{News, Reader};
use crate::linux::clock;
use crate::linux::log::Level;

/// The disc, from here.
pub(super) enum Disc {
    /// It is being looked for.
    Awaited(Reader),
    /// It was read, and is still in the drive.
    Read(Reader),
    /// It is being ejected, until then.
    Ejecting(Reader, Duration),
    /// It is done with, or was never wanted.
    Over,
}

impl Worker {
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub(super) fn hear_disc(&mut self, now: Duration) {
        let reader = match &mut self.disc {
            Disc::Awaited(reader) | Disc::Read(reader) | Disc::Ejecting(reader, _) => reader,
            Disc::Over => return,
        };
        let news = reader.poll();
        if let Disc::Ejecting(_, until) = &self.disc
            && now >= *until
        {
            self.disc = Disc::Over;
        }
        let (from, to) = (self.start, clock::monotonic());
        match news {
            None => {}
            Some(News::Ejected) => self.disc = Disc::Over,
            Some(News::Found { source, content }) => {
                self.report
                    .phase("disc", from, to, format_args!("{source}"));
                self.log.line(
                    Level::Info,
                    format_args!(
                        "disc ok source=\"{source}\" bytes={}",
                        content.document.len()
                    ),
                );
                if let Disc::Awaited(reader) = core::mem::replace(&mut self.disc, Disc::Over) {
                    self.disc = Disc::Read(reader);
                }
                self.read(content, now);
            }
            Some(News::Absent(reason)) => {
                self.disc = Disc::Over;
                self.report
                    .phase("disc", from, to, format_args!("{reason}"));
                self.no_disc = Some(reason.clone());
                // A root that is still to come may say that none is needed.
                if !self.rooted.is_gated() {
                    self.tell_missing_disc();
                }
                if matches!(self.verdict, Verdict::Open) {
                    self.who = Who::Heard(None, now);
                    if self.options.dry_run {
                        console::print(format_args!("nothing to change: {reason}\n"));
                    }
                }
            }
            Some(News::Broken(reason)) => {
                self.disc = Disc::Over;
                self.report
                    .phase("disc", from, to, format_args!("{reason}"));
                self.fail(
                    format_args!("failure to read the provisioning disc: {reason}"),
                    "redeploy the VM; try preroot.disc-reader=kernel",
                );
            }
        }
    }

    /// Says that there is no disc, if that was found and not said yet.
    #[inline(never)]
    pub(super) fn tell_missing_disc(&mut self) {
        if let Some(reason) = self.no_disc.take() {
            self.log.line(
                Level::Warning,
                format_args!(
                    "disc absent: {reason} fix=\"this is right for a specialized image; a \
                     generalized one needs its provisioning disc and the drivers for it\""
                ),
            );
        }
    }
}
