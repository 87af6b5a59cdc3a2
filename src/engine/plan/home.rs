//! The administrator's home directory, with what `/etc/skel` has for it.
//!
//! Copies files and directories; links and devices in skel are left out and counted. Follows useradd(8).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::draft::{Draft, Place};
use super::users::Account;
use super::{Kind, Note, PlanFault, TEMPORARY};
use crate::wire::accounts;

const SKEL: &str = "/etc/skel";
/// What the home directory is called in a fault.
const WHAT: &str = "the home directory";
/// Most entries, deepest directory, largest file and largest sum that are copied.
const ENTRIES_MAX: usize = 64;
const DEPTH_MAX: usize = 4;
const FILE_MAX: usize = 64 * 1024;
const SUM_MAX: usize = 256 * 1024;

/// Adds the home directory of a new user, or one that an existing user lacks.
pub(super) fn add(
    draft: &mut Draft<'_>,
    account: &Account,
    new: bool,
    mode: u32,
) -> Result<(), PlanFault> {
    if will_be_hidden(draft, &account.home)? {
        draft.note(Note::HomeWillBeHidden);
    }
    let home = draft.stat(&account.home, WHAT)?;
    let owned = home.is_some_and(|stat| stat.owner.0 == account.owner.0);
    if !new && home.is_some() && !is_unused(draft, &account.home)? {
        return Ok(());
    }
    if new || !owned {
        let place = Place {
            owner: account.owner,
            ..Place::system(&account.home, mode)
        };
        draft.directory(&place, format!("home of {}", account.name))?;
    }
    skel(draft, account)
}

/// Tells whether a home directory has only what skel gives: nobody lived there, or a run was interrupted.
fn is_unused(draft: &Draft<'_>, home: &str) -> Result<bool, PlanFault> {
    let mut given: Vec<String> = Vec::new();
    let mut bounded = |name: &str| {
        if given.len() < ENTRIES_MAX {
            given.push(String::from(name));
        }
    };
    draft
        .root
        .list(SKEL, &mut bounded)
        .map_err(|fault| PlanFault::Root(SKEL, fault))?;
    let mut unused = true;
    let mut look = |name: &str| {
        unused &= name.starts_with(TEMPORARY) || given.iter().any(|known| known == name);
    };
    draft
        .root
        .list(home, &mut look)
        .map_err(|fault| PlanFault::Root(WHAT, fault))?;
    Ok(unused)
}

/// Tells whether fstab will mount something over the home directory that is not mounted now.
fn will_be_hidden(draft: &Draft<'_>, home: &str) -> Result<bool, PlanFault> {
    const FSTAB: &str = "/etc/fstab";
    let fstab = draft.read(FSTAB, accounts::FILE_MAX)?.unwrap_or_default();
    let root = draft.stat("/", FSTAB)?.map(|stat| stat.device);
    for line in core::str::from_utf8(&fstab).unwrap_or_default().lines() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        let point = line
            .split_ascii_whitespace()
            .nth(1)
            .unwrap_or_default()
            .trim_end_matches('/');
        let above = home
            .strip_prefix(point)
            .is_some_and(|rest| matches!(rest.get(..1), None | Some("/")));
        if !point.is_empty() && above {
            let here = draft.stat(point, FSTAB)?.map(|stat| stat.device);
            if here.is_none() || here == root {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Copies what skel has and the home directory lacks.
fn skel(draft: &mut Draft<'_>, account: &Account) -> Result<(), PlanFault> {
    let mut pending: Vec<String> = alloc::vec![String::new()];
    let (mut entries, mut sum, mut left_out) = (0_usize, 0_usize, 0_u32);
    while let Some(below) = pending.pop() {
        let mut names: Vec<String> = Vec::new();
        let list = draft.root.list(&format!("{SKEL}{below}"), &mut |name| {
            if names.len() < ENTRIES_MAX {
                // In the order of the alphabet: the same root makes the same plan.
                let place = names.partition_point(|known| known.as_str() < name);
                names.insert(place, String::from(name));
            } else {
                left_out = left_out.saturating_add(1);
            }
        });
        list.map_err(|fault| PlanFault::Root(SKEL, fault))?;
        for name in names {
            let below = format!("{below}/{name}");
            let from = format!("{SKEL}{below}");
            let to = format!("{}{below}", account.home);
            let root = draft.root;
            let fault = |fault| PlanFault::Root(SKEL, fault);
            entries = entries.saturating_add(1);
            if root.is_link(&to).map_err(fault)? {
                continue;
            }
            let there = root.stat(&to).map_err(fault)?;
            let stat = if root.is_link(&from).map_err(fault)? {
                None
            } else {
                root.stat(&from).map_err(fault)?
            };
            let depth = below.matches('/').count();
            match stat {
                Some(stat) if entries <= ENTRIES_MAX && depth <= DEPTH_MAX => {
                    let place = Place {
                        path: &to,
                        trusted: account.home.len(),
                        owner: account.owner,
                        mode: stat.mode & 0o777,
                    };
                    match stat.kind {
                        Kind::Directory
                            if there.is_none_or(|there| there.kind == Kind::Directory) =>
                        {
                            if there.is_none_or(|there| there.owner != account.owner) {
                                draft.directory(&place, "from skel")?;
                            }
                            pending.push(below);
                            continue;
                        }
                        _ if there.is_some() => continue,
                        Kind::File if stat.size <= FILE_MAX as u64 => {
                            let bytes = root.read(&from, FILE_MAX).map_err(fault)?;
                            let bytes = bytes.unwrap_or_default();
                            sum = sum.saturating_add(bytes.len());
                            if sum <= SUM_MAX {
                                draft.write(&place, Zeroizing::new(bytes), "from skel")?;
                                continue;
                            }
                        }
                        _ => {}
                    }
                    left_out = left_out.saturating_add(1);
                }
                _ => left_out = left_out.saturating_add(1),
            }
        }
    }
    if left_out > 0 {
        draft.note(Note::SkelLeftOut(left_out));
    }
    Ok(())
}
