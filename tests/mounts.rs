//! Mounts and the switch of the root, tried for real in mount namespaces of their own.
//!
//! Each test starts itself again below `unshare`, so the host's mounts are never touched. Without
//! root it takes a user namespace; where neither is allowed the tests say that they are skipped, and
//! fail when `CI` or `PREROOT_STRICT` is set.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chroot, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use preroot::linux::mount::{
    self, MountFault, Mounts, SwitchFault, api_file_systems, enter_real_root, find_init, mount_root,
};
use preroot::linux::sysfs;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

const INSIDE: &str = "PREROOT_TEST_INSIDE";

/// Runs `body` as the first process of new namespaces; `name` is the test's own.
fn in_namespace(name: &str, body: impl FnOnce(&Path)) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        let place = PathBuf::from(format!("/tmp/preroot-mounts-{name}"));
        let _ = fs::create_dir(&place);
        tmpfs(&place);
        body(&place);
        return;
    }
    let mut unshare = vec![
        "--mount",
        "--pid",
        "--fork",
        "--net",
        "--propagation",
        "private",
    ];
    if !rustix::process::geteuid().is_root() {
        unshare.push("--map-root-user");
    }
    let allowed = Command::new("unshare").args(&unshare).arg("true").output();
    if !allowed.as_ref().is_ok_and(|output| output.status.success()) {
        let strict = std::env::var_os("CI")
            .or(std::env::var_os("PREROOT_STRICT"))
            .is_some();
        assert!(!strict, "no namespaces: {allowed:?}");
        eprintln!("{name}: skipped, no namespaces here");
        return;
    }
    let status = Command::new("unshare")
        .args(&unshare)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .env(
            "PREROOT_TEST_AS_ROOT",
            if unshare.len() == 6 { "yes" } else { "no" },
        )
        .status()
        .unwrap();
    let _ = fs::remove_dir(format!("/tmp/preroot-mounts-{name}"));
    assert!(status.success(), "see above");
}

fn tmpfs(path: &Path) {
    rustix::mount::mount(
        "tmpfs",
        path.to_str().unwrap(),
        "tmpfs",
        MountFlags::empty(),
        None,
    )
    .unwrap();
}

