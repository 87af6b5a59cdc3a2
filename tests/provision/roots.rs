//! Roots of real distributions: what their own programs say of what was made of them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use lab::disc::ovf::Document;
use lab::secret::Planted;
use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::azure::Azure;
use crate::installed::{ALPINE, ARCH, DEBIAN, Distribution, FEDORA, Inside, on_installed};
use crate::machine::{
    HOST_NAME, KEY, Machine, OTHER_VM_ID, USER, VM_ID, assert_same, each_file, on_machine,
};
use crate::run::{Process, Run, call, processes};

const PASSWORD: &str = "Not-A-Real-1!pw&x";
/// One more machine.
pub(crate) const THIRD_VM_ID: &str = "2b1c8f04-93a7-4b58-8e0f-51d3a2b7c964";

/// A machine whose admin user has a key and no password.
pub(crate) fn with_key() -> Document {
    Document::new(HOST_NAME, USER).key(KEY)
}

/// A machine whose admin user has both.
pub(crate) fn with_password() -> Document {
    with_key().password(PASSWORD)
}

/// Provisions the root for a VM on a platform that works.
#[track_caller]
pub(crate) fn provisioned(machine: &Machine, document: &Document, vm_id: &str) -> Run {
    machine.insert(document);
    let azure = Azure::start("healthy");
    // An RSA key may take seconds on a busy machine.
    let run = machine.provision(&["--vm-id", vm_id, "--timeout=40"]);
    azure.end().ready();
    run.exits(0);
    run
}

/// Checks the user that every provisioning makes, by the root's own programs.
#[track_caller]
fn user_is_made(machine: &Machine, inside: &Inside, distribution: &Distribution) {
    inside.checkers_are_silent();
    assert_eq!(inside.tell(&["hostname"], ""), format!("{HOST_NAME}\n"));
    let entry = inside.tell(&["getent", "passwd", USER], "");
    let shell = distribution.shell;
    assert_eq!(entry, format!("{USER}:x:1000:1000::/home/{USER}:{shell}\n"));
    let id = inside.tell_as(USER, "id -u; id -un; id -gn; pwd; umask >/dev/null", "");
    assert_eq!(id, format!("1000\n{USER}\n{USER}\n/home/{USER}\n"));
    let groups = inside.tell_as(USER, "id -Gn", "");
    let groups: Vec<_> = groups.split_whitespace().collect();
    for group in ["adm", distribution.administrators] {
        assert!(groups.contains(&group), "{group} in {groups:?}");
    }
    let home = format!("home/{USER}");
    assert_eq!(machine.rights(&home), (distribution.home_mode, 1000, 1000));
    if let Some(file) = distribution.skel {
        assert_eq!(
            machine.rights(&format!("{home}/{file}")),
            (0o644, 1000, 1000)
        );
        assert_eq!(
            machine.read(&format!("{home}/{file}")),
            machine.read(&format!("etc/skel/{file}"))
        );
    }
    assert_eq!(machine.rights(&format!("{home}/.ssh")), (0o700, 1000, 1000));
    let keys = format!("{home}/.ssh/authorized_keys");
    assert_eq!(machine.rights(&keys), (0o600, 1000, 1000));
    // Where sshd looks for it.
    let places = inside.sshd_setting(USER, "authorizedkeysfile");
    assert!(places.contains(".ssh/authorized_keys"), "{places}");
    let said = inside.tell(&["ssh-keygen", "-lf", &format!("/{keys}")], "");
    assert!(said.ends_with("demo@laptop (ED25519)\n"), "{said}");
    for file in ["etc/subuid", "etc/subgid"] {
        let has_line = machine.has(file) && machine.read(file).starts_with(&format!("{USER}:"));
        assert_eq!(has_line, distribution.has_subids, "{file}");
    }
    // What shadow-utils keeps of a lock is `.pwd.lock`, which is always there.
    let locks = ["find", "/etc", "-name", "*.lock", "!", "-name", ".pwd.lock"];
    assert_eq!(inside.tell(&locks, ""), "", "left behind");
}

/// Checks a user who has a key only.
#[track_caller]
fn user_has_no_password(inside: &Inside) {
    for guess in ["", PASSWORD] {
        assert!(
            !inside.is_password(USER, guess),
            "{guess:?} is the password"
        );
    }
    assert_eq!(inside.tell_as(USER, "sudo -n id -un", ""), "root\n");
}

