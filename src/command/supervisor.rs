//! The worker, seen from the process that must not fail.
//!
//! The supervisor parses nothing from outside. If the worker dies, the supervisor says so and the
//! boot goes on.

use core::fmt;
use core::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd};

use super::options::Options;
use super::{Exit, worker};
use crate::linux::channel::{Channel, Incoming, MAX_MESSAGE};
use crate::linux::log::{Level, Log};
use crate::linux::process::{self, Fork};
use crate::linux::{clock, poll};
use crate::wire::report::clip_format;

/// How much longer than its budget a worker may live.
const OVERTIME: Duration = Duration::from_secs(5);
/// How long the interfaces may take to go down.
const RELEASE: Duration = Duration::from_millis(500);

/// A running worker.
pub(super) struct Supervised {
    channel: Channel,
    deadline: Duration,
    ended: Option<Exit>,
    released: bool,
}

impl Supervised {
    /// Starts a worker; `start` is when the program started.
    pub(super) fn start(options: &Options, start: Duration) -> rustix::io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        match process::fork()? {
            Fork::Child => {
                drop(ours);
                let exit = worker::run(options, &theirs, start);
                process::exit(exit as i32)
            }
            Fork::Parent(_) => Ok(Supervised {
                channel: ours,
                deadline: start
                    .saturating_add(options.timeout)
                    .saturating_add(OVERTIME),
                ended: None,
                released: false,
            }),
        }
    }

    /// Takes what the worker has said; returns how it ended, once it has.
    pub(super) fn poll(&mut self, log: &Log) -> Option<Exit> {
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            match self.channel.receive(&mut buffer) {
                Incoming::Nothing => break,
                Incoming::Closed => {
                    self.released = true;
                    if self.ended.is_none() {
                        log.line(
                            Level::Error,
                            format_args!("failed: the worker died; the boot goes on"),
                        );
                        self.ended = Some(Exit::Failed);
                    }
                    break;
                }
                Incoming::Message([b'F', code]) => {
                    self.ended = Some(match code {
                        0 => Exit::Done,
                        _ => Exit::Failed,
                    });
                }
                Incoming::Message([b'R']) => self.released = true,
                Incoming::Message(_) => {}
            }
        }
        if self.ended.is_none() && clock::monotonic() >= self.deadline {
            log.line(
                Level::Error,
                format_args!("failed: the worker hangs; the boot goes on"),
            );
            self.released = true;
            self.ended = Some(Exit::Failed);
        }
        self.ended
    }

    /// Waits until the worker has ended.
    pub(super) fn wait(&mut self, log: &Log) -> Exit {
        loop {
            if let Some(exit) = self.poll(log) {
                return exit;
            }
            let left = self.deadline.saturating_sub(clock::monotonic());
            let _ = poll::wait(&mut [PollFd::new(&self.channel, PollFlags::IN)], Some(left));
        }
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
            let left = until.saturating_sub(now);
            let _ = poll::wait(&mut [PollFd::new(&self.channel, PollFlags::IN)], Some(left));
            self.poll(log);
        }
    }

    /// Tells the worker of a phase that the supervisor went through.
    pub(super) fn tell_phase(
        &self,
        name: &str,
        from: Duration,
        to: Duration,
        detail: fmt::Arguments<'_>,
    ) {
        let text: heapless::String<256> = clip_format(format_args!(
            "P{name} {} {} {detail}",
            from.as_micros(),
            to.as_micros()
        ));
        self.channel.send(text.as_bytes());
    }

    /// Tells the worker that the machine will not come up, and why.
    pub(super) fn tell_failure(&self, reason: fmt::Arguments<'_>) {
        let text: heapless::String<512> = clip_format(format_args!("X{reason}"));
        self.channel.send(text.as_bytes());
    }
}

impl AsFd for Supervised {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
