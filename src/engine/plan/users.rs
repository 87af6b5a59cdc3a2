//! The administrator's account: passwd, shadow, group, gshadow, subordinate ids, home directory.
//!
//! A user that the image has already is kept and completed: its id, shell and home stay. passwd comes last,
//! so that a user who is in it has everything else. Follows useradd(8) and login.defs(5).

use alloc::boxed::Box;
use alloc::string::String;
use core::ops::RangeInclusive;

use zeroize::Zeroizing;

use super::draft::{Draft, ROOT, text};
use super::{
    Kind, Note, Outcome, Output, PlanFault, Step, Sudo, credentials, door, home, keys, password,
    sudo,
};
use crate::wire::accounts::{self, File};
use crate::wire::names::UserName;
use crate::wire::ovf::Password;

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
pub(super) const GROUP: &str = "/etc/group";
const GSHADOW: &str = "/etc/gshadow";

/// No password, in shadow. Not `!`: an sshd without PAM refuses keys, too, where it sees that.
const LOCKED: &str = "*";
/// The same for root, as waagent writes it.
const ROOT_LOCKED: &[u8] = b"*LOCK*";

/// Groups of an administrator, where the distribution has them: the logs and the way to become root.
static GROUPS: [&str; 4] = ["sudo", "wheel", "adm", "systemd-journal"];
/// How many of these, the first ones, are the way to become root.
const OF_ROOT: usize = 2;

/// The files of subordinate ids, and what login.defs calls their range and the length of a stretch.
static SUBORDINATE: [[&str; 4]; 2] = [
    ["/etc/subuid", "SUB_UID_MIN", "SUB_UID_MAX", "SUB_UID_COUNT"],
    ["/etc/subgid", "SUB_GID_MIN", "SUB_GID_MAX", "SUB_GID_COUNT"],
];

/// Shells in the order in which one is taken when the distribution names none, or only `/bin/sh`.
const SHELLS: [&str; 4] = ["/bin/bash", "/usr/bin/bash", "/bin/ash", "/bin/sh"];

/// A user that nobody may be given, whatever login.defs and the settings say; root is the other.
const NOBODY: u32 = 65534;

/// The administrator, as far as the other steps need to know it.
pub(super) struct Account<'a> {
    pub(super) name: &'a UserName,
    pub(super) owner: (u32, u32),
    pub(super) home: String,
    /// The name of the primary group is the user's own, and it may have to be added.
    own_group: bool,
}

/// What the distribution says of new users.
struct Customs {
    login_defs: File,
    useradd: File,
}

impl Customs {
    fn range(&self, min: &str, max: &str, standard: RangeInclusive<u32>) -> RangeInclusive<u32> {
        let (start, end) = standard.into_inner();
        self.number(min).unwrap_or(start)..=self.number(max).unwrap_or(end)
    }

    fn number(&self, key: &str) -> Option<u32> {
        accounts::login_defs_number(&self.login_defs, key)
    }

    fn uids(&self) -> RangeInclusive<u32> {
        self.range("UID_MIN", "UID_MAX", 1000..=60_000)
    }

    fn gids(&self) -> RangeInclusive<u32> {
        self.range("GID_MIN", "GID_MAX", 1000..=60_000)
    }

    /// The directory with what every home begins with.
    fn skel(&self) -> &str {
        accounts::assignment(&self.useradd, "SKEL")
            .filter(|skel| skel.starts_with('/'))
            .map_or(home::SKEL, |skel| skel.trim_end_matches('/'))
    }

    /// How many days after its password an account ends, as shadow writes it: empty for never.
    fn inactive(&self) -> &str {
        accounts::assignment(&self.useradd, "INACTIVE")
            .filter(|days| days.bytes().all(|byte| byte.is_ascii_digit()))
            .unwrap_or("")
    }

    /// A number of login.defs as shadow writes it: empty when it is not set.
    fn days(&self, key: &str) -> &str {
        accounts::login_defs(&self.login_defs, key)
            .filter(|text| !text.starts_with('-'))
            .unwrap_or("")
    }
}

