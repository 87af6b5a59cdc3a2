//! The disc reader: a process of its own that finds the provisioning disc and reads it.
//!
//! Its own, because a drive may take long or hang, and the network must not wait for it; and because
//! what it parses comes from outside.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use embedded_io::{Read, Seek};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd};

use super::options::{DiscReader, Options};
use super::worker;
use crate::engine::plan::RootView as _;
use crate::linux::block::{self, Drive, DriveStatus, Media};
use crate::linux::channel::{Channel, Incoming, MAX_MESSAGE};
use crate::linux::module::Modules;
use crate::linux::process::{self, Fork};
use crate::linux::root::Root;
use crate::linux::uevent::{self, Uevents};
use crate::linux::{clock, files, mount, poll};
use crate::wire::cmdline::CommandLine;
use crate::wire::disc::{Disc, DiscFault, Kind};
use crate::wire::ovf::CUSTOM_DATA_MAX;

/// The provisioning document's place on the disc.
const DOCUMENT: &str = "ovf-env.xml";
const DOCUMENT_PATH: &str = "/ovf-env.xml";
/// Where some discs have the custom data, decoded.
const CUSTOM_DATA: &str = "CustomData.bin";
const CUSTOM_DATA_PATH: &str = "/CustomData.bin";
/// A provisioning document with the largest custom data has 90 KiB.
const MAX_DOCUMENT: usize = 1 << 20;
/// How long a drive may take to appear: an asynchronous probe of a loaded host.
const SEARCH: Duration = Duration::from_secs(30);
/// How long all drives may say that they are empty.
const EMPTY: Duration = Duration::from_secs(5);
/// How often a drive is asked again that gave no event.
const AGAIN: Duration = Duration::from_millis(250);
/// Where the kernel mounts the disc when it reads it.
const MOUNT_POINT: &str = "/run/preroot/disc";

/// A reason, for people.
pub(super) type Reason = String;

/// What became of the search.
pub(super) enum News {
    /// The document was read.
    Found {
        /// Which device, in which format.
        source: String,
        /// What it says.
        content: Content,
    },
    /// There is no provisioning disc.
    Absent(Reason),
    /// There is one, and it cannot be read.
    Broken(Reason),
    /// The disc was ejected.
    Ejected,
}

/// What is on a provisioning disc.
#[derive(Default)]
pub(super) struct Content {
    /// The document.
    pub(super) document: Vec<u8>,
    /// Custom data that the document lacks; empty if there is none.
    pub(super) custom_data: Vec<u8>,
}

/// The reader, seen from the process that started it.
pub(super) struct Reader {
    channel: Channel,
    source: String,
    content: Content,
    until: Duration,
    over: bool,
}

impl Reader {
    /// Starts the reader.
    pub(super) fn start(options: &Options) -> rustix::io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        match process::fork()? {
            Fork::Child => {
                drop(ours);
                work(&theirs, options);
                process::exit(0)
            }
            Fork::Parent(_) => Ok(Reader {
                channel: ours,
                source: String::new(),
                content: Content::default(),
                until: clock::monotonic().saturating_add(SEARCH),
                over: false,
            }),
        }
    }

    /// Takes what the reader has sent.
    pub(super) fn poll(&mut self) -> Option<News> {
        let mut buffer = [0; MAX_MESSAGE];
        while !self.over {
            let message = match self.channel.receive(&mut buffer) {
                Incoming::Nothing => return None,
                Incoming::Closed => {
                    self.over = true;
                    return Some(News::Broken(reason(format_args!("the disc reader died"))));
                }
                Incoming::Message(message) => message,
            };
            let (kind, content) = message.split_first().unwrap_or((&0, &[]));
            let text = core::str::from_utf8(content).unwrap_or("");
            match kind {
                b'S' => self.source = String::from(text),
                b'D' if self.content.document.len() < MAX_DOCUMENT => {
                    self.content.document.extend_from_slice(content);
                }
                b'C' if self.content.custom_data.len() < CUSTOM_DATA_MAX => {
                    self.content.custom_data.extend_from_slice(content);
                }
                b'E' => {
                    return Some(News::Found {
                        source: self.source.clone(),
                        content: core::mem::take(&mut self.content),
                    });
                }
                b'A' => return Some(News::Absent(reason(format_args!("{text}")))),
                b'B' => return Some(News::Broken(reason(format_args!("{text}")))),
                b'J' => {
                    self.over = true;
                    return Some(News::Ejected);
                }
                _ => {}
            }
        }
        None
    }

    /// Returns when the search is given up.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    /// Asks for the disc to be ejected; [`News::Ejected`] tells when it is.
    pub(super) fn eject(&self) -> bool {
        self.channel.send(b"J")
    }

    /// Tells whether there is anything more to be had.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn reason(text: fmt::Arguments<'_>) -> Reason {
    alloc::fmt::format(text)
}

