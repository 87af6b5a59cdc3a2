//! ARP as the fabric answers it: for the gateway and for whatever is said to be in the subnet.
//!
//! It never asks: the fabric knows every address. Follows RFC 826 and, for probes, RFC 5227.

use std::net::Ipv4Addr;

use super::frame::Mac;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Ethernet (1), IPv4 (0x0800), address lengths 6 and 4.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// An ARP message about IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) operation: u16,
    pub(crate) sender_mac: Mac,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target_mac: Mac,
    pub(crate) target: Ipv4Addr,
}

impl Message {
    /// Reads a message; one about other networks is none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 28] = bytes.first_chunk()?;
        if bytes[..6] != ETHERNET_IPV4 {
            return None;
        }
        let mac = |at: usize| -> Option<Mac> { bytes[at..at + 6].try_into().ok() };
        let address =
            |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        Some(Self {
            operation: u16::from_be_bytes([bytes[6], bytes[7]]),
            sender_mac: mac(8)?,
            sender: address(14),
            target_mac: mac(18)?,
            target: address(24),
        })
    }

    /// Writes the message.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = ETHERNET_IPV4.to_vec();
        out.extend_from_slice(&self.operation.to_be_bytes());
        out.extend_from_slice(&self.sender_mac);
        out.extend_from_slice(&self.sender.octets());
        out.extend_from_slice(&self.target_mac);
        out.extend_from_slice(&self.target.octets());
        out
    }

    /// Whether it asks who has an address.
    pub(crate) fn is_request(&self) -> bool {
        self.operation == REQUEST
    }

    /// Whether it asks, before an address is taken, if somebody else has it (RFC 5227, 1.1).
    pub(crate) fn is_probe(&self) -> bool {
        self.is_request() && self.sender.is_unspecified()
    }

    /// Whether it tells the neighbours whose address it is (RFC 5227, 3).
    pub(crate) fn is_announcement(&self) -> bool {
        self.sender == self.target
    }

    /// The answer of whoever owns the address asked for. A probe's answer goes to address 0.
    pub(crate) fn reply(&self, owner: Mac) -> Self {
        Self {
            operation: REPLY,
            sender_mac: owner,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// What is wrong with a message that came in a frame from `source`.
    pub(crate) fn faults(&self, source: Mac) -> Vec<String> {
        let mut faults = Vec::new();
        if self.sender_mac != source {
            faults.push("ARP sender is not the sender of its frame".into());
        }
        if self.is_probe() && self.target_mac != [0; 6] {
            faults.push("ARP probe names a target hardware address".into());
        }
        if self.operation != REQUEST && self.operation != REPLY {
            faults.push(format!("ARP operation {} is unknown", self.operation));
        }
        faults
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_probe() {
            write!(f, "probe {}", self.target)
        } else if self.is_announcement() {
            write!(f, "announce {}", self.sender)
        } else if self.is_request() {
            write!(f, "who has {} tell {}", self.target, self.sender)
        } else {
            write!(
                f,
                "{} is at {}",
                self.sender,
                super::frame::Colons(self.sender_mac)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let message = Message {
            operation: REQUEST,
            sender_mac: [2, 0, 0, 0, 0, 9],
            sender: Ipv4Addr::UNSPECIFIED,
            target_mac: [0; 6],
            target: Ipv4Addr::new(10, 0, 0, 4),
        };
        assert_eq!(Message::parse(&message.bytes()), Some(message));
        assert!(message.is_probe() && message.faults([2, 0, 0, 0, 0, 9]).is_empty());
        assert_eq!(message.reply([7; 6]).target, Ipv4Addr::UNSPECIFIED);
        assert_eq!(message.faults([1; 6]).len(), 1);
    }
}
