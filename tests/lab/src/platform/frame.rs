//! Ethernet, IPv4, UDP and ICMP as far as the platform speaks them by hand.
//!
//! Not here: TCP (see `tcp`) and IPv6, which Azure's provisioning never uses. Follows RFC 791, 768 and 792.

use std::net::{Ipv4Addr, SocketAddrV4};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The Ethernet broadcast address.
pub const BROADCAST: Mac = [0xff; 6];

/// The Ethernet type of IPv4.
pub const IPV4: u16 = 0x0800;
/// The Ethernet type of ARP.
pub const ARP: u16 = 0x0806;

/// The protocol number of ICMP.
pub const ICMP: u8 = 1;
/// The protocol number of TCP.
pub const TCP: u8 = 6;
/// The protocol number of UDP.
pub const UDP: u8 = 17;

/// Ethernet pads shorter frames to this length (without the checksum).
const MINIMUM_FRAME: usize = 60;

/// Writes an Ethernet address the way `ip link` does.
pub struct Colons(pub Mac);

impl std::fmt::Display for Colons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// An Ethernet frame taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Ethernet<'a> {
    /// Whom the frame is for.
    pub destination: Mac,
    /// Who sent it.
    pub source: Mac,
    /// What the payload is.
    pub ethertype: u16,
    /// Everything behind the header, padding included.
    pub payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// Takes a frame apart; a frame shorter than its header is none.
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let (destination, rest) = frame.split_first_chunk::<6>()?;
        let (source, rest) = rest.split_first_chunk::<6>()?;
        let (ethertype, payload) = rest.split_first_chunk::<2>()?;
        Some(Self {
            destination: *destination,
            source: *source,
            ethertype: u16::from_be_bytes(*ethertype),
            payload,
        })
    }
}

/// Builds an Ethernet frame, padded to the minimum.
pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend_from_slice(&destination);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    if frame.len() < MINIMUM_FRAME {
        frame.resize(MINIMUM_FRAME, 0);
    }
    frame
}

/// An IPv4 packet taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4<'a> {
    /// Who sent it.
    pub source: Ipv4Addr,
    /// Whom it is for.
    pub destination: Ipv4Addr,
    /// What the payload is.
    pub protocol: u8,
    /// Whether it is a piece of a larger packet.
    pub fragment: bool,
    /// The packet's own bytes, padding of the frame cut off.
    pub packet: &'a [u8],
    /// The bytes behind the header.
    pub payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Takes a packet apart, or says in a few words why it is none.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let header: &[u8; 20] = bytes.first_chunk().ok_or("IPv4 header cut short")?;
        if header[0] >> 4 != 4 {
            return Err("IPv4 version is not 4");
        }
        let header_length = usize::from(header[0] & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_length < 20 || length < header_length || length > bytes.len() {
            return Err("IPv4 lengths do not fit the frame");
        }
        let packet = &bytes[..length];
        if sum(&[&packet[..header_length]]) != 0xffff {
            return Err("IPv4 header checksum is wrong");
        }
        Ok(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
            protocol: header[9],
            fragment: u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0,
            packet,
            payload: &packet[header_length..],
        })
    }

    /// Whether the checksum of the TCP, UDP or ICMP payload is right.
    pub fn payload_checksum_is_right(&self) -> bool {
        match self.protocol {
            // A UDP sender may leave the sum out.
            UDP if self.payload.get(6..8) == Some(&[0, 0]) => true,
            UDP | TCP => sum(&[&self.pseudo_header(), self.payload]) == 0xffff,
            ICMP => sum(&[self.payload]) == 0xffff,
            _ => true,
        }
    }

    fn pseudo_header(&self) -> [u8; 12] {
        pseudo_header(
            self.source,
            self.destination,
            self.protocol,
            self.payload.len(),
        )
    }
}

fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> [u8; 12] {
    let mut header = [0; 12];
    header[..4].copy_from_slice(&source.octets());
    header[4..8].copy_from_slice(&destination.octets());
    header[9] = protocol;
    header[10..].copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    header
}

/// Adds 16-bit words in one's complement; an odd part counts as if a zero byte followed it.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total: u64 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            total += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Builds an IPv4 packet.
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 128, protocol, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let check = !sum(&[&packet]);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// Builds an IPv4 packet with a UDP datagram in it.
pub fn udp(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend_from_slice(&source.port().to_be_bytes());
    datagram.extend_from_slice(&destination.port().to_be_bytes());
    datagram.extend_from_slice(&length.to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    let pseudo = pseudo_header(*source.ip(), *destination.ip(), UDP, datagram.len());
    let check = match !sum(&[&pseudo, &datagram]) {
        0 => 0xffff,
        other => other,
    };
    datagram[6..8].copy_from_slice(&check.to_be_bytes());
    ipv4(*source.ip(), *destination.ip(), UDP, &datagram)
}

/// A UDP datagram taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Udp<'a> {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Takes a datagram apart; wrong lengths make it none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; 8] = bytes.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        Some(Self {
            source: u16::from_be_bytes([header[0], header[1]]),
            destination: u16::from_be_bytes([header[2], header[3]]),
            payload: bytes.get(8..length)?,
        })
    }
}