/// The reader, from inside.
fn work(channel: &Channel, options: &Options) {
    let found = search(channel, options);
    let drive = match found {
        Search::Found {
            source,
            content,
            drive,
        } => {
            send_text(channel, b'S', &source);
            for (kind, content) in [(b'D', &content.document), (b'C', &content.custom_data)] {
                for chunk in content.chunks(MAX_MESSAGE - 1) {
                    send(channel, kind, chunk);
                }
            }
            channel.send(b"E");
            drive
        }
        Search::Absent(reason) => {
            send_text(channel, b'A', &reason);
            None
        }
        Search::Broken(reason) => {
            send_text(channel, b'B', &reason);
            None
        }
        Search::NobodyAsks => return,
    };
    process::wipe_stack();
    wait_for_eject(channel, drive);
}

fn wait_for_eject(channel: &Channel, drive: Option<Drive>) {
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        let _ = poll::wait(&mut [PollFd::new(channel, PollFlags::IN)], None);
        match channel.receive(&mut buffer) {
            Incoming::Closed => return,
            Incoming::Message(b"J") => {
                if let Some(drive) = drive {
                    // A drive that keeps its disc is no reason to hold anything up.
                    let _ = drive.eject();
                }
                channel.send(b"J");
                return;
            }
            Incoming::Message(_) | Incoming::Nothing => {}
        }
    }
}

fn send(channel: &Channel, kind: u8, content: &[u8]) {
    let mut message = Vec::with_capacity(content.len().saturating_add(1));
    message.push(kind);
    message.extend_from_slice(content);
    channel.send(&message);
}

fn send_text(channel: &Channel, kind: u8, text: &str) {
    send(channel, kind, text.as_bytes());
}

enum Search {
    Found {
        source: String,
        content: Content,
        drive: Option<Drive>,
    },
    Absent(Reason),
    Broken(Reason),
    /// The process that started us is gone.
    NobodyAsks,
}