fn write(path: &str, content: &str) {
    let path = Path::new(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn open(path: &str) -> OwnedFd {
    sysfs::open_directory(CWD, path).unwrap()
}

/// Lists a directory by its descriptor, wherever that is by now.
fn names(directory: &OwnedFd) -> Vec<String> {
    let mut names = Vec::new();
    sysfs::each_name(directory, &mut |name, _| names.push(name.to_string())).unwrap();
    names.sort();
    names
}

#[test]
fn the_kernels_file_systems_are_mounted_once() {
    in_namespace("the_kernels_file_systems_are_mounted_once", |place| {
        chroot(place).unwrap();
        rustix::process::chdir("/").unwrap();
        let expect = match std::env::var("PREROOT_TEST_AS_ROOT").as_deref() {
            Ok("yes") => Ok(()),
            // devtmpfs is for the real root only.
            _ => Err(mount::ApiFault {
                path: "/dev",
                errno: Errno::PERM,
            }),
        };
        assert_eq!(api_file_systems(), expect);
        assert!(Path::new("/proc/self/mountinfo").exists());
        assert!(Path::new("/sys/devices").exists());
        assert_eq!(Path::new("/dev/null").exists(), expect.is_ok());
        assert_eq!(fs::metadata("/run").unwrap().mode() & 0o7777, 0o755);

        fs::write("/run/here", "").unwrap();
        assert_eq!(api_file_systems(), expect);
        assert!(
            Path::new("/run/here").exists(),
            "a second tmpfs hides the first"
        );
        let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for path in ["/proc", "/sys", "/run"] {
            assert_eq!(list.matches(&format!(" {path} ")).count(), 1, "{list}");
        }
        assert!(
            list.lines()
                .any(|line| line.contains(" /run rw,nosuid,nodev - tmpfs")),
            "{list}"
        );
    });
}

#[test]
fn a_mount_wakes_the_watch_and_is_found() {
    in_namespace("a_mount_wakes_the_watch_and_is_found", |place| {
        let target = place.join("a b\\c");
        fs::create_dir(&target).unwrap();
        let path = target.to_str().unwrap();
        let mounts = Mounts::open().unwrap();
        let woken = || {
            let mut fds = [PollFd::new(&mounts, PollFlags::PRI)];
            let now = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            rustix::event::poll(&mut fds, Some(&now)).unwrap() > 0
        };
        assert!(!mounts.is_mount_point(path).unwrap());
        assert!(!woken());
        tmpfs(&target);
        assert!(woken());
        assert!(!woken(), "each change wakes once");
        assert!(mounts.is_mount_point(path).unwrap());
        assert!(mounts.is_mount_point(&format!("{path}/")).unwrap());
        assert!(!mounts.is_mount_point(&path[..path.len() - 1]).unwrap());
        mount::unmount(path).unwrap();
        assert!(woken());
        assert!(!mounts.is_mount_point(path).unwrap());
    });
}

#[test]
fn a_mount_is_found_among_thousands_of_long_lines() {
    in_namespace("a_mount_is_found_among_thousands_of_long_lines", |place| {
        let mut last = PathBuf::new();
        for number in 0..300 {
            last = place.join(format!("{}-{number}", "x".repeat(200)));
            fs::create_dir(&last).unwrap();
            tmpfs(&last);
        }
        let mounts = Mounts::open().unwrap();
        assert!(mounts.is_mount_point(last.to_str().unwrap()).unwrap());
        assert!(
            !mounts
                .is_mount_point(place.join("x").to_str().unwrap())
                .unwrap()
        );
    });
}

#[test]
fn root_options_reach_the_kernel_and_survive_a_remount() {
    in_namespace(
        "root_options_reach_the_kernel_and_survive_a_remount",
        |place| {
            let target = place.join("root");
            let path = target.to_str().unwrap();
            let mounted = mount_root(
                "none",
                &["nosuchfs", "tmpfs"],
                false,
                "nodev,mode=0711,noatime",
                path,
            )
            .unwrap();
            assert_eq!(
                (mounted.kind.to_string().as_str(), mounted.read_only),
                ("tmpfs", true)
            );
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o711);
            let used = || rustix::fs::statvfs(path).unwrap().f_flag;
            let kept = StatVfsMountFlags::NODEV | StatVfsMountFlags::NOATIME;
            assert!(used().contains(kept | StatVfsMountFlags::RDONLY));

            mount::remount(path, true).unwrap();
            assert!(used().contains(kept) && !used().contains(StatVfsMountFlags::RDONLY));
            fs::write(target.join("x"), "").unwrap();
            mount::remount(path, false).unwrap();
            assert!(used().contains(kept | StatVfsMountFlags::RDONLY));
            assert!(fs::write(target.join("y"), "").is_err());

            let fault = mount_root("none", &["nosuchfs"], false, "", path).unwrap_err();
            assert!(matches!(fault, MountFault::UnknownType(_)));
            assert_eq!(
                fault.to_string(),
                "the kernel has no nosuchfs file system; is its module in the initramfs?"
            );
            let fault = mount_root("none", &["tmpfs"], false, "nosuchoption=1", path).unwrap_err();
            assert!(matches!(fault, MountFault::NotThatType(_)), "{fault:?}");
            let nowhere = place.join("no/where");
            let fault = mount_root("none", &["tmpfs"], false, "", nowhere.to_str().unwrap());
            assert_eq!(fault, Err(MountFault::NoTarget));
        },
    );
}

/// Makes an initramfs in memory with a root on `/sysroot` and enters the former.
fn initramfs(place: &Path) {
    chroot(place).unwrap();
    rustix::process::chdir("/").unwrap();
    for (path, content) in [
        ("/init", "x"),
        ("/lib/modules/6/a/b/c.ko", "x"),
        ("/bin/tool", "x"),
    ] {
        write(path, content);
    }
    symlink("bin", "/sbin").unwrap();
    for api in ["/dev", "/proc", "/run", "/kept", "/sysroot"] {
        fs::create_dir(api).unwrap();
        tmpfs(Path::new(api));
        write(&format!("{api}/marker"), api);
    }
    write("/sysroot/usr/sbin/init", "");
    fs::set_permissions("/sysroot/usr/sbin/init", fs::Permissions::from_mode(0o755)).unwrap();
    symlink("usr/sbin", "/sysroot/sbin").unwrap();
}

#[test]
fn the_real_root_is_entered_and_the_initramfs_emptied() {
    in_namespace(
        "the_real_root_is_entered_and_the_initramfs_emptied",
        |place| {
            initramfs(place);
            fs::create_dir("/sysroot/dev").unwrap();
            fs::create_dir("/sysroot/proc").unwrap();
            let old = open("/");
            let kept = open("/kept");

            // init, lib modules 6 a b c.ko, bin tool, sbin, dev proc run sysroot.
            assert_eq!(enter_real_root("/sysroot"), Ok(14));

            assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
            for api in ["/dev", "/proc", "/run"] {
                assert_eq!(fs::read_to_string(format!("{api}/marker")).unwrap(), api);
            }
            assert_eq!(fs::read_to_string("/marker").unwrap(), "/sysroot");
            assert!(
                !Path::new("/sys").exists(),
                "what was not mounted is not moved"
            );
            let root = open("/");
            assert_eq!(find_init(root.as_fd(), None), Ok("/sbin/init"));
            assert_eq!(names(&old), ["kept"]);
            assert_eq!(names(&kept), ["marker"], "another file system was emptied");
        },
    );
}

#[test]
fn what_has_no_place_in_a_read_only_root_is_taken_off() {
    in_namespace(
        "what_has_no_place_in_a_read_only_root_is_taken_off",
        |place| {
            initramfs(place);
            fs::create_dir("/sysroot/dev").unwrap();
            symlink("dev", "/sysroot/proc").unwrap();
            mount::remount("/sysroot", false).unwrap();

            enter_real_root("/sysroot").unwrap();

            assert_eq!(fs::read_to_string("/dev/marker").unwrap(), "/dev");
            assert!(!Path::new("/run").exists());
            assert_eq!(names(&open("/")), ["dev", "marker", "proc", "sbin", "usr"]);
        },
    );
}

#[test]
fn a_place_that_is_taken_is_left_alone() {
    in_namespace("a_place_that_is_taken_is_left_alone", |place| {
        initramfs(place);
        fs::create_dir("/sysroot/run").unwrap();
        tmpfs(Path::new("/sysroot/run"));
        write("/sysroot/run/marker", "the root's own");

        enter_real_root("/sysroot").unwrap();

        assert_eq!(fs::read_to_string("/run/marker").unwrap(), "the root's own");
    });
}

#[test]
fn an_initramfs_survives_a_switch_that_cannot_happen() {
    in_namespace(
        "an_initramfs_survives_a_switch_that_cannot_happen",
        |place| {
            initramfs(place);
            fs::create_dir("/empty").unwrap();
            assert_eq!(enter_real_root("/empty"), Err(SwitchFault::NotMounted));
            assert_eq!(
                enter_real_root("/absent"),
                Err(SwitchFault::NoDirectory(Errno::NOENT))
            );
            assert!(Path::new("/lib/modules/6/a/b/c.ko").exists());
            assert_eq!(fs::read_to_string("/dev/marker").unwrap(), "/dev");
        },
    );
}
