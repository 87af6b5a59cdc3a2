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
static KEYWORDS: [&str; 6] = [
    DENY_USERS,
    ALLOW_USERS,
    DENY_GROUPS,
    ALLOW_GROUPS,
    PUBLIC_KEYS,
    STRICT,
];

/// The words of all lines with a keyword, and the file that has the first.
#[derive(Default)]
struct Words {
    words: Vec<String>,
    path: Box<str>,
}

impl Words {
    fn add(&mut self, setting: &Setting<'_>) {
        if self.words.is_empty() {
            self.path = Box::from(setting.path);
        }
        self.words.extend(setting.words());
    }

    /// Tells whether one of the words, taken as patterns, is for one of the names.
    fn name(&self, names: &[String]) -> bool {
        let fits = |pattern: &String| names.iter().any(|name| matches(pattern, name));
        self.words.iter().any(fits)
    }

    /// Tells whether it is off; the first word counts.
    fn is_no(&self) -> bool {
        let word = self.words.first();
        word.is_some_and(|word| word.eq_ignore_ascii_case("no"))
    }
}

/// What the configuration has for one keyword.
#[derive(Default)]
struct Known {
    /// For everybody, unless there is something for the administrator.
    all: Words,
    own: Words,
    /// It depends on the connection.
    unsure: bool,
}

/// Notes what keeps the administrator out.
#[inline(never)]
pub(super) fn look(draft: &mut Draft<'_>, account: &Account<'_>) -> Outcome<()> {
    if !draft.has_any(&sshd::PROGRAMS)? {
        return Ok(());
    }
    let mut known: [Known; KEYWORDS.len()] = Default::default();
    let Some(config) = Config::find(draft)? else {
        return Ok(());
    };
    config.read(&mut |setting| {
        for (keyword, known) in KEYWORDS.iter().zip(&mut known) {
            if setting.is(keyword) {
                if setting.global {
                    known.all.add(&setting);
                }
                match setting.user {
                    Holds::Yes => known.own.add(&setting),
                    Holds::Maybe => known.unsure = true,
                    Holds::No => {}
                }
            }
        }
    });
    let has_keys = !draft.identity.keys.accepted.is_empty();
    let user = [String::from(account.name.as_str())];
    let file = draft.planned(GROUP)?;
    let groups = accounts::groups_of(&file, account.name.as_str(), account.owner.1);
    for (keyword, known) in KEYWORDS.iter().zip(known) {
        let Known { all, own, unsure } = known;
        let value = match (own.words.is_empty(), unsure) {
            (false, _) => own,
            (true, true) => continue,
            (true, false) => all,
        };
        if *keyword == STRICT {
            if has_keys && !value.is_no() && is_writable(draft, &account.home)? {
                draft.note(Note::HomeIsWritable);
            }
            continue;
        }
        let turned_away = !value.words.is_empty()
            && match *keyword {
                DENY_USERS => value.name(&user),
                ALLOW_USERS => !without_hosts(&value).name(&user),
                DENY_GROUPS => value.name(&groups),
                ALLOW_GROUPS => !value.name(&groups),
                _ => has_keys && value.is_no(),
            };
        if turned_away {
            draft.note(Note::TurnedAway(keyword, value.path));
        }
    }
    Ok(())
}

/// Gives the patterns for users, of which each may end in a host.
fn without_hosts(value: &Words) -> Words {
    let user = |pattern: &String| {
        let user = pattern.rsplit_once('@').map(|(user, _)| user);
        String::from(user.unwrap_or(pattern))
    };
    Words {
        words: value.words.iter().map(user).collect(),
        path: Box::default(),
    }
}

/// Tells whether others than its user may write a home directory that stays as it is.
fn is_writable(draft: &Draft<'_>, home: &str) -> Outcome<bool> {
    let is_planned = draft.changes().iter().any(|change| change.path == home);
    let home = draft.stat(home, "the home directory")?;
    Ok(!is_planned && home.is_some_and(|stat| stat.mode & 0o022 != 0))
}
