//! The host and its switch: takes the VM's frames, gives frames back, all in the caller's time.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::dhcp::{Arrival, Departure, Network, Server};
use super::frame::{self, BROADCAST, Ethernet, Ipv4, Mac, Udp};
use super::http::{State, Verdict};
use super::journal::{Entry, Way};
use super::scenario::{IMDS, Port, Scenario};
use super::tcp::Stack;
use super::{arp, pcap};

/// The address of whoever else has the VM's address, and of hosts that are only there.
const NEIGHBOUR_MAC: Mac = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbd];
/// More cards than any VM has.
const MAX_NICS: usize = 16;
/// The mask of all networks but the primary card's.
const SECOND_MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);

/// A network card of the VM.
struct Nic {
    mac: Mac,
    network: Network,
    dhcp: Server,
    tcp: Stack,
    /// When it is pinged next.
    ping: Option<Duration>,
}

/// The simulated platform.
///
/// Time is whatever the caller says, as long as it does not go back. `receive` puts a frame on the wire at `now`;
/// `transmit` takes frames off it that have reached the VM by `now`; `next_deadline` tells when to look again.
pub struct Platform {
    state: State,
    nics: Vec<Nic>,
    journal: Vec<Entry>,
    /// Frames on their way to the host, with the time they reach it.
    inward: VecDeque<(Duration, Vec<u8>)>,
    /// Frames on their way to the VM, in the order of arrival there.
    outward: VecDeque<(Duration, Vec<u8>)>,
    /// DHCP messages that the host sends later.
    later: Vec<(Duration, Mac, Departure)>,
    first_frame: Option<Duration>,
    /// Frames seen: from the guest, to the guest.
    counted: (u64, u64),
    record: Option<pcap::Writer<Box<dyn Write + Send>>>,
    /// When the frame that carries the answer to the first Ready reaches the VM.
    answered: Option<Duration>,
}

impl Platform {
    /// Starts a platform.
    pub fn new(scenario: Scenario) -> Self {
        Self {
            state: State::new(scenario),
            nics: Vec::new(),
            journal: Vec::new(),
            inward: VecDeque::new(),
            outward: VecDeque::new(),
            later: Vec::new(),
            first_frame: None,
            counted: (0, 0),
            record: None,
            answered: None,
        }
    }

    /// Writes every frame to a pcap file from now on, at the VM's end of the wire.
    pub fn record(&mut self, writer: pcap::Writer<Box<dyn Write + Send>>) {
        self.record = Some(writer);
    }

    /// Takes a frame that the VM sends now.
    pub fn receive(&mut self, now: Duration, frame: &[u8]) {
        self.advance(now);
        self.first_frame.get_or_insert(now);
        self.write(now, frame);
        self.counted.0 += 1;
        let mac = Ethernet::parse(frame).map_or([0; 6], |ethernet| ethernet.source);
        if !self.lost(now, mac, Way::FromGuest) {
            self.inward
                .push_back((now + self.state.scenario.link.latency, frame.to_vec()));
        }
        self.advance(now);
    }

