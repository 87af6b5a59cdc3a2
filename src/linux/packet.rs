//! Ethernet frames over `AF_PACKET`: one socket for one interface.
//!
//! Not a network stack: bytes in, bytes out. The kernel's own IP stack sees every frame as well, so
//! the interface must have no address while this socket is in use, or the kernel resets our TCP
//! connection. Follows packet(7) and the protocol reference, section 2.7.
//!
//! What the order of the calls in [`PacketSocket::open`] is for, and what to know of the end: a
//! socket that asks for a protocol at its creation waits for an RCU grace period before it can be
//! bound (16 ms), and so does every close, by exit or exec too (8 to 16 ms, even if it was never
//! bound). The first is avoided here; the second cannot be, so the caller lets a forked worker own
//! the socket and pay for its end.

use linux_raw_sys::if_ether::{ETH_P_ALL, ETH_P_ARP, ETH_P_IP};
use linux_raw_sys::if_packet::{
    PACKET_AUXDATA, PACKET_IGNORE_OUTGOING, PACKET_MULTICAST, TP_STATUS_CSUM_VALID,
    TP_STATUS_CSUMNOTREADY,
};
use linux_raw_sys::net::{SO_ATTACH_FILTER, SOL_PACKET, SOL_SOCKET};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, send, socket_with};

use super::sys::{self, Instruction, LinkAddress, Program};

// Instructions of the classic filter machine (linux/filter.h): a mode, a size and a class each.
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_HALF_PAST_X: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
const SET_X_TO_HEADER: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH: four times the low four bits
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Where the kernel keeps the packet type for filters: `SKF_AD_OFF + SKF_AD_PKTTYPE`.
const PACKET_TYPE: u32 = (-0x1000_i32 + 4).cast_unsigned();

/// Lets through what the network session reads: ARP, UDP to port 68, TCP from port 80.
///
/// A load beyond the end of the frame drops it. Frames for other stations and our own on their way
/// out are dropped by their type, which also serves kernels without `PACKET_IGNORE_OUTGOING`.
#[rustfmt::skip]
const FILTER: &[Instruction] = &[
    /*  0 */ op(LOAD_WORD, 0, 0, PACKET_TYPE),
    /*  1 */ op(IF_GREATER, 14, 0, PACKET_MULTICAST), // for another station, or outgoing: drop
    /*  2 */ op(LOAD_HALF, 0, 0, 12),                 // Ethernet: type
    /*  3 */ op(IF_EQUAL, 11, 0, ETH_P_ARP),          // ARP: keep
    /*  4 */ op(IF_EQUAL, 0, 11, ETH_P_IP),           // neither ARP nor IPv4: drop
    /*  5 */ op(LOAD_HALF, 0, 0, 14 + 6),             // IPv4: flags and fragment offset
    /*  6 */ op(IF_ANY_BIT, 9, 0, 0x1fff),            // a later fragment has no ports: drop
    /*  7 */ op(SET_X_TO_HEADER, 0, 0, 14),           // IPv4: X = length of the header
    /*  8 */ op(LOAD_BYTE, 0, 0, 14 + 9),             // IPv4: protocol
    /*  9 */ op(IF_EQUAL, 0, 2, 17),                  // not UDP: to 12
    /* 10 */ op(LOAD_HALF_PAST_X, 0, 0, 14 + 2),      // UDP: destination port
    /* 11 */ op(IF_EQUAL, 3, 4, 68),                  // DHCP client: keep, else drop
    /* 12 */ op(IF_EQUAL, 0, 3, 6),                   // not TCP either: drop
    /* 13 */ op(LOAD_HALF_PAST_X, 0, 0, 14),          // TCP: source port
    /* 14 */ op(IF_EQUAL, 0, 1, 80),                  // HTTP server: keep, else drop
    /* 15 */ op(RETURN, 0, 0, u32::MAX),              // keep, all of it
    /* 16 */ op(RETURN, 0, 0, 0),                     // drop
];

const fn op(code: u16, if_true: u8, if_false: u8, operand: u32) -> Instruction {
    Instruction {
        code,
        if_true,
        if_false,
        operand,
    }
}

/// A frame that [`PacketSocket::receive`] has put into its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// How many bytes of the buffer it fills.
    pub len: usize,
    /// Whether that is all of it; if not, the buffer was too small and the rest is lost.
    pub whole: bool,
    /// Whether the transport checksum is settled and must not be verified again.
    ///
    /// Either the hardware or the host has verified it (it may be wrong in the bytes all the same),
    /// or the frame comes from this very host, where nobody has filled it in.
    pub checksum_ready: bool,
}

/// A packet socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket on the interface with this index; needs `CAP_NET_RAW`.
    ///
    /// The interface may be down: then the first [`receive`](Self::receive) fails with `ENETDOWN`,
    /// and frames arrive once it is up.
    pub fn open(ifindex: u32) -> Result<Self> {
        // No protocol: nothing arrives before the filter is in place, and see above for the 16 ms.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        sys::set_option(&socket, SOL_SOCKET, SO_ATTACH_FILTER, &Program::new(FILTER))?;
        sys::set_option(&socket, SOL_PACKET, PACKET_AUXDATA, &1)?;
        match sys::set_option(&socket, SOL_PACKET, PACKET_IGNORE_OUTGOING, &1) {
            // Kernels before 4.20 do not know it; it only spares them work, the filter does the same.
            Ok(()) | Err(Errno::NOPROTOOPT) => {}
            Err(errno) => return Err(errno),
        }
        bind(
            &socket,
            &LinkAddress {
                index: ifindex,
                protocol: ETH_P_ALL as u16,
            },
        )?;
        Ok(Self { socket })
    }

    /// Sends one frame, header included; the kernel takes it whole or not at all.
    ///
    /// `EAGAIN` and `ENOBUFS` pass with time; `ENETDOWN` passes when the interface is up again,
    /// `ENXIO` means that it is gone for good.
    /// Success is no proof: without a carrier, and for a moment after it came, the kernel has no
    /// queue for the interface and drops the frame without a word.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(&self.socket, frame, SendFlags::DONTWAIT).map(drop)
    }

    /// Takes the next frame that has arrived; `None` when there is none now.
    ///
    /// Each `ENETDOWN` is reported once (poll shows it as `ERR`): the socket goes on by itself when
    /// the interface is up again.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Option<Frame>> {
        let received =
            match sys::receive_message::<4>(&self.socket, buffer, (SOL_PACKET, PACKET_AUXDATA)) {
                Ok(received) => received,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                Err(errno) => return Err(errno),
            };
        // `tp_status`, the first field of `tpacket_auxdata`.
        let status = received.control.map_or(0, u32::from_ne_bytes);
        Ok(Some(Frame {
            len: received.length.min(buffer.len()),
            whole: !received.truncated,
            checksum_ready: status & (TP_STATUS_CSUMNOTREADY | TP_STATUS_CSUM_VALID) != 0,
        }))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
