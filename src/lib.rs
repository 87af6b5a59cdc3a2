//! preroot gives a Linux VM on Azure its identity before the real root starts.
//!
//! The rooms, from the top down; a room may use those below it, never above:
//!
//! * [`command`]: one file per command, each reads as the story of the boot.
//! * [`engine`]: state machines without I/O: events in, actions out, time is an argument.
//! * [`linux`]: the system boundary, the only room with `unsafe`.
//! * [`wire`]: bytes to values and back; no clock, no I/O.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

/// The name of this program.
pub const NAME: &str = env!("CARGO_PKG_NAME");
/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub mod command;
pub mod engine;
pub mod linux;
pub mod wire;
