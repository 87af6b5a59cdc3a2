//! State machines without I/O: events in, actions out; time and randomness are arguments.

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

pub mod backoff;
pub mod dhcp;
pub mod exchange;
pub mod identity;
pub mod imds;
pub mod link;
pub mod managers;
pub mod network;
pub mod plan;
pub mod transport;
pub mod wireserver;
