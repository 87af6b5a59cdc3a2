//! The administrator's right to become root.
//!
//! One file of our own below `/etc/sudoers.d`, with waagent's split: whoever has a password is asked for
//! it, whoever has only a key is not, because there is nothing to ask for (`protocol.md` 6.2, traps 51, 52).

use alloc::format;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::draft::{Draft, Place};
use super::{Kind, Note, PlanFault};
use crate::wire::accounts;
use crate::wire::names::UserName;
use crate::wire::ovf::Password;

/// Where sudo's rules may be: the administrator's file, else the distribution's below /usr.
const SUDOERS: [&str; 2] = ["/etc/sudoers", "/usr/etc/sudoers"];
const DIRECTORY: &str = "/etc/sudoers.d";
/// The name has no dot and no `~`: sudo skips files that have.
const PATH: &str = "/etc/sudoers.d/preroot";

pub(super) fn add(draft: &mut Draft<'_>, name: UserName) -> Result<(), PlanFault> {
    let mut main = None;
    for path in SUDOERS {
        if let Some(content) = draft.read(path, accounts::FILE_MAX)? {
            main = Some((path, content));
            break;
        }
    }
    let Some((path, content)) = main else {
        draft.note(Note::NoSudo);
        return Ok(());
    };

    // Without a password there is nothing that sudo could ask for.
    let tag = match draft.identity.password {
        Password::None => "NOPASSWD: ",
        Password::Given(_) | Password::Redacted => "",
    };
    // Bare capitals would be read as the name of an alias.
    let quote = if name.looks_like_an_alias() { "\"" } else { "" };
    let rule = format!("{quote}{name}{quote} ALL=(ALL) {tag}ALL\n").into_bytes();
    if draft
        .stat(DIRECTORY, DIRECTORY)?
        .is_none_or(|stat| stat.kind != Kind::Directory)
    {
        draft.directory(&Place::system(DIRECTORY, 0o750), "rules of sudo")?;
    }
    let purpose = if tag.is_empty() { "with" } else { "without" };
    draft.write(
        &Place::system(PATH, 0o440),
        Zeroizing::new(rule),
        format!("let {name} become root {purpose} a password"),
    )?;

    if !includes_directory(&content) {
        let stat = draft.stat(path, path)?;
        let mut content: Vec<u8> = content.to_vec();
        if content.last().is_some_and(|byte| *byte != b'\n') {
            content.push(b'\n');
        }
        // The old spelling: versions before 1.9.1 know no other.
        content.extend_from_slice(b"#includedir /etc/sudoers.d\n");
        draft.write(
            &Place::system(SUDOERS[0], 0o440).like(stat),
            Zeroizing::new(content),
            format!("read the rules in {DIRECTORY}"),
        )?;
    }
    Ok(())
}

/// Tells whether sudo reads our directory: `@includedir` or its older spelling, which is no comment.
fn includes_directory(sudoers: &[u8]) -> bool {
    accounts::lines(sudoers).any(|line| {
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        matches!(words.next(), Some(b"@includedir" | b"#includedir"))
            && words.next().is_some_and(|path| {
                let path = path.strip_prefix(b"\"").unwrap_or(path);
                let path = path.strip_suffix(b"\"").unwrap_or(path);
                path.strip_suffix(b"/").unwrap_or(path) == DIRECTORY.as_bytes()
            })
    })
}
