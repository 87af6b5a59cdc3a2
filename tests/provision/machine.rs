//! The machine of a test: a cable, a firmware, a root, a disc.
//!
//! Everything lies on a `/run` of the test's own, and goes with its namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::disc::Builder;
use lab::disc::ovf::Document;
use preroot::wire::report::Report;
use rustix::mount::MountFlags;

use crate::namespace::{self, ip};
use crate::run::{Run, Running};

/// The machine's id, in the platform's own form.
pub(crate) const VM_ID: &str = "91267c52-9f02-4cfe-b1f4-a4da7ebac2cf";
/// The same machine, as the firmware of a first-generation VM shows it.
pub(crate) const VM_ID_SWAPPED: &str = "527c2691-029f-fe4c-b1f4-a4da7ebac2cf";
/// Another machine.
pub(crate) const OTHER_VM_ID: &str = "544cdfd0-cb4e-4b4a-9954-5bdf3ed5c3b8";
/// The hardware address of `vm0`.
pub(crate) const MAC: [u8; 6] = [0x00, 0x0d, 0x3a, 0x11, 0x22, 0x33];

pub(crate) const HOST_NAME: &str = "vm-net01";
pub(crate) const USER: &str = "opsadmin";
pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHNg4YfeMwOksvGyNjVn+RXD8njWLZ2FmW7XDaKXkHbO demo@laptop";

/// What stands on the disc in the drive, for the platform.
pub(crate) const DOCUMENT: &str = "/run/machine/ovf-env.xml";

/// The largest file whose content is in a picture of a root.
const LARGEST_SHOWN: u64 = 8192;

/// The machine.
pub(crate) struct Machine {
    place: PathBuf,
}

/// Runs a test on a machine of its own.
///
/// As an ordinary user that takes more than one user id, because the files of the admin user belong
/// to another one than root's.
pub(crate) fn on_machine(body: impl FnOnce(&Machine)) {
    on_root(body, |body, machine| {
        copy_root(&machine.root());
        body(machine);
    });
}

/// Runs a test on a machine of its own that has no root yet: `enter` makes one, then runs the test.
pub(crate) fn on_root<F>(body: F, enter: impl FnOnce(F, &Machine)) {
    let mut options = vec![
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--uts",
    ];
    if !rustix::process::geteuid().is_root() {
        options.extend(["--user", "--map-root-user", "--map-auto"]);
    }
    namespace::run(&options, body, |body| {
        tmpfs("/run");
        // The program must not load modules into the kernel of whoever runs the tests.
        if Path::new("/lib/modules").is_dir() {
            tmpfs("/lib/modules");
        }
        let place = PathBuf::from("/run/machine");
        fs::create_dir(&place).unwrap();
        let machine = Machine { place };
        cable("vm0", MAC, "host0");
        enter(body, &machine);
    });
}

impl Machine {
    /// Gives the machine a root as new.
    pub(crate) fn reinstall(&self) {
        fs::remove_dir_all(self.root()).unwrap();
        copy_root(&self.root());
    }

    /// Where the machine's files are.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// The root that is to be provisioned.
    pub(crate) fn root(&self) -> PathBuf {
        self.place.join("root")
    }

    /// The disc in the drive.
    pub(crate) fn disc(&self) -> PathBuf {
        self.place.join("disc.iso")
    }

    /// Puts a disc with this document into the drive.
    pub(crate) fn insert(&self, document: &Document) {
        self.insert_text(&document.build());
    }

    /// Puts a disc into the drive that has these words for a document.
    ///
    /// A platform that is started after this says the same of the machine, by its metadata service.
    pub(crate) fn insert_text(&self, document: &str) {
        fs::write(DOCUMENT, document).unwrap();
        let image = Builder::new().file("ovf-env.xml", document);
        fs::write(self.disc(), image.build()).unwrap();
    }

    /// Shows the program another command line of the kernel.
    pub(crate) fn kernel_arguments(&self, line: &str) {
        let path = self.place.join("cmdline");
        fs::write(&path, format!("{line}\n")).unwrap();
        rustix::mount::mount_bind(&path, "/proc/cmdline").unwrap();
    }

    /// Runs `preroot provision` on this machine; `more` comes after, and so wins over, the usual
    /// options.
    pub(crate) fn provision(&self, more: &[&str]) -> Run {
        self.start(more).end()
    }

    /// Starts `preroot provision`.
    pub(crate) fn start(&self, more: &[&str]) -> Running {
        // Nobody in these roots configures the network: `network` has the tests for that.
        self.start_as_in_a_hook(&[&["--network=release"], more].concat())
    }

    /// Starts `preroot provision` without a word on the network.
    pub(crate) fn start_as_in_a_hook(&self, more: &[&str]) -> Running {
        let (root, disc) = (self.root(), self.disc());
        let usual = [
            "provision",
            "--platform=azure",
            "--nic=vm0",
            "--root",
            root.to_str().unwrap(),
            "--media",
            disc.to_str().unwrap(),
            "--vm-id",
            VM_ID,
            "--log=stderr",
            "--timeout=10",
        ];
        Running::start(&[&usual, more].concat())
    }

    /// Reads a file of the root as text.
    #[track_caller]
    pub(crate) fn read(&self, path: &str) -> String {
        let path = self.root().join(path);
        match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    /// Tells whether the root has a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root().join(path).symlink_metadata().is_ok()
    }

    /// Gives permissions and owner of something in the root.
    #[track_caller]
    pub(crate) fn rights(&self, path: &str) -> (u32, u32, u32) {
        let data = fs::symlink_metadata(self.root().join(path)).unwrap();
        (data.mode() & 0o7777, data.uid(), data.gid())
    }

