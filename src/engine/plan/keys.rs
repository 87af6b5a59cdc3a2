//! The administrator's `authorized_keys`.
//!
//! Merged, never truncated: keys that are there stay, in their order. No symbolic link is followed below
//! the home directory, because whoever had an account in the image could have put it there
//! (`protocol.md` 6.4).

use alloc::format;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::draft::{Draft, Place};
use super::users::Account;
use super::{Kind, PlanFault};
use crate::wire::accounts;

const WHAT: &str = "authorized_keys";

pub(super) fn add(draft: &mut Draft<'_>, account: &Account) -> Result<(), PlanFault> {
    let keys = &draft.identity.keys.value.accepted;
    if keys.is_empty() {
        return Ok(());
    }
    let trusted = account.home.len();
    let directory = format!("{}/.ssh", account.home.trim_end_matches('/'));
    let path = format!("{directory}/authorized_keys");
    let fault = |fault| PlanFault::Root(WHAT, fault);
    for (path, kind) in [(&directory, Kind::Directory), (&path, Kind::File)] {
        let other = draft
            .stat(path, WHAT)?
            .is_some_and(|stat| stat.kind != kind);
        if other || draft.root.is_link(path).map_err(fault)? {
            return Err(PlanFault::HomeHasLinks);
        }
    }
    let old = draft
        .root
        .read(&path, accounts::FILE_MAX)
        .map_err(fault)?
        .unwrap_or_default();
    let mut content: Vec<u8> = old;
    let mut added = 0_u32;
    for key in keys {
        if accounts::lines(&content).any(|line| key.is_on(line)) {
            continue;
        }
        if content.last().is_some_and(|byte| *byte != b'\n') {
            content.push(b'\n');
        }
        content.extend_from_slice(key.line().as_bytes());
        content.push(b'\n');
        added = added.saturating_add(1);
    }
    let owner = account.owner;
    let name = account.name;
    let place = Place {
        path: &directory,
        trusted,
        owner,
        mode: 0o700,
    };
    draft.directory(&place, format!("keys of {name}"))?;
    let place = Place {
        path: &path,
        trusted,
        owner,
        mode: 0o600,
    };
    draft.write(
        &place,
        Zeroizing::new(content),
        format!("{added} public keys for {name}"),
    )
}
