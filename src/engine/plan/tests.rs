//! Plans for roots in memory, made from real distributions' account files.

mod credentials;
mod settings;
mod sshd;

use super::*;
use crate::wire::ovf;
use std::collections::BTreeMap;
use std::path::Path;
use std::string::ToString as _;
use std::{format, fs, vec};

const VM: &str = "91267c52-9f02-4cfe-b1f4-a4da7ebac2cf";
const PASSWORD: &str = "Not-A-Real-1!pw";
const KEY: &str = include_str!("../../../tests/data/sshkey/ed25519.pub");
const RSA: &str = include_str!("../../../tests/data/sshkey/rsa.pub");

#[derive(Clone, PartialEq, Debug)]
enum Node {
    File(Vec<u8>),
    Directory,
    Link,
}

/// A root that is only a map; links are not followed, only known.
#[derive(Clone, PartialEq, Debug, Default)]
struct Memory(BTreeMap<String, (Node, u32, (u32, u32))>);

impl Memory {
    /// Loads a folder of `tests/data/roots`, with the modes that such files have.
    fn of(distribution: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/roots")
            .join(distribution);
        let mut root = Self::default();
        root.directory("/");
        let mut pending = vec![folder.clone()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let from = entry.unwrap().path();
                let path = format!("/{}", from.strip_prefix(&folder).unwrap().display());
                if from.is_dir() {
                    root.directory(&path);
                    pending.push(from);
                } else {
                    root.file(&path, &fs::read_to_string(&from).unwrap());
                }
            }
        }
        let shadow = if distribution == "debian" {
            (0o640, (0, 42))
        } else {
            (0o000, (0, 0))
        };
        for path in ["/etc/shadow", "/etc/gshadow"] {
            if let Some((_, mode, owner)) = root.0.get_mut(path) {
                (*mode, *owner) = shadow;
            }
        }
        root.directory("/home");
        root.directory("/var");
        root.directory("/var/lib");
        root.directory("/etc/sudoers.d");
        let shell = if distribution == "alpine" {
            "/bin/ash"
        } else {
            "/bin/bash"
        };
        root.put(shell, Node::File(Vec::new()), 0o755);
        root.put("/bin/sh", Node::File(Vec::new()), 0o755);
        root
    }

    fn put(&mut self, path: &str, node: Node, mode: u32) {
        self.0.insert(path.into(), (node, mode, (0, 0)));
    }

    fn file(&mut self, path: &str, content: &str) {
        self.put(path, Node::File(content.into()), 0o644);
    }

    fn directory(&mut self, path: &str) {
        self.put(path, Node::Directory, 0o755);
    }

    fn text(&self, path: &str) -> &str {
        match &self
            .0
            .get(path)
            .unwrap_or_else(|| panic!("{path} is there"))
            .0
        {
            Node::File(content) => core::str::from_utf8(content).unwrap(),
            other => panic!("{path} is {other:?}"),
        }
    }

    fn looks(&self, path: &str) -> (u32, (u32, u32)) {
        let (_, mode, owner) = self
            .0
            .get(path)
            .unwrap_or_else(|| panic!("{path} is there"));
        (*mode, *owner)
    }

    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let parent = change.path.rsplit_once('/').unwrap().0;
            let above = self.0.get(if parent.is_empty() { "/" } else { parent });
            assert_eq!(
                above.map(|node| &node.0),
                Some(&Node::Directory),
                "{}",
                change.path
            );
            let node = match &change.action {
                Action::Write(content) => Node::File(content.to_vec()),
                Action::Directory => Node::Directory,
                Action::Remove => {
                    self.0.remove(&change.path);
                    continue;
                }
            };
            self.0
                .insert(change.path.clone(), (node, change.mode, change.owner));
        }
    }
}

impl RootView for Memory {
    fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, RootFault> {
        match self.0.get(path) {
            None => Ok(None),
            Some((Node::File(content), ..)) if content.len() <= limit => Ok(Some(content.clone())),
            Some((Node::File(_), ..)) => Err(RootFault {
                act: Act::ReadLarge,
                errno: 0,
            }),
            Some(_) => Err(RootFault {
                act: Act::WrongKind,
                errno: 0,
            }),
        }
    }

