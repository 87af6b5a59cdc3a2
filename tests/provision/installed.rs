//! Installed systems as roots: the lab's Debian, with its own account files or with another
//! distribution's, and programs of that root that look at what was made of it.

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lab::debian::{self, Flavour};
use lab::fetch::Lab;
use rustix::mount::MountPropagationFlags;

use crate::machine::{HOST_NAME, Machine, each_file, on_root, tmpfs};
use crate::namespace::{is_strict, skipped};

/// What one distribution has of its own.
pub(crate) struct Distribution {
    /// The folder below `tests/data/roots/installed`; Debian's files come with Debian.
    pub(crate) name: &'static str,
    /// The group whose members may do everything.
    pub(crate) administrators: &'static str,
    /// The shell that users get.
    pub(crate) shell: &'static str,
    /// The mode of a new home.
    pub(crate) home_mode: u32,
    /// Whether there are ranges of subordinate ids.
    pub(crate) has_subids: bool,
    /// A file of `/etc/skel`, if there is one.
    pub(crate) skel: Option<&'static str>,
}

pub(crate) const DEBIAN: Distribution = Distribution {
    name: "debian",
    administrators: "sudo",
    shell: "/bin/bash",
    home_mode: 0o755,
    has_subids: true,
    skel: Some(".bashrc"),
};

pub(crate) const FEDORA: Distribution = Distribution {
    name: "fedora",
    administrators: "wheel",
    shell: "/bin/bash",
    home_mode: 0o700,
    has_subids: true,
    skel: Some(".bash_profile"),
};

pub(crate) const ALPINE: Distribution = Distribution {
    name: "alpine",
    administrators: "wheel",
    shell: "/bin/ash",
    home_mode: 0o700,
    has_subids: false,
    skel: None,
};

pub(crate) const ARCH: Distribution = Distribution {
    name: "arch",
    administrators: "wheel",
    shell: "/bin/bash",
    home_mode: 0o700,
    has_subids: true,
    skel: Some(".bash_profile"),
};

/// What of Debian's goes when another distribution's files come.
const REPLACED: [&str; 13] = [
    "default/useradd",
    "group",
    "group-",
    "gshadow",
    "gshadow-",
    "login.defs",
    "passwd",
    "passwd-",
    "shadow",
    "shadow-",
    "subgid",
    "subuid",
    "sudoers",
];

/// The programs of a root, run inside it.
pub(crate) struct Inside {
    root: PathBuf,
}

/// Runs a test on a machine whose root is this distribution's.
pub(crate) fn on_installed(distribution: &Distribution, body: impl FnOnce(&Machine, &Inside)) {
    on_root(body, |body, machine| {
        if !install(Flavour::Plain, machine) {
            return;
        }
        if distribution.name != DEBIAN.name {
            become_other(&machine.root(), distribution);
        }
        let inside = Inside::enter(machine);
        inside.checkers_are_silent();
        body(machine, &inside);
    });
}

/// Runs a test on a machine whose root is a Debian of the lab's.
pub(crate) fn on_debian(flavour: Flavour, body: impl FnOnce(&Machine)) {
    on_root(body, |body, machine| {
        if install(flavour, machine) {
            body(machine);
        }
    });
}

/// Gives a machine a Debian for its root, or says why the test that needs it is skipped.
pub(crate) fn install(flavour: Flavour, machine: &Machine) -> bool {
    let Some(archive) = debian::made(&Lab::open().unwrap(), flavour) else {
        let missing = format!(
            "no installed Debian is there; `cargo lab fetch {}` makes one",
            flavour.name()
        );
        // Set by whoever has found that none can be made, and has said so.
        let is_known = env::var_os("PREROOT_WITHOUT_DEBIAN").is_some();
        assert!(is_known || !is_strict(), "{missing}");
        skipped(&missing);
        return false;
    };
    fs::create_dir(machine.root()).unwrap();
    // Programs inside ask how their root is mounted.
    tmpfs(machine.root());
    debian::unpack(&archive, &machine.root()).unwrap();
    true
}

/// Puts another distribution's files in the place of Debian's.
fn become_other(root: &Path, distribution: &Distribution) {
    let etc = root.join("etc");
    for path in REPLACED {
        let _ = fs::remove_file(etc.join(path));
    }
    for directory in ["skel", "ssh/sshd_config.d", "sudoers.d"] {
        fs::remove_dir_all(etc.join(directory)).unwrap();
    }
    fs::remove_file(etc.join("os-release")).unwrap();
    fs::create_dir_all(etc.join("sudoers.d")).unwrap();
    fs::create_dir_all(etc.join("ssh/sshd_config.d")).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/roots/installed")
        .join(distribution.name);
    each_file(&from.join("etc"), &mut |path, data| {
        let to = root.join(path.strip_prefix(&from).unwrap());
        if data.is_dir() {
            fs::create_dir_all(to).unwrap();
        } else {
            fs::write(&to, fs::read(path).unwrap()).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).unwrap();
        }
    });
    for line in fs::read_to_string(from.join("rights")).unwrap().lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let path = root.join(fields[3]);
        let (uid, gid) = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
        chown(&path, Some(uid), Some(gid)).unwrap();
        let mode = u32::from_str_radix(fields[0], 8).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // The names that these lists have for programs.
    symlink("../sbin/nologin", root.join("usr/bin/nologin")).unwrap();
    if distribution.shell == "/bin/ash" {
        fs::remove_file(root.join("usr/bin/bash")).unwrap();
        symlink("dash", root.join("usr/bin/ash")).unwrap();
    }
    // Homes of the system's own accounts, so that nobody complains of them.
    for line in fs::read_to_string(etc.join("passwd")).unwrap().lines() {
        let home = line.split(':').nth(5).unwrap().trim_start_matches('/');
        if !home.starts_with("dev/") && !home.starts_with("run/") {
            fs::create_dir_all(root.join(home)).unwrap();
        }
    }
}