/// Adds everything about the administrator, if there is one.
#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>) -> Outcome<()> {
    let steps = draft.context.steps;
    let identity = draft.identity;
    let Some(name) = &identity.admin else {
        if identity.has_credentials() {
            draft.note(Note::NoUser);
        }
        let file = draft.read_or_empty(SHADOW)?;
        return put_shadow(draft, file, String::new());
    };
    let customs = Customs {
        login_defs: either(draft, "/etc/login.defs", "/usr/etc/login.defs")?,
        useradd: either(draft, "/etc/default/useradd", "/usr/etc/default/useradd")?,
    };
    let passwd = draft.read_or_empty(PASSWD)?;

    let known = accounts::user(&passwd, name.as_str());
    let new = known.is_none();
    let account = match known {
        Some(user) => {
            let system = user.uid < *customs.uids().start() && !draft.context.settings.system_users;
            if system || matches!(user.uid, 0 | NOBODY) {
                return Err(PlanFault::SystemUser(Box::new(*name), user.uid).into());
            }
            if !user.home.starts_with('/') {
                return Err(PlanFault::Home.into());
            }
            if !lets_in(draft, &passwd, name.as_str())? {
                draft.note(Note::NoLoginShell);
            }
            Account {
                name,
                owner: (user.uid, user.gid),
                home: String::from(user.home),
                own_group: false,
            }
        }
        None if accounts::find(&passwd, name.as_str()).is_some() => {
            return Err(PlanFault::DamagedLine(PASSWD).into());
        }
        None if !steps.has(Step::User) => return Ok(()),
        None if !identity.has_credentials() => {
            return Err(PlanFault::NoCredentials(Box::new(*name)).into());
        }
        None => new_account(draft, &customs, &passwd, name)?,
    };

    for (position, refusal) in &identity.keys.refused {
        draft.note(Note::RefusedKey(*position, refusal.clone()));
    }
    if steps.has(Step::User) {
        groups(draft, &account)?;
        if new {
            subordinate_ids(draft, &customs, name)?;
        }
        home::add(draft, &account, new, home_mode(&customs), customs.skel())?;
    }
    if steps.has(Step::Keys) {
        keys::add(draft, &account)?;
    }
    let hash = shadow(draft, &customs, &passwd, &account, new)?;
    if steps.has(Step::User) && new {
        let shell = shell(draft, &customs)?;
        let (uid, gid) = account.owner;
        let home = &account.home;
        draft.note_account(credentials::Account {
            name: String::from(name.as_str()),
            uid,
            gid,
            own_group: account.own_group,
            home: home.clone(),
            shell: String::from(shell),
            hash,
        });
        let line = text(format_args!("{name}:x:{uid}:{gid}::{home}:{shell}"));
        draft.rewrite(
            PASSWD,
            (ROOT, 0o644),
            accounts::append(&passwd, &line),
            format_args!("add user {name}: uid {uid}, gid {gid}, home {home}, shell {shell}"),
        )?;
    }
    if steps.has(Step::Sudo) {
        sudo::add(draft, name)?;
    }
    door::look(draft, &account)
}

/// Reads a file of the administrator, else the distribution's, where that is below /usr, as SUSE has it.
fn either(draft: &Draft<'_>, own: &'static str, distribution: &'static str) -> Outcome<File> {
    match draft.read(own)? {
        Some(file) => Ok(file),
        None => draft.read_or_empty(distribution),
    }
}

/// Chooses ids and home for a user that is not there yet.
#[inline(never)]
fn new_account<'a>(
    draft: &Draft<'_>,
    customs: &Customs,
    passwd: &[u8],
    name: &'a UserName,
) -> Outcome<Account<'a>> {
    let group = draft.read_or_empty(GROUP)?;
    // Where the system's own accounts are part of /usr, their ids are taken too.
    let usr_passwd = draft.read_or_empty("/usr/lib/passwd")?;
    let usr_group = draft.read_or_empty("/usr/lib/group")?;
    if let Some(user) = accounts::user(&usr_passwd, name.as_str()) {
        return Err(PlanFault::SystemUser(Box::new(*name), user.uid).into());
    }
    if let Some(gid) = accounts::group(&usr_group, name.as_str()) {
        return Err(PlanFault::SystemGroup(Box::new(*name), gid).into());
    }
    let users: [&[u8]; 2] = [passwd, &usr_passwd];
    let groups: [&[u8]; 2] = [&group, &usr_group];
    let all: [&[u8]; 4] = [passwd, &usr_passwd, &group, &usr_group];

    let old_group = accounts::group(&group, name.as_str());
    let common_group = match accounts::login_defs(&customs.login_defs, "USERGROUPS_ENAB") {
        Some("no") => accounts::assignment(&customs.useradd, "GROUP")
            .and_then(|group_or_id| {
                group_or_id
                    .parse()
                    .ok()
                    .or_else(|| accounts::group(&group, group_or_id))
            })
            .or_else(|| accounts::group(&group, "users")),
        _ => None,
    };
    let own_group = old_group.is_some() || common_group.is_none();
    let (uid, gid) = match old_group {
        // An interrupted run, or the image, left the group: its id is the user's first choice.
        Some(gid) if customs.gids().contains(&gid) => (
            accounts::free_id(&users, customs.uids(), Some(gid)),
            Some(gid),
        ),
        Some(gid) => return Err(PlanFault::SystemGroup(Box::new(*name), gid).into()),
        None if own_group => {
            let uid = accounts::free_id(&all, customs.uids(), None)
                .or_else(|| accounts::free_id(&users, customs.uids(), None));
            (uid, accounts::free_id(&groups, customs.gids(), uid))
        }
        None => (
            accounts::free_id(&users, customs.uids(), None),
            common_group,
        ),
    };
    let homes = accounts::assignment(&customs.useradd, "HOME")
        .filter(|homes| homes.starts_with('/') && !homes.contains(':'))
        .unwrap_or("/home")
        .trim_end_matches('/');
    let (Some(uid), Some(gid)) = (uid, gid) else {
        return Err(PlanFault::NoFreeId.into());
    };
    Ok(Account {
        name,
        owner: (uid, gid),
        home: text(format_args!("{homes}/{name}")),
        own_group,
    })
}

