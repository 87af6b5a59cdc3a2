//! The work of a boot: network, disc and root at the same time, then the report.
//!
//! One loop, one wait. It runs in a process of its own, because closing a packet socket takes the
//! kernel up to 16 ms that nobody else should wait for, and because whatever goes wrong here must
//! not take the boot down.

use alloc::string::{String, ToString as _};
use core::fmt;
use core::time::Duration;

use heapless::Vec;
use rustix::event::{PollFd, PollFlags};

use super::Exit;
use super::console::{self, Patience};
use super::disc::{News, Reader};
use super::options::{Options, Ready};
use super::rooted::{Counts, Marked, Rooted};
use super::uplink::Uplink;
use crate::engine::identity::Identity;
use crate::engine::wireserver;
use crate::linux::channel::{Channel, Incoming, MAX_MESSAGE};
use crate::linux::log::{Level, Log};
use crate::linux::{clock, dmi, files, memory, poll};
use crate::wire::health::Health;
use crate::wire::ovf;
use crate::wire::report::{MAX_JSON, Outcome, Report, clip, clip_format};
use crate::wire::timestamp::timestamp;
use crate::wire::vmid::VmId;

/// Where the report of this boot lies: `/run` survives into the real root.
pub(super) const REPORT: &str = "/run/preroot/report.json";
/// What belongs to this boot only.
pub(super) const RUN_DIRECTORY: &str = "/run/preroot";
const REPORT_NAME: &str = "report.json";
/// Where a copy lies on the real root.
const REPORT_COPY: &str = "/var/lib/preroot/report.json";
/// How long a drive may take to eject its disc before the report goes out without it.
const EJECT: Duration = Duration::from_secs(1);
/// Where a person reads more.
const DOCUMENTATION: &str = "https://aka.ms/linuxprovisioningerror";

/// What the platform is to be told.
enum Verdict {
    /// Not known yet.
    Open,
    /// The machine is provisioned.
    Ready(Outcome),
    /// It cannot be; the reason is for people.
    Failed,
}

/// The disc, from here.
enum Disc {
    /// It is being looked for.
    Awaited(Reader),
    /// It was read, and is still in the drive.
    Read(Reader),
    /// It is being ejected, until then.
    Ejecting(Reader, Duration),
    /// It is done with, or was never wanted.
    Over,
}

struct Worker<'a> {
    options: &'a Options,
    log: Log,
    start: Duration,
    deadline: Duration,
    vm_id: VmId,
    report: Report,
    uplink: Uplink,
    rooted: Rooted,
    disc: Disc,
    identity: Option<Identity>,
    applied: bool,
    verdict: Verdict,
    /// The description of a failure, as the platform wants it.
    description: String,
    accepted: bool,
}

/// How an attempt ended.
enum End {
    /// There is nothing more to be done on this boot.
    Over(Exit),
    /// The way to the platform is lost: somebody has to start over from the links.
    Again,
}

/// Does the work; `supervisor` hears how it ended, then that everything is released.
pub(super) fn run(options: &Options, supervisor: &Channel, start: Duration) {
    let log = console::open(options.log);
    let Some(vm_id) = options.vm_id.or_else(firmware_vm_id) else {
        log.line(
            Level::Error,
            format_args!(
                "failed: failure to identify Azure VM ID fix=\"the firmware shows no UUID; give \
                 preroot.vm-id\""
            ),
        );
        supervisor.send(&[b'F', Exit::Failed as u8]);
        return;
    };
    let Some((buffers, sockets)) = memory::take_buffers() else {
        return;
    };
    let mut worker = Worker {
        options,
        start,
        deadline: start.saturating_add(options.timeout),
        vm_id,
        report: Report {
            version: clip(crate::VERSION),
            vm_id: clip_format(format_args!("{vm_id}")),
            started_us: u64::try_from(start.as_micros()).unwrap_or(0),
            ..Report::default()
        },
        uplink: Uplink::new(options, buffers, sockets, start),
        rooted: Rooted::new(options, start),
        disc: Disc::Over,
        identity: None,
        applied: false,
        verdict: Verdict::Open,
        description: String::new(),
        accepted: false,
        log,
    };
    let message = match worker.work(supervisor) {
        End::Over(exit) => {
            worker.finish(exit);
            [b'F', exit as u8]
        }
        End::Again => {
            worker.rooted.restore(&worker.log);
            [b'A', 0]
        }
    };
    supervisor.send(&message);
    // The interface goes down while the supervisor is on its way already.
    worker.uplink.release();
    supervisor.send(b"R");
}

