//! Roots that take no writes: what their own systemd is left, and that they stay as they are.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::azure::Azure;
use crate::healthy::with_key;
use crate::machine::{HOST_NAME, Machine, USER, assert_same, on_machine, tmpfs};

const PASSWORD: &str = "Not-A-Real-1!pw&x";
const CREDENTIALS: &str = "/run/credentials/@initrd";
const LIBRARY: &str = "usr/lib/systemd/libsystemd-shared-";

/// Makes the root one that is meant to be read-only, with a systemd of this version.
pub(crate) fn immutable(machine: &Machine, version: u32, more_of_fstab: &str) {
    let root = machine.root();
    let library = root.join(format!("{LIBRARY}{version}.so"));
    fs::create_dir_all(library.parent().unwrap()).unwrap();
    fs::write(library, "").unwrap();
    let fstab = format!("UUID=1 / ext4 ro 0 1\n{more_of_fstab}");
    fs::write(root.join("etc/fstab"), fstab).unwrap();
    fs::write(root.join("etc/nsswitch.conf"), "passwd: files systemd\n").unwrap();
    // A file system of its own, which can be made writable without any other.
    let copy = machine.place().join("copy");
    fs::create_dir(&copy).unwrap();
    tmpfs(&copy);
    let mut cp = Command::new("cp");
    cp.args(["-a", "--"]).arg(root.join(".")).arg(&copy);
    assert!(cp.status().unwrap().success());
    rustix::mount::mount_remount(&copy, MountFlags::RDONLY, "").unwrap();
    rustix::mount::mount_move(&copy, &root).unwrap();
}

/// Takes the host name away again that lies over the root's own.
pub(crate) fn uncover(machine: &Machine) {
    assert_eq!(machine.read("etc/hostname"), format!("{HOST_NAME}\n"));
    assert_eq!(machine.rights("etc/hostname"), (0o644, 0, 0));
    rustix::mount::unmount(machine.root().join("etc/hostname"), UnmountFlags::empty()).unwrap();
}

/// Gives the names of what was left, each readable by root alone.
fn left(directory: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn read_only_root_is_left_to_its_own_systemd_on_each_boot() {
    on_machine(|machine| {
        immutable(machine, 257, "tmpfs /home tmpfs mode=0755 0 0\n");
        machine.insert(&with_key().password(PASSWORD));
        let before = machine.picture();
        for _boot in 0..2 {
            let azure = Azure::start("healthy");
            let run = machine.provision(&[]);
            azure.end().ready();
            run.exits(0)
                .says(&format!(
                    "preroot: root ok host={HOST_NAME} user={USER} credentials="
                ))
                .says("note: /etc is read-only: ")
                .never_says("remounted")
                .never_says("failed")
                .never_says("host name stays")
                .never_says("not mounted")
                .never_says("label");
            uncover(machine);
            assert_same(&machine.picture(), &before);
            assert_eq!(left(CREDENTIALS), ["system.hostname", "tmpfiles.extra"]);
            assert_eq!(mode(CREDENTIALS), 0o700);
            assert_eq!(mode("/run/credentials"), 0o755);
            for name in left(CREDENTIALS) {
                assert_eq!(mode(Path::new(CREDENTIALS).join(name)), 0o400);
            }
            let name = fs::read_to_string(format!("{CREDENTIALS}/system.hostname")).unwrap();
            assert_eq!(name, HOST_NAME);
            let secret = fs::read_to_string("/run/userdb/1000.user-privileged").unwrap();
            assert!(secret.contains("\"hashedPassword\":[\"$6$"), "{secret}");
            assert_eq!(mode("/run/userdb/1000.user-privileged"), 0o600);
            assert_eq!(mode(format!("/run/userdb/{USER}.user")), 0o644);
            fs::remove_dir_all(CREDENTIALS).unwrap();
            fs::remove_dir_all("/run/userdb").unwrap();
        }
    });
}

#[test]
fn credentials_that_were_asked_for_leave_a_writable_root_alone() {
    on_machine(|machine| {
        let root = machine.root();
        fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
        fs::write(root.join(format!("{LIBRARY}254.9.so")), "").unwrap();
        fs::write(root.join("etc/preroot.conf"), "output = credentials\n").unwrap();
        machine.insert(&with_key().password(PASSWORD));
        let before = machine.picture();
        let azure = Azure::start("healthy");
        let run = machine.provision(&[]);
        azure.end().ready();
        run.exits(0)
            .says(" credentials=")
            .never_says("/etc is read-only");
        uncover(machine);
        assert_same(&machine.picture(), &before);
        let password = format!("passwd.hashed-password.{USER}");
        let all = [
            &password,
            "system.hostname",
            "sysusers.extra",
            "tmpfiles.extra",
        ];
        assert_eq!(left(CREDENTIALS), all);
        assert!(
            fs::exists("/run/systemd/system/systemd-sysusers.service.d/50-preroot.conf").unwrap()
        );
        assert!(!fs::exists("/run/userdb").unwrap());
    });
}

#[test]
fn systemd_that_takes_no_credentials_is_named_before_anything_is_done() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--output=credentials"]);
        let why = azure.end().failed();
        assert!(why.contains("there is no systemd in the root"), "{why}");
        run.exits(111).says("fix=\"give preroot.output=files");
        assert!(!fs::exists("/run/credentials").unwrap());
        assert!(!machine.has("etc/hostname") || machine.read("etc/hostname").trim() != HOST_NAME);

        immutable(machine, 252, "");
        let azure = Azure::start("healthy");
        let run = machine.provision(&["--output=credentials"]);
        let why = azure.end().failed();
        assert!(why.contains("systemd 252 takes no credentials"), "{why}");
        run.exits(111);
        // Left to itself it writes, as everywhere.
        let azure = Azure::start("healthy");
        let run = machine.provision(&[]);
        azure.end().ready();
        run.exits(0).says("root remounted writable for now");
        assert!(fs::write(machine.root().join("x"), "").is_err());
    });
}

