//! Azure on a desk: the simulated platform.
//!
//! It is written from the protocol's documents and from what other agents are known to send,
//! never from what preroot happens to send, and it does not depend on preroot.

pub mod disc;
pub mod platform;