/// Adds the user's own group, and the user to the groups of administrators.
#[inline(never)]
fn groups(draft: &mut Draft<'_>, account: &Account<'_>) -> Outcome<()> {
    let name = account.name.as_str();
    let gid = account.owner.1;
    let skipped = match draft.context.settings.sudo {
        Sudo::Never => OF_ROOT,
        _ => 0,
    };
    for (path, mode) in &[(GROUP, 0o644), (GSHADOW, 0o640)] {
        let Some(mut file) = draft.read(path)? else {
            continue;
        };
        let mut purpose = String::new();
        if account.own_group && accounts::find(&file, name).is_none() {
            let line = if *path == GROUP {
                text(format_args!("{name}:x:{gid}:"))
            } else {
                text(format_args!("{name}:!::"))
            };
            file = accounts::append(&file, &line);
            purpose = text(format_args!("add group {name}"));
        }
        for group in GROUPS.iter().skip(skipped) {
            if let Some(more) = accounts::add_member(&file, group, name) {
                draft.note_group(group);
                file = more;
                let comma = if purpose.is_empty() { "" } else { ", " };
                purpose = text(format_args!("{purpose}{comma}add {name} to {group}"));
            }
        }
        if !purpose.is_empty() {
            draft.rewrite(path, (ROOT, *mode), file, format_args!("{purpose}"))?;
        }
    }
    Ok(())
}

/// Adds stretches of subordinate ids, which containers without root need, where the image uses them.
#[inline(never)]
fn subordinate_ids(draft: &mut Draft<'_>, customs: &Customs, name: &UserName) -> Outcome<()> {
    for [path, min, max, count] in &SUBORDINATE {
        let Some(file) = draft.read(path)? else {
            continue;
        };
        if accounts::find(&file, name.as_str()).is_some() {
            continue;
        }
        let range = customs.range(min, max, 100_000..=600_100_000);
        let count = customs.number(count).unwrap_or(65_536);
        if count == 0 {
            continue;
        }
        let Some(first) = accounts::free_stretch(&file, range, count) else {
            continue;
        };
        let line = text(format_args!("{name}:{first}:{count}"));
        draft.rewrite(
            path,
            (ROOT, 0o644),
            accounts::append(&file, &line),
            format_args!("give {name} {count} subordinate ids"),
        )?;
    }
    Ok(())
}

