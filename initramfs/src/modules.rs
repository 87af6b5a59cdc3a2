//! Knows a kernel's module tree by its index files and chooses what an initramfs needs of it.
//!
//! It reads what depmod wrote (`modules.dep` and its neighbours in text form) and never walks the
//! tree, so a `build` link or stray files beside it do not matter. It does not load anything.
//! Follows modules.dep(5), depmod.d(5) and modprobe.d(5).

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::compress;

/// Is what one initramfs needs to boot on Azure, on Hyper-V and in QEMU, and why.
pub const DEFAULT: &[(&str, &[&str])] = &[
    (
        "Hyper-V and Azure",
        &["hv_vmbus", "hv_netvsc", "hv_storvsc", "hv_utils"],
    ),
    // Sizes with NVMe disks show them on the virtual PCI bus of Hyper-V, the system disk among them.
    ("NVMe disks", &["nvme", "pci_hyperv"]),
    ("SCSI disks", &["sd_mod"]),
    (
        "optical drives",
        &["cdrom", "sr_mod", "libata", "ata_piix", "ata_generic"],
    ),
    ("discs", &["udf", "isofs"]),
    (
        "virtio",
        &["virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net"],
    ),
    ("other networks", &["e1000"]),
    ("packet sockets", &["af_packet"]),
];

/// Is the file systems that a root may have unless the caller says otherwise.
pub const ROOT_FILE_SYSTEMS: &[&str] = &["ext4", "xfs", "btrfs", "erofs", "squashfs"];

/// Is the part of the default set that many kernels do without: nothing is said when it is missing.
const IF_PRESENT: &[&str] = &["e1000"];

/// Says why a module tree cannot be used.
#[derive(Debug)]
pub enum Fault {
    /// The directory cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The directory has no `modules.dep`.
    NoIndex(PathBuf),
    /// The directory is one above those of the kernels.
    HoldsVersions(PathBuf, Vec<String>),
    /// A line of an index file makes no sense.
    BadIndex(PathBuf, usize),
    /// The caller insists on modules that this kernel does not have.
    Missing(Vec<String>),
    /// The caller asks for a module and leaves it out.
    Contradiction(String),
    /// The caller leaves out what something else in the set cannot do without.
    StillNeeded {
        /// The module left out.
        module: String,
        /// What needs it.
        by: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::NoIndex(path) => {
                write!(f, "{} has no modules.dep; make it with: ", path.display())?;
                f.write_str(depmod(path).as_deref().unwrap_or(
                    "depmod -b BASE VERSION, the modules being in BASE/lib/modules/VERSION",
                ))
            }
            Self::HoldsVersions(path, versions) => {
                write!(
                    f,
                    "{} is not the directory of one kernel; name one of:",
                    path.display()
                )?;
                versions
                    .iter()
                    .try_for_each(|name| write!(f, " {}", path.join(name).display()))
            }
            Self::BadIndex(path, line) => {
                write!(
                    f,
                    "{} line {line} is not what depmod writes",
                    path.display()
                )
            }
            Self::Missing(names) => {
                write!(f, "this kernel has no module {}", names.join(", "))?;
                f.write_str(": neither as a file nor built in")
            }
            Self::Contradiction(name) => write!(f, "{name} is both asked for and left out"),
            Self::StillNeeded { module, by } => {
                write!(f, "{by} needs {module}: leave out both, or neither")
            }
        }
    }
}

/// Gives the command that makes the index of a directory, as far as its place allows it.
fn depmod(directory: &Path) -> Option<String> {
    let release = directory.file_name()?.to_str()?;
    let modules = directory.parent()?;
    let lib = modules.parent()?;
    if modules.file_name()? != "modules" || lib.file_name()? != "lib" {
        return None;
    }
    let mut base = lib.parent()?;
    let mut link = String::new();
    if base.file_name().is_some_and(|name| name == "usr") {
        // With /usr merged, lib is a link into it, and some versions of depmod need the link; a tree
        // unpacked from a package has none, for that is in another package.
        base = base.parent()?;
        if !base.join("lib").exists() {
            link = format!("ln -s usr/lib {} && ", base.join("lib").display());
        }
    }
    Some(format!("{link}depmod -b {} {release}", base.display()))
}

/// Writes a module's name as the kernel does: without directories and endings, `_` for `-`.
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let file = compress::strip(file);
    file.strip_suffix(".ko").unwrap_or(file).replace('-', "_")
}

#[derive(Debug)]
struct Module {
    /// Below the tree, with the ending of its compression.
    path: String,
    /// Direct and indirect, the deepest last, as depmod lists them.
    dependencies: Vec<String>,
}

/// Is the modules of one kernel.
#[derive(Debug)]
pub struct Tree {
    directory: PathBuf,
    release: String,
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
    builtin_lines: String,
    /// Pattern and module, in depmod's order.
    aliases: Vec<(String, String)>,
    /// Module and the rest of its line.
    soft: Vec<(String, String)>,
}

