//! Bytes to values and back: pure, without a clock, without I/O.
//!
//! Everything that is parsed here comes from outside and is hostile: it is bounded and checked,
//! and no input makes a parser panic.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod accounts;
pub mod base64;
pub mod cmdline;
pub mod dhcp;
pub mod disc;
pub mod file_contexts;
pub mod fstab;
pub mod goalstate;
pub mod gpt;
pub mod health;
pub mod hostkey;
pub mod http;
pub mod imds;
pub mod iso9660;
pub mod json;
pub mod kvp;
pub mod lease;
pub mod mac;
pub mod moddep;
pub mod names;
pub mod ovf;
pub mod report;
pub mod rtnetlink;
pub mod secret;
pub mod settings;
pub mod sshd_config;
pub mod sshkey;
pub mod superblock;
#[cfg(test)]
pub(crate) mod testing;
pub mod timestamp;
pub mod udf;
pub mod uevent;
pub mod vmid;
mod xml;
