//! The work of a boot: network, disc and root at the same time, then the report.
//!
//! One loop, one wait. It runs in a process of its own, because closing a packet socket takes the
//! kernel up to 16 ms that nobody else should wait for, and because whatever goes wrong here must
//! not take the boot down.

mod apply;
mod disc;
mod keep;
mod platform;
mod who;

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use core::ffi::CStr;
use core::fmt;
use core::mem::ManuallyDrop;
use core::time::Duration;

use heapless::Vec;
use rustix::event::{PollFd, PollFlags};

use self::disc::Disc;
use super::Exit;
use super::console::{self, Patience};
use super::disc::Reader;
use super::options::{Options, Output, Ready, Task};
use super::rooted::{Marked, Rooted};
use super::uplink::Uplink;
use super::words::{Answer, Order};
use crate::engine::backoff::earliest;
use crate::engine::identity::Identity;
use crate::linux::channel::{Channel, Incoming, MAX_MESSAGE};
use crate::linux::log::{self, Level, Log};
use crate::linux::{clock, dmi, memory, poll};
use crate::wire::health::Failure;
use crate::wire::ovf::Provisioning;
use crate::wire::report::{Outcome, Report, clip};
use crate::wire::timestamp::{micros, timestamp};
use crate::wire::vmid::VmId;

/// Where the report of this boot lies: `/run` survives into the real root.
pub(super) const REPORT: &str = "/run/preroot/report.json";
/// What belongs to this boot only.
pub(super) const RUN_DIRECTORY: &str = "/run/preroot";
const REPORT_NAME: &str = "report.json";
/// What tells a unit of the real root that the report is left to it.
const LATER_NAME: &str = "ready-later";
/// The same, as a path.
pub(super) const LATER: &CStr = c"/run/preroot/ready-later";
/// How long a drive may take to eject its disc before the report goes out without it.
const EJECT: Duration = Duration::from_secs(1);

/// How long a report of failure may take.
pub(super) const COURIER: Duration = Duration::from_mins(1);

/// What the platform is to be told.
enum Verdict {
    /// Not known yet.
    Open,
    /// The machine is provisioned.
    Ready(Outcome),
    /// It cannot be; the reason is for people.
    Failed,
}

/// Who the machine is to be.
enum Who {
    /// The disc has not spoken yet.
    Unknown,
    /// The disc has, at this time, unless there is none; the metadata service is heard next.
    Heard(Option<Box<Provisioning>>, Duration),
    /// This.
    Known(Box<Identity>),
    /// Whoever it was: nothing is to be done about it any more.
    Settled,
}

struct Worker {
    options: Options,
    log: Log,
    start: Duration,
    deadline: Duration,
    vm_id: VmId,
    report: Report,
    uplink: Uplink,
    rooted: Rooted,
    disc: Disc,
    who: Who,
    /// The host name, once it is known.
    host_name: String,
    verdict: Verdict,
    /// The description of a failure, as the platform wants it.
    description: String,
    accepted: bool,
    /// Whether the record for the host is written.
    host_told: bool,
    /// Why there is no disc, while nobody was told.
    no_disc: Option<String>,
    /// Whether the report is due, and left to the running system.
    left_for_later: bool,
}

/// Does the work; `supervisor` hears how it ended, then that everything is released.
pub(super) fn run(options: &Options, supervisor: &Channel, start: Duration) {
    let log = console::open(options.log);
    let Some(vm_id) = options.vm_id.or_else(dmi::vm_id) else {
        log.line(
            Level::Error,
            format_args!(
                "failed: failure to identify Azure VM ID fix=\"the firmware shows no UUID; give \
                 preroot.vm-id\""
            ),
        );
        supervisor.send(&Answer::Over(Exit::Failed).to_message());
        return;
    };
    let Some((buffers, sockets)) = memory::take_buffers() else {
        return;
    };
    // The process ends with it, and the kernel takes back what it holds.
    let mut worker = ManuallyDrop::new(Worker {
        options: options.clone(),
        start,
        deadline: start.saturating_add(options.timeout),
        vm_id,
        report: Report::default(),
        uplink: Uplink::new(options, buffers, sockets, start),
        rooted: match options.task {
            Task::Provision | Task::Ready => Rooted::new(options, start),
            Task::Prefetch | Task::Failed => Rooted::gated(start.saturating_add(options.timeout)),
        },
        disc: Disc::Over,
        who: Who::Unknown,
        host_name: String::new(),
        verdict: Verdict::Open,
        description: String::new(),
        accepted: false,
        host_told: false,
        no_disc: None,
        left_for_later: false,
        log,
    });
    let worker = &mut *worker;
    worker.report.started_us = micros(start);
    if options.task.reports_only() {
        worker.go_on_with_report();
    }
    clip(
        &mut worker.report.version,
        format_args!("{}", crate::VERSION),
    );
    clip(&mut worker.report.vm_id, format_args!("{vm_id}"));
    let answer = worker.work(supervisor);
    if matches!(answer, Answer::Over(_)) {
        worker.hand_over(supervisor);
    }
    match answer {
        Answer::Over(exit) => worker.finish(exit),
        Answer::Again | Answer::Released => worker.rooted.restore(&worker.log),
    }
    // It may hold a password.
    worker.who = Who::Settled;
    supervisor.send(&answer.to_message());
    // The interface goes down while the supervisor is on its way already.
    worker.uplink.release();
    supervisor.send(&Answer::Released.to_message());
}

