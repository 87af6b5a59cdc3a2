//! sshd's host keys: those of the image go, an Ed25519 key of this machine's own comes.
//!
//! A key that is in an image is every machine's that was made of it, and so are its certificates. Keys of
//! other types are not made here: Fedora and its kin (`sshd-keygen@`), Arch (`sshdgenkeys`), Alpine
//! (`/etc/init.d/sshd`) and SUSE (`sshd-gen-keys-start`) make what is missing before they start sshd. On
//! Debian nobody does: there the root's own ssh-keygen makes the types that the image had, and an image
//! without any starts sshd with the one key. Where the configuration wants other keys only and nobody would
//! make them, those of the image stay, and a note says so: between their removal and ssh-keygen's work the
//! power may fail, and an sshd without a key does not start. Follows `sshd_config(5)`, `HostKey`, and
//! sshd(8), FILES.

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
/// The types that it makes, if the image had such keys, and their names. DSA is no longer taken by anybody.
const OTHERS: [(&str, &str); 2] = [("ssh_host_ecdsa_key", "ecdsa"), ("ssh_host_rsa_key", "rsa")];
/// What the directory with the keys is called in a fault.
const WHAT: &str = "/etc/ssh";
/// Longest public key line that is shown.
const PUBLIC_MAX: usize = 4096;
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
    if !takes_ed25519(draft)? {
        if !has_maker {
            draft.note(Note::HostKeysStay);
            return Ok(());
        }
        draft.note(Note::NoEd25519);
    }
    // ssh-keysign reads the keys as this group, where distributions want it to.
    let group = draft.read_or_empty("/etc/group")?;
    let keysign = accounts::group(&group, "ssh_keys").map(|gid| ((ROOT.0, gid), 0o640));
    let mut looks = (ROOT, 0o600);

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
        if path != PRIVATE && path != PUBLIC {
            draft.remove(&path, "a host key of the image");
        }
        for (file, kind) in OTHERS {
            if makes_others && name == file {
                draft.make_host_key(kind);
            }
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

/// Tells whether sshd will use the new key.
#[inline(never)]
fn takes_ed25519(draft: &Draft<'_>) -> Outcome<bool> {
    let Some(config) = Config::find(draft)? else {
        return Ok(true);
    };
    let (mut listed, mut ours) = (false, false);
    let mut algorithms = None;
    config.read(&mut |setting| {
        if !setting.global {
            return;
        }
        let mut words = setting.words().into_iter();
        if setting.is("HostKey") {
            listed = true;
            ours |= words.any(|path| path == PRIVATE);
        } else if setting.is("HostKeyAlgorithms") && algorithms.is_none() {
            algorithms = words.next();
        }
    });
    let allowed = algorithms.is_none_or(|list| match list.as_bytes() {
        [b'+' | b'^', ..] => true,
        [b'-', ..] => !sshd_config::is_in(list.trim_start_matches('-'), hostkey::KIND),
        _ => sshd_config::is_in(&list, hostkey::KIND),
    });
    Ok(allowed && (ours || !listed))
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
