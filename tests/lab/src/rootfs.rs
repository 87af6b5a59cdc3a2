//! The root disk that the lab boots: small, but of the distribution's own files.
//!
//! Accounts, login defaults, sudoers and tools are unpacked from the packages, so that what is
//! written into this root meets real neighbours; only its init, `data/init.sh`, is ours. Nothing is
//! mounted and no privilege is needed: `mke2fs -d` makes the file system from a directory and
//! `debugfs` gives every file its owner.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::apt::Apt;
use crate::arch::Arch;
use crate::ext4;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, list, remove_directory, unpack};
use crate::progress::{self, Step};

/// The UUID of the file system, for `root=`.
pub const UUID: &str = "5d1c7f0e-8a43-4a8e-9a55-0c0ffee0a2ef";

/// How large the disk is; the journal needs 4 MB of it.
const SIZE: &str = "64M";

/// The one time of everything in the image, so that it is the same for everybody: 2026-01-01.
const TIME: &str = "1767225600";

/// The same in days, for the accounts' last change of password.
const DAY: &str = "20454";

const INIT: &str = include_str!("../data/init.sh");

/// What the image is made from: when this changes, it is made again.
const RECIPE: [&str; 2] = [INIT, include_str!("rootfs.rs")];

/// The packages whose files are in the image.
const PACKAGES: [&str; 8] = [
    "base-files",
    "base-passwd",
    "bash",
    "busybox-static",
    "login",
    "openssh-client",
    "passwd",
    "sudo",
];

/// Packages that those depend on for being installed, not for being run.
const UNWANTED: [&str; 10] = [
    "debconf",
    "dpkg",
    "init-system",
    "libfile",
    "libperl",
    "libtext",
    "mawk",
    "perl",
    "tar",
    "usrmerge",
];

/// Files taken as they are: from where in the packages, to where in the image, with what mode.
const FILES: &[(&str, &str, u32)] = &[
    ("usr/share/base-files/profile", "etc/profile", 0o644),
    (
        "usr/share/base-files/nsswitch.conf",
        "etc/nsswitch.conf",
        0o644,
    ),
    ("usr/lib/os-release", "usr/lib/os-release", 0o644),
    ("etc/debian_version", "etc/debian_version", 0o644),
    ("etc/login.defs", "etc/login.defs", 0o644),
    ("etc/default/useradd", "etc/default/useradd", 0o644),
    ("etc/skel/.bash_logout", "etc/skel/.bash_logout", 0o644),
    ("etc/skel/.bashrc", "etc/skel/.bashrc", 0o644),
    ("etc/skel/.profile", "etc/skel/.profile", 0o644),
    ("etc/sudoers", "etc/sudoers", 0o440),
    ("etc/sudoers.d/README", "etc/sudoers.d/README", 0o440),
    (
        "usr/share/openssh/sshd_config",
        "etc/ssh/sshd_config",
        0o644,
    ),
];

/// Files that a distribution may not have.
const MAY_BE_ABSENT: [&str; 2] = ["etc/debian_version", "usr/share/base-files/nsswitch.conf"];

/// Programs, each with the libraries that it loads.
const PROGRAMS: &[(&str, &str)] = &[
    ("bin/bash", "usr/bin/bash"),
    ("usr/bin/ssh-keygen", "usr/bin/ssh-keygen"),
    ("usr/sbin/visudo", "usr/sbin/visudo"),
];

/// Empty directories, with their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc/ssh/sshd_config.d", 0o755),
    ("etc/sudoers.d", 0o750),
    ("home", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/share", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// Small files of our own.
const TEXTS: &[(&str, &str, u32)] = &[
    (
        "etc/fstab",
        "# The root is mounted by the initramfs.\n",
        0o644,
    ),
    ("etc/hostname", "localhost\n", 0o644),
    (
        "etc/hosts",
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        0o644,
    ),
    ("etc/machine-id", "", 0o444),
    (
        "etc/shells",
        "/bin/sh\n/usr/bin/sh\n/bin/bash\n/usr/bin/bash\n",
        0o644,
    ),
    ("usr/sbin/init", INIT, 0o755),
];

/// What a merged `/usr` has for links.
const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("etc/os-release", "../usr/lib/os-release"),
    ("etc/mtab", "../proc/self/mounts"),
    ("var/run", "/run"),
];

/// What busybox could be and is not here: another init, a package manager, what accounts and
/// networks are made with. A real system of this size would not have them either.
const NOT_BUSYBOX: [&str; 13] = [
    "busybox", "dpkg", "dpkg-deb", "ifdown", "ifup", "init", "linuxrc", "login", "nologin",
    "passwd", "rpm", "run-init", "udhcpc",
];

