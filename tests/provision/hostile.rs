//! Roots that lead elsewhere, and roots that take no writes: nothing outside the root is ever written,
//! and what cannot be done is said before anything is done by half.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::healthy::with_key;
use crate::machine::{Machine, each_file, on_machine, tmpfs};

/// Everything that we write or write in, and whether it is a directory.
const WRITTEN: [(&str, bool); 24] = [
    ("etc", true),
    ("etc/hostname", false),
    ("etc/passwd", false),
    ("etc/shadow", false),
    ("etc/group", false),
    ("etc/gshadow", false),
    ("etc/subuid", false),
    ("etc/subgid", false),
    ("etc/.pwd.lock", false),
    ("etc/sudoers", false),
    ("etc/sudoers.d", true),
    ("etc/sudoers.d/preroot", false),
    ("etc/ssh", true),
    ("etc/ssh/sshd_config", false),
    ("etc/ssh/sshd_config.d", true),
    ("home", true),
    ("home/opsadmin", true),
    ("home/opsadmin/.ssh", true),
    ("home/opsadmin/.ssh/authorized_keys", false),
    ("home/opsadmin/.bashrc", false),
    ("var", true),
    ("var/lib", true),
    ("var/lib/preroot", true),
    ("var/lib/preroot/configured", false),
];

/// Where a planted link leads, but for the name at its end.
const TARGETS: [&str; 5] = [
    "/run/machine/outside/",
    "../../../../../../../../run/machine/outside/",
    "/proc/self/root/run/machine/outside/",
    "/proc/1/cwd/../../run/machine/outside/",
    "/nowhere/at/all/",
];

/// Takes down everything below a directory, times and owners included.
fn picture(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut picture = BTreeMap::new();
    each_file(directory, &mut |path, data| {
        let content = fs::read(path).unwrap_or_default();
        let line = format!(
            "{:o} {}:{} {} {}.{} {content:?}",
            data.mode(),
            data.uid(),
            data.gid(),
            data.ino(),
            data.ctime(),
            data.ctime_nsec(),
        );
        picture.insert(path.to_owned(), line);
    });
    picture
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.unwrap().success());
}

/// Makes sure that not even a broken program writes to the machine of whoever runs the tests.
fn protect_host() {
    // Other file systems than this one are not in any link.
    let _ = rustix::mount::mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"");
}

/// Provisions a copy of the root after `change`; gives where that is and the exit code.
fn provision(machine: &Machine, change: impl FnOnce(&Path)) -> (PathBuf, i32) {
    let root = machine.place().join("case");
    let _ = fs::remove_dir_all(&root);
    copy(&machine.root(), &root);
    change(&root);
    // A root of a running system has one, and that is where the magic links are.
    fs::create_dir(root.join("proc")).unwrap();
    rustix::mount::mount_bind("/proc", root.join("proc")).unwrap();
    let run = machine.provision(&["--ready=never", "--root", root.to_str().unwrap()]);
    rustix::mount::unmount(root.join("proc"), UnmountFlags::DETACH).unwrap();
    // Only what is outside takes no writes: whoever hears so has tried.
    assert!(!run.stderr.contains("read-only file system"), "{run}");
    (root, run.status.code().unwrap())
}

#[test]
fn no_planted_link_leads_out_of_the_root() {
    on_machine(|machine| {
        protect_host();
        machine.insert(&with_key());
        let base = machine.root();
        fs::create_dir_all(base.join("etc/ssh/sshd_config.d")).unwrap();
        fs::write(base.join("etc/ssh/sshd_config"), "UsePAM yes\n").unwrap();
        // What the links lead to is as inviting as can be.
        let outside = machine.place().join("outside");
        fs::create_dir(&outside).unwrap();
        for (path, is_directory) in WRITTEN {
            let (from, to) = (
                base.join(path),
                outside.join(path.rsplit('/').next().unwrap()),
            );
            if to.exists() {
                continue;
            }
            match (from.exists(), is_directory) {
                (true, _) => copy(&from, &to),
                (false, true) => fs::create_dir_all(to).unwrap(),
                (false, false) => fs::write(to, "keep\n").unwrap(),
            }
        }
        let before = picture(&outside);
        let mut done = 0;
        for (path, _) in WRITTEN {
            let name = path.rsplit('/').next().unwrap();
            let targets = TARGETS.map(|target| format!("{target}{name}"));
            for target in targets.iter().map(String::as_str).chain(["/", "../.."]) {
                let (root, code) = provision(machine, |root| {
                    let place = root.join(path);
                    let _ = fs::remove_file(&place);
                    let _ = fs::remove_dir_all(&place);
                    fs::create_dir_all(place.parent().unwrap()).unwrap();
                    symlink(target, place).unwrap();
                });
                assert!(matches!(code, 0 | 111), "{path} -> {target}: {code}");
                assert_eq!(picture(&outside), before, "{path} -> {target}");
                // Whoever succeeds has done it below the root, wherever the link leads there.
                let mut configured = false;
                each_file(&root, &mut |path, _| {
                    configured |= path.ends_with("configured");
                });
                assert!(code != 0 || configured, "{path} -> {target}");
                done += u32::from(code == 0);
            }
        }
        // Most links lead to nothing inside, and then the file cannot be written; but not all.
        assert!(done > 20, "{done}");
    });
}