/// Checks a user who has a password.
#[track_caller]
fn user_has_password(inside: &Inside) {
    assert!(inside.is_password(USER, PASSWORD));
    // As it stands in the document.
    assert!(!inside.is_password(USER, "Not-A-Real-1!pw&amp;x"));
    let without = inside.run(&["su", "-", USER, "-c", "sudo -n id -un"], "");
    assert!(!without.status.success(), "{without:?}");
    let input = format!("{PASSWORD}\n");
    let with = inside.tell_as(USER, "sudo -S -p '' id -un", &input);
    assert_eq!(with, "root\n");
}

/// Leaves out of a picture what only says that a run took place.
fn without_report(picture: BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    let is_note = |path: &PathBuf| {
        [
            "var/lib/preroot",
            "var/lib/preroot/report.json",
            "var/lib/preroot/reported",
        ]
        .iter()
        .any(|note| path.ends_with(note))
    };
    picture
        .into_iter()
        .filter(|(path, _)| !is_note(path))
        .collect()
}

/// The life of a root: made for one VM, booted again, then made for another.
fn lives(machine: &Machine, inside: &Inside, distribution: &Distribution) {
    // Nobody hears the first Ready.
    machine.insert(&with_key());
    let azure = Azure::start("health.answers = never\njsonhealth.answers = never");
    machine.provision(&["--timeout=4"]).exits(111);
    azure.end();
    assert_eq!(machine.read("var/lib/preroot/configured").trim(), VM_ID);
    assert!(!machine.has("var/lib/preroot/reported"));
    user_is_made(machine, inside, distribution);
    user_has_no_password(inside);

    // The next boot tells it again and touches nothing else.
    let before = without_report(machine.picture());
    let azure = Azure::start("healthy");
    machine.provision(&["--media=/nonexistent"]).exits(0);
    let heard = azure.end();
    heard.ready();
    assert_same(&without_report(machine.picture()), &before);
    assert_eq!(machine.read("var/lib/preroot/reported").trim(), VM_ID);

    // From now on there is nothing to do.
    let before = machine.picture();
    let azure = Azure::start("healthy");
    let run = machine.provision(&[]);
    run.exits(0);
    assert_eq!(run.stderr, "preroot: nothing to do\n");
    azure.end().nothing();
    assert_same(&machine.picture(), &before);

    // Another VM of the same disk: the user is kept, and has a password now.
    provisioned(machine, &with_password(), OTHER_VM_ID);
    assert_eq!(
        machine.read("var/lib/preroot/configured").trim(),
        OTHER_VM_ID
    );
    user_is_made(machine, inside, distribution);
    user_has_password(inside);
}

#[test]
fn debian_lives() {
    on_installed(&DEBIAN, |machine, inside| lives(machine, inside, &DEBIAN));
}

#[test]
fn fedora_lives() {
    on_installed(&FEDORA, |machine, inside| lives(machine, inside, &FEDORA));
}

#[test]
fn alpine_lives() {
    on_installed(&ALPINE, |machine, inside| lives(machine, inside, &ALPINE));
}

#[test]
fn arch_lives() {
    on_installed(&ARCH, |machine, inside| lives(machine, inside, &ARCH));
}

#[test]
fn checkers_see_what_is_wrong() {
    on_installed(&DEBIAN, |machine, inside| {
        let root = machine.root();
        let spoilt = [
            (
                "etc/passwd",
                "twice:x:0:77777::/nowhere:/bin/none\n",
                "pwck -r",
            ),
            ("etc/group", "bad name:x:5\n", "grpck -r"),
            ("etc/sudoers.d/spoilt", "who ALL=(ALL ALL\n", "visudo -c"),
            (
                "etc/ssh/sshd_config",
                "PasswordAuthentication maybe\n",
                "sshd -t",
            ),
        ];
        for (path, line, checker) in spoilt {
            let before = std::fs::read(root.join(path)).ok();
            let text = [before.clone().unwrap_or_default(), line.into()].concat();
            std::fs::write(root.join(path), text).unwrap();
            let command: Vec<_> = checker.split(' ').collect();
            let output = inside.run(&command, "");
            assert!(!output.status.success(), "{checker}: {output:?}");
            match before {
                Some(text) => std::fs::write(root.join(path), text).unwrap(),
                None => std::fs::remove_file(root.join(path)).unwrap(),
            }
        }
        inside.checkers_are_silent();
    });
}

/// Reads the public host keys, by their types.
fn host_keys(machine: &Machine) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let path = format!("etc/ssh/ssh_host_{kind}_key.pub");
        if machine.has(&path) {
            keys.insert(kind.to_owned(), machine.read(&path));
        }
    }
    keys
}

