//! Azure on a desk: the simulated platform, and the tools that boot machines on it.
//!
//! It is written from the protocol's documents and from what other agents are known to send,
//! never from what preroot happens to send, and it does not depend on preroot.

mod apt;
pub mod arch;
pub mod boot;
mod cargo;
pub mod debian;
mod desk;
pub mod disc;
pub mod distro;
pub mod elf;
pub mod expected;
pub mod ext4;
pub mod fault;
pub mod fetch;
pub mod footprint;
mod gpt;
pub mod image;
pub mod install;
pub mod kernel;
pub mod lint;
pub mod monitor;
pub mod package;
pub mod platform;
pub mod product;
pub mod progress;
pub mod qemu;
pub mod rootfs;
pub mod secret;
pub mod size;
pub mod toolbox;
pub mod trace;
pub mod units;
pub mod verdict;
pub mod visitor;
pub mod vm;
pub mod whole;
pub mod words;
