//! Whether sshd turns the administrator away, whatever the keys and the password.
//!
//! Only told: whom an image lets in is its owner's wish. What depends on where the user comes from is not
//! looked at, nor what PAM may want. Follows `sshd_config(5)` and, where that is silent, OpenSSH's `auth.c`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::draft::Draft;
use super::sshd::{self, Config};
use super::users::{Account, GROUP};
use super::{Note, Outcome};
use crate::wire::accounts;
use crate::wire::sshd_config::{Holds, Setting, matches};

/// Has the names of users, or of hosts with them.
const DENY_USERS: &str = "DenyUsers";
const ALLOW_USERS: &str = "AllowUsers";
const DENY_GROUPS: &str = "DenyGroups";
const ALLOW_GROUPS: &str = "AllowGroups";
const PUBLIC_KEYS: &str = "PubkeyAuthentication";
/// Whether sshd takes no keys from a home directory that others may write.
const STRICT: &str = "StrictModes";
const KEYWORDS: [&str; 6] = [
    DENY_USERS,
    ALLOW_USERS,
    DENY_GROUPS,
    ALLOW_GROUPS,
    PUBLIC_KEYS,
    STRICT,
];

/// A line with one of the keywords.
struct Line {
    keyword: &'static str,
    words: Vec<String>,
    global: bool,
    user: Holds,
    path: Box<str>,
}

/// Notes what keeps the administrator out.
#[inline(never)]
pub(super) fn look(draft: &mut Draft<'_>, account: &Account<'_>) -> Outcome<()> {
    if !draft.has_any(&sshd::PROGRAMS)? {
        return Ok(());
    }
    let mut all = Vec::new();
    if let Some(config) = Config::find(draft)? {
        config.read(&mut |setting| take(&mut all, &setting));
    }
    let user = account.name.as_str();
    let file = draft.planned(GROUP)?;
    let groups = accounts::groups_of(&file, user, account.owner.1);
    let user = [String::from(user)];
    let has_keys = !draft.identity.keys.accepted.is_empty();
    for keyword in KEYWORDS {
        let lines = in_force(&all, keyword);
        let turned_away = match keyword {
            DENY_USERS => is_named(&lines, &user, false),
            ALLOW_USERS => !lines.is_empty() && !is_named(&lines, &user, true),
            DENY_GROUPS => is_named(&lines, &groups, false),
            ALLOW_GROUPS => !lines.is_empty() && !is_named(&lines, &groups, false),
            PUBLIC_KEYS => has_keys && is_no(&lines),
            _ => has_keys && !is_no(&lines) && is_writable(draft, &account.home)?,
        };
        if turned_away {
            draft.note(match lines.first() {
                Some(line) if keyword != STRICT => Note::TurnedAway(keyword, line.path.clone()),
                _ => Note::HomeIsWritable,
            });
        }
    }
    Ok(())
}

/// Keeps a line that has one of the keywords.
#[inline(never)]
fn take(lines: &mut Vec<Line>, setting: &Setting<'_>) {
    if let Some(keyword) = KEYWORDS.iter().find(|keyword| setting.is(keyword)) {
        lines.push(Line {
            keyword,
            words: setting.words(),
            global: setting.global,
            user: setting.user,
            path: Box::from(setting.path),
        });
    }
}

/// Gives the lines with a keyword that count for the administrator: its own, else those for all; none
/// where that depends on the connection.
#[inline(never)]
fn in_force<'a>(all: &'a [Line], keyword: &str) -> Vec<&'a Line> {
    let mut lines: Vec<_> = all.iter().filter(|line| line.keyword == keyword).collect();
    let most = lines.iter().map(|line| line.user).max();
    lines.retain(|line| match most {
        Some(Holds::Yes) => line.user == Holds::Yes,
        Some(Holds::Maybe) => false,
        _ => line.global,
    });
    lines
}

/// Tells whether a pattern of these lines is for one of the names; it may end in a host.
#[inline(never)]
fn is_named(lines: &[&Line], names: &[String], hosts: bool) -> bool {
    lines.iter().flat_map(|line| &line.words).any(|pattern| {
        let pattern = match pattern.rsplit_once('@') {
            Some((user, _)) if hosts => user,
            _ => pattern,
        };
        names.iter().any(|name| matches(pattern, name))
    })
}

/// Tells whether these lines turn something off; the first one counts.
fn is_no(lines: &[&Line]) -> bool {
    let word = lines.first().and_then(|line| line.words.first());
    word.is_some_and(|word| word.eq_ignore_ascii_case("no"))
}

/// Tells whether others than its user may write a home directory that stays as it is.
fn is_writable(draft: &Draft<'_>, home: &str) -> Outcome<bool> {
    let is_planned = draft.changes().iter().any(|change| change.path == home);
    let home = draft.stat(home, "the home directory")?;
    Ok(!is_planned && home.is_some_and(|stat| stat.mode & 0o022 != 0))
}