/// Checks the host keys that a provisioning has made, against those that were there before.
#[track_caller]
fn host_keys_are_new(
    machine: &Machine,
    inside: &Inside,
    run: &Run,
    before: &BTreeMap<String, String>,
) {
    let keys = host_keys(machine);
    assert!(keys.contains_key("ed25519"), "{keys:?}");
    for (kind, key) in &keys {
        assert_ne!(before.get(kind), Some(key), "{kind} is the old one");
        let private = format!("/etc/ssh/ssh_host_{kind}_key");
        let (mode, uid, _) = machine.rights(&private[1..]);
        assert_eq!((mode & 0o137, uid), (0, 0), "{private} has mode {mode:o}");
        // Both halves are of one key.
        let derived = inside.tell(&["ssh-keygen", "-y", "-f", &private], "");
        let words = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        assert_eq!(words(derived.trim()), words(key.trim()), "{kind}");
    }
    let words: Vec<_> = keys["ed25519"].split_whitespace().take(2).collect();
    run.says(&format!(
        "host key {HOST_NAME},10.0.0.4 {}",
        words.join(" ")
    ));
    inside.checkers_are_silent();
}

#[test]
fn rules_that_sudo_reads_later_take_nothing_back() {
    on_installed(&DEBIAN, |machine, inside| {
        let asks = format!("%{} ALL=(ALL:ALL) ALL\n", DEBIAN.administrators);
        let later = machine.root().join("etc/sudoers.d/sudoers");
        std::fs::write(&later, asks).unwrap();
        std::fs::set_permissions(&later, std::fs::Permissions::from_mode(0o440)).unwrap();
        provisioned(machine, &with_key(), VM_ID);
        assert_eq!(inside.tell_as(USER, "sudo -n id -u", "").trim(), "0");
        inside.checkers_are_silent();
    });
}

#[test]
fn host_keys_are_those_of_one_vm() {
    on_installed(&DEBIAN, |machine, inside| {
        let image = host_keys(machine);
        assert_eq!(image.len(), 3, "{image:?}");
        let run = provisioned(machine, &with_key(), VM_ID);
        host_keys_are_new(machine, inside, &run, &image);
        let first = host_keys(machine);
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(0);
        azure.end().nothing();
        assert_eq!(host_keys(machine), first);
        let run = provisioned(machine, &with_key(), OTHER_VM_ID);
        host_keys_are_new(machine, inside, &run, &first);
        // No half of an old pair is left over.
        for kind in ["ecdsa", "rsa"] {
            let [private, public] =
                ["", ".pub"].map(|end| format!("etc/ssh/ssh_host_{kind}_key{end}"));
            assert_eq!(machine.has(&private), machine.has(&public), "{kind}");
        }
    });
}

#[test]
fn sshd_that_takes_no_ed25519_key_gets_one_that_it_takes() {
    const RSA: &str = "etc/ssh/ssh_host_rsa_key.pub";
    on_installed(&DEBIAN, |machine, inside| {
        let config = machine.root().join("etc/ssh/sshd_config.d/hardened.conf");
        std::fs::write(&config, "HostKey /etc/ssh/ssh_host_rsa_key\n").unwrap();
        let image = host_keys(machine);
        let run = provisioned(machine, &with_key(), VM_ID);
        host_keys_are_new(machine, inside, &run, &image);
        let first = machine.read(RSA);
        // As in an image that was generalized: sshd would not start.
        for kind in ["ed25519", "ecdsa", "rsa"] {
            for end in ["", ".pub"] {
                let path = format!("etc/ssh/ssh_host_{kind}_key{end}");
                let _ = std::fs::remove_file(machine.root().join(path));
            }
        }
        let run = provisioned(machine, &with_key(), OTHER_VM_ID);
        host_keys_are_new(machine, inside, &run, &host_keys_of(&[("rsa", &first)]));
        // Where nobody can make one, the image's must do.
        let keygen = machine.root().join("usr/bin/ssh-keygen");
        std::fs::rename(&keygen, keygen.with_extension("away")).unwrap();
        std::fs::write(&keygen, "#!/bin/false\n").unwrap();
        std::fs::set_permissions(&keygen, std::fs::Permissions::from_mode(0o755)).unwrap();
        let second = machine.read(RSA);
        assert_ne!(second, first);
        provisioned(machine, &with_key(), VM_ID).says("ssh-keygen made no host key of type rsa");
        assert_eq!(machine.read(RSA), second);
        inside.checkers_are_silent();
    });
}

