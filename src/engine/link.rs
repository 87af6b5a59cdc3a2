//! Frames to and from one interface, as smoltcp wants them.
//!
//! A [`Link`] moves frames and never fails: what cannot be sent is lost, and lost frames are sent
//! again by whoever needs the answer. So an interface that goes down under us is a silence, not an
//! error, and smoltcp's own socket device, which panics then, is not used.

use core::net::Ipv4Addr;

use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};

/// The largest frame that is received: the host may join segments (LRO, RSC) up to 64 KiB.
pub const MAX_RECEIVE: usize = 65536;
/// The largest frame that is sent: Ethernet without a tag.
pub const MAX_SEND: usize = 1514;
/// An ARP packet for IPv4 over Ethernet, in its frame.
const ARP_FRAME: usize = 42;

/// An interface.
pub trait Link {
    /// Returns the hardware address.
    fn mac(&self) -> [u8; 6];
    /// Sends a frame, or loses it.
    fn send(&mut self, frame: &[u8]);
    /// Takes the next frame that has arrived, if any.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<Received>;
}

/// A frame that has arrived.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Its length.
    pub length: usize,
    /// Tells that the checksums need no check: the host vouches for them, or left them to hardware
    /// that does not exist.
    pub trusted: bool,
}

/// Buffers for one frame each way.
#[derive(Debug)]
pub struct FrameBuffers {
    /// What has arrived.
    pub receive: [u8; MAX_RECEIVE],
    /// What is to be sent.
    pub send: [u8; MAX_SEND],
}

impl FrameBuffers {
    /// Creates empty buffers.
    #[expect(
        clippy::large_stack_arrays,
        reason = "made at build time, for a static"
    )]
    pub const fn new() -> Self {
        FrameBuffers {
            receive: [0; MAX_RECEIVE],
            send: [0; MAX_SEND],
        }
    }
}

impl Default for FrameBuffers {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes the next frame whose checksums hold, and counts those that do not.
pub fn receive_valid<'b>(
    link: &mut impl Link,
    buffer: &'b mut [u8],
    damaged: &mut u32,
) -> Option<&'b [u8]> {
    loop {
        let received = link.receive(buffer)?;
        let valid = buffer
            .get(..received.length)
            .is_some_and(|frame| received.trusted || checksums_hold(frame));
        if valid {
            return buffer.get(..received.length);
        }
        *damaged = damaged.saturating_add(1);
    }
}

/// Checks the IPv4, UDP and TCP checksums of a frame; other frames have none.
fn checksums_hold(frame: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return false;
    };
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return true;
    }
    let Ok(packet) = Ipv4Packet::new_checked(frame.payload()) else {
        return false;
    };
    if !packet.verify_checksum() {
        return false;
    }
    // Of a fragment there is no transport checksum to check; smoltcp drops it.
    if packet.more_frags() || packet.frag_offset() != 0 {
        return true;
    }
    let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
    match packet.next_header() {
        IpProtocol::Udp => UdpPacket::new_checked(packet.payload())
            .is_ok_and(|udp| udp.verify_checksum(&source, &destination)),
        IpProtocol::Tcp => TcpPacket::new_checked(packet.payload())
            .is_ok_and(|tcp| tcp.verify_checksum(&source, &destination)),
        _ => true,
    }
}

/// Writes an ARP probe for `target` (RFC 5227: from nobody, so that it claims no address).
pub fn arp_probe(mac: [u8; 6], target: Ipv4Addr) -> [u8; ARP_FRAME] {
    arp(
        EthernetAddress::BROADCAST,
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(mac),
            source_protocol_addr: Ipv4Addr::UNSPECIFIED,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        },
        EthernetAddress(mac),
    )
}

