//! Plans for roots that take no writes.

use super::*;
use crate::wire::base64;
use std::vec::Vec;

const INITRD: &str = "/run/credentials/@initrd";

/// Plans for systemd, with or without a writable /etc.
fn handed(identity: &Identity, root: &Memory, etc: bool) -> Plan {
    let context = Context {
        output: Output::Credentials { etc },
        ..CONTEXT
    };
    plan(identity, root, &context).unwrap_or_else(|fault| panic!("{fault}"))
}

/// What such a plan leaves below `/run`.
fn left(plan: &Plan) -> Memory {
    let mut run = Memory::default();
    run.directory("/");
    run.directory("/run");
    run.apply(&plan.credentials.as_ref().unwrap().changes);
    run
}

fn named<'a>(run: &'a Memory, name: &str) -> Option<&'a str> {
    let path = format!("{INITRD}/{name}");
    run.0.contains_key(&path).then(|| run.text(&path))
}

/// Carries out lines for systemd-tmpfiles, as tmpfiles.d(5) says.
fn by_tmpfiles(root: &mut Memory, lines: &str) {
    for line in lines.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let path = words[1].replace("%%", "%").replace("\\x20", " ");
        let looks = || {
            let number = |at: usize| words[at].parse().unwrap();
            (
                u32::from_str_radix(words[2], 8).unwrap(),
                (number(3), number(4)),
            )
        };
        let node = match words[..] {
            ["r", _] => {
                root.0.remove(&path);
                continue;
            }
            ["d", _, _, _, _] => Node::Directory,
            ["f+", _, _, _, _] => Node::File(Vec::new()),
            ["f+~", _, _, _, _, "-", content] => {
                Node::File(base64::decode(content.as_bytes()).unwrap().to_vec())
            }
            _ => panic!("{line}"),
        };
        let (mode, owner) = looks();
        root.0.insert(path, (node, mode, owner));
    }
}

#[test]
fn writable_etc_becomes_by_systemd_what_we_would_have_made_of_it() {
    for identity in [with_key("ops"), with_password("ops")] {
        for distribution in ["debian", "fedora", "alpine"] {
            let old = Memory::of(distribution);
            let ours = after(&identity, old.clone());
            let plan = handed(&identity, &old, true);
            let run = left(&plan);
            let mut theirs = old.clone();
            by_tmpfiles(&mut theirs, named(&run, "tmpfiles.extra").unwrap());
            for (path, node) in &ours.0 {
                let by_others = [
                    "passwd",
                    "shadow",
                    "group",
                    "gshadow",
                    "preroot",
                    "preroot/configured",
                ];
                if !by_others.iter().any(|end| path.ends_with(end)) {
                    assert_eq!(theirs.0.get(path), Some(node), "{distribution} {path}");
                }
            }
            assert!(theirs.0.keys().all(|path| ours.0.contains_key(path)));
            let passwd = ours.text("/etc/passwd").lines().last().unwrap();
            let words: Vec<_> = passwd.split(':').collect();
            let [name, _, uid, gid, _, home, shell] = words[..] else {
                panic!("{passwd}");
            };
            let extra = named(&run, "sysusers.extra").unwrap();
            let user = format!("u {name} {uid}:{gid} \"\" \"{home}\" \"{shell}\"\n");
            assert!(extra.contains(&user), "{extra}");
            assert!(extra.starts_with(&format!("g ops {gid}\nu ")), "{extra}");
            for line in ours.text("/etc/group").lines() {
                let group = line.split(':').next().unwrap();
                let member = line.split([':', ',']).skip(3).any(|word| word == "ops");
                let said = extra.contains(&format!("m ops {group}\n"));
                assert_eq!(said, member, "{distribution} {group}");
            }
            let shadow = ours.text("/etc/shadow").lines().last().unwrap();
            assert_eq!(
                named(&run, "passwd.hashed-password.ops"),
                shadow.split(':').nth(1)
            );
        }
    }
}