    /// Gives the next frame that has reached the VM by now.
    pub fn transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.advance(now);
        if self.outward.front()?.0 > now {
            return None;
        }
        let (at, frame) = self.outward.pop_front()?;
        self.write(at, &frame);
        Some(frame)
    }

    /// When something will happen if the VM sends nothing; never earlier than `now`.
    pub fn next_deadline(&mut self, now: Duration) -> Option<Duration> {
        self.advance(now);
        let outward = self.outward.front().map(|(due, _)| *due);
        outward
            .into_iter()
            .chain(self.next_event(now))
            .min()
            .map(|at| at.max(now))
    }

    /// What happened until now.
    pub fn journal(&self) -> &[Entry] {
        &self.journal
    }

    /// What the VM did that it should not do.
    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        self.journal.iter().filter_map(Entry::complaint)
    }

    /// When the platform accepted Ready.
    pub fn ready(&self) -> Option<Duration> {
        self.state.ready
    }

    /// What the portal would show.
    pub fn verdict(&self) -> Verdict {
        self.state.verdict.clone()
    }

    /// The hardware address that the whole world has for the VM.
    pub fn gateway(&self) -> Mac {
        self.state.scenario.net.gateway_mac
    }

    /// When the VM sent its first frame.
    pub fn first_frame(&self) -> Option<Duration> {
        self.first_frame
    }

    /// When the VM could know that Ready was accepted; a lost answer counts as if it had arrived.
    pub fn answered(&self) -> Option<Duration> {
        self.answered
    }

    /// How many round trips lie between the first frame and the answer to Ready; needs a latency to tell.
    pub fn round_trips(&self) -> Option<f64> {
        let took = self.answered?.checked_sub(self.first_frame?)?;
        let latency = self.state.scenario.link.latency;
        (!latency.is_zero()).then(|| took.as_secs_f64() / (2.0 * latency.as_secs_f64()))
    }

    /// How many frames the VM sent, and how many were sent to it, lost ones included.
    pub fn frames(&self) -> (u64, u64) {
        self.counted
    }

    /// The services' memory, for a plug that carries HTTP without frames.
    pub(super) fn services(&mut self) -> (&mut State, &mut Vec<Entry>) {
        (&mut self.state, &mut self.journal)
    }

    fn write(&mut self, at: Duration, frame: &[u8]) {
        if let Some(writer) = &mut self.record
            && writer.frame(at, frame).is_err()
        {
            // A full disk must not end a test; the file is a picture, not evidence.
            self.record = None;
        }
    }

    fn lost(&mut self, at: Duration, mac: Mac, way: Way) -> bool {
        let link = &self.state.scenario.link;
        let (number, rule) = match way {
            Way::FromGuest => (self.counted.0, &link.lose_from_guest),
            Way::ToGuest => (self.counted.1, &link.lose_to_guest),
        };
        let lost = rule.has(number) || link.lose_any.has(self.counted.0 + self.counted.1);
        if lost {
            self.journal.push(Entry::Lost {
                at,
                mac,
                way,
                number,
            });
        }
        lost
    }

    /// When the host has something to do.
    fn next_event(&mut self, now: Duration) -> Option<Duration> {
        let inward = self.inward.front().map(|(due, _)| *due);
        let later = self.later.iter().map(|(due, ..)| *due).min();
        let tcp = self
            .nics
            .iter_mut()
            .filter_map(|nic| nic.tcp.next_deadline(now))
            .min();
        let ping = self.nics.iter().filter_map(|nic| nic.ping).min();
        [inward, later, tcp, ping].into_iter().flatten().min()
    }

    /// Lives through all that happens up to `now`, each thing at its own time.
    fn advance(&mut self, now: Duration) {
        let mut at = Duration::ZERO;
        loop {
            match self.next_event(at) {
                Some(next) if next <= now => at = next.max(at),
                _ => return,
            }
            while self.inward.front().is_some_and(|(due, _)| *due <= at) {
                if let Some((_, frame)) = self.inward.pop_front() {
                    self.hear(at, &frame);
                }
            }
            while let Some(index) = self.later.iter().position(|(due, ..)| *due <= at) {
                let (_, mac, departure) = self.later.remove(index);
                self.send_dhcp(at, mac, departure);
            }
            for index in 0..self.nics.len() {
                self.run_tcp(at, index);
                self.ping(at, index);
            }
        }
    }

    fn run_tcp(&mut self, at: Duration, index: usize) {
        let Self {
            nics,
            state,
            journal,
            ..
        } = self;
        let nic = &mut nics[index];
        nic.tcp.advance(at, state, journal);
        let (mac, gateway_mac) = (nic.mac, self.state.scenario.net.gateway_mac);
        let mut sent = false;
        while let Some(packet) = self.nics[index].tcp.transmit() {
            let frame = frame::ethernet(mac, gateway_mac, frame::IPV4, &packet);
            self.send(at, mac, frame);
            sent = true;
        }
        if sent && self.answered.is_none() && self.state.answer_due.is_some_and(|due| due <= at) {
            self.answered = Some(at + self.state.scenario.link.latency);
        }
    }

    /// Pings a card from its gateway, if it is time.
    fn ping(&mut self, at: Duration, index: usize) {
        let net = &self.state.scenario.net;
        let nic = &mut self.nics[index];
        if nic.ping.is_none_or(|due| due > at) {
            return;
        }
        nic.ping = net.ping.map(|period| at + period);
        let address = nic.dhcp.leased().unwrap_or(nic.network.address);
        let packet = frame::echo_request(nic.network.gateway, address);
        let (mac, gateway_mac) = (nic.mac, net.gateway_mac);
        let frame = frame::ethernet(mac, gateway_mac, frame::IPV4, &packet);
        self.send(at, mac, frame);
    }

    /// Puts a frame on the wire to the VM.
    fn send(&mut self, at: Duration, mac: Mac, frame: Vec<u8>) {
        self.counted.1 += 1;
        if !self.lost(at, mac, Way::ToGuest) {
            self.outward
                .push_back((at + self.state.scenario.link.latency, frame));
        }
    }

    fn complain(&mut self, at: Duration, mac: Mac, what: impl Into<String>) {
        self.journal.push(Entry::Complaint {
            at,
            mac,
            what: what.into(),
        });
    }

    fn ignore(&mut self, at: Duration, mac: Mac, what: impl Into<String>) {
        self.journal.push(Entry::Ignored {
            at,
            mac,
            what: what.into(),
        });
    }

    /// Finds a card by its address, or plugs it in.
    fn nic(&mut self, at: Duration, mac: Mac) -> Option<usize> {
        if let Some(index) = self.nics.iter().position(|nic| nic.mac == mac) {
            return Some(index);
        }
        if self.nics.len() >= MAX_NICS {
            return None;
        }
        let net = &self.state.scenario.net;
        let primary = net
            .primary
            .map_or(self.nics.is_empty(), |primary| primary == mac);
        let others = self.nics.iter().filter(|nic| !nic.network.primary).count();
        let network = if primary {
            Network {
                address: net.address,
                mask: net.mask,
                gateway: net.gateway,
                primary,
            }
        } else {
            let address = u32::from(net.second_address)
                .wrapping_add(others as u32)
                .into();
            Network {
                address,
                mask: SECOND_MASK,
                gateway: net.second_gateway,
                primary,
            }
        };
        let entry = (mac, network.address);
        let place = if primary { 0 } else { self.state.nics.len() };
        self.state.nics.insert(place, entry);
        let wireserver = self.state.scenario.dhcp.wireserver;
        let tcp = Stack::new(mac, at, wireserver);
        self.nics.push(Nic {
            mac,
            network,
            dhcp: Server::default(),
            tcp,
            ping: self.state.scenario.net.ping.map(|period| at + period),
        });
        Some(self.nics.len() - 1)
    }

    /// Takes a frame that has reached the host.
    fn hear(&mut self, at: Duration, bytes: &[u8]) {
        let Some(ethernet) = Ethernet::parse(bytes) else {
            return self.complain(at, [0; 6], "a frame shorter than its header");
        };
        let mac = ethernet.source;
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return self.complain(at, mac, "a frame from a group address");
        }
        match ethernet.ethertype {
            frame::ARP => {
                if let Some(index) = self.nic(at, mac) {
                    self.hear_arp(at, index, &ethernet);
                }
            }
            frame::IPV4 => {
                if let Some(index) = self.nic(at, mac) {
                    self.hear_ipv4(at, index, &ethernet);
                }
            }
            // A kernel that brings a link up speaks IPv6 by itself.
            other => self.ignore(at, mac, format!("EtherType {other:04x}")),
        }
    }

    fn hear_arp(&mut self, at: Duration, index: usize, ethernet: &Ethernet<'_>) {
        let mac = ethernet.source;
        let Some(message) = arp::Message::parse(ethernet.payload) else {
            return self.complain(at, mac, "ARP about something other than IPv4 over Ethernet");
        };
        let summary = message.to_string();
        self.journal.push(Entry::Arp {
            at,
            mac,
            way: Way::FromGuest,
            summary,
        });
        for fault in message.faults(mac) {
            self.complain(at, mac, fault);
        }
        let (network, own) = (self.nics[index].network, self.own_addresses(index));
        if !message.sender.is_unspecified() && !own.contains(&message.sender) {
            self.complain(
                at,
                mac,
                format!("ARP says {}, which is not leased", message.sender),
            );
        }
        if !message.is_request() || message.is_announcement() {
            return;
        }
        let net = &self.state.scenario.net;
        let dhcp = &self.state.scenario.dhcp;
        let servers = [Some(dhcp.server), dhcp.server_moves, dhcp.rival];
        let owner = if message.target == network.gateway {
            net.gateway_mac
        } else if net.there.contains(&message.target)
            || servers.contains(&Some(message.target))
            || (net.conflict && message.target == network.address)
        {
            NEIGHBOUR_MAC
        } else {
            return;
        };
        let reply = message.reply(owner);
        let summary = reply.to_string();
        self.journal.push(Entry::Arp {
            at,
            mac,
            way: Way::ToGuest,
            summary,
        });
        self.send(
            at,
            mac,
            frame::ethernet(mac, owner, frame::ARP, &reply.bytes()),
        );
    }

    /// The addresses that a card may use: Azure drops what comes from others.
    fn own_addresses(&self, index: usize) -> Vec<Ipv4Addr> {
        let nic = &self.nics[index];
        let mut own = vec![nic.network.address];
        own.extend(nic.dhcp.leased());
        own
    }

    fn hear_ipv4(&mut self, at: Duration, index: usize, ethernet: &Ethernet<'_>) {
        let mac = ethernet.source;
        let packet = match Ipv4::parse(ethernet.payload) {
            Ok(packet) => packet,
            Err(why) => return self.complain(at, mac, why),
        };
        if packet.fragment {
            return self.ignore(at, mac, "a fragment");
        }
        if !packet.payload_checksum_is_right() {
            return self.complain(
                at,
                mac,
                format!("checksum of protocol {} is wrong", packet.protocol),
            );
        }
        if packet.protocol == frame::UDP
            && let Some(datagram) = Udp::parse(packet.payload)
            && datagram.destination == 67
        {
            return self.hear_dhcp(at, index, ethernet, &packet, &datagram);
        }
        if ethernet.destination == BROADCAST || ethernet.destination[0] & 1 != 0 {
            return self.ignore(at, mac, format!("protocol {} to all", packet.protocol));
        }
        if ethernet.destination != self.state.scenario.net.gateway_mac {
            let to = frame::Colons(ethernet.destination);
            return self.complain(at, mac, format!("a packet to {to}, where nobody is"));
        }
        if !self.own_addresses(index).contains(&packet.source) {
            return self.complain(
                at,
                mac,
                format!("a packet from {}, not leased", packet.source),
            );
        }
        if self.nics[index].dhcp.has_outlived(packet.source, at) {
            let what = format!("a packet from {}, whose lease is over", packet.source);
            return self.complain(at, mac, what);
        }
        let network = self.nics[index].network;
        match packet.protocol {
            frame::ICMP if frame::is_echo_reply(&packet) => {
                let source = packet.source;
                self.journal.push(Entry::Pong { at, mac, source });
            }
            frame::ICMP if packet.destination == network.gateway => {
                if let Some(reply) = frame::echo_reply(&packet) {
                    self.journal.push(Entry::Ping {
                        at,
                        mac,
                        target: packet.destination,
                    });
                    let gateway_mac = self.state.scenario.net.gateway_mac;
                    self.send(
                        at,
                        mac,
                        frame::ethernet(mac, gateway_mac, frame::IPV4, &reply),
                    );
                }
            }
            frame::TCP => {
                let scenario = &self.state.scenario;
                let services = [scenario.dhcp.wireserver, IMDS];
                let port = if packet.destination == IMDS {
                    scenario.tcp.imds
                } else {
                    scenario.tcp.wireserver
                };
                if !services.contains(&packet.destination) {
                    self.ignore(at, mac, format!("TCP to {}", packet.destination));
                } else if network.primary && port == Port::Unreachable {
                    self.ignore(
                        at,
                        mac,
                        format!("TCP to {}, which is not there", packet.destination),
                    );
                    let reply = frame::host_unreachable(network.gateway, &packet);
                    let gateway_mac = self.state.scenario.net.gateway_mac;
                    self.send(
                        at,
                        mac,
                        frame::ethernet(mac, gateway_mac, frame::IPV4, &reply),
                    );
                } else if network.primary {
                    self.nics[index].tcp.receive(&packet, &self.state);
                    self.run_tcp(at, index);
                } else {
                    self.ignore(
                        at,
                        mac,
                        format!("TCP to {} from another NIC", packet.destination),
                    );
                }
            }
            frame::UDP => {
                let port = Udp::parse(packet.payload).map_or(0, |datagram| datagram.destination);
                self.ignore(
                    at,
                    mac,
                    format!("UDP to {}, port {port}", packet.destination),
                );
            }
            other => self.ignore(
                at,
                mac,
                format!("protocol {other} to {}", packet.destination),
            ),
        }
    }

    fn hear_dhcp(
        &mut self,
        at: Duration,
        index: usize,
        ethernet: &Ethernet<'_>,
        packet: &Ipv4<'_>,
        datagram: &Udp<'_>,
    ) {
        let mac = ethernet.source;
        let arrival = Arrival {
            at,
            frame_source: mac,
            frame_destination: ethernet.destination,
            source: SocketAddrV4::new(packet.source, datagram.source),
            destination: SocketAddrV4::new(packet.destination, datagram.destination),
            payload: datagram.payload,
        };
        let nic = &mut self.nics[index];
        let outcome = nic
            .dhcp
            .receive(&arrival, &nic.network, &self.state.scenario.dhcp);
        self.journal.push(Entry::Dhcp {
            at,
            mac,
            way: Way::FromGuest,
            summary: outcome.heard,
            to_all: packet.destination.is_broadcast(),
            message: datagram.payload.to_vec(),
        });
        for fault in outcome.faults {
            self.complain(at, mac, fault);
        }
        for departure in outcome.answers {
            if departure.after.is_zero() {
                self.send_dhcp(at, mac, departure);
            } else {
                self.later.push((at + departure.after, mac, departure));
            }
        }
    }

    fn send_dhcp(&mut self, at: Duration, mac: Mac, departure: Departure) {
        let packet = frame::udp(departure.source, departure.destination, &departure.payload);
        let gateway_mac = self.state.scenario.net.gateway_mac;
        let bytes = frame::ethernet(
            departure.frame_destination,
            gateway_mac,
            frame::IPV4,
            &packet,
        );
        self.journal.push(Entry::Dhcp {
            at,
            mac,
            way: Way::ToGuest,
            summary: departure.summary,
            to_all: departure.destination.ip().is_broadcast(),
            message: departure.payload,
        });
        self.send(at, mac, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_may_live_in_a_thread_of_its_own() {
        let thread = std::thread::spawn(|| Platform::new(Scenario::default()).verdict());
        let mut platform = Platform::new(Scenario::default());
        platform.receive(Duration::ZERO, &[]);
        let moved = std::thread::spawn(move || platform.journal().len());
        assert_eq!(
            (thread.join().unwrap(), moved.join().unwrap()),
            (Verdict::Creating, 1)
        );
    }
}
