//! What an uplink has for a root that wants to keep its interface.

use alloc::boxed::Box;
use core::time::Duration;

use super::{Owner, Uplink};
use crate::command::keep;
use crate::engine::link::Link as _;
use crate::engine::network::Chosen;
use crate::linux::clock;
use crate::linux::log::Log;
use crate::linux::port::Port;
use crate::wire::lease::Record;
use crate::wire::report::Report;

impl Uplink {
    /// Moves on towards a lease and no further; tells whether there is one.
    pub(in crate::command) fn seek(
        &mut self,
        now: Duration,
        host_name: Option<&str>,
        log: &Log,
        report: &mut Report,
    ) -> bool {
        self.watch_links(now, log, report);
        if self.way.is_none() {
            self.seek_lease(now, host_name, log, report);
        }
        self.record.is_some()
    }

    /// Takes down what a lease says of its interface.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub(super) fn take_down(&mut self, chosen: &Chosen<Port>, host_name: Option<&str>) {
        let Port { index, name, .. } = &chosen.link;
        let mac = chosen.link.mac();
        let now = clock::boottime();
        let record = Record::new(&chosen.lease, (*index, name), mac, now, host_name);
        self.record = Some(Box::new(record));
    }

    /// Tells whether somebody else has configured the network.
    pub(in crate::command) fn is_configured(&self) -> bool {
        self.owner == Some(Owner::Others)
    }

    /// Returns when it was opened.
    pub(in crate::command) fn started(&self) -> Duration {
        self.started
    }

    /// Gives the interface that has the lease to the kernel: it stays up when the others go down.
    ///
    /// Nothing may be sent through the uplink after this.
    pub(in crate::command) fn keep(&mut self, log: &Log) -> Option<&Record> {
        let record = self.record.as_deref().filter(|_| !self.gone)?;
        keep::configure(self.links.as_mut()?, record, None, log);
        self.raised.retain(|(index, _)| *index != record.index);
        Some(record)
    }
}