    fn stat(&self, path: &str) -> Result<Option<Stat>, RootFault> {
        Ok(self.0.get(path).map(|(node, mode, owner)| Stat {
            kind: match node {
                Node::File(_) => Kind::File,
                Node::Directory => Kind::Directory,
                Node::Link => Kind::Other,
            },
            mode: *mode,
            owner: *owner,
            size: if let Node::File(content) = node {
                content.len() as u64
            } else {
                0
            },
            device: 1,
        }))
    }

    fn is_link(&self, path: &str) -> Result<bool, RootFault> {
        Ok(matches!(self.0.get(path), Some((Node::Link, ..))))
    }

    fn target(&self, path: &str) -> Result<Option<String>, RootFault> {
        Ok(self.is_link(path)?.then(|| "elsewhere".into()))
    }

    fn list(&self, directory: &str, each: &mut dyn FnMut(&str)) -> Result<(), RootFault> {
        for path in self.0.keys() {
            if let Some(rest) = path
                .strip_prefix(directory)
                .and_then(|rest| rest.strip_prefix('/'))
                && !rest.contains('/')
            {
                each(rest);
            }
        }
        Ok(())
    }
}

/// An identity with these elements in its document.
fn identity(elements: &str, keys: &[&str]) -> Identity {
    let mut list = String::new();
    for key in keys {
        list.push_str("<PublicKey><Value>");
        list.push_str(key);
        list.push_str("</Value></PublicKey>");
    }
    let document = format!(
        r#"<Environment xmlns:wa="http://schemas.microsoft.com/windowsazure"
            xmlns="http://schemas.microsoft.com/windowsazure"><ProvisioningSection>
            <LinuxProvisioningConfigurationSet><HostName>vm-demo01</HostName>{elements}
            <SSH><PublicKeys>{list}</PublicKeys></SSH></LinuxProvisioningConfigurationSet>
            </ProvisioningSection><PlatformSettingsSection><PlatformSettings/>
            </PlatformSettingsSection></Environment>"#
    );
    Identity::new(
        Some(ovf::parse(document.as_bytes()).unwrap_or_else(|fault| panic!("{fault}"))),
        None,
    )
    .unwrap_or_else(|fault| panic!("{fault}"))
}

fn with_key(user: &str) -> Identity {
    identity(&format!("<UserName>{user}</UserName>"), &[KEY])
}

fn with_password(user: &str) -> Identity {
    let elements = format!("<UserName>{user}</UserName><UserPassword>{PASSWORD}</UserPassword>");
    identity(&elements, &[])
}

const CONTEXT: Context<'static> = Context {
    vm_id: VM,
    today_days: 20_414,
    salt: [7; 16],
    host_key_seed: Some(&[9; 32]),
    steps: Steps::ALL,
    settings: Settings::DEFAULT,
    output: Output::Files,
};

fn planned(identity: &Identity, root: &Memory) -> Plan {
    plan(identity, root, &CONTEXT).unwrap_or_else(|fault| panic!("{fault}"))
}

fn refused(identity: &Identity, root: &Memory) -> PlanFault {
    plan(identity, root, &CONTEXT)
        .err()
        .expect("there is no plan")
}

/// Applies the plan for an identity.
fn after(identity: &Identity, mut root: Memory) -> Memory {
    let plan = planned(identity, &root);
    root.apply(&plan.changes);
    root
}

/// Checks that one line was added and nothing else changed.
#[track_caller]
fn assert_grown(old: &Memory, new: &Memory, path: &str, line: &str) {
    assert_eq!(
        new.text(path),
        format!("{}{line}\n", old.text(path)),
        "{path}"
    );
}

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

fn with_nothing(user: &str) -> Identity {
    identity(&format!("<UserName>{user}</UserName>"), &[])
}

