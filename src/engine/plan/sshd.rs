//! Whether sshd lets people log in with a password.
//!
//! Only `PasswordAuthentication` and `KbdInteractiveAuthentication`, and only where the image has an sshd
//! that would do otherwise. sshd takes the first value that it reads, so what is written is tried before:
//! a file of our own where it is read early enough, else lines at the start of the main file. A `Match`
//! block of the image overrides both, which is its owner's wish and is only told. Follows `sshd_config(5)`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::draft::{Draft, ROOT, content};
use super::{Note, Outcome};
use crate::wire::accounts::{self, File};
use crate::wire::names::UserName;
use crate::wire::sshd_config::{self, Files, Holds, Setting};

/// Where distributions have sshd.
pub(super) const PROGRAMS: [&str; 4] = [
    "/usr/sbin/sshd",
    "/usr/bin/sshd",
    "/usr/sbin/sshd.pam",
    "/usr/local/sbin/sshd",
];
/// The configuration: the administrator's, else the distribution's below /usr.
const CONFIGS: [&str; 2] = [CONFIG, "/usr/etc/ssh/sshd_config"];
const CONFIG: &str = "/etc/ssh/sshd_config";
/// Where our values may go: a file of our own, unless it comes too late, else the main file, where
/// nothing can come before.
const WAYS: [&str; 3] = [
    "/etc/ssh/sshd_config.d/10-preroot.conf",
    "/etc/ssh/sshd_config.d/00-preroot.conf",
    CONFIG,
];

/// Between these lines the main file is ours.
const START: &str = "# preroot: as the platform says; of several values sshd takes the first.\n";
const END: &str = "# preroot: end.\n";

const PASSWORD: &str = "PasswordAuthentication";
const KEYBOARD: &str = "KbdInteractiveAuthentication";
/// The name of the same before OpenSSH 8.7, where the other one is there too and means half of it.
const CHALLENGE: &str = "ChallengeResponseAuthentication";

/// sshd's configuration in a root.
#[derive(Clone, Copy)]
pub(super) struct Config<'a> {
    draft: &'a Draft<'a>,
    /// The main file.
    path: &'static str,
    /// A file that is not there yet.
    new: Option<(&'static str, &'a [u8])>,
}

impl<'a> Config<'a> {
    /// Finds the configuration.
    pub(super) fn find(draft: &'a Draft<'a>) -> Outcome<Option<Self>> {
        for path in CONFIGS {
            if draft.has(path)? {
                let new = None;
                return Ok(Some(Self { draft, path, new }));
            }
        }
        Ok(None)
    }

    /// Goes through the settings for everybody and for the administrator.
    pub(super) fn read(&self, each: &mut dyn FnMut(Setting<'_>)) {
        let admin = self.draft.identity.admin.as_ref();
        let user = admin.map(UserName::as_str);
        sshd_config::read(self, self.path, user, each);
    }
}

impl Files for Config<'_> {
    fn read(&self, path: &str) -> Option<File> {
        match self.new {
            Some((new, content)) if new == path => Some(File::new(content.to_vec())),
            // What cannot be read keeps sshd from starting: that is the image's trouble.
            _ => self
                .draft
                .read_any(path, CONFIG, accounts::FILE_MAX)
                .ok()
                .flatten(),
        }
    }

    fn list(&self, directory: &str, each: &mut dyn FnMut(&str)) {
        let new = self
            .new
            .and_then(|(path, _)| path.strip_prefix(directory))
            .map(|name| name.trim_start_matches('/'));
        new.into_iter().for_each(&mut *each);
        let _ = self.draft.list(directory, CONFIG, &mut |name| {
            if Some(name) != new {
                each(name);
            }
        });
    }
}

/// What a configuration says of logging in with a password.
#[derive(Default)]
struct Logins {
    /// The first global value of each keyword.
    password: Option<bool>,
    keyboard: Option<bool>,
    challenge: Option<bool>,
    /// The same of the last two taken as one.
    either: Option<bool>,
    /// The file with a block that says otherwise for the administrator, perhaps.
    otherwise: Option<Box<str>>,
}

impl Logins {
    fn of(config: &Config<'_>, wanted: bool) -> Self {
        let mut logins = Self::default();
        // For these the administrator's value is known.
        let mut known = [false; 2];
        config.read(&mut |setting| {
            let Some(index) = [PASSWORD, KEYBOARD, CHALLENGE]
                .iter()
                .position(|keyword| setting.is(keyword))
            else {
                return;
            };
            let Some(value) = setting.flag() else {
                return;
            };
            let [known_password, known_either] = &mut known;
            let (first, known) = match index {
                0 => (&mut logins.password, known_password),
                1 => (&mut logins.keyboard, &mut *known_either),
                _ => (&mut logins.challenge, known_either),
            };
            if setting.global {
                first.get_or_insert(value);
                if index > 0 {
                    logins.either.get_or_insert(value);
                }
            }
            if setting.user != Holds::No && !*known {
                *known = setting.user == Holds::Yes;
                if value != wanted && logins.otherwise.is_none() {
                    logins.otherwise = Some(Box::from(setting.path));
                }
            }
        });
        logins
    }

