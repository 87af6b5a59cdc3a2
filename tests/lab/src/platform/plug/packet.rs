//! An interface of this network namespace as the host's end of the VM's cable.
//!
//! Meant for one end of a veth pair in a namespace that a test has made; the kernel must have no address on it.
//! The other end may be driven by any client, a kernel's TCP included: checksums and large segments that a kernel
//! leaves to hardware are finished here.

use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::{now, wait};
use crate::platform::{Platform, frame};

/// Larger than any segment that a kernel leaves for hardware to cut.
const MAX_FRAME: usize = 70_000;
/// Room for one control message with `tpacket_auxdata`.
const CONTROL: usize = 128;
const ALL_PROTOCOLS: u16 = libc::ETH_P_ALL as u16;

/// A packet socket on one interface.
pub struct Interface {
    socket: OwnedFd,
}

impl Interface {
    /// Opens the interface of this name.
    pub fn open(name: &str) -> io::Result<Self> {
        let name = CString::new(name)?;
        // SAFETY: `name` is a string that ends with zero and lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; protocol 0 hears nothing until the socket is bound.
        let fd = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, valid and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for option in [libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
            let on: libc::c_int = 1;
            // SAFETY: the value is an int of that length, alive through the call.
            let result = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    option,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ALL_PROTOCOLS.to_be();
        address.sll_ifindex = index.cast_signed();
        // SAFETY: the address is a `sockaddr_ll` of that length, alive through the call.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket })
    }

    /// The descriptor to wait for.
    pub(crate) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads a frame; its checksum is filled in if the sender had left that to hardware.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        #[repr(align(8))]
        struct Control([u8; CONTROL]);
        let mut control = Control([0; CONTROL]);
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: all-zero bytes are a valid `msghdr`.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL as _;
        // SAFETY: the buffers are alive, and their true lengths are in the message.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel has filled in the control buffer's used length.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: either null or inside `control`, which is aligned for it.
        if let Some(header) = unsafe { header.as_ref() }
            && header.cmsg_level == libc::SOL_PACKET
            && header.cmsg_type == libc::PACKET_AUXDATA
        {
            // SAFETY: the header is inside `control`, so its data is.
            let data = unsafe { libc::CMSG_DATA(header) };
            // SAFETY: the kernel has put a `tpacket_auxdata` there; it may be unaligned.
            let extra: libc::tpacket_auxdata =
                unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
            if extra.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0 {
                frame::fill_checksum(&mut buffer[..length]);
            }
        }
        Ok(length)
    }

    /// Sends a frame.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, bytes, rustix::net::SendFlags::empty())?;
        Ok(())
    }
}

/// Runs the platform on an interface until `stop`. A cable that is pulled loses frames and nothing else.
pub fn run(
    platform: &mut Platform,
    interface: &Interface,
    mut stop: impl FnMut(&Platform) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; MAX_FRAME];
    let down = |error: &io::Error| {
        matches!(
            error.raw_os_error(),
            Some(libc::ENETDOWN | libc::ENOBUFS | libc::ENXIO)
        )
    };
    while !stop(platform) {
        loop {
            match interface.receive(&mut buffer) {
                Ok(length) => platform.receive(now(), &buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock || down(&error) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while let Some(frame) = platform.transmit(now()) {
            match interface.send(&frame) {
                Err(error) if error.kind() != ErrorKind::WouldBlock && !down(&error) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        let deadline = platform.next_deadline(now());
        wait(&[interface.socket.as_fd()], deadline)?;
    }
    Ok(())
}