/// Makes a list of public host keys.
fn host_keys_of(keys: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pair = |(kind, key): &(&str, &str)| ((*kind).to_owned(), (*key).to_owned());
    keys.iter().map(pair).collect()
}

#[test]
fn secrets_are_in_no_file_of_a_whole_system() {
    on_installed(&DEBIAN, |machine, _| {
        const CUSTOM_DATA: &str = "#cloud-config, and nobody else's business: 8f14e45fceea167a";
        // As a machine that has every agent, to whom something is left.
        let root = machine.root();
        for (path, directory) in [
            ("usr/sbin/waagent", "var/lib/waagent"),
            ("usr/bin/cloud-init", "var/lib/cloud"),
        ] {
            std::fs::write(root.join(path), "#!/bin/sh\n").unwrap();
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let planted = [
            Planted::new("password", PASSWORD),
            Planted::new("custom data", CUSTOM_DATA),
        ];
        let document = with_password().custom_data(CUSTOM_DATA.as_bytes());
        machine.insert(&document);
        assert_eq!(
            Planted::search(&planted, document.build().as_bytes()).len(),
            2
        );
        let azure = Azure::start("healthy");
        let run = machine.provision(&[]);
        let heard = azure.end();
        heard.ready();
        let table = call(&["status"]);
        let json = call(&["status", "--json"]);
        for said in [
            run.to_string(),
            table.to_string(),
            json.to_string(),
            heard.journal(),
        ] {
            assert_eq!(Planted::search(&planted, said.as_bytes()), [], "{said}");
        }
        assert_eq!(Planted::search(&planted, &heard.wire), []);
        let (mut files, mut keeps) = (0, Vec::new());
        for place in [root.clone(), "/run/preroot".into()] {
            each_file(&place, &mut |path, data| {
                if !data.is_file() {
                    return;
                }
                files += 1;
                let found = Planted::search(&planted, &std::fs::read(path).unwrap());
                let inside = path.strip_prefix(&root).unwrap_or(path);
                for find in found {
                    assert_eq!(find.name, "custom data", "{}: {find:?}", path.display());
                    assert_eq!(
                        data.permissions().mode() & 0o777,
                        0o600,
                        "{}",
                        path.display()
                    );
                    keeps.push(inside.to_owned());
                }
            });
        }
        assert!(files > 2000, "{files}");
        keeps.retain(|path| {
            let belongs = [
                "var/lib/preroot/custom-data",
                "var/lib/waagent/CustomData",
                "var/lib/waagent/CustomData.bin",
            ];
            !belongs.iter().any(|known| path.ends_with(known))
        });
        assert!(keeps.is_empty(), "custom data is in {keeps:?}");
    });
}

#[test]
fn crash_leaves_no_core() {
    on_machine(|machine| {
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        if pattern.starts_with(['|', '/']) {
            println!("skipped: this system sends cores elsewhere: {pattern}");
            return;
        }
        let any = Rlimit {
            current: None,
            maximum: None,
        };
        rustix::process::setrlimit(Resource::Core, any).unwrap();
        let place = machine.place().join("core");
        std::fs::create_dir(&place).unwrap();
        std::env::set_current_dir(&place).unwrap();
        machine.insert(&with_password());
        let planted = [Planted::new("password", PASSWORD)];
        // One after the other, as all have the same name for their cores.
        for victim in 0.. {
            let azure = Azure::start("tcp.wireserver = silent");
            // It knows the password, and waits for a root to be mounted.
            let mut running = machine.start(&["--wait-root=20", "--timeout=25"]);
            running.wait_for("disc ok");
            running.wait_for("dhcp ok");
            let all = processes();
            let end = |process: &Process, signal| {
                let number = Pid::from_raw(process.number).unwrap();
                // The death of another may have ended it.
                let _ = rustix::process::kill_process(number, signal);
            };
            if let Some(process) = all.get(victim) {
                end(process, Signal::SEGV);
                thread::sleep(Duration::from_millis(300));
            }
            for process in &all {
                end(process, Signal::KILL);
            }
            running.end();
            azure.end();
            each_file(&place, &mut |path, _| {
                let core = std::fs::read(path).unwrap();
                let found = Planted::search(&planted, &core);
                assert_eq!(found, [], "{} of process {victim}", path.display());
            });
            if victim >= all.len() {
                return;
            }
        }
    });
}
