//! `preroot prefetch`: all that needs no root, begun as early as the initramfs can, for a `provision`
//! that comes when the root is there.
//!
//! The two find each other by a socket in `/run`: who comes first does the work, who comes later tells it
//! what there is to tell, and waits. Without this command, or when it has died, `provision` does everything
//! itself.

use core::ffi::CStr;
use core::time::Duration;

use heapless::Vec;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::options::{Options, Task};
use super::provision;
use super::supervisor::Supervised;
use super::words::{Answer, Order};
use super::{Exit, worker};
use crate::linux::channel::{Channel, Door, Incoming, MAX_MESSAGE};
use crate::linux::log::{Level, Log};
use crate::linux::{clock, files, poll};

/// Where the two meet.
const DOOR: &CStr = c"/run/preroot/prefetch";

/// More than one run that waits for the same thing is a mistake of somebody's, and harmless.
const MAX_CALLERS: usize = 4;

/// Runs the command.
pub(super) fn run<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Exit {
    let start = clock::monotonic();
    let mut options = Options::of(Task::Prefetch);
    let log = match provision::prepare(&mut options, arguments) {
        Ok(log) => log,
        Err(exit) => return exit,
    };
    work(&options, start, &log).unwrap_or_else(|Busy| {
        log.line(
            Level::Notice,
            format_args!("another run is at work already"),
        );
        Exit::Done
    })
}

/// Another run of the program is at work on this boot.
pub(super) struct Busy;

/// Does the work of a boot, and serves other runs meanwhile.
pub(super) fn work(options: &Options, start: Duration, log: &Log) -> Result<Exit, Busy> {
    files::make_directory(worker::RUN_DIRECTORY);
    let door = match Door::open(DOOR) {
        Ok(door) => Some(door),
        Err(Errno::ADDRINUSE) => return Err(Busy),
        // Who has nobody to wait for does without; who has, would wait in vain.
        Err(_) if options.task != Task::Prefetch => None,
        Err(error) => {
            log.line(
                Level::Error,
                format_args!(
                    "failed: no socket in {}: error {}; provision will do without",
                    worker::RUN_DIRECTORY,
                    error.raw_os_error()
                ),
            );
            return Ok(Exit::Failed);
        }
    };
    let exit = match Supervised::start_or_tell(options, start, log) {
        Some(worker) => serve(worker, door.as_ref(), log),
        None => Exit::Failed,
    };
    if door.is_some() {
        files::remove_file(DOOR);
    }
    Ok(exit)
}

/// Passes on what the callers say until the work is over, then tells them how it ended.
// Kept apart: a larger frame costs its caller more than the call.
#[inline(never)]
fn serve(mut worker: Supervised, door: Option<&Door>, log: &Log) -> Exit {
    let mut callers: Vec<Channel, MAX_CALLERS> = Vec::new();
    let mut buffer = [0; MAX_MESSAGE];
    let exit = loop {
        if let Some(exit) = worker.poll(log) {
            break exit;
        }
        while !callers.is_full()
            && let Some(caller) = door.and_then(Door::accept)
        {
            let _ = callers.push(caller);
        }
        callers.retain(|caller| {
            loop {
                match caller.receive(&mut buffer) {
                    Incoming::Message(message) => {
                        if let Some(order) = Order::parse(message) {
                            worker.tell(&order);
                        }
                    }
                    Incoming::Nothing => return true,
                    // The boot has its reasons; what was asked for is done all the same.
                    Incoming::Closed => return false,
                }
            }
        });
        let mut fds: Vec<PollFd<'_>, { MAX_CALLERS + 2 }> = Vec::new();
        if let Some(door) = door.filter(|_| !callers.is_full()) {
            let _ = fds.push(PollFd::new(door, PollFlags::IN));
        }
        if let Some(worker) = worker.wait_on() {
            let _ = fds.push(PollFd::from_borrowed_fd(worker, PollFlags::IN));
        }
        for caller in &callers {
            let _ = fds.push(PollFd::new(caller, PollFlags::IN));
        }
        let left = worker.due().saturating_sub(clock::monotonic());
        let _ = poll::wait(&mut fds, Some(left));
    };
    worker.wait_for_release(log);
    for caller in &callers {
        caller.send(&Answer::Over(exit).to_message());
    }
    exit
}

/// Has a run that is at work carry out an order, and waits for its end.
///
/// `None` if there is none: then the caller has all to do itself.
pub(super) fn ask(order: &Order<'_>, log: &Log) -> Option<Exit> {
    let other = Channel::connect(DOOR)?;
    other.send(order.to_message().as_bytes());
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        // It has a budget of its own, and ends with it.
        let _ = poll::wait(&mut [PollFd::new(&other, PollFlags::IN)], None);
        match other.receive(&mut buffer) {
            Incoming::Message(message) => {
                if let Some(Answer::Over(exit)) = Answer::parse(message) {
                    return Some(exit);
                }
            }
            Incoming::Nothing => {}
            Incoming::Closed => {
                log.line(
                    Level::Warning,
                    format_args!("the run that was at work died; starting over"),
                );
                return None;
            }
        }
    }
}
