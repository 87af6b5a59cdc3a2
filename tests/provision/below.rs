//! Roots of more than one file system: what fstab mounts later is written to where it will be seen.
//!
//! The file systems are real ones in loop devices, which takes root; elsewhere those tests say that
//! they are skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::credentials::{immutable, uncover};
use crate::healthy::with_key;
use crate::machine::{KEY, Machine, USER, VM_ID, on_machine};

/// A file system in a file, on a loop device for as long as it lives.
struct Disk {
    device: PathBuf,
}

impl Disk {
    /// Makes one with a label; nothing where there are no loop devices to be had.
    fn new(machine: &Machine, label: &str) -> Option<Self> {
        let image = machine.place().join(format!("{label}.img"));
        fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        run("mke2fs", &["-q", "-t", "ext4", "-L", label], &image)?;
        let device = run("losetup", &["--find", "--show"], &image)?;
        Some(Self {
            device: PathBuf::from(device.trim()),
        })
    }

    /// Shows what is on it.
    fn look(&self, body: impl FnOnce(&Path)) {
        let place = Path::new("/run/look");
        fs::create_dir_all(place).unwrap();
        rustix::mount::mount(&self.device, place, "ext4", MountFlags::empty(), None).unwrap();
        body(place);
        rustix::mount::unmount(place, UnmountFlags::empty()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("losetup", &["--detach"], &self.device);
    }
}

fn run(program: &str, arguments: &[&str], last: &Path) -> Option<String> {
    let sbin = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program)
        .args(arguments)
        .arg(last)
        .env("PATH", sbin)
        .output()
        .ok()?;
    if !output.status.success() {
        println!("skipped: {program}: {output:?}");
        return None;
    }
    Some(String::from_utf8(output.stdout).unwrap())
}

fn mounts() -> Vec<String> {
    let list = fs::read_to_string("/proc/self/mounts").unwrap();
    list.lines().map(String::from).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lost+found")
        .collect();
    names.sort();
    names
}

#[test]
fn home_and_var_of_their_own_are_mounted_for_the_work_and_no_longer() {
    on_machine(|machine| {
        let disks = (Disk::new(machine, "home disk"), Disk::new(machine, "var"));
        let (Some(home), Some(var)) = disks else {
            return;
        };
        var.look(|place| fs::create_dir(place.join("lib")).unwrap());
        let device = var.device.display();
        let fstab = format!(
            "# the usual\nUUID=x / ext4 defaults 0 1\n\
             LABEL=home\\040disk\t/home/ ext4 noatime,nofail 0 2\n{device} /var auto defaults 0 2\n"
        );
        fs::write(machine.root().join("etc/fstab"), fstab).unwrap();
        machine.insert(&with_key());
        let before = mounts();
        machine
            .provision(&["--ready=never"])
            .exits(0)
            .never_says("note:");
        assert_eq!(mounts(), before);
        // Below the mounts nothing was written.
        assert_eq!(names(&machine.root().join("home")), [""; 0]);
        assert_eq!(names(&machine.root().join("var/lib")), [""; 0]);
        home.look(|place| {
            let keys = place.join(USER).join(".ssh/authorized_keys");
            assert_eq!(fs::read_to_string(keys).unwrap(), format!("{KEY}\n"));
        });
        var.look(|place| {
            let configured = fs::read_to_string(place.join("lib/preroot/configured"));
            assert_eq!(configured.unwrap().trim(), VM_ID);
            assert!(place.join("lib/preroot/report.json").exists());
        });
        // The marker is found again where it was written.
        let before = machine.picture();
        machine
            .provision(&["--ready=never"])
            .exits(0)
            .says("nothing to do");
        assert_eq!(machine.picture(), before);
    });
}

#[test]
fn root_that_is_read_only_is_so_again_with_all_below_it_gone() {
    on_machine(|machine| {
        let Some(home) = Disk::new(machine, "home") else {
            return;
        };
        let root = machine.root();
        let fstab = format!("{} /home ext4 defaults 0 2\n", home.device.display());
        fs::write(root.join("etc/fstab"), fstab).unwrap();
        machine.insert(&with_key());
        rustix::mount::mount_bind(&root, &root).unwrap();
        rustix::mount::mount_remount(&root, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        let before = mounts();
        machine
            .provision(&["--ready=never"])
            .exits(0)
            .says("root remounted writable for now");
        assert_eq!(mounts(), before);
        home.look(|place| assert_eq!(names(place), [USER]));
    });
}

#[test]
fn host_name_over_a_read_only_root_is_there_for_all() {
    on_machine(|machine| {
        let Some(var) = Disk::new(machine, "var") else {
            return;
        };
        immutable(
            machine,
            257,
            &format!("{} /var ext4 defaults 0 2\n", var.device.display()),
        );
        machine.insert(&with_key());
        let before = mounts();
        machine
            .provision(&["--ready=never"])
            .exits(0)
            .never_says("stays");
        assert_eq!(mounts().len(), before.len() + 1);
        uncover(machine);
        assert_eq!(mounts(), before);
        var.look(|place| assert_eq!(names(place), [""; 0]));
    });
}

#[test]
fn what_cannot_be_mounted_is_named_and_stops_nothing() {
    on_machine(|machine| {
        let fstab = "server:/export/home /home nfs defaults 0 0\n\
                     UUID=00000000-1111-2222-3333-444444444444 /var ext4 defaults 0 2\n\
                     /usr/local/x /usr none bind 0 0\n\
                     LABEL=nobody /var/lib ext4 nofail 0 2\n\
                     /dev/nobody /srv ext4 defaults 0 2\n\
                     LABEL=nobody /var/home ext4 noauto 0 2\n";
        fs::write(machine.root().join("etc/fstab"), fstab).unwrap();
        fs::create_dir_all(machine.root().join("usr")).unwrap();
        machine.insert(&with_key());
        let run = machine.provision(&["--ready=never"]);
        run.exits(0)
            .says("note: /home of fstab is not mounted: it is no file system on a device")
            .says("note: /var of fstab is not mounted: its device is not there, or locked")
            .says("note: /usr of fstab is not mounted: it is no file system on a device")
            .says("note: the home directory is on a file system of fstab that is not mounted");
        assert_eq!(
            run.stderr.matches("of fstab is not mounted").count(),
            3,
            "{run}"
        );
        assert!(machine.has("home/opsadmin/.ssh/authorized_keys"));
    });
}
