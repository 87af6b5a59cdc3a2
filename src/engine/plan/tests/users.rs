//! What becomes of the administrator: account, password, home, keys, sudo.

use super::*;

#[test]
fn new_user_on_debian_is_what_useradd_would_make() {
    let old = Memory::of("debian");
    let new = after(&with_key("opsadmin"), old.clone());
    assert_eq!(new.text("/etc/hostname"), "vm-demo01\n");
    assert_grown(
        &old,
        &new,
        "/etc/passwd",
        "opsadmin:x:1000:1000::/home/opsadmin:/bin/bash",
    );
    assert_grown(&old, &new, "/etc/shadow", "opsadmin:*:20414:0:99999:7:::");
    assert_grown(&old, &new, "/etc/subuid", "opsadmin:100000:65536");
    assert_grown(&old, &new, "/etc/subgid", "opsadmin:100000:65536");
    let group = old.text("/etc/group");
    let group = group.replace("\nadm:x:4:\n", "\nadm:x:4:opsadmin\n");
    let group = group.replace("\nsudo:x:27:\n", "\nsudo:x:27:opsadmin\n");
    assert_eq!(new.text("/etc/group"), format!("{group}opsadmin:x:1000:\n"));
    let group = old
        .text("/etc/gshadow")
        .replace("\nadm:*::\n", "\nadm:*::opsadmin\n");
    let group = group.replace("\nsudo:*::\n", "\nsudo:*::opsadmin\n");
    assert_eq!(new.text("/etc/gshadow"), format!("{group}opsadmin:!::\n"));
    assert_eq!(new.looks("/etc/passwd"), (0o644, (0, 0)));
    assert_eq!(new.looks("/etc/shadow"), (0o640, (0, 42)));
    assert_eq!(new.looks("/etc/gshadow"), (0o640, (0, 42)));

    let own = (1000, 1000);
    assert_eq!(new.looks("/home/opsadmin"), (0o755, own));
    assert_eq!(new.looks("/home/opsadmin/.profile"), (0o644, own));
    assert_eq!(new.looks("/home/opsadmin/.ssh"), (0o700, own));
    assert_eq!(
        new.looks("/home/opsadmin/.ssh/authorized_keys"),
        (0o600, own)
    );
    assert_eq!(new.text("/home/opsadmin/.ssh/authorized_keys"), KEY);
    assert_eq!(
        new.text("/etc/sudoers.d/preroot"),
        "opsadmin ALL=(ALL) NOPASSWD: ALL\n"
    );
    assert_eq!(new.looks("/etc/sudoers.d/preroot"), (0o440, (0, 0)));
    assert_eq!(new.text("/etc/sudoers"), old.text("/etc/sudoers"));
    assert_eq!(new.text("/var/lib/preroot/configured"), format!("{VM}\n"));
    assert_eq!(new.looks("/var/lib/preroot"), (0o700, (0, 0)));
}

#[test]
fn alpine_without_login_defs_and_gshadow_gets_its_user() {
    let old = Memory::of("alpine");
    let new = after(&with_key("ops"), old.clone());
    assert_grown(
        &old,
        &new,
        "/etc/passwd",
        "ops:x:1000:1000::/home/ops:/bin/ash",
    );
    assert_grown(&old, &new, "/etc/shadow", "ops:*:20414::::::");
    assert!(
        new.text("/etc/group")
            .contains("\nadm:x:4:root,daemon,ops\nwheel:x:10:root,ops\n")
    );
    assert_eq!(new.looks("/home/ops"), (0o700, (1000, 1000)));
    for path in ["/etc/gshadow", "/etc/subuid", "/etc/sudoers.d/preroot"] {
        assert!(!new.0.contains_key(path), "{path}");
    }
    assert!(
        planned(&with_key("ops"), &old)
            .notes
            .contains(&Note::NoSudo)
    );
}

