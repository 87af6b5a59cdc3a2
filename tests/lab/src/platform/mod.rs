//! The simulated Azure: what a VM sees of the platform through its network card.
//!
//! A [`Platform`] takes and gives Ethernet frames and is told the time, so the same code runs inside a unit test
//! in virtual time, on an interface of a network namespace, and as the far end of QEMU's network card (see
//! [`plug`]). What it says is chosen by a [`Scenario`]; what it heard is in its journal.
//!
//! It is not a copy of Azure's fabric: routing between VMs, DNS, storage and the extension machinery are absent.
//! It knows nothing of preroot. It is written from the protocol's documents, from what waagent, cloud-init,
//! afterburn and azure-init send, and it is strict where Azure is strict: a client that works only because the
//! simulation is kind has not been tested.

mod arp;
mod connection;
pub mod dhcp;
mod fabric;
pub mod frame;
pub mod http;
mod imds;
pub mod journal;
pub mod pcap;
pub mod plug;
pub mod scenario;
mod tcp;
mod wireserver;

pub use fabric::Platform;
pub use http::Verdict;
pub use journal::{Entry, Way};
pub use scenario::{Scenario, ScenarioError};
