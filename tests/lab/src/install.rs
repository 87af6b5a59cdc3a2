//! Where the parts of the product are laid in a system, as a package lays them, and the laying.
//!
//! Not a package manager: it knows no versions and removes nothing. A package's recipe calls it with a
//! directory of its own; the tests of whole boots call it with the root they build an image in.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use crate::fault::Fault;

/// A program: anybody may run it.
const PROGRAM: u32 = 0o755;
/// What is only read.
const DATA: u32 = 0o644;

/// What builds the initramfs of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generator {
    /// dracut 059 and later, dracut-ng.
    Dracut,
    /// Arch's mkinitcpio.
    Mkinitcpio,
    /// Debian's and Ubuntu's initramfs-tools.
    InitramfsTools,
}

/// Where zsh's own project has completions of others; Debian has another place for those of packages.
pub(crate) const ZSH_COMPLETION: &str = "usr/share/zsh/site-functions/_preroot";

/// One thing that is laid, below the root of the system.
#[derive(Debug, Clone, Copy)]
struct Part {
    what: What,
    to: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// The program itself.
    Preroot,
    /// A file of this project.
    File(&'static str, u32),
    /// A symbolic link and where it points.
    Link(&'static str),
}

const fn file(from: &'static str, mode: u32, to: &'static str) -> Part {
    Part {
        what: What::File(from, mode),
        to,
    }
}

const fn link(target: &'static str, to: &'static str) -> Part {
    Part {
        what: What::Link(target),
        to,
    }
}

/// What every system gets: the program, what it does when the system runs, and what people read and type.
const ALWAYS: &[Part] = &[
    Part {
        what: What::Preroot,
        to: "usr/bin/preroot",
    },
    file(
        "initramfs/systemd/preroot-ready.service",
        DATA,
        "usr/lib/systemd/system/preroot-ready.service",
    ),
    file(
        "initramfs/systemd/preroot-lease.service",
        DATA,
        "usr/lib/systemd/system/preroot-lease.service",
    ),
    // Enabled by the vendor: each begins with the condition that there is something to do.
    link(
        "../preroot-ready.service",
        "usr/lib/systemd/system/multi-user.target.wants/preroot-ready.service",
    ),
    link(
        "../preroot-lease.service",
        "usr/lib/systemd/system/multi-user.target.wants/preroot-lease.service",
    ),
    file(
        "package/man/preroot.8",
        DATA,
        "usr/share/man/man8/preroot.8",
    ),
    file(
        "package/man/preroot.conf.5",
        DATA,
        "usr/share/man/man5/preroot.conf.5",
    ),
    file(
        "package/completions/preroot.bash",
        DATA,
        "usr/share/bash-completion/completions/preroot",
    ),
    file("package/completions/_preroot", DATA, ZSH_COMPLETION),
    file(
        "package/completions/preroot.fish",
        DATA,
        "usr/share/fish/vendor_completions.d/preroot.fish",
    ),
];

/// The units of an initramfs with systemd, which the generators take from the system.
const UNITS: &[Part] = &[
    file(
        "initramfs/systemd/preroot-prefetch.service",
        DATA,
        "usr/lib/systemd/system/preroot-prefetch.service",
    ),
    file(
        "initramfs/systemd/preroot.service",
        DATA,
        "usr/lib/systemd/system/preroot.service",
    ),
    file(
        "initramfs/systemd/preroot-failed.service",
        DATA,
        "usr/lib/systemd/system/preroot-failed.service",
    ),
];

const DRACUT: &[Part] = &[
    file(
        "dracut/55preroot/module-setup.sh",
        PROGRAM,
        "usr/lib/dracut/modules.d/55preroot/module-setup.sh",
    ),
    file(
        "dracut/55preroot/preroot-prefetch.sh",
        PROGRAM,
        "usr/lib/dracut/modules.d/55preroot/preroot-prefetch.sh",
    ),
    file(
        "dracut/55preroot/preroot-provision.sh",
        PROGRAM,
        "usr/lib/dracut/modules.d/55preroot/preroot-provision.sh",
    ),
    file(
        "dracut/55preroot/preroot-failed.sh",
        PROGRAM,
        "usr/lib/dracut/modules.d/55preroot/preroot-failed.sh",
    ),
];

const MKINITCPIO: &[Part] = &[
    file(
        "mkinitcpio/install/preroot",
        DATA,
        "usr/lib/initcpio/install/preroot",
    ),
    // init passes over a hook that it may not run.
    file(
        "mkinitcpio/hooks/preroot",
        PROGRAM,
        "usr/lib/initcpio/hooks/preroot",
    ),
];

const INITRAMFS_TOOLS: &[Part] = &[
    file(
        "initramfs/initramfs-tools/hooks/preroot",
        PROGRAM,
        "usr/share/initramfs-tools/hooks/preroot",
    ),
    file(
        "initramfs/initramfs-tools/scripts/init-top/preroot",
        PROGRAM,
        "usr/share/initramfs-tools/scripts/init-top/preroot",
    ),
    file(
        "initramfs/initramfs-tools/scripts/local-bottom/preroot",
        PROGRAM,
        "usr/share/initramfs-tools/scripts/local-bottom/preroot",
    ),
    file(
        "initramfs/initramfs-tools/scripts/panic/preroot",
        PROGRAM,
        "usr/share/initramfs-tools/scripts/panic/preroot",
    ),
];

impl Generator {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dracut, Self::Mkinitcpio, Self::InitramfsTools];

    /// Gives the name that its own project uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dracut => "dracut",
            Self::Mkinitcpio => "mkinitcpio",
            Self::InitramfsTools => "initramfs-tools",
        }
    }

    /// Takes a generator by its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Tells what a person does to have it in the initramfs.
    pub const fn next(self) -> &'static str {
        match self {
            Self::Dracut => "dracut --force",
            Self::Mkinitcpio => {
                "put `preroot` into HOOKS of /etc/mkinitcpio.conf, last; then mkinitcpio -P"
            }
            Self::InitramfsTools => "update-initramfs -u",
        }
    }

    fn parts(self) -> [&'static [Part]; 2] {
        match self {
            Self::Dracut => [UNITS, DRACUT],
            Self::Mkinitcpio => [UNITS, MKINITCPIO],
            Self::InitramfsTools => [&[], INITRAMFS_TOOLS],
        }
    }
}