/// Directories with libraries that are not where the loader looks.
const PRIVATE_LIBRARIES: [&str; 2] = ["usr/libexec/sudo", "usr/lib/sudo"];

/// The group that may read the password file.
const SHADOW_GROUP: u32 = 42;

/// Gives the root disk for a machine, made anew if its recipe has changed.
///
/// The file is the lab's own: copy it before anything writes to it.
pub fn image(lab: &Lab, arch: Arch) -> Result<PathBuf, Fault> {
    let name = arch.traits().debian;
    let mut hash = Sha256::new();
    for part in RECIPE {
        hash.update(part);
    }
    let key = hash
        .finalize()
        .iter()
        .take(6)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
    let prefix = format!("root-{name}-");
    let image = lab.directory().join(format!("{prefix}{key}.ext4"));
    if image.is_file() {
        return Ok(image);
    }
    let (mke2fs, debugfs) = (lab.tool("mke2fs")?, lab.tool("debugfs")?);
    let emulator = if Arch::host() == Some(arch) {
        None
    } else {
        Some(lab.tool(arch.traits().user)?)
    };
    let _lock = lab.lock()?;
    if image.is_file() {
        return Ok(image);
    }
    let packages = packages(lab, arch)?;
    let mut step = Step::begin(format!("making the root disk for {name} (ext4, {SIZE}B)"));
    let tree = lab.directory().join(format!("root-{name}.tree"));
    remove_directory(&tree)?;
    let loader = Loader {
        packages: &packages,
        arch,
        emulator: emulator.as_ref().map(crate::fetch::Tool::program),
    };
    populate(&tree, &loader)?;
    settle_modes(&tree)?;

    let part = image.with_extension("part");
    let _ = fs::remove_file(&part);
    let mut command = mke2fs.command();
    command
        .env("E2FSPROGS_FAKE_TIME", TIME)
        .env("SOURCE_DATE_EPOCH", TIME);
    command.args([
        "-q", "-t", "ext4", "-L", "lab-root", "-U", UUID, "-I", "256", "-b", "4096", "-m", "0",
    ]);
    command
        .arg("-E")
        .arg(format!("root_owner=0:0,hash_seed={UUID}"));
    command.arg("-d").arg(&tree).arg(&part).arg(SIZE);
    step.run(&mut command, &String::new)?;
    // Who made the directory owns it, and an ordinary user cannot give files away: the image is
    // told instead.
    let mut script = String::new();
    write_owners(&tree, &tree, &mut script);
    let mut command = debugfs.command();
    command.env("E2FSPROGS_FAKE_TIME", TIME);
    ext4::edit(command, &part, &script)?;
    remove_directory(&tree)?;
    for old in list(lab.directory()) {
        let old_name = old.file_name().unwrap_or_default().to_string_lossy();
        if old_name.starts_with(&prefix) && old_name.ends_with(".ext4") {
            fs::remove_file(&old).map_err(Fault::file("remove", &old))?;
        }
    }
    fs::rename(&part, &image).map_err(Fault::file("rename", &part))?;
    step.end();
    Ok(image)
}

/// Downloads and unpacks what the image is made from.
fn packages(lab: &Lab, arch: Arch) -> Result<PathBuf, Fault> {
    let tree = lab
        .directory()
        .join(format!("root-{}.packages", arch.traits().debian));
    if tree.is_dir() {
        return Ok(tree);
    }
    if crate::fetch::on_path("apt-get").is_none() {
        return Err(Fault::Missing {
            what: "the root disk".to_owned(),
            fix: "it is made from Debian's or Ubuntu's packages; give one with --root-disk"
                .to_owned(),
        });
    }
    let apt = Apt::for_guest(lab, arch)?;
    let wanted = |name: &str| !UNWANTED.iter().any(|prefix| name.starts_with(prefix));
    let mut archives = apt.with_dependencies_but(&PACKAGES, wanted)?;
    // Only its configuration is used, and it needs far more than that.
    archives.extend(apt.alone(&["openssh-server"])?);
    unpack(&archives, &tree, |_| true)?;
    Ok(tree)
}

/// The guest's own loader, which knows what libraries a program loads.
struct Loader<'a> {
    packages: &'a Path,
    arch: Arch,
    emulator: Option<&'a Path>,
}

