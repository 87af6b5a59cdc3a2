//! Who the machine is to be: what the disc and the metadata service say, laid together.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use core::time::Duration;

use super::{Verdict, Who, Worker};
use crate::command::disc::Content;
use crate::engine::identity::Identity;
use crate::linux::files;
use crate::linux::log::Level;
use crate::wire::names::HostName;
use crate::wire::ovf::{self, CustomData, Preprovisioned, Provisioning};
use crate::wire::report::{Outcome, clip};

/// How long the metadata service is waited for when the disc says enough.
const METADATA: Duration = Duration::from_secs(2);
/// How much later than the WireServer it may answer then.
const METADATA_LATER: Duration = Duration::from_millis(100);
/// What an initramfs says of itself.
const INITRAMFS: &str = "/etc/initrd-release";
/// Ignition, in the initramfs, and where it looks for a configuration first.
const IGNITION: &str = "/usr/bin/ignition";
const IGNITION_DIRECTORY: &str = "/usr/lib/ignition";

impl Worker {
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub(super) fn read(&mut self, content: Content, now: Duration) {
        // It may hold a password: gone as soon as it is parsed.
        let document = zeroize::Zeroizing::new(content.document);
        match ovf::parse(&document) {
            Ok(mut provisioning) => {
                if provisioning.custom_data.is_none() {
                    provisioning.custom_data = CustomData::plain(content.custom_data.into());
                }
                // The DHCP server shall hear it; whether it is one is seen when all is known.
                if HostName::new(&provisioning.host_name).is_ok() {
                    self.host_name.clone_from(&provisioning.host_name);
                }
                self.who = Who::Heard(Some(Box::new(provisioning)), now);
            }
            Err(fault) => self.fail(format_args!("{fault}"), "redeploy the VM"),
        }
    }

    /// Tells whether the disc alone says enough for somebody to get in.
    pub(super) fn suffices(&self, disc: Option<&Provisioning>) -> bool {
        self.options.dry_run || disc.is_some_and(Provisioning::suffices)
    }

    /// Returns until when the metadata service is waited for, while it is.
    ///
    /// A disc that suffices does not wait for a service that is slower than the WireServer, let alone
    /// for one that is not there.
    pub(super) fn metadata_until(&self) -> Option<Duration> {
        let Who::Heard(disc, at) = &self.who else {
            return None;
        };
        Some(if !self.suffices(disc.as_deref()) {
            self.deadline
        } else if self.reports() {
            let goal = self.uplink.goal_state_at();
            let rest = self.deadline.saturating_sub(*at);
            let until = at.saturating_add(METADATA.min(rest / 2));
            goal.map_or(until, |at| at.saturating_add(METADATA_LATER).min(until))
        } else {
            *at
        })
    }

    /// Tells whether disc and metadata service have said all that is waited for.
    pub(super) fn knows_enough(&mut self, now: Duration) -> bool {
        matches!(self.verdict, Verdict::Open)
            && self.metadata_until().is_some_and(|until| {
                now >= until || self.uplink.query().is_some_and(|query| query.is_over())
            })
    }

    /// Lays together what the disc and the metadata service have said.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub(super) fn identify(&mut self, now: Duration) {
        let Who::Heard(disc, at) = core::mem::replace(&mut self.who, Who::Settled) else {
            return;
        };
        let mut metadata = None;
        if let Some(query) = self.uplink.query() {
            metadata = query.take();
            match query.fault() {
                Some(fault) if metadata.is_none() => {
                    self.report.phase("imds", at, now, format_args!("{fault}"));
                    self.log
                        .line(Level::Warning, format_args!("imds absent: {fault}"));
                }
                _ => self.report.phase("imds", at, now, format_args!("")),
            }
        }
        if metadata
            .as_ref()
            .and_then(|found| found.vm_id)
            .is_some_and(|id| !id.same_machine(self.vm_id))
        {
            self.log.line(
                Level::Warning,
                format_args!("imds ignored: it speaks of another machine"),
            );
            metadata = None;
        }
        // A machine of a pool that has no owner yet is no specialized one: it must not be reported ready.
        let is_told = metadata.as_ref().is_some_and(|found| {
            found.admin_user_name.is_some() || found.preprovisioned != Preprovisioned::No
        });
        let sources = match (&disc, &metadata) {
            (Some(_), Some(_)) => "disc+imds",
            (Some(_), None) => "disc",
            (None, _) if is_told => "imds",
            (None, _) => {
                self.verdict = Verdict::Ready(Outcome::Specialized);
                return;
            }
        };
        clip(&mut self.report.identity, format_args!("{sources}"));
        if disc.is_none() {
            self.log.line(
                Level::Warning,
                format_args!("note: there is no disc: no password and no custom data"),
            );
        }
        let fault = match Identity::new(disc.map(|disc| *disc), metadata) {
            Ok(identity) => {
                self.host_name = String::from(identity.host_name.as_str());
                clip(
                    &mut self.report.host_name,
                    format_args!("{}", self.host_name),
                );
                if let Some(admin) = &identity.admin {
                    clip(&mut self.report.user, format_args!("{admin}"));
                }
                self.leave_for_ignition(&identity);
                self.who = Who::Known(Box::new(identity));
                return;
            }
            Err(fault) => fault.to_string(),
        };
        self.fail(
            format_args!("{fault}"),
            "create the VM with another name or password",
        );
    }

    /// Leaves custom data for Ignition, when that is in the initramfs, where it looks before it asks the
    /// platform; the disc, where it would look then, is ejected.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    fn leave_for_ignition(&self, identity: &Identity) {
        let Some(data) = &identity.custom_data else {
            return;
        };
        // Asked first: decoding it takes as much memory again, and hardly any machine has Ignition.
        if self.options.dry_run || !files::exists(INITRAMFS) || !files::exists(IGNITION) {
            return;
        }
        if let Some(data) = data.decode()
            && data.expose().trim_ascii_start().starts_with(b"{")
        {
            let left = files::write_private(IGNITION_DIRECTORY, "user.ign", data.expose());
            let what = if left { "left for" } else { "not taken by" };
            self.log.line(
                Level::Info,
                format_args!("custom data {what} Ignition in {IGNITION_DIRECTORY}/user.ign"),
            );
        }
    }
}