impl Tree {
    /// Reads the index files of one kernel's module directory.
    ///
    /// Only `modules.dep` must exist: a kernel may have no aliases and no built-in modules.
    pub fn open(directory: &Path) -> Result<Self, Fault> {
        // `current` may be a link to the real directory, whose name is the kernel's release.
        let real = fs::canonicalize(directory)
            .map_err(|error| Fault::Unreadable(directory.to_owned(), error))?;
        let Some(dependencies) = read_index(&real, "modules.dep")? else {
            let versions = versions_below(&real);
            return Err(if versions.is_empty() {
                Fault::NoIndex(real)
            } else {
                Fault::HoldsVersions(real, versions)
            });
        };
        let release = real
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();

        let mut modules = BTreeMap::new();
        for (number, line) in dependencies.lines().enumerate() {
            let bad = || Fault::BadIndex(real.join("modules.dep"), number + 1);
            let (path, needed) = line.split_once(':').ok_or_else(bad)?;
            let path = below(path, &release).ok_or_else(bad)?;
            let dependencies = needed.split_whitespace().map(name_of).collect();
            let module = Module {
                path: path.to_owned(),
                dependencies,
            };
            modules.entry(name_of(path)).or_insert(module);
        }

        let builtin_lines = read_index(&real, "modules.builtin")?.unwrap_or_default();
        let builtin = builtin_lines.lines().map(name_of).collect();
        let aliases = read_index(&real, "modules.alias")?
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.strip_prefix("alias ")?.split_once(' '))
            .map(|(pattern, module)| (pattern.to_owned(), module.trim().to_owned()))
            .collect();
        let soft = read_index(&real, "modules.softdep")?
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.strip_prefix("softdep ")?.split_once(' '))
            .map(|(module, rest)| (module.to_owned(), rest.to_owned()))
            .collect();
        Ok(Self {
            directory: real,
            release,
            modules,
            builtin,
            builtin_lines,
            aliases,
            soft,
        })
    }

    /// Names the kernel as `uname -r` does.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Gives the file of a module on this machine.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        self.modules
            .get(name)
            .map(|module| self.directory.join(&module.path))
    }

    /// Gives the place of a module below the tree in the archive, where it is not compressed.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.modules
            .get(name)
            .map(|module| compress::strip(&module.path))
    }

    /// Says whether a name is compiled into the kernel.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    /// Finds what a name stands for: itself, or all modules with this alias.
    fn resolve(&self, name: &str) -> Vec<&str> {
        if let Some((name, _)) = self.modules.get_key_value(name) {
            return vec![name];
        }
        let plain = |text: &str| text.replace('-', "_");
        let wanted = plain(name);
        self.aliases
            .iter()
            .filter(|(pattern, _)| plain(pattern) == wanted)
            .filter_map(|(_, module)| self.modules.get_key_value(&plain(module)))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Lists the names a module would like to have loaded as well, ahead of it or behind it.
    fn soft_dependencies(&self, name: &str, kind: &str) -> Vec<&str> {
        let mut names = Vec::new();
        for (_, rest) in self
            .soft
            .iter()
            .filter(|(module, _)| name_of(module) == name)
        {
            // As in kmod, names ahead of the first "pre:" or "post:" mean nothing.
            let mut section = "";
            for word in rest.split_whitespace() {
                if word.ends_with(':') {
                    section = word;
                } else if section == kind {
                    names.push(word);
                }
            }
        }
        names
    }

    /// Chooses modules with all they need, in the order in which they can be loaded one by one.
    pub fn choose(&self, request: &Request) -> Result<Choice, Fault> {
        let without: BTreeSet<String> = request.without.iter().map(|name| name_of(name)).collect();
        let mut walk = Walk {
            tree: self,
            without: &without,
            seen: BTreeSet::new(),
            order: vec![],
        };
        let mut choice = Choice::default();
        let mut fatal = Vec::new();
        for (name, insisted) in request.names() {
            let left_out = without.contains(&name);
            if insisted && left_out {
                return Err(Fault::Contradiction(name));
            }
            let found = self.resolve(&name);
            if found.is_empty() && self.is_builtin(&name) {
                choice.builtin.push(name);
            } else if found.is_empty() {
                if insisted {
                    fatal.push(name);
                } else if !left_out && !IF_PRESENT.contains(&name.as_str()) {
                    choice.missing.push(name);
                }
            } else if !left_out {
                found
                    .into_iter()
                    .try_for_each(|module| walk.visit(module))?;
            }
        }
        if !fatal.is_empty() {
            return Err(Fault::Missing(fatal));
        }
        choice.order = walk.order;
        let known = |name: &String| self.modules.contains_key(name) || self.is_builtin(name);
        choice.unknown = without
            .iter()
            .filter(|name| !known(name))
            .cloned()
            .collect();
        Ok(choice)
    }

    /// Makes the index files that describe the chosen modules and no others.
    ///
    /// `modules.dep` keeps the order of loading, so that a loader of three lines of shell will do.
    pub fn index(&self, choice: &Choice) -> Vec<(&'static str, String)> {
        let chosen: BTreeSet<&str> = choice.order.iter().map(String::as_str).collect();
        let mut dependencies = String::new();
        for module in choice
            .order
            .iter()
            .filter_map(|name| self.modules.get(name))
        {
            let _ = write!(dependencies, "{}:", compress::strip(&module.path));
            for path in module
                .dependencies
                .iter()
                .filter_map(|name| self.path(name))
            {
                let _ = write!(dependencies, " {path}");
            }
            dependencies.push('\n');
        }
        let of_chosen = |name: &str| chosen.contains(name_of(name).as_str());
        let mut aliases = String::new();
        for (pattern, module) in self.aliases.iter().filter(|(_, module)| of_chosen(module)) {
            let _ = writeln!(aliases, "alias {pattern} {module}");
        }
        let mut soft = String::new();
        for (module, rest) in self.soft.iter().filter(|(module, _)| of_chosen(module)) {
            let _ = writeln!(soft, "softdep {module} {rest}");
        }
        vec![
            ("modules.alias", aliases),
            ("modules.builtin", self.builtin_lines.clone()),
            ("modules.dep", dependencies),
            ("modules.softdep", soft),
        ]
    }
}