impl Loader<'_> {
    /// Finds a file below the merged or the unmerged `/usr`.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let bare = path.strip_prefix("usr/").unwrap_or(path);
        [
            self.packages.join("usr").join(bare),
            self.packages.join(bare),
            self.packages.join(path),
        ]
        .into_iter()
        .find(|file| file.is_file())
    }

    /// Gives the loader's file.
    fn file(&self) -> Result<PathBuf, Fault> {
        let traits = self.arch.traits();
        let path = format!("lib/{}/{}", traits.multiarch, traits.loader);
        self.find(&path).ok_or_else(|| Fault::Content {
            path: self.packages.to_owned(),
            why: format!("no {path} in it"),
        })
    }

    /// Starts a command line of a program of the guest, which the host may not be able to run.
    fn native(&self, program: &Path) -> Command {
        let Some(emulator) = self.emulator else {
            return Command::new(program);
        };
        let mut command = Command::new(emulator);
        command.arg(program);
        command
    }

    /// Lists the libraries that a program loads.
    fn libraries(&self, program: &Path) -> Result<Vec<PathBuf>, Fault> {
        let multiarch = self.arch.traits().multiarch;
        let mut path = String::new();
        let usual = ["usr/lib", "lib"].map(|lib| format!("{lib}/{multiarch}"));
        for directory in usual.iter().map(String::as_str).chain(PRIVATE_LIBRARIES) {
            let _ = write!(path, "{}:", self.packages.join(directory).display());
        }
        let mut command = self.native(&self.file()?);
        command
            .arg("--library-path")
            .arg(path.trim_end_matches(':'))
            .arg("--list")
            .arg(program);
        Ok(progress::run(&mut command)?
            .lines()
            .filter_map(parse_library)
            .collect())
    }
}

/// Reads a line `libc.so.6 => /lib/libc.so.6 (0x...)` of the loader.
fn parse_library(line: &str) -> Option<PathBuf> {
    let (_, path) = line.split_once(" => ")?;
    Some(PathBuf::from(path.split(" (0x").next()?))
}

/// Fills the directory that becomes the image.
fn populate(tree: &Path, loader: &Loader<'_>) -> Result<(), Fault> {
    let multiarch = loader.arch.traits().multiarch;
    for directory in ["etc", "usr/bin", "usr/sbin", "usr/lib64"] {
        create_directory(&tree.join(directory))?;
    }
    create_directory(&tree.join("usr/lib").join(multiarch))?;
    for (link, target) in LINKS {
        put_link(&tree.join(link), target)?;
    }
    for (path, _) in DIRECTORIES {
        create_directory(&tree.join(path))?;
    }
    for (from, to, mode) in FILES {
        match loader.find(from) {
            Some(file) => put(&tree.join(to), &read_file(&file)?, *mode)?,
            None if MAY_BE_ABSENT.contains(from) => {}
            None => {
                return Err(Fault::Content {
                    path: loader.packages.to_owned(),
                    why: format!("no {from} in it"),
                });
            }
        }
    }
    for (path, text, mode) in TEXTS {
        put(&tree.join(path), text.as_bytes(), *mode)?;
    }
    let need = |path: &str| {
        loader.find(path).ok_or_else(|| Fault::Content {
            path: loader.packages.to_owned(),
            why: format!("no {path} in it"),
        })
    };
    let busybox = need("usr/bin/busybox")?;
    put(&tree.join("usr/bin/busybox"), &read_file(&busybox)?, 0o755)?;
    let applets = progress::run(loader.native(&busybox).arg("--list"))?;
    for applet in applets.lines().filter(|name| !NOT_BUSYBOX.contains(name)) {
        put_link(&tree.join("usr/bin").join(applet), "busybox")?;
    }
    put_link(&tree.join("usr/sbin/nologin"), "../bin/busybox")?;
    let loader_file = loader.file()?;
    let in_image = format!("usr/lib/{multiarch}/{}", loader.arch.traits().loader);
    put(&tree.join(&in_image), &read_file(&loader_file)?, 0o755)?;
    // Programs name the loader in one of these two directories.
    for directory in ["usr/lib", "usr/lib64"] {
        let link = tree.join(directory).join(loader.arch.traits().loader);
        put_link(&link, &format!("/{in_image}"))?;
    }
    for (from, to) in PROGRAMS {
        let program = need(from)?;
        put(&tree.join(to), &read_file(&program)?, 0o755)?;
        for library in loader.libraries(&program)? {
            let name = library.file_name().unwrap_or_default();
            let to = tree.join("usr/lib").join(multiarch).join(name);
            put(&to, &read_file(&library)?, 0o644)?;
        }
    }
    let text = |path: &str| -> Result<String, Fault> {
        let path = need(path)?;
        fs::read_to_string(&path).map_err(Fault::file("read", &path))
    };
    let (passwd, shadow) = with_shadow(&text("usr/share/base-passwd/passwd.master")?);
    let (group, gshadow) = with_group_shadow(&text("usr/share/base-passwd/group.master")?);
    put(&tree.join("etc/passwd"), passwd.as_bytes(), 0o644)?;
    put(&tree.join("etc/group"), group.as_bytes(), 0o644)?;
    put(&tree.join("etc/shadow"), shadow.as_bytes(), 0o640)?;
    put(&tree.join("etc/gshadow"), gshadow.as_bytes(), 0o640)
}