#[test]
fn root_without_accounts_is_refused() {
    let mut root = Memory::of("debian");
    root.0.remove("/etc/passwd");
    assert_eq!(refused(&with_key("ops"), &root), PlanFault::NoAccounts(""));
    root.file("/usr/lib/passwd", "root:x:0:0::/:/bin/sh\n");
    assert_eq!(
        refused(&with_key("ops"), &root).to_string(),
        "/etc/passwd is missing in the root: its accounts are in /usr/lib/passwd"
    );
    root.file("/ostree/repo", "");
    assert_eq!(
        refused(&with_key("ops"), &root).to_string(),
        "/etc/passwd is missing in the root: it is an ostree without its deployment"
    );
    let mut root = Memory::of("debian");
    root.file("/etc/passwd", "root:x:0:0::/:/bin/sh\nops:x:1000\n");
    assert_eq!(
        refused(&with_key("ops"), &root),
        PlanFault::DamagedLine("/etc/passwd")
    );
}

#[test]
fn without_a_user_the_host_name_and_markers_are_all() {
    let identity = identity("<UserName/>", &[KEY]);
    let plan = planned(&identity, &Memory::of("debian"));
    let paths: Vec<_> = plan
        .changes
        .iter()
        .map(|change| change.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "/etc/hostname",
            "/var/lib/preroot",
            "/var/lib/preroot/configured"
        ]
    );
    assert_eq!(plan.notes, [Note::NoUser]);
}

#[test]
fn plan_of_an_applied_plan_is_empty() {
    for distribution in ["debian", "alpine", "fedora"] {
        for identity in [with_key("ops"), with_password("ops")] {
            let root = after(&identity, Memory::of(distribution));
            assert!(planned(&identity, &root).is_empty());
            assert_eq!(planned(&identity, &root).to_string(), "nothing to change\n");
        }
    }
}

#[test]
fn without_the_marker_an_applied_plan_differs_in_nothing() {
    for distribution in ["debian", "alpine", "fedora"] {
        let mut root = after(&with_key("ops"), Memory::of(distribution));
        root.0.remove("/var/lib/preroot/configured");
        let plan = planned(&with_key("ops"), &root);
        let paths: Vec<_> = plan
            .changes
            .iter()
            .map(|change| change.path.as_str())
            .collect();
        assert_eq!(paths, ["/var/lib/preroot/configured"], "{distribution}");
    }
}

#[test]
fn interrupted_after_any_change_the_next_plan_finishes_the_work() {
    for (distribution, identity) in [
        ("debian", with_password("ops")),
        ("alpine", with_key("ops")),
        ("fedora", with_key("ops")),
        ("fedora", with_key("fedora")),
    ] {
        let fresh = Memory::of(distribution);
        let whole = after(&identity, fresh.clone());
        let first = planned(&identity, &fresh);
        for cut in 0..first.changes.len() {
            let mut root = fresh.clone();
            root.apply(&first.changes[..cut]);
            // A file may have been half written under its temporary name.
            let (parent, name) = first.changes[cut].path.rsplit_once('/').unwrap();
            let half = format!("{parent}/{TEMPORARY}{name}");
            if matches!(first.changes[cut].action, Action::Write(_)) {
                root.file(&half, "ha");
            }
            assert_eq!(
                configured_for(&root).unwrap(),
                None,
                "{distribution} cut at {cut}"
            );
            let mut root = after(&identity, root);
            root.0.remove(&half);
            for (path, node) in &whole.0 {
                assert_eq!(
                    root.0.get(path),
                    Some(node),
                    "{distribution} cut at {cut}: {path}"
                );
            }
            assert_eq!(root.0.len(), whole.0.len(), "{distribution} cut at {cut}");
        }
    }
}

