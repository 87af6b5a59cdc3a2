//! Kernel modules, without kmod.
//!
//! Not a configuration of them: there is no blacklist and no modprobe.d, only what depmod wrote and
//! what the kernel command line says. Follows depmod(8), modprobe(8) and `finit_module(2)`; the
//! coldplug is udev's: load what the modalias of every device in sysfs asks for.

use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, OFlags};
use rustix::io::{self, Errno};

use super::{path, sysfs};
use crate::wire::cmdline::{CommandLine, same_name};
use crate::wire::moddep::{
    Alias, Dependencies, Lines, Section, SoftDependencies, Storage, split_path,
};

/// Longest module name; the kernel's own limit (`MODULE_NAME_LEN`).
const MAX_NAME: usize = 56;
/// Modules that are remembered; a large machine has some 200.
const MAX_MODULES: usize = 1024;
/// Parameters of one module.
const MAX_PARAMETERS: usize = 1024;
/// How deep soft dependencies and aliases may lead on.
const MAX_DEPTH: u8 = 8;
/// All soft dependencies of one module together.
const MAX_SOFT_BYTES: usize = 8 << 10;
/// How deep devices may lie in sysfs; a disc drive lies 9 deep.
const MAX_DEVICE_DEPTH: u8 = 24;
/// All modaliases of a machine together; a large one has some 20 KiB.
const MAX_ALIAS_BYTES: usize = 256 << 10;
/// Longest modalias: that of the processor lists its features.
const MAX_MODALIAS: usize = 4096;
/// `MODULE_INIT_COMPRESSED_FILE` of `include/uapi/linux/module.h`, since Linux 5.17.
const COMPRESSED_FILE: i32 = 4;

/// How a module came to be there, or that it is not needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It was loaded by this call, or by an earlier one.
    Now,
    /// It was there before us.
    Before,
    /// It is part of the kernel.
    BuiltIn,
    /// It has no device here: of `hv_vmbus` this says that the host is not Hyper-V.
    NoDevice,
}

/// Why a module is not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleFault {
    /// Nobody knows a module or an alias of that name.
    Unknown,
    /// It is in modules.dep, but its file is not there.
    NoFile,
    /// The kernel cannot decompress it.
    CannotDecompress,
    /// It was made for another kernel.
    OtherKernel,
    /// It needs a symbol that nobody offers.
    MissingSymbol,
    /// Nobody whom this kernel trusts has signed it.
    NotSigned,
    /// The kernel loads no modules (any more).
    Forbidden,
    /// Its parameters on the kernel command line are too long.
    LongParameters,
    /// There are more modules than we remember.
    TooMany,
    /// Aliases and soft dependencies lead in a circle.
    TooDeep,
    /// The kernel refuses it.
    Kernel(Errno),
}

impl fmt::Display for ModuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => {
                "there is no such module in modules.dep, modules.alias or modules.builtin"
            }
            Self::NoFile => "modules.dep names it, but its file is missing: rebuild the initramfs",
            Self::CannotDecompress => {
                "the kernel cannot decompress it: rebuild the initramfs with plain modules"
            }
            Self::OtherKernel => "it was built for another kernel: rebuild the initramfs",
            Self::MissingSymbol => {
                "it needs another module that modules.dep does not name: run depmod"
            }
            Self::NotSigned => "it is not signed by a key that this kernel trusts",
            Self::Forbidden => "this kernel does not allow modules to be loaded",
            Self::LongParameters => "its parameters on the kernel command line are too long",
            Self::TooMany => "too many modules",
            Self::TooDeep => "its soft dependencies lead in a circle",
            Self::Kernel(errno) => return write!(f, "the kernel refuses it: {errno}"),
        })
    }
}

/// What a coldplug did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Different modaliases that were looked up.
    pub aliases: u16,
    /// Modules that were loaded, those that others needed included.
    pub loaded: u16,
    /// Modules that are not loaded and should be; [`Modules::faults`] names them.
    pub failed: u16,
}

/// The modules of one kernel, and what became of them.
pub struct Modules<'a> {
    directory: OwnedFd,
    command_line: CommandLine<'a>,
    outcomes: Vec<(String, Outcome)>,
}

type Outcome = Result<Loaded, ModuleFault>;

impl<'a> Modules<'a> {
    /// Opens the modules of the kernel that runs; `None` when it has none here.
    pub fn open_running(command_line: CommandLine<'a>) -> Option<Self> {
        let name = rustix::system::uname();
        Self::open(name.release().to_str().ok()?, command_line)
    }