/// Is what the caller wants of a module tree.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Exactly these, with what they need, in place of the default set.
    pub only: Option<Vec<String>>,
    /// These as well; it is an error when one does not exist.
    pub with: Vec<String>,
    /// Not these.
    pub without: Vec<String>,
    /// The file systems that the root may have, all of which must exist, in place of the default.
    pub root_file_systems: Option<Vec<String>>,
}

impl Request {
    /// Lists the wanted names, and for each whether the caller insists on it.
    fn names(&self) -> Vec<(String, bool)> {
        let mut names: Vec<(String, bool)> = Vec::new();
        if let Some(only) = &self.only {
            names.extend(only.iter().map(|name| (name_of(name), true)));
        } else {
            let all = DEFAULT.iter().flat_map(|(_, names)| *names);
            names.extend(all.map(|name| (name_of(name), false)));
            match &self.root_file_systems {
                Some(asked) => names.extend(asked.iter().map(|name| (name_of(name), true))),
                None => names.extend(ROOT_FILE_SYSTEMS.iter().map(|name| (name_of(name), false))),
            }
        }
        names.extend(self.with.iter().map(|name| (name_of(name), true)));
        names
    }
}

/// Is the chosen modules.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The names in an order in which they can be loaded one by one.
    pub order: Vec<String>,
    /// Wanted names that are compiled into the kernel.
    pub builtin: Vec<String>,
    /// Wanted names that this kernel does not know.
    pub missing: Vec<String>,
    /// Names to leave out that this kernel does not know: probably misspelt.
    pub unknown: Vec<String>,
}

struct Walk<'a> {
    tree: &'a Tree,
    without: &'a BTreeSet<String>,
    seen: BTreeSet<String>,
    order: Vec<String>,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str) -> Result<(), Fault> {
        // Marked ahead of the descent: soft dependencies may go round in a circle.
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(module) = self.tree.modules.get(name) else {
            return Ok(());
        };
        self.visit_soft(name, "pre:")?;
        for needed in module.dependencies.iter().rev() {
            if self.without.contains(needed) {
                let (module, by) = (needed.clone(), name.to_owned());
                return Err(Fault::StillNeeded { module, by });
            }
            self.visit(needed)?;
        }
        self.order.push(name.to_owned());
        self.visit_soft(name, "post:")
    }

    fn visit_soft(&mut self, name: &str, kind: &str) -> Result<(), Fault> {
        for wish in self.tree.soft_dependencies(name, kind) {
            for module in self.tree.resolve(wish) {
                if !self.without.contains(module) {
                    self.visit(module)?;
                }
            }
        }
        Ok(())
    }
}

fn read_index(directory: &Path, name: &str) -> Result<Option<String>, Fault> {
    let path = directory.join(name);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::Unreadable(path, error)),
    }
}

/// Lists the directories inside that have an index of their own.
fn versions_below(directory: &Path) -> Vec<String> {
    let Ok(inside) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut versions: Vec<String> = inside
        .flatten()
        .filter(|entry| entry.path().join("modules.dep").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    versions.sort();
    versions
}

/// Makes a path of `modules.dep` relative to its tree: old versions of depmod wrote absolute ones.
fn below<'a>(path: &'a str, release: &str) -> Option<&'a str> {
    let path = match path.strip_prefix('/') {
        Some(_) => path.split_once(&format!("/lib/modules/{release}/"))?.1,
        None => path,
    };
    let tame = path
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    tame.then_some(path)
}
