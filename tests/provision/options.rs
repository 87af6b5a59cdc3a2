//! What a caller may ask for: each option does what the help says, and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use preroot::wire::report::Outcome;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::azure::Azure;
use crate::healthy::{CONVERSATION, assert_has_identity, with_key};
use crate::machine::{
    KEY, OTHER_VM_ID, USER, VM_ID, assert_at_rest, cable, on_machine, report, tmpfs,
};
use crate::run::call;

#[test]
fn help_and_version_are_printed_for_whoever_asks() {
    let help = call(&["--help"]);
    assert_eq!(help.exits(0).stderr, "");
    // Every option of the design is explained, and every exit code.
    for words in [
        "provision",
        "init",
        "prefetch",
        "report ready",
        "report failed",
        "status",
        "--root",
        "--wait-root",
        "--platform",
        "--nic",
        "--media",
        "--vm-id",
        "--ready",
        "--steps",
        "--timeout",
        "--dry-run",
        "preroot=off",
        " 0 ",
        " 99 ",
        " 100 ",
        "111 ",
    ] {
        assert!(help.stdout.contains(words), "no \"{words}\" in\n{help}");
    }
    let long = |line: &&str| line.chars().count() > 80;
    assert_eq!(help.stdout.lines().find(long), None);
    assert_eq!(call(&["provision", "--help"]).exits(0).stdout, help.stdout);
    let version = call(&["--version"]);
    let wanted = format!("preroot {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version.exits(0).stdout, wanted);
}

#[test]
fn wrong_use_is_100_and_says_what_is_wrong() {
    on_machine(|machine| {
        let before = machine.picture();
        let azure = Azure::start("healthy");
        for (arguments, words) in [
            (&[][..], "a command is missing"),
            (&["provisoin"], "there is no command 'provisoin'"),
            (
                &["provision", "--nick", "vm0"],
                "--nick: there is no such option",
            ),
            (&["provision", "vm0"], "vm0: there is no such option"),
            (&["provision", "--nic"], "--nic: it needs a value"),
            (&["provision", "--nic="], "--nic=: it needs a value"),
            (
                &["provision", "--ready", "soon"],
                "--ready: its value must be rooted, early, later or never",
            ),
            (
                &["provision", "--timeout=-1"],
                "--timeout=-1: its value must be a number of seconds",
            ),
            (
                &["provision", "--vm-id", "0"],
                "--vm-id: its value must be a UUID",
            ),
            (
                &["provision", "--steps", "hostname,passwd"],
                "--steps: its value must be a list of steps",
            ),
            (
                &["provision", "--platform", "aws"],
                "--platform: its value must be auto or azure",
            ),
            (
                &["provision", "--dry-run=maybe"],
                "--dry-run=maybe: its value must be yes or no",
            ),
            (&["status", "--all"], "--all: status takes only --json"),
        ] {
            let run = call(arguments);
            run.exits(100).says(&format!("preroot: {words}"));
            assert_eq!(run.stdout, "", "{run}");
            assert_eq!(run.stderr.lines().count(), 1, "{run}");
        }
        azure.end().nothing();
        assert_eq!(machine.picture(), before);
        assert!(!fs::exists("/run/preroot").unwrap());
    });
}

#[test]
fn kernel_arguments_have_the_last_word_and_mistakes_are_named() {
    on_machine(|machine| {
        machine.insert(&with_key());
        machine.kernel_arguments("quiet preroot.ready=never preroot.tpyo=1 preroot.timeout=soon");
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--ready=rooted"]);
        run.exits(0)
            .says("kernel argument preroot.tpyo ignored: there is no such option")
            .says("kernel argument preroot.timeout ignored: its value must be a number of seconds");
        azure.end().nothing();
        assert_has_identity(machine);
    });
}

#[test]
fn files_of_settings_are_read_and_the_root_outranks_the_initramfs() {
    on_machine(|machine| {
        machine.insert(&with_key());
        // This machine's own /etc stands for that of the initramfs.
        tmpfs("/etc");
        fs::write(
            "/etc/preroot.conf",
            "sudo = never\nnic = vm0 # the only one\n\nnick = vm0",
        )
        .unwrap();
        let ours = machine.root().join("etc/preroot.conf");
        fs::write(&ours, "# ours\nsudo = password\nnic = vm7\n").unwrap();
        let agents = "OS.SshDir=/srv/ssh\nProvisioning.DeleteRootPassword=y\nLogs.Verbose=y\n";
        fs::write(machine.root().join("etc/waagent.conf"), agents).unwrap();
        machine.kernel_arguments("quiet preroot.ready=never");
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--ready=rooted"]);
        let root = machine.root();
        let root = root.display();
        run.exits(0)
            .says("/etc/preroot.conf line 4: nick ignored: there is no such option")
            .says(&format!(
                "{root}/etc/preroot.conf line 3: nic ignored: the root is too late for it"
            ))
            .says(&format!(
                "{root}/etc/waagent.conf: OS.SshDir=/srv/ssh is not honoured"
            ))
            .never_says("Logs.Verbose")
            .never_says("line 2");
        azure.end().nothing();
        let rule = machine.read("etc/sudoers.d/preroot");
        assert_eq!(rule, format!("{USER} ALL=(ALL) ALL\n"));
        rustix::mount::unmount("/etc", UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn preroot_off_does_nothing_at_all() {
    on_machine(|machine| {
        machine.insert(&with_key());
        machine.kernel_arguments("quiet preroot=off");
        let before = machine.picture();
        let azure = Azure::start("healthy");
        let run = machine.provision(&[]);
        run.exits(0);
        assert_eq!((&*run.stdout, &*run.stderr), ("", ""));
        azure.end().nothing();
        assert_eq!(machine.picture(), before);
        assert!(!fs::exists("/run/preroot").unwrap());
    });
}

#[test]
fn dry_run_prints_the_plan_and_does_nothing() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let before = machine.picture();
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--dry-run"]);
        run.exits(0);
        for path in [
            " for host vm-net01 and user opsadmin",
            "write  0644     0:0      /etc/hostname",
            "write  0644     0:0      /etc/passwd",
            "write  0640     0:42     /etc/shadow",
            "mkdir  0755  1000:1000   /home/opsadmin",
            "write  0600  1000:1000   /home/opsadmin/.ssh/authorized_keys",
            "write  0440     0:0      /etc/sudoers.d/preroot",
            "write  0600     0:0      /var/lib/preroot/configured",
        ] {
            assert!(run.stdout.contains(path), "no {path} in\n{run}");
        }
        // A key is no secret, but a plan is no place for it.
        assert!(!run.stdout.contains(KEY), "{run}");
        azure.end().nothing();
        assert_eq!(machine.picture(), before);
        assert!(!fs::exists("/run/preroot").unwrap());

        // What it printed is what a run then does.
        machine.provision(&["--ready=never"]).exits(0);
        let after = machine.picture();
        for path in after.keys().filter(|path| !before.contains_key(*path)) {
            let path = path.strip_prefix(machine.root()).unwrap();
            let path = format!(" /{}  ", path.display());
            let is_ours = ["/.pwd.lock ", "/report.json "]
                .iter()
                .any(|own| path.contains(own));
            assert!(is_ours || run.stdout.contains(&path), "no {path} in\n{run}");
        }
        let again = machine.provision(&["--dry-run"]);
        again.exits(0);
        assert!(again.stdout.starts_with("nothing to change: "), "{again}");
        assert_eq!(again.stderr, "");
        assert_eq!(machine.picture(), after);
    });
}

#[test]
fn ready_never_and_later_leave_the_platform_alone() {
    on_machine(|machine| {
        machine.insert(&with_key());
        for (when, id) in [("never", VM_ID), ("later", OTHER_VM_ID)] {
            let azure = Azure::start("healthy");
            let run = machine.provision(&["--ready", when, "--vm-id", id]);
            run.exits(0).never_says("ready reported");
            azure.end().nothing();
            assert_eq!(machine.read("var/lib/preroot/configured").trim(), id);
            assert!(!machine.has("var/lib/preroot/reported"));
            assert_eq!(report().result, Outcome::Provisioned);
            assert_at_rest("vm0");
            let before = machine.picture();
            let again = machine.provision(&["--ready", when, "--vm-id", id]);
            again.exits(0);
            assert_eq!(report().result, Outcome::NothingToDo);
            assert_eq!(machine.picture(), before);
        }
        // A later run makes the report, and only that.
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--vm-id", OTHER_VM_ID]);
        run.exits(0).says("only the report is missing");
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), CONVERSATION);
        assert!(machine.has("var/lib/preroot/reported"));
    });
}