/// Writes the ARP reply by which `sender` would tell `mac`, whose address is `address`, where it is.
pub fn arp_reply(sender: ([u8; 6], Ipv4Addr), mac: [u8; 6], address: Ipv4Addr) -> [u8; ARP_FRAME] {
    arp(
        EthernetAddress(mac),
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(sender.0),
            source_protocol_addr: sender.1,
            target_hardware_addr: EthernetAddress(mac),
            target_protocol_addr: address,
        },
        EthernetAddress(sender.0),
    )
}

fn arp(to: EthernetAddress, repr: ArpRepr, from: EthernetAddress) -> [u8; ARP_FRAME] {
    let mut bytes = [0; ARP_FRAME];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    EthernetRepr {
        src_addr: from,
        dst_addr: to,
        ethertype: EthernetProtocol::Arp,
    }
    .emit(&mut frame);
    repr.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// Reads who answers an ARP request in a frame: hardware and protocol address.
pub fn arp_answer(frame: &[u8]) -> Option<([u8; 6], Ipv4Addr)> {
    match arp_packet(frame)? {
        (ArpOperation::Reply, sender, _) => Some(sender),
        _ => None,
    }
}

/// Reads an ARP packet in a frame: what it is, who sends it, and which address it is about.
fn arp_packet(frame: &[u8]) -> Option<(ArpOperation, ([u8; 6], Ipv4Addr), Ipv4Addr)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(frame.payload()).ok()?;
    match ArpRepr::parse(&packet).ok()? {
        ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } if source_hardware_addr.is_unicast() => Some((
            operation,
            (source_hardware_addr.0, source_protocol_addr),
            target_protocol_addr,
        )),
        _ => None,
    }
}

/// A link as a smoltcp device.
#[derive(Debug)]
pub struct Device<'b, L> {
    link: L,
    address: Ipv4Addr,
    buffers: &'b mut FrameBuffers,
    /// A frame that is received before all others: what we know already, told in smoltcp's words.
    injected: Option<[u8; ARP_FRAME]>,
    damaged: u32,
}

impl<'b, L: Link> Device<'b, L> {
    /// Creates a device of a machine that has this address.
    pub fn new(link: L, address: Ipv4Addr, buffers: &'b mut FrameBuffers) -> Self {
        Device {
            link,
            address,
            buffers,
            injected: None,
            damaged: 0,
        }
    }

    /// Lets the device receive an ARP reply next.
    pub fn inject(&mut self, frame: [u8; ARP_FRAME]) {
        self.injected = Some(frame);
    }

    /// Returns how many frames were dropped for a wrong checksum.
    pub fn damaged(&self) -> u32 {
        self.damaged
    }

    /// Gives the link back.
    pub fn into_link(self) -> L {
        self.link
    }

    /// Returns the link.
    pub fn link(&self) -> &L {
        &self.link
    }

    /// Takes the next frame that smoltcp is to see, and returns its length.
    ///
    /// Who asks for our address is answered here, because smoltcp answers only its own network: a
    /// kernel asks in the name of the address that it wants to speak from, and the WireServer's is
    /// in no network of ours.
    fn next_frame(&mut self) -> Option<usize> {
        if let Some(frame) = self.injected.take() {
            let place = self.buffers.receive.get_mut(..frame.len())?;
            place.copy_from_slice(&frame);
            return Some(frame.len());
        }
        // A flood of questions must not keep us here.
        for _ in 0..64 {
            let receive = &mut self.buffers.receive;
            let frame = receive_valid(&mut self.link, receive, &mut self.damaged)?;
            let length = frame.len();
            match arp_packet(frame) {
                Some((ArpOperation::Request, (mac, address), target)) if target == self.address => {
                    let own = (self.link.mac(), target);
                    self.link.send(&arp_reply(own, mac, address));
                }
                _ => return Some(length),
            }
        }
        None
    }
}

