//! Plans where somebody chose.

use super::*;
use crate::wire::accounts;

fn with(settings: Settings) -> Context<'static> {
    Context {
        settings,
        ..CONTEXT
    }
}

/// Makes the root what the plan says, and holds the next plan to have nothing more to say.
fn chosen(identity: &Identity, mut root: Memory, settings: Settings) -> Memory {
    let context = with(settings);
    let make = |root: &Memory| plan(identity, root, &context).unwrap_or_else(|f| panic!("{f}"));
    root.apply(&make(&root).changes);
    let mut unmarked = root.clone();
    unmarked.0.remove("/var/lib/preroot/configured");
    let left: Vec<_> = make(&unmarked)
        .changes
        .into_iter()
        .map(|c| c.path)
        .collect();
    assert_eq!(left, ["/var/lib/preroot/configured"]);
    root
}

fn sudo(sudo: Sudo) -> Settings {
    Settings {
        sudo,
        ..Settings::DEFAULT
    }
}

#[test]
fn sudo_asks_for_a_password_as_it_was_chosen() {
    for (choice, key_only, password) in [
        (Sudo::Auto, "NOPASSWD: ", ""),
        (Sudo::WithoutPassword, "NOPASSWD: ", "NOPASSWD: "),
        (Sudo::WithPassword, "", ""),
    ] {
        for (identity, tag) in [
            (with_key("ops"), key_only),
            (with_password("ops"), password),
        ] {
            let root = chosen(&identity, Memory::of("debian"), sudo(choice));
            let rule = format!("ops ALL=(ALL) {tag}ALL\n");
            assert_eq!(root.text("/etc/sudoers.d/preroot"), rule, "{choice:?}");
            assert_eq!(root.looks("/etc/sudoers.d/preroot"), (0o440, (0, 0)));
        }
    }
}

#[test]
fn user_who_must_not_become_root_is_in_no_group_of_those_who_do() {
    let root = chosen(&with_key("ops"), Memory::of("debian"), sudo(Sudo::Never));
    assert!(!root.0.contains_key("/etc/sudoers.d/preroot"));
    let members = |group: &str| {
        let line = accounts::find(root.text("/etc/group").as_bytes(), group).unwrap();
        accounts::column(line, accounts::MEMBERS) == Some(b"ops")
    };
    assert!(members("adm") && !members("sudo"));
}

#[test]
fn sudo_that_would_ask_for_roots_password_asks_for_the_users() {
    // As openSUSE ships it, below /usr.
    let rules = "Defaults always_set_home\nDefaults targetpw   # ask for the password of root\n\
                 ALL   ALL=(ALL) ALL\nroot ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n";
    let mut root = Memory::of("debian");
    root.0.remove("/etc/sudoers");
    for directory in ["/usr", "/usr/etc"] {
        root.directory(directory);
    }
    root.file("/usr/etc/sudoers", rules);
    let new = after(&with_password("ops"), root.clone());
    assert_eq!(
        new.text("/etc/sudoers.d/preroot"),
        "Defaults:ops !targetpw\nops ALL=(ALL) ALL\n"
    );
    assert!(!new.0.contains_key("/etc/sudoers"));
    let new = after(&with_key("ops"), root.clone());
    assert_eq!(
        new.text("/etc/sudoers.d/preroot"),
        "ops ALL=(ALL) NOPASSWD: ALL\n"
    );
    root.file(
        "/usr/etc/sudoers",
        &rules.replace("Defaults t", "#Defaults t"),
    );
    let new = after(&with_password("ops"), root.clone());
    assert_eq!(new.text("/etc/sudoers.d/preroot"), "ops ALL=(ALL) ALL\n");

    // As others have it.
    for (rules, more) in [
        ("Defaults rootpw\n", "Defaults:ops !rootpw\n"),
        ("Defaults env_reset,runaspw\n", "Defaults:ops !runaspw\n"),
        (
            "Defaults\tenv_reset, targetpw, rootpw\n",
            "Defaults:ops !rootpw\nDefaults:ops !targetpw\n",
        ),
        ("Defaults env_reset # not rootpw\n", ""),
        ("Defaults !rootpw\n", ""),
        ("Defaults:root rootpw\n", ""),
    ] {
        let rules = format!("{rules}@includedir /etc/sudoers.d\n");
        root.file("/usr/etc/sudoers", &rules);
        let new = after(&with_password("ops"), root.clone());
        let rule = format!("{more}ops ALL=(ALL) ALL\n");
        assert_eq!(new.text("/etc/sudoers.d/preroot"), rule, "{rules}");
    }
}