/// Answers a ping, or nothing when the ICMP message is no ping.
pub fn echo_reply(request: &Ipv4<'_>) -> Option<Vec<u8>> {
    if request.payload.first() != Some(&8) || request.payload.len() < 8 {
        return None;
    }
    let mut message = request.payload.to_vec();
    message[0] = 0;
    message[2..4].copy_from_slice(&[0, 0]);
    let check = !sum(&[&message]);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    Some(ipv4(request.destination, request.source, ICMP, &message))
}

/// Builds a ping.
pub fn echo_request(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut message = *b"\x08\0\0\0\0\x01\0\x01are you there?";
    let check = !sum(&[&message]);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    ipv4(source, destination, ICMP, &message)
}

/// Whether a packet answers a ping.
pub fn is_echo_reply(packet: &Ipv4<'_>) -> bool {
    packet.protocol == ICMP && packet.payload.len() >= 8 && packet.payload[..2] == [0, 0]
}

/// Tells a packet's sender that there is no such host (RFC 792, RFC 1812 5.2.7.1).
pub fn host_unreachable(router: Ipv4Addr, packet: &Ipv4<'_>) -> Vec<u8> {
    let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
    // The IP header and the first eight bytes behind it: enough to find the socket.
    let header = packet.packet.len() - packet.payload.len();
    message.extend_from_slice(&packet.packet[..packet.packet.len().min(header + 8)]);
    let check = !sum(&[&message]);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    ipv4(router, packet.source, ICMP, &message)
}

/// Fills in the TCP or UDP checksum that a sending kernel left to hardware.
///
/// A frame that is not plain IPv4 with TCP or UDP is left as it is.
pub fn fill_checksum(frame: &mut [u8]) {
    let Some(header) = frame.get(14..34) else {
        return;
    };
    let start = 14 + usize::from(header[0] & 0x0f) * 4;
    let end = 14 + usize::from(u16::from_be_bytes([header[2], header[3]]));
    let at = match header[9] {
        TCP => 16,
        UDP => 6,
        _ => return,
    };
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    let protocol = header[9];
    if frame.get(12..14) != Some(&IPV4.to_be_bytes()) {
        return;
    }
    let Some(segment) = frame
        .get_mut(start..end)
        .filter(|segment| segment.len() >= at + 2)
    else {
        return;
    };
    segment[at..at + 2].copy_from_slice(&[0, 0]);
    let pseudo = pseudo_header(source, destination, protocol, segment.len());
    let check = !sum(&[&pseudo, segment]);
    segment[at..at + 2].copy_from_slice(&check.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of RFC 1071, section 3.
    #[test]
    fn sum_is_that_of_rfc_1071() {
        assert_eq!(
            sum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
            0xddf2
        );
    }

    #[test]
    fn own_datagrams_pass_own_checks_and_one_flipped_bit_fails_them() {
        let from = SocketAddrV4::new(Ipv4Addr::new(168, 63, 129, 16), 67);
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 4), 68);
        let mut packet = udp(from, to, b"odd");
        let parsed = Ipv4::parse(&packet).unwrap();
        assert!(parsed.payload_checksum_is_right());
        assert_eq!(Udp::parse(parsed.payload).unwrap().payload, b"odd");
        *packet.last_mut().unwrap() ^= 1;
        assert!(!Ipv4::parse(&packet).unwrap().payload_checksum_is_right());
        packet[8] ^= 1;
        assert_eq!(
            Ipv4::parse(&packet).unwrap_err(),
            "IPv4 header checksum is wrong"
        );
    }

    #[test]
    fn a_checksum_left_to_hardware_is_filled_in() {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 4), 68);
        let to = SocketAddrV4::new(Ipv4Addr::new(168, 63, 129, 16), 67);
        let mut frame = ethernet([1; 6], [2; 6], IPV4, &udp(from, to, &[7; 40]));
        let whole = frame.clone();
        frame[40..42].copy_from_slice(&[0xab, 0xcd]);
        fill_checksum(&mut frame);
        assert_eq!(frame, whole);
    }
}
