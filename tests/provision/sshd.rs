//! sshd in roots of real distributions: what it makes of its configuration after us, and whom it lets in.

use std::os::unix::fs::PermissionsExt as _;

use lab::disc::ovf::Document;

use crate::installed::{ALPINE, ARCH, DEBIAN, FEDORA, Inside, on_installed};
use crate::machine::{HOST_NAME, Machine, OTHER_VM_ID, USER, VM_ID};
use crate::roots::{THIRD_VM_ID, provisioned, with_key, with_password};

/// Provisions a root whose sshd is configured in some way, and asks sshd what it makes of it.
fn sshd_obeys(machine: &Machine, inside: &Inside, how: &str) {
    let state = |name| inside.sshd_setting(USER, name);
    provisioned(machine, &with_key(), VM_ID);
    inside.checkers_are_silent();
    for name in ["passwordauthentication", "kbdinteractiveauthentication"] {
        assert_eq!(state(name), "no", "{name} without a password, {how}");
    }
    assert_eq!(state("pubkeyauthentication"), "yes", "{how}");
    provisioned(machine, &with_password(), OTHER_VM_ID);
    inside.checkers_are_silent();
    assert_eq!(state("passwordauthentication"), "yes", "{how}");
    assert_eq!(state("pubkeyauthentication"), "yes", "{how}");
    // A password for sudo and the console alone.
    let refused = with_password().disable_password_authentication(true);
    provisioned(machine, &refused, THIRD_VM_ID);
    for name in ["passwordauthentication", "kbdinteractiveauthentication"] {
        assert_eq!(state(name), "no", "{name} where it is refused, {how}");
    }
}

#[test]
fn sshd_obeys_in_debian() {
    on_installed(&DEBIAN, |machine, inside| {
        sshd_obeys(machine, inside, "as it is installed");
        let main = machine.root().join("etc/ssh/sshd_config");
        let stock = std::fs::read_to_string(&main).unwrap();
        let include = "Include /etc/ssh/sshd_config.d/*.conf\n";
        let without = stock.replace(include, "");
        assert_ne!(stock, without);
        let other = "Match Address 10.0.0.0/8\n\tX11Forwarding no\n";
        for (how, text) in [
            ("no Include", without.clone()),
            ("no Include, and a Match", format!("{without}{other}")),
            (
                "no Include, and other spellings",
                format!(
                    "passwordauthentication=yes\nKBDINTERACTIVEAUTHENTICATION \"yes\"\n{without}"
                ),
            ),
            (
                "Include at the end",
                format!("PasswordAuthentication yes\n{without}{include}"),
            ),
            (
                "the old name of a setting",
                format!("ChallengeResponseAuthentication yes\n{without}"),
            ),
        ] {
            std::fs::write(&main, text).unwrap();
            sshd_obeys(machine, inside, how);
        }
        std::fs::write(&main, stock).unwrap();
        let first = machine.root().join("etc/ssh/sshd_config.d/00-first.conf");
        let other = "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\n";
        std::fs::write(first, other).unwrap();
        sshd_obeys(machine, inside, "another file comes first");
    });
}

/// What is configured, whether others may write the home directory, and the note that says
/// why sshd turns the user away, if it does.
static DOORS: [(&str, bool, Option<&str>); 16] = [
    ("", false, None),
    ("AllowUsers other root", false, Some("AllowUsers in")),
    ("AllowUsers other\nAllowUsers o*", false, None),
    ("AllowUsers o??admin", false, None),
    ("DenyUsers x ops*", false, Some("DenyUsers in")),
    ("DenyUsers opsadmin@192.0.2.1", false, None),
    ("AllowGroups docker wheel", false, Some("AllowGroups in")),
    ("AllowGroups sudo", false, None),
    ("AllowGroups opsadmin", false, None),
    ("DenyGroups adm", false, Some("DenyGroups in")),
    (
        "PubkeyAuthentication no",
        false,
        Some("PubkeyAuthentication in"),
    ),
    (
        "Match User opsadmin\nPubkeyAuthentication no",
        false,
        Some("PubkeyAuthentication in"),
    ),
    (
        "AllowUsers other\nMatch User ops*\nAllowUsers opsadmin",
        false,
        None,
    ),
    ("", true, Some("may be written by others")),
    ("StrictModes no", true, None),
    ("StrictModes no\nStrictModes yes", true, None),
];

#[test]
fn whom_sshd_turns_away_is_told() {
    on_installed(&DEBIAN, |machine, inside| {
        let shell = |line: &str| inside.run(&["/bin/sh", "-c", line], "");
        let made = shell("mkdir -p /run/sshd && ssh-keygen -q -t ed25519 -N '' -f /root/key");
        assert!(made.status.success(), "{made:?}");
        let key = machine.read("root/key.pub");
        let document = Document::new(HOST_NAME, USER).key(key.trim());
        let config = machine.root().join("etc/ssh/sshd_config.d/door.conf");
        for (turn, (text, open, note)) in DOORS.iter().enumerate() {
            std::fs::write(&config, format!("{text}\n")).unwrap();
            let id = [VM_ID, OTHER_VM_ID][turn % 2];
            if turn > 0 {
                let home = machine.root().join("home").join(USER);
                // Debian's sshd, and only that, lets a group write that is the user's own.
                let rights = if *open { 0o777 } else { 0o755 };
                std::fs::set_permissions(home, std::fs::Permissions::from_mode(rights)).unwrap();
            }
            let run = provisioned(machine, &document, id);
            match note {
                Some(note) => run.says(note),
                None => run.never_says("sshd turn").never_says("sshd may"),
            };
            let login = shell(
                "ssh -i /root/key -o BatchMode=yes -o StrictHostKeyChecking=no \
                 -o UserKnownHostsFile=/dev/null -o ProxyCommand='/usr/sbin/sshd -i -o UsePAM=no' \
                 opsadmin@localhost id -un",
            );
            let said = String::from_utf8_lossy(&login.stdout);
            assert_eq!(said == "opsadmin\n", note.is_none(), "{text}: {login:?}");
        }
    });
}

#[test]
fn sshd_obeys_in_fedora() {
    on_installed(&FEDORA, |machine, inside| {
        sshd_obeys(machine, inside, "Fedora");
    });
}

#[test]
fn sshd_obeys_in_alpine() {
    on_installed(&ALPINE, |machine, inside| {
        sshd_obeys(machine, inside, "Alpine");
    });
}

#[test]
fn sshd_obeys_in_arch() {
    on_installed(&ARCH, |machine, inside| sshd_obeys(machine, inside, "Arch"));
}
