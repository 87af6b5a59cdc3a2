//! A real Debian after us: its own waagent and cloud-init run in the root that we provisioned, on the same
//! platform, change nothing there and report nothing.
//!
//! The system is `cargo lab fetch debian-agents`; without it the tests are skipped. Nothing boots here: what
//! systemd would start is started by hand, after what systemd asks before it. Our markers are taken away
//! too, and then the agent must do what they keep it from: so the platform is also held against its real
//! clients.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::debian::Flavour;
use lab::disc::ovf::Document;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};

use crate::azure::{Azure, Heard};
use crate::healthy::with_key;
use crate::installed;
use crate::machine::{Machine, VM_ID, each_file, on_root, tmpfs};
use crate::namespace::ip;
use crate::system::{System, command_in};

/// How long the agent may need, on a busy machine, for what takes it five seconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(100);
/// The directories of a running system that are not its root's.
const MOUNTS: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];
/// The services of cloud-init, in the order of a boot.
const STAGES: [&str; 4] = [
    "cloud-init-local.service",
    "cloud-init.service",
    "cloud-config.service",
    "cloud-final.service",
];
/// The firmware's word that this is Azure.
const ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";
/// What waagent's log has when its loop over goal states has come round.
const LOOP: &str = "[HEARTBEAT] Agent";

/// How long waagent sleeps between two looks at the goal state, and a little.
const PERIOD: Duration = Duration::from_secs(8);

/// What the agents keep of their own, by the beginning of the path, and why that harms nobody.
const THEIRS: [(&str, &str); 2] = [
    (
        "var/lib/waagent/",
        "waagent's state: goal states, certificates, events",
    ),
    ("var/log/", "logs"),
];
/// What they must leave alone even so: our markers.
const OURS: [&str; 4] = [
    "var/lib/waagent/disable_agent",
    "var/lib/waagent/ovf-env.xml",
    "var/lib/waagent/provisioned",
    "var/lib/waagent/published_hostname",
];

/// A machine whose system has agents.
struct WithAgents<'a> {
    machine: &'a Machine,
}

/// What can be seen of each file.
type Picture = BTreeMap<PathBuf, String>;

