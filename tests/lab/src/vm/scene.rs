//! What all boots share, and what one boot came to.
//!
//! The initramfs is packed once and the usual boot is run once, whoever needs it first. Every look at
//! a boot that is not as promised carries that boot's console and journal with it.

use core::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use super::lock;
use super::login::Visited;
use crate::arch::Arch;
use crate::boot::{self, Options, Outcome};
use crate::distro::Distro;
use crate::ext4;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, remove_directory};
use crate::kernel::Kernel;
use crate::platform::{Entry, Platform, Scenario, Verdict};
use crate::product;
use crate::progress;
use crate::qemu::Exit;
use crate::rootfs;

/// How much of a console's end is shown, besides the program's own lines.
const TAIL: usize = 40;

/// What the program's own lines on the console begin with.
const MARK: &str = "preroot: ";

/// What a provisioning writes and what does not depend on the time of day.
pub(super) const FILES: [&str; 11] = [
    "/etc/hostname",
    "/etc/hosts",
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/sudoers.d/preroot",
    "/home/deskadmin/.ssh/authorized_keys",
    "/var/lib/preroot/configured",
    "/var/lib/preroot/reported",
    "/var/lib/preroot/custom-data",
];

/// Why a promise was not kept.
#[derive(Debug)]
pub struct Broken {
    why: String,
    console: String,
    journal: Vec<String>,
}

impl Broken {
    /// Says why, and shows what the machine said.
    pub(super) fn new(why: String, console: &str, journal: &[String]) -> Self {
        Self {
            why,
            console: console.to_owned(),
            journal: journal.to_owned(),
        }
    }
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self {
            why: format!("the lab failed: {fault}"),
            console: String::new(),
            journal: Vec::new(),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}", self.why)?;
        if !self.console.is_empty() {
            writeln!(f, "\n  what it said on the console")?;
            let lines: Vec<_> = self.console.lines().collect();
            let tail = lines.len().saturating_sub(TAIL);
            for line in lines.iter().take(tail).filter(|line| line.contains(MARK)) {
                writeln!(f, "    {line}")?;
            }
            writeln!(f, "\n  the end of the console")?;
            for line in lines.iter().skip(tail) {
                writeln!(f, "    {line}")?;
            }
            writeln!(f, "\n  what the platform heard and said")?;
            self.journal
                .iter()
                .try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        Ok(())
    }
}

/// The usual boot: the default disc on a healthy platform.
pub(super) struct Usual {
    /// Why it is not as it must be, if it is not.
    pub(super) failed: Option<String>,
    /// The lines that the program wrote.
    pub(super) said: Vec<String>,
    /// What became of [`FILES`].
    files: Vec<Option<Vec<u8>>>,
    /// The root disk as the machine left it.
    pub(super) root_disk: PathBuf,
    console: String,
    journal: Vec<String>,
}

/// What all boots share.
pub(super) struct Scene {
    /// The lab.
    pub(super) lab: Lab,
    /// A directory for what promises need; it is gone with the scene.
    pub(super) directory: PathBuf,
    initramfs: PathBuf,
    distro: OnceLock<Distro>,
    usual: Mutex<Option<Arc<Usual>>>,
    /// The boot of an installed system that somebody visits.
    pub(super) visited: Mutex<Option<Arc<Visited>>>,
}

impl Scene {
    /// Builds, fetches and packs what all boots need.
    pub(super) fn set(lab: &Lab) -> Result<Self, Fault> {
        let arch = Arch::X86_64;
        let (kernel, preroot) = fetch(lab, arch)?;
        let directory = lab.directory().join(format!("vm-{}", std::process::id()));
        remove_directory(&directory)?;
        create_directory(&directory)?;
        let initramfs = directory.join("initramfs.img");
        product::pack(lab, &preroot, &kernel, Some("ext4"), &[], &initramfs)?;
        Ok(Self {
            lab: lab.clone(),
            directory,
            initramfs,
            distro: OnceLock::new(),
            usual: Mutex::new(None),
            visited: Mutex::new(None),
        })
    }

    /// Gives the Debian with initramfs of its own, which is made when it is asked for first.
    pub(super) fn distro(&self) -> Result<&Distro, Fault> {
        if let Some(distro) = self.distro.get() {
            return Ok(distro);
        }
        let made = Distro::make(&self.lab)?;
        Ok(self.distro.get_or_init(|| made))
    }

    /// Gives the options of the usual boot, with these kernel arguments after the lab's own.
    pub(super) fn options(&self, append: &[&str]) -> Options {
        Options {
            initramfs: Some(self.initramfs.clone()),
            append: append.iter().map(|&argument| argument.to_owned()).collect(),
            ..Options::default()
        }
    }

    /// Boots on a platform that is not like the usual one; the text is a scenario's.
    pub(super) fn boot_on(&self, scenario: &str, append: &[&str]) -> Result<Seen, Broken> {
        let scenario = parse(scenario)?;
        Seen::of(&Options {
            scenario: Some(scenario),
            ..self.options(append)
        })
    }