#[test]
fn second_user_on_fedora_takes_the_next_ids_and_keeps_shadows_mode() {
    let old = Memory::of("fedora");
    let new = after(&with_password("ops"), old.clone());
    assert_grown(
        &old,
        &new,
        "/etc/passwd",
        "ops:x:1001:1001::/home/ops:/bin/bash",
    );
    assert_grown(&old, &new, "/etc/subuid", "ops:589824:65536");
    assert_eq!(new.looks("/etc/shadow"), (0o000, (0, 0)));
    assert_eq!(new.looks("/home/ops"), (0o700, (1001, 1001)));
    assert_eq!(new.text("/home/ops/.config/settings"), "x\n");
    assert_eq!(new.looks("/home/ops/.config"), (0o755, (1001, 1001)));
    assert!(
        new.text("/etc/group")
            .contains("\nsystemd-journal:x:190:ops\n")
    );
    assert!(!new.0.contains_key("/home/ops/.ssh"));
}

#[test]
fn user_of_the_image_is_kept_and_completed() {
    let old = Memory::of("fedora");
    let new = after(&with_password("fedora"), old.clone());
    assert_eq!(new.text("/etc/passwd"), old.text("/etc/passwd"));
    assert_eq!(new.text("/etc/subuid"), old.text("/etc/subuid"));
    assert!(new.text("/etc/group").contains("\nwheel:x:10:fedora\n"));
    assert!(new.text("/etc/shadow").contains("\nfedora:$6$"));
    assert!(new.text("/etc/shadow").ends_with(":20414:0:99999:7:::\n"));
    assert_eq!(new.looks("/home/fedora"), (0o700, (1000, 1000)));
    assert_eq!(new.text("/home/fedora/.bashrc"), "# .bashrc\n");

    // Without a password in the identity there is none still, in the form that lets keys in.
    let new = after(&with_key("fedora"), old.clone());
    let shadow = old.text("/etc/shadow").replace("fedora:!:", "fedora:*:");
    assert_eq!(new.text("/etc/shadow"), shadow);
    assert_eq!(new.text("/home/fedora/.ssh/authorized_keys"), KEY);
}

#[test]
fn home_of_an_existing_user_is_not_filled_up() {
    let mut old = Memory::of("fedora");
    old.directory("/home/fedora");
    old.file("/home/fedora/notes", "");
    let new = after(&with_key("fedora"), old);
    assert!(!new.0.contains_key("/home/fedora/.bashrc"));
    assert_eq!(new.looks("/home/fedora"), (0o755, (0, 0)));
}

#[test]
fn users_and_groups_of_the_system_are_refused_by_name() {
    let root = Memory::of("debian");
    let fault = refused(&with_key("www-data"), &root);
    assert_eq!(
        fault.to_string(),
        "user 'www-data' (uid 33) belongs to the system"
    );
    let fault = refused(&with_key("staff"), &root);
    assert_eq!(
        fault.to_string(),
        "group 'staff' (gid 50) belongs to the system"
    );
    let mut root = Memory::of("debian");
    root.file("/usr/lib/passwd", "dbus:x:81:81::/:/sbin/nologin\n");
    let fault = refused(&with_key("dbus"), &root);
    assert_eq!(
        fault.to_string(),
        "user 'dbus' (uid 81) belongs to the system"
    );
}

#[test]
fn user_nobody_could_log_in_as_is_refused() {
    let identity = identity("<UserName>ops</UserName>", &["ssh-dss AAAA"]);
    let fault = refused(&identity, &Memory::of("debian"));
    assert_eq!(
        fault.to_string(),
        "no usable public key and no password for user 'ops'"
    );
    // The image's own user may have ways in that we do not see.
    let identity = with_nothing("fedora");
    assert!(plan(&identity, &Memory::of("fedora"), &CONTEXT).is_ok());
}