#[test]
fn links_of_the_system_are_followed_inside_the_root() {
    on_machine(|machine| {
        protect_host();
        machine.insert(&with_key());
        for target in ["/usr/home", "../usr/home", "../../../../usr/home"] {
            let (root, code) = provision(machine, |root| {
                fs::create_dir_all(root.join("usr/home")).unwrap();
                fs::create_dir_all(root.join("usr/etc")).unwrap();
                fs::remove_dir(root.join("home")).unwrap();
                symlink(target, root.join("home")).unwrap();
                fs::remove_file(root.join("etc/hostname")).unwrap();
                symlink("/usr/etc/name", root.join("etc/hostname")).unwrap();
            });
            assert_eq!(code, 0, "{target}");
            assert!(root.join("usr/home/opsadmin/.ssh/authorized_keys").exists());
            assert_eq!(
                fs::read_to_string(root.join("usr/etc/name")).unwrap(),
                "vm-net01\n"
            );
            assert!(root.join("etc/hostname").is_symlink());
        }
    });
}

/// Makes a directory of the root one that takes no writes.
fn freeze(path: &Path) {
    rustix::mount::mount_bind(path, path).unwrap();
    rustix::mount::mount_remount(path, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
}

#[test]
fn directory_that_takes_no_writes_is_named_and_nothing_is_written() {
    on_machine(|machine| {
        machine.insert(&with_key());
        for (path, named) in [
            (
                "etc",
                "/etc/group: the account files cannot be locked (read-only file system)",
            ),
            (
                "home",
                "/home/opsadmin: it cannot be created (read-only file system)",
            ),
            (
                "var",
                "/var/lib/preroot: it cannot be created (read-only file system)",
            ),
        ] {
            let _ = fs::remove_dir_all(machine.root().join("var/lib/preroot"));
            freeze(&machine.root().join(path));
            let before = machine.picture();
            machine
                .provision(&["--ready=never"])
                .exits(111)
                .says(named)
                .says("fix=\"give the image a writable /etc, /var and /home");
            let after = machine.picture();
            for (path, was) in &before {
                // In directories names came and went again.
                let end = if path.is_dir() { " size" } else { " mtime" };
                let words = |line: &str| line.split(end).next().unwrap().to_owned();
                assert_eq!(words(&after[path]), words(was), "{}", path.display());
            }
            // The lock, and the report of the failure.
            let allowed =
                ["etc/.pwd.lock", "var/lib/preroot"].map(|path| machine.root().join(path));
            let allowed = |path: &Path| allowed.iter().any(|may| path.starts_with(may));
            let more: Vec<_> = after
                .keys()
                .filter(|path| !before.contains_key(*path) && !allowed(path))
                .collect();
            assert_eq!(more, [""; 0].map(Path::new));
            rustix::mount::unmount(machine.root().join(path), UnmountFlags::DETACH).unwrap();
        }
    });
}

#[test]
fn image_that_is_read_only_for_good_is_provisioned_where_it_takes_writes() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let root = machine.root();
        let etc = machine.place().join("etc");
        copy(&root.join("etc"), &etc);
        // As ostree, Flatcar and others have it: writable parts on a root that is not.
        rustix::mount::mount_bind(&root, &root).unwrap();
        rustix::mount::mount_bind(&etc, root.join("etc")).unwrap();
        tmpfs(root.join("var"));
        tmpfs(root.join("home"));
        fs::create_dir(root.join("var/lib")).unwrap();
        rustix::mount::mount_remount(&root, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        machine.provision(&["--ready=never"]).exits(0);
        assert!(machine.has("home/opsadmin/.ssh/authorized_keys"));
        assert!(machine.has("var/lib/preroot/configured"));
    });
}

#[test]
fn what_is_no_installed_system_is_named_for_what_it_is() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let root = machine.root();
        fs::remove_file(root.join("etc/passwd")).unwrap();
        let said = "failed: /etc/passwd is missing in the root";
        let signs = [
            ("tmp/nothing", said.to_owned() + " fix="),
            (
                "usr/lib/passwd",
                said.to_owned() + ": its accounts are in /usr/lib/passwd fix=",
            ),
            (
                "ostree/repo",
                said.to_owned() + ": it is an ostree without its deployment fix=",
            ),
        ];
        for (sign, said) in signs {
            fs::create_dir_all(root.join(sign).parent().unwrap()).unwrap();
            fs::write(root.join(sign), "").unwrap();
            let before = machine.picture();
            machine.provision(&["--ready=never"]).exits(111).says(&said);
            let mut after = machine.picture();
            // The report of the failure is all.
            after.retain(|path, _| before.contains_key(path));
            let differs = |path: &&PathBuf| before[*path] != after[*path];
            let changed: Vec<_> = before.keys().filter(differs).collect();
            assert!(
                changed
                    .iter()
                    .all(|path| path.starts_with(root.join("var"))),
                "{changed:?}"
            );
        }
    });
}
