//! Everything that the lab needs and the project does not contain, kept below `target/lab/`.
//!
//! A program is taken from PATH, else downloaded with the system's package manager *without
//! installing it*: the packages are unpacked into a directory of their own and run from there, so
//! an ordinary user can do it and the system stays as it was. Only APT can do that; for other
//! package managers the package to install is named.

mod sources;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::sources::{GRUB, SOURCES, Source, UEFI, UEFI_SOURCE};
use crate::apt::Apt;
use crate::arch::Arch;
use crate::fault::Fault;
use crate::progress::Step;

/// Where a program is looked for inside an unpacked package, and after PATH.
const PROGRAM_DIRECTORIES: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

/// The directory that the lab keeps its things in, and the project that it belongs to.
#[derive(Debug, Clone)]
pub struct Lab {
    directory: PathBuf,
    project: PathBuf,
}

impl Lab {
    /// Finds, or makes, `lab/` in the directory that cargo builds into.
    ///
    /// Cargo marks that directory with a file of a standard name, which is found from the running
    /// program upwards, so that every way to choose another one is respected.
    pub fn open() -> Result<Self, Fault> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let project = project
            .canonicalize()
            .map_err(Fault::file("find", &project))?;
        let program = std::env::current_exe().map_err(Fault::file("find", Path::new("lab")))?;
        let target = program
            .ancestors()
            .find(|directory| directory.join("CACHEDIR.TAG").is_file())
            .map_or_else(|| project.join("target"), Path::to_owned);
        let directory = target.join("lab");
        create_directory(&directory)?;
        Ok(Self { directory, project })
    }

    /// Gives the directory that the lab keeps its things in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Gives the top directory of the project.
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// Gives the directory that cargo builds into.
    pub fn target(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    /// Waits until nobody else fetches or builds in this lab; the file is the lock.
    ///
    /// Tests run side by side, and each of them may be the first that needs something.
    pub fn lock(&self) -> Result<File, Fault> {
        let path = self.directory.join("lock");
        let file = File::create(&path).map_err(Fault::file("create", &path))?;
        file.lock().map_err(Fault::file("lock", &path))?;
        Ok(file)
    }

    /// Gives GRUB's modules for a platform: the system's if they are there, else private ones.
    pub fn grub_modules(&self, platform: &str) -> Result<PathBuf, Fault> {
        let place = Path::new("usr/lib/grub").join(platform);
        let installed = Path::new("/").join(&place);
        if !ignores_system() && installed.join("moddep.lst").is_file() {
            return Ok(installed);
        }
        let Some(source) = GRUB.iter().find(|source| source.program == platform) else {
            return Err(Fault::Missing {
                what: format!("GRUB for {platform}"),
                fix: "install it with the system's package manager".to_owned(),
            });
        };
        let tree = self.package(source)?;
        let found = tree.join(place);
        if !found.is_dir() {
            return Err(Fault::Content {
                why: format!("the package {} has no {platform}", source.deb),
                path: tree,
            });
        }
        Ok(found)
    }

    /// Gives a program by its name: the system's if there is one, else a private one.
    ///
    /// With `LAB_IGNORE_PATH=1` in the environment the system's programs count as not there.
    pub fn tool(&self, program: &str) -> Result<Tool, Fault> {
        if !ignores_system()
            && let Some(found) = on_path(program)
        {
            return Ok(Tool {
                program: found,
                tree: None,
            });
        }
        let Some(source) = SOURCES.iter().find(|source| source.program == program) else {
            return Err(Fault::Missing {
                what: format!("the program {program}"),
                fix: "install it with the system's package manager".to_owned(),
            });
        };
        let tree = self.package(source)?;
        let found = in_tree(&tree, program).ok_or_else(|| Fault::Content {
            path: tree.clone(),
            why: format!("the package {} has no program {program}", source.deb),
        })?;
        Ok(Tool {
            program: found,
            tree: Some(tree),
        })
    }

    /// Gives the program of UEFI for a PC and the file for its variables, which has to be copied.
    pub fn uefi(&self) -> Result<(PathBuf, PathBuf), Fault> {
        let below = |top: &Path| {
            UEFI.iter()
                .map(|(program, variables)| (top.join(program), top.join(variables)))
                .find(|(program, variables)| program.is_file() && variables.is_file())
        };
        if !ignores_system()
            && let Some(found) = below(Path::new("/"))
        {
            return Ok(found);
        }
        let tree = self.package(&UEFI_SOURCE)?;
        below(&tree).ok_or_else(|| Fault::Content {
            path: tree,
            why: "the package has no firmware where it used to be".to_owned(),
        })
    }

    /// Gives the directory that a package is unpacked in, and downloads it if it is not there.
    fn package(&self, source: &Source) -> Result<PathBuf, Fault> {
        let tree = self.directory.join("tools").join(source.deb);
        if !tree.is_dir() {
            let _lock = self.lock()?;
            if !tree.is_dir() {
                self.fetch_package(source, &tree)?;
            }
        }
        Ok(tree)
    }

    /// Downloads one package and what it needs, and unpacks all of it into `tree`.
    fn fetch_package(&self, source: &Source, tree: &Path) -> Result<(), Fault> {
        if on_path("apt-get").is_none() || on_path("dpkg").is_none() {
            return Err(Fault::Missing {
                what: format!("the program {}", source.program),
                fix: other_manager(source),
            });
        }
        let archives = Apt::for_tools(self)?.with_dependencies(&[source.deb])?;
        unpack(&archives, tree, |name| {
            // The loader and the C library must be of one build, and the loader is the system's.
            !matches!(name, "libc6" | "libc-bin" | "libc6-i386")
        })
    }
}

