//! Packs preroot and the kernel modules it needs into an initramfs.
//!
//! Not a general generator: no shell, no udev, no firmware, no file that preroot does not use; those
//! who need LUKS, LVM or a network root want dracut or mkinitcpio. Two runs over the same input give
//! the same bytes.

use core::fmt;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

pub mod compress;
pub mod cpio;
mod elf;
pub mod modules;

pub use compress::Compression;

/// The directories every archive has: mount points, and what a program may take for granted.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc",
    "lib",
    "lib/modules",
    "proc",
    "run",
    "sys",
    "sysroot",
];
/// The device nodes: name, permissions, major and minor number.
///
/// The kernel opens the console for `/init` ahead of any mount of devtmpfs.
const NODES: &[(&str, u32, u32, u32)] = &[("dev/console", 0o600, 5, 1), ("dev/null", 0o666, 1, 3)];

/// Is all that an initramfs is made from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program that becomes `/init`; without one there is none, which only `--list` has a use for.
    pub preroot: Option<PathBuf>,
    /// The kernel's module directory, `/lib/modules/VERSION`.
    pub modules: PathBuf,
    /// Which modules to take.
    pub request: modules::Request,
    /// Further files: where each lies here, and its absolute path in the archive.
    pub files: Vec<(PathBuf, String)>,
    /// How to compress the archive.
    pub compression: Compression,
}

/// Is a finished initramfs and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The bytes to hand to the boot loader.
    pub bytes: Vec<u8>,
    /// The size of the archive before its compression.
    pub archive_size: usize,
    /// The kernel it is for.
    pub release: String,
    /// The files in it and their sizes, modules in the order of loading.
    pub packed: Vec<(String, usize)>,
    /// Wanted modules that the kernel has built in.
    pub builtin: Vec<String>,
    /// What the caller should know.
    pub warnings: Vec<String>,
}