/// Reads the VM id that the firmware shows, in the form that the platform uses.
fn firmware_vm_id() -> Option<VmId> {
    let mut buffer = [0; 64];
    let id = VmId::parse(dmi::product_uuid(&mut buffer)?)?;
    Some(if dmi::booted_with_efi() {
        id
    } else {
        id.swapped()
    })
}

impl Worker<'_> {
    /// Time since the start, as the report counts it.
    fn since_start(&self) -> Duration {
        clock::monotonic().saturating_sub(self.start)
    }

    fn work(&mut self, supervisor: &Channel) -> End {
        // A root that is here already may say that there is nothing to do: then nothing is done,
        // not even on the network.
        self.look_for_root();
        if matches!(self.verdict, Verdict::Ready(Outcome::NothingToDo)) {
            if self.options.dry_run {
                console::print(format_args!(
                    "nothing to change: the root has its identity\n"
                ));
            }
            return End::Over(Exit::Done);
        }
        if self.reports()
            && let Err(error) = self.uplink.open()
        {
            self.fail(format_args!("no rtnetlink: error {}", error.raw_os_error()));
            return End::Over(Exit::Failed);
        }
        if matches!(self.verdict, Verdict::Open) {
            match Reader::start(self.options) {
                Ok(reader) => self.disc = Disc::Awaited(reader),
                Err(error) => self.fail(format_args!(
                    "the disc reader cannot be started: error {}",
                    error.raw_os_error()
                )),
            }
        }
        let mut patience = Patience::default();
        loop {
            let now = clock::monotonic();
            self.look_for_root();
            self.hear_supervisor(supervisor);
            self.hear_disc(now);
            self.apply_when_possible();
            if let Some(exit) = self.talk_to_platform(now) {
                return End::Over(exit);
            }
            if now >= self.deadline {
                return End::Over(self.give_up());
            }
            if self.uplink.is_lost() {
                self.log.line(
                    Level::Warning,
                    format_args!("the way to the platform is lost; starting over"),
                );
                return End::Again;
            }
            self.wait(supervisor, now, &mut patience);
        }
    }

    /// Tells whether the platform is to be told anything by this run.
    fn reports(&self) -> bool {
        !self.options.dry_run && matches!(self.options.ready, Ready::Rooted | Ready::Early)
    }

    fn look_for_root(&mut self) {
        let now = clock::monotonic();
        if self.rooted.poll(now) {
            self.report
                .phase("root", Duration::ZERO, self.since_start(), format_args!(""));
            match self.rooted.marked(self.vm_id) {
                Marked::No => {}
                Marked::Configured => {
                    self.log.line(
                        Level::Info,
                        format_args!("root ok: it has its identity; only the report is missing"),
                    );
                    self.disc = Disc::Over;
                    self.applied = true;
                    self.verdict = if self.reports() {
                        Verdict::Ready(Outcome::Ready)
                    } else {
                        Verdict::Ready(Outcome::NothingToDo)
                    };
                }
                Marked::Reported => {
                    self.disc = Disc::Over;
                    self.applied = true;
                    self.verdict = Verdict::Ready(Outcome::NothingToDo);
                }
            }
        } else if self.rooted.is_missed() && matches!(self.verdict, Verdict::Open) {
            let places = self.rooted.places().join(" nor ");
            self.fail(format_args!("no root file system at {places}"));
        }
    }

    fn hear_supervisor(&mut self, supervisor: &Channel) {
        let mut buffer = [0; MAX_MESSAGE];
        while let Incoming::Message(message) = supervisor.receive(&mut buffer) {
            let text = message
                .get(1..)
                .and_then(|text| core::str::from_utf8(text).ok());
            match (message.first(), text) {
                // A phase that the supervisor went through: name, start, end, detail.
                (Some(b'P'), Some(text)) => {
                    let mut fields = text.splitn(4, ' ');
                    let name = fields.next().unwrap_or("");
                    let mut time = || fields.next().and_then(|us| us.parse().ok()).unwrap_or(0);
                    let (from, to) = (Duration::from_micros(time()), Duration::from_micros(time()));
                    let detail = fields.next().unwrap_or("");
                    self.report.phase(
                        name,
                        from.saturating_sub(self.start),
                        to.saturating_sub(self.start),
                        format_args!("{detail}"),
                    );
                }
                // The supervisor has no root to offer: the machine will not come up.
                (Some(b'X'), Some(text)) => self.fail(format_args!("{text}")),
                _ => {}
            }
        }
    }

    fn hear_disc(&mut self, now: Duration) {
        let reader = match &mut self.disc {
            Disc::Awaited(reader) | Disc::Read(reader) | Disc::Ejecting(reader, _) => reader,
            Disc::Over => return,
        };
        let news = reader.poll();
        if let Disc::Ejecting(_, until) = &self.disc
            && now >= *until
        {
            self.disc = Disc::Over;
        }
        let took = self.since_start();
        match news {
            None => {}
            Some(News::Ejected) => self.disc = Disc::Over,
            Some(News::Found { source, document }) => {
                self.report
                    .phase("disc", Duration::ZERO, took, format_args!("{source}"));
                self.log.line(
                    Level::Info,
                    format_args!("disc ok source=\"{source}\" bytes={}", document.len()),
                );
                if let Disc::Awaited(reader) = core::mem::replace(&mut self.disc, Disc::Over) {
                    self.disc = Disc::Read(reader);
                }
                self.identify(document);
            }
            Some(News::Absent(reason)) => {
                self.disc = Disc::Over;
                self.report
                    .phase("disc", Duration::ZERO, took, format_args!("{reason}"));
                self.log.line(
                    Level::Warning,
                    format_args!(
                        "disc absent: {reason} fix=\"this is right for a specialized image; a \
                         generalized one needs its provisioning disc and the drivers for it\""
                    ),
                );
                if matches!(self.verdict, Verdict::Open) {
                    self.verdict = Verdict::Ready(Outcome::Specialized);
                    if self.options.dry_run {
                        console::print(format_args!("nothing to change: {reason}\n"));
                    }
                }
            }
            Some(News::Broken(reason)) => {
                self.disc = Disc::Over;
                self.report
                    .phase("disc", Duration::ZERO, took, format_args!("{reason}"));
                self.fail(format_args!(
                    "failure to read the provisioning disc: {reason}"
                ));
            }
        }
    }

    fn identify(&mut self, document: alloc::vec::Vec<u8>) {
        // It may hold a password: gone as soon as it is parsed.
        let document = zeroize::Zeroizing::new(document);
        let provisioning = match ovf::parse(&document) {
            Ok(provisioning) => provisioning,
            Err(fault) => return self.fail(format_args!("{fault}")),
        };
        match Identity::from_disc(provisioning) {
            Ok(identity) => {
                self.report.identity = clip("disc");
                self.report.host_name = clip(identity.host_name.value.as_str());
                if let Some(admin) = &identity.admin {
                    self.report.user = clip(admin.value.as_str());
                }
                self.identity = Some(identity);
            }
            Err(fault) => self.fail(format_args!("{fault}")),
        }
    }

    fn apply_when_possible(&mut self) {
        if self.applied || !self.rooted.is_here() || !matches!(self.verdict, Verdict::Open) {
            return;
        }
        let Some(identity) = self.identity.take() else {
            return;
        };
        self.applied = true;
        let from = self.since_start();
        let plan = match self.rooted.plan(&identity, self.options, self.vm_id) {
            Ok(plan) => plan,
            Err(fault) => return self.fail(format_args!("{fault}")),
        };
        for note in &plan.notes {
            self.log.line(Level::Warning, format_args!("note: {note}"));
        }
        if self.options.dry_run {
            // The one thing that a dry run is for; standard output is the caller's.
            console::print(format_args!("{plan}"));
            self.verdict = Verdict::Ready(Outcome::Unfinished);
            return;
        }
        match self.rooted.apply(&plan, &self.log) {
            Err(fault) => self.fail(format_args!("{fault}")),
            Ok(Counts { written, unchanged }) => {
                let to = self.since_start();
                self.report.written = written;
                self.report.unchanged = unchanged;
                self.report
                    .phase("apply", from, to, format_args!("{written} written"));
                self.log.line(
                    Level::Info,
                    format_args!(
                        "root ok host={} user={} written={written} unchanged={unchanged} ms={}",
                        self.report.host_name,
                        if self.report.user.is_empty() {
                            "-"
                        } else {
                            &self.report.user
                        },
                        to.saturating_sub(from).as_millis()
                    ),
                );
                self.verdict = Verdict::Ready(Outcome::Ready);
            }
        }
    }

    /// Moves the conversation with the platform on; returns the end of the work when it is over.
    fn talk_to_platform(&mut self, now: Duration) -> Option<Exit> {
        let decided = match &self.verdict {
            Verdict::Open => None,
            Verdict::Ready(_) => Some(Exit::Done),
            Verdict::Failed => Some(Exit::Failed),
        };
        let over = |verdict: &Verdict| !matches!(verdict, Verdict::Ready(Outcome::NothingToDo));
        // Eject before Ready: once the host has Ready it may detach the disc under us. After a failure
        // the disc stays, because the next boot may do better with it.
        if decided == Some(Exit::Done) && !self.options.dry_run && !self.disc_is_out(now) {
            if self.reports() {
                self.exchange(now, None);
            }
            return None;
        }
        if !self.reports() || self.accepted || !over(&self.verdict) {
            return decided;
        }
        let health = match &self.verdict {
            Verdict::Open if self.options.ready == Ready::Early => Some(()),
            Verdict::Open => None,
            Verdict::Ready(_) | Verdict::Failed => Some(()),
        };
        let outcome = self.exchange(now, health)?;
        let from = self.uplink.asked().saturating_sub(self.start);
        let to = self.since_start();
        match outcome {
            wireserver::Outcome::Accepted { door, status } => {
                self.accepted = true;
                self.report
                    .phase("health", from, to, format_args!("{status} {door:?}"));
                let what = if matches!(self.verdict, Verdict::Failed) {
                    "failure"
                } else {
                    "ready"
                };
                self.log.line(
                    Level::Info,
                    format_args!(
                        "{what} reported status={status} ms={} after start, {} after kernel",
                        to.as_millis(),
                        clock::monotonic().as_millis()
                    ),
                );
                decided
            }
            wireserver::Outcome::Refused { status } => {
                self.report
                    .phase("health", from, to, format_args!("{status}"));
                self.report.reason = clip_format(format_args!(
                    "the WireServer refused the report with {status}"
                ));
                self.log.line(
                    Level::Error,
                    format_args!("failed: {}; the boot goes on", self.report.reason),
                );
                Some(Exit::Failed)
            }
            wireserver::Outcome::Impossible => Some(Exit::Failed),
        }
    }

    fn exchange(&mut self, now: Duration, report: Option<()>) -> Option<wireserver::Outcome> {
        let health = report.map(|()| match &self.verdict {
            Verdict::Failed => Health::Failed {
                description: &self.description,
            },
            Verdict::Open | Verdict::Ready(_) => Health::Ready,
        });
        let host_name = Some(self.report.host_name.as_str()).filter(|name| !name.is_empty());
        let host_name: Option<heapless::String<64>> = host_name.map(clip);
        self.uplink.poll(
            now,
            host_name.as_deref(),
            health,
            &self.log,
            &mut self.report,
            self.start,
        )
    }

    /// Sees to it that the disc is ejected; tells whether that is over.
    fn disc_is_out(&mut self, now: Duration) -> bool {
        match core::mem::replace(&mut self.disc, Disc::Over) {
            Disc::Read(reader) if reader.eject() => {
                self.disc = Disc::Ejecting(reader, now.saturating_add(EJECT));
                false
            }
            Disc::Ejecting(reader, until) => {
                self.disc = Disc::Ejecting(reader, until);
                false
            }
            Disc::Awaited(_) | Disc::Read(_) | Disc::Over => true,
        }
    }

    /// Notes a failure that no further try will mend, and what the platform will be told.
    fn fail(&mut self, reason: fmt::Arguments<'_>) {
        if matches!(self.verdict, Verdict::Failed) {
            return;
        }
        let reason = reason.to_string();
        self.log.line(
            Level::Error,
            format_args!("failed: {reason} fix=\"see the report in {REPORT}; the boot goes on\""),
        );
        self.description = alloc::format!(
            "result=error|reason={}|agent={}/{}|vm_id={}|timestamp={}|documentation_url={}",
            Plain(&reason),
            crate::NAME,
            crate::VERSION,
            self.vm_id,
            timestamp(clock::unix_seconds()),
            DOCUMENTATION
        );
        self.report.reason = clip(&reason);
        self.verdict = Verdict::Failed;
    }

    fn give_up(&mut self) -> Exit {
        let (awaited, _) = self.awaited();
        let failure = match self.verdict {
            Verdict::Open => "failure to provision in time",
            Verdict::Ready(_) | Verdict::Failed => self.uplink.awaited().failure(),
        };
        self.log.line(
            Level::Error,
            format_args!(
                "failed: {failure}: still waiting for {awaited} after {} s fix=\"the boot goes on; \
                 the next one tries again\"",
                self.options.timeout.as_secs()
            ),
        );
        if self.report.reason.is_empty() {
            self.report.reason = clip(failure);
        }
        Exit::Failed
    }

    /// Tells what is awaited, and until when.
    fn awaited(&self) -> (String, Duration) {
        match (&self.verdict, &self.disc) {
            (Verdict::Open, Disc::Awaited(reader)) => {
                (String::from("the provisioning disc"), reader.until())
            }
            (Verdict::Open, _) if !self.rooted.is_here() => (
                alloc::format!("the root at {}", self.rooted.places().join(" or ")),
                self.rooted.awaited_until().unwrap_or(self.deadline),
            ),
            _ => (self.uplink.awaited().to_string(), self.deadline),
        }
    }

    fn wait(&mut self, supervisor: &Channel, now: Duration, patience: &mut Patience) {
        let (awaited, until) = self.awaited();
        let until = until.min(self.deadline);
        patience.awaiting(now, &self.log, format_args!("{awaited}"), until);
        let reporting =
            !matches!(self.verdict, Verdict::Open) || self.options.ready == Ready::Early;
        let ejecting = match &self.disc {
            Disc::Ejecting(_, until) => Some(*until),
            _ => None,
        };
        let uplink = self.uplink.due(now, reporting && ejecting.is_none());
        let due = [Some(self.deadline), Some(patience.due()), uplink, ejecting]
            .into_iter()
            .chain([self.rooted.awaited_until()])
            .flatten()
            .min()
            .unwrap_or(self.deadline);
        let mut fds: Vec<PollFd<'_>, 16> = Vec::new();
        // Room for all: see `Uplink::wait_on`.
        let _ = fds.push(PollFd::new(supervisor, PollFlags::IN));
        if let Disc::Awaited(reader) | Disc::Read(reader) | Disc::Ejecting(reader, _) = &self.disc
            && !reader.is_over()
        {
            let _ = fds.push(PollFd::new(reader, PollFlags::IN));
        }
        if let Some(mounts) = self.rooted.wait_on() {
            let _ = fds.push(PollFd::from_borrowed_fd(
                mounts,
                PollFlags::PRI | PollFlags::ERR,
            ));
        }
        self.uplink.wait_on(&mut fds);
        let _ = poll::wait(&mut fds, Some(due.saturating_sub(clock::monotonic())));
    }

    /// Writes down what happened, and leaves the root as it was found.
    fn finish(&mut self, exit: Exit) {
        if self.options.dry_run {
            return;
        }
        self.report.result = match (&self.verdict, exit) {
            (Verdict::Ready(Outcome::NothingToDo), _) => Outcome::NothingToDo,
            (Verdict::Ready(outcome), Exit::Done) if self.accepted => *outcome,
            (Verdict::Ready(_), Exit::Done) => Outcome::Provisioned,
            _ => Outcome::Failed,
        };
        self.report.took_us = u64::try_from(self.since_start().as_micros()).unwrap_or(u64::MAX);
        let mut json = alloc::vec![0; MAX_JSON];
        let length = self.report.to_json(&mut json).unwrap_or(0);
        json.truncate(length);
        files::write_private(RUN_DIRECTORY, REPORT_NAME, &json);
        // A boot with nothing to do leaves no trace on the root.
        if self.report.result != Outcome::NothingToDo && self.rooted.is_here() {
            let ready = self.accepted && matches!(self.verdict, Verdict::Ready(_));
            let reported = ready.then_some(self.vm_id);
            if !self.rooted.note(reported, REPORT_COPY, json, &self.log) && ready {
                self.log.line(
                    Level::Warning,
                    format_args!("the root does not take the note: the next boot reports again"),
                );
            }
        }
        self.rooted.restore(&self.log);
        if self.report.result == Outcome::NothingToDo {
            self.log.line(Level::Info, format_args!("nothing to do"));
        }
    }
}

/// A text for a field of the platform's report, whose separators it must not hold.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.chars().try_for_each(|c| {
            f.write_char(match c {
                '|' | '"' | '\'' => ' ',
                c if c.is_control() => ' ',
                c => c,
            })
        })
    }
}