/// What became of one part.
#[derive(Debug, PartialEq, Eq)]
pub struct Laid {
    /// The place below the root of the system.
    pub to: &'static str,
    /// The permissions of a file, or where a link points.
    pub how: How,
    /// Whether it was there before, as it should be.
    pub already: bool,
}

/// How a part lies there.
#[derive(Debug, PartialEq, Eq)]
pub enum How {
    /// A file with these permissions.
    Mode(u32),
    /// A symbolic link.
    Link(&'static str),
}

/// What is written where, once nothing speaks against it.
#[derive(Debug)]
struct Change {
    part: Part,
    to: PathBuf,
    /// The content of a file.
    bytes: Vec<u8>,
    already: bool,
}

impl Change {
    /// The name that it has until everything is written.
    fn staged(&self) -> PathBuf {
        let name = self.to.file_name().unwrap_or_default().to_string_lossy();
        self.to.with_file_name(format!(".{name}.laying"))
    }

    fn how(&self) -> How {
        match self.part.what {
            What::Preroot => How::Mode(PROGRAM),
            What::File(_, mode) => How::Mode(mode),
            What::Link(target) => How::Link(target),
        }
    }
}

/// Lays everything for these generators below `root`: all of it, or nothing.
///
/// What is there with the same content stays. What is there with another is refused unless `force`.
pub fn lay(
    project: &Path,
    program: &Path,
    generators: &[Generator],
    root: &Path,
    force: bool,
) -> Result<Vec<Laid>, Fault> {
    let mut changes: Vec<Change> = Vec::new();
    for part in parts(generators) {
        changes.push(plan(project, program, part, root, force)?);
    }
    let mut new = Vec::new();
    let staged = stage(root, &changes, &mut new);
    let result = staged.and_then(|()| {
        for change in changes.iter().filter(|change| !change.already) {
            fs::rename(change.staged(), &change.to).map_err(Fault::file("create", &change.to))?;
        }
        Ok(())
    });
    if let Err(fault) = result {
        for change in &changes {
            let _ = fs::remove_file(change.staged());
        }
        // Those that hold something by now stay.
        for directory in new.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
        return Err(fault);
    }
    Ok(changes
        .iter()
        .map(|change| Laid {
            to: change.part.to,
            how: change.how(),
            already: change.already,
        })
        .collect())
}

/// Lists what these generators need, each thing once.
fn parts(generators: &[Generator]) -> Vec<Part> {
    let mut parts = ALWAYS.to_vec();
    for part in generators.iter().flat_map(|generator| generator.parts()) {
        for part in part {
            if !parts.iter().any(|known| known.to == part.to) {
                parts.push(*part);
            }
        }
    }
    parts
}

/// Reads a part and sees whether it may be laid.
fn plan(
    project: &Path,
    program: &Path,
    part: Part,
    root: &Path,
    force: bool,
) -> Result<Change, Fault> {
    let from = match part.what {
        What::Preroot => Some(program.to_owned()),
        What::File(from, _) => Some(project.join(from)),
        What::Link(_) => None,
    };
    let bytes = match &from {
        Some(from) => fs::read(from).map_err(Fault::file("read", from))?,
        None => Vec::new(),
    };
    let to = root.join(part.to);
    stays_inside(root, part.to)?;
    let mut change = Change {
        part,
        to,
        bytes,
        already: false,
    };
    let there = match fs::symlink_metadata(&change.to) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(change),
        Err(error) => return Err(Fault::file("look at", &change.to)(error)),
    };
    change.already = match change.how() {
        How::Mode(mode) => {
            there.is_file()
                && there.permissions().mode() & 0o7777 == mode
                && fs::read(&change.to).map_err(Fault::file("read", &change.to))? == change.bytes
        }
        How::Link(target) => {
            there.is_symlink() && fs::read_link(&change.to).is_ok_and(|to| to == Path::new(target))
        }
    };
    // A directory would not be replaced but be in the way half through.
    if there.is_dir() || !(change.already || force) {
        return Err(Fault::Content {
            path: change.to,
            why: if there.is_dir() {
                "it is a directory".to_owned()
            } else {
                "something else is there; --force replaces it".to_owned()
            },
        });
    }
    Ok(change)
}