#[test]
fn ready_early_is_sent_before_there_is_a_root() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let empty = machine.place().join("sysroot");
        fs::create_dir(&empty).unwrap();
        let azure = Azure::start("healthy");
        let mut running = machine.start(&[
            "--ready=early",
            "--root",
            empty.to_str().unwrap(),
            "--wait-root=10",
        ]);
        running.wait_for("ready reported status=200");
        rustix::mount::mount_bind(machine.root(), &empty).unwrap();
        running.end().exits(0).says("root ok host=vm-net01");
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), CONVERSATION);
        assert_has_identity(machine);
        assert_eq!(machine.read("var/lib/preroot/reported").trim(), VM_ID);
        rustix::mount::unmount(&empty, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn ready_that_was_sent_early_is_not_taken_back() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let missing = ["--root=/nonexistent", "--wait-root=1"];
        let run = machine.provision(&[&["--ready=early"], &missing[..]].concat());
        run.exits(111)
            .says("ready reported status=200")
            .says("failed: no root file system at /nonexistent")
            .never_says("failure reported");
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), CONVERSATION);
        assert_eq!(report().result, Outcome::Failed);
        assert_at_rest("vm0");
    });
}

#[test]
fn ready_waits_for_a_root_that_comes_late() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let empty = machine.place().join("sysroot");
        fs::create_dir(&empty).unwrap();
        let azure = Azure::start("healthy");
        let mut running = machine.start(&["--root", empty.to_str().unwrap(), "--wait-root=10"]);
        running.wait_for("dhcp ok");
        running.wait_for("waiting for the root at /run/machine/sysroot");
        rustix::mount::mount_bind(machine.root(), &empty).unwrap();
        let run = running.end();
        run.exits(0).says("root ok").says("ready reported");
        let heard = azure.end();
        heard.ready();
        // The goal state was fetched while there was nothing else to do; it was too old in the end.
        let steps = heard.steps();
        assert_eq!(steps.last().unwrap(), CONVERSATION[1]);
        assert_eq!(steps[steps.len() - 2], CONVERSATION[0]);
        assert_has_identity(machine);
        rustix::mount::unmount(&empty, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn root_that_never_comes_is_reported_as_a_failure() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let empty = machine.place().join("sysroot");
        fs::create_dir(&empty).unwrap();
        for (root, wait) in [(empty.to_str().unwrap(), "1"), ("/nonexistent", "0")] {
            let azure = Azure::start("healthy");
            let run = machine.provision(&["--root", root, "--wait-root", wait]);
            let words = format!("no root file system at {root}");
            run.exits(111)
                .says(&format!("preroot: failed: {words}"))
                .says("the boot goes on")
                .says("failure reported status=200");
            assert!(run.took < Duration::from_secs(3), "{run}");
            let heard = azure.end().failed();
            assert!(heard.contains(&format!("result=error|reason={words}|agent=preroot/")));
            assert!(heard.contains(&format!("|vm_id={VM_ID}|")), "{heard}");
            assert_eq!(report().result, Outcome::Failed);
            assert_eq!(&*report().reason, words);
            assert_at_rest("vm0");
        }
    });
}