impl Inside {
    /// Makes the root a place where its programs can run; nothing of that is seen in the root itself.
    pub(crate) fn enter(machine: &Machine) -> Self {
        let root = machine.place().join("inside");
        fs::create_dir(&root).unwrap();
        rustix::mount::mount_bind(machine.root(), &root).unwrap();
        rustix::mount::mount_change(&root, MountPropagationFlags::PRIVATE).unwrap();
        for path in ["dev", "run", "tmp", "var/lib/sudo", "var/log"] {
            tmpfs(root.join(path));
        }
        rustix::mount::mount_bind_recursive("/proc", root.join("proc")).unwrap();
        for node in ["null", "zero", "full", "random", "urandom", "tty"] {
            let to = root.join("dev").join(node);
            fs::write(&to, "").unwrap();
            rustix::mount::mount_bind(Path::new("/dev").join(node), &to).unwrap();
        }
        // Azure's DNS knows the machine's name; there is none here.
        let hosts = machine.place().join("hosts");
        fs::write(&hosts, format!("127.0.0.1 localhost {HOST_NAME}\n")).unwrap();
        rustix::mount::mount_bind(&hosts, root.join("etc/hosts")).unwrap();
        // Where this distribution, and the others, have what their services make for themselves.
        for path in ["sshd", "sssd", "ircd"] {
            fs::create_dir(root.join("run").join(path)).unwrap();
        }
        Self { root }
    }

    /// Lets the root see a directory of ours.
    pub(crate) fn lay(&self, directory: &str, at: &str) {
        let to = self.root.join(at.trim_start_matches('/'));
        fs::create_dir_all(&to).unwrap();
        rustix::mount::mount_bind(directory, &to).unwrap();
    }

    /// Runs a program of the root as its root, with this on its standard input.
    pub(crate) fn run(&self, command: &[&str], input: &str) -> Output {
        // A machine knows its own name.
        let mut child = Command::new("unshare")
            .args(["--uts", "--", "chroot"])
            .arg(&self.root)
            .args([
                "/bin/sh",
                "-c",
                "hostname -F /etc/hostname; exec \"$@\"",
                "sh",
            ])
            .args(command)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever does not read it says so by failing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Runs a program of the root that must succeed and complain of nothing; gives what it said.
    #[track_caller]
    pub(crate) fn tell(&self, command: &[&str], input: &str) -> String {
        let output = self.run(command, input);
        let complaints = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && complaints.is_empty(),
            "{command:?}: {}\n{said}{complaints}",
            output.status
        );
        said.into_owned()
    }

    /// Runs a shell's line as a user, as after a login.
    #[track_caller]
    pub(crate) fn tell_as(&self, user: &str, line: &str, input: &str) -> String {
        self.tell(&["su", "-", user, "-c", line], input)
    }

    /// Tells whether a user who is nobody in particular becomes this user with this password.
    pub(crate) fn is_password(&self, user: &str, password: &str) -> bool {
        let command = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        let rest = ["su", user, "-c", "id -un"];
        let output = self.run(&[&command[..], &rest].concat(), &format!("{password}\n"));
        let said = String::from_utf8_lossy(&output.stdout);
        output.status.success() && said.trim() == user
    }

    /// Checks that what looks after accounts, sudo and sshd finds nothing to say.
    #[track_caller]
    pub(crate) fn checkers_are_silent(&self) {
        for command in [&["pwck", "-r"][..], &["grpck", "-r"], &["sshd", "-t"]] {
            assert_eq!(self.tell(command, ""), "", "{command:?}");
        }
        // It says that all is well, a line for each file.
        let said = self.tell(&["visudo", "-c"], "");
        assert!(
            said.lines().all(|line| line.ends_with(": parsed OK")) && !said.is_empty(),
            "{said}"
        );
    }

    /// Asks sshd for a setting as it is for this user who comes from the network.
    #[track_caller]
    pub(crate) fn sshd_setting(&self, user: &str, name: &str) -> String {
        let who = format!("user={user},host=client.example,addr=203.0.113.7");
        let said = self.tell(&["sshd", "-T", "-C", &who], "");
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {said}"))
            .to_owned()
    }
}
