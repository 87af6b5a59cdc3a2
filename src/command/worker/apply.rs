//! The root made what the identity says.

use super::{Verdict, Who, Worker};
use crate::command::console;
use crate::command::rooted::Counts;
use crate::engine::identity::Identity;
use crate::engine::plan::Plan;
use crate::linux::log::Level;
use crate::linux::{clock, process};
use crate::wire::report::Outcome;
use crate::wire::timestamp::millis;

impl Worker {
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub(super) fn apply_when_possible(&mut self) {
        let is_open = matches!(self.verdict, Verdict::Open);
        if !is_open || !self.rooted.is_here() || !matches!(self.who, Who::Known(_)) {
            return;
        }
        if let Who::Known(identity) = core::mem::replace(&mut self.who, Who::Settled) {
            self.apply(&identity);
            // With the identity goes the last that knew the password, but for what it left behind.
            drop(identity);
            process::wipe_stack();
        }
    }

    // Kept apart: a larger frame costs its caller more than the call, and what was on it can be wiped.
    #[inline(never)]
    fn apply(&mut self, identity: &Identity) {
        let from = clock::monotonic();
        let mut plan = match self
            .rooted
            .plan(identity, &self.options, self.vm_id, &self.log)
        {
            Ok(plan) => plan,
            Err(fault) => return self.fail(format_args!("{fault}"), fault.fix()),
        };
        for note in &plan.notes {
            self.log.line(Level::Warning, format_args!("note: {note}"));
        }
        if self.options.dry_run {
            // The one thing that a dry run is for; standard output is the caller's.
            let host = &self.report.host_name;
            let user = match self.report.user.as_str() {
                "" => "nobody",
                user => user,
            };
            let id = self.vm_id;
            console::print(format_args!(
                "What provisioning changes for host {host} and user {user} of VM {id}:\n{plan}"
            ));
            self.verdict = Verdict::Ready(Outcome::Unfinished);
            return;
        }
        if !plan.host_key_types.is_empty() {
            self.rooted.make_host_keys(&mut plan, &self.log);
            self.report
                .phase("host keys", from, clock::monotonic(), format_args!(""));
        }
        let from = clock::monotonic();
        match self.rooted.apply(&plan, &self.log) {
            Err(fault) => self.fail(format_args!("{fault}"), fault.fix()),
            Ok(Counts { written, unchanged }) => {
                let to = clock::monotonic();
                self.report.written = written;
                self.report.unchanged = unchanged;
                self.report
                    .phase("apply", from, to, format_args!("{written} written"));
                self.log.line(
                    Level::Info,
                    format_args!(
                        "root ok host={} user={} {}={written} unchanged={unchanged} ms={}",
                        self.report.host_name,
                        if self.report.user.is_empty() {
                            "-"
                        } else {
                            &self.report.user
                        },
                        match plan.credentials {
                            Some(_) => "credentials",
                            None => "written",
                        },
                        millis(to.saturating_sub(from))
                    ),
                );
                if plan.run_custom_data {
                    // The other half is for the report.
                    let left = self.deadline.saturating_sub(clock::monotonic());
                    self.rooted.run_custom_data(left / 2, &self.log);
                    self.report
                        .phase("custom data", to, clock::monotonic(), format_args!(""));
                }
                self.show_host_key(&plan);
                self.verdict = Verdict::Ready(Outcome::Ready);
            }
        }
    }

    /// Shows the machine's host key to whoever watches the console, to compare it with what a client sees.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    fn show_host_key(&mut self, plan: &Plan) {
        let address = self.report.address.split('/').next().unwrap_or_default();
        let lines = self
            .rooted
            .host_key_lines(plan, &self.report.host_name, address);
        let Some(lines) = lines else { return };
        for line in &lines {
            self.log.line(Level::Info, format_args!("host key {line}"));
        }
        if self.options.report_host_key {
            let [_, fingerprint] = lines;
            self.uplink.publish(fingerprint);
        }
    }
}
