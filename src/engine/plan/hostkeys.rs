//! sshd's host keys: those of the image go, an Ed25519 key of this machine's own comes.
//!
//! A key that is in an image is every machine's that was made of it, and so are its certificates. Keys of
//! other types are not made here: Fedora and its kin (`sshd-keygen@`), Arch (`sshdgenkeys`), Alpine
//! (`/etc/init.d/sshd`) and SUSE (`sshd-gen-keys-start`) make what is missing before they start sshd. On
//! Debian nobody does: there the root's own ssh-keygen makes the types that the image had, or those that
//! the configuration wants if it wants no Ed25519 key, before anything is written; an image without any
//! starts sshd with the one key. Where the configuration wants other keys only and nobody would make them,
//! those of the image stay, and a note says so: an sshd without a key does not start. Follows
//! `sshd_config(5)`, `HostKey`, and sshd(8), FILES.

use alloc::string::String;
use alloc::vec::Vec;

use super::draft::{Draft, Place, ROOT, text};
use super::sshd::{self, Config};
use super::{Action, Kind, Note, Outcome, Output, Plan, RootView};
use crate::wire::accounts;
use crate::wire::hostkey::{self, HostKey};
use crate::wire::sshd_config;
use crate::wire::sshkey::PublicKey;

const DIRECTORY: &str = "/etc/ssh";
const PRIVATE: &str = "/etc/ssh/ssh_host_ed25519_key";
const PUBLIC: &str = "/etc/ssh/ssh_host_ed25519_key.pub";
/// What makes keys of all types, whatever the configuration says, before sshd starts: Fedora's and Azure
/// Linux's, Arch's, Alpine's. SUSE's makes none where the configuration names any.
const KEY_MAKERS: [&str; 4] = [
    "/usr/lib/systemd/system/sshd-keygen@.service",
    "/usr/lib/systemd/system/sshd-keygen.service",
    "/usr/lib/systemd/system/sshdgenkeys.service",
    "/etc/init.d/sshd",
];
/// What makes keys of other types.
pub const SSH_KEYGEN: &str = "/usr/bin/ssh-keygen";
/// The types that it makes: file, name, and what `HostKeyAlgorithms` calls them. DSA is no longer taken by
/// anybody.
const OTHERS: [(&str, &str, &[&str]); 2] = [
    (
        "/etc/ssh/ssh_host_ecdsa_key",
        "ecdsa",
        &["ecdsa-sha2-nistp256"],
    ),
    (
        "/etc/ssh/ssh_host_rsa_key",
        "rsa",
        &["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
    ),
];
/// What a public half has behind the name of the private one.
const HALF: &str = ".pub";
/// What the directory with the keys is called in a fault.
const WHAT: &str = "/etc/ssh";
/// Longest public key line that is shown.
const PUBLIC_MAX: usize = 4096;
/// Longest half of a key that ssh-keygen makes: an RSA key of 4096 bits has 3.4 KB.
const MADE_MAX: usize = 16 * 1024;
/// Most old keys that are removed.
const KEYS_MAX: usize = 64;

/// Adds the removal of the image's host keys, and a new one.
#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>) -> Outcome<()> {
    let Some(seed) = draft.context.host_key_seed else {
        return Ok(());
    };
    if !draft.has_any(&sshd::PROGRAMS)? {
        return Ok(());
    }
    let has_maker = draft.has_any(&KEY_MAKERS)?;
    let makes_others =
        !has_maker && draft.context.output == Output::Files && draft.has(SSH_KEYGEN)?;
    let used = Used::of(draft)?;
    let takes = used.has(PRIVATE, &[hostkey::KIND]);
    if !takes {
        let has_others = OTHERS.iter().any(|(path, _, names)| used.has(path, names));
        if !(has_maker || makes_others && has_others) {
            draft.note(Note::HostKeysStay);
            return Ok(());
        }
        draft.note(Note::NoEd25519);
    }
    // ssh-keysign reads the keys as this group, where distributions want it to.
    let group = draft.read_or_empty("/etc/group")?;
    let keysign = accounts::group(&group, "ssh_keys").map(|gid| ((ROOT.0, gid), 0o640));
    let mut looks = (ROOT, 0o600);
    let mut wanted = [false; OTHERS.len()];
    if makes_others && !takes {
        wanted = OTHERS.map(|(path, _, names)| used.has(path, names));
    }

    for name in old_keys(draft)? {
        let path = text(format_args!("{DIRECTORY}/{name}"));
        let Some(stat) = draft.stat(&path, WHAT)? else {
            continue;
        };
        if stat.kind != Kind::File {
            continue;
        }
        if keysign == Some((stat.owner, stat.mode)) {
            looks = (stat.owner, stat.mode);
        }
        let half = path.strip_suffix(HALF).unwrap_or(&path);
        let other = OTHERS.iter().position(|(file, ..)| half == *file);
        let wanted = other.and_then(|other| wanted.get_mut(other));
        // A key without which sshd may have none goes when there is another in its place.
        let stays = half == PRIVATE || !takes && wanted.as_ref().is_some_and(|wanted| **wanted);
        if !stays {
            draft.remove(&path, "a host key of the image");
        }
        if let Some(wanted) = wanted
            && half == path
        {
            *wanted |= makes_others && takes;
        }
    }
    for ((_, kind, _), wanted) in OTHERS.iter().zip(wanted) {
        if wanted {
            draft.make_host_key(kind);
        }
    }

    let key = HostKey::new(
        seed,
        &text(format_args!("root@{}", draft.identity.host_name)),
    );
    let (owner, mode) = looks;
    let place = Place {
        owner,
        ..Place::system(PRIVATE, mode)
    };
    draft.write(&place, key.private, format_args!("new host key"))?;
    draft.write_system(
        PUBLIC,
        0o644,
        accounts::File::new(key.public.into_bytes()),
        format_args!("its public half"),
    )
}