/// Gives the user a line in shadow, with the password if there is one, else locked for passwords; gives
/// what stands there for a new user's password.
#[inline(never)]
fn shadow(
    draft: &mut Draft<'_>,
    customs: &Customs,
    passwd: &[u8],
    account: &Account<'_>,
    new: bool,
) -> Outcome<Zeroizing<String>> {
    let steps = draft.context.steps;
    let name = account.name.as_str();
    let hash = match &draft.identity.password {
        Password::Given(secret) if steps.has(Step::Password) => {
            Some(password::hash(secret.expose(), draft.context.salt))
        }
        Password::Redacted if steps.has(Step::Password) => {
            draft.note(Note::RedactedPassword);
            None
        }
        _ => None,
    };
    let mut word = Zeroizing::default();
    if draft.context.output != Output::Files {
        word = hash.clone().unwrap_or_else(|| String::from(LOCKED).into());
    }
    // A password changed on day 0 counts as expired: say nothing rather than that.
    let today = match draft.context.today_days {
        0 => String::new(),
        days => text(format_args!("{days}")),
    };
    let mut file = draft.read_or_empty(SHADOW)?;
    if new {
        // What an earlier user of that name left here, a password perhaps, is not the new one's.
        file = accounts::without(&file, name);
    }
    let old = accounts::find(&file, name);
    let known = old.is_some();
    let only_locked = old
        .and_then(|line| accounts::column(line, accounts::HASH))
        .is_some_and(|hash| matches!(hash, b"!" | b"!!"));
    let has_keys = steps.has(Step::Keys) && !draft.identity.keys.accepted.is_empty();
    let changed = match hash {
        None if only_locked && has_keys => Some((
            accounts::replace(&file, name, accounts::HASH, LOCKED.as_bytes()),
            "lock",
        )),
        Some(hash) if known => {
            let file = accounts::replace(&file, name, accounts::HASH, hash.as_bytes());
            let file = accounts::replace(&file, name, 2, today.as_bytes());
            Some((file, "set"))
        }
        None if known => None,
        // A user of the image without a line here may have its hash in passwd: that stays.
        None if !(new || steps.has(Step::User) && points_here(passwd, name)) => None,
        hash => {
            let mut line = Zeroizing::new(String::with_capacity(256));
            let (secret, verb) = hash.as_ref().map_or((LOCKED, "lock"), |hash| (hash, "set"));
            for part in [
                name,
                secret,
                &today,
                customs.days("PASS_MIN_DAYS"),
                customs.days("PASS_MAX_DAYS"),
                customs.days("PASS_WARN_AGE"),
                customs.inactive(),
            ] {
                line.push_str(part);
                line.push(':');
            }
            line.push(':');
            Some((accounts::append(&file, &line), verb))
        }
    };
    let Some((file, verb)) = changed else {
        put_shadow(draft, file, String::new())?;
        return Ok(word);
    };
    let purpose = text(format_args!("{verb} the password of {name}"));
    put_shadow(draft, file, purpose)?;

    if !new && !points_here(passwd, name) {
        draft.rewrite(
            PASSWD,
            (ROOT, 0o644),
            accounts::replace(passwd, name, accounts::HASH, b"x"),
            format_args!("point {name} to {SHADOW}"),
        )?;
    }
    Ok(word)
}

/// Locks the password of root if that is wanted, and puts shadow in its place if anything changed.
#[inline(never)]
fn put_shadow(draft: &mut Draft<'_>, mut file: File, mut purpose: String) -> Outcome<()> {
    let hash =
        accounts::find(&file, "root").and_then(|line| accounts::column(line, accounts::HASH));
    // A hash that starts so is none already.
    let locked = hash.is_none_or(|hash| matches!(hash, [b'*' | b'!', ..]));
    if draft.context.settings.lock_root && draft.context.steps.has(Step::Password) && !locked {
        file = accounts::replace(&file, "root", accounts::HASH, ROOT_LOCKED);
        let comma = if purpose.is_empty() { "" } else { ", " };
        purpose = text(format_args!("{purpose}{comma}lock the password of root"));
    }
    if purpose.is_empty() {
        return Ok(());
    }
    let owner = shadow_owner(draft)?;
    let purpose = format_args!("{purpose}");
    draft.rewrite(SHADOW, (owner, 0o640), file, purpose)
}

/// Tells whether the user has a shell that lets a person in, and that is in the root.
fn lets_in(draft: &Draft<'_>, passwd: &[u8], name: &str) -> Outcome<bool> {
    let shell = accounts::find(passwd, name).and_then(|line| accounts::column(line, 6));
    let shell = core::str::from_utf8(shell.unwrap_or_default()).unwrap_or_default();
    if shell.is_empty() {
        return Ok(true);
    }
    let refuses = shell.ends_with("/nologin") || shell.ends_with("/false");
    Ok(!refuses && draft.stat(shell, "a shell")?.is_some())
}

/// Tells whether passwd sends whoever checks the user's password to shadow.
fn points_here(passwd: &[u8], name: &str) -> bool {
    accounts::find(passwd, name)
        .is_some_and(|line| accounts::column(line, accounts::HASH) == Some(b"x"))
}

/// Owner of a new shadow file: its own group where the distribution has one.
fn shadow_owner(draft: &Draft<'_>) -> Outcome<(u32, u32)> {
    let group = draft.read_or_empty(GROUP)?;
    Ok((ROOT.0, accounts::group(&group, "shadow").unwrap_or(ROOT.1)))
}

fn home_mode(customs: &Customs) -> u32 {
    customs
        .number("HOME_MODE")
        .or_else(|| customs.number("UMASK").map(|mask| !mask))
        .unwrap_or(0o700)
        & 0o777
}

/// Finds a shell that is in the root.
#[inline(never)]
fn shell<'a>(draft: &Draft<'_>, customs: &'a Customs) -> Outcome<&'a str> {
    let own = accounts::assignment(&customs.useradd, "SHELL")
        .filter(|shell| shell.starts_with('/') && !shell.contains(':') && *shell != "/bin/sh");
    for shell in own.into_iter().chain(SHELLS) {
        if let Some(stat) = draft.stat(shell, "a shell")?
            && stat.kind == Kind::File
            && stat.mode & 0o111 != 0
        {
            return Ok(shell);
        }
    }
    Ok("/bin/sh")
}