#[test]
fn all_of_it_lies_below_run_and_secrets_are_roots_alone() {
    for etc in [true, false] {
        let mut root = Memory::of("debian");
        root.file("/etc/nsswitch.conf", "passwd: files systemd\n");
        let plan = handed(&with_password("ops"), &root, etc);
        let credentials = plan.credentials.as_ref().unwrap();
        assert!(credentials.credentials.is_none());
        for change in &credentials.changes {
            assert!(change.path.starts_with("/run/"), "{}", change.path);
            let Action::Write(content) = &change.action else {
                continue;
            };
            let is_secret = content.windows(3).any(|three| three == b"$6$");
            let below = change.path.starts_with(INITRD);
            if is_secret || below {
                assert_eq!(change.mode & 0o077, 0, "{}", change.path);
            }
            assert!(
                !content
                    .windows(PASSWORD.len())
                    .any(|w| w == PASSWORD.as_bytes())
            );
        }
        let run = left(&plan);
        assert_eq!(run.looks(INITRD), (0o700, (0, 0)));
        // Others of the real root live there, too.
        assert_eq!(run.looks("/run/credentials"), (0o755, (0, 0)));
        let beside = if etc {
            "/run/systemd/system"
        } else {
            "/run/userdb"
        };
        assert_eq!(run.looks(beside), (0o755, (0, 0)));
    }
}

#[test]
fn sysusers_finds_the_password_only_by_its_drop_in() {
    let run = left(&handed(&with_password("ops"), &Memory::of("debian"), true));
    let drop_in = run.text("/run/systemd/system/systemd-sysusers.service.d/50-preroot.conf");
    assert_eq!(drop_in, "[Service]\nImportCredential=passwd.*\n");
    assert!(
        named(&run, "passwd.hashed-password.ops")
            .unwrap()
            .starts_with("$6$")
    );
}

#[test]
fn read_only_etc_gets_records_and_nothing_that_would_fail() {
    let mut root = Memory::of("debian");
    root.file(
        "/etc/nsswitch.conf",
        "# \npasswd:\tfiles systemd\ngroup: files\n",
    );
    let plan = handed(&with_key("ops"), &root, false);
    let run = left(&plan);
    // sysusers would fail there, and the system would count as degraded.
    assert_eq!(named(&run, "sysusers.extra"), None);
    assert_eq!(named(&run, "ssh.authorized_keys.root"), None);
    assert_eq!(
        run.text("/run/userdb/ops.user"),
        "{\"userName\":\"ops\",\"uid\":1000,\"gid\":1000,\"disposition\":\"regular\",\
         \"homeDirectory\":\"/home/ops\",\"shell\":\"/bin/bash\"}\n"
    );
    let line = KEY.trim_end();
    assert_eq!(
        run.text("/run/userdb/ops.user-privileged"),
        format!(
            "{{\"privileged\":{{\"hashedPassword\":[\"*\"],\"sshAuthorizedKeys\":[\"{line}\"]}}}}\n"
        )
    );
    for (by_number, by_name) in [
        ("1000.user", "ops.user"),
        ("1000.user-privileged", "ops.user-privileged"),
        ("1000.group", "ops.group"),
    ] {
        let text = |name| run.text(&format!("/run/userdb/{name}")).to_string();
        assert_eq!(text(by_number), text(by_name));
    }
    for group in ["sudo", "adm"] {
        let file = format!("/run/userdb/ops:{group}.membership");
        assert!(!run.text(&file).is_empty());
    }
    let lines = named(&run, "tmpfiles.extra").unwrap();
    assert!(!lines.contains(" /etc/"), "{lines}");
    assert!(lines.contains("d /home/ops 0755 1000 1000\n"), "{lines}");
    assert!(plan.notes.contains(&Note::EtcStays));
    assert_eq!(named(&run, "system.hostname"), Some("vm-demo01"));
}

