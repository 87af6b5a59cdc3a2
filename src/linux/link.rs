//! Network links: which there are, switched on or off, with or without a carrier, and what the kernel's
//! own network has on them.
//!
//! An interface is known by its index, because names may change under us. Follows rtnetlink(7); the bytes are read in
//! [`wire::rtnetlink`](crate::wire::rtnetlink).

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, readlinkat_raw};
use rustix::io::{Errno, Result};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, recvfrom, send,
    socket_with,
};

use super::path::terminated;
use crate::wire::dhcp::Route;
pub use crate::wire::rtnetlink::LinkState;
use crate::wire::rtnetlink::{self, Bytes, Message};

/// The kernel fills at most this much with a list, unless one interface alone needs more.
const BUFFER: usize = 8192;

/// `RTMGRP_LINK`: changes of interfaces.
const LINK_CHANGES: u32 = 1;

/// The interfaces of this network namespace and what becomes of them.
#[derive(Debug)]
pub struct Links {
    /// Lists and changes arrive here.
    events: OwnedFd,
    /// Orders and their answers, so that an answer is never behind a change that nobody has read.
    orders: OwnedFd,
    sequence: u32,
    /// Whether a list is being received.
    listing: bool,
    /// Whether the list must be asked for again, because something was lost.
    again: bool,
    buffer: Vec<u8>,
    /// What of the buffer is still to be read.
    start: usize,
    end: usize,
}

impl Links {
    /// Begins to listen; what there is already comes after [`dump`](Self::dump).
    pub fn open() -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol number is NETLINK_ROUTE.
        let netlink = || socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None);
        let events = netlink()?;
        bind(&events, &SocketAddrNetlink::new(0, LINK_CHANGES))?;
        Ok(Self {
            events,
            orders: netlink()?,
            sequence: 0,
            listing: false,
            again: false,
            // On the heap: it would be copied with each move of this.
            buffer: alloc::vec![0; BUFFER],
            start: 0,
            end: 0,
        })
    }

    /// Asks for the state of every interface; [`next`](Self::next) gives them.
    pub fn dump(&mut self) -> Result<()> {
        if self.listing {
            // The kernel writes one list at a time.
            self.again = true;
            return Ok(());
        }
        self.sequence = self.sequence.wrapping_add(1);
        send(
            &self.events,
            &rtnetlink::list_links(self.sequence),
            SendFlags::empty(),
        )?;
        self.listing = true;
        self.again = false;
        Ok(())
    }

    /// Takes the next state of an interface; `None` when all that there is has been read.
    ///
    /// After [`dump`](Self::dump) that means that every interface has been seen. Where the kernel
    /// had to drop changes, all states come again by themselves; an interface whose removal was
    /// dropped is then just not among them. `EBADMSG` is one datagram that made no sense.
    #[expect(
        clippy::should_implement_trait,
        reason = "it fails, and its end is only for now"
    )]
    pub fn next(&mut self) -> Result<Option<LinkState>> {
        loop {
            let mut rest = self.buffer.get(self.start..self.end).unwrap_or_default();
            let message = rtnetlink::take_message(&mut rest);
            self.start = self.end.saturating_sub(rest.len());
            match message {
                Ok(Some(Message::Link { state, interrupted })) => {
                    self.again |= interrupted;
                    return Ok(Some(state));
                }
                Ok(Some(Message::Done { errno, interrupted })) => {
                    self.listing = false;
                    if errno != 0 {
                        return Err(refusal(errno));
                    }
                    if self.again || interrupted {
                        self.dump()?;
                    }
                }
                Ok(Some(Message::Answer { errno, .. })) if errno != 0 => {
                    // Lists are all that is asked for on this socket.
                    self.listing = false;
                    return Err(refusal(errno));
                }
                Ok(Some(Message::Answer { .. } | Message::Other)) => {}
                Ok(None) => {
                    if !self.receive()? {
                        return Ok(None);
                    }
                }
                Err(_) => return Err(Errno::BADMSG),
            }
        }
    }

    /// Switches an interface on; what becomes of it is told by [`next`](Self::next).
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.switch(index, true)
    }

    /// Switches an interface off.
    pub fn set_down(&mut self, index: u32) -> Result<()> {
        self.switch(index, false)
    }

    /// Has the kernel take an address with its prefix, for so many seconds (all ones: for ever), also
    /// again.
    pub fn add_address(&mut self, index: u32, network: (Ipv4Addr, u8), seconds: u32) -> Result<()> {
        self.order(|number| rtnetlink::address(number, index, network, Some(seconds)))
    }

    /// Takes an address away, and the routes that were added for it.
    pub fn remove_address(&mut self, index: u32, network: (Ipv4Addr, u8)) -> Result<()> {
        self.order(|number| rtnetlink::address(number, index, network, None))
    }

    /// Has the kernel take a route for packets from `source`; it may be there already.
    pub fn add_route(&mut self, index: u32, route: &Route, source: Ipv4Addr) -> Result<()> {
        match self.order(|number| rtnetlink::route(number, index, route, source, true)) {
            Err(Errno::EXIST) => Ok(()),
            result => result,
        }
    }

    /// Takes a route away.
    pub fn remove_route(&mut self, index: u32, route: &Route, source: Ipv4Addr) -> Result<()> {
        self.order(|number| rtnetlink::route(number, index, route, source, false))
    }

    /// Sets the size of the largest packet.
    pub fn set_mtu(&mut self, index: u32, mtu: u16) -> Result<()> {
        self.order(|number| rtnetlink::mtu(number, index, mtu))
    }

    /// Fills the buffer with the next datagram; `false` when there is none.
    fn receive(&mut self) -> Result<bool> {
        (self.start, self.end) = (0, 0);
        // With TRUNC the length is that of the datagram: the last message of a cut one is a fault.
        match recvfrom(&self.events, &mut self.buffer[..], RecvFlags::TRUNC) {
            Ok((_, length, sender)) => {
                let kernel = sender
                    .and_then(|sender| SocketAddrNetlink::try_from(sender).ok())
                    .is_some_and(|sender| sender.pid() == 0);
                // Anybody with the right capability can write to us; only the kernel is believed.
                if kernel {
                    self.end = length.min(BUFFER);
                }
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(Errno::NOBUFS) => {
                self.dump()?;
                Ok(true)
            }
            Err(errno) => Err(errno),
        }
    }

    fn switch(&mut self, index: u32, up: bool) -> Result<()> {
        self.order(|number| rtnetlink::switch_link(number, index, up))
    }

    /// Gives an order, which takes its number, and waits for the answer.
    fn order(&mut self, order: impl FnOnce(u32) -> Bytes) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let order = order(self.sequence);
        self.carry_out(order)
    }

    // Apart from the above, of which there is one for each kind of order.
    #[inline(never)]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "given back here once, instead of by each of the above"
    )]
    fn carry_out(&mut self, order: Bytes) -> Result<()> {
        send(&self.orders, &order, SendFlags::empty())?;
        // The kernel does it within `send`, so the answer is there; it repeats the order.
        let mut answer = [0; 128];
        loop {
            let (_, length) = recv(&self.orders, &mut answer, RecvFlags::empty())?;
            let mut rest = answer.get(..length).unwrap_or_default();
            match rtnetlink::take_message(&mut rest) {
                Ok(Some(Message::Answer { sequence, errno: 0 })) if sequence == self.sequence => {
                    return Ok(());
                }
                Ok(Some(Message::Answer { sequence, errno })) if sequence == self.sequence => {
                    return Err(refusal(errno));
                }
                // Left over from an order that was given up.
                _ => {}
            }
        }
    }
}