#[test]
fn rule_without_a_password_is_the_last_that_sudo_reads() {
    let rules = |more: &str, files: &[(&str, &str)], identity: &Identity| {
        let mut root = Memory::of("debian");
        let main = format!("%sudo ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n{more}");
        root.put("/etc/sudoers", Node::File(main.clone().into()), 0o440);
        for (name, text) in files {
            root.file(&format!("/etc/sudoers.d/{name}"), text);
        }
        let new = chosen(identity, root, Settings::DEFAULT);
        let ours = new.text("/etc/sudoers").strip_prefix(main.as_str());
        ours.unwrap_or_else(|| panic!("{main}")).to_string()
    };
    let last = "#include /etc/sudoers.d/preroot\n";
    let (key, password) = (with_key("ops"), with_password("ops"));
    let asks = "%sudo ALL=(ALL) ALL\n";
    for (more, files, wanted) in [
        ("", &[][..], ""),
        (asks, &[], last),
        ("ops\tALL = ALL\n", &[], last),
        ("ALL ALL=(ALL) ALL\n", &[], last),
        ("# %sudo ALL=(ALL) ALL\n", &[], ""),
        ("opsy ALL=(ALL) ALL\n%staff ALL=(ALL) ALL\n", &[], ""),
        ("%sudo ALL=(ALL) NOPASSWD: ALL\n", &[], ""),
        ("", &[("wheel", "%wheel ALL=(ALL) ALL\n")], last),
        ("", &[("preroot2", "\"ops\" ALL=(ALL) ALL\n")], last),
        (
            "",
            &[("10-sudo", asks), ("zz.off", asks), ("zz~", asks)],
            "",
        ),
    ] {
        assert_eq!(rules(more, files, &key), wanted, "{more} {files:?}");
        assert_eq!(rules(more, files, &password), "", "{more} {files:?}");
    }
}

#[test]
fn doas_gets_its_rule_where_there_is_no_sudo() {
    // Alpine's doas reads a directory.
    let mut root = Memory::of("alpine");
    root.directory("/etc/doas.d");
    root.file("/etc/doas.d/20-wheel.conf", "permit persist :wheel\n");
    let path = "/etc/doas.d/zz-preroot.conf";
    let new = chosen(&with_key("ops"), root.clone(), Settings::DEFAULT);
    assert_eq!(new.text(path), "permit nopass \"ops\"\n");
    assert_eq!(new.looks(path), (0o400, (0, 0)));
    let new = chosen(&with_password("ops"), root.clone(), Settings::DEFAULT);
    assert_eq!(new.text(path), "permit persist \"ops\"\n");
    let new = chosen(&with_key("ops"), root, sudo(Sudo::Never));
    assert!(!new.0.contains_key(path));

    // Others read one file, which may not be there yet.
    let mut root = Memory::of("alpine");
    for directory in ["/usr", "/usr/bin"] {
        root.directory(directory);
    }
    root.put("/usr/bin/doas", Node::File(Vec::new()), 0o4755);
    let new = chosen(&with_key("ops"), root.clone(), Settings::DEFAULT);
    assert_eq!(new.text("/etc/doas.conf"), "permit nopass \"ops\"\n");
    assert_eq!(new.looks("/etc/doas.conf"), (0o400, (0, 0)));
    root.put(
        "/etc/doas.conf",
        Node::File(b"deny ops\npermit root".to_vec()),
        0o600,
    );
    let new = chosen(&with_key("ops"), root, Settings::DEFAULT);
    assert_eq!(
        new.text("/etc/doas.conf"),
        "deny ops\npermit root\npermit nopass \"ops\"\n"
    );
    assert_eq!(new.looks("/etc/doas.conf"), (0o600, (0, 0)));

    // Where there is sudo, doas is left alone.
    let mut root = Memory::of("debian");
    root.directory("/etc/doas.d");
    let new = after(&with_key("ops"), root);
    assert!(!new.0.contains_key(path));
}

