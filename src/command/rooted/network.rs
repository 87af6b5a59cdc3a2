//! The real root and the network: who configures it there, and what is left for whoever does not.

use alloc::string::String;

use super::{Rooted, State, take_file};
use crate::command::keep;
use crate::command::options::{From, Options};
use crate::engine::managers;
use crate::linux::log::Log;
use crate::wire::lease::Record;

impl Rooted {
    /// Takes the root's settings once more, without a word: an ordinary boot has not looked at them.
    pub(in crate::command) fn take_settings_again(&self, options: &mut Options) {
        if let State::Here { root, path, .. } = &self.state {
            take_file(root, path, From::Root, options, None);
        }
    }

    /// Names who in the root configures the network.
    pub(in crate::command) fn manager(&self) -> Option<&'static str> {
        managers::find(self.root()?)
    }

    /// Reads the host name that the root gives itself.
    pub(in crate::command) fn host_name(&self) -> Option<String> {
        keep::host_name(self.root()?)
    }

    /// Has the root's programs ask the name servers of a lease.
    pub(in crate::command) fn set_resolver(&mut self, record: &Record, log: &Log) {
        let Some(plan) = self
            .root()
            .and_then(|root| keep::set_resolver(root, record, log))
        else {
            return;
        };
        self.make_writable(log);
        if let Some(Err((_, fault))) = self.root().map(|root| root.refresh(&plan)) {
            keep::not_written(format_args!("{fault}"), log);
        }
    }
}