/// The error that a message names; rustix panics on numbers that no error has.
fn refusal(errno: u16) -> Errno {
    match errno {
        1..=4095 => Errno::from_raw_os_error(errno.into()),
        _ => Errno::IO,
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// Names the driver of an interface; `None` for one without a device, as `lo` is.
pub fn driver(name: &str) -> Option<heapless::String<32>> {
    driver_below("/sys/class/net", name)
}

fn driver_below(directory: &str, name: &str) -> Option<heapless::String<32>> {
    // The kernel allows neither, but a name may have come from elsewhere.
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return None;
    }
    let mut path = heapless::String::<192>::new();
    for part in &[directory, "/", name, "/device/driver"] {
        path.push_str(part).ok()?;
    }
    let mut target = [0; 256];
    let length = readlinkat_raw(CWD, terminated(&path).ok()?.as_c_str(), &mut target).ok()?;
    let target = target.get(..length)?;
    // What fills the buffer may be cut.
    if length == 256 {
        return None;
    }
    let base = core::str::from_utf8(target).ok()?.rsplit('/').next()?;
    base.try_into()
        .ok()
        .filter(|driver: &heapless::String<32>| !driver.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn an_error_number_that_no_error_has_is_no_panic() {
        assert_eq!(refusal(19), Errno::NODEV);
        assert_eq!(refusal(4096), Errno::IO);
        assert_eq!(refusal(u16::MAX), Errno::IO);
    }

    #[test]
    fn driver_is_the_last_name_of_the_link() {
        let top = std::env::temp_dir().join(std::format!("preroot-driver-{}", std::process::id()));
        fs::create_dir_all(top.join("eth0/device")).unwrap();
        fs::create_dir_all(top.join("virtual")).unwrap();
        symlink(
            "../../../../bus/vmbus/drivers/hv_netvsc",
            top.join("eth0/device/driver"),
        )
        .unwrap();
        let below = |name| driver_below(top.to_str().unwrap(), name);
        let (netvsc, none, nothing) = (below("eth0"), below("virtual"), below("missing"));
        fs::remove_dir_all(&top).unwrap();
        assert_eq!(netvsc.as_deref(), Some("hv_netvsc"));
        assert_eq!((none, nothing), (None, None));
    }

    #[test]
    fn driver_of_a_name_that_leaves_the_directory_is_none() {
        for name in ["", ".", "..", "../net/lo", "a/b", "a\0b"] {
            assert_eq!(driver(name), None, "{name:?}");
        }
        assert_eq!(driver(&"x".repeat(400)), None);
        assert_eq!(driver("lo"), None);
    }
}