#[test]
fn password_of_a_user_whose_hash_is_in_passwd_moves_to_shadow() {
    let mut root = Memory::of("fedora");
    let passwd = root
        .text("/etc/passwd")
        .replace("fedora:x:", "fedora:$1$x$y:");
    root.file("/etc/passwd", &passwd);
    let shadow = root
        .text("/etc/shadow")
        .replace("fedora:!:20000:0:99999:7:::\n", "");
    root.file("/etc/shadow", &shadow);
    let new = after(&with_password("fedora"), root.clone());
    assert!(
        new.text("/etc/passwd")
            .contains("\nfedora:x:1000:1000:Cloud User:/home/fedora:")
    );
    assert!(new.text("/etc/shadow").contains("\nfedora:$6$"));
    // Without a password from the platform it is left alone.
    let new = after(&with_key("fedora"), root.clone());
    assert_eq!(new.text("/etc/passwd"), root.text("/etc/passwd"));
    assert_eq!(new.text("/etc/shadow"), root.text("/etc/shadow"));
}

#[test]
fn keys_are_merged_and_none_is_lost() {
    let mut root = Memory::of("fedora");
    root.directory("/home/fedora");
    root.directory("/home/fedora/.ssh");
    let old = format!("# mine\nno-pty {}", RSA.trim_end());
    root.file("/home/fedora/.ssh/authorized_keys", &old);
    let identity = identity("<UserName>fedora</UserName>", &[RSA, KEY]);
    let new = after(&identity, root);
    assert_eq!(
        new.text("/home/fedora/.ssh/authorized_keys"),
        format!("{old}\n{KEY}")
    );
    assert_eq!(
        new.looks("/home/fedora/.ssh/authorized_keys"),
        (0o600, (1000, 1000))
    );
    assert_eq!(new.looks("/home/fedora/.ssh"), (0o700, (1000, 1000)));
}

#[test]
fn links_in_the_home_directory_are_refused() {
    for path in ["/home/fedora/.ssh", "/home/fedora/.ssh/authorized_keys"] {
        let mut root = Memory::of("fedora");
        root.directory("/home/fedora");
        root.directory("/home/fedora/.ssh");
        root.put(path, Node::Link, 0o777);
        assert_eq!(refused(&with_key("fedora"), &root), PlanFault::HomeHasLinks);
    }
}

#[test]
fn whoever_has_a_password_is_asked_for_it() {
    let root = after(&with_password("ops"), Memory::of("debian"));
    assert_eq!(root.text("/etc/sudoers.d/preroot"), "ops ALL=(ALL) ALL\n");
    let root = after(&with_key("ADMIN"), Memory::of("debian"));
    assert_eq!(
        root.text("/etc/sudoers.d/preroot"),
        "\"ADMIN\" ALL=(ALL) NOPASSWD: ALL\n"
    );
}

#[test]
fn sudoers_without_our_directory_learns_of_it() {
    let mut root = Memory::of("debian");
    root.put(
        "/etc/sudoers",
        Node::File(b"root ALL=(ALL) ALL".to_vec()),
        0o440,
    );
    root.0.remove("/etc/sudoers.d");
    let new = after(&with_key("ops"), root);
    assert_eq!(
        new.text("/etc/sudoers"),
        "root ALL=(ALL) ALL\n#includedir /etc/sudoers.d\n"
    );
    assert_eq!(new.looks("/etc/sudoers"), (0o440, (0, 0)));
    assert_eq!(new.looks("/etc/sudoers.d"), (0o750, (0, 0)));
}

#[test]
fn password_is_in_shadow_hashed_and_nowhere_in_plain() {
    let root = with_agents();
    let plan = planned(&with_password("ops"), &root);
    let shown = plan.to_string();
    assert!(
        !shown.contains(PASSWORD) && !shown.contains("$6$"),
        "{shown}"
    );
    let mut hashed = Vec::new();
    for change in &plan.changes {
        if let Action::Write(content) = &change.action {
            let text = core::str::from_utf8(content).unwrap();
            assert!(!text.contains(PASSWORD), "{}", change.path);
            if text.contains("$6$") {
                hashed.push(change.path.as_str());
            }
        }
    }
    assert_eq!(hashed, ["/etc/shadow"]);
}

