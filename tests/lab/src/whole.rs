//! One boot of a whole disk image with whatever agent it has, and what Azure would say of it.
//!
//! Where [`boot`](crate::boot) judges how a machine came out, here the platform's own verdict counts
//! and nothing else: who builds an image wants to know whether Azure would take it, and what its
//! agent asked. The image is never written to.

mod follow;
pub mod heard;
mod image;
mod logs;
mod table;
pub mod timeline;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::arch::Arch;
use crate::desk::{Desk, Disc, MAC, Plugged, Wanted, Work};
use crate::fault::Fault;
use crate::fetch::Lab;
use crate::monitor::Monitor;
use crate::platform::{Entry, Platform, Scenario, Verdict, Way};
use crate::progress::{self, Step};
use crate::qemu::{self, Bus, Exit, Firmware, Machine, Peer, Start, Unplugged, VIRTIO};

pub use follow::Ending;
use follow::{Follower, Glance, POWER_DOWN, QUIT};
use image::Image;
pub use logs::{Found, Log, REPORT};
use table::{HEAD, Table};
use timeline::{Stage, Timeline};
pub use verdict::Judgement;

/// What to boot, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The disk image.
    pub image: PathBuf,
    /// The firmware, in place of the one that the partition table speaks for.
    pub firmware: Option<Firmware>,
    /// What the disk hangs on.
    pub bus: Bus,
    /// The network card, as the emulator calls it.
    pub nic: String,
    /// What is in the drive.
    pub disc: Disc,
    /// The document, in place of the lab's.
    pub document: Option<PathBuf>,
    /// What the platform is like; `None` is a cable that leads nowhere.
    pub scenario: Option<Scenario>,
    /// Where every frame goes.
    pub pcap: Option<PathBuf>,
    /// Further arguments of the emulator.
    pub emulator: Vec<String>,
    /// Processors of the machine.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory: u32,
    /// How long the machine may run before its power button is pressed.
    pub time_limit: Duration,
    /// How long nothing may be said behind the login prompt before the machine is ended.
    pub settle: Duration,
    /// Whether the agents' logs are read off the disk.
    pub agent_log: bool,
    /// Whether the working directory stays.
    pub keep: bool,
    /// Whether the console is shown while it comes.
    pub console: bool,
}

impl Options {
    /// Takes what is usual for an image.
    pub fn new(image: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            firmware: None,
            bus: Bus::default(),
            nic: VIRTIO.to_owned(),
            disc: Disc::Made,
            document: None,
            scenario: Some(Scenario::default()),
            pcap: None,
            emulator: Vec::new(),
            cpus: 1,
            memory: 1024,
            time_limit: Duration::from_mins(10),
            settle: Duration::from_secs(6),
            agent_log: false,
            keep: false,
            console: false,
        }
    }
}

/// What came of a boot.
pub struct Outcome {
    /// All that was written on the console.
    pub console: String,
    /// How far the machine came, and when.
    pub timeline: Timeline,
    /// What Azure would say.
    pub judgement: Judgement,
    /// Why the machine was ended; `None` if it ended by itself.
    pub ending: Option<Ending>,
    /// How it ended.
    pub exit: Exit,
    /// Whether its power button had no effect.
    pub forced: bool,
    /// How often its kernel started.
    pub starts: usize,
    /// The platform as it is now, with its journal.
    pub platform: Option<Platform>,
    /// The platform's time at power on.
    pub began: Duration,
    /// What Azure would not take about the image.
    pub notes: Vec<String>,
    /// The agents' logs, if they were asked for.
    pub logs: Found,
    work: Work,
}

impl Outcome {
    /// Lists who asked what.
    pub fn rows(&self) -> Vec<heard::Row> {
        let journal = self.platform.as_ref().map_or(&[][..], Platform::journal);
        heard::rows(journal, self.began)
    }

    /// Gives the directory of this run.
    pub fn directory(&self) -> &Path {
        &self.work.path
    }
}

