//! What becomes of keys, of sshd and of its host keys.

use super::*;

/// A Debian root with an sshd of this configuration.
fn with_sshd(config: &str) -> Memory {
    let mut root = Memory::of("debian");
    root.file("/usr/sbin/sshd", "");
    root.directory("/etc/ssh");
    root.file("/etc/ssh/sshd_config", config);
    root
}

#[test]
fn keys_go_where_sshd_looks_for_them() {
    let own = (1000, 1000);
    for (files, path, looks) in [
        (
            ".ssh/authorized_keys .ssh/authorized_keys2",
            "/home/ops/.ssh/authorized_keys",
            (0o600, own),
        ),
        ("none %h/k%%/%u", "/home/ops/k%/ops", (0o600, own)),
        ("keys", "/home/ops/keys", (0o600, own)),
        ("%x /etc/ssh/keys/%u", "/etc/ssh/keys/ops", (0o644, (0, 0))),
        ("../x /srv/%U", "/srv/1000", (0o644, (0, 0))),
        ("/keys", "/keys", (0o644, (0, 0))),
    ] {
        let root = with_sshd(&format!("AuthorizedKeysFile {files}\n"));
        let new = after(&with_key("ops"), root);
        assert_eq!(new.text(path), KEY, "{files}");
        assert_eq!(new.looks(path), looks, "{files}");
    }
    let new = after(&with_key("ops"), with_sshd("AuthorizedKeysFile %h/a/b/c\n"));
    assert_eq!(new.looks("/home/ops/a"), (0o700, own));
    assert_eq!(new.looks("/home/ops/a/b"), (0o700, own));
    let new = after(&with_key("ops"), with_sshd("AuthorizedKeysFile /a/b/c\n"));
    assert_eq!(new.looks("/a/b"), (0o755, (0, 0)));
}

#[test]
fn keys_outside_the_home_directory_keep_an_owner_that_sshd_takes() {
    let file = |mode, owner| {
        let mut root = with_sshd("AuthorizedKeysFile /etc/ssh/keys/%u\n");
        root.directory("/etc/ssh/keys");
        let node = Node::File(Vec::from(RSA));
        root.0
            .insert("/etc/ssh/keys/ops".into(), (node, mode, owner));
        let new = after(&with_key("ops"), root);
        assert_eq!(new.text("/etc/ssh/keys/ops"), format!("{RSA}{KEY}"));
        new.looks("/etc/ssh/keys/ops")
    };
    let own = (1000, 1000);
    assert_eq!(file(0o600, own), (0o600, own));
    assert_eq!(file(0o444, (0, 0)), (0o444, (0, 0)));
    // The user could not read it, or others could write it.
    assert_eq!(file(0o600, (0, 0)), (0o644, (0, 0)));
    assert_eq!(file(0o664, own), (0o644, (0, 0)));
    assert_eq!(file(0o644, (1001, 0)), (0o644, (0, 0)));
}

#[test]
fn below_a_directory_of_the_user_no_link_is_followed() {
    let mut root = with_sshd("AuthorizedKeysFile /srv/%u/keys\n");
    root.directory("/srv");
    root.0
        .insert("/srv/ops".into(), (Node::Directory, 0o755, (1000, 1000)));
    let plan = planned(&with_key("ops"), &root);
    let of = |end: &str| {
        plan.changes
            .iter()
            .find(|change| change.path.ends_with(end))
    };
    assert_eq!(of("/keys").unwrap().trusted, "/srv/ops".len());
    root.put("/srv/ops/keys", Node::Link, 0o777);
    assert_eq!(refused(&with_key("ops"), &root), PlanFault::HomeHasLinks);

    let root = with_sshd("AuthorizedKeysFile %h/a/keys\n");
    for link in ["/home/ops/a", "/home/ops/a/keys"] {
        let mut root = root.clone();
        root.directory("/home/ops");
        root.directory("/home/ops/a");
        root.put(link, Node::Link, 0o777);
        assert_eq!(refused(&with_key("ops"), &root), PlanFault::HomeHasLinks);
    }
}

#[test]
fn keys_that_sshd_looks_for_nowhere_are_noted() {
    for files in ["none", "NONE", "%x a//b ./c"] {
        let root = with_sshd(&format!("AuthorizedKeysFile {files}\n"));
        let plan = planned(&with_key("ops"), &root);
        assert!(plan.notes.contains(&Note::NoKeysFile), "{files}");
    }
}