/// Gives every directory its mode, whatever the umask of who made it.
fn settle_modes(tree: &Path) -> Result<(), Fault> {
    fn walk(directory: &Path) -> Result<(), Fault> {
        set_mode(directory, 0o755)?;
        list(directory)
            .iter()
            .filter(|p| p.is_dir() && !p.is_symlink())
            .try_for_each(|p| walk(p))
    }
    walk(tree)?;
    DIRECTORIES
        .iter()
        .try_for_each(|(path, mode)| set_mode(&tree.join(path), *mode))
}

/// Moves the passwords of a fresh passwd file to a shadow file, as `pwconv` does.
fn with_shadow(master: &str) -> (String, String) {
    let (mut passwd, mut shadow) = (String::new(), String::new());
    for line in master.lines() {
        let mut fields = line.splitn(3, ':');
        if let (Some(name), Some(password), Some(rest)) =
            (fields.next(), fields.next(), fields.next())
        {
            let _ = writeln!(passwd, "{name}:x:{rest}");
            let _ = writeln!(shadow, "{name}:{password}:{DAY}:0:99999:7:::");
        }
    }
    (passwd, shadow)
}

/// Moves the passwords of a fresh group file to a gshadow file, as `grpconv` does.
fn with_group_shadow(master: &str) -> (String, String) {
    let (mut group, mut gshadow) = (String::new(), String::new());
    for line in master.lines() {
        let fields: Vec<_> = line.split(':').collect();
        if let [name, password, gid, members] = fields[..] {
            let _ = writeln!(group, "{name}:x:{gid}:{members}");
            let _ = writeln!(gshadow, "{name}:{password}::{members}");
        }
    }
    (group, gshadow)
}

/// Writes commands for `debugfs` that give every file to root, and the one time.
fn write_owners(top: &Path, directory: &Path, script: &mut String) {
    for path in list(directory) {
        let inside = path
            .strip_prefix(top)
            .unwrap_or(&path)
            .display()
            .to_string();
        let group = match inside.as_str() {
            "etc/shadow" | "etc/gshadow" => SHADOW_GROUP,
            _ => 0,
        };
        let _ = writeln!(script, "sif /{inside} uid 0\nsif /{inside} gid {group}");
        for time in ["atime", "ctime", "mtime", "crtime"] {
            let _ = writeln!(script, "sif /{inside} {time} @{TIME}");
        }
        if path.is_dir() && !path.is_symlink() {
            write_owners(top, &path, script);
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Fault> {
    fs::read(path).map_err(Fault::file("read", path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Fault> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Fault::file("chmod", path))
}

fn put(path: &Path, data: &[u8], mode: u32) -> Result<(), Fault> {
    if let Some(parent) = path.parent() {
        create_directory(parent)?;
    }
    // Two programs may bring the same library, and what is there may be read-only.
    if path.exists() {
        return Ok(());
    }
    fs::write(path, data).map_err(Fault::file("write", path))?;
    set_mode(path, mode)
}

fn put_link(link: &Path, target: &str) -> Result<(), Fault> {
    if let Some(parent) = link.parent() {
        create_directory(parent)?;
    }
    symlink(target, link).map_err(Fault::file("create", link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_move_to_the_shadow_file_as_pwconv_does_it() {
        let (passwd, shadow) = with_shadow("root:*:0:0:root:/root:/bin/bash\n");
        assert_eq!(passwd, "root:x:0:0:root:/root:/bin/bash\n");
        assert_eq!(shadow, "root:*:20454:0:99999:7:::\n");
    }

    #[test]
    fn group_passwords_move_to_the_gshadow_file_as_grpconv_does_it() {
        let (group, gshadow) = with_group_shadow("sudo:*:27:\nusers:*:100:a,b\n");
        assert_eq!(group, "sudo:x:27:\nusers:x:100:a,b\n");
        assert_eq!(gshadow, "sudo:*::\nusers:*::a,b\n");
    }

    #[test]
    fn loader_names_libraries_but_not_itself() {
        let line = "\tlibc.so.6 => /x/lib/libc.so.6 (0x00007f0000000000)";
        assert_eq!(parse_library(line), Some(PathBuf::from("/x/lib/libc.so.6")));
        assert_eq!(
            parse_library("\t/lib64/ld-linux-x86-64.so.2 (0x00007f0000000000)"),
            None
        );
        assert_eq!(
            parse_library("\tlinux-vdso.so.1 (0x00007f0000000000)"),
            None
        );
    }
}
