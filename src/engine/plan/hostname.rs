//! The host name's file.
//!
//! Only `/etc/hostname`: the running kernel's name and `/etc/hosts` are not touched (`protocol.md` 6.7).

use alloc::format;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::PlanFault;
use super::draft::{Draft, Place};

pub(super) fn add(draft: &mut Draft<'_>) -> Result<(), PlanFault> {
    let name = draft.identity.host_name.value;
    let content: Vec<u8> = format!("{name}\n").into_bytes();
    draft.write(
        &Place::system("/etc/hostname", 0o644),
        Zeroizing::new(content),
        format!("host name {name}"),
    )
}
