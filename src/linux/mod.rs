//! The system boundary: the only room that may hold `unsafe`.
//!
//! One thin function per thing the kernel does for us; nothing clever in between.

#![allow(unsafe_code)]

pub mod block;
pub mod channel;
pub mod clock;
mod content;
pub mod datagram;
pub mod dmi;
pub mod files;
pub mod inside;
pub mod link;
pub mod log;
pub mod memory;
pub mod module;
pub mod mount;
pub mod packet;
mod path;
pub mod poll;
pub mod port;
pub mod process;
pub mod root;
pub mod stdio;
pub mod sys;
pub mod sysfs;
pub mod tcp;
pub mod uevent;
