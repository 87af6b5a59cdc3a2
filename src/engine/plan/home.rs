//! The administrator's home directory, with what `/etc/skel` has for it.
//!
//! Copies files and directories; links and devices in skel are left out and counted. Follows useradd(8).

use alloc::string::String;
use alloc::vec::Vec;

use super::draft::{Draft, Place, ROOT, text};
use super::users::Account;
use super::{Kind, Note, Outcome, Output, Stat, TEMPORARY};
use crate::wire::accounts;
use crate::wire::fstab;

/// Where the distribution has it, unless it says otherwise.
pub(super) const SKEL: &str = "/etc/skel";
/// What the home directory is called in a fault.
const WHAT: &str = "the home directory";
/// Most entries, deepest directory, largest file and largest sum that are copied.
const ENTRIES_MAX: usize = 64;
const DEPTH_MAX: usize = 4;
const FILE_MAX: usize = 64 * 1024;
const SUM_MAX: usize = 256 * 1024;
/// Longest name, with its slash: the temporary one is longer, and the kernel takes 255 bytes.
const NAME_MAX: usize = 256 - TEMPORARY.len();

/// Adds the home directory of a new user, or one that an existing user lacks.
#[inline(never)]
pub(super) fn add(
    draft: &mut Draft<'_>,
    account: &Account<'_>,
    new: bool,
    mode: u32,
    from: &str,
) -> Outcome<()> {
    // Who makes it otherwise does so when all is mounted.
    if draft.context.output == Output::Files && will_be_hidden(draft, &account.home)? {
        draft.note(Note::HomeWillBeHidden);
    }
    let home = draft.stat(&account.home, WHAT)?;
    let owned = home.is_some_and(|stat| stat.owner.0 == account.owner.0);
    // A link to a directory of the system, such as /etc, does not make that the user's.
    let kept = !new
        || home.is_some_and(|stat| stat.owner.0 == ROOT.0) && draft.is_link(&account.home, WHAT)?;
    if kept && home.is_some() && !is_unused(draft, &account.home, from)? {
        return Ok(());
    }
    if new || !owned {
        let place = Place {
            owner: account.owner,
            ..Place::system(&account.home, mode)
        };
        draft.directory(&place, format_args!("home of {}", account.name))?;
    }
    skel(draft, account, from)
}

/// Tells whether a home directory has only what skel gives: nobody lived there, or a run was interrupted.
fn is_unused(draft: &Draft<'_>, home: &str, from: &str) -> Outcome<bool> {
    let (given, _) = names(draft, from)?;
    let mut unused = true;
    draft.list(home, WHAT, &mut |name| {
        unused &= name.starts_with(TEMPORARY) || given.iter().any(|known| known == name);
    })?;
    Ok(unused)
}

/// Gives the first names in a directory of skel, and how many more there are.
fn names(draft: &Draft<'_>, directory: &str) -> Outcome<(Vec<String>, u32)> {
    let mut names = Vec::new();
    let mut more = 0_u32;
    draft.list(directory, SKEL, &mut |name| {
        if names.len() < ENTRIES_MAX {
            names.push(String::from(name));
        } else {
            more = more.saturating_add(1);
        }
    })?;
    Ok((names, more))
}

/// Tells whether fstab will mount something over the home directory that is not mounted now.
#[inline(never)]
fn will_be_hidden(draft: &Draft<'_>, home: &str) -> Outcome<bool> {
    const FSTAB: &str = "/etc/fstab";
    let fstab = draft.read_or_empty(FSTAB)?;
    let root = draft.stat("/", FSTAB)?.map(|stat| stat.device);
    for entry in accounts::lines(&fstab).filter_map(fstab::Entry::parse) {
        if entry.holds(home) {
            let here = draft.stat(&entry.point, FSTAB)?.map(|stat| stat.device);
            if here.is_none() || here == root {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What was copied from skel so far.
#[derive(Default)]
struct Copied {
    entries: usize,
    sum: usize,
    left_out: u32,
}

/// Copies what skel has and the home directory lacks.
#[inline(never)]
fn skel(draft: &mut Draft<'_>, account: &Account<'_>, from: &str) -> Outcome<()> {
    let mut copied = Copied::default();
    let mut pending: Vec<String> = Vec::from([String::new()]);
    while let Some(directory) = pending.pop() {
        let (names, more) = names(draft, &text(format_args!("{from}{directory}")))?;
        copied.left_out = copied.left_out.saturating_add(more);
        for name in names {
            let below = text(format_args!("{directory}/{name}"));
            match copy(draft, account, [from, &below], &mut copied)? {
                Entry::Directory => pending.push(below),
                Entry::Done => {}
                Entry::LeftOut => copied.left_out = copied.left_out.saturating_add(1),
            }
        }
    }
    if copied.left_out > 0 {
        draft.note(Note::SkelLeftOut(copied.left_out));
    }
    Ok(())
}

/// What became of an entry of skel.
enum Entry {
    /// It is there, or will be.
    Done,
    /// The same, and there may be more below it.
    Directory,
    /// It is not copied.
    LeftOut,
}

/// Copies one entry of skel, of which is given where that is and the path below it.
#[inline(never)]
fn copy(
    draft: &mut Draft<'_>,
    account: &Account<'_>,
    [skel, below]: [&str; 2],
    copied: &mut Copied,
) -> Outcome<Entry> {
    let from = text(format_args!("{skel}{below}"));
    let to = text(format_args!("{}{below}", account.home));
    copied.entries = copied.entries.saturating_add(1);
    if draft.is_link(&to, SKEL)? {
        return Ok(Entry::Done);
    }
    let there = draft.stat(&to, SKEL)?;
    let depth = below.bytes().filter(|byte| *byte == b'/').count();
    let name = below.len().saturating_sub(below.rfind('/').unwrap_or(0));
    if copied.entries > ENTRIES_MAX
        || depth > DEPTH_MAX
        || name > NAME_MAX
        || draft.is_link(&from, SKEL)?
    {
        return Ok(Entry::LeftOut);
    }
    let Some(stat) = draft.stat(&from, SKEL)? else {
        return Ok(Entry::LeftOut);
    };
    let place = Place {
        path: &to,
        trusted: account.home.len(),
        owner: account.owner,
        mode: stat.mode & 0o777,
    };
    let purpose = format_args!("from skel");
    match (stat.kind, there) {
        (
            Kind::Directory,
            Some(Stat {
                kind: Kind::Directory,
                owner,
                ..
            }),
        ) if owner == account.owner => Ok(Entry::Directory),
        (
            Kind::Directory,
            None
            | Some(Stat {
                kind: Kind::Directory,
                ..
            }),
        ) => {
            draft.directory(&place, purpose)?;
            Ok(Entry::Directory)
        }
        (_, Some(_)) => Ok(Entry::Done),
        (Kind::File, None) if stat.size <= FILE_MAX as u64 => {
            let bytes = draft.read_any(&from, SKEL, FILE_MAX)?.unwrap_or_default();
            copied.sum = copied.sum.saturating_add(bytes.len());
            if copied.sum > SUM_MAX {
                return Ok(Entry::LeftOut);
            }
            draft.write(&place, bytes, purpose)?;
            Ok(Entry::Done)
        }
        _ => Ok(Entry::LeftOut),
    }
}
