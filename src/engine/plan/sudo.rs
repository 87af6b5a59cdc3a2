//! The administrator's right to become root.
//!
//! One file of our own below `/etc/sudoers.d`, with waagent's split: whoever has a password is asked for
//! it, whoever has only a key is not, because there is nothing to ask for.

use super::draft::{Draft, ROOT, content};
use super::{Kind, Note, Outcome};
use crate::wire::accounts;
use crate::wire::names::UserName;
use crate::wire::ovf::Password;

/// Where sudo's rules may be: the administrator's file, else the distribution's below /usr.
const SUDOERS: [&str; 2] = ["/etc/sudoers", "/usr/etc/sudoers"];
const DIRECTORY: &str = "/etc/sudoers.d";
/// How sudo's rules name a directory to read: today's spelling, and an older one that is no comment.
const INCLUDES: [&[u8]; 2] = [b"@includedir", b"#includedir"];
/// The name has no dot and no `~`: sudo skips files that have.
const PATH: &str = "/etc/sudoers.d/preroot";

#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>, name: &UserName) -> Outcome<()> {
    let [own, distribution] = SUDOERS;
    let (path, rules) = match draft.read(own)? {
        Some(rules) => (own, Some(rules)),
        None => (distribution, draft.read(distribution)?),
    };
    let Some(rules) = rules else {
        draft.note(Note::NoSudo);
        return Ok(());
    };

    // Without a password there is nothing that sudo could ask for.
    let (tag, purpose) = match draft.identity.password {
        Password::None => ("NOPASSWD: ", "without"),
        Password::Given(_) | Password::Redacted => ("", "with"),
    };
    // Bare capitals would be read as the name of an alias.
    let quote = if name.looks_like_an_alias() { "\"" } else { "" };
    if draft
        .stat(DIRECTORY, DIRECTORY)?
        .is_none_or(|stat| stat.kind != Kind::Directory)
    {
        draft.system_directory(DIRECTORY, 0o750, "rules of sudo")?;
    }
    draft.write_system(
        PATH,
        0o440,
        content(format_args!("{quote}{name}{quote} ALL=(ALL) {tag}ALL\n")),
        format_args!("let {name} become root {purpose} a password"),
    )?;

    if !includes_directory(&rules) {
        // The old spelling: versions before 1.9.1 know no other.
        let rules = accounts::append_last(&rules, "#includedir /etc/sudoers.d");
        draft.rewrite_like(
            path,
            own,
            (ROOT, 0o440),
            rules,
            format_args!("read the rules in {DIRECTORY}"),
        )?;
    }
    Ok(())
}

/// Tells whether sudo reads our directory.
fn includes_directory(sudoers: &[u8]) -> bool {
    accounts::lines(sudoers).any(|line| {
        let mut words = accounts::words(line);
        words.next().is_some_and(|word| INCLUDES.contains(&word))
            && words.next().is_some_and(|path| {
                let path = path.strip_prefix(b"\"").unwrap_or(path);
                let path = path.strip_suffix(b"\"").unwrap_or(path);
                path.strip_suffix(b"/").unwrap_or(path) == DIRECTORY.as_bytes()
            })
    })
}