/// Names the package, and the command, for a system whose packages cannot be run uninstalled.
fn other_manager(source: &Source) -> String {
    let managers = [
        ("dnf", "dnf install", source.rpm),
        ("pacman", "pacman -S", source.arch),
        ("apk", "apk add", source.apk),
    ];
    for (manager, command, package) in managers {
        if on_path(manager).is_some() {
            return format!("run `{command} {package}` as root");
        }
    }
    format!("install the package that has it ({} on Debian)", source.deb)
}

/// Says whether the system's own programs shall be passed over.
pub(crate) fn ignores_system() -> bool {
    std::env::var_os("LAB_IGNORE_PATH").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Finds a program of the system.
///
/// The directories for the administrator's programs are looked at too: an ordinary user's PATH
/// has not got them, and some of what is needed is there and works for everybody.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(administrators)
        .map(|directory| directory.join(program))
        .find(|file| is_executable(file))
}

/// Finds a program in an unpacked package.
fn in_tree(tree: &Path, program: &str) -> Option<PathBuf> {
    PROGRAM_DIRECTORIES
        .iter()
        .map(|directory| tree.join(directory).join(program))
        .find(|file| is_executable(file))
}

/// Says whether a file is there and may be run.
fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// A program that can be run, from the system or from an unpacked package.
#[derive(Debug, Clone)]
pub struct Tool {
    program: PathBuf,
    tree: Option<PathBuf>,
}

impl Tool {
    /// Takes a program of an unpacked tree.
    #[cfg(test)]
    pub(crate) fn private(program: PathBuf, tree: &Path) -> Self {
        Self {
            program,
            tree: Some(tree.to_owned()),
        }
    }

    /// Gives the program's file.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Gives the directory that stands for `/` of an unpacked program.
    pub fn tree(&self) -> Option<&Path> {
        self.tree.as_deref()
    }

    /// Starts a command line with this program, and lets it find its libraries.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(tree) = &self.tree {
            command.env("LD_LIBRARY_PATH", joined(library_directories(tree)));
            let programs = PROGRAM_DIRECTORIES.map(|directory| tree.join(directory));
            let path = std::env::var_os("PATH").unwrap_or_default();
            let all = programs.into_iter().chain(std::env::split_paths(&path));
            command.env("PATH", joined(all));
            command.env("QEMU_MODULE_DIR", tree.join("usr/lib/qemu"));
        }
        command
    }
}

/// Joins directories as PATH has them; one with a colon in its name cannot be in it.
fn joined(directories: impl IntoIterator<Item = PathBuf>) -> OsString {
    let speakable = directories
        .into_iter()
        .filter(|path| !path.to_string_lossy().contains(':'));
    std::env::join_paths(speakable).unwrap_or_default()
}

/// Lists the directories with libraries in an unpacked tree, one level below the usual ones too.
fn library_directories(tree: &Path) -> Vec<PathBuf> {
    let multiarch = Arch::host().map_or("", |arch| arch.traits().multiarch);
    let mut found = Vec::new();
    for usual in ["usr/lib", "lib"] {
        for directory in [tree.join(usual).join(multiarch), tree.join(usual)] {
            if directory.is_dir() {
                let mut below: Vec<_> = list(&directory)
                    .into_iter()
                    .filter(|d| d.is_dir())
                    .collect();
                below.retain(|directory| list(directory).iter().any(|file| is_library(file)));
                found.push(directory);
                found.append(&mut below);
            }
        }
    }
    found
}