/// The notes of a plan that say why sshd turns the user away.
fn turned_away(root: &Memory, identity: &Identity) -> Vec<String> {
    let notes = planned(identity, root).notes.into_iter();
    notes
        .filter(|note| matches!(note, Note::TurnedAway(..) | Note::HomeIsWritable))
        .map(|note| note.to_string())
        .collect()
}

#[test]
fn all_that_turns_the_user_away_is_noted() {
    let main = "/etc/ssh/sshd_config";
    for (config, keywords) in [
        ("", &[][..]),
        ("AllowUsers root", &["AllowUsers"]),
        ("AllowUsers *", &[]),
        ("AllowUsers root *ps@192.0.2.*", &[]),
        ("DenyUsers ops", &["DenyUsers"]),
        // It depends on where the user comes from.
        ("DenyUsers ops@192.0.2.*", &[]),
        ("Match Address 192.0.2.1\nAllowUsers root", &[]),
        ("DenyUsers ops\nMatch Address 192.0.2.1\nDenyUsers x", &[]),
        // Of its own groups, and of those that are added.
        ("DenyGroups ops", &["DenyGroups"]),
        ("AllowGroups adm", &[]),
        (
            "AllowGroups a\nAllowGroups b\nAllowUsers a\nDenyUsers o?s",
            &["DenyUsers", "AllowUsers", "AllowGroups"],
        ),
        // What is said for one user overrides what is said for all.
        ("DenyUsers ops\nMatch User ops\nDenyUsers x", &[]),
        (
            "AllowUsers ops\nMatch User o*\nallowusers=x",
            &["AllowUsers"],
        ),
        (
            "PubkeyAuthentication no\nPubkeyAuthentication yes",
            &["PubkeyAuthentication"],
        ),
        ("PubkeyAuthentication yes\nPubkeyAuthentication no", &[]),
        ("AllowUsers", &[]),
    ] {
        let root = with_sshd(&format!("{config}\n"));
        let expected: Vec<_> = keywords
            .iter()
            .map(|keyword| format!("{keyword} in {main} has sshd turn the user away"))
            .collect();
        assert_eq!(turned_away(&root, &with_key("ops")), expected, "{config}");
        // Nobody logs in where there is no sshd.
        let mut root = root;
        root.0.remove("/usr/sbin/sshd");
        assert_eq!(turned_away(&root, &with_key("ops")), [""; 0], "{config}");
    }
}

#[test]
fn home_that_others_may_write_is_noted() {
    let with_home = |config: &str, mode| {
        let mut root = with_sshd(config);
        let passwd = format!(
            "{}ops:x:1000:1000::/home/ops:/bin/bash\n",
            root.text("/etc/passwd")
        );
        root.file("/etc/passwd", &passwd);
        root.0
            .insert("/home/ops".into(), (Node::Directory, mode, (1000, 1000)));
        root.file("/home/ops/notes", "");
        root
    };
    let told =
        |config: &str, mode| !turned_away(&with_home(config, mode), &with_key("ops")).is_empty();
    assert!(told("", 0o775));
    assert!(told("StrictModes yes\n", 0o757));
    assert!(!told("", 0o755));
    assert!(!told("StrictModes no\n", 0o777));
    // A password is as good as before.
    assert_eq!(
        turned_away(&with_home("", 0o777), &with_password("ops")),
        [""; 0]
    );
}

