//! What the hooks do in an initramfs: below a root of its own that has busybox, the stand-in and the
//! hooks, and nothing else.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lab::fetch::Lab;
use lab::install::{self, Generator};

use super::{Place, stand_in};

/// Runs words of busybox below a root; `None`, with a word, where nothing gives us the right to.
///
/// Where skipping is not allowed (`CI`, `PREROOT_STRICT`) it fails instead.
pub(super) fn below(
    lab: &Lab,
    root: &Path,
    words: &[&str],
    variables: &[(&str, &str)],
) -> Option<Output> {
    let bin = root.join("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        fs::copy(lab.tool("busybox").unwrap().program(), bin.join("busybox")).unwrap();
        // dracut's images have little more than a shell; build hooks have a system.
        let applets: &[&str] = if root.join("usr/share/initramfs-tools").exists() {
            &["sh", "ash", "cp", "mkdir"]
        } else {
            &["sh", "ash"]
        };
        for applet in applets {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        write_anew(root);
    }
    let unshare = lab.tool("unshare").unwrap();
    let run = |words: &[&str]| {
        let mut command = unshare.command();
        command
            .args(["--map-root-user", "--user"])
            .arg(format!("--root={}", root.display()))
            .args(["/bin/busybox"])
            .args(words)
            .env_clear()
            .env("PATH", "/bin")
            .envs(variables.iter().copied());
        command.output().unwrap()
    };
    let allowed = run(&["sh", "-c", ":"]);
    if !allowed.status.success() {
        let why = String::from_utf8_lossy(&allowed.stderr).into_owned();
        let strict = ["CI", "PREROOT_STRICT"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        assert!(!strict, "no user namespace to be had: {why}");
        let _ = writeln!(io::stderr(), "skipped: no user namespace to be had: {why}");
        return None;
    }
    Some(run(words))
}

/// Has another process write all the files of a tree.
///
/// What another test starts while this process has a file open for writing has it open too, until it
/// becomes another program; the kernel runs no file that somebody writes.
fn write_anew(tree: &Path) {
    let made = tree.with_extension("made");
    fs::rename(tree, &made).unwrap();
    let copy = Command::new("cp").arg("-a").arg(&made).arg(tree).status();
    assert!(copy.unwrap().success());
    fs::remove_dir_all(&made).unwrap();
}

/// An initramfs in which the hooks run.
struct Initramfs {
    lab: Lab,
    place: Place,
}

impl Initramfs {
    fn new(name: &str) -> Self {
        let lab = Lab::open().unwrap();
        let place = Place::new(name);
        let image = Self { lab, place };
        let all = image.place.0.join("all");
        install::lay(
            image.lab.project(),
            &stand_in(&image.lab),
            &Generator::ALL,
            &all,
            false,
        )
        .unwrap();
        let root = image.root();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir(root.join("proc")).unwrap();
        // The shell reads from it for what runs beside it.
        fs::create_dir(root.join("dev")).unwrap();
        fs::write(root.join("dev/null"), "").unwrap();
        fs::rename(all.join("usr/bin/preroot"), root.join("usr/bin/preroot")).unwrap();
        fs::create_dir(root.join("hooks")).unwrap();
        for (from, to) in [
            ("initcpio/hooks/preroot", "mkinitcpio"),
            ("dracut/modules.d/55preroot/preroot-prefetch.sh", "prefetch"),
            (
                "dracut/modules.d/55preroot/preroot-provision.sh",
                "provision",
            ),
            ("dracut/modules.d/55preroot/preroot-failed.sh", "failed"),
        ] {
            fs::rename(all.join("usr/lib").join(from), root.join("hooks").join(to)).unwrap();
        }
        fs::rename(
            all.join("usr/share/initramfs-tools/scripts"),
            root.join("scripts"),
        )
        .unwrap();
        fs::create_dir(root.join("conf")).unwrap();
        image
    }

    fn root(&self) -> PathBuf {
        self.place.0.join("root")
    }

    /// Has the program end with this code from now on.
    fn ends_with(self, code: u8) -> Self {
        fs::write(self.root().join("code"), format!("{code}\n")).unwrap();
        self
    }

    /// Makes the kernel one that saves a crash.
    fn after_a_crash(self) -> Self {
        fs::write(self.root().join("proc/vmcore"), "").unwrap();
        self
    }

    /// Runs a script as init would, to its end, and tells how the program was called.
    fn run(&self, script: &str) -> Option<Vec<String>> {
        let calls = self.root().join("calls");
        let _ = fs::remove_file(&calls);
        // What init would do next; `wait` is for what runs beside it. `-u` finds variables that
        // nobody has set.
        let script = format!("set -u\n{script}\nwait\necho went on");
        let output = below(&self.lab, &self.root(), &["ash", "-c", &script], &[])?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (&*said, &*complained, output.status.code()),
            ("went on\n", "", Some(0)),
            "{script}"
        );
        let calls = fs::read_to_string(calls).unwrap_or_default();
        Some(calls.lines().map(str::to_owned).collect())
    }
}

/// What a generator's init does to reach a hook, and how the program should be called then.
const HOOKS: [(&str, &str, &str); 9] = [
    (
        "mkinitcpio, prefetch",
        "break=; . /hooks/mkinitcpio; run_hook",
        "prefetch",
    ),
    (
        "mkinitcpio, provision",
        "break=; . /hooks/mkinitcpio; run_latehook",
        "provision --root /new_root",
    ),
    (
        "mkinitcpio, failed",
        "break=; . /hooks/mkinitcpio; run_emergencyhook",
        "report failed --reason ",
    ),
    (
        "dracut, prefetch",
        "NEWROOT=/sysroot; . /hooks/prefetch",
        "prefetch",
    ),
    (
        "dracut, provision",
        "NEWROOT=/sysroot; . /hooks/provision",
        "provision --root /sysroot",
    ),
    (
        "dracut, failed",
        "getarg() { return 1; }; . /hooks/failed",
        "report failed --reason ",
    ),
    (
        "initramfs-tools, prefetch",
        "export rootmnt=/root break= panic=; /scripts/init-top/preroot",
        "prefetch",
    ),
    (
        "initramfs-tools, provision",
        "export rootmnt=/root break= panic=; /scripts/local-bottom/preroot",
        "provision --root /root",
    ),
    (
        "initramfs-tools, failed",
        "export rootmnt=/root break= panic=; /scripts/panic/preroot",
        "report failed --reason ",
    ),
];

#[test]
fn every_hook_calls_the_program_once_and_as_it_should() {
    let image = Initramfs::new("calls");
    for (name, script, expected) in HOOKS {
        let Some(calls) = image.run(script) else {
            return;
        };
        assert_eq!(calls.len(), 1, "{name}: {calls:?}");
        if expected.ends_with(' ') {
            assert!(calls[0].starts_with(expected), "{name}: {calls:?}");
        } else {
            assert_eq!(calls[0], expected, "{name}");
        }
    }
}

#[test]
fn boot_goes_on_whatever_the_program_ends_with() {
    for code in [99, 100, 111, 137] {
        let image = Initramfs::new(&format!("code-{code}")).ends_with(code);
        for (_, script, _) in HOOKS {
            // With `set -e` a hook that fails would end init.
            if image.run(&format!("set -e\n{script}")).is_none() {
                return;
            }
        }
    }
}

#[test]
fn boot_goes_on_without_the_program() {
    let image = Initramfs::new("none");
    fs::remove_file(image.root().join("usr/bin/preroot")).unwrap();
    for (_, script, _) in HOOKS {
        // What the shell says of it is right.
        if image.run(&format!("exec 2> /said\n{script}")).is_none() {
            return;
        }
    }
}

#[test]
fn kernel_that_saves_a_crash_is_left_alone() {
    let image = Initramfs::new("crash").after_a_crash();
    for (name, script, _) in HOOKS {
        let Some(calls) = image.run(script) else {
            return;
        };
        assert_eq!(calls, [""; 0], "{name}");
    }
}

#[test]
fn shell_that_a_person_asked_for_is_no_failure() {
    let image = Initramfs::new("break");
    for script in [
        "break=premount; . /hooks/mkinitcpio; run_emergencyhook",
        "getarg() { [ \"$1\" = rd.break ] && echo pre-mount; }; . /hooks/failed",
        "export break=mount; /scripts/panic/preroot",
    ] {
        let Some(calls) = image.run(script) else {
            return;
        };
        assert_eq!(calls, [""; 0], "{script}");
    }
}

/// init restarts the machine then, without a look at `scripts/panic`.
#[test]
fn initramfs_tools_reports_even_when_it_is_to_restart() {
    let image = Initramfs::new("panic");
    fs::write(
        image.root().join("scripts/functions"),
        "panic() { echo \"$panic: $*\" >> /calls; }\n",
    )
    .unwrap();
    let init = "export rootmnt=/root break= panic=-1
        . /scripts/functions
        /scripts/init-top/preroot
        [ -e /conf/param.conf ] && . /conf/param.conf
        panic 'no root'";
    let Some(mut calls) = image.run(init) else {
        return;
    };
    // It runs beside the rest.
    calls.retain(|call| call != "prefetch");
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls[0].starts_with("report failed --reason "), "{calls:?}");
    assert_eq!(calls[1], "-1: no root");
    // Else it would be reported twice.
    fs::remove_file(image.root().join("conf/param.conf")).unwrap();
    image.run(&init.replace("panic=-1", "panic="));
    assert!(!image.root().join("conf/param.conf").exists());
}

#[test]
fn sourced_hooks_leave_no_names_behind() {
    let image = Initramfs::new("names");
    for hook in ["prefetch", "provision", "failed"] {
        let script = format!(
            "NEWROOT=/sysroot; getarg() {{ return 1; }}
             set > /before; . /hooks/{hook}; set > /after"
        );
        if image.run(&script).is_none() {
            return;
        }
        let names = |file: &str| -> Vec<String> {
            let text = fs::read_to_string(image.root().join(file)).unwrap();
            let names = text.lines().filter_map(|line| line.split_once('='));
            names.map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(names("before"), names("after"), "{hook}");
    }
}