    /// Gives the usual boot, which is run when it is asked for first; others wait for it.
    pub(super) fn usual(&self) -> Result<Arc<Usual>, Broken> {
        let mut usual = lock(&self.usual);
        if let Some(usual) = usual.as_ref() {
            return Ok(Arc::clone(usual));
        }
        let seen = Seen::of(&self.options(&[]))?;
        let root_disk = self.directory.join("usual-root.img");
        progress::run(
            Command::new("cp")
                .args(["--sparse=always", "--"])
                .arg(&seen.0.root_disk)
                .arg(&root_disk),
        )?;
        let made = Arc::new(Usual {
            failed: seen.failed(),
            said: seen.said(),
            files: seen.files(&self.lab)?,
            root_disk,
            console: seen.0.console.clone(),
            journal: seen.journal(),
        });
        *usual = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What stays behind is below target/ and harms nobody.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Fetches and builds what a machine needs, and says so: later, when several boot, nothing is said.
pub(super) fn fetch(lab: &Lab, arch: Arch) -> Result<(Kernel, PathBuf), Fault> {
    let kernel = Kernel::fetch(lab, arch)?;
    rootfs::image(lab, arch)?;
    lab.tool(arch.traits().system)?;
    Ok((kernel, product::build(lab, arch)?))
}

/// Reads a scenario of ours.
pub(super) fn parse(scenario: &str) -> Result<Scenario, Broken> {
    Scenario::parse(scenario)
        .map_err(|error| Fault::Usage(format!("scenario `{scenario}`: {error}")).into())
}

impl Usual {
    /// Fails unless this holds.
    pub(super) fn expect(&self, holds: bool, why: impl FnOnce() -> String) -> Result<(), Broken> {
        if holds {
            return Ok(());
        }
        Err(Broken {
            why: why(),
            console: self.console.clone(),
            journal: self.journal.clone(),
        })
    }
}

/// What one boot came to.
pub(super) struct Seen(pub(super) Outcome);

impl Seen {
    /// Boots.
    pub(super) fn of(options: &Options) -> Result<Self, Broken> {
        boot::run(options).map(Self).map_err(Broken::from)
    }

    /// What the platform heard and said.
    pub(super) fn journal(&self) -> Vec<String> {
        let entries = self.0.platform.iter().flat_map(Platform::journal);
        entries.map(ToString::to_string).collect()
    }

    /// The lines that the program wrote on the console.
    pub(super) fn said(&self) -> Vec<String> {
        let lines = self.0.console.lines();
        lines
            .filter_map(|line| Some(line.split_once(MARK)?.1.to_owned()))
            .collect()
    }

    /// Names what is not as a good boot must be.
    fn failed(&self) -> Option<String> {
        let failed: Vec<_> = self
            .0
            .checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }

    /// Fails unless this holds.
    pub(super) fn expect(&self, holds: bool, why: impl FnOnce() -> String) -> Result<(), Broken> {
        if holds {
            return Ok(());
        }
        Err(Broken {
            why: why(),
            console: self.0.console.clone(),
            journal: self.journal(),
        })
    }

    /// Fails unless all is as the disc asked for and the platform accepted Ready.
    pub(super) fn passed(&self) -> Result<(), Broken> {
        match self.failed() {
            None => Ok(()),
            Some(failed) => self.expect(false, || failed),
        }
    }

    /// Fails unless the program said this on the console, in one line.
    pub(super) fn says(&self, text: &str) -> Result<(), Broken> {
        let said = self.said().iter().any(|line| line.contains(text));
        self.expect(said, || format!("the console shows no line with `{text}`"))
    }

    /// Fails unless the real init ran to its end, found all it needs and switched the machine off.
    pub(super) fn went_on(&self) -> Result<(), Broken> {
        let words = &self.0.words;
        self.expect(words.began && words.ended, || {
            "the real init did not run to its end".to_owned()
        })?;
        let lacked: Vec<_> = words
            .facts("missing")
            .chain(words.facts("process"))
            .collect();
        self.expect(lacked.is_empty(), || {
            format!("bad hand-over: {}", lacked.join(", "))
        })?;
        self.expect(self.0.exit == Exit::PoweredOff, || {
            format!("the machine ended with {:?}", self.0.exit)
        })
    }

    /// Fails unless the real init found this fact.
    pub(super) fn fact(&self, name: &str, value: &str) -> Result<(), Broken> {
        let seen = self.0.words.fact(name);
        self.expect(seen == Some(value), || {
            format!("{name} is {}, not {value}", seen.unwrap_or("not told"))
        })
    }

    /// Fails unless the platform accepted Ready, and found nothing to complain of.
    pub(super) fn ready(&self) -> Result<(), Broken> {
        let verdict = self.0.platform.as_ref().map(Platform::verdict);
        self.expect(verdict == Some(Verdict::Ready), || {
            format!("the platform's verdict is {verdict:?}, not Ready")
        })?;
        self.no_complaint()
    }

    /// Fails unless the platform accepted Ready and found nothing to complain of until then.
    ///
    /// What comes afterwards is the installed system's, whose DHCP clients have habits of their own.
    pub(super) fn became_ready(&self) -> Result<(), Broken> {
        let platform = self.0.platform.as_ref();
        let verdict = platform.map(Platform::verdict);
        self.expect(verdict == Some(Verdict::Ready), || {
            format!("the platform's verdict is {verdict:?}, not Ready")
        })?;
        let entries = platform.map_or(&[][..], Platform::journal);
        let ready = platform.and_then(Platform::ready);
        let complaints: Vec<_> = entries
            .iter()
            .filter(|entry| Some(entry.at()) <= ready)
            .filter_map(Entry::complaint)
            .collect();
        self.expect(complaints.is_empty(), || {
            format!("the platform complains: {}", complaints.join("; "))
        })?;
        // The name is published by whoever asks for an address with it last.
        let publishes = |line: &String| line.contains("DISCOVER") && line.contains("host=vm-");
        let publishes = self.journal().iter().any(publishes);
        self.expect(publishes, || {
            "the installed system asks for an address without its new name".to_owned()
        })
    }

    /// Fails unless the platform was told that provisioning failed, in a sentence with these words.
    pub(super) fn failure_told(&self, words: &str) -> Result<(), Broken> {
        let verdict = self.0.platform.as_ref().map(Platform::verdict);
        let told = matches!(&verdict, Some(Verdict::Failed { description }) if description.contains(words));
        self.expect(told, || {
            format!("the platform's verdict is {verdict:?}, not a failure with `{words}`")
        })?;
        self.no_complaint()
    }

    /// Fails unless the platform was told nothing that it took for final.
    pub(super) fn untold(&self) -> Result<(), Broken> {
        let verdict = self.0.platform.as_ref().map(Platform::verdict);
        self.expect(verdict == Some(Verdict::Creating), || {
            format!("the platform's verdict is {verdict:?}, where it can have heard nothing")
        })
    }

    fn no_complaint(&self) -> Result<(), Broken> {
        let platform = self.0.platform.iter();
        let complaints: Vec<_> = platform.flat_map(Platform::complaints).collect();
        self.expect(complaints.is_empty(), || {
            format!("the platform complains: {}", complaints.join("; "))
        })
    }

    /// Fails unless the machine sent no frame at all.
    pub(super) fn silent(&self) -> Result<(), Broken> {
        let frames = self
            .0
            .platform
            .as_ref()
            .map_or(0, |platform| platform.frames().0);
        self.expect(frames == 0, || {
            format!("the machine sent {frames} frame(s)")
        })
    }

    /// Reads the files that a provisioning writes.
    fn files(&self, lab: &Lab) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        read_all(lab, &self.0.root_disk)
    }

    /// Fails unless the files on the root disk are those of the usual boot, byte for byte.
    pub(super) fn same_files(&self, scene: &Scene, usual: &Usual) -> Result<(), Broken> {
        let files = self.files(&scene.lab)?;
        for ((path, ours), usual) in FILES.iter().zip(&files).zip(&usual.files) {
            self.expect(usual.is_some(), || {
                format!("{path} is not there in the usual boot")
            })?;
            self.expect(ours == usual, || {
                format!(
                    "{path} differs:\n{}\nand usually:\n{}",
                    shown(ours.as_ref()),
                    shown(usual.as_ref())
                )
            })?;
        }
        Ok(())
    }

    /// Fails unless the files on the root disk are those of the lab's image: nobody provisioned it.
    pub(super) fn untouched_files(&self, scene: &Scene) -> Result<(), Broken> {
        let image = rootfs::image(&scene.lab, Arch::X86_64)?;
        let (before, after) = (read_all(&scene.lab, &image)?, self.files(&scene.lab)?);
        for ((path, before), after) in FILES.iter().zip(&before).zip(&after) {
            self.expect(before == after, || {
                format!(
                    "{path} was\n{}\nand is\n{}",
                    shown(before.as_ref()),
                    shown(after.as_ref())
                )
            })?;
        }
        Ok(())
    }

    /// Fails unless a file is there, or not there, on the root disk.
    pub(super) fn has_file(&self, path: &str, there: bool) -> Result<(), Broken> {
        let found = self.0.root_file(path)?.is_some();
        self.expect(found == there, || {
            let not = if there { "not " } else { "" };
            format!("{path} is {not}on the root disk")
        })
    }
}

fn read_all(lab: &Lab, image: &Path) -> Result<Vec<Option<Vec<u8>>>, Fault> {
    FILES
        .iter()
        .map(|path| ext4::read(lab, image, path))
        .collect()
}

fn shown(content: Option<&Vec<u8>>) -> String {
    match content {
        None => "(not there)".to_owned(),
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}