    /// Opens the modules of the kernel with that release; `None` when it has none here.
    pub fn open(release: &str, command_line: CommandLine<'a>) -> Option<Self> {
        ["/lib/modules/", "/usr/lib/modules/"]
            .iter()
            .find_map(|place| Self::open_directory(&[place, release].concat(), command_line))
    }

    fn open_directory(path: &str, command_line: CommandLine<'a>) -> Option<Self> {
        let directory = sysfs::open_directory(CWD, path).ok()?;
        Some(Self {
            directory,
            command_line,
            outcomes: Vec::new(),
        })
    }

    /// Loads a module and what it needs, by its name or an alias such as `fs-ext4`.
    ///
    /// Nothing is tried twice: the second call gives the first one's answer.
    pub fn load(&mut self, name: &str) -> Result<Loaded, ModuleFault> {
        self.load_at(name, 0)
    }

    /// Loads what one device asks for; a device that nobody has a module for is fine.
    pub fn load_modalias(&mut self, modalias: &str) -> Counts {
        self.load_for(&[modalias])
    }

    /// Loads what all devices ask for that are there now.
    pub fn coldplug(&mut self) -> Counts {
        let mut aliases = ModaliasList::default();
        aliases.collect("/sys/devices");
        let texts: Vec<&str> = aliases.texts.iter().map(String::as_str).collect();
        self.load_for(&texts)
    }

    /// Walks over the modules that should be loaded and are not, with the reason.
    pub fn faults(&self) -> impl Iterator<Item = (&str, ModuleFault)> {
        self.outcomes
            .iter()
            .filter_map(|(name, outcome)| Some((name.as_str(), outcome.err()?)))
    }