/// Says why there is no initramfs.
#[derive(Debug)]
pub enum Fault {
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The module tree cannot be used, or not as asked.
    Modules(modules::Fault),
    /// A file of the module tree is not a kernel module.
    NotAModule(PathBuf),
    /// The directory is not named as its modules want it.
    OtherRelease {
        /// The name of the directory.
        directory: String,
        /// The release in the modules.
        built_for: String,
    },
    /// A module and the program are for different processors.
    OtherProcessor(PathBuf),
    /// A path in the archive is not absolute, has `..` in it, or is taken.
    BadPath(String),
    /// The archive cannot hold this.
    Archive(cpio::Fault),
    /// The archive cannot be compressed.
    Compression(io::Error),
    /// The output cannot be written.
    Unwritable(PathBuf, io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Modules(fault) => fault.fmt(f),
            Self::NotAModule(path) => write!(f, "{} is not a kernel module", path.display()),
            Self::OtherRelease {
                directory,
                built_for,
            } => write!(
                f,
                "the modules in {directory} are for kernel {built_for}, which looks for them in \
                 lib/modules/{built_for}: give the directory that name"
            ),
            Self::OtherProcessor(path) => {
                write!(f, "{} is for another processor than /init", path.display())
            }
            Self::BadPath(path) => {
                write!(
                    f,
                    "{path} cannot be a path in the archive: not absolute, or taken"
                )
            }
            Self::Archive(fault) => fault.fmt(f),
            Self::Compression(error) => write!(f, "cannot compress the archive: {error}"),
            Self::Unwritable(path, error) => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

impl From<modules::Fault> for Fault {
    fn from(fault: modules::Fault) -> Self {
        Self::Modules(fault)
    }
}

/// Makes an initramfs in memory.
pub fn pack(recipe: &Recipe) -> Result<Image, Fault> {
    let mut warnings = Vec::new();
    let mut files = Vec::new();
    let mut machine = None;
    if let Some(path) = &recipe.preroot {
        let preroot = read(path)?;
        if elf::wants_interpreter(&preroot) {
            let path = path.display();
            warnings.push(format!(
                "{path} is linked dynamically, and its loader is not packed"
            ));
        } else if !elf::is_elf(&preroot) && !preroot.starts_with(b"#!") {
            warnings.push(format!("{} is not a program", path.display()));
        }
        machine = elf::machine(&preroot);
        files.push(("init".to_owned(), 0o755, preroot));
    }

    let tree = modules::Tree::open(&recipe.modules)?;
    let choice = tree.choose(&recipe.request)?;
    if !choice.missing.is_empty() {
        let names = choice.missing.join(", ");
        warnings.push(format!("not in kernel {}: {names}", tree.release()));
    }
    if !choice.unknown.is_empty() {
        let names = choice.unknown.join(", ");
        warnings.push(format!("told to leave out what is not there: {names}"));
    }

    let home = format!("lib/modules/{}", tree.release());
    for (source, path) in &recipe.files {
        let content = read(source)?;
        let mode = if is_executable(source) { 0o755 } else { 0o644 };
        files.push((inside(path)?, mode, content));
    }
    for (name, text) in tree.index(&choice) {
        files.push((format!("{home}/{name}"), 0o644, text.into_bytes()));
    }
    let mut release_seen = false;
    for name in &choice.order {
        let (Some(source), Some(path)) = (tree.file(name), tree.path(name)) else {
            continue;
        };
        let module = compress::expand(&source.to_string_lossy(), read(&source)?)
            .map_err(|error| Fault::Unreadable(source.clone(), error))?;
        if !elf::is_elf(&module) {
            return Err(Fault::NotAModule(source));
        }
        // One is enough: it is the directory's name that may be wrong, and then it is for all.
        if !release_seen && let Some(built_for) = elf::release(&module) {
            if built_for != tree.release() {
                let directory = tree.release().to_owned();
                return Err(Fault::OtherRelease {
                    directory,
                    built_for,
                });
            }
            release_seen = true;
        }
        if machine.is_some() && machine != elf::machine(&module) {
            return Err(Fault::OtherProcessor(source));
        }
        files.push((format!("{home}/{path}"), 0o644, module));
    }

    let packed = files
        .iter()
        .map(|(name, _, data)| (name.clone(), data.len()))
        .collect();
    let archive = cpio::write(&entries(files)?).map_err(Fault::Archive)?;
    Ok(Image {
        bytes: recipe
            .compression
            .apply(&archive)
            .map_err(Fault::Compression)?,
        archive_size: archive.len(),
        release: tree.release().to_owned(),
        packed,
        builtin: choice.builtin,
        warnings,
    })
}

/// Puts the directories and device nodes ahead of the files.
fn entries(files: Vec<(String, u32, Vec<u8>)>) -> Result<Vec<cpio::Entry>, Fault> {
    let mut directories: BTreeSet<&str> = DIRECTORIES.iter().copied().collect();
    let mut names: BTreeSet<&str> = NODES.iter().map(|node| node.0).collect();
    for (name, _, _) in &files {
        if !names.insert(name) {
            return Err(Fault::BadPath(format!("/{name}")));
        }
        directories.extend(name.match_indices('/').map(|(at, _)| &name[..at]));
    }
    if let Some(taken) = directories.intersection(&names).next() {
        return Err(Fault::BadPath(format!("/{taken}")));
    }

    let mut entries: Vec<cpio::Entry> = directories
        .iter()
        .map(|&path| cpio::Entry {
            name: path.to_owned(),
            mode: 0o755,
            kind: cpio::Kind::Directory,
        })
        .collect();
    for &(name, mode, major, minor) in NODES {
        let kind = cpio::Kind::Character { major, minor };
        entries.push(cpio::Entry {
            name: name.to_owned(),
            mode,
            kind,
        });
    }
    entries.extend(files.into_iter().map(|(name, mode, data)| cpio::Entry {
        name,
        mode,
        kind: cpio::Kind::File(data),
    }));
    Ok(entries)
}

/// Writes an image so that at any moment its path holds the old file or the whole new one.
pub fn save(image: &[u8], output: &Path) -> Result<(), Fault> {
    let unwritable = |error| Fault::Unwritable(output.to_owned(), error);
    if output.is_dir() {
        return Err(unwritable(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    let Some(name) = output.file_name() else {
        return Err(unwritable(io::Error::from(io::ErrorKind::InvalidInput)));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let temporary = output.with_file_name(hidden);
    let write = || {
        let mut file = fs::File::create_new(&temporary)?;
        file.write_all(image)?;
        file.sync_all()?;
        fs::rename(&temporary, output)
    };
    write().map_err(|error| {
        // It may not even exist; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        unwritable(error)
    })
}

/// Checks a path of the caller's and takes its leading slash.
fn inside(path: &str) -> Result<String, Fault> {
    let relative = path
        .strip_prefix('/')
        .ok_or_else(|| Fault::BadPath(path.to_owned()))?;
    let tame = relative
        .split('/')
        .all(|part| !matches!(part, "" | "." | ".."));
    if tame {
        Ok(relative.to_owned())
    } else {
        Err(Fault::BadPath(path.to_owned()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    fs::read(path).map_err(|error| Fault::Unreadable(path.to_owned(), error))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o111 != 0)
}
