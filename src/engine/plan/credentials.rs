//! The plan for a root that takes no writes: what its own systemd shall do instead of us.
//!
//! The plan is made as for any root; here its parts go to who carries them out when the real root runs:
//! the host name to PID 1, the account to systemd-sysusers, all other files to systemd-tmpfiles. Where
//! /etc takes no writes even then, the account becomes a user record, which nss-systemd reads. All of it
//! lies below `/run`, which is the real root's, too, and is gone with the boot. Not the decision which
//! roots are such. Follows systemd.system-credentials(7), sysusers.d(5), tmpfiles.d(5), nss-systemd(8),
//! and systemd's JSON User Records.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use zeroize::Zeroizing;

use super::draft::{Draft, Place, text};
use super::{
    Action, CUSTOM_DATA, Change, HOST_NAME, Note, Outcome, Plan, PlanFault, RootView, Step,
};
use crate::wire::accounts::{self, FILE_MAX, File};
use crate::wire::base64;
use crate::wire::fstab::Entry;
use crate::wire::json::Quoted;
use crate::wire::sshkey::PublicKey;

/// Where an initramfs leaves credentials for the real root.
const DIRECTORY: &str = "/run/credentials/@initrd";
/// Where user records are that do not outlive the boot.
const RECORDS: &str = "/run/userdb";
/// What systemd-sysusers is told besides its own unit.
const DROP_IN: &str = "/run/systemd/system/systemd-sysusers.service.d/50-preroot.conf";
/// Its unit takes the credentials of root's password only.
const IMPORT: &[u8] = b"[Service]\nImportCredential=passwd.*\n";

/// The host name's file that is mounted over the root's own.
pub const COVER: &str = "/run/preroot/hostname";

/// The first systemd that takes credentials from there.
pub const SYSTEMD: u32 = 254;
/// How many bytes it takes.
const MOST: usize = 1 << 20;

/// Where systemd has its library, whose name tells its version.
const LIBRARIES: [&str; 5] = [
    "/usr/lib/systemd",
    "/usr/lib64/systemd",
    "/usr/lib/x86_64-linux-gnu/systemd",
    "/usr/lib/aarch64-linux-gnu/systemd",
    "/lib/systemd",
];
const LIBRARY: &str = "libsystemd-shared-";

/// What no line for systemd-tmpfiles may be about: the account files have their own program.
const ACCOUNTS: [&str; 4] = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"];

/// A user that is not in the root yet.
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether the primary group is the user's own.
    pub(super) own_group: bool,
    pub(super) home: String,
    pub(super) shell: String,
    /// What stands for the password in shadow.
    pub(super) hash: Zeroizing<String>,
}

/// Finds the version of the systemd in a root.
pub fn systemd(root: &dyn RootView) -> Option<u32> {
    let mut version = None;
    for directory in LIBRARIES {
        let _ = root.list(directory, &mut |name| {
            if let Some(rest) = name.strip_prefix(LIBRARY) {
                let end = rest.bytes().take_while(u8::is_ascii_digit).count();
                let found = rest.get(..end).and_then(|digits| digits.parse().ok());
                version = version.max(found);
            }
        });
    }
    version
}

/// Tells whether fstab wants the root itself to be read-only, and its systemd makes that possible.
pub fn is_left_alone(root: &dyn RootView) -> bool {
    let fstab = root.read("/etc/fstab", FILE_MAX).ok().flatten();
    let stays = accounts::lines(&fstab.unwrap_or_default())
        .filter_map(Entry::parse)
        // Its slash at the end is all that the point had.
        .any(|entry| entry.point.is_empty() && entry.has("ro"));
    stays && systemd(root).is_some_and(|version| version >= SYSTEMD)
}