#[test]
fn system_users_are_taken_where_that_is_allowed_but_never_root() {
    let allow = Settings {
        system_users: true,
        ..Settings::DEFAULT
    };
    let mut root = Memory::of("debian");
    let passwd = format!(
        "{}agent:x:990:990::/var/lib/agent:/bin/sh\ntoor:x:0:0::/root:/bin/sh\n\
         noone:x:65534:65534::/:/bin/sh\n",
        root.text("/etc/passwd")
    );
    root.file("/etc/passwd", &passwd);
    let identity = with_password("agent");
    assert!(matches!(
        refused(&identity, &root),
        PlanFault::SystemUser(_, 990)
    ));
    let new = chosen(&identity, root.clone(), allow);
    assert!(new.text("/etc/shadow").contains("\nagent:$6$"));
    assert_eq!(new.text("/etc/passwd"), passwd);
    for (name, id) in [("toor", 0), ("noone", 65534)] {
        let fault = plan(&with_key(name), &root, &with(allow)).err();
        assert!(
            matches!(fault, Some(PlanFault::SystemUser(_, uid)) if uid == id),
            "{name}"
        );
    }
}

#[test]
fn names_in_the_distributions_own_files_are_refused() {
    let mut root = Memory::of("fedora");
    for directory in ["/usr", "/usr/lib"] {
        root.directory(directory);
    }
    root.file(
        "/usr/lib/passwd",
        "core:x:1000:1000::/home/core:/bin/bash\n",
    );
    root.file("/usr/lib/group", "docker:x:1001:\n");
    for (name, words) in [
        ("core", "user 'core' (uid 1000) belongs to the system"),
        ("docker", "group 'docker' (gid 1001) belongs to the system"),
    ] {
        assert_eq!(refused(&with_key(name), &root).to_string(), words);
    }
    // Their ids are taken, too.
    let new = after(&with_key("ops"), root);
    assert!(new.text("/etc/passwd").contains("\nops:x:1002:1002:"));
}

#[test]
fn user_without_a_common_group_gets_one_of_its_own() {
    let mut root = Memory::of("alpine");
    root.file("/etc/login.defs", "USERGROUPS_ENAB no\n");
    let groups = root.text("/etc/group").replace("\nusers:", "\npeople:");
    root.file("/etc/group", &groups);
    let new = after(&with_key("ops"), root);
    assert!(new.text("/etc/group").ends_with("\nops:x:1000:\n"));
}

#[test]
fn lock_of_a_user_of_the_image_does_not_keep_its_keys_out() {
    for (old, new) in [
        ("!", "*"),
        ("!!", "*"),
        ("*", "*"),
        ("!$6$a$b", "!$6$a$b"),
        ("$6$a$b", "$6$a$b"),
    ] {
        let mut root = Memory::of("debian");
        let grow = |root: &mut Memory, path: &str, line: &str| {
            let grown = format!("{}{line}\n", root.text(path));
            root.put(path, Node::File(grown.into()), 0o640);
        };
        grow(
            &mut root,
            "/etc/passwd",
            "img:x:1000:1000::/home/img:/bin/bash",
        );
        grow(&mut root, "/etc/group", "img:x:1000:");
        grow(
            &mut root,
            "/etc/shadow",
            &format!("img:{old}:19000:0:99999:7:::"),
        );
        let made = chosen(&with_key("img"), root, Settings::DEFAULT);
        let line = format!("\nimg:{new}:19000:0:99999:7:::\n");
        assert!(made.text("/etc/shadow").ends_with(&line), "{old}");
    }
}

