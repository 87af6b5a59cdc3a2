//! The administrator's `authorized_keys`, wherever sshd looks for it.
//!
//! Merged, never truncated: keys that are there stay, in their order. No symbolic link is followed below
//! the home directory, because whoever had an account in the image could have put it there. A file
//! elsewhere is the system's: sshd takes it when it and all above it belong to root, and reads it as the
//! user, so that everybody must be able to read it. Follows `sshd_config(5)`, `AuthorizedKeysFile`.

use alloc::string::String;

use super::draft::{Draft, Place, ROOT, text};
use super::sshd;
use super::users::Account;
use super::{Kind, Note, Outcome, PlanFault};
use crate::wire::accounts;

const WHAT: &str = "authorized_keys";
/// Where sshd looks when nobody says otherwise.
const DEFAULT: &str = ".ssh/authorized_keys";

#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>, account: &Account<'_>) -> Outcome<()> {
    let keys = &draft.identity.keys.accepted;
    if keys.is_empty() {
        return Ok(());
    }
    let path = match sshd::keys_files(draft)? {
        Some(files) => files.iter().find_map(|file| place(file, account)),
        None => place(DEFAULT, account),
    };
    let Some(path) = path else {
        draft.note(Note::NoKeysFile);
        return Ok(());
    };
    if draft.is_link(&path, WHAT)? {
        return Err(PlanFault::HomeHasLinks.into());
    }
    let there = draft.stat(&path, WHAT)?;
    if there.is_some_and(|stat| stat.kind != Kind::File) {
        return Err(PlanFault::HomeHasLinks.into());
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
        path: &path,
        trusted: account.home.len(),
        owner: account.owner,
        mode: 0o600,
    };
    if below(&path, &account.home).is_some() {
        directories(draft, account, &path)?;
    } else {
        place.trusted = trusted(draft, &path)?;
        let readable = |mode: u32, mine: bool| {
            mode & 0o022 == 0 && mode & if mine { 0o400 } else { 0o004 } != 0
        };
        (place.owner, place.mode) = match there {
            Some(stat)
                if [ROOT.0, account.owner.0].contains(&stat.owner.0)
                    && readable(stat.mode, stat.owner.0 == account.owner.0) =>
            {
                (stat.owner, stat.mode)
            }
            _ => (ROOT, 0o644),
        };
    }
    draft.write(
        &place,
        content,
        format_args!("{added} public keys for {name}"),
    )
}

/// Gives what is behind a home directory in a path below it.
fn below<'a>(path: &'a str, home: &str) -> Option<&'a str> {
    path.strip_prefix(home.trim_end_matches('/'))?
        .strip_prefix('/')
}

/// Turns a name of `AuthorizedKeysFile` into a path; nothing for `none` and for what sshd would refuse.
#[inline(never)]
fn place(file: &str, account: &Account<'_>) -> Option<String> {
    let home = account.home.trim_end_matches('/');
    let mut path = String::new();
    let mut chars = file.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            path.push(c);
            continue;
        }
        match chars.next()? {
            '%' => path.push('%'),
            'h' => path.push_str(home),
            'u' => path.push_str(account.name.as_str()),
            'U' => path.push_str(&text(format_args!("{}", account.owner.0))),
            _ => return None,
        }
    }
    if !path.starts_with('/') {
        if file.eq_ignore_ascii_case("none") {
            return None;
        }
        path = text(format_args!("{home}/{path}"));
    }
    // Nothing can be said of where a path with these leads.
    let is_odd = |part: &[u8]| matches!(part, b"" | b"." | b"..");
    let mut parts = path.as_bytes().split(|byte| *byte == b'/').skip(1);
    (!parts.any(is_odd)).then_some(path)
}

/// Wants the directories between the home directory and a file, the last one the user's alone.
#[inline(never)]
fn directories(draft: &mut Draft<'_>, account: &Account<'_>, path: &str) -> Outcome<()> {
    let last = path.rfind('/').unwrap_or(0);
    for (at, byte) in path.bytes().enumerate() {
        let directory = path.get(..at).unwrap_or_default();
        if byte != b'/' || below(directory, &account.home).is_none() {
            continue;
        }
        let there = draft.stat(directory, WHAT)?;
        if there.is_some_and(|stat| stat.kind != Kind::Directory)
            || draft.is_link(directory, WHAT)?
        {
            return Err(PlanFault::HomeHasLinks.into());
        }
        if at == last || there.is_none() {
            let place = Place {
                path: directory,
                trusted: account.home.len(),
                owner: account.owner,
                mode: 0o700,
            };
            draft.directory(&place, format_args!("keys of {}", account.name))?;
        }
    }
    Ok(())
}

/// Tells how much of a path is root's alone.
#[inline(never)]
fn trusted(draft: &Draft<'_>, path: &str) -> Outcome<usize> {
    let mut trusted = 0;
    for (at, byte) in path.bytes().enumerate() {
        if byte == b'/' {
            trusted = at;
            let directory = path.get(..at).unwrap_or_default();
            if !directory.is_empty()
                && draft
                    .stat(directory, WHAT)?
                    .is_some_and(|stat| stat.owner.0 != ROOT.0)
            {
                break;
            }
        }
    }
    Ok(trusted)
}