#[test]
fn host_keys_of_the_image_go_with_their_certificates() {
    let mut root = with_sshd("");
    for name in [
        "ssh_host_rsa_key",
        "ssh_host_rsa_key.pub",
        "ssh_host_rsa_key-cert.pub",
        "ssh_host_ed25519_key",
        "ssh_host_key",
        "ssh_host_ca.conf",
        "my_ssh_host_key",
        "moduli",
    ] {
        root.file(&format!("/etc/ssh/{name}"), "old");
    }
    root.directory("/etc/ssh/ssh_host_keys");
    root.put("/etc/ssh/ssh_host_dsa_key", Node::Link, 0o777);
    let new = after(&with_key("ops"), root);
    let left: Vec<_> = new
        .0
        .keys()
        .filter_map(|path| path.strip_prefix("/etc/ssh/"))
        .filter(|name| name.contains("key"))
        .collect();
    assert_eq!(
        left,
        [
            "my_ssh_host_key",
            "ssh_host_dsa_key",
            "ssh_host_ed25519_key",
            "ssh_host_ed25519_key.pub",
            "ssh_host_keys",
        ]
    );
    assert_eq!(new.looks("/etc/ssh/ssh_host_ed25519_key"), (0o600, (0, 0)));
    assert_eq!(
        new.looks("/etc/ssh/ssh_host_ed25519_key.pub"),
        (0o644, (0, 0))
    );
    let public = new.text("/etc/ssh/ssh_host_ed25519_key.pub");
    assert!(public.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"));
    assert!(public.ends_with(" root@vm-demo01\n"));
}

#[test]
fn group_that_reads_host_keys_reads_the_new_one() {
    let mut root = with_sshd("");
    let group = format!("{}ssh_keys:x:998:\n", root.text("/etc/group"));
    root.file("/etc/group", &group);
    let path = "/etc/ssh/ssh_host_ed25519_key";
    let new = after(&with_key("ops"), root.clone());
    assert_eq!(new.looks(path), (0o600, (0, 0)));
    let old = (Node::File(Vec::new()), 0o640, (0, 998));
    root.0.insert("/etc/ssh/ssh_host_rsa_key".into(), old);
    let new = after(&with_key("ops"), root);
    assert_eq!(new.looks(path), (0o640, (0, 998)));
}

#[test]
fn host_keys_stay_without_a_seed_or_an_sshd() {
    let is_touched = |root: &Memory, context: &Context<'_>| {
        let plan = plan(&with_key("ops"), root, context).ok().unwrap();
        plan.changes
            .iter()
            .any(|change| change.path.contains("ssh_host"))
    };
    let mut root = with_sshd("");
    root.file("/etc/ssh/ssh_host_rsa_key", "old");
    assert!(is_touched(&root, &CONTEXT));
    let context = Context {
        host_key_seed: None,
        ..CONTEXT
    };
    assert!(!is_touched(&root, &context));
    root.0.remove("/usr/sbin/sshd");
    assert!(!makes_host_key(&root) && !is_touched(&root, &CONTEXT));
}

#[test]
fn ssh_keygen_makes_the_other_types_that_the_image_had_where_nobody_else_would() {
    let types = |root: &Memory| planned(&with_key("ops"), root).host_key_types;
    let mut root = with_sshd("");
    for kind in ["dsa", "ecdsa", "ed25519", "rsa"] {
        root.file(&format!("/etc/ssh/ssh_host_{kind}_key"), "old");
        root.file(&format!("/etc/ssh/ssh_host_{kind}_key.pub"), "old");
    }
    assert_eq!(types(&root), [""; 0]);
    root.file("/usr/bin/ssh-keygen", "");
    assert_eq!(types(&root), ["ecdsa", "rsa"]);
    let plan = planned(&with_key("ops"), &root).to_string();
    assert!(plan.contains("/usr/bin/ssh-keygen  (rsa, in the root)"));
    root.file("/usr/lib/systemd/system/sshdgenkeys.service", "");
    assert_eq!(types(&root), [""; 0]);
    let mut clean = with_sshd("");
    clean.file("/usr/bin/ssh-keygen", "");
    assert_eq!(types(&clean), [""; 0]);
}

#[test]
fn keys_without_which_sshd_would_have_none_stay_until_others_take_their_places() {
    let paths = ["/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_rsa_key.pub"];
    for (config, types) in [
        ("HostKey /etc/ssh/ssh_host_rsa_key\n", &["rsa"][..]),
        ("HostKeyAlgorithms rsa-sha2-512,rsa-sha2-256\n", &["rsa"]),
        ("HostKeyAlgorithms -ssh-ed*\n", &["ecdsa", "rsa"]),
        (
            "HostKey /srv/key\nHostKey /etc/ssh/ssh_host_ecdsa_key\n",
            &["ecdsa"],
        ),
        ("HostKey /srv/key\n", &[]),
    ] {
        // An image that has none of its own needs them all the more.
        for old in [&paths[..], &[]] {
            let mut root = with_sshd(config);
            root.file("/usr/bin/ssh-keygen", "");
            for path in old {
                root.file(path, "old");
            }
            let mut plan = planned(&with_key("ops"), &root);
            assert_eq!(plan.host_key_types, types, "{config}");
            let stays = types.is_empty();
            assert_eq!(plan.notes.contains(&Note::HostKeysStay), stays, "{config}");
            if !types.contains(&"rsa") {
                continue;
            }
            let mut unmade = root.clone();
            unmade.apply(&plan.changes);
            assert!(old.iter().all(|path| unmade.0.contains_key(*path)));
            // ssh-keygen has done its work.
            root.file(MADE, "private");
            assert!(!take_made(&mut plan, "rsa", &root));
            root.file(&[MADE, ".pub"].concat(), "public");
            assert!(take_made(&mut plan, "rsa", &root));
            root.apply(&without_made().changes);
            root.apply(&plan.changes);
            assert_eq!(paths.map(|path| root.text(path)), ["private", "public"]);
            assert_eq!(root.looks(paths[0]), (0o600, (0, 0)));
            assert_eq!(root.looks(paths[1]), (0o644, (0, 0)));
            assert!(root.0.keys().all(|path| !path.starts_with(MADE)));
            let last = &plan.changes.last().unwrap().path;
            assert_eq!(last, "/var/lib/preroot/configured");
        }
    }
}