impl Worker {
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    fn work(&mut self, supervisor: &Channel) -> Answer {
        // A root that is here already may say that there is nothing to do: then nothing is done,
        // not even on the network.
        self.look_for_root();
        if matches!(self.verdict, Verdict::Ready(Outcome::NothingToDo)) {
            if self.options.dry_run {
                console::print(format_args!(
                    "nothing to change: the root has its identity\n"
                ));
            }
            return Answer::Over(Exit::Done);
        }
        if matches!(self.verdict, Verdict::Open) && !self.options.task.reports_only() {
            match Reader::start(&self.options) {
                Ok(reader) => self.disc = Disc::Awaited(reader),
                Err(error) => {
                    let error = error.raw_os_error();
                    self.fail(
                        format_args!("the disc reader cannot be started: error {error}"),
                        "give the machine more memory",
                    );
                }
            }
        }
        let mut patience = Patience::default();
        loop {
            let now = clock::monotonic();
            self.look_for_root();
            if !self.hear_supervisor(supervisor) {
                self.log.line(
                    Level::Warning,
                    format_args!("nobody waits for the end any more; giving up"),
                );
                return Answer::Over(Exit::Failed);
            }
            self.hear_disc(now);
            if !self.open_uplink(now) {
                return Answer::Over(Exit::Failed);
            }
            if self.knows_enough(now) {
                self.identify(now);
            }
            self.apply_when_possible();
            if let Some(exit) = self.talk_to_platform(now) {
                return Answer::Over(exit);
            }
            if now >= self.deadline {
                return Answer::Over(self.give_up());
            }
            if self.uplink.is_lost() {
                self.log.line(
                    Level::Warning,
                    format_args!("the way to the platform is lost; starting over"),
                );
                return Answer::Again;
            }
            // What the metadata service has just said may be all that was missing.
            if !self.knows_enough(now) {
                self.wait(supervisor, now, &mut patience);
            }
        }
    }

    /// Tells whether the platform is to be told anything by this run.
    // Out of line: it is asked at every turn.
    #[inline(never)]
    fn reports(&self) -> bool {
        self.options.task.reports_only()
            || !self.options.dry_run && matches!(self.options.ready, Ready::Rooted | Ready::Early)
    }

    /// Opens the way to the platform as soon as it is known to be needed.
    ///
    /// An ordinary boot of a machine that is done needs none, and then not a frame is sent. A disc
    /// that was read, or a root that was not reported, tells that this is no such boot; and when
    /// it is the disc, the host name is known before the DHCP server is asked, which registers it.
    /// Tells whether the work can go on.
    fn open_uplink(&mut self, now: Duration) -> bool {
        let is_new = !matches!(self.who, Who::Unknown | Who::Heard(None, _));
        let needed = match self.verdict {
            Verdict::Open => is_new || self.rooted.is_here() || self.options.ready == Ready::Early,
            Verdict::Ready(Outcome::NothingToDo) => false,
            Verdict::Ready(_) | Verdict::Failed => true,
        };
        if !matches!(self.who, Who::Unknown) {
            self.uplink.ask_metadata();
        }
        let asks = matches!(&self.who, Who::Heard(disc, _) if !self.suffices(disc.as_deref()));
        if needed
            && (self.reports() || asks)
            && let Err(error) = self.uplink.open(now)
        {
            let error = error.raw_os_error();
            self.fail(
                format_args!("no rtnetlink: error {error}"),
                "the kernel needs it",
            );
            return false;
        }
        true
    }