// Kept apart: a larger frame costs its caller more than the call.
#[inline(never)]
fn search(channel: &Channel, options: &Options) -> Search {
    if let Some(media) = &options.media {
        return match read(media, options.disc_reader) {
            Ok(Some((kind, content))) => Search::Found {
                source: reason(format_args!("{media} ({kind})")),
                content,
                drive: None,
            },
            Ok(None) => Search::Absent(reason(format_args!("{media} holds no {DOCUMENT}"))),
            Err(ReadFault::Device) => {
                Search::Absent(reason(format_args!("{media} cannot be read")))
            }
            Err(fault) => Search::Broken(reason(format_args!("{media}: {fault}"))),
        };
    }
    // Events first, then a look at what is there: nothing can slip through between the two.
    let mut uevents = Uevents::open().ok();
    let start = clock::monotonic();
    let deadline = start.saturating_add(SEARCH);
    let mut empty_since = None;
    let mut last_fault: Option<Reason> = None;
    loop {
        let now = clock::monotonic();
        let mut drives = 0usize;
        let mut empty = 0usize;
        for drive in block::optical_drives() {
            drives = drives.saturating_add(1);
            match drive.status() {
                Ok(DriveStatus::NoDisc | DriveStatus::TrayOpen) => {
                    empty = empty.saturating_add(1);
                }
                // The node may not be there yet, or the drive is still looking.
                Ok(DriveStatus::NotReady) | Err(_) => {}
                Ok(DriveStatus::DiscOk | DriveStatus::NoInfo) => {
                    match read(drive.path(), options.disc_reader) {
                        Ok(Some((kind, content))) => {
                            return Search::Found {
                                source: reason(format_args!("{} ({kind})", drive.name())),
                                content,
                                drive: Some(drive),
                            };
                        }
                        // Somebody else's disc: as good as none.
                        Ok(None) => empty = empty.saturating_add(1),
                        Err(fault) => {
                            last_fault = Some(reason(format_args!("{}: {fault}", drive.name())));
                        }
                    }
                }
            }
        }
        empty_since = match empty_since {
            _ if drives == 0 || empty < drives => None,
            None => Some(now),
            since => since,
        };
        if empty_since.is_some_and(|since| now >= since.saturating_add(EMPTY)) {
            return Search::Absent(reason(format_args!(
                "{drives} optical drive(s), none with a provisioning disc"
            )));
        }
        // A damaged disc does not mend; a device that gave an error may only have needed a while.
        if now >= deadline || (last_fault.is_some() && now >= start.saturating_add(EMPTY)) {
            return match last_fault {
                Some(fault) => Search::Broken(fault),
                None if drives == 0 => Search::Absent(reason(format_args!(
                    "no optical drive appeared within {} s",
                    SEARCH.as_secs()
                ))),
                None => Search::Absent(reason(format_args!("no disc became ready"))),
            };
        }
        if !wait_for_news(channel, uevents.as_mut()) {
            return Search::NobodyAsks;
        }
    }
}

/// Waits for an event of a drive or a while; tells whether anybody still wants to know.
///
/// While udev goes through all devices there are thousands of other events: each is passed over for the
/// price of reading it.
fn wait_for_news(channel: &Channel, mut uevents: Option<&mut Uevents>) -> bool {
    let until = clock::monotonic().saturating_add(AGAIN);
    let mut event = [0; uevent::MESSAGE_BYTES];
    loop {
        let mut fds: heapless::Vec<PollFd<'_>, 2> = heapless::Vec::new();
        let _ = fds.push(PollFd::new(channel, PollFlags::IN));
        if let Some(uevents) = &uevents {
            let _ = fds.push(PollFd::new(*uevents, PollFlags::IN));
        }
        let left = until.saturating_sub(clock::monotonic());
        let _ = poll::wait(&mut fds, Some(left));
        drop(fds);
        if channel.receive(&mut [0; MAX_MESSAGE]) == Incoming::Closed {
            return false;
        }
        let mut is_news = left.is_zero();
        while let Some(uevents) = &mut uevents
            && let Ok(Some(news)) = uevents.next(&mut event)
        {
            is_news |= match news {
                uevent::News::Device(event) => block::is_optical(event.path),
                uevent::News::Lost => true,
            };
        }
        if is_news {
            return true;
        }
    }
}

/// Why a disc was not read.
enum ReadFault {
    /// The device gave an error, or cannot be opened.
    Device,
    /// The format is damaged or not supported.
    Format(DiscFault),
    /// The kernel could not mount it either.
    Kernel(mount::MountFault),
    /// The document is larger than any that Azure makes.
    TooLarge,
}

impl fmt::Display for ReadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadFault::Device => f.write_str("the device cannot be read"),
            ReadFault::Format(fault) => fault.fmt(f),
            ReadFault::Kernel(fault) => fault.fmt(f),
            ReadFault::TooLarge => write!(f, "{DOCUMENT} is larger than {MAX_DOCUMENT} bytes"),
        }
    }
}

/// In which way a disc was read.
enum Way {
    Own(Kind),
    Kernel,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Own(kind) => kind.fmt(f),
            Way::Kernel => f.write_str("mounted by the kernel"),
        }
    }
}