/// Says whether a file is named as a shared library that programs are linked with.
fn is_library(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("lib") && name.contains(".so")
}

/// Lists a directory in the order of the names; one that cannot be read is empty.
pub(crate) fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Makes a directory and those above it.
pub(crate) fn create_directory(path: &Path) -> Result<(), Fault> {
    fs::create_dir_all(path).map_err(Fault::file("create", path))
}

/// Removes a directory with everything in it, if it is there.
pub(crate) fn remove_directory(path: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Fault::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Unpacks packages into `tree`, which then is there whole or not at all.
pub(crate) fn unpack(
    archives: &[PathBuf],
    tree: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<(), Fault> {
    let part = tree.with_extension("part");
    remove_directory(&part)?;
    create_directory(&part)?;
    let name = tree.file_stem().unwrap_or_default().to_string_lossy();
    let mut step = Step::begin(format!("unpacking {name} ({})", count(archives.len())));
    for archive in archives {
        let file = archive.file_name().unwrap_or_default().to_string_lossy();
        let package = file.split('_').next().unwrap_or_default();
        if wanted(package) {
            // A package's files go into merged directories, as the links of the others have them.
            step.run(
                Command::new("dpkg").arg("-x").arg(archive).arg(&part),
                &String::new,
            )?;
        }
    }
    relink(&part, &part)?;
    step.end();
    fs::rename(&part, tree).map_err(Fault::file("rename", &part))
}

/// Says how many packages there are.
pub(crate) fn count(packages: usize) -> String {
    format!("{packages} package{}", if packages == 1 { "" } else { "s" })
}

/// Points absolute symbolic links of an unpacked tree into the tree, as `/sbin/depmod -> /bin/kmod`.
fn relink(top: &Path, directory: &Path) -> Result<(), Fault> {
    for path in list(directory) {
        let Ok(data) = path.symlink_metadata() else {
            continue;
        };
        if data.is_dir() {
            relink(top, &path)?;
        } else if data.is_symlink() {
            let target = fs::read_link(&path).map_err(Fault::file("read", &path))?;
            let Ok(inside) = target.strip_prefix("/") else {
                continue;
            };
            if top.join(inside).symlink_metadata().is_err() {
                continue;
            }
            // Relative to the link, because the tree is renamed when it is whole.
            let depth = path.strip_prefix(top).map_or(0, |p| p.components().count());
            let up: PathBuf = std::iter::repeat_n("..", depth.saturating_sub(1)).collect();
            fs::remove_file(&path).map_err(Fault::file("remove", &path))?;
            std::os::unix::fs::symlink(up.join(inside), &path)
                .map_err(Fault::file("create", &path))?;
        }
    }
    Ok(())
}

/// Lists every program that can be asked for.
pub fn known_programs() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|source| source.program)
}

/// Finds this program, which cargo may have built anew since it was started.
pub(crate) fn this_program() -> Result<PathBuf, Fault> {
    let path = std::env::current_exe().map_err(Fault::file("find", Path::new("lab")))?;
    let name = path.to_string_lossy();
    Ok(name
        .strip_suffix(" (deleted)")
        .map_or(path.clone(), PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_listed_once() {
        let mut names: Vec<_> = known_programs().collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    #[test]
    fn unknown_program_is_refused_with_advice() {
        let lab = Lab::open().unwrap();
        let fault = lab.tool("no-such-program").unwrap_err().to_string();
        assert!(fault.contains("no-such-program"), "{fault}");
        assert!(fault.contains("package manager"), "{fault}");
    }

    #[test]
    fn absolute_links_are_turned_into_the_tree() {
        let tree = std::env::temp_dir().join(format!("lab-relink-{}", std::process::id()));
        create_directory(&tree.join("usr/sbin")).unwrap();
        create_directory(&tree.join("bin")).unwrap();
        fs::write(tree.join("bin/kmod"), "x").unwrap();
        let link = tree.join("usr/sbin/depmod");
        std::os::unix::fs::symlink("/bin/kmod", &link).unwrap();
        let outside = tree.join("usr/sbin/outside");
        std::os::unix::fs::symlink("/nowhere/else", &outside).unwrap();
        relink(&tree, &tree).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("../../bin/kmod"));
        assert_eq!(fs::read(&link).unwrap(), b"x");
        assert_eq!(fs::read_link(&outside).unwrap(), Path::new("/nowhere/else"));
        remove_directory(&tree).unwrap();
    }
}