#[test]
fn where_no_user_can_be_made_root_gets_the_keys_and_a_note_says_so() {
    let root = Memory::of("debian");
    let plan = handed(&with_key("ops"), &root, false);
    assert!(plan.notes.contains(&Note::NoAccountWay));
    let run = left(&plan);
    assert_eq!(named(&run, "ssh.authorized_keys.root"), Some(KEY));
    assert!(!run.0.keys().any(|path| path.starts_with("/run/userdb")));
}

#[test]
fn host_name_of_the_image_is_covered_where_it_would_win() {
    let mut root = Memory::of("debian");
    root.0.remove("/etc/hostname");
    let is_covered = |root: &Memory| {
        let plan = handed(&with_key("ops"), root, false);
        let shown = plan.to_string();
        let plan = left(&plan);
        let covers = shown.contains("mount over               /etc/hostname  (with ");
        assert_eq!(plan.0.contains_key(COVER), covers, "{shown}");
        covers.then(|| assert_eq!(plan.text(COVER), "vm-demo01\n"));
        covers
    };
    assert!(!is_covered(&root));
    for (name, expected) in [("", false), ("vm-demo01\n", false), ("localhost\n", true)] {
        root.file("/etc/hostname", name);
        assert_eq!(is_covered(&root), expected, "{name}");
    }
    let context = Context {
        steps: CONTEXT.steps.without(Step::HostName),
        output: Output::Credentials { etc: false },
        ..CONTEXT
    };
    let plan = plan(&with_key("ops"), &root, &context).unwrap();
    assert!(!plan.credentials.unwrap().covers_host_name);
}

#[test]
fn user_of_the_image_keeps_its_account_and_gets_its_keys() {
    let mut root = Memory::of("debian");
    let passwd = format!(
        "{}ops:x:1000:1000::/home/ops:/bin/bash\n",
        root.text("/etc/passwd")
    );
    root.file("/etc/passwd", &passwd);
    let plan = handed(&with_key("ops"), &root, true);
    assert!(plan.notes.contains(&Note::AccountStays));
    let run = left(&plan);
    assert_eq!(named(&run, "sysusers.extra"), None);
    assert!(
        named(&run, "tmpfiles.extra")
            .unwrap()
            .contains(" /home/ops/.ssh/authorized_keys 0600 1000 1000 - ")
    );
}

#[test]
fn markers_of_an_earlier_life_do_not_keep_credentials_away() {
    let mut root = after(&with_key("ops"), Memory::of("debian"));
    let passwd = root.text("/etc/passwd").to_string();
    root.file(
        "/etc/passwd",
        passwd.trim_end().rsplit_once('\n').unwrap().0,
    );
    let plan = handed(&with_key("ops"), &root, true);
    assert!(named(&left(&plan), "sysusers.extra").is_some());
    assert!(!plan.changes.iter().any(|c| c.path.ends_with("configured")));
}

#[test]
fn custom_data_is_a_credential_and_is_never_run() {
    let elements = "<UserName>ops</UserName><CustomData>IyEvYmluL3NoCg==</CustomData>";
    let identity = identity(elements, &[KEY]);
    let context = Context {
        output: Output::Credentials { etc: true },
        settings: Settings {
            run_custom_data: true,
            ..Settings::DEFAULT
        },
        ..CONTEXT
    };
    let plan =
        plan(&identity, &Memory::of("debian"), &context).unwrap_or_else(|fault| panic!("{fault}"));
    assert!(!plan.run_custom_data);
    assert!(plan.notes.contains(&Note::CustomDataNotRun));
    let run = left(&plan);
    assert_eq!(named(&run, "preroot.custom-data"), Some("#!/bin/sh\n"));
}