#[test]
fn read_only_root_is_written_and_read_only_again() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let sysroot = machine.place().join("sysroot");
        fs::create_dir(&sysroot).unwrap();
        tmpfs(&sysroot);
        let copied = std::process::Command::new("cp")
            .args(["-a", "--", "."])
            .arg(&sysroot)
            .current_dir(machine.root())
            .status();
        assert!(copied.unwrap().success());
        let read_only = || {
            let flags = rustix::fs::statvfs(&sysroot).unwrap().f_flag;
            flags.contains(rustix::fs::StatVfsMountFlags::RDONLY)
        };
        rustix::mount::mount_remount(&sysroot, MountFlags::RDONLY, "").unwrap();
        assert!(read_only());
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--root", sysroot.to_str().unwrap()]);
        run.exits(0).says("root remounted writable for now");
        azure.end().ready();
        assert!(read_only());
        for path in [
            "var/lib/preroot/reported",
            "home/opsadmin/.ssh/authorized_keys",
        ] {
            assert!(sysroot.join(path).exists(), "{path}");
        }
        rustix::mount::unmount(&sysroot, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn steps_that_are_not_asked_for_are_not_done() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let before = machine.picture();
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--steps=hostname"]);
        run.exits(0);
        azure.end().ready();
        assert_eq!(machine.read("etc/hostname"), "vm-net01\n");
        let after = machine.picture();
        for path in [
            "etc/passwd",
            "etc/shadow",
            "etc/group",
            "home",
            "etc/sudoers.d",
        ] {
            let path = machine.root().join(path);
            assert_eq!(after[&path], before[&path]);
        }
        // Without the markers the next boot does it again.
        assert!(!machine.has("var/lib/preroot/configured"), "{run}");

        let azure = Azure::start("healthy");
        machine.provision(&["--steps=user,keys,markers"]).exits(0);
        azure.end().ready();
        assert_has_identity(machine);
        assert!(machine.has(&format!("home/{USER}/.ssh/authorized_keys")));
        assert!(!machine.has("etc/sudoers.d/preroot"));
    });
}