/// Names what looks like a host key, its public half or its certificate.
#[inline(never)]
fn old_keys(draft: &Draft<'_>) -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    draft.list(DIRECTORY, WHAT, &mut |name| {
        if sshd_config::matches("ssh_host_*key*", name) && names.len() < KEYS_MAX {
            names.push(String::from(name));
        }
    })?;
    Ok(names)
}

/// Which keys sshd's configuration lets it use.
#[derive(Default)]
struct Used {
    /// The files, if it lists any.
    files: Vec<String>,
    algorithms: Option<String>,
}

impl Used {
    #[inline(never)]
    fn of(draft: &Draft<'_>) -> Outcome<Self> {
        let mut used = Self::default();
        let Some(config) = Config::find(draft)? else {
            return Ok(used);
        };
        config.read(&mut |setting| {
            if !setting.global {
                return;
            }
            let mut words = setting.words().into_iter();
            if setting.is("HostKey") {
                used.files.extend(words.next());
            } else if setting.is("HostKeyAlgorithms") && used.algorithms.is_none() {
                used.algorithms = words.next();
            }
        });
        Ok(used)
    }

    /// Tells whether sshd will use a key in this file whose algorithms have these names.
    fn has(&self, path: &str, names: &[&str]) -> bool {
        let is_allowed = self.algorithms.as_ref().is_none_or(|list| {
            names.iter().any(|name| match list.as_bytes() {
                [b'+' | b'^', ..] => true,
                [b'-', ..] => !sshd_config::is_in(list.trim_start_matches('-'), name),
                _ => sshd_config::is_in(list, name),
            })
        });
        is_allowed && (self.files.is_empty() || self.files.iter().any(|file| file == path))
    }
}

/// Where [`SSH_KEYGEN`] leaves what it makes: sshd takes no such name for a key.
pub const MADE: &str = "/etc/ssh/.preroot-made_key";

/// Makes the plan that leaves nothing there.
pub fn without_made() -> Plan {
    let mut plan = Plan::default();
    for end in ["", HALF] {
        let path = [MADE, end].concat();
        let purpose = format_args!("a key that was made");
        plan.push(&Place::system(&path, 0), Action::Remove, purpose);
    }
    plan
}

/// Takes the key that [`SSH_KEYGEN`] has left at [`MADE`] into a plan; tells whether there is one.
#[inline(never)]
pub fn take_made(plan: &mut Plan, kind: &str, root: &dyn RootView) -> bool {
    let half = |end| {
        let read = root.read(&[MADE, end].concat(), MADE_MAX).ok()?;
        read.map(accounts::File::new)
    };
    let (Some(private), Some(public)) = (half(""), half(HALF)) else {
        return false;
    };
    take(plan, kind, [private, public]);
    true
}

/// Takes a key into a plan, in the place of the image's.
#[inline(never)]
fn take(plan: &mut Plan, kind: &str, halves: [accounts::File; 2]) {
    let known = OTHERS.iter().find(|(_, known, _)| *known == kind);
    let Some((path, ..)) = known else { return };
    // As the one that is made here looks.
    let ours = plan.changes.iter().find(|change| change.path == PRIVATE);
    let looks = ours.map_or((ROOT, 0o600), |ours| (ours.owner, ours.mode));
    let halves = halves.into_iter().zip([looks, (ROOT, 0o644)]);
    for ((content, (owner, mode)), end) in halves.zip(["", HALF]) {
        let path = [path, end].concat();
        plan.changes.retain(|change| change.path != path);
        let mut last = plan.changes.pop();
        let place = Place {
            owner,
            ..Place::system(&path, mode)
        };
        plan.push(&place, Action::Write(content), format_args!("new host key"));
        // The marker, which says that all others are there.
        plan.changes.extend(last.take());
    }
}

/// Tells whether a plan will need 32 secret bytes for a host key.
pub fn makes_host_key(root: &dyn RootView) -> bool {
    sshd::PROGRAMS
        .iter()
        .any(|path| matches!(root.stat(path), Ok(Some(_))))
}

/// Gives the machine's host key as a line of `known_hosts`, and its fingerprint as ssh-keygen shows it.
///
/// The address may be empty.
#[inline(never)]
pub fn host_key_lines(root: &dyn RootView, host_name: &str, address: &str) -> Option<[String; 2]> {
    lines_of(&root.read(PUBLIC, PUBLIC_MAX).ok()??, host_name, address)
}

/// Gives the same of the host key that a plan brings.
#[inline(never)]
pub fn planned_host_key(plan: &Plan, host_name: &str, address: &str) -> Option<[String; 2]> {
    let change = plan.changes.iter().find(|change| change.path == PUBLIC)?;
    match &change.action {
        Action::Write(file) => lines_of(file, host_name, address),
        Action::Directory | Action::Remove => None,
    }
}

fn lines_of(file: &[u8], host_name: &str, address: &str) -> Option<[String; 2]> {
    let key = PublicKey::parse(core::str::from_utf8(file).ok()?).ok()?;
    let (kind, body) = (key.kind(), key.body());
    let fingerprint = hostkey::fingerprint(body)?;
    let comma = if address.is_empty() { "" } else { "," };
    let known = text(format_args!("{host_name}{comma}{address} {kind} {body}"));
    Some([known, fingerprint])
}
