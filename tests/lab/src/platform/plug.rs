//! Ways to put the platform on a wire.
//!
//! In-process needs none of them: call [`Platform::receive`](super::Platform::receive) and
//! [`Platform::transmit`](super::Platform::transmit). Every plug runs until its `stop` says so, sleeps while nothing
//! happens, and uses only the interface, socket or address that the caller names: nothing is guessed, because the
//! well-known addresses are live ones on a machine that is itself in Azure.

pub mod dgram;
pub mod packet;
pub mod tcp;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

/// How long a plug sleeps at the most before it asks `stop` again.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// The time that plugs tell the platform: the kernel's monotonic clock, so that a client in the same kernel agrees.
pub fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// Sleeps until a descriptor can be read, or the deadline, or it is time to ask `stop`.
pub(crate) fn wait(
    descriptors: &[BorrowedFd<'_>],
    deadline: Option<Duration>,
) -> std::io::Result<()> {
    let sleep = deadline.map_or(LONGEST_SLEEP, |deadline| deadline.saturating_sub(now()));
    let sleep = sleep.min(LONGEST_SLEEP);
    let timeout = Timespec {
        tv_sec: sleep.as_secs().cast_signed(),
        tv_nsec: sleep.subsec_nanos().into(),
    };
    let mut polled: Vec<PollFd<'_>> = descriptors
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