#[test]
fn custom_data_runs_in_the_root_once_and_only_when_it_is_asked_for() {
    on_machine(|machine| {
        // The root has no programs; those of this machine do.
        for directory in ["bin", "lib", "lib64", "usr"] {
            let (from, to) = (
                Path::new("/").join(directory),
                machine.root().join(directory),
            );
            if from.exists() {
                fs::create_dir_all(&to).unwrap();
                rustix::mount::mount_bind_recursive(&from, &to).unwrap();
            }
        }
        for directory in ["dev", "proc"] {
            fs::create_dir_all(machine.root().join(directory)).unwrap();
        }
        let script =
            "#!/bin/sh\npwd; id -u; readlink /proc/self/exe\necho ran >>/etc/ran\nexit 3\n";
        machine.insert(&with_key().custom_data(script.as_bytes()));
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--steps=hostname,customdata"]);
        run.exits(0).never_says("running custom data");
        assert!(!machine.has("etc/ran"));
        assert_eq!(machine.rights("var/lib/preroot/custom-data").0, 0o600);

        let asked = ["--steps=hostname,customdata", "--customdata.exec=yes"];
        let run = machine.provision(&asked);
        run.exits(0)
            .says("preroot: running custom data, for ")
            .says("preroot: custom data ended exit=3")
            .says("ready reported");
        let at = |words| run.stderr.find(words).unwrap();
        assert!(at("custom data ended") < at("ready reported"), "{run}");
        assert_eq!(machine.read("etc/ran"), "ran\n");
        let output = machine.read("var/lib/preroot/custom-data.log");
        assert!(output.starts_with("/\n0\n/"), "{output}");
        assert_eq!(machine.rights("var/lib/preroot/custom-data.log").0, 0o600);
        // What was mounted for it is not there any more.
        let left = fs::read_dir(machine.root().join("proc")).unwrap();
        assert_eq!(left.count(), 0);

        let again = machine.provision(&asked);
        again.exits(0).never_says("running custom data");
        assert_eq!(machine.read("etc/ran"), "ran\n");
        azure.end();
    });
}

#[test]
fn custom_data_beside_the_document_is_taken_where_that_has_none() {
    on_machine(|machine| {
        for (document, wanted) in [
            (with_key(), "plain \0 bytes"),
            (
                with_key().custom_data(b"of the document"),
                "of the document",
            ),
        ] {
            let image = lab::disc::Builder::new()
                .file("ovf-env.xml", document.build())
                .file("CustomData.bin", "plain \0 bytes");
            fs::write(machine.disc(), image.build()).unwrap();
            let run = machine.provision(&["--ready=never", "--steps=hostname,customdata"]);
            run.exits(0);
            assert_eq!(machine.read("var/lib/preroot/custom-data"), wanted);
        }
    });
}

