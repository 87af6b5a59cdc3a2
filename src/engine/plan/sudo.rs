//! The administrator's right to become root.
//!
//! One file of our own below `/etc/sudoers.d`, with waagent's split: whoever has a password is asked for
//! it, whoever has only a key is not, because there is nothing to ask for. Where there is no sudo but
//! doas, one rule for that. Not a change to polkit, and with it to run0: what these ask the groups of
//! administrators for is the distribution's. Follows sudoers(5) and doas.conf(5).

use alloc::vec::Vec;
use core::fmt;

use super::draft::{Draft, ROOT, content, text};
use super::{Kind, Note, Outcome, Step, Sudo};
use crate::wire::accounts;
use crate::wire::names::UserName;
use crate::wire::ovf::Password;

/// Where sudo's rules may be: the administrator's file, else the distribution's below /usr.
const SUDOERS: [&str; 2] = ["/etc/sudoers", "/usr/etc/sudoers"];
const DIRECTORY: &str = "/etc/sudoers.d";
/// How sudo's rules name a directory to read: today's spelling, and an older one that is no comment.
const INCLUDES: [&[u8]; 2] = [b"@includedir", b"#includedir"];
/// The same for a file.
const INCLUDES_FILE: [&[u8]; 2] = [b"@include", b"#include"];
/// Whom rules are for that are for the user, too: see the groups that a user is added to.
const USERS: [&[u8]; 5] = [b"ALL", b"%sudo", b"%wheel", b"%adm", b"%systemd-journal"];
/// The name has no dot and no `~`: sudo skips files that have.
const PATH: &str = "/etc/sudoers.d/preroot";

/// What makes sudo ask for a password that nobody knows here, root's mostly; SUSE has the first.
const OTHERS_PASSWORD: [&str; 3] = ["targetpw", "rootpw", "runaspw"];

/// What tells that there is doas.
const DOAS: &str = "/usr/bin/doas";
const DOAS_RULES: &str = "/etc/doas.conf";
/// Alpine's doas reads each `.conf` in it, in the order of their names and after the file; other builds
/// have no such directory.
const DOAS_DIRECTORY: &str = "/etc/doas.d";
/// The last rule that matches counts: ours is behind a `wheel.conf`.
const DOAS_PATH: &str = "/etc/doas.d/zz-preroot.conf";

#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>, name: &UserName) -> Outcome<()> {
    // Without a password there is nothing that could be asked for.
    let asks = match (draft.context.settings.sudo, &draft.identity.password) {
        (Sudo::Never, _) => return Ok(()),
        (Sudo::WithoutPassword, _) | (Sudo::Auto, Password::None) => false,
        (Sudo::Auto, Password::Given(_)) if draft.context.steps.has(Step::Password) => true,
        (Sudo::Auto, _) => has_password(draft, name)?,
        _ => true,
    };
    let with = if asks { "with" } else { "without" };
    let purpose = format_args!("let {name} become root {with} a password");
    let [own, distribution] = SUDOERS;
    let (path, rules) = match draft.read(own)? {
        Some(rules) => (own, Some(rules)),
        None => (distribution, draft.read(distribution)?),
    };
    let Some(rules) = rules else {
        return doas(draft, name, asks, purpose);
    };

    // In quotes, no name is an alias or a keyword.
    let quote = if name.means_more_in_sudoers() {
        "\""
    } else {
        ""
    };
    let mut rule = text(format_args!(
        "{quote}{name}{quote} ALL=(ALL) {}ALL\n",
        if asks { "" } else { "NOPASSWD: " }
    ));
    for flag in OTHERS_PASSWORD {
        if asks && is_set(&rules, flag) {
            rule = text(format_args!(
                "Defaults:{quote}{name}{quote} !{flag}\n{rule}"
            ));
        }
    }
    if draft
        .stat(DIRECTORY, DIRECTORY)?
        .is_none_or(|stat| stat.kind != Kind::Directory)
    {
        draft.system_directory(DIRECTORY, 0o750, "rules of sudo")?;
    }
    draft.write_system(PATH, 0o440, content(format_args!("{rule}")), purpose)?;

    // The old spellings: versions before 1.9.1 know no other.
    let (line, read) = if !accounts::lines(&rules).any(|line| reads(line, &INCLUDES, DIRECTORY)) {
        ("#includedir /etc/sudoers.d", DIRECTORY)
    } else if !asks && is_taken_back(draft, &rules, name)? {
        ("#include /etc/sudoers.d/preroot", PATH)
    } else {
        return Ok(());
    };
    let rules = accounts::append_last(&rules, line);
    let purpose = format_args!("read the rules in {read}");
    draft.rewrite_like(path, own, (ROOT, 0o440), rules, purpose)
}