    /// Tells whether the global values are the wanted ones, for an old sshd too if it may be one.
    fn are(&self, wanted: bool, old: bool) -> bool {
        let old_value = self.challenge.unwrap_or(true) || self.keyboard == Some(true);
        self.password.unwrap_or(true) == wanted
            && self.either.unwrap_or(true) == wanted
            && (!old || old_value == wanted)
    }
}

/// Adds what makes sshd take passwords, or refuse them.
#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>) -> Outcome<()> {
    if !draft.has_any(&PROGRAMS)? {
        return Ok(());
    }
    let (change, note) = {
        let Some(config) = Config::find(draft)? else {
            draft.note(Note::NoSshdConfig);
            return Ok(());
        };
        decide(&config)?
    };
    if let Some(path) = note {
        draft.note(Note::SshdMatch(path));
    }
    let Some((model, path, content)) = change else {
        return Ok(());
    };
    let verb = if draft.identity.password_authentication {
        "accept"
    } else {
        "refuse"
    };
    let purpose = format_args!("let sshd {verb} passwords");
    if path == CONFIG {
        draft.rewrite_like(model, path, (ROOT, 0o600), content, purpose)
    } else {
        draft.write_system(path, 0o600, content, purpose)
    }
}

/// A file to write: the one that it is like, its path and its content.
type Written = (&'static str, &'static str, File);

/// Finds the first way that gives sshd the wanted values, and the `Match` block that stands in its way.
#[inline(never)]
fn decide(config: &Config<'_>) -> Outcome<(Option<Written>, Option<Box<str>>)> {
    let wanted = config.draft.identity.password_authentication;
    let main = config.draft.read_or_empty(config.path)?;
    // The file that comes with sshd names, in its comments at least, what that sshd knows.
    let old = !names(&main, KEYBOARD) || names(&main, CHALLENGE);
    let mut logins = Logins::of(config, wanted);
    if logins.are(wanted, old) {
        return Ok((None, logins.otherwise));
    }
    let value = if wanted { "yes" } else { "no" };
    let more = if old {
        content(format_args!("{CHALLENGE} {value}\n"))
    } else {
        File::default()
    };
    let more = core::str::from_utf8(&more).unwrap_or_default();
    let mut lines = content(format_args!(
        "{START}{PASSWORD} {value}\n{KEYBOARD} {value}\n{more}{END}"
    ));
    let mut way = CONFIG;
    for path in WAYS {
        way = path;
        let mut tried = *config;
        if path == CONFIG {
            lines.extend_from_slice(without_ours(&main));
            tried.path = CONFIG;
        }
        tried.new = Some((path, &lines));
        logins = Logins::of(&tried, wanted);
        if logins.are(wanted, old) {
            break;
        }
    }
    Ok((Some((config.path, way, lines)), logins.otherwise))
}

/// Tells whether a file has this word, in a comment or not.
fn names(file: &[u8], word: &str) -> bool {
    // Words end at line breaks, too.
    accounts::words(file).any(|found| {
        let found = found.strip_prefix(b"#").unwrap_or(found);
        found.eq_ignore_ascii_case(word.as_bytes())
    })
}

/// Gives the main file without the lines that an earlier run put at its start.
fn without_ours(main: &[u8]) -> &[u8] {
    let Some(after) = main.strip_prefix(START.as_bytes()) else {
        return main;
    };
    let end = after
        .windows(END.len())
        .position(|piece| piece == END.as_bytes());
    end.and_then(|at| after.get(at.saturating_add(END.len())..))
        .unwrap_or(main)
}

/// Gives the files in which sshd looks for the administrator's keys, as its configuration names them;
/// nothing when it does not say.
#[inline(never)]
pub(super) fn keys_files(draft: &Draft<'_>) -> Outcome<Option<Vec<String>>> {
    let Some(config) = Config::find(draft)? else {
        return Ok(None);
    };
    let (mut all, mut own) = (None, None);
    config.read(&mut |setting| {
        if setting.is("AuthorizedKeysFile") {
            if setting.global && all.is_none() {
                all = Some(setting.words());
            }
            if setting.user == Holds::Yes && own.is_none() {
                own = Some(setting.words());
            }
        }
    });
    Ok(own.or(all))
}