#[test]
fn what_an_earlier_user_of_that_name_left_in_shadow_is_not_the_new_ones() {
    for identity in [with_key("ops"), with_password("ops")] {
        let mut old = Memory::of("debian");
        let fresh = after(&identity, old.clone());
        let shadow = old.text("/etc/shadow");
        let left = format!("ops:$6$known$to.others:19000:0:99999:7::18000:\n{shadow}ops::::::::\n");
        old.put("/etc/shadow", Node::File(left.into()), 0o640);
        let new = after(&identity, old);
        assert_eq!(new.text("/etc/shadow"), fresh.text("/etc/shadow"));
    }
}

#[test]
fn password_set_by_a_clock_that_stands_at_zero_is_not_expired() {
    let context = Context {
        today_days: 0,
        ..CONTEXT
    };
    let mut root = Memory::of("debian");
    let plan = plan(&with_key("ops"), &root, &context).ok().unwrap();
    root.apply(&plan.changes);
    assert!(root.text("/etc/shadow").ends_with("ops:*::0:99999:7:::\n"));
}

#[test]
fn shell_is_one_that_the_root_has() {
    let shell = |root: Memory| {
        let new = after(&with_key("ops"), root);
        String::from(
            new.text("/etc/passwd")
                .trim_end()
                .rsplit(':')
                .next()
                .unwrap(),
        )
    };
    let mut root = Memory::of("debian");
    root.0.remove("/bin/bash");
    assert_eq!(shell(root.clone()), "/bin/sh");
    root.file("/etc/default/useradd", "SHELL=/usr/bin/zsh\n");
    assert_eq!(shell(root.clone()), "/bin/sh");
    root.put("/usr/bin/zsh", Node::File(Vec::new()), 0o755);
    assert_eq!(shell(root), "/usr/bin/zsh");
}

#[test]
fn distribution_without_user_groups_gives_its_common_group() {
    let mut root = Memory::of("fedora");
    let defs = root
        .text("/etc/login.defs")
        .replace("USERGROUPS_ENAB yes", "USERGROUPS_ENAB no");
    root.file("/etc/login.defs", &defs);
    let new = after(&with_key("ops"), root);
    assert!(
        new.text("/etc/passwd")
            .ends_with("ops:x:1001:100::/home/ops:/bin/bash\n")
    );
    assert!(!new.text("/etc/group").contains("\nops:"));
    assert!(!new.text("/etc/gshadow").contains("\nops:"));
    assert_eq!(new.looks("/home/ops"), (0o700, (1001, 100)));
}

#[test]
fn homes_and_accounts_begin_as_useradd_is_told() {
    let mut root = Memory::of("debian");
    let defs = root.text("/etc/login.defs");
    let defs = format!("{defs}\nSUB_UID_COUNT 0\n");
    root.file("/etc/login.defs", &defs);
    root.directory("/etc/own");
    root.directory("/etc/own/sub");
    root.file("/etc/own/sub/.own", "x");
    root.file("/etc/default/useradd", "SKEL=/etc/own/\nINACTIVE=30\n");
    let new = after(&with_key("ops"), root.clone());
    let homes = new.0.keys().filter(|path| path.starts_with("/home/ops/"));
    let homes: Vec<_> = homes.filter(|path| !path.contains(".ssh")).collect();
    assert_eq!(homes, ["/home/ops/sub", "/home/ops/sub/.own"]);
    assert!(
        new.text("/etc/shadow")
            .ends_with("\nops:*:20414:0:99999:7:30::\n")
    );
    // None at all, which useradd(8) takes for no.
    assert_eq!(new.text("/etc/subuid"), root.text("/etc/subuid"));
    assert!(new.text("/etc/subgid").contains("ops:"));

    for odd in ["SKEL=\nINACTIVE=-1\n", "SKEL=none\nINACTIVE=1:2\n"] {
        root.file("/etc/default/useradd", odd);
        let new = after(&with_key("ops"), root.clone());
        assert!(new.0.contains_key("/home/ops/.bashrc"), "{odd}");
        assert!(new.text("/etc/shadow").ends_with(":7:::\n"), "{odd}");
    }
}