/// Refuses a way that leads over a link: an absolute one leads out of the root.
fn stays_inside(root: &Path, to: &'static str) -> Result<(), Fault> {
    let mut way = root.to_owned();
    let directories = Path::new(to)
        .parent()
        .into_iter()
        .flat_map(Path::components);
    for name in directories {
        debug_assert!(matches!(name, Component::Normal(_)));
        way.push(name);
        if way.is_symlink() {
            return Err(Fault::Content {
                path: way,
                why: "it is a link and may lead out of the root".to_owned(),
            });
        }
    }
    Ok(())
}

/// Writes everything under other names, beside where it will be.
fn stage(root: &Path, changes: &[Change], new: &mut Vec<PathBuf>) -> Result<(), Fault> {
    for change in changes.iter().filter(|change| !change.already) {
        let directory = change.to.parent().unwrap_or(root);
        make(directory, new).map_err(Fault::file("create", directory))?;
        let path = change.staged();
        // Of a run that was killed.
        let _ = fs::remove_file(&path);
        match change.how() {
            How::Link(target) => symlink(target, &path),
            How::Mode(mode) => fs::write(&path, &change.bytes)
                .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode))),
        }
        .map_err(Fault::file("write", &path))?;
    }
    Ok(())
}

/// Makes a directory and those above it that are missing, readable for all whatever the umask.
fn make(directory: &Path, new: &mut Vec<PathBuf>) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(above) = directory.parent() {
        make(above, new)?;
    }
    fs::create_dir(directory)?;
    new.push(directory.to_owned());
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::Lab;
    use std::collections::BTreeSet;

    /// A directory that goes away, and what is laid in it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lab-lay-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("program"), "#!/bin/sh\n").unwrap();
            Self(path)
        }

        fn root(&self) -> PathBuf {
            self.0.join("root")
        }

        fn lay(&self, generators: &[Generator], force: bool) -> Result<Vec<Laid>, Fault> {
            let lab = Lab::open().unwrap();
            let program = self.0.join("program");
            lay(lab.project(), &program, generators, &self.root(), force)
        }

        /// Everything below the root but directories.
        fn files(&self) -> BTreeSet<String> {
            let mut found = BTreeSet::new();
            let mut directories = vec![self.root()];
            while let Some(directory) = directories.pop() {
                for path in crate::fetch::list(&directory) {
                    if path.is_dir() && !path.is_symlink() {
                        directories.push(path);
                    } else {
                        let below = path.strip_prefix(self.root()).unwrap();
                        found.insert(below.to_str().unwrap().to_owned());
                    }
                }
            }
            found
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn every_file_of_the_hooks_is_laid_by_somebody() {
        let lab = Lab::open().unwrap();
        let laid: BTreeSet<_> = parts(&Generator::ALL)
            .iter()
            .filter_map(|part| match part.what {
                What::File(from, _) => Some(lab.project().join(from)),
                _ => None,
            })
            .collect();
        let mut directories: Vec<_> = [
            "dracut",
            "mkinitcpio",
            "initramfs/systemd",
            "initramfs/initramfs-tools",
            "package/completions",
            "package/man",
        ]
        .map(|name| lab.project().join(name))
        .into();
        let mut there = BTreeSet::new();
        while let Some(directory) = directories.pop() {
            for path in crate::fetch::list(&directory) {
                if path.is_dir() {
                    directories.push(path);
                } else {
                    there.insert(path);
                }
            }
        }
        assert_eq!(laid, there);
    }

    #[test]
    fn modes_in_the_repository_are_those_that_are_laid() {
        let lab = Lab::open().unwrap();
        for part in parts(&Generator::ALL) {
            if let What::File(from, mode) = part.what {
                let there = fs::metadata(lab.project().join(from)).unwrap();
                assert_eq!(there.permissions().mode() & 0o111, mode & 0o111, "{from}");
            }
        }
    }

    #[test]
    fn everything_has_its_mode_whatever_the_umask() {
        let place = Place::new("modes");
        let laid = place.lay(&Generator::ALL, false).unwrap();
        assert_eq!(laid.len(), place.files().len());
        for part in laid {
            let path = place.root().join(part.to);
            let there = fs::symlink_metadata(&path).unwrap();
            match part.how {
                How::Mode(mode) => assert_eq!(there.permissions().mode() & 0o7777, mode),
                // It leads to something that was laid.
                How::Link(_) => assert!(fs::metadata(&path).unwrap().is_file()),
            }
            let directory = fs::metadata(path.parent().unwrap()).unwrap();
            assert_eq!(directory.permissions().mode() & 0o7777, 0o755);
        }
    }

    #[test]
    fn only_what_the_generator_needs_is_laid() {
        let place = Place::new("one");
        place.lay(&[Generator::InitramfsTools], false).unwrap();
        let files = place.files();
        assert!(files.contains("usr/share/initramfs-tools/scripts/panic/preroot"));
        assert!(!files.contains("usr/lib/systemd/system/preroot.service"));
        assert!(!files.iter().any(|name| name.contains("dracut")));
    }

    #[test]
    fn second_time_changes_nothing() {
        let place = Place::new("twice");
        place.lay(&[Generator::Dracut], false).unwrap();
        let program = place.root().join("usr/bin/preroot");
        let before = fs::metadata(&program).unwrap().modified().unwrap();
        let laid = place.lay(&[Generator::Dracut], false).unwrap();
        assert!(laid.iter().all(|part| part.already));
        let after = fs::metadata(&program).unwrap().modified().unwrap();
        assert_eq!(before, after);
    }

    #[test]
    fn something_else_is_kept_unless_forced() {
        let place = Place::new("other");
        let hook = place
            .root()
            .join("usr/share/initramfs-tools/scripts/panic/preroot");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        fs::write(&hook, "mine").unwrap();
        let fault = place.lay(&[Generator::InitramfsTools], false).unwrap_err();
        assert!(fault.to_string().contains("--force"), "{fault}");
        assert_eq!(fs::read(&hook).unwrap(), b"mine");
        assert_eq!(place.files().len(), 1, "{:?}", place.files());
        place.lay(&[Generator::InitramfsTools], true).unwrap();
        assert_ne!(fs::read(&hook).unwrap(), b"mine");
    }

    #[test]
    fn nothing_is_laid_when_one_thing_is_missing() {
        let place = Place::new("missing");
        fs::remove_file(place.0.join("program")).unwrap();
        let fault = place.lay(&[Generator::Dracut], true).unwrap_err();
        assert!(fault.to_string().contains("program"), "{fault}");
        assert!(!place.root().exists());
    }

    #[test]
    fn nothing_stays_when_writing_fails_half_through() {
        let place = Place::new("half");
        // Where a directory should be made, a file is.
        fs::create_dir_all(place.root().join("usr")).unwrap();
        fs::write(place.root().join("usr/share"), "a file").unwrap();
        place.lay(&[Generator::InitramfsTools], true).unwrap_err();
        assert_eq!(place.files(), BTreeSet::from(["usr/share".to_owned()]));
        assert!(!place.root().join("usr/bin").exists());
    }

    #[test]
    fn link_out_of_the_root_is_not_followed() {
        let place = Place::new("link");
        fs::create_dir_all(place.root().join("usr")).unwrap();
        fs::create_dir(place.0.join("host")).unwrap();
        symlink(place.0.join("host"), place.root().join("usr/lib")).unwrap();
        let fault = place.lay(&[Generator::Dracut], true).unwrap_err();
        assert!(fault.to_string().contains("link"), "{fault}");
        assert_eq!(crate::fetch::list(&place.0.join("host")).len(), 0);
    }
}