#[test]
fn shell_that_lets_nobody_in_is_noted() {
    let mut root = Memory::of("debian");
    for (shell, notes) in [
        ("/usr/sbin/nologin", &[Note::NoLoginShell][..]),
        ("/bin/false", &[Note::NoLoginShell]),
        // It was in the image once.
        ("/usr/bin/fish", &[Note::NoLoginShell]),
        ("/bin/bash", &[]),
        ("", &[]),
    ] {
        root.file(
            "/etc/passwd",
            &format!("img:x:1000:1000::/home/img:{shell}\n"),
        );
        assert_eq!(planned(&with_key("img"), &root).notes, notes, "{shell}");
    }
}

#[test]
fn password_of_root_is_locked_where_that_is_wanted() {
    let lock = Settings {
        lock_root: true,
        ..Settings::DEFAULT
    };
    let mut root = Memory::of("debian");
    let shadow = |first: &str| format!("{first}:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\n");
    let put = |root: &mut Memory, first: &str| {
        root.put("/etc/shadow", Node::File(shadow(first).into()), 0o640);
    };
    for (old, new) in [
        ("root:$6$a$b", "root:*LOCK*"),
        // No password at all is one that everybody knows.
        ("root:", "root:*LOCK*"),
        ("root:*", "root:*"),
        ("root:!$6$a$b", "root:!$6$a$b"),
    ] {
        put(&mut root, old);
        let made = chosen(&with_key("ops"), root.clone(), lock);
        let line = "ops:*:20414:0:99999:7:::\n";
        assert_eq!(made.text("/etc/shadow"), shadow(new) + line);
        // Nobody asked.
        let made = chosen(&with_key("ops"), root.clone(), Settings::DEFAULT);
        assert_eq!(made.text("/etc/shadow"), shadow(old) + line);
        // No user to make.
        let made = chosen(&identity("", &[]), root.clone(), lock);
        assert_eq!(made.text("/etc/shadow"), shadow(new));
    }
    put(&mut root, "root:$6$a$b");
    root.file(
        "/etc/passwd",
        "root:x:0:0::/root:/bin/sh\nimg:x:1000:1000::/:/bin/sh\n",
    );
    root.file(
        "/etc/shadow",
        &(shadow("root:$6$a$b") + "img:$6$c$d:1::::::\n"),
    );
    let made = chosen(&with_key("img"), root, lock);
    assert_eq!(
        made.text("/etc/shadow"),
        shadow("root:*LOCK*") + "img:$6$c$d:1::::::\n"
    );
}

const SCRIPT: &str = "<UserName>ops</UserName><CustomData>IyEvYmluL3No\nCmlk</CustomData>";

#[test]
fn custom_data_is_left_for_waagent_as_waagent_would_have_it() {
    let path = "/var/lib/waagent/CustomData";
    let identity = identity(SCRIPT, &[KEY]);
    let mut root = Memory::of("debian");
    assert!(
        !chosen(&identity, root.clone(), Settings::DEFAULT)
            .0
            .contains_key(path)
    );
    for (conf, wanted) in [
        ("", "IyEvYmluL3NoCmlk"),
        ("Provisioning.DecodeCustomData=n\n", "IyEvYmluL3NoCmlk"),
        ("Provisioning.DecodeCustomData=y\n", "#!/bin/sh\nid"),
    ] {
        root.file("/etc/waagent.conf", conf);
        let new = chosen(&identity, root.clone(), Settings::DEFAULT);
        assert_eq!(new.text(path), wanted);
        assert_eq!(new.looks(path), (0o600, (0, 0)));
        assert_eq!(new.looks("/var/lib/waagent"), (0o700, (0, 0)));
        assert_eq!(new.text("/var/lib/preroot/custom-data"), "#!/bin/sh\nid");
    }
}