#[test]
fn customs_of_a_distribution_may_be_below_usr() {
    let mut root = Memory::of("debian");
    root.0.remove("/etc/login.defs");
    root.0.remove("/etc/default/useradd");
    let below = |root: &mut Memory, path: &str, text: &str| {
        root.file(&["/usr", path].concat(), text);
    };
    below(
        &mut root,
        "/etc/login.defs",
        "UID_MIN 3000\nHOME_MODE 0711\n",
    );
    below(&mut root, "/etc/default/useradd", "HOME=/srv\n");
    let new = after(&with_key("ops"), root.clone());
    let passwd = new.text("/etc/passwd");
    assert!(passwd.contains("\nops:x:3000:3000::/srv/ops:"), "{passwd}");
    assert_eq!(new.looks("/srv/ops").0, 0o711);
    // The administrator's counts whole.
    root.file("/etc/login.defs", "UID_MIN 4000\n");
    let new = after(&with_key("ops"), root);
    assert!(new.text("/etc/passwd").contains("\nops:x:4000:4000:"));
    assert_eq!(new.looks("/srv/ops").0, 0o700);
}

#[test]
fn home_that_is_a_link_to_what_is_the_systems_stays_the_systems() {
    let planned_homes = |owner, name: &str| {
        let mut root = Memory::of("debian");
        root.put("/home/ops", Node::Link, 0o755);
        root.0.get_mut("/home/ops").unwrap().2 = owner;
        root.file(&format!("/home/ops/{name}"), "");
        let plan = planned(&with_key("ops"), &root);
        let paths = plan.changes.into_iter().map(|change| change.path);
        paths
            .filter(|path| path == "/home/ops" || path == "/home/ops/.profile")
            .collect::<Vec<_>>()
    };
    assert_eq!(planned_homes((0, 0), "passwd"), [""; 0]);
    // What nobody uses, or another user did, is given to the new one.
    assert_eq!(planned_homes((0, 0), ".bashrc").len(), 2);
    assert_eq!(planned_homes((1003, 1003), "notes").len(), 2);
}

#[test]
fn links_and_excess_in_skel_are_left_out_and_counted() {
    let mut root = Memory::of("debian");
    root.put("/etc/skel/link", Node::Link, 0o777);
    root.file("/etc/skel/large", &"x".repeat(64 * 1024 + 1));
    // With the name that it has while it is written, the kernel takes 246 bytes.
    root.file(&format!("/etc/skel/{}", "n".repeat(247)), "");
    root.file(&format!("/etc/skel/{}", "o".repeat(246)), "");
    for n in 0..100 {
        root.file(&format!("/etc/skel/z{n:03}"), "");
    }
    let plan = planned(&with_key("ops"), &root);
    let copied = plan
        .changes
        .iter()
        .filter(|change| change.purpose == "from skel")
        .count();
    assert_eq!(plan.notes, [Note::SkelLeftOut(107 - copied as u32)]);
    assert_eq!(copied, 64 - 3);
}

#[test]
fn home_on_a_file_system_that_is_not_mounted_yet_is_noted() {
    let mut root = Memory::of("debian");
    root.file(
        "/etc/fstab",
        "# /dev/x /home ext4\nUUID=1 / ext4 defaults 0 1\n",
    );
    assert_eq!(planned(&with_key("ops"), &root).notes, []);
    root.file(
        "/etc/fstab",
        "UUID=1 / ext4 defaults 0 1\nUUID=2 /home/ ext4 defaults 0 2\n",
    );
    assert_eq!(
        planned(&with_key("ops"), &root).notes,
        [Note::HomeWillBeHidden]
    );
    root.file("/etc/fstab", "UUID=2 /homes ext4\n");
    assert_eq!(planned(&with_key("ops"), &root).notes, []);
}