/// Reads the document from a device; `None` if the disc is not a provisioning disc.
fn read(device: &str, reader: DiscReader) -> Result<Option<(Way, Content)>, ReadFault> {
    let own = match reader {
        DiscReader::Kernel => None,
        DiscReader::Auto | DiscReader::Own => {
            let media = Media::open(device).map_err(|_| ReadFault::Device)?;
            Some(read_own(media))
        }
    };
    match own {
        Some(Err(ReadFault::Format(fault))) if reader == DiscReader::Auto => {
            // The kernel may know a format that we do not; if it does not, ours is the better message.
            read_by_kernel(device).map_err(|_| ReadFault::Format(fault))
        }
        Some(result) => result,
        None => read_by_kernel(device),
    }
}

fn read_own(media: impl Read + Seek) -> Result<Option<(Way, Content)>, ReadFault> {
    let mut disc = match Disc::open(media) {
        Ok(disc) => disc,
        Err(DiscFault::Device { .. }) => return Err(ReadFault::Device),
        Err(fault) => return Err(ReadFault::Format(fault)),
    };
    let length = match disc.file_length(DOCUMENT) {
        Ok(length) => length,
        Err(DiscFault::NotFound) => return Ok(None),
        Err(DiscFault::Device { .. }) => return Err(ReadFault::Device),
        Err(fault) => return Err(ReadFault::Format(fault)),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_DOCUMENT {
        return Err(ReadFault::TooLarge);
    }
    let mut document = alloc::vec![0; length];
    let length = match disc.read_file(DOCUMENT, &mut document) {
        Ok(length) => length,
        Err(DiscFault::Device { .. }) => return Err(ReadFault::Device),
        Err(fault) => return Err(ReadFault::Format(fault)),
    };
    document.truncate(length);
    if !has(&document, PROVISIONING) {
        return Ok(None);
    }
    let mut custom_data = Vec::new();
    // A file that cannot be read is as good as none: on most discs there is none.
    if !has(&document, FULL)
        && let Ok(length @ 1..) = disc.file_length(CUSTOM_DATA)
        && length <= CUSTOM_DATA_MAX as u64
    {
        custom_data.resize(length as usize, 0);
        let length = disc.read_file(CUSTOM_DATA, &mut custom_data).unwrap_or(0);
        custom_data.truncate(length);
    }
    let content = Content {
        document,
        custom_data,
    };
    Ok(Some((Way::Own(disc.kind()), content)))
}

fn read_by_kernel(device: &str) -> Result<Option<(Way, Content)>, ReadFault> {
    if let Some(mut modules) = Modules::open_running(CommandLine::new(b"")) {
        for name in ["udf", "isofs"] {
            // What is missing or built in, the mount will tell.
            let _ = modules.load(name);
        }
    }
    files::make_directory(worker::RUN_DIRECTORY);
    mount::mount_disc(device, MOUNT_POINT).map_err(ReadFault::Kernel)?;
    let disc = Root::open(MOUNT_POINT).ok();
    let document = disc
        .as_ref()
        .map(|disc| disc.read(DOCUMENT_PATH, MAX_DOCUMENT));
    let custom_data = disc
        .as_ref()
        .and_then(|disc| disc.read(CUSTOM_DATA_PATH, CUSTOM_DATA_MAX).ok()?);
    drop(disc);
    // A disc that stays mounted cannot be ejected, which costs a second and nothing else.
    let _ = mount::unmount(MOUNT_POINT);
    files::remove_directory(MOUNT_POINT);
    match document {
        Some(Ok(Some(document))) => Ok(has(&document, PROVISIONING).then(|| {
            let content = Content {
                custom_data: custom_data.unwrap_or_default(),
                document,
            };
            (Way::Kernel, content)
        })),
        Some(Ok(None)) => Ok(None),
        Some(Err(_)) | None => Err(ReadFault::Device),
    }
}

/// What tells a provisioning document from another file of that name.
const PROVISIONING: &[u8] = b"ProvisioningSection";
/// What tells that a document has custom data itself.
const FULL: &[u8] = b"CustomData>";

fn has(document: &[u8], word: &[u8]) -> bool {
    document.windows(word.len()).any(|window| window == word)
}