    /// Walks over the modules that are loaded, in the order of loading.
    pub fn loaded(&self) -> impl Iterator<Item = &str> {
        self.outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == Ok(Loaded::Now))
            .map(|(name, _)| name.as_str())
    }

    fn load_for(&mut self, modaliases: &[&str]) -> Counts {
        let before = (self.loaded().count(), self.faults().count());
        for name in self.names_for(modaliases) {
            // What failed is remembered, and asked for by `faults`.
            let _ = self.load_at(&name, 0);
        }
        Counts {
            aliases: modaliases.len() as u16,
            loaded: self.loaded().count().saturating_sub(before.0) as u16,
            failed: self.faults().count().saturating_sub(before.1) as u16,
        }
    }

    /// Lists the modules for these modaliases in one pass, each once.
    fn names_for(&self, modaliases: &[&str]) -> Vec<String> {
        let mut names = Vec::<String>::new();
        self.each_line("modules.alias", &mut |line| {
            let Some(alias) = Alias::parse(line) else {
                return;
            };
            let known = names.len() >= MAX_MODULES
                || names.iter().any(|name| same_name(name, alias.module));
            if !known
                && alias.module.len() <= MAX_NAME
                && modaliases.iter().any(|modalias| alias.is_for(modalias))
            {
                names.push(alias.module.into());
            }
        });
        names
    }

    fn load_at(&mut self, name: &str, depth: u8) -> Outcome {
        if let Some(outcome) = self.outcome(name) {
            return outcome;
        }
        if depth > MAX_DEPTH {
            return Err(ModuleFault::TooDeep);
        }
        if let Some(line) = self.dependencies_of(name) {
            let Some(dependencies) = Dependencies::parse(&line) else {
                return Err(ModuleFault::Unknown);
            };
            for path in dependencies.in_order() {
                match self.load_file(path, depth)? {
                    Loaded::NoDevice => return Ok(Loaded::NoDevice),
                    Loaded::Now | Loaded::Before | Loaded::BuiltIn => {}
                }
            }
            return self.load_file(dependencies.path, depth);
        }
        if self.is_built_in(name) {
            return self.remember(name, Ok(Loaded::BuiltIn));
        }
        let mut best = Err(ModuleFault::Unknown);
        for other in self.names_for(&[name]) {
            let outcome = self.load_at(&other, depth.saturating_add(1));
            if best.is_err() {
                best = outcome;
            }
        }
        best
    }

    /// Loads one file, with what its soft dependencies name before and after it.
    fn load_file(&mut self, path: &str, depth: u8) -> Outcome {
        let Some((name, storage)) = split_path(path) else {
            return Err(ModuleFault::Unknown);
        };
        if let Some(outcome) = self.outcome(name) {
            return outcome;
        }
        let text = self.soft_dependencies_of(name);
        self.load_soft(&text, SoftDependencies::before, depth);
        // It may have come on the way round.
        let outcome = self.outcome(name).unwrap_or_else(|| {
            let outcome = self.insert(path, name, storage);
            self.remember(name, outcome)
        });
        self.load_soft(&text, SoftDependencies::after, depth);
        outcome
    }

    /// Loads what one section of the soft dependencies in `text` names.
    fn load_soft<'t>(
        &mut self,
        text: &'t str,
        section: fn(&SoftDependencies<'t>) -> Section<'t>,
        depth: u8,
    ) {
        for line in text.lines().filter_map(SoftDependencies::parse) {
            for other in section(&line) {
                // They are wishes: without them the module has its own way to fail.
                let _ = self.load_at(other, depth.saturating_add(1));
            }
        }
    }

    #[inline(never)] // In one frame with its caller each access to the stack is longer.
    fn insert(&self, path: &str, name: &str, storage: Storage) -> Outcome {
        let parameters =
            Parameters::of(&self.command_line, name).ok_or(ModuleFault::LongParameters)?;
        let flags = if storage == Storage::Compressed {
            COMPRESSED_FILE
        } else {
            0
        };
        // modules.dep may name a file outside by an absolute path.
        let file = path::open(self.directory.as_fd(), path, OFlags::RDONLY).map_err(|errno| {
            if errno == Errno::NOENT {
                ModuleFault::NoFile
            } else {
                ModuleFault::Kernel(errno)
            }
        })?;
        outcome_of(
            rustix::system::finit_module(&file, parameters.as_c_str(), flags),
            storage,
        )
    }

    fn outcome(&self, name: &str) -> Option<Outcome> {
        self.outcomes
            .iter()
            .find(|(known, _)| same_name(known, name))
            .map(|(_, outcome)| *outcome)
    }

    fn remember(&mut self, name: &str, outcome: Outcome) -> Outcome {
        if name.len() > MAX_NAME {
            return Err(ModuleFault::Unknown);
        }
        if self.outcomes.len() >= MAX_MODULES {
            return Err(ModuleFault::TooMany);
        }
        self.outcomes.push((name.into(), outcome));
        outcome
    }

    fn dependencies_of(&self, name: &str) -> Option<String> {
        self.find_line("modules.dep", &|line| {
            Dependencies::parse(line).is_some_and(|found| found.is_of(name))
        })
    }

    /// Gives all lines of one module: each wish in its source is a line of its own.
    fn soft_dependencies_of(&self, name: &str) -> String {
        let mut text = String::new();
        self.each_line("modules.softdep", &mut |line| {
            let is_its =
                SoftDependencies::parse(line).is_some_and(|found| same_name(found.module, name));
            if is_its && text.len() + line.len() < MAX_SOFT_BYTES {
                text.push_str(line);
                text.push('\n');
            }
        });
        text
    }

    fn is_built_in(&self, name: &str) -> bool {
        let is_it = |line: &str| split_path(line).is_some_and(|(own, _)| same_name(own, name));
        self.find_line("modules.builtin", &is_it).is_some()
    }

    fn find_line(&self, file: &str, fits: &dyn Fn(&str) -> bool) -> Option<String> {
        let mut lines = Lines::new(self.index(file)?);
        while let Ok(Some(line)) = lines.next_line() {
            if fits(line) {
                return Some(String::from(line));
            }
        }
        None
    }

    /// Shows every line of an index file; one that is missing or unreadable has no more lines.
    fn each_line(&self, file: &str, visit: &mut dyn FnMut(&str)) {
        let Some(index) = self.index(file) else {
            return;
        };
        let mut lines = Lines::new(index);
        while let Ok(Some(line)) = lines.next_line() {
            visit(line);
        }
    }

    fn index(&self, file: &str) -> Option<Index> {
        path::open(self.directory.as_fd(), file, OFlags::RDONLY)
            .ok()
            .map(Index)
    }
}

