//! What a root's own systemd makes of what it was left: its programs, run by hand inside a Debian whose
//! systemd takes credentials.

use std::fs;

use lab::debian::Flavour;

use crate::azure::Azure;
use crate::credentials::uncover;
use crate::healthy::with_key;
use crate::installed::{Inside, on_debian};
use crate::machine::{HOST_NAME, USER, assert_same};

const PASSWORD: &str = "Not-A-Real-1!pw&x";
const LEFT: &str = "/run/credentials/@initrd";

/// What a program says of an error, and tmpfiles says of a machine without an id.
const ERRORS: [&str; 3] = ["Failed to", "ignoring", "nvalid"];

/// Has systemd's programs do what they do when such a system starts, in the order of their units.
fn start(inside: &Inside) {
    inside.lay(LEFT, "/run/left");
    for program in [
        "systemd-sysusers",
        "systemd-tmpfiles --create --remove --boot --exclude-prefix=/dev",
    ] {
        let line = format!("CREDENTIALS_DIRECTORY=/run/left exec {program}");
        let output = inside.run(&["sh", "-c", &line], "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}");
        // The lines of Debian's own packages are none of our business.
        let mut wrong = said.lines().filter(|line| !line.contains("/usr/lib/"));
        let wrong = wrong.find(|line| ERRORS.iter().any(|error| line.contains(error)));
        assert_eq!(wrong, None, "{program}");
    }
}

#[test]
fn sysusers_and_tmpfiles_make_the_system_that_we_would_have_made() {
    on_debian(Flavour::ReadOnly, |machine| {
        // An image may have one, which is not to stay.
        fs::write(machine.root().join("etc/hostname"), "localhost\n").unwrap();
        machine.insert(
            &with_key()
                .password(PASSWORD)
                .custom_data(b"#!/bin/sh\n%n\0\\"),
        );
        let before = machine.picture();
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--output=credentials"]);
        azure.end().ready();
        run.exits(0);
        // As an overlay that is mounted over /etc hides it.
        uncover(machine);
        assert_same(&machine.picture(), &before);

        let inside = Inside::enter(machine);
        // As the image's own unit does.
        let key = "mkdir /run/host-key; exec ssh-keygen -q -t ed25519 -N '' -f /run/host-key/ssh_host_ed25519_key";
        inside.tell(&["sh", "-c", key], "");
        start(&inside);
        inside.checkers_are_silent();
        assert_eq!(machine.read("etc/hostname"), format!("{HOST_NAME}\n"));
        let passwd = inside.tell(&["getent", "passwd", USER], "");
        let home = format!("/home/{USER}");
        assert_eq!(passwd, format!("{USER}:x:1000:1000::{home}:/bin/bash\n"));
        let groups = inside.tell(&["id", "-Gn", USER], "");
        let mut groups: Vec<_> = groups.split_whitespace().collect();
        groups.sort_unstable();
        assert_eq!(groups, ["adm", USER, "sudo", "systemd-journal"]);
        assert!(inside.is_password(USER, PASSWORD));
        assert!(!inside.is_password(USER, "another"));
        assert_eq!(machine.rights(&home[1..]), (0o700, 1000, 1000));
        let keys = format!("{home}/.ssh/authorized_keys");
        assert_eq!(machine.rights(&keys[1..]), (0o600, 1000, 1000));
        assert!(machine.read(&keys[1..]).starts_with("ssh-"));
        let skel = machine.root().join(&home[1..]).join(".bashrc");
        let original = machine.root().join("etc/skel/.bashrc");
        assert_eq!(fs::read(skel).unwrap(), fs::read(original).unwrap());
        let data = machine.root().join("var/lib/preroot/custom-data");
        assert_eq!(fs::read(data).unwrap(), b"#!/bin/sh\n%n\0\\");
        assert_eq!(inside.sshd_setting(USER, "passwordauthentication"), "yes");

        // Where /etc outlived the boot all the same, the next one finds nothing to quarrel with.
        start(&inside);
        inside.checkers_are_silent();
        assert!(inside.is_password(USER, PASSWORD));
    });
}
