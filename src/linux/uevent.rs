//! The kernel's uevent socket.
//!
//! Not udev's: messages that user space sends to the group are passed over. Bind it before looking at
//! sysfs, else what appears in between is missed. Follows netlink(7) and `lib/kobject_uevent.c`.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};

use crate::wire::uevent::Uevent;

/// A buffer that holds any message: the kernel's own is 2 KiB and the path is in front of it.
pub const MESSAGE_BYTES: usize = 8 << 10;

/// The kernel's group; group 2 is udev's.
const KERNEL_GROUP: u32 = 1;
/// A boot's worth of messages: a coldplug of many devices is a burst.
const QUEUE_BYTES: usize = 2 << 20;

/// What the socket has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// A device came, went or changed.
    Device(Uevent<'a>),
    /// Messages were lost: whoever waits for a device has to look at sysfs again.
    Lost,
}

/// The socket.
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Opens the socket; from here on no message is missed unnoticed.
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )?;
        // Beyond the usual limit needs a privilege; without it the usual limit has to do.
        if sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, QUEUE_BYTES)?;
        }
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self { socket })
    }

    /// Gives the next message; `None` when there is none for now.
    pub fn next<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<News<'b>>> {
        let len = loop {
            match rustix::net::recvfrom(&self.socket, &mut *buffer, RecvFlags::TRUNC) {
                Ok((_, len, sender)) => {
                    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
                    let from_kernel = sender.is_some_and(|sender| sender.pid() == 0);
                    if from_kernel && len > buffer.len() {
                        return Ok(Some(News::Lost));
                    }
                    if from_kernel && Uevent::parse(&buffer[..len]).is_some() {
                        break len;
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => return Ok(Some(News::Lost)),
                Err(errno) => return Err(errno),
            }
        };
        // Parsed twice, for a borrow that is given away in a loop does not end with the round.
        Ok(Uevent::parse(&buffer[..len]).map(News::Device))
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_news_says_none() {
        let mut socket = Uevents::open().unwrap();
        let mut buffer = [0; MESSAGE_BYTES];
        // Other tests may cause events; there is an end to them.
        for _ in 0..1000 {
            if socket.next(&mut buffer).unwrap().is_none() {
                return;
            }
        }
        panic!("no end of messages");
    }

    #[test]
    fn a_message_that_user_space_sent_is_passed_over() {
        let mut socket = Uevents::open().unwrap();
        let sender = rustix::net::socket(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            Some(netlink::KOBJECT_UEVENT),
        )
        .unwrap();
        let rustix_name = rustix::net::getsockname(&socket.socket).unwrap();
        let name = SocketAddrNetlink::try_from(rustix_name).unwrap();
        let forged = b"add@/devices/forged\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=evil\0";
        let to = SocketAddrNetlink::new(name.pid(), 0);
        match rustix::net::sendto(&sender, forged, rustix::net::SendFlags::empty(), &to) {
            Ok(_) => {}
            // Sending to others takes a privilege; without it there is nothing to show.
            Err(Errno::PERM) => return,
            Err(errno) => panic!("{errno}"),
        }
        let mut buffer = [0; MESSAGE_BYTES];
        while let Some(news) = socket.next(&mut buffer).unwrap() {
            if let News::Device(event) = news {
                assert_ne!(event.path, "/devices/forged");
            }
        }
    }
}
