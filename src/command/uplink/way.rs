//! How the platform is spoken to: through our own frames, or the kernel's connections.

use alloc::boxed::Box;
use core::time::Duration;

use heapless::Vec;
use rustix::event::{PollFd, PollFlags};

use crate::engine::transport::{Connection, Peer, Transport};
use crate::linux::port::Port;
use crate::linux::tcp::Sockets;

/// The way that was found.
pub(super) enum Way {
    /// An interface that nobody uses but us, with the lease that we got for it.
    Own(Box<Transport<'static, Port>>),
    /// Whatever somebody else has set up: in the running system, or in an initramfs with `ip=`.
    Kernel(Sockets),
}

impl Way {
    /// Lets the user of the connections act on what has happened.
    pub(super) fn poll(&mut self, now: Duration, user: &mut dyn FnMut(Peer, &mut dyn Connection)) {
        match self {
            Way::Own(transport) => transport.poll(now, user),
            Way::Kernel(sockets) => sockets.poll(user),
        }
    }

    /// Returns when [`Way::poll`] has something to do without an event.
    pub(super) fn due(&mut self, now: Duration) -> Option<Duration> {
        match self {
            Way::Own(transport) => transport.due(now),
            Way::Kernel(_) => None,
        }
    }

    /// Returns the number of the interface, if it is ours.
    pub(super) fn index(&self) -> Option<u32> {
        match self {
            Way::Own(transport) => Some(transport.link().index),
            Way::Kernel(_) => None,
        }
    }

    /// Adds what is to be waited on.
    pub(super) fn wait_on<'s>(&'s self, fds: &mut Vec<PollFd<'s>, 16>) {
        match self {
            Way::Own(transport) => {
                let _ = fds.push(PollFd::new(transport.link(), PollFlags::IN));
            }
            Way::Kernel(sockets) => fds.extend(sockets.wait_on().take(2)),
        }
    }
}