/// Says what the kernel's answer to `finit_module` means.
fn outcome_of(answer: io::Result<()>, storage: Storage) -> Outcome {
    let compressed = storage == Storage::Compressed;
    match answer {
        Ok(()) => Ok(Loaded::Now),
        Err(Errno::EXIST) => Ok(Loaded::Before),
        Err(Errno::NODEV) => Ok(Loaded::NoDevice),
        // INVAL: before 5.17 the flag itself is unknown, and later the kernel has one method only.
        Err(Errno::OPNOTSUPP | Errno::NOEXEC | Errno::INVAL) if compressed => {
            Err(ModuleFault::CannotDecompress)
        }
        Err(Errno::NOEXEC) => Err(ModuleFault::OtherKernel),
        Err(Errno::NOENT) => Err(ModuleFault::MissingSymbol),
        Err(Errno::NOKEY | Errno::KEYREJECTED) => Err(ModuleFault::NotSigned),
        Err(Errno::PERM) => Err(ModuleFault::Forbidden),
        Err(errno) => Err(ModuleFault::Kernel(errno)),
    }
}

/// An index file of depmod's.
struct Index(OwnedFd);

impl embedded_io::ErrorType for Index {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::Read for Index {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        loop {
            match rustix::io::read(&self.0, &mut *buffer) {
                Err(Errno::INTR) => {}
                other => return other.map_err(|_| embedded_io::ErrorKind::Other),
            }
        }
    }
}

/// What the command line says to one module, as the kernel takes it.
struct Parameters {
    /// Ends with a NUL.
    text: Vec<u8>,
}

impl Parameters {
    /// Collects them; `None` when they are too long.
    fn of(command_line: &CommandLine<'_>, module: &str) -> Option<Self> {
        let mut text = Vec::new();
        for parameter in command_line.module_parameters(module) {
            if !text.is_empty() {
                text.push(b' ');
            }
            text.extend_from_slice(parameter.name.as_bytes());
            if let Some(value) = parameter.value {
                // The quotes are gone, and the kernel reads this by the same rules again.
                let quote = if value.contains(char::is_whitespace) {
                    "\""
                } else {
                    ""
                };
                for piece in &["=", quote, value, quote] {
                    text.extend_from_slice(piece.as_bytes());
                }
            }
        }
        text.push(0);
        (text.len() <= MAX_PARAMETERS).then_some(Self { text })
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.text).unwrap_or(c"")
    }
}

/// The modaliases of all devices, each once.
#[derive(Default)]
struct ModaliasList {
    texts: Vec<String>,
    bytes: usize,
}

impl ModaliasList {
    /// Walks over the devices below a directory of sysfs.
    fn collect(&mut self, devices: &str) {
        let Ok(top) = sysfs::open_directory(CWD, devices) else {
            return;
        };
        self.walk(&top, 0);
    }

    fn walk(&mut self, directory: &OwnedFd, depth: u8) {
        // A second descriptor, for the listing moves the offset of its own.
        let Ok(listing) = sysfs::open_directory(directory, ".") else {
            return;
        };
        let _ = sysfs::each_name(&listing, &mut |name, kind| {
            if name == "modalias" && kind == FileType::RegularFile {
                self.read(directory);
            } else if kind == FileType::Directory
                && depth < MAX_DEVICE_DEPTH
                && holds_devices(name, depth)
            {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                if let Ok(inner) = path::open(directory.as_fd(), name, flags) {
                    self.walk(&inner, depth + 1);
                }
            }
        });
    }

    fn read(&mut self, directory: impl AsFd) {
        let mut buffer = [0; MAX_MODALIAS];
        let Some(text) = sysfs::read_line(directory, "modalias", &mut buffer) else {
            return;
        };
        let fits = self.bytes.saturating_add(text.len()) <= MAX_ALIAS_BYTES;
        if fits && !text.is_empty() && !self.texts.iter().any(|known| known == text) {
            self.bytes = self.bytes.saturating_add(text.len());
            self.texts.push(String::from(text));
        }
    }
}