#[test]
fn interface_that_does_not_exist_is_awaited_for_the_budget() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--nic=eth7", "--timeout=3"]);
        run.exits(111)
            .says("preroot: waiting for interface eth7 since 2 s")
            .says("failure to find DHCP interface: still waiting for interface eth7 after 3 s")
            .says("the boot goes on");
        assert!(run.took >= Duration::from_secs(3), "{run}");
        assert!(run.took < Duration::from_secs(20), "{run}");
        azure.end().nothing();
        assert_has_identity(machine);

        // One that comes late is taken when it comes.
        let running = machine.start(&["--nic=eth7"]);
        thread::sleep(Duration::from_millis(200));
        cable("eth7", [0x00, 0x0d, 0x3a, 0x77, 0x77, 0x77], "host7");
        let azure = Azure::on("host7", "healthy");
        running.end().exits(0).says("dhcp ok nic=eth7");
        azure.end().ready();
        assert_at_rest("eth7");
        assert_at_rest("vm0");
    });
}

#[test]
fn fingerprint_of_the_host_key_is_published_when_asked_for() {
    on_machine(|machine| {
        fs::create_dir_all(machine.root().join("usr/sbin")).unwrap();
        fs::write(machine.root().join("usr/sbin/sshd"), "").unwrap();
        machine.insert(&with_key());
        // What the platform answers to it does not matter.
        for answers in ["ok", "404", "500"] {
            let azure = Azure::start(&format!("properties.answers = {answers}"));
            let run = machine.provision(&["--report-host-key=yes"]);
            let heard = azure.end();
            run.exits(0).says("host key SHA256:");
            heard.ready();
            let published: Vec<_> = heard
                .requests()
                .filter(|request| request.target == "/machine?comp=roleProperties")
                .collect();
            assert_eq!(published.len(), 1, "{answers}");
            let body = String::from_utf8_lossy(&published[0].body);
            let (_, rest) = body
                .split_once("name=\"CertificateThumbprint\" value=\"SHA256:")
                .unwrap();
            let (letters, _) = rest.split_once('"').unwrap();
            assert!(run.stderr.contains(&format!("SHA256:{letters}\n")), "{run}");
            fs::remove_dir_all(machine.root().join("var/lib/preroot")).unwrap();
        }
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(0);
        assert_eq!(azure.end().steps().len(), 2);
    });
}

#[test]
fn custom_data_is_left_for_ignition_in_an_initramfs_that_has_it() {
    on_machine(|machine| {
        // The places are the running system's: here each has a layer over it that goes with the test.
        for place in ["etc", "usr/bin", "usr/lib"] {
            let layer = machine.place().join(place.replace('/', "-"));
            let (upper, work) = (layer.join("upper"), layer.join("work"));
            fs::create_dir_all(&upper).unwrap();
            fs::create_dir_all(&work).unwrap();
            let place = Path::new("/").join(place);
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                place.display(),
                upper.display(),
                work.display()
            );
            let data = std::ffi::CString::new(options).unwrap();
            let flags = MountFlags::empty();
            rustix::mount::mount("overlay", &place, "overlay", flags, data.as_c_str()).unwrap();
        }
        let config = "{\"ignition\": {\"version\": \"3.4.0\"}}\n";
        let document = |data: &str| with_key().custom_data(data.as_bytes());
        let left = Path::new("/usr/lib/ignition/user.ign");
        for (data, is_left) in [("#!/bin/sh\n", false), (config, true)] {
            for missing in ["/etc/initrd-release", "/usr/bin/ignition", ""] {
                for path in ["/etc/initrd-release", "/usr/bin/ignition"] {
                    let _ = fs::remove_file(path);
                    if path != missing {
                        fs::write(path, "").unwrap();
                    }
                }
                machine.insert(&document(data));
                machine.provision(&["--ready=never"]).exits(0);
                assert_eq!(left.exists(), is_left && missing.is_empty(), "{missing}");
                machine.reinstall();
            }
        }
        assert_eq!(fs::read_to_string(left).unwrap(), config);
        assert_eq!(
            fs::metadata(left).unwrap().permissions().mode() & 0o777,
            0o600
        );
    });
}