#[test]
fn more_than_systemd_takes_is_refused_with_the_number() {
    let mut root = Memory::of("debian");
    let large = "# as others have it\n".repeat(12_500);
    for path in [
        "/etc/subuid",
        "/etc/subgid",
        "/home/ops/.ssh/authorized_keys",
    ] {
        root.file(path, &large);
    }
    root.directory("/home/ops");
    root.directory("/home/ops/.ssh");
    let context = Context {
        output: Output::Credentials { etc: true },
        ..CONTEXT
    };
    let fault = |root: &Memory| plan(&with_key("ops"), root, &context).err();
    assert_eq!(fault(&root), None);
    for part in 0..4 {
        root.file(&format!("/etc/skel/large{part}"), &"x".repeat(60_000));
    }
    let Some(PlanFault::TooMuch(bytes)) = fault(&root) else {
        panic!("it was planned");
    };
    assert!(bytes > 1 << 20, "{bytes}");
}

#[test]
fn odd_paths_are_what_tmpfiles_reads_them_as() {
    let mut root = Memory::of("debian");
    root.file("/etc/skel/50% of it", "x");
    let run = left(&handed(&with_key("ops"), &root, true));
    let lines = named(&run, "tmpfiles.extra").unwrap();
    assert!(
        lines.contains("f+~ /home/ops/50%%\\x20of\\x20it 0644 1000 1000 - eA==\n"),
        "{lines}"
    );
}

#[test]
fn host_key_of_a_plan_is_the_one_that_is_shown() {
    let mut root = Memory::of("debian");
    root.put("/usr/sbin/sshd", Node::File(Vec::new()), 0o755);
    root.directory("/etc/ssh");
    let plan = handed(&with_key("ops"), &root, true);
    let [known, fingerprint] = planned_host_key(&plan, "vm-demo01", "10.0.0.4").unwrap();
    assert!(
        known.starts_with("vm-demo01,10.0.0.4 ssh-ed25519 "),
        "{known}"
    );
    assert!(fingerprint.contains("SHA256:"), "{fingerprint}");
    root.apply(&plan.changes);
    assert_eq!(
        host_key_lines(&root, "vm-demo01", "10.0.0.4"),
        Some([known, fingerprint])
    );
    assert!(planned_host_key(&handed(&with_key("ops"), &root, false), "a", "").is_none());
}

#[test]
fn version_of_systemd_is_that_of_its_library() {
    let mut root = Memory::of("debian");
    assert_eq!(systemd(&root), None);
    root.directory("/usr/lib/x86_64-linux-gnu/systemd");
    for (name, version) in [
        ("libsystemd-core-300.so", None),
        ("libsystemd-shared-.so", None),
        ("libsystemd-shared-252.so", Some(252)),
        ("libsystemd-shared-257.9-1.fc42.so", Some(257)),
    ] {
        root.file(&format!("/usr/lib/x86_64-linux-gnu/systemd/{name}"), "");
        assert_eq!(systemd(&root), version, "{name}");
    }
}

#[test]
fn root_is_left_alone_where_its_own_line_of_fstab_says_so_and_its_systemd_helps() {
    for (fstab, stays) in [
        ("UUID=1 / ext4 ro 0 1\n", true),
        ("UUID=1 / ext4 noatime,ro,errors=remount-ro 0 1\n", true),
        ("UUID=1 / ext4 defaults,errors=remount-ro 0 1\n", false),
        ("UUID=2 /boot ext4 ro 0 1\n", false),
        ("# UUID=1 / ext4 ro 0 1\n", false),
        ("", false),
    ] {
        let mut root = Memory::of("debian");
        root.file("/etc/fstab", fstab);
        root.directory("/usr/lib/systemd");
        root.file("/usr/lib/systemd/libsystemd-shared-253.so", "");
        assert!(!is_left_alone(&root), "{fstab}");
        root.file("/usr/lib/systemd/libsystemd-shared-254.so", "");
        assert_eq!(is_left_alone(&root), stays, "{fstab}");
    }
}
