//! Waiting for events, with a deadline: the one place where the program sleeps.

use core::time::Duration;

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::{Errno, Result};

/// Waits until a descriptor is ready or the time is up; says how many are ready.
///
/// A signal counts as time: it gives 0, and the caller looks at its clock as it does anyway.
/// Without a timeout it waits for ever.
pub fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<usize> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(fds, timeout.as_ref()) {
        Err(Errno::INTR) => {
            // The kernel leaves the answers of the last call in place; they would be read as new.
            for fd in fds {
                fd.clear_revents();
            }
            Ok(0)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::clock::monotonic;
    use rustix::event::PollFlags;
    use rustix::pipe::pipe;

    #[test]
    fn an_idle_descriptor_costs_the_whole_timeout() {
        let (reader, _writer) = pipe().unwrap();
        let start = monotonic();
        let mut fds = [PollFd::new(&reader, PollFlags::IN)];
        assert_eq!(wait(&mut fds, Some(Duration::from_millis(20))), Ok(0));
        assert!(monotonic().checked_sub(start).unwrap() >= Duration::from_millis(20));
    }

    #[test]
    fn a_ready_descriptor_ends_the_longest_wait_at_once() {
        let (reader, writer) = pipe().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        let mut fds = [PollFd::new(&reader, PollFlags::IN)];
        assert_eq!(wait(&mut fds, Some(Duration::MAX)), Ok(1));
        assert!(fds[0].revents().contains(PollFlags::IN));
        assert_eq!(wait(&mut fds, None), Ok(1));
    }
}