impl WithAgents<'_> {
    /// Provisions the root as the first boot does.
    fn provision(&self, document: &Document) {
        self.machine.insert(document);
        let azure = Azure::start("healthy");
        self.machine.provision(&[]).exits(0);
        azure.end().ready();
    }

    /// Makes of the root a system that runs, with the kernel's network, as far as its programs can tell.
    fn boot(&self) {
        System::boot(self.machine);
        let at = |path: &str| self.path(path);
        tmpfs(at("sys/class"));
        fs::create_dir_all(at("sys/class/net")).unwrap();
        // Not the far end of the cable, which is in this namespace too.
        for name in ["lo", "vm0"] {
            let device = format!("../../devices/virtual/net/{name}");
            symlink(device, at("sys/class/net").join(name)).unwrap();
        }
        fs::create_dir_all(at("sys/class/dmi/id")).unwrap();
        for (name, value) in [
            ("chassis_asset_tag", ASSET_TAG),
            ("product_name", "Virtual Machine"),
            ("product_uuid", VM_ID),
            ("sys_vendor", "Microsoft Corporation"),
        ] {
            fs::write(at("sys/class/dmi/id").join(name), format!("{value}\n")).unwrap();
        }
        // By this programs know that systemd runs.
        fs::create_dir_all(at("run/systemd/system")).unwrap();
        ip("link set lo up");
        // The system's own client: waagent looks for it, and at what it leaves.
        let leased = self.run("/usr/sbin/dhclient", &["-1", "vm0"]);
        assert!(leased.status.success(), "{leased:?}");
    }

    fn path(&self, path: &str) -> PathBuf {
        self.machine.root().join(path)
    }

    /// Starts a command line of a program in the system.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = command_in(&self.machine.root());
        command.arg(program).args(arguments);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    /// Reads a file of the system, which is empty if it is not there.
    fn text(&self, path: &str) -> String {
        let bytes = fs::read(self.path(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Takes down all of the root; not even the same may be written again.
    fn picture(&self) -> Picture {
        let root = self.machine.root();
        let mut picture = Picture::new();
        for entry in fs::read_dir(&root).unwrap() {
            let path = entry.unwrap().path();
            if MOUNTS.iter().any(|mount| path.ends_with(mount)) {
                continue;
            }
            let mut see = |path: &Path, data: &fs::Metadata| {
                let mut line = format!("{:o} {}:{}", data.mode(), data.uid(), data.gid());
                // A directory's own times are those of what is in it, which is looked at by itself.
                if !data.is_dir() {
                    let times = (data.mtime(), data.mtime_nsec());
                    let _ = write!(line, " inode {} size {} {times:?}", data.ino(), data.size());
                }
                if data.is_file() {
                    let mut hasher = DefaultHasher::new();
                    hasher.write(&fs::read(path).unwrap());
                    let _ = write!(line, " hash {:x}", hasher.finish());
                }
                if let Ok(target) = fs::read_link(path) {
                    let _ = write!(line, " to {}", target.display());
                }
                picture.insert(path.strip_prefix(&root).unwrap().to_owned(), line);
            };
            let data = path.symlink_metadata().unwrap();
            see(&path, &data);
            if data.is_dir() {
                each_file(&path, &mut see);
            }
        }
        picture
    }

    /// Runs cloud-init as systemd does, where its generator and its units let it, and gives the stages that ran.
    fn cloud_init(&self, stages: &[&'static str]) -> Vec<&'static str> {
        let early = "/run/systemd/generator.early";
        let generator = "/usr/lib/systemd/system-generators/cloud-init-generator";
        let generated = self.run(
            generator,
            &[
                "/run/systemd/generator",
                early,
                "/run/systemd/generator.late",
            ],
        );
        assert!(generated.status.success(), "{generated:?}");
        let wanted = format!("{early}/multi-user.target.wants/cloud-init.target");
        let mut ran = Vec::new();
        if !self.exists(&wanted) {
            return ran;
        }
        for &unit in stages {
            let text = self.text(&format!("usr/lib/systemd/system/{unit}"));
            let values =
                |key: &'static str| text.lines().filter_map(move |line| line.strip_prefix(key));
            if values("ConditionPathExists=!").any(|path| self.exists(path)) {
                continue;
            }
            let line = values("ExecStart=")
                .next()
                .expect("a service starts something");
            let words: Vec<&str> = line.split_whitespace().collect();
            self.run(words[0], &words[1..]);
            ran.push(unit);
        }
        ran
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path.trim_start_matches('/'))
            .symlink_metadata()
            .is_ok()
    }

    /// Starts waagent as its service does, and waits until its log has these words.
    fn waagent(&self, words: &str) -> Child {
        let mut agent = self
            .command("/usr/sbin/waagent", &["-daemon"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !self.text("var/log/waagent.log").contains(words) {
            let ended = agent.try_wait().unwrap();
            assert!(
                start.elapsed() < PATIENCE && ended.is_none(),
                "{ended:?}, no \"{words}\" in its log:\n{}",
                self.text("var/log/waagent.log")
            );
            thread::sleep(Duration::from_millis(100));
        }
        agent
    }
}

/// Runs a test on a machine that has the system.
fn on_system(body: impl FnOnce(&WithAgents)) {
    on_root(body, |body, machine| {
        if installed::install(Flavour::WithAgents, machine) {
            body(&WithAgents { machine });
        }
    });
}

/// Ends a service with all its processes, as systemd does.
fn end(mut service: Child) {
    let group = Pid::from_child(&service);
    kill_process_group(group, Signal::KILL).unwrap();
    service.wait().unwrap();
    // What it started is left to us, who are the first process here.
    while waitpgid(group, WaitOptions::empty()).is_ok() {}
}

/// Names what differs between two pictures and is not an agent's own.
fn changed(before: &Picture, after: &Picture) -> Vec<String> {
    let mut changed = Vec::new();
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let name = path.to_str().unwrap();
        let theirs = THEIRS.iter().any(|(start, _)| name.starts_with(start));
        let (was, is) = (before.get(path), after.get(path));
        if was != is && (!theirs || OURS.contains(&name)) {
            changed.push(format!("{name}: {was:?} -> {is:?}"));
        }
    }
    changed
}

/// The health reports that the platform heard.
fn reports(heard: &Heard) -> Vec<String> {
    let health =
        |step: &String| step.contains("comp=health") || step.contains("/provisioning/health");
    heard.steps().into_iter().filter(health).collect()
}

/// Checks that the platform heard no report and nothing else to complain of.
#[track_caller]
fn assert_nothing_reported(heard: &Heard) {
    assert_eq!(reports(heard), [""; 0], "{}", heard.journal());
    heard.undecided();
}

/// Lists the lines of a log of waagent that are worse than a word.
fn bad_lines(log: &str) -> Vec<&str> {
    let bad = |line: &&str| line.contains(" ERROR ") || line.contains(" WARNING ");
    log.lines().filter(bad).collect()
}

#[test]
fn waagent_takes_the_root_for_provisioned() {
    on_system(|system| {
        system.provision(&with_key());
        let azure = Azure::start("healthy");
        system.boot();
        let before = system.picture();
        let agent = system.waagent(LOOP);
        thread::sleep(PERIOD);
        end(agent);
        let heard = azure.end();
        let log = system.text("var/log/waagent.log");
        assert_eq!(changed(&before, &system.picture()), [""; 0]);
        assert!(
            log.contains("Provisioning already completed, skipping"),
            "{log}"
        );
        assert_eq!(bad_lines(&log), [""; 0]);
        assert_nothing_reported(&heard);
        let looks = heard
            .steps()
            .iter()
            .filter(|step| step.contains("comp=goalstate"))
            .count();
        assert!(looks > 3, "{}", heard.journal());

        // Without the marker it begins to provision, says so, and waits for cloud-init's host key.
        fs::remove_file(system.path("var/lib/waagent/provisioned")).unwrap();
        fs::remove_file(system.path("var/log/waagent.log")).unwrap();
        let _ = fs::remove_file(system.path("etc/ssh/ssh_host_rsa_key.pub"));
        let azure = Azure::start("healthy");
        end(system.waagent("Waiting for ssh host key"));
        let heard = azure.end();
        assert_ne!(reports(&heard), [""; 0]);
        heard.undecided();
    });
}

#[test]
fn cloud_init_is_not_started() {
    on_system(|system| {
        let document = with_key()
            .password("Not-A-Real-1!pw")
            .custom_data(b"#cloud-config\nruncmd: [touch, /ran]\n");
        system.provision(&document);
        let azure = Azure::start("healthy");
        system.boot();
        let before = system.picture();
        assert_eq!(system.cloud_init(&STAGES), [""; 0]);
        let status = system.run("/usr/bin/cloud-init", &["status"]);
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        let heard = azure.end();
        assert_eq!(status.trim(), "status: disabled");
        assert_eq!(changed(&before, &system.picture()), [""; 0]);
        assert_nothing_reported(&heard);

        // Without the marker it provisions, and reports over us.
        fs::remove_file(system.path("etc/cloud/cloud-init.disabled")).unwrap();
        let before = system.picture();
        let azure = Azure::start("healthy");
        assert_eq!(system.cloud_init(&STAGES[..1]), STAGES[..1]);
        azure.end().ready();
        assert!(!changed(&before, &system.picture()).is_empty());
    });
}

#[test]
fn waagent_sleeps_where_the_platform_wants_no_agent() {
    on_system(|system| {
        system.provision(&with_key().provision_guest_agent(false));
        let azure = Azure::start("healthy");
        system.boot();
        let before = system.picture();
        end(system.waagent("Disabling the guest agent by sleeping forever"));
        let heard = azure.end();
        assert_eq!(changed(&before, &system.picture()), [""; 0]);
        assert_nothing_reported(&heard);
    });
}