    /// Takes down everything that can be seen of the root: two pictures are equal if nothing was
    /// touched in between, not even to write the same again.
    pub(crate) fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut picture = BTreeMap::new();
        each_file(&self.root(), &mut |path, data| {
            // What is large has a time of change too.
            let content = if data.is_file() && data.len() <= LARGEST_SHOWN {
                fs::read(path).unwrap()
            } else {
                Vec::new()
            };
            let line = format!(
                "{:o} {}:{} inode {} size {} mtime {}.{:09} ctime {}.{:09} {}",
                data.mode(),
                data.uid(),
                data.gid(),
                data.ino(),
                data.size(),
                data.mtime(),
                data.mtime_nsec(),
                data.ctime(),
                data.ctime_nsec(),
                String::from_utf8_lossy(&content)
            );
            picture.insert(path.to_owned(), line);
        });
        picture
    }
}

/// Checks that two pictures are the same, and names what differs.
#[track_caller]
pub(crate) fn assert_same(after: &BTreeMap<PathBuf, String>, before: &BTreeMap<PathBuf, String>) {
    let paths = before.keys().chain(after.keys());
    let differ: Vec<_> = paths
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| (path, before.get(path), after.get(path)))
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

/// Lays a cable from the machine to its host; only the host's end is switched on.
pub(crate) fn cable(ours: &str, mac: [u8; 6], host: &str) {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    ip(&format!(
        "link add {ours} address {mac} type veth peer name {host} address 12:34:56:78:9a:bc"
    ));
    for end in [ours, host] {
        // It would chatter. Absent on a kernel without IPv6.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1");
    }
    ip(&format!("link set {host} up"));
}

/// Shows the program another firmware, and interfaces that have a driver.
///
/// `efi` tells whether the machine is one of the second generation.
pub(crate) fn firmware(asset_tag: &str, uuid: &str, efi: bool, netvsc: &[&str]) {
    tmpfs("/sys/class");
    let dmi = Path::new("/sys/class/dmi/id");
    fs::create_dir_all(dmi).unwrap();
    fs::write(dmi.join("chassis_asset_tag"), format!("{asset_tag}\n")).unwrap();
    fs::write(dmi.join("product_uuid"), format!("{uuid}\n")).unwrap();
    for name in netvsc {
        let device = Path::new("/sys/class/net").join(name).join("device");
        fs::create_dir_all(&device).unwrap();
        let driver = "../../../bus/vmbus/drivers/hv_netvsc";
        std::os::unix::fs::symlink(driver, device.join("driver")).unwrap();
    }
    tmpfs("/sys/firmware");
    if efi {
        fs::create_dir("/sys/firmware/efi").unwrap();
    }
}

/// Reads the report of the last run.
#[track_caller]
pub(crate) fn report() -> Report {
    let json = fs::read("/run/preroot/report.json").unwrap();
    Report::from_json(&json).expect("the report is whole")
}

/// Checks that an interface is as a network manager wants to find it: down and without address.
#[track_caller]
pub(crate) fn assert_at_rest(interface: &str) {
    let output = Command::new("ip")
        .args(["-o", "address", "show", "dev", interface])
        .output()
        .unwrap();
    assert!(output.status.success(), "{interface} is gone: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "addresses");
    assert!(!is_up(interface), "{interface} is still up");
}
/// Tells whether an interface is switched on.
#[track_caller]
pub(crate) fn is_up(interface: &str) -> bool {
    has_flag(interface, "UP")
}

/// Tells whether the kernel has told that an interface which is on has its cable.
#[track_caller]
pub(crate) fn has_cable(interface: &str) -> bool {
    !has_flag(interface, "NO-CARRIER")
}

#[track_caller]
fn has_flag(interface: &str, wanted: &str) -> bool {
    let output = Command::new("ip")
        .args(["-o", "link", "show", "dev", interface])
        .output()
        .unwrap();
    assert!(output.status.success(), "{interface} is gone: {output:?}");
    let line = String::from_utf8(output.stdout).unwrap();
    // `5: vm0@host0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu ...`
    let flags = line.split(['<', '>']).nth(1).unwrap();
    flags.split(',').any(|flag| flag == wanted)
}

/// Calls `each` for everything below a directory.
pub(crate) fn each_file(directory: &Path, each: &mut dyn FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let data = path.symlink_metadata().unwrap();
        each(&path, &data);
        if data.is_dir() {
            each_file(&path, each);
        }
    }
}

/// Mounts an empty file system.
pub(crate) fn tmpfs(path: impl AsRef<Path>) {
    rustix::mount::mount("tmpfs", path.as_ref(), "tmpfs", MountFlags::empty(), None).unwrap();
}

/// Makes a small Debian of the account files that the planner's tests have too.
fn copy_root(root: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/roots/debian");
    for directory in ["bin", "etc/sudoers.d", "home", "root", "tmp", "var/lib"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("bin/bash"), "").unwrap();
    each_file(&from, &mut |path, data| {
        let to = root.join(path.strip_prefix(&from).unwrap());
        if data.is_dir() {
            fs::create_dir_all(to).unwrap();
        } else {
            fs::copy(path, to).unwrap();
        }
    });
    // What a checkout does not keep.
    each_file(root, &mut |path, data| {
        let mode = if data.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    });
    let rights = [
        ("bin/bash", 0o755, 0),
        ("etc/shadow", 0o640, 42),
        ("etc/gshadow", 0o640, 42),
        ("etc/sudoers", 0o440, 0),
        ("etc/sudoers.d", 0o750, 0),
    ];
    for (path, mode, group) in rights {
        let path = root.join(path);
        chown(&path, Some(0), Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}
