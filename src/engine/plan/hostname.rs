//! The host name's file.
//!
//! Only `/etc/hostname`: the running kernel's name and `/etc/hosts` are not touched.

use super::Outcome;
use super::draft::{Draft, content};

/// The file.
pub const HOST_NAME: &str = "/etc/hostname";

pub(super) fn add(draft: &mut Draft<'_>) -> Outcome<()> {
    let name = draft.identity.host_name.as_str();
    draft.write_system(
        HOST_NAME,
        0o644,
        content(format_args!("{name}\n")),
        format_args!("host name {name}"),
    )
}