#[test]
fn custom_data_runs_where_that_is_wanted_and_never_twice() {
    let run = Settings {
        run_custom_data: true,
        ..Settings::DEFAULT
    };
    let identity = identity(SCRIPT, &[KEY]);
    let mut root = Memory::of("debian");
    assert!(!planned(&identity, &root).run_custom_data);
    let made = |root: &Memory, vm_id| {
        let context = Context { vm_id, ..with(run) };
        plan(&identity, root, &context).ok().unwrap()
    };
    let first = made(&root, VM);
    assert!(first.run_custom_data);
    assert!(first.to_string().contains("\nrun     "), "{first}");
    root.apply(&first.changes);
    assert_eq!(root.looks(CUSTOM_DATA), (0o700, (0, 0)));

    // Nor where nothing else remembers.
    root.0.remove("/var/lib/preroot/configured");
    assert!(!made(&root, VM).run_custom_data);
    // Another machine from the same disk has data of its own.
    assert!(made(&root, "0f0f0f0f-0000-4000-8000-000000000001").run_custom_data);
}

#[test]
fn custom_data_that_is_no_script_does_not_run() {
    let run = Settings {
        run_custom_data: true,
        ..Settings::DEFAULT
    };
    // "#cloud-config"
    let data = "<UserName>ops</UserName><CustomData>I2Nsb3VkLWNvbmZpZw==</CustomData>";
    let root = Memory::of("debian");
    let plan = plan(&identity(data, &[KEY]), &root, &with(run))
        .ok()
        .unwrap();
    assert!(!plan.run_custom_data);
    assert_eq!(plan.notes, [Note::CustomDataNoScript]);
    let custom = plan
        .changes
        .iter()
        .find(|change| change.path == CUSTOM_DATA);
    assert_eq!(custom.unwrap().mode, 0o600);
}

#[test]
fn cloud_init_is_off_or_has_the_custom_data_and_nothing_else() {
    let left = Settings {
        cloud_init: true,
        ..Settings::DEFAULT
    };
    let (disabled, seed) = (
        "/etc/cloud/cloud-init.disabled",
        "/var/lib/cloud/seed/nocloud",
    );
    let mut root = Memory::of("debian");
    let script = identity(SCRIPT, &[KEY]);
    assert!(!chosen(&script, root.clone(), left).0.contains_key(seed));
    root.directory("/etc/cloud");
    root.file("/etc/cloud/cloud.cfg", "");
    let off = chosen(&script, root.clone(), Settings::DEFAULT);
    assert!(off.0.contains_key(disabled) && !off.0.contains_key(seed));
    // There is nothing for it to do.
    let none = chosen(&with_key("ops"), root.clone(), left);
    assert!(none.0.contains_key(disabled) && !none.0.contains_key(seed));

    // As a disk is found that was another machine's.
    root.file(disabled, "");
    let new = chosen(&script, root, left);
    assert!(!new.0.contains_key(disabled));
    assert_eq!(new.text(&format!("{seed}/user-data")), "#!/bin/sh\nid");
    assert_eq!(new.looks(&format!("{seed}/user-data")), (0o600, (0, 0)));
    assert_eq!(new.looks(seed), (0o700, (0, 0)));
    assert_eq!(
        new.text(&format!("{seed}/meta-data")),
        format!("instance-id: {VM}\nlocal-hostname: vm-demo01\n")
    );
    let rules = new.text("/etc/cloud/cloud.cfg.d/99-preroot.cfg");
    assert!(rules.contains("\ndatasource_list: [NoCloud]\n"));
}