#[test]
fn key_that_was_made_takes_the_place_of_the_images() {
    let mut root = with_sshd("");
    for name in ["usr/bin/ssh-keygen", "etc/ssh/ssh_host_rsa_key"] {
        root.file(&["/", name].concat(), "old");
    }
    root.file("/etc/ssh/ssh_host_rsa_key.pub", "old");
    let mut plan = planned(&with_key("ops"), &root);
    // Where ssh-keygen fails there is another key still, and the image's is everybody's.
    let mut unmade = root.clone();
    unmade.apply(&plan.changes);
    assert!(!unmade.0.contains_key("/etc/ssh/ssh_host_rsa_key"));
    for end in ["", ".pub"] {
        root.file(&[MADE, end].concat(), "new");
    }
    assert!(take_made(&mut plan, "rsa", &root));
    let mut paths: Vec<_> = plan.changes.iter().map(|change| &change.path).collect();
    let count = paths.len();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), count);
    root.apply(&plan.changes);
    assert_eq!(root.text("/etc/ssh/ssh_host_rsa_key"), "new");
}

#[test]
fn host_key_that_sshd_will_not_use_is_noted() {
    for (config, is_noted) in [
        ("", false),
        ("HostKey /etc/ssh/ssh_host_rsa_key\n", true),
        ("HostKey /a\nHostKey /etc/ssh/ssh_host_ed25519_key\n", false),
        ("HostKeyAlgorithms rsa-sha2-*,ssh-ed25519\n", false),
        (
            "HostKeyAlgorithms rsa-sha2-512\nHostKeyAlgorithms ssh-ed25519\n",
            true,
        ),
        ("HostKeyAlgorithms +ssh-rsa\n", false),
        ("HostKeyAlgorithms ^ssh-rsa\n", false),
        ("HostKeyAlgorithms -ssh-rsa\n", false),
        ("HostKeyAlgorithms -ssh-ed*\n", true),
    ] {
        let mut root = with_sshd(config);
        root.file("/etc/ssh/ssh_host_rsa_key", "old");
        let notes = planned(&with_key("ops"), &root).notes;
        assert_eq!(notes.contains(&Note::HostKeysStay), is_noted, "{config}");
        // Then there would be no key at all.
        let new = after(&with_key("ops"), root.clone());
        let stays = new.0.contains_key("/etc/ssh/ssh_host_rsa_key");
        assert_eq!(stays, is_noted, "{config}");

        root.file("/usr/lib/systemd/system/sshd-keygen@.service", "");
        let notes = planned(&with_key("ops"), &root).notes;
        assert_eq!(notes.contains(&Note::NoEd25519), is_noted, "{config}");
        let new = after(&with_key("ops"), root);
        assert!(!new.0.contains_key("/etc/ssh/ssh_host_rsa_key"), "{config}");
    }
}

#[test]
fn old_sshd_is_told_by_the_name_that_it_knows() {
    let path = "/etc/ssh/sshd_config";
    let content =
        |config: &str| String::from(after(&with_key("ops"), with_sshd(config)).text(path));
    let main = "#KbdInteractiveAuthentication yes\nUsePAM yes\n";
    assert_eq!(
        content(main),
        format!(
            "# preroot: as the platform says; of several values sshd takes the first.\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n# preroot: end.\n{main}"
        )
    );
    let main = "#ChallengeResponseAuthentication yes\nUsePAM yes\n";
    assert!(content(main).contains("\nChallengeResponseAuthentication no\n# preroot: end.\n"));
    // Right for a new one, but an old one would still ask.
    let main = "PasswordAuthentication no\nKbdInteractiveAuthentication no\n";
    assert_eq!(content(main), main);
    let old = format!("#ChallengeResponseAuthentication yes\n{main}");
    assert!(content(&old).contains("\nChallengeResponseAuthentication no\n"));
}

#[test]
fn sshd_without_a_configuration_is_noted() {
    let mut root = with_sshd("");
    root.0.remove("/etc/ssh/sshd_config");
    let plan = planned(&with_key("ops"), &root);
    assert!(plan.notes.contains(&Note::NoSshdConfig));
}
