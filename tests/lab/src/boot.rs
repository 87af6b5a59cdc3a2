//! One whole boot: kernel, initramfs, disc and root disk on the simulated platform, and the verdict.
//!
//! `cargo lab boot` and the VM tests are the callers. It builds and fetches what they did not
//! bring, lets the machine run to its end, and compares what its real init said with what the disc
//! asked for. It does not judge how the product did it.

use core::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::arch::Arch;
use crate::desk::{Desk, Plugged, Wanted, Work};
use crate::fault::Fault;
use crate::fetch::Lab;
use crate::kernel::Kernel;
use crate::monitor::Monitor;
use crate::platform::{Platform, Scenario};
use crate::progress::{self, Step};
use crate::qemu::{self, Exit, Machine, Peer, Start, Unplugged, VIRTIO, Watch};
use crate::verdict::{Check, Testimony, judge};
use crate::visitor::Visitor;
use crate::words::Words;
use crate::{ext4, product, rootfs};

pub use crate::desk::{DOCUMENT, Disc, MAC, VM_ID};

/// The machine's memory, in MiB.
const MEMORY: u32 = 512;

/// What to boot, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The machine's processor.
    pub arch: Arch,
    /// A kernel, in place of the distribution's; `modules` belongs to it.
    pub kernel: Option<PathBuf>,
    /// The kernel's modules, as `/lib/modules/VERSION`.
    pub modules: Option<PathBuf>,
    /// A root disk, in place of the lab's; it is copied, never written to.
    pub root_disk: Option<PathBuf>,
    /// An initramfs, in place of the one around the built preroot.
    pub initramfs: Option<PathBuf>,
    /// Modules that are left out of the initramfs.
    pub without: Vec<String>,
    /// What is in the drive.
    pub disc: Disc,
    /// The document, in place of the lab's; with an image it says what is on that.
    pub document: Option<PathBuf>,
    /// What the platform is like; `None` is a cable that leads nowhere. Where it says nothing of
    /// the VM's identity, the metadata service says the same as the document.
    pub scenario: Option<Scenario>,
    /// Where every frame goes, for Wireshark and its kin.
    pub pcap: Option<PathBuf>,
    /// Kernel arguments after the lab's own.
    pub append: Vec<String>,
    /// Whether the kernel mounts the root to be written to, which distributions leave to the real init.
    pub writable: bool,
    /// Further arguments of the emulator.
    pub emulator: Vec<String>,
    /// Processors of the machine.
    pub cpus: u8,
    /// How long the machine may run.
    pub time_limit: Duration,
    /// The machine is ended at once, as by a power cut, when its console shows this.
    pub stop_at: Option<String>,
    /// What the lab does while the machine runs.
    pub moments: Vec<Moment>,
    /// Whether the working directory stays.
    pub keep: bool,
    /// Whether the console is shown while it comes.
    pub console: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            arch: Arch::X86_64,
            kernel: None,
            modules: None,
            root_disk: None,
            initramfs: None,
            without: Vec::new(),
            disc: Disc::Made,
            document: None,
            scenario: Some(Scenario::default()),
            pcap: None,
            append: Vec::new(),
            writable: true,
            emulator: Vec::new(),
            cpus: 1,
            time_limit: Duration::from_mins(2),
            stop_at: None,
            moments: Vec::new(),
            keep: false,
            console: false,
        }
    }
}

