//! The simulated platform, as a client sees it that was written without looking at it: every named scenario.

mod agent;
mod guest;
mod imds;
mod leases;
mod scenarios;
mod strictness;