/// Boots once.
pub fn run(options: &Options) -> Result<Outcome, Fault> {
    let lab = Lab::open()?;
    let arch = Arch::X86_64;
    let image = Image::open(&lab, &options.image)?;
    let work = Work::begin(&lab, options.keep)?;
    let overlay = work.path.join("disk.qcow2");
    image.overlay(&lab, &overlay)?;
    let scratch = work.path.join("head.img");
    let head = image::read(&lab, &overlay, (0, image.size.min(HEAD as u64)), &scratch)?;
    let table = Table::read(&head);
    let firmware = options.firmware.unwrap_or_else(|| table.firmware());
    let uefi = match firmware {
        Firmware::Bios => None,
        Firmware::Uefi => {
            let (program, variables) = lab.uefi()?;
            let own = work.path.join("variables.fd");
            fs::copy(&variables, &own).map_err(Fault::file("copy", &variables))?;
            Some((program, own))
        }
    };
    let wanted = Wanted {
        disc: &options.disc,
        document: options.document.as_deref(),
        scenario: options.scenario.as_ref(),
        pcap: options.pcap.as_deref(),
    };
    let desk = Desk::set(&wanted, &work.path)?;
    let mut platform = desk.platform;
    let monitor = Monitor::new(0);
    let mut extra = options.emulator.clone();
    extra.extend(monitor.arguments());
    let machine = Machine {
        arch,
        start: Start::Disk {
            image: overlay.clone(),
            bus: options.bus,
            uefi,
        },
        disc: desk.disc,
        nic: options.nic.clone(),
        mac: MAC,
        vm_id: desk.vm_id,
        cpus: options.cpus,
        memory: options.memory,
        // The follower ends the machine, in its own way.
        time_limit: options.time_limit + POWER_DOWN + QUIT * 2,
        extra,
    };
    let qemu = lab.tool(arch.traits().system)?;
    let name = options.image.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let step = Step::begin(format!(
        "booting {name} ({}, {}, {}; emulated, {} s at most)",
        image.format,
        progress::size(image.size),
        firmware.name(),
        options.time_limit.as_secs()
    ));
    let glance = Mutex::new(Glance::default());
    let look = |platform: &Platform| Glance::look(&glance, platform);
    let patience = (options.time_limit, options.settle);
    let mut follower = Follower::new(name, patience, options.console, &glance, &monitor);
    let mut peer: Box<dyn Peer> = match platform.as_mut() {
        Some(platform) => Box::new(Plugged {
            platform,
            visitor: None,
            look: &look,
        }),
        None => Box::new(Unplugged),
    };
    let run = qemu::run(&qemu, &machine, peer.as_mut(), &mut follower)?;
    drop(peer);
    if let Exit::Failed(why) = run.exit {
        return Err(Fault::Program {
            command: qemu.program().display().to_string(),
            ended: "failed".to_owned(),
            said: why,
        });
    }
    step.end();
    let began = follower.began();
    let mut timeline = follower.timeline;
    if let Some(platform) = &platform {
        witness(&mut timeline, platform, began);
    }
    if options.keep {
        let path = work.path.join("console.log");
        fs::write(&path, &run.console).map_err(Fault::file("write", &path))?;
    }
    let logs = if options.agent_log {
        logs::read(&lab, &overlay, image.size, &table, &work.path)?
    } else {
        Found::default()
    };
    if options.keep {
        logs.keep(&work.path)?;
    }
    let exit = match run.exit {
        // It may restart, so it is only gone when it has switched itself off.
        Exit::Restarted => Exit::PoweredOff,
        exit => exit,
    };
    let judgement = Judgement::of(platform.as_ref(), began).because(follower.ending);
    if !judgement.is_provisioned() {
        timeline.reach(Stage::End, follower.ended.unwrap_or(run.took));
    }
    Ok(Outcome {
        console: run.console,
        judgement,
        timeline,
        ending: follower.ending,
        exit,
        forced: follower.forced,
        starts: follower.starts,
        platform,
        began,
        notes: image.notes,
        logs,
        work,
    })
}

/// Adds what the platform saw to a timeline.
fn witness(timeline: &mut Timeline, platform: &Platform, began: Duration) {
    let since = |at: Duration| at.saturating_sub(began);
    if let Some(at) = platform.first_frame() {
        timeline.reach(Stage::FirstFrame, since(at));
    }
    for entry in platform.journal() {
        let stage = match entry {
            Entry::Dhcp {
                way: Way::ToGuest,
                summary,
                ..
            } if summary.starts_with("ACK ") => Stage::Lease,
            Entry::Request { request, .. } if request.parameter("comp") == Some("goalstate") => {
                Stage::GoalState
            }
            _ => continue,
        };
        timeline.reach(stage, since(entry.at()));
    }
    if let Some(at) = platform.ready() {
        timeline.reach(Stage::Ready, since(at));
    }
    if let (Verdict::Failed { .. }, Some(at)) = (platform.verdict(), verdict::told(platform)) {
        timeline.reach(Stage::Failed, since(at));
    }
}