/// Turns the changes that are planned into what the root's systemd needs for them.
///
/// `etc` tells whether /etc will take writes.
#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>, etc: bool) -> Outcome<()> {
    let account = draft.take_account();
    let mut out = Plan::default();
    if draft.context.steps.has(Step::HostName) {
        let name = draft.identity.host_name.as_str();
        credential(&mut out, "system.hostname", name.as_bytes(), "host name");
        let there = draft.read_or_empty(HOST_NAME)?;
        if !there.trim_ascii().is_empty() && there.trim_ascii() != name.as_bytes() {
            // PID 1 takes it before the credential.
            let line = text(format_args!("{name}\n"));
            let purpose = "host name, in place of the image's";
            file_at(&mut out, COVER, (0o755, 0o644), line.as_bytes(), purpose);
            out.covers_host_name = true;
        }
    }
    if !etc {
        draft.note(Note::EtcStays);
    }
    let is_of_accounts = |change: &Change| ACCOUNTS.contains(&change.path.as_str());
    if account.is_none() && draft.changes().iter().any(is_of_accounts) {
        draft.note(Note::AccountStays);
    }
    if let Some((account, groups)) = account {
        if etc {
            for_sysusers(&mut out, &account, &groups);
        } else if reads_records(draft)? {
            as_records(&mut out, draft, &account, &groups);
        } else {
            draft.note(Note::NoAccountWay);
            let mut keys = String::new();
            for key in &draft.identity.keys.accepted {
                keys.push_str(key.line());
                keys.push('\n');
            }
            let purpose = "the user's keys, for root";
            credential(
                &mut out,
                "ssh.authorized_keys.root",
                keys.as_bytes(),
                purpose,
            );
        }
    }
    let changes = draft.changes();
    if let Some(Action::Write(data)) = changes
        .iter()
        .find(|change| change.path == CUSTOM_DATA)
        .map(|change| &change.action)
    {
        credential(&mut out, "preroot.custom-data", data, "custom data");
    }
    let mut lines = Vec::new();
    for change in changes {
        let stays = !etc && change.path.starts_with("/etc/");
        if !stays && !is_of_accounts(change) {
            line(&mut lines, change);
        }
    }
    if !lines.is_empty() {
        let purpose = "files, for systemd-tmpfiles";
        credential(&mut out, "tmpfiles.extra", &joined(&lines), purpose);
    }
    let bytes: usize = out
        .changes
        .iter()
        .map(|change| match &change.action {
            Action::Write(content) => content.len(),
            Action::Directory | Action::Remove => 0,
        })
        .sum();
    if bytes > MOST {
        return Err(PlanFault::TooMuch(bytes).into());
    }
    draft.hand_over(out);
    Ok(())
}

/// Tells whether the root's C library looks for users in records.
fn reads_records(draft: &Draft<'_>) -> Outcome<bool> {
    let file = draft.read_or_empty("/etc/nsswitch.conf")?;
    let found = accounts::lines(&file).any(|line| {
        let mut words = accounts::words(line);
        words.next() == Some(b"passwd:") && words.any(|word| word == b"systemd")
    });
    Ok(found)
}

/// The account as lines for systemd-sysusers, and its password.
fn for_sysusers(out: &mut Plan, account: &Account, groups: &[&str]) {
    let Account {
        name,
        uid,
        gid,
        home,
        shell,
        ..
    } = account;
    let mut lines = String::new();
    if account.own_group {
        lines.push_str(&text(format_args!("g {name} {gid}\n")));
    }
    // A percent sign begins a specifier.
    let home = home.replace('%', "%%");
    lines.push_str(&text(format_args!(
        "u {name} {uid}:{gid} \"\" \"{home}\" \"{shell}\"\n"
    )));
    for group in groups {
        lines.push_str(&text(format_args!("m {name} {group}\n")));
    }
    let purpose = text(format_args!("user {name}, for systemd-sysusers"));
    credential(out, "sysusers.extra", lines.as_bytes(), &purpose);
    let purpose = "its password, or that it has none";
    let file = text(format_args!("passwd.hashed-password.{name}"));
    credential(out, &file, account.hash.as_bytes(), purpose);
    let purpose = text(format_args!("has systemd-sysusers find {name}'s password"));
    file_at(out, DROP_IN, (0o755, 0o644), IMPORT, &purpose);
}