/// What is done at a moment.
pub type Act = dyn Fn(&Hands<'_>) -> Result<(), Fault> + Send + Sync;

/// Something that the lab does when the machine's console shows a line.
///
/// Only then does the machine have a visitor and a monitor.
#[derive(Clone)]
pub struct Moment {
    /// What is in the line.
    pub line: &'static str,
    /// What is done; the machine is ended if it fails.
    pub act: Arc<Act>,
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moment")
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// What there is to do something with while a machine runs.
pub struct Hands<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// All lines of the console, the one that was waited for at the end.
    pub console: &'a [String],
    /// A host on the Internet.
    pub visitor: &'a Visitor,
    /// The emulator's own door.
    pub monitor: &'a Monitor,
}

/// What came of a boot.
pub struct Outcome {
    /// All that was written on the console.
    pub console: String,
    /// What the real init said.
    pub words: Words,
    /// How the machine ended.
    pub exit: Exit,
    /// How long it ran.
    pub took: Duration,
    /// The platform as it is now, with its journal.
    pub platform: Option<Platform>,
    /// Each thing that a good boot must show.
    pub checks: Vec<Check>,
    /// The root disk as the machine left it, until this value is dropped.
    pub root_disk: PathBuf,
    lab: Lab,
    work: Work,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Outcome");
        all.field("exit", &self.exit)
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}

impl Outcome {
    /// Says whether all is as it must be.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// Reads a file from the root disk as the machine left it; `None` if it is not there.
    pub fn root_file(&self, path: &str) -> Result<Option<Vec<u8>>, Fault> {
        ext4::read(&self.lab, &self.root_disk, path)
    }

    /// Gives the directory of this run.
    pub fn directory(&self) -> &Path {
        &self.work.path
    }
}

/// Boots once.
pub fn run(options: &Options) -> Result<Outcome, Fault> {
    let lab = Lab::open()?;
    let traits = options.arch.traits();
    let work = Work::begin(&lab, options.keep)?;
    let wanted = Wanted {
        disc: &options.disc,
        document: options.document.as_deref(),
        scenario: options.scenario.as_ref(),
        pcap: options.pcap.as_deref(),
    };
    let Desk {
        mut platform,
        vm_id,
        expected,
        disc,
    } = Desk::set(&wanted, &work.path)?;
    let kernel = kernel(&lab, options)?;
    let qemu = lab.tool(traits.system)?;
    let (preroot, initramfs) = match (&options.initramfs, &options.root_disk) {
        (Some(given), Some(_)) => (None, given.clone()),
        (given, root_disk) => {
            let preroot = product::build(&lab, options.arch)?;
            // The lab's own disk needs no other file system, and an emulated machine unpacks
            // slowly.
            let root_fs = root_disk.is_none().then_some("ext4");
            let initramfs = if let Some(given) = given {
                given.clone()
            } else {
                let output = work.path.join("initramfs.img");
                product::pack(&lab, &preroot, &kernel, root_fs, &options.without, &output)?;
                output
            };
            (Some(preroot), initramfs)
        }
    };
    let root_disk = work.path.join("root.img");
    let root = root_disk_copy(&lab, options, preroot.as_deref(), &root_disk)?;

    let mut append = vec![
        format!("console={}", traits.console),
        format!("root={root}"),
        if options.writable { "rw" } else { "ro" }.to_owned(),
        // No virtio card is a Hyper-V one, so it has to be named.
        "preroot.nic=eth0".to_owned(),
        // A kernel that gives up ends the machine at once.
        "panic=-1".to_owned(),
    ];
    append.extend(traits.append.iter().map(|&argument| argument.to_owned()));
    if !traits.dmi {
        append.extend([
            "preroot.platform=azure".to_owned(),
            format!("preroot.vm-id={vm_id}"),
        ]);
    }
    append.extend(options.append.iter().cloned());
    let mut machine = Machine {
        arch: options.arch,
        start: Start::Kernel {
            image: kernel.image.clone(),
            initramfs,
            append: append.join(" "),
            root_disk: root_disk.clone(),
        },
        disc,
        nic: VIRTIO.to_owned(),
        mac: MAC,
        vm_id: vm_id.clone(),
        cpus: options.cpus,
        memory: MEMORY,
        time_limit: options.time_limit,
        extra: options.emulator.clone(),
    };
    let company = if options.moments.is_empty() {
        None
    } else {
        let monitor = Monitor::new(u64::from(MEMORY) << 20);
        machine.extra.extend(monitor.arguments());
        Some((Visitor::invite(&lab)?, monitor))
    };
    let step = Step::begin(format!(
        "booting {} (emulated, {} s at most)",
        kernel
            .image
            .file_name()
            .unwrap_or_default()
            .to_string_lossy(),
        options.time_limit.as_secs()
    ));
    let mut peer: Box<dyn Peer> = match platform.as_mut() {
        Some(platform) => Box::new(Plugged {
            platform,
            visitor: company.as_ref().map(|(visitor, _)| visitor),
            look: &|_| (),
        }),
        None => Box::new(Unplugged),
    };
    let (mut lines, mut failed) = (Vec::new(), None);
    let run = qemu::run(&qemu, &machine, peer.as_mut(), &mut |line: &str| {
        if options.console {
            println!("{line}");
        }
        lines.push(line.to_owned());
        if let Some((visitor, monitor)) = &company {
            let hands = Hands {
                lab: &lab,
                console: &lines,
                visitor,
                monitor,
            };
            let now = |moment: &&Moment| line.contains(moment.line);
            let mut acts = options.moments.iter().filter(now);
            if let Err(fault) = acts.try_for_each(|moment| (moment.act)(&hands)) {
                failed = Some(fault);
                return Watch::Stop;
            }
        }
        match &options.stop_at {
            Some(text) if line.contains(text) => Watch::Stop,
            _ => Watch::Continue,
        }
    })?;
    drop(peer);
    if let Some(fault) = failed {
        return Err(fault);
    }
    step.end();
    if options.keep {
        let path = work.path.join("console.log");
        fs::write(&path, &run.console).map_err(Fault::file("write", &path))?;
    }
    let words = Words::parse(&run.console);
    let own_root = options.root_disk.is_none();
    let testimony = platform.as_ref().map(Testimony::of);
    let checks = judge(
        &words,
        &run.exit,
        expected.as_ref(),
        testimony.as_ref(),
        own_root,
    );
    Ok(Outcome {
        console: run.console,
        words,
        exit: run.exit,
        took: run.took,
        platform,
        checks,
        root_disk,
        lab,
        work,
    })
}

/// Gives the kernel that boots.
fn kernel(lab: &Lab, options: &Options) -> Result<Kernel, Fault> {
    match (&options.kernel, &options.modules, &options.initramfs) {
        (None, None, _) => Kernel::fetch(lab, options.arch),
        (Some(image), Some(modules), _) => Kernel::given(image, modules),
        // An initramfs that is there already brings its modules.
        (Some(image), None, Some(_)) => {
            fs::File::open(image).map_err(Fault::file("read", image))?;
            Ok(Kernel {
                image: image.clone(),
                modules: PathBuf::new(),
            })
        }
        (Some(_), None, None) => Err(Fault::Usage(
            "--kernel needs --modules DIR, the kernel's own modules, as /lib/modules/VERSION"
                .to_owned(),
        )),
        (None, Some(_), _) => Err(Fault::Usage(
            "--modules needs --kernel FILE, the kernel they are for".to_owned(),
        )),
    }
}

/// Makes this run's own copy of the root disk and says by what name the kernel finds it.
fn root_disk_copy(
    lab: &Lab,
    options: &Options,
    preroot: Option<&Path>,
    to: &Path,
) -> Result<String, Fault> {
    let Some(given) = &options.root_disk else {
        let image = rootfs::image(lab, options.arch)?;
        fs::copy(&image, to).map_err(Fault::file("copy", &image))?;
        if let Some(preroot) = preroot {
            ext4::insert(lab, to, preroot, "/usr/sbin/preroot", 0o755)?;
        }
        return Ok(format!("UUID={}", rootfs::UUID));
    };
    let length = given.metadata().map_err(Fault::file("read", given))?.len();
    let mut step = Step::begin(format!(
        "copying the root disk ({})",
        progress::size(length)
    ));
    let mut copy = Command::new("cp");
    copy.args(["--sparse=always", "--reflink=auto", "--"])
        .arg(given)
        .arg(to);
    step.run(&mut copy, &String::new)?;
    step.end();
    Ok(ext4::uuid(to)?.map_or_else(|| "/dev/vda1".to_owned(), |uuid| format!("UUID={uuid}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_without_its_modules_is_refused() {
        let lab = Lab::open().unwrap();
        let options = Options {
            kernel: Some("/k".into()),
            ..Options::default()
        };
        assert!(kernel(&lab, &options).unwrap_err().is_usage());
        let options = Options {
            modules: Some("/m".into()),
            ..Options::default()
        };
        assert!(kernel(&lab, &options).unwrap_err().is_usage());
    }
}