#[test]
fn another_vm_id_is_provisioned_again() {
    let root = after(&with_key("ops"), Memory::of("debian"));
    assert_eq!(configured_for(&root).unwrap().as_deref(), Some(VM));
    let context = Context {
        vm_id: "another",
        ..CONTEXT
    };
    let plan = plan(&with_key("next"), &root, &context).ok().unwrap();
    assert!(
        plan.changes
            .iter()
            .any(|change| change.path == "/home/next")
    );
    let upper = VM.to_uppercase();
    let context = Context {
        vm_id: &upper,
        ..CONTEXT
    };
    assert!(
        super::plan(&with_key("next"), &root, &context)
            .ok()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn no_path_is_changed_twice() {
    for (distribution, user) in [("debian", "ops"), ("alpine", "ops"), ("fedora", "fedora")] {
        let mut root = Memory::of(distribution);
        // A hash in passwd makes the plan touch that line, too.
        let passwd = root
            .text("/etc/passwd")
            .replace("fedora:x:", "fedora:$1$x$y:");
        root.file("/etc/passwd", &passwd);
        let plan = planned(&with_password(user), &root);
        let mut paths: Vec<_> = plan.changes.iter().map(|change| &change.path).collect();
        paths.sort();
        let count = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), count, "{distribution}");
    }
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
fn marker_that_is_none_is_replaced() {
    let mut root = Memory::of("debian");
    root.directory("/var/lib/preroot");
    root.file("/var/lib/preroot/configured", &"\0".repeat(4096));
    let new = after(&with_key("ops"), root);
    assert_eq!(configured_for(&new).unwrap().as_deref(), Some(VM));
}

#[test]
fn configured_is_the_last_change() {
    for distribution in ["debian", "alpine", "fedora"] {
        let plan = planned(&with_key("ops"), &Memory::of(distribution));
        assert_eq!(
            plan.changes.last().unwrap().path,
            "/var/lib/preroot/configured"
        );
    }
}

#[test]
fn notes_are_left_even_where_nothing_was_configured() {
    let mut root = Memory::of("debian");
    root.apply(&notes(None, b"{}".to_vec()).changes);
    assert_eq!(reported_for(&root).unwrap(), None);
    root.apply(&notes(Some(VM), b"{}".to_vec()).changes);
    assert_eq!(reported_for(&root).unwrap().as_deref(), Some(VM));
    assert_eq!(configured_for(&root).unwrap(), None);
}

#[test]
fn steps_that_are_left_out_change_nothing() {
    let root = Memory::of("debian");
    let identity = with_key("ops");
    let paths = |list: &str| -> Vec<String> {
        let context = Context {
            steps: Steps::parse(list).unwrap(),
            ..CONTEXT
        };
        let plan = plan(&identity, &root, &context).ok().unwrap();
        plan.changes.into_iter().map(|change| change.path).collect()
    };
    assert_eq!(paths("hostname"), ["/etc/hostname"]);
    assert_eq!(
        paths("keys,sudo,password"),
        [""; 0],
        "there is no such user to change"
    );
    let all = paths("hostname,user,password,keys,markers");
    assert!(all.iter().all(|path| !path.contains("sudoers")));
    assert!(paths("user").iter().all(|path| !path.contains(".ssh")));
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

/// A Debian with all the agents whose work is done for them.
fn with_agents() -> Memory {
    let mut root = Memory::of("debian");
    for path in [
        "/usr/sbin/waagent",
        "/usr/bin/cloud-init",
        "/usr/bin/azure-init",
    ] {
        root.file(path, "");
    }
    root
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
fn other_agents_find_their_work_done() {
    let mut root = with_agents();
    root.directory("/etc/cloud");
    let mut identity = with_password("ops");
    identity.guest_agent = false;
    let new = after(&identity, root);
    assert_eq!(new.text("/var/lib/waagent/provisioned"), VM);
    assert_eq!(new.text("/var/lib/waagent/published_hostname"), "vm-demo01");
    assert_eq!(new.looks("/var/lib/waagent"), (0o700, (0, 0)));
    assert_eq!(new.text("/var/lib/waagent/disable_agent"), "");
    assert_eq!(new.text("/etc/cloud/cloud-init.disabled"), "");
    let marker = format!("/var/lib/azure-init/{VM}.provisioned");
    assert_eq!(new.looks(&marker), (0o600, (0, 0)));

    let copy = ovf::parse(new.text("/var/lib/waagent/ovf-env.xml").as_bytes())
        .ok()
        .unwrap();
    assert_eq!(copy.host_name, "vm-demo01");
    assert_eq!(copy.user_name.as_deref(), Some("ops"));
    assert!(matches!(copy.password, ovf::Password::Redacted));
    assert_eq!(copy.disable_password_authentication, Some(false));
    assert!(!copy.guest_agent && copy.public_keys.is_empty() && copy.custom_data.is_none());
}

#[test]
fn what_the_platform_said_of_another_vm_is_gone_on_the_next() {
    let data = "<UserName>ops</UserName><CustomData>aGVsbG8=</CustomData>";
    let mut first = identity(data, &[KEY]);
    first.guest_agent = false;
    let root = after(&first, with_agents());
    let stale = [
        "/var/lib/preroot/custom-data",
        "/var/lib/waagent/CustomData",
        "/var/lib/waagent/disable_agent",
    ];
    assert!(stale.iter().all(|path| root.0.contains_key(*path)));
    // Without its marker it is the same machine, whose disc is gone.
    let mut unmarked = root.clone();
    unmarked.0.remove("/var/lib/preroot/configured");
    let unmarked = after(&with_key("ops"), unmarked);
    assert!(stale.iter().all(|path| unmarked.0.contains_key(*path)));
    // Nor is it another that is provisioned on each boot.
    let context = Context {
        output: Output::Credentials { etc: true },
        ..CONTEXT
    };
    let again = plan(&with_key("ops"), &root, &context).ok().unwrap();
    let mut changes = again.changes.iter();
    assert!(changes.all(|change| !stale.contains(&change.path.as_str())));
    // Custom data that cannot be read is none.
    let bad = "<UserName>ops</UserName><CustomData>!</CustomData>";
    for identity in [with_key("ops"), identity(bad, &[KEY])] {
        let context = Context {
            vm_id: "another",
            ..CONTEXT
        };
        let plan = plan(&identity, &root, &context).ok().unwrap();
        let mut next = root.clone();
        next.apply(&plan.changes);
        assert!(stale.iter().all(|path| !next.0.contains_key(*path)));
        assert_eq!(next.text("/var/lib/waagent/provisioned"), "another");
    }
}

#[test]
fn agents_that_are_not_there_get_no_files() {
    let new = after(&with_key("ops"), Memory::of("debian"));
    assert!(
        new.0
            .keys()
            .all(|path| !path.contains("waagent") && !path.contains("cloud"))
    );
}

#[test]
fn custom_data_is_kept_decoded_for_root_only() {
    let data = "<UserName>ops</UserName><CustomData>aGVs bG8=</CustomData>";
    let new = after(&identity(data, &[KEY]), Memory::of("debian"));
    assert_eq!(new.text("/var/lib/preroot/custom-data"), "hello");
    assert_eq!(new.looks("/var/lib/preroot/custom-data"), (0o600, (0, 0)));
    let bad = "<UserName>ops</UserName><CustomData>#cloud-config</CustomData>";
    let plan = planned(&identity(bad, &[KEY]), &Memory::of("debian"));
    assert_eq!(plan.notes, [Note::CustomDataNotBase64]);
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

#[test]
fn dry_run_reads_as_a_person_wants_it() {
    let mut root = Memory::of("alpine");
    root.file("/etc/hostname", "vm-demo01\n");
    let identity = identity("<UserName>ops</UserName>", &["ssh-dss AAAA", KEY]);
    assert_eq!(
        planned(&identity, &root).to_string(),
        "\
write  0644     0:0      /etc/group  (add group ops, add ops to wheel, add ops to adm)
mkdir  0700  1000:1000   /home/ops  (home of ops)
mkdir  0700  1000:1000   /home/ops/.ssh  (keys of ops)
write  0600  1000:1000   /home/ops/.ssh/authorized_keys  (1 public keys for ops)
write  0000     0:0      /etc/shadow  (lock the password of ops)
write  0644     0:0      /etc/passwd  (add user ops: uid 1000, gid 1000, home /home/ops, shell /bin/ash)
mkdir  0700     0:0      /var/lib/preroot  (state of preroot)
write  0600     0:0      /var/lib/preroot/configured  (configured for VM 91267c52-9f02-4cfe-b1f4-a4da7ebac2cf)
note: public key 1 is left out: type 'ssh-dss' is not supported
note: neither sudo nor doas is installed: the user will not become root
"
    );
}

#[test]
fn root_faults_say_what_and_why() {
    let fault = PlanFault::Root(
        "/etc/passwd",
        RootFault {
            act: Act::Write,
            errno: 30,
        },
    );
    assert_eq!(
        fault.to_string(),
        "/etc/passwd: it cannot be written (read-only file system)"
    );
}