    fn look_for_root(&mut self) {
        let now = clock::monotonic();
        if self.rooted.poll(now) {
            self.report
                .phase("root", self.start, clock::monotonic(), format_args!(""));
            let mut marked = self.rooted.marked(self.vm_id);
            if marked != Marked::Reported {
                self.rooted.take_settings(&mut self.options, &self.log);
            }
            if self.options.output == Output::Credentials {
                // They are gone with each boot.
                marked = Marked::No;
            }
            match marked {
                // Whoever asks for nothing but the report knows that the machine is what it shall be.
                Marked::No | Marked::Configured if self.options.task == Task::Ready => {
                    self.verdict = Verdict::Ready(Outcome::Ready);
                }
                Marked::No => self.tell_missing_disc(),
                Marked::Configured if self.reports() => {
                    self.log.line(
                        Level::Info,
                        format_args!("root ok: it has its identity; only the report is missing"),
                    );
                    self.disc = Disc::Over;
                    // The boot that did the rest has told the host, and the root is not to be touched.
                    self.host_told = true;
                    self.verdict = Verdict::Ready(Outcome::Ready);
                }
                Marked::Configured | Marked::Reported => {
                    self.left_for_later =
                        marked == Marked::Configured && self.options.ready == Ready::Later;
                    self.disc = Disc::Over;
                    self.verdict = Verdict::Ready(Outcome::NothingToDo);
                }
            }
        } else if self.rooted.is_missed() && matches!(self.verdict, Verdict::Open) {
            let places = self.rooted.places().join(" nor ");
            self.fail(
                format_args!("no root file system at {places}"),
                "see root= and the lines of the initramfs above",
            );
        }
    }

    /// Takes what the supervisor says; tells whether it is still there.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    fn hear_supervisor(&mut self, supervisor: &Channel) -> bool {
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            let message = match supervisor.receive(&mut buffer) {
                Incoming::Message(message) => message,
                Incoming::Nothing => return true,
                Incoming::Closed => return false,
            };
            match Order::parse(message) {
                Some(Order::Phase {
                    name,
                    from,
                    to,
                    detail,
                }) => self.report.phase(name, from, to, format_args!("{detail}")),
                Some(Order::NoRoot(reason)) => {
                    if self.rooted.is_gated() {
                        self.options.task = Task::Failed;
                        // An emergency shell waits for it.
                        self.options.timeout = COURIER;
                        let until = clock::monotonic().saturating_add(COURIER);
                        self.deadline = self.deadline.min(until);
                    }
                    self.rooted.give_up();
                    self.fail(format_args!("{reason}"), "see root= and the drivers");
                }
                Some(Order::Root { path, wait }) if self.rooted.is_gated() => {
                    self.options.root = path.map(String::from);
                    self.options.wait_root = wait;
                    self.rooted = Rooted::new(&self.options, clock::monotonic());
                }
                Some(Order::Root { .. }) | None => {}
            }
        }
    }

    /// Notes a failure that no further try will mend, and what the platform will be told; the first
    /// one counts.
    fn fail(&mut self, reason: fmt::Arguments<'_>, fix: &str) {
        if matches!(self.verdict, Verdict::Failed) {
            return;
        }
        self.verdict = Verdict::Failed;
        let reason = reason.to_string();
        self.log.line(
            Level::Error,
            format_args!("failed: {reason} fix=\"{fix}; the boot goes on\""),
        );
        // Why there is no root is seldom known to us.
        let kernel_log = self.rooted.is_missed().then(log::kernel_tail);
        let failure = Failure {
            reason: &reason,
            vm_id: self.vm_id,
            timestamp: &timestamp(clock::unix_seconds()),
            kernel_log: kernel_log.as_deref().unwrap_or_default(),
        };
        self.description = failure.to_string();
        clip(&mut self.report.reason, format_args!("{reason}"));
    }

    /// Tells what is awaited, and until when.
    fn awaited(&self) -> (String, Duration) {
        match (&self.verdict, &self.disc) {
            _ if self.rooted.is_gated() => (String::from("preroot provision"), self.deadline),
            (Verdict::Open, Disc::Awaited(reader)) => {
                (String::from("the provisioning disc"), reader.until())
            }
            (Verdict::Open, _)
                if !(self.rooted.is_here() || matches!(self.who, Who::Heard(..))) =>
            {
                (
                    alloc::format!("the root at {}", self.rooted.places().join(" or ")),
                    self.rooted.awaited_until().unwrap_or(self.deadline),
                )
            }
            _ => (self.uplink.awaited().to_string(), self.deadline),
        }
    }

    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    fn wait(&mut self, supervisor: &Channel, now: Duration, patience: &mut Patience) {
        let (awaited, until) = self.awaited();
        let until = until.min(self.deadline);
        // Nobody is kept waiting yet by a run that begins before its time.
        let line = (!self.rooted.is_gated()).then(|| {
            patience.awaiting(now, &self.log, format_args!("{awaited}"), until);
            patience.due()
        });
        let reporting =
            !matches!(self.verdict, Verdict::Open) || self.options.ready == Ready::Early;
        let ejecting = match &self.disc {
            Disc::Ejecting(_, until) => Some(*until),
            _ => None,
        };
        let uplink = self.uplink.due(now, reporting && ejecting.is_none());
        let root = self.rooted.awaited_until();
        let metadata = self.metadata_until();
        let due = earliest(&[line, uplink, ejecting, root, metadata])
            .map_or(self.deadline, |due| due.min(self.deadline));
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
}
