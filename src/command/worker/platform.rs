//! The end of the work: the disc leaves its drive, the platform is told, and everybody may read what
//! happened.

use core::time::Duration;

use super::disc::Disc;
use super::{EJECT, LATER_NAME, REPORT, REPORT_NAME, RUN_DIRECTORY, Verdict, Who, Worker};
use crate::command::Exit;
use crate::command::options::{Ready, Task};
use crate::engine::plan::Step;
use crate::engine::wireserver;
use crate::linux::log::Level;
use crate::linux::{clock, files};
use crate::wire::health::Health;
use crate::wire::kvp;
use crate::wire::report::{MAX_JSON, Outcome, Report, clip};
use crate::wire::timestamp::{micros, millis, timestamp};

impl Worker {
    /// Moves the conversation with the platform on; returns the end of the work when it is over.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub(super) fn talk_to_platform(&mut self, now: Duration) -> Option<Exit> {
        let decided = match &self.verdict {
            Verdict::Open => None,
            Verdict::Ready(_) => Some(Exit::Done),
            // That the machine does not come up is what was to be told, and no failure of this run.
            Verdict::Failed if self.options.task == Task::Failed => Some(Exit::Done),
            Verdict::Failed => Some(Exit::Failed),
        };
        // What is asked of the platform is needed even where it is told nothing.
        if decided.is_none() && !self.reports() && self.uplink.is_open() {
            self.exchange(now, None);
            return None;
        }
        let over = |verdict: &Verdict| !matches!(verdict, Verdict::Ready(Outcome::NothingToDo));
        // A root that is still to come may say that all of this is long done.
        if self.options.ready != Ready::Early && self.rooted.awaited_until().is_some() {
            if self.reports() {
                self.exchange(now, None);
            }
            return None;
        }
        // Eject before Ready: once the host has Ready it may detach the disc under us. After a failure
        // the disc stays, because the next boot may do better with it.
        if decided == Some(Exit::Done) && !self.options.dry_run && !self.disc_is_out(now) {
            if self.reports() {
                self.exchange(now, None);
            }
            return None;
        }
        if !self.reports() || self.accepted || !over(&self.verdict) {
            return decided;
        }
        let health = match &self.verdict {
            Verdict::Open if self.options.ready == Ready::Early => Some(()),
            Verdict::Open => None,
            Verdict::Ready(_) | Verdict::Failed => Some(()),
        };
        if health.is_some() && !self.host_told {
            self.host_told = true;
            match &self.verdict {
                // The root may be anywhere yet, and what becomes of it is not known.
                Verdict::Open => {}
                Verdict::Ready(_) => {
                    let success = kvp::success(self.vm_id, &timestamp(clock::unix_seconds()));
                    self.rooted.report_to_host(&success, &self.log);
                }
                Verdict::Failed => self.rooted.report_to_host(&self.description, &self.log),
            }
        }
        let outcome = self.exchange(now, health)?;
        let from = self.uplink.asked();
        let to = clock::monotonic();
        match outcome {
            wireserver::Outcome::Accepted {
                ready,
                door,
                status,
            } => {
                self.accepted = true;
                self.report
                    .phase("health", from, to, format_args!("{status} {door}"));
                let what = if ready { "ready" } else { "failure" };
                self.log.line(
                    Level::Info,
                    format_args!(
                        "{what} reported status={status} ms={} after start, {} after kernel",
                        millis(to.saturating_sub(self.start)),
                        millis(to)
                    ),
                );
                decided
            }
            wireserver::Outcome::Refused { status } => {
                self.report
                    .phase("health", from, to, format_args!("{status}"));
                clip(
                    &mut self.report.reason,
                    format_args!("the WireServer refused the report with {status}"),
                );
                self.log.line(
                    Level::Error,
                    format_args!("failed: {}; the boot goes on", self.report.reason),
                );
                Some(Exit::Failed)
            }
            wireserver::Outcome::Impossible => Some(Exit::Failed),
        }
    }

    fn exchange(&mut self, now: Duration, report: Option<()>) -> Option<wireserver::Outcome> {
        let health = report.map(|()| match &self.verdict {
            Verdict::Failed => Health::Failed {
                description: &self.description,
            },
            Verdict::Open | Verdict::Ready(_) => Health::Ready,
        });
        let host_name = Some(self.host_name.as_str()).filter(|name| !name.is_empty());
        self.uplink
            .poll(now, host_name, health, &self.log, &mut self.report)
    }

    /// Sees to it that the disc is ejected; tells whether that is over.
    fn disc_is_out(&mut self, now: Duration) -> bool {
        match core::mem::replace(&mut self.disc, Disc::Over) {
            Disc::Read(reader) if reader.eject() => {
                self.disc = Disc::Ejecting(reader, now.saturating_add(EJECT));
                false
            }
            Disc::Ejecting(reader, until) => {
                self.disc = Disc::Ejecting(reader, until);
                false
            }
            Disc::Awaited(_) | Disc::Read(_) | Disc::Over => true,
        }
    }

    pub(super) fn give_up(&mut self) -> Exit {
        let (awaited, _) = self.awaited();
        let failure = match self.verdict {
            Verdict::Open if !matches!(self.who, Who::Heard(..)) => "failure to provision in time",
            _ => self.uplink.awaited().failure(),
        };
        self.log.line(
            Level::Error,
            format_args!(
                "failed: {failure}: still waiting for {awaited} after {} s fix=\"the boot goes on; \
                 the next one tries again\"",
                self.options.timeout.as_secs()
            ),
        );
        if self.report.reason.is_empty() {
            clip(&mut self.report.reason, format_args!("{failure}"));
        }
        Exit::Failed
    }

    /// Takes what happened earlier on this boot for the beginning of the report.
    #[inline(never)]
    pub(super) fn go_on_with_report(&mut self) {
        let mut buffer = alloc::vec![0; MAX_JSON];
        if let Some(earlier) = files::read(REPORT, &mut buffer).and_then(Report::from_json) {
            self.start = Duration::from_micros(earlier.started_us);
            self.report = earlier;
        }
    }

    /// Writes down what happened, and leaves the root as it was found.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub(super) fn finish(&mut self, exit: Exit) {
        if self.options.dry_run {
            return;
        }
        self.report.result = match (&self.verdict, exit) {
            (Verdict::Ready(Outcome::NothingToDo), _) => Outcome::NothingToDo,
            (Verdict::Ready(outcome), Exit::Done) if self.accepted => *outcome,
            (Verdict::Ready(_), Exit::Done) => Outcome::Provisioned,
            _ => Outcome::Failed,
        };
        self.report.took_us = micros(clock::monotonic().saturating_sub(self.start));
        let json = self.report.to_json().into_bytes();
        files::write_private(RUN_DIRECTORY, REPORT_NAME, &json);
        if self.left_for_later
            || self.options.ready == Ready::Later && self.report.result == Outcome::Provisioned
        {
            files::write_private(RUN_DIRECTORY, LATER_NAME, b"");
        }
        // A boot with nothing to do leaves no trace on the root.
        if self.report.result != Outcome::NothingToDo && self.rooted.is_here() {
            let ready = self.accepted && matches!(self.verdict, Verdict::Ready(_));
            // Whoever leaves the markers out wants the next run to start from the beginning.
            let marked = ready && self.options.steps.has(Step::Markers);
            let reported = marked.then_some(self.vm_id);
            if !self.rooted.note(reported, json, &self.log) && ready {
                self.log.line(
                    Level::Warning,
                    format_args!("the root does not take the note: the next boot reports again"),
                );
            }
        }
        self.rooted.restore(&self.log);
        if self.report.result == Outcome::NothingToDo {
            self.log.line(Level::Info, format_args!("nothing to do"));
        }
    }
}
