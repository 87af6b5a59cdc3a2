//! Messages to a DHCP server (RFC 2131, 4.4.1).

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::wire::{
    DhcpPacket, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol,
    Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::{CLIENT_PORT, COOKIE, OPTIONS_AT, SERVER_PORT, code};

/// Relays may drop a BOOTP message shorter than this (RFC 1542, 2.1).
const MIN_MESSAGE: usize = 300;
/// Our messages: 240 bytes of header and cookie, under 160 of options.
const MAX_MESSAGE: usize = 400;
/// Room for a whole frame of ours.
pub const MAX_FRAME: usize = 14 + 20 + 8 + MAX_MESSAGE;

/// What we ask for: mask, router, DNS, host name, domain, MTU,
/// lease time, server id, T1, T2, domain search, classless routes, WireServer, Microsoft's routes.
const PARAMETERS: [u8; 14] = [1, 3, 6, 12, 15, 26, 51, 54, 58, 59, 119, 121, 245, 249];

/// A message to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What is asked.
    pub ask: Ask,
    /// The hardware address of the interface, also the client identifier (type 1).
    pub mac: [u8; 6],
    /// The transaction id; one for a whole exchange.
    pub xid: u32,
    /// Seconds since the exchange began.
    pub seconds: u16,
    /// Asks the server to answer by broadcast.
    pub broadcast: bool,
    /// The host name to register, when it is the final one.
    pub host_name: Option<&'a str>,
}

/// What a client asks of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Is anybody there?
    Discover,
    /// I take this address from this server.
    Request {
        /// The address that was offered.
        address: Ipv4Addr,
        /// Who offered it.
        server: Ipv4Addr,
    },
    /// I have this address and go on using it.
    Extend {
        /// The address.
        address: Ipv4Addr,
    },
}

impl Message<'_> {
    /// Writes the whole Ethernet frame, broadcast, and returns its length.
    ///
    /// `None` if `frame` is shorter than [`MAX_FRAME`] or the host name is too long to fit.
    pub fn emit(&self, frame: &mut [u8]) -> Option<usize> {
        let message = self.to_bytes()?;
        let length = message.len();

        let udp = UdpRepr {
            src_port: CLIENT_PORT,
            dst_port: SERVER_PORT,
        };
        let ip = Ipv4Repr {
            src_addr: Ipv4Addr::UNSPECIFIED,
            dst_addr: Ipv4Addr::BROADCAST,
            next_header: IpProtocol::Udp,
            payload_len: udp.header_len().checked_add(length)?,
            hop_limit: 64,
        };
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(self.mac),
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Ipv4,
        };
        let total = ethernet
            .buffer_len()
            .checked_add(ip.buffer_len())?
            .checked_add(ip.payload_len)?;
        let checksums = smoltcp::phy::ChecksumCapabilities::default();
        let mut frame = EthernetFrame::new_unchecked(frame.get_mut(..total)?);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &ip.src_addr.into(),
            &ip.dst_addr.into(),
            length,
            |payload| payload.copy_from_slice(&message),
            &checksums,
        );
        Some(total)
    }

    /// Writes the message alone, as the kernel's UDP takes it.
    pub fn to_bytes(self) -> Option<Vec<u8>> {
        let mut message = alloc::vec![0; OPTIONS_AT];
        let mut packet = DhcpPacket::new_unchecked(message.as_mut_slice());
        packet.set_opcode(smoltcp::wire::DhcpOpCode::Request);
        packet.set_hardware_type(smoltcp::wire::ArpHardware::Ethernet);
        packet.set_hardware_len(6);
        packet.set_transaction_id(self.xid);
        packet.set_secs(self.seconds);
        packet.set_client_hardware_address(EthernetAddress(self.mac));
        packet.set_magic_number(COOKIE);
        if let Ask::Extend { address } = self.ask {
            packet.set_client_ip(address);
        }
        if self.broadcast {
            packet.set_flags(smoltcp::wire::DhcpFlags::BROADCAST);
        }

        let kind = match self.ask {
            Ask::Discover => 1,
            Ask::Request { .. } | Ask::Extend { .. } => 3,
        };
        let mut put = |code, data: &[u8]| {
            message.extend_from_slice(&[code, data.len() as u8]);
            message.extend_from_slice(data);
        };
        put(code::KIND, &[kind]);
        if let Ask::Request { address, server } = self.ask {
            put(code::REQUESTED, &address.octets());
            put(code::SERVER, &server.octets());
        }
        let mut client_id = [1; 7];
        for (to, from) in client_id.iter_mut().skip(1).zip(self.mac) {
            *to = from;
        }
        put(code::CLIENT_ID, &client_id);
        put(code::MAX_SIZE, &1500u16.to_be_bytes());
        put(code::PARAMETERS, &PARAMETERS);
        // Only the label counts: Azure puts it into the zone of the network.
        if let Some(label) = self.host_name.and_then(|name| name.split('.').next())
            && !label.is_empty()
        {
            put(code::HOST_NAME, label.as_bytes());
        }
        message.push(255);
        message.resize(message.len().max(MIN_MESSAGE), 0);
        (message.len() <= MAX_MESSAGE).then_some(message)
    }
}
