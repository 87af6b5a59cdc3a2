//! The kernel's UDP on a DHCP client's port: for a machine that has its address already.
//!
//! Not for the initramfs, where the interface has none: see `packet`. Follows udp(7), socket(7).

use core::net::{Ipv4Addr, SocketAddrV4};

use linux_raw_sys::net::{SO_BINDTOIFINDEX, SOL_SOCKET};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
    sockopt,
};

use super::sys;
use crate::wire::dhcp::{CLIENT_PORT, SERVER_PORT};

/// A socket that hears and speaks through one interface only.
#[derive(Debug)]
pub struct DatagramSocket(OwnedFd);

impl DatagramSocket {
    /// Opens port 68 on the interface with this index; `EADDRINUSE` is another DHCP client.
    pub fn open(index: u32) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        sys::set_option(&socket, SOL_SOCKET, SO_BINDTOIFINDEX, &index.cast_signed())?;
        sockopt::set_socket_broadcast(&socket, true)?;
        bind(
            &socket,
            &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT),
        )?;
        Ok(Self(socket))
    }

    /// Sends a message to a server's port.
    pub fn send(&self, message: &[u8], server: Ipv4Addr) -> Result<()> {
        let to = SocketAddrV4::new(server, SERVER_PORT);
        sendto(&self.0, message, SendFlags::empty(), &to).map(drop)
    }

    /// Takes the next message that has arrived; `None` when there is none now.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
        match recv(&self.0, &mut *buffer, RecvFlags::empty()) {
            Ok((length, _)) => Ok(buffer.get(..length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