#[test]
fn dry_run_of_a_read_only_root_shows_what_its_systemd_would_do() {
    on_machine(|machine| {
        immutable(machine, 257, "");
        machine.insert(&with_key());
        let run = machine.provision(&["--dry-run"]);
        run.exits(0);
        for part in [
            "/home/opsadmin/.ssh/authorized_keys",
            "nothing of it now: the root's systemd does it, by",
            "/run/credentials/@initrd/tmpfiles.extra",
            "/run/userdb/opsadmin.user",
            "mount over               /etc/hostname  (with /run/preroot/hostname)",
            "note: /etc is read-only",
        ] {
            assert!(run.stdout.contains(part), "{part} in {}", run.stdout);
        }
        assert!(!fs::exists("/run/credentials").unwrap());
        assert!(!fs::exists("/run/userdb").unwrap());
        assert_eq!(machine.read("etc/hostname"), "localhost\n");
    });
}

#[test]
fn host_name_that_is_right_is_left_alone() {
    on_machine(|machine| {
        let root = machine.root();
        fs::write(root.join("etc/hostname"), format!("{HOST_NAME}\n")).unwrap();
        immutable(machine, 257, "");
        machine.insert(&with_key());
        machine.provision(&["--ready=never"]).exits(0);
        assert!(!fs::exists("/run/preroot/hostname").unwrap());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains("etc/hostname"), "{mounts}");
    });
}

#[test]
fn host_name_is_covered_where_a_link_leads_in_the_root() {
    on_machine(|machine| {
        let root = machine.root();
        let name = root.join("etc/hostname");
        let image = root.join("etc/image");
        fs::rename(&name, &image).unwrap();
        std::os::unix::fs::symlink("/../../etc/image", &name).unwrap();
        immutable(machine, 257, "");
        machine.insert(&with_key());
        machine.provision(&["--ready=never"]).exits(0);
        assert_eq!(machine.read("etc/image"), format!("{HOST_NAME}\n"));
        rustix::mount::unmount(&image, UnmountFlags::empty()).unwrap();
        assert_eq!(machine.read("etc/image"), "localhost\n");
    });
}

#[test]
fn secrets_of_a_read_only_root_lie_where_only_root_reads_them() {
    on_machine(|machine| {
        immutable(machine, 257, "");
        machine.insert(&with_key().password(PASSWORD));
        let azure = Azure::start("healthy");
        let run = machine.provision(&[]);
        azure.end().ready();
        run.exits(0).never_says(PASSWORD).never_says("$6$");
        crate::machine::each_file(Path::new("/run"), &mut |path, about| {
            if path.starts_with("/run/machine") || !about.is_file() {
                return;
            }
            let content = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
            assert!(!content.contains(PASSWORD), "{}", path.display());
            if content.contains("$6$") {
                assert_eq!(about.permissions().mode() & 0o077, 0, "{}", path.display());
            }
        });
    });
}