/// Tells whether a rule that sudo reads after ours asks the user for a password: the last one counts.
#[inline(never)]
fn is_taken_back(draft: &Draft<'_>, rules: &[u8], name: &UserName) -> Outcome<bool> {
    let mut is_read = false;
    let mut taken = false;
    for line in accounts::lines(rules) {
        if reads(line, &INCLUDES, DIRECTORY) {
            is_read = true;
            taken = is_taken_back_beside(draft, name)?;
        } else if reads(line, &INCLUDES_FILE, PATH) {
            taken = false;
        } else {
            taken |= is_read && asks_for_password(line, name);
        }
    }
    Ok(taken)
}

/// The same for the files of our directory: sudo reads them in the order of their bytes.
fn is_taken_back_beside(draft: &Draft<'_>, name: &UserName) -> Outcome<bool> {
    let mut later = Vec::new();
    draft.list(DIRECTORY, DIRECTORY, &mut |file| {
        let path = text(format_args!("{DIRECTORY}/{file}"));
        if *path > *PATH && !file.contains('.') && !file.ends_with('~') {
            later.push(path);
        }
    })?;
    for path in later {
        // What cannot be read is the image's trouble.
        let read = draft.read_any(&path, DIRECTORY, accounts::FILE_MAX);
        let rules = read.ok().flatten().unwrap_or_default();
        if accounts::lines(&rules).any(|line| asks_for_password(line, name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Tells whether a line is a rule for the user, too, and one that asks for a password.
fn asks_for_password(line: &[u8], name: &UserName) -> bool {
    let has = |word: &[u8]| line.windows(word.len()).any(|piece| piece == word);
    let first = accounts::words(line).next().unwrap_or_default();
    (USERS.contains(&first) || unquoted(first) == name.as_str().as_bytes())
        && has(b"=")
        && !has(b"NOPASSWD")
}

/// Takes the quotes off a word.
fn unquoted(word: &[u8]) -> &[u8] {
    let word = word.strip_prefix(b"\"").unwrap_or(word);
    word.strip_suffix(b"\"").unwrap_or(word)
}

/// Tells whether a line makes sudo read this file or directory.
fn reads(line: &[u8], words: &[&[u8]], path: &str) -> bool {
    let mut line = accounts::words(line);
    line.next().is_some_and(|word| words.contains(&word))
        && line.next().is_some_and(|read| {
            let read = unquoted(read);
            read.strip_suffix(b"/").unwrap_or(read) == path.as_bytes()
        })
}

/// Tells whether a user has a password before anything is changed.
fn has_password(draft: &Draft<'_>, name: &UserName) -> Outcome<bool> {
    let shadow = draft.read_or_empty("/etc/shadow")?;
    let line = accounts::find(&shadow, name.as_str()).unwrap_or_default();
    let hash = accounts::column(line, accounts::HASH).unwrap_or_default();
    Ok(!matches!(hash, [] | [b'*' | b'!', ..]))
}

/// Adds a rule of doas, if there is doas; the last rule that matches counts.
#[inline(never)]
fn doas(
    draft: &mut Draft<'_>,
    name: &UserName,
    asks: bool,
    purpose: fmt::Arguments<'_>,
) -> Outcome<()> {
    let in_directory = draft.has(DOAS_DIRECTORY)?;
    let rules = draft.read(DOAS_RULES)?;
    if !in_directory && rules.is_none() && !draft.has(DOAS)? {
        draft.note(Note::NoSudo);
        return Ok(());
    }
    // In quotes, no name is a keyword.
    let how = if asks { "persist" } else { "nopass" };
    let rule = text(format_args!("permit {how} \"{name}\""));
    if in_directory {
        let rules = content(format_args!("{rule}\n"));
        return draft.write_system(DOAS_PATH, 0o400, rules, purpose);
    }
    let rules = rules.unwrap_or_default();
    if accounts::lines(&rules).any(|line| line == rule.as_bytes()) {
        return Ok(());
    }
    let rules = accounts::append_last(&rules, &rule);
    draft.rewrite(DOAS_RULES, (ROOT, 0o400), rules, purpose)
}

/// Tells whether a flag is set for everybody.
fn is_set(sudoers: &[u8], flag: &str) -> bool {
    accounts::lines(sudoers).any(|line| {
        let mut words = accounts::words(line);
        words.next() == Some(b"Defaults")
            && words
                .take_while(|word| !word.starts_with(b"#"))
                .flat_map(|word| word.split(|byte| *byte == b','))
                .any(|word| word == flag.as_bytes())
    })
}
