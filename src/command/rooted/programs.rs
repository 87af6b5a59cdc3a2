//! What is run in the real root: the custom data, and what makes host keys that we do not make.

use core::time::Duration;

use super::{Rooted, State};
use crate::engine::plan::{self, Plan};
use crate::linux::log::{Level, Log};
use crate::linux::{clock, inside};
use crate::wire::timestamp;

/// How long custom data may run: the platform is told after it.
const CUSTOM_DATA_LIMIT: Duration = Duration::from_mins(5);
/// What is said of custom data that was killed.
const KILLED: i32 = 137;
/// How long ssh-keygen may take for a key: an RSA key takes a second or two.
const HOST_KEY_LIMIT: Duration = Duration::from_secs(30);
/// Where in the root the output of custom data goes.
const OUTPUT: &str = "/var/lib/preroot/custom-data.log";

impl Rooted {
    /// Runs the custom data in the root, which a plan has put there.
    // Out of line: it is rare.
    #[inline(never)]
    pub(in crate::command) fn run_custom_data(&self, limit: Duration, log: &Log) {
        let State::Here { path, .. } = &self.state else {
            return;
        };
        let limit = limit.min(CUSTOM_DATA_LIMIT);
        log.line(
            Level::Info,
            format_args!("running custom data, for {} s at most", limit.as_secs()),
        );
        let start = clock::monotonic();
        let ended = inside::run(path, plan::CUSTOM_DATA, &[], Some(OUTPUT), limit);
        let ms = timestamp::millis(clock::monotonic().saturating_sub(start));
        // As shells have it: what was killed ended with 128 and the signal's number.
        let code = ended.map_or(KILLED, |status| status.exit_status().unwrap_or(KILLED));
        let (level, fix) = match code {
            0 => (Level::Info, ""),
            _ => (Level::Warning, " fix=\"see its output in custom-data.log\""),
        };
        log.line(
            level,
            format_args!("custom data ended exit={code} ms={ms}{fix}"),
        );
    }

    /// Makes the host keys that the root's own program shall make, and takes them into the plan that
    /// says so: they take their places with all else.
    // Out of line: it is rare.
    #[inline(never)]
    pub(in crate::command) fn make_host_keys(&mut self, plan: &mut Plan, log: &Log) {
        self.make_writable(log);
        let State::Here { root, path, .. } = &self.state else {
            return;
        };
        let nothing = plan::without_made();
        for kind in core::mem::take(&mut plan.host_key_types) {
            // Where a run was killed, there is one already, which would stop ssh-keygen.
            let _ = root.note(&nothing);
            let arguments = ["-q", "-t", kind, "-N", "", "-f", plan::MADE];
            let ended = inside::run(path, plan::SSH_KEYGEN, &arguments, None, HOST_KEY_LIMIT);
            let is_made = ended.is_ok_and(|status| status.exit_status() == Some(0))
                && plan::take_made(plan, kind, root);
            let _ = root.note(&nothing);
            if !is_made {
                log.line(
                    Level::Warning,
                    format_args!("note: ssh-keygen made no host key of type {kind}"),
                );
            }
        }
    }
}
