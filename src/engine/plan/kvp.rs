//! The record for the host's operators, in the pool file of the guest's services.
//!
//! Written before the platform is told, because it may ask right then. No lock is taken: before anybody
//! runs in the root there is nobody to lock out, and the file takes its place whole.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::draft::Place;
use super::{Action, Plan};

/// Guest to host: pool 1.
pub const POOL: &str = "/var/lib/hyperv/.kvp_pool_1";

/// Makes the plan that gives the pool this content; everybody may read it.
pub fn pool(content: Vec<u8>) -> Plan {
    let mut plan = Plan::default();
    let purpose = format_args!("report to the host");
    plan.push(
        &Place::system("/var/lib/hyperv", 0o755),
        Action::Directory,
        purpose,
    );
    let content = Action::Write(Zeroizing::new(content));
    plan.push(&Place::system(POOL, 0o644), content, purpose);
    plan
}
