//! Handing the network over to the root: kept where nobody there configures it, else as it was found.

use core::time::Duration;

use super::{Verdict, Worker};
use crate::command::keep;
use crate::command::options::Network;
use crate::linux::channel::Channel;
use crate::linux::clock;
use crate::linux::log::Level;
use crate::wire::timestamp::millis;

/// How long a boot waits for a lease that only the root needs.
const PATIENCE: Duration = Duration::from_secs(30);

impl Worker {
    /// Keeps the interface where the root needs it; the work is over, and so are its connections.
    ///
    /// On every boot, also when nothing else is to be done, and when something went wrong: a machine
    /// that can be reached can be looked at.
    // Out of line, as the other steps.
    #[inline(never)]
    pub(super) fn hand_over(&mut self, supervisor: &Channel) {
        let reports_only = self.options.task.reports_only();
        if reports_only || self.options.dry_run || !self.keeps() {
            return;
        }
        let from = clock::monotonic();
        if let Err(error) = self.uplink.open(from) {
            let error = error.raw_os_error();
            let text = format_args!("network: no rtnetlink: error {error}");
            return self.log.line(Level::Error, text);
        }
        if self.uplink.is_configured() {
            return;
        }
        // The name that is sent is registered: of a machine that could not be told, it is not known.
        if self.host_name.is_empty() && !matches!(self.verdict, Verdict::Failed) {
            self.host_name = self.rooted.host_name().unwrap_or_default();
        }
        let until = self.uplink.started().saturating_add(PATIENCE);
        keep::seek(
            &mut self.uplink,
            supervisor,
            Some(self.host_name.as_str()).filter(|name| !name.is_empty()),
            until.min(self.deadline),
            &self.log,
            &mut self.report,
        );
        let Some(record) = self.uplink.keep(&self.log) else {
            keep::want();
            self.log.line(
                Level::Warning,
                format_args!(
                    "network: {} missed fix=\"the boot goes on without a network; preroot lease \
                     tries again\"",
                    self.uplink.awaited()
                ),
            );
            return;
        };
        self.rooted.set_resolver(record, &self.log);
        let took = clock::monotonic().saturating_sub(from);
        self.log.line(
            Level::Info,
            format_args!(
                "network kept nic={} ip={}/{} routes={} ms={}",
                record.name,
                record.address,
                record.prefix,
                record.routes.len(),
                millis(took)
            ),
        );
    }

    /// Tells whether the interface is to be kept, as whoever made the image or the machine says.
    fn keeps(&mut self) -> bool {
        self.rooted.take_settings_again(&mut self.options);
        match self.options.network {
            Network::Keep => true,
            Network::Release => false,
            Network::Auto => match self.rooted.manager() {
                None => self.rooted.is_here(),
                Some(manager) => {
                    if self.uplink.is_open() {
                        self.log.line(
                            Level::Info,
                            format_args!("network released to {manager} of the root"),
                        );
                    }
                    false
                }
            },
        }
    }
}
