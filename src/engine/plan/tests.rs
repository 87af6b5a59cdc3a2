//! Plans for roots in memory, made from real distributions' account files.

mod credentials;
mod markers;
mod settings;
mod sshd;
mod users;

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
