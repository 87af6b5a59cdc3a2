//! The root of a machine as a system that runs: its programs started by hand, in namespaces, with the
//! kernel's network.
//!
//! Nothing boots here: there is no PID 1 of its own, and no udev, as in a container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
    mount_remount, unmount,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::machine::{Machine, tmpfs};

/// How long the processes of a system may need to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A system that runs.
pub(crate) struct System {
    root: PathBuf,
}

impl System {
    /// Starts the system in a machine's root: what a kernel and an init give to programs is there.
    pub(crate) fn boot(machine: &Machine) -> Self {
        let root = machine.root();
        let at = |path: &str| root.join(path);
        for directory in ["dev", "run", "tmp"] {
            tmpfs(at(directory));
        }
        for device in ["null", "zero", "full", "random", "urandom"] {
            let path = at("dev").join(device);
            fs::write(&path, "").unwrap();
            mount_bind(Path::new("/dev").join(device), &path).unwrap();
        }
        let nothing = MountFlags::empty();
        mount("proc", at("proc"), "proc", nothing, None).unwrap();
        // What is set there is set for the machine that runs the tests, but for its network's part,
        // which is this namespace's own.
        for (path, mode) in [("proc/sys", MountFlags::RDONLY), ("proc/sys/net", nothing)] {
            mount_bind(at(path), at(path)).unwrap();
            mount_change(at(path), MountPropagationFlags::PRIVATE).unwrap();
            mount_remount(at(path), MountFlags::BIND | mode, "").unwrap();
        }
        // Where this cannot be written to, programs do not wait for udev.
        mount("sysfs", at("sys"), "sysfs", MountFlags::RDONLY, None).unwrap();
        let name = fs::read_to_string(at("etc/hostname")).unwrap();
        rustix::system::sethostname(name.trim().as_bytes()).unwrap();
        Self { root }
    }

    /// Starts a command line of a program in the system.
    pub(crate) fn command(&self, line: &[&str]) -> Command {
        let mut command = command_in(&self.root);
        command.args(line);
        command
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, line: &[&str]) -> Output {
        self.command(line).output().unwrap()
    }

    /// Reads a file of the system, which is empty if it is not there.
    pub(crate) fn text(&self, path: &str) -> String {
        let bytes = fs::read(self.root.join(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the system with all its processes, without a word to them, as a power cut does.
    #[track_caller]
    pub(crate) fn power_off(self) {
        let start = Instant::now();
        loop {
            let left = descendants();
            for &process in &left {
                // It may have gone in between.
                let _ = kill_process(process, Signal::KILL);
            }
            // What they started is left to us, who are the first process here.
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            if left.is_empty() {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "still there: {left:?}");
            thread::sleep(Duration::from_millis(5));
        }
        for path in ["sys", "proc", "tmp", "run", "dev", ""] {
            let path = self.root.join(path);
            unmount(path, UnmountFlags::DETACH).unwrap();
        }
        fs::remove_dir(&self.root).unwrap();
    }
}

/// Starts a command line that runs in a root, with the environment that systemd gives.
pub(crate) fn command_in(root: &Path) -> Command {
    let mut command = Command::new("chroot");
    command
        .arg(root)
        .args(["/usr/bin/env", "-i", "-C", "/"])
        .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
        .arg("LANG=C.UTF-8")
        .stdin(Stdio::null());
    command
}

/// Lists all processes of this namespace but this one, by their numbers here.
fn descendants() -> Vec<Pid> {
    let here = fs::read_link("/proc/self/ns/pid").unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if entry.file_name().as_encoded_bytes()[0].is_ascii_alphabetic() {
            continue;
        }
        // What is not a process, not ours to look at, or just ending has none of these.
        let is_here = fs::read_link(entry.path().join("ns/pid")).is_ok_and(|pid| pid == here);
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let number = numbers.and_then(|numbers| numbers.split_whitespace().last());
        let number = number.and_then(|number| number.parse::<i32>().ok());
        if let Some(number) = number.filter(|&number| is_here && number > 1) {
            found.extend(Pid::from_raw(number));
        }
    }
    found
}
