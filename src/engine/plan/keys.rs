//! The administrator's `authorized_keys`.
//!
//! Merged, never truncated: keys that are there stay, in their order. No symbolic link is followed below
//! the home directory, because whoever had an account in the image could have put it there.

use super::draft::{Draft, Place, text};
use super::users::Account;
use super::{Kind, Outcome, PlanFault};
use crate::wire::accounts;

const WHAT: &str = "authorized_keys";

#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>, account: &Account<'_>) -> Outcome<()> {
    let keys = &draft.identity.keys.accepted;
    if keys.is_empty() {
        return Ok(());
    }
    let directory = text(format_args!("{}/.ssh", account.home.trim_end_matches('/')));
    let path = text(format_args!("{directory}/authorized_keys"));
    for (path, kind) in [(&directory, Kind::Directory), (&path, Kind::File)] {
        let other = draft
            .stat(path, WHAT)?
            .is_some_and(|stat| stat.kind != kind);
        if other || draft.is_link(path, WHAT)? {
            return Err(PlanFault::HomeHasLinks.into());
        }
    }
    let mut content = draft
        .read_any(&path, WHAT, accounts::FILE_MAX)?
        .unwrap_or_default();
    let mut added = 0_u32;
    for key in keys {
        if accounts::lines(&content).any(|line| key.is_on(line)) {
            continue;
        }
        content = accounts::append_last(&content, key.line());
        added = added.saturating_add(1);
    }
    let name = account.name;
    let mut place = Place {
        path: &directory,
        trusted: account.home.len(),
        owner: account.owner,
        mode: 0o700,
    };
    draft.directory(&place, format_args!("keys of {name}"))?;
    place.path = &path;
    place.mode = 0o600;
    draft.write(
        &place,
        content,
        format_args!("{added} public keys for {name}"),
    )
}
