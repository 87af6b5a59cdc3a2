//! The worker, seen from the process that must not fail.
//!
//! The supervisor parses nothing from outside. If the worker dies, the supervisor says so and the
//! boot goes on.

use alloc::string::String;
use core::time::Duration;

use heapless::Vec;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd};

use super::options::Options;
use super::words::{Answer, Order};
use super::{Exit, worker};
use crate::linux::channel::{Channel, Incoming, MAX_MESSAGE};
use crate::linux::log::{Level, Log};
use crate::linux::process::{self, Fork};
use crate::linux::{clock, poll};

/// How much longer than its budget a worker may live.
const OVERTIME: Duration = Duration::from_secs(5);
/// A worker that dies once may have met what will not come again; one that dies twice will again.
const MAX_DEATHS: u8 = 2;
/// How long to hold back before starting over.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the interfaces may take to go down.
const RELEASE: Duration = Duration::from_millis(500);

/// A running worker.
pub(super) struct Supervised {
    options: Options,
    start: Duration,
    channel: Channel,
    deadline: Duration,
    ended: Option<Exit>,
    released: bool,
    deaths: u8,
    /// When to start over, if the worker asked for it.
    again: Option<Duration>,
    /// What was said of the root last, for a worker that starts over.
    of_root: Option<String>,
}

impl Supervised {
    /// Starts a worker; `start` is when the program started.
    pub(super) fn start(options: &Options, start: Duration) -> rustix::io::Result<Self> {
        let budget = options.timeout.saturating_add(OVERTIME);
        Ok(Supervised {
            channel: fork_worker(options, start)?,
            options: options.clone(),
            start,
            deadline: start.saturating_add(budget),
            ended: None,
            released: false,
            deaths: 0,
            again: None,
            of_root: None,
        })
    }

    /// Starts a worker; if that fails, tells so.
    pub(super) fn start_or_tell(options: &Options, start: Duration, log: &Log) -> Option<Self> {
        match Self::start(options, start) {
            Ok(worker) => Some(worker),
            Err(error) => {
                let error = error.raw_os_error();
                log.line(
                    Level::Error,
                    format_args!("failed: no worker: error {error}"),
                );
                None
            }
        }
    }

    /// Takes what the worker has said; returns how it ended, once it has.
    pub(super) fn poll(&mut self, log: &Log) -> Option<Exit> {
        self.listen(log);
        let now = clock::monotonic();
        if self.ended.is_none() && self.again.is_some_and(|at| now >= at) {
            self.again = None;
            match fork_worker(&self.options, self.start) {
                Ok(channel) => {
                    self.channel = channel;
                    self.released = false;
                    if let Some(order) = &self.of_root {
                        self.channel.send(order.as_bytes());
                    }
                }
                Err(_) => self.ended = Some(Exit::Failed),
            }
        }
        if self.ended.is_none() && now >= self.deadline {
            log.line(
                Level::Error,
                format_args!("failed: the worker hangs; the boot goes on"),
            );
            self.released = true;
            self.ended = Some(Exit::Failed);
        }
        self.ended
    }

    fn listen(&mut self, log: &Log) {
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            match self.channel.receive(&mut buffer) {
                Incoming::Nothing => return,
                Incoming::Closed => {
                    if self.ended.is_none() && self.again.is_none() {
                        self.mourn(log);
                    }
                    // What a dead process held is released by the kernel.
                    self.released = true;
                    return;
                }
                Incoming::Message(message) => match Answer::parse(message) {
                    Some(Answer::Over(exit)) => self.ended = Some(exit),
                    Some(Answer::Again) => {
                        self.again = Some(clock::monotonic().saturating_add(PAUSE));
                    }
                    Some(Answer::Released) => self.released = self.ended.is_some(),
                    None => {}
                },
            }
        }
    }

    /// Decides what to do about a worker that has died without a word.
    fn mourn(&mut self, log: &Log) {
        self.deaths = self.deaths.saturating_add(1);
        if self.deaths < MAX_DEATHS {
            log.line(Level::Error, format_args!("the worker died; starting over"));
            self.again = Some(clock::monotonic().saturating_add(PAUSE));
        } else {
            log.line(
                Level::Error,
                format_args!(
                    "failed: the worker died again fix=\"this is a bug: please report it with the \
                     console's text; the boot goes on\""
                ),
            );
            self.ended = Some(Exit::Failed);
        }
    }

    /// Returns what tells that the worker has something to say; nothing while there is none.
    pub(super) fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        self.again.is_none().then(|| self.channel.as_fd())
    }

    /// Returns when [`Supervised::poll`] has something to do although nothing was said.
    pub(super) fn due(&self) -> Duration {
        self.again.unwrap_or(self.deadline)
    }

    fn sleep(&self, until: Duration) {
        let mut fds: Vec<PollFd<'_>, 1> = Vec::new();
        if let Some(worker) = self.wait_on() {
            let _ = fds.push(PollFd::from_borrowed_fd(worker, PollFlags::IN));
        }
        let left = until.saturating_sub(clock::monotonic());
        let _ = poll::wait(&mut fds, Some(left));
    }

    /// Waits until the worker has ended.
    fn wait(&mut self, log: &Log) -> Exit {
        loop {
            if let Some(exit) = self.poll(log) {
                return exit;
            }
            self.sleep(self.due());
        }
    }

    /// Starts a worker, tells it something, and waits until it has ended and given the interfaces back.
    pub(super) fn see_through(
        options: &Options,
        start: Duration,
        order: Option<&Order<'_>>,
        log: &Log,
    ) -> Exit {
        let Some(mut worker) = Self::start_or_tell(options, start, log) else {
            return Exit::Failed;
        };
        if let Some(order) = order {
            worker.tell(order);
        }
        let exit = worker.wait(log);
        worker.wait_for_release(log);
        exit
    }

    /// Waits until the worker has given the interfaces back.
    pub(super) fn wait_for_release(&mut self, log: &Log) {
        let until = clock::monotonic().saturating_add(RELEASE);
        while !self.released {
            let now = clock::monotonic();
            if now >= until {
                log.line(
                    Level::Warning,
                    format_args!("the interfaces are not down yet"),
                );
                return;
            }
            self.sleep(until);
            self.poll(log);
        }
    }

    /// Tells the worker something; a worker that is not there misses it.
    pub(super) fn tell(&mut self, order: &Order<'_>) {
        let message = order.to_message();
        self.channel.send(message.as_bytes());
        if matches!(order, Order::Root { .. } | Order::NoRoot(_)) {
            self.of_root = Some(message);
        }
    }
}

/// Starts a worker and returns the line to it.
fn fork_worker(options: &Options, start: Duration) -> rustix::io::Result<Channel> {
    let (ours, theirs) = Channel::pair()?;
    match process::fork()? {
        Fork::Child => {
            drop(ours);
            worker::run(options, &theirs, start);
            process::exit(0)
        }
        Fork::Parent(_) => Ok(ours),
    }
}