/// Tells whether a directory of sysfs may hold devices with a modalias; most do not.
fn holds_devices(name: &str, depth: u8) -> bool {
    // Hundreds of processors and memory blocks, terminals, queues: all without one.
    const NEVER: [&str; 12] = [
        "power",
        "queue",
        "queues",
        "mq",
        "statistics",
        "msi_irqs",
        "integrity",
        "holders",
        "slaves",
        "tty",
        "memory",
        "vtconsole",
    ];
    let is_processor = depth > 0
        && name
            .strip_prefix("cpu")
            .is_some_and(|n| n.parse::<u32>().is_ok());
    !is_processor && !NEVER.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::string::ToString;
    use std::{format, fs};

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("preroot-modules-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            self
        }

        fn modules<'a>(&self, command_line: &'a str) -> Modules<'a> {
            let line = CommandLine::new(command_line.as_bytes());
            Modules::open_directory(self.0.to_str().unwrap(), line).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(modules: &Modules<'_>) -> Vec<String> {
        modules
            .outcomes
            .iter()
            .map(|(name, _)| name.clone())
            .collect()
    }

    #[test]
    fn a_kernel_without_modules_has_none() {
        assert!(Modules::open("0.0.0-none", CommandLine::new(b"")).is_none());
        assert!(Modules::open(&"x".repeat(200), CommandLine::new(b"")).is_none());
    }

    #[test]
    fn modules_that_are_built_in_count_as_there() {
        let tree = Tree::new("builtin");
        tree.write(
            "modules.builtin",
            "kernel/fs/ext4/ext4.ko\nkernel/lib/crc-itu-t.ko\n",
        );
        let mut modules = tree.modules("");
        assert_eq!(modules.load("ext4"), Ok(Loaded::BuiltIn));
        assert_eq!(modules.load("crc_itu_t"), Ok(Loaded::BuiltIn));
        assert_eq!(modules.load("xfs"), Err(ModuleFault::Unknown));
        assert_eq!(modules.faults().count(), 0);
    }

    #[test]
    fn an_alias_leads_to_its_module() {
        let tree = Tree::new("alias");
        tree.write("modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        tree.write(
            "modules.alias",
            "# x\nalias fs-ext4 ext4\nalias ring-a ring_b\nalias ring_b ring-a\n",
        );
        let mut modules = tree.modules("");
        assert_eq!(modules.load("fs-ext4"), Ok(Loaded::BuiltIn));
        assert_eq!(modules.load("ring_a"), Err(ModuleFault::TooDeep));
    }

    #[test]
    fn what_a_module_needs_is_tried_first_and_a_missing_file_is_said() {
        let tree = Tree::new("needs");
        tree.write(
            "modules.dep",
            "kernel/a.ko: kernel/b.ko.xz kernel/c.ko\nkernel/b.ko.xz:\nkernel/c.ko:\n",
        );
        let mut modules = tree.modules("");
        assert_eq!(modules.load("a"), Err(ModuleFault::NoFile));
        // The deepest failed; nothing above it is tried.
        assert_eq!(names(&modules), ["c"]);
        assert_eq!(
            modules.faults().collect::<Vec<_>>(),
            [("c", ModuleFault::NoFile)]
        );
    }

    #[test]
    fn a_file_that_is_no_module_is_for_another_kernel() {
        let tree = Tree::new("garbage");
        tree.write("modules.dep", "kernel/a.ko:\n")
            .write("kernel/a.ko", "\x7fELF and no more");
        let outcome = tree.modules("").load("a");
        // Without the privilege the kernel does not even look.
        assert!(
            matches!(
                outcome,
                Err(ModuleFault::OtherKernel
                    | ModuleFault::Forbidden
                    | ModuleFault::Kernel(Errno::NOSYS))
            ),
            "{outcome:?}"
        );
    }

    #[test]
    fn soft_dependencies_come_around_their_module_and_circles_end() {
        let tree = Tree::new("soft");
        tree.write("modules.dep", "kernel/a.ko:\nkernel/b.ko:\nkernel/c.ko:\n");
        tree.write(
            "modules.softdep",
            "softdep a pre: b nobody post: c\nsoftdep b pre: a\nsoftdep c pre: c\n",
        );
        let mut modules = tree.modules("");
        assert_eq!(modules.load("a"), Err(ModuleFault::NoFile));
        // a wants b first, b wants a first: the inner a gives up, then all are tried once.
        let mut tried = names(&modules);
        tried.sort();
        assert_eq!(tried, ["a", "b", "c"]);
    }

    #[test]
    fn every_line_of_a_modules_soft_dependencies_counts() {
        let tree = Tree::new("lines");
        tree.write("modules.dep", "kernel/btrfs.ko:\n");
        tree.write(
            "modules.builtin",
            "kernel/blake2b_generic.ko\nkernel/crc32c_generic.ko\n",
        );
        tree.write(
            "modules.alias",
            "alias blake2b-256 blake2b_generic\nalias crypto-crc32c crc32c_generic\n",
        );
        // As depmod of kmod 30 wrote it for Debian's 6.1, shortened.
        tree.write(
            "modules.softdep",
            "softdep btrfs pre: blake2b-256\nsoftdep cifs nls\nsoftdep btrfs pre: crypto-crc32c\n",
        );
        let mut modules = tree.modules("");
        assert_eq!(modules.load("btrfs"), Err(ModuleFault::NoFile));
        assert_eq!(
            names(&modules),
            ["blake2b_generic", "crc32c_generic", "btrfs"]
        );
    }

    #[test]
    fn nothing_is_tried_twice() {
        let tree = Tree::new("twice");
        tree.write("modules.dep", "kernel/a.ko:\n");
        tree.write(
            "modules.alias",
            "alias pci:v00001AF4* a\nalias pci:v*d00001001* a\n",
        );
        let mut modules = tree.modules("");
        let modalias = "pci:v00001AF4d00001001sv";
        assert_eq!(
            modules.load_modalias(modalias),
            Counts {
                aliases: 1,
                loaded: 0,
                failed: 1
            }
        );
        // The file is there now, and nobody looks.
        tree.write("kernel/a.ko", "");
        assert_eq!(
            modules.load_modalias(modalias),
            Counts {
                aliases: 1,
                loaded: 0,
                failed: 0
            }
        );
        assert_eq!(modules.load("a"), Err(ModuleFault::NoFile));
    }

    #[test]
    fn the_kernels_answers_are_told_apart() {
        use Storage::{Compressed, Plain};
        let cases = [
            (Ok(()), Plain, Ok(Loaded::Now)),
            (Err(Errno::EXIST), Plain, Ok(Loaded::Before)),
            (Err(Errno::NODEV), Plain, Ok(Loaded::NoDevice)),
            (Err(Errno::NOEXEC), Plain, Err(ModuleFault::OtherKernel)),
            (
                Err(Errno::OPNOTSUPP),
                Compressed,
                Err(ModuleFault::CannotDecompress),
            ),
            (
                Err(Errno::INVAL),
                Compressed,
                Err(ModuleFault::CannotDecompress),
            ),
            (
                Err(Errno::NOEXEC),
                Compressed,
                Err(ModuleFault::CannotDecompress),
            ),
            (
                Err(Errno::INVAL),
                Plain,
                Err(ModuleFault::Kernel(Errno::INVAL)),
            ),
            (Err(Errno::NOENT), Plain, Err(ModuleFault::MissingSymbol)),
            (Err(Errno::PERM), Plain, Err(ModuleFault::Forbidden)),
        ];
        for (answer, storage, outcome) in cases {
            assert_eq!(
                outcome_of(answer, storage),
                outcome,
                "{answer:?} {storage:?}"
            );
        }
        assert!(
            ModuleFault::CannotDecompress
                .to_string()
                .contains("plain modules")
        );
    }

    #[test]
    fn parameters_are_handed_on_with_their_quotes() {
        let text = b"hv-netvsc.a=1 x.y=2 hv_netvsc.b=\"two words\" hv_netvsc.c";
        let parameters = Parameters::of(&CommandLine::new(text), "hv_netvsc").unwrap();
        assert_eq!(parameters.as_c_str(), c"a=1 b=\"two words\" c");
        assert_eq!(
            Parameters::of(&CommandLine::new(b""), "x")
                .unwrap()
                .as_c_str(),
            c""
        );
        let long = format!("x.a={}", "b".repeat(MAX_PARAMETERS));
        assert!(Parameters::of(&CommandLine::new(long.as_bytes()), "x").is_none());
    }

    #[test]
    fn devices_are_found_however_deep_and_each_modalias_once() {
        let tree = Tree::new("sysfs");
        tree.write(
            "pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/modalias",
            "scsi:t-0x05\n",
        );
        tree.write("pci0000:00/0000:00:01.1/modalias", "pci:v00008086\n");
        tree.write("pci0000:00/0000:00:02.1/modalias", "pci:v00008086\n");
        tree.write("system/cpu/modalias", "cpu:type:x86\n");
        tree.write("system/cpu/cpu0/modalias", "no\n");
        tree.write("platform/x/power/modalias", "no\n");
        tree.write("platform/x/modalias", "");
        let deep = "d/".repeat(usize::from(MAX_DEVICE_DEPTH) + 1);
        tree.write(&format!("{deep}modalias"), "too deep\n");
        let mut list = ModaliasList::default();
        list.collect(tree.0.to_str().unwrap());
        list.texts.sort();
        assert_eq!(list.texts, ["cpu:type:x86", "pci:v00008086", "scsi:t-0x05"]);
    }
}