/// The account as records.
fn as_records(out: &mut Plan, draft: &Draft<'_>, account: &Account, groups: &[&str]) {
    let Account { name, uid, gid, .. } = account;
    let (home, shell) = (Quoted(&account.home), Quoted(&account.shell));
    let user = text(format_args!(
        "{{\"userName\":\"{name}\",\"uid\":{uid},\"gid\":{gid},\"disposition\":\"regular\",\
         \"homeDirectory\":{home},\"shell\":{shell}}}\n"
    ));

    let keys = draft.identity.keys.accepted.iter().map(PublicKey::line);
    let room = keys.clone().map(|key| key.len().saturating_add(16)).sum();
    let mut secret = Zeroizing::new(String::with_capacity(usize::saturating_add(room, 512)));
    secret.push_str(r#"{"privileged":{"hashedPassword":["#);
    list(&mut secret, core::iter::once(account.hash.as_str()));
    secret.push_str(r#"],"sshAuthorizedKeys":["#);
    list(&mut secret, keys);
    secret.push_str("]}}\n");

    let purpose = text(format_args!("user {name}, for nss-systemd"));
    let mut put = |file: String, mode, content: &str| {
        let path = text(format_args!("{RECORDS}/{file}"));
        file_at(out, &path, (0o755, mode), content.as_bytes(), &purpose);
    };
    // Found by name and by number.
    let number = text(format_args!("{uid}"));
    for key in [name, &number] {
        put(text(format_args!("{key}.user-privileged")), 0o600, &secret);
        put(text(format_args!("{key}.user")), 0o644, &user);
    }
    if account.own_group {
        let group = text(format_args!(
            "{{\"groupName\":\"{name}\",\"gid\":{gid},\"disposition\":\"regular\"}}\n"
        ));
        let number = text(format_args!("{gid}"));
        for key in [name, &number] {
            put(text(format_args!("{key}.group")), 0o644, &group);
        }
    }
    for group in groups {
        // An empty file would hide one of the same name elsewhere.
        put(
            text(format_args!("{name}:{group}.membership")),
            0o644,
            "{}\n",
        );
    }
}

/// Writes a list of JSON strings.
fn list<'a>(out: &mut String, items: impl Iterator<Item = &'a str>) {
    for (index, item) in items.enumerate() {
        let comma = if index > 0 { "," } else { "" };
        // A string takes everything.
        let _ = write!(out, "{comma}{}", Quoted(item));
    }
}

/// Writes the line of systemd-tmpfiles that makes a change.
fn line(out: &mut Vec<File>, change: &Change) {
    let mut path = String::new();
    for byte in change.path.bytes() {
        match byte {
            b'%' => path.push_str("%%"),
            b'/' | b'.' | b'_' | b'-' | b'+' | b'@' | b':' => path.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => path.push(char::from(byte)),
            _ => path.push_str(&text(format_args!("\\x{byte:02x}"))),
        }
    }
    let (uid, gid) = change.owner;
    let mode = change.mode;
    let line = match &change.action {
        Action::Remove => text(format_args!("r {path}\n")),
        Action::Directory => text(format_args!("d {path} {mode:04o} {uid} {gid}\n")),
        Action::Write(content) if content.is_empty() => {
            text(format_args!("f+ {path} {mode:04o} {uid} {gid}\n"))
        }
        Action::Write(content) => {
            // No copy of a secret shall stay behind where it had too little room.
            let room = content.len().div_ceil(3).saturating_mul(4);
            let mut line =
                String::with_capacity(path.len().saturating_add(room).saturating_add(64));
            line.push_str(&text(format_args!("f+~ {path} {mode:04o} {uid} {gid} - ")));
            base64::encode(content, &mut line);
            line.push('\n');
            line
        }
    };
    out.push(File::new(line.into_bytes()));
}

/// Puts lines one behind the other.
fn joined(lines: &[File]) -> File {
    let room = lines.iter().map(|line| line.len()).sum();
    let mut all = File::new(Vec::with_capacity(room));
    for line in lines {
        all.extend_from_slice(line);
    }
    all
}

/// Adds a credential.
fn credential(out: &mut Plan, name: &str, content: &[u8], purpose: &str) {
    let path = text(format_args!("{DIRECTORY}/{name}"));
    file_at(out, &path, (0o700, 0o400), content, purpose);
}

/// Adds a file, and before the first one of a directory that directory.
#[inline(never)]
fn file_at(out: &mut Plan, path: &str, (above, mode): (u32, u32), content: &[u8], purpose: &str) {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let ends = directory.match_indices('/').map(|(at, _)| at).skip(2);
    for end in ends.chain([directory.len()]) {
        let path = directory.get(..end).unwrap_or_default();
        if !out.changes.iter().any(|change| change.path == path) {
            // Only the last one may be closed to others.
            let mode = if end == directory.len() { above } else { 0o755 };
            let place = Place::system(path, mode);
            out.push(&place, Action::Directory, format_args!("needed below"));
        }
    }
    let content = File::new(content.to_vec());
    let place = Place::system(path, mode);
    out.push(&place, Action::Write(content), format_args!("{purpose}"));
}