impl<L: Link> phy::Device for Device<'_, L> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, L>
    where
        Self: 'a;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_SEND;
        // What comes in was checked in `receive_valid`, frame by frame, as the kernel advised.
        let mut checksum = ChecksumCapabilities::default();
        checksum.ipv4 = Checksum::Tx;
        checksum.udp = Checksum::Tx;
        checksum.tcp = Checksum::Tx;
        checksum.icmpv4 = Checksum::Both;
        capabilities.checksum = checksum;
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let length = self.next_frame()?;
        let FrameBuffers { receive, send } = &mut *self.buffers;
        let frame = receive.get(..length)?;
        Some((
            RxToken(frame),
            TxToken {
                link: &mut self.link,
                buffer: send,
            },
        ))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        Some(TxToken {
            link: &mut self.link,
            buffer: &mut self.buffers.send,
        })
    }
}

/// A frame for smoltcp.
#[derive(Debug)]
pub struct RxToken<'a>(&'a [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// A place for a frame of smoltcp's.
#[derive(Debug)]
pub struct TxToken<'a, L> {
    link: &'a mut L,
    buffer: &'a mut [u8; MAX_SEND],
}

impl<L: Link> phy::TxToken for TxToken<'_, L> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        // smoltcp keeps to the device's maximum; a longer frame would be its mistake, and is cut.
        let length = length.min(MAX_SEND);
        let (frame, _) = self.buffer.split_at_mut(length);
        let result = f(frame);
        self.link.send(frame);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::phy::{Device as _, RxToken as _};
    use std::boxed::Box;
    use std::vec::Vec;

    const OURS: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 4));
    const HOST: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[derive(Default)]
    struct Queue {
        arriving: Vec<Vec<u8>>,
        sent: Vec<Vec<u8>>,
    }

    impl Link for Queue {
        fn mac(&self) -> [u8; 6] {
            OURS.0
        }

        fn send(&mut self, frame: &[u8]) {
            self.sent.push(frame.to_vec());
        }

        fn receive(&mut self, buffer: &mut [u8]) -> Option<Received> {
            let frame = self.arriving.pop()?;
            buffer[..frame.len()].copy_from_slice(&frame);
            Some(Received {
                length: frame.len(),
                trusted: false,
            })
        }
    }

    /// An ARP request as RFC 826 has it, padded as Ethernet wants it.
    fn question(from: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let mut frame = [&[0xff; 6][..], &HOST, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        for part in [&HOST[..], &from.octets(), &[0; 6], &target.octets()] {
            frame.extend_from_slice(part);
        }
        frame.resize(60, 0);
        frame
    }

    #[test]
    fn our_address_is_told_to_whoever_asks() {
        for from in [
            Ipv4Addr::new(10, 0, 0, 1),
            // Of another network, and of nobody yet (RFC 5227).
            Ipv4Addr::new(168, 63, 129, 16),
            Ipv4Addr::UNSPECIFIED,
        ] {
            let mut link = Queue::default();
            link.arriving.push(question(from, OURS.1));
            let mut buffers = Box::new(FrameBuffers::new());
            let mut device = Device::new(link, OURS.1, &mut buffers);
            assert!(device.receive(Instant::ZERO).is_none());
            let sent = device.into_link().sent;
            assert_eq!(sent.len(), 1, "{from}");
            let mut reply = [&HOST[..], &OURS.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
            for part in [&OURS.0[..], &OURS.1.octets(), &HOST, &from.octets()] {
                reply.extend_from_slice(part);
            }
            assert_eq!(sent[0], reply, "{from}");
        }
    }

    #[test]
    fn other_frames_are_for_smoltcp() {
        let other = Ipv4Addr::new(10, 0, 0, 5);
        let mut link = Queue::default();
        link.arriving.push(question(other, other));
        link.arriving.push(question(other, OURS.1));
        let mut buffers = Box::new(FrameBuffers::new());
        let mut device = Device::new(link, OURS.1, &mut buffers);
        let (frame, _) = device.receive(Instant::ZERO).unwrap();
        frame.consume(|frame| assert_eq!(frame, question(other, other)));
        assert_eq!(device.into_link().sent.len(), 1);
    }
}
