//! All candidate interfaces at once, until one of them has the lease to go on with.
//!
//! Only the primary interface reaches the WireServer, and nothing but its lease tells which one it
//! is. So every candidate asks for a lease at the same time, and the first primary one wins.

use core::net::Ipv4Addr;
use core::time::Duration;

use alloc::vec::Vec;

use super::backoff::{Random, earliest};
use super::dhcp::{Client, Event};
use super::link::{self, FrameBuffers, Link};
use crate::wire::dhcp::{self, Lease};

/// Azure attaches at most eight interfaces.
pub const MAX_NICS: usize = 8;
/// How long a lease that is not primary waits for one that is.
const PRIMARY_GRACE: Duration = Duration::from_secs(3);

/// An interface on its way to a lease.
#[derive(Debug)]
struct Candidate<L> {
    link: L,
    client: Client,
    lease: Option<(Lease, Duration)>,
    /// The router that was asked for its hardware address, and its answer.
    router: Option<(Ipv4Addr, Option<[u8; 6]>)>,
}

/// The interfaces.
#[derive(Debug)]
pub struct Network<L> {
    /// At most [`MAX_NICS`]; on the heap, because most machines have one, and eight fill three pages.
    candidates: Vec<Candidate<L>>,
    damaged: u32,
}

/// The interface that was chosen.
#[derive(Debug)]
pub struct Chosen<L> {
    /// The interface.
    pub link: L,
    /// Its lease.
    pub lease: Lease,
    /// Its router's addresses, when the router has answered already.
    pub neighbour: Option<([u8; 6], Ipv4Addr)>,
    /// How many DISCOVERs it took.
    pub discovers: u8,
}

impl<L: Link> Network<L> {
    /// Creates a network without interfaces.
    pub const fn new() -> Self {
        Network {
            candidates: Vec::new(),
            damaged: 0,
        }
    }

    /// Adds an interface that is up; gives it back when there are too many.
    pub fn add(&mut self, link: L, random: Random, now: Duration) -> Result<(), L> {
        if self.candidates.len() >= MAX_NICS {
            return Err(link);
        }
        let client = Client::new(link.mac(), random, now);
        self.candidates.push(Candidate {
            link,
            client,
            lease: None,
            router: None,
        });
        Ok(())
    }

    /// Tells whether there is no interface.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Returns the links, for waiting on them.
    pub fn links(&self) -> impl Iterator<Item = &L> {
        self.candidates.iter().map(|candidate| &candidate.link)
    }

    /// Hurries the interface with hardware address `mac`, whose link has come up.
    pub fn link_up(&mut self, mac: [u8; 6], now: Duration) {
        for candidate in &mut self.candidates {
            if candidate.link.mac() == mac {
                candidate.client.link_up(now);
            }
        }
    }

    /// Drops the interface with hardware address `mac`, which is gone.
    pub fn remove(&mut self, mac: [u8; 6]) {
        self.candidates
            .retain(|candidate| candidate.link.mac() != mac);
    }

    /// Takes in what has arrived and sends what is due; returns the interface once it is chosen.
    pub fn poll(
        &mut self,
        now: Duration,
        buffers: &mut FrameBuffers,
        host_name: Option<&str>,
    ) -> Option<Chosen<L>> {
        for candidate in &mut self.candidates {
            candidate.poll(now, buffers, host_name, &mut self.damaged);
        }
        let index = self.choose(now)?;
        let candidate = self.candidates.swap_remove(index);
        let (lease, _) = candidate.lease?;
        let neighbour = candidate
            .router
            .and_then(|(address, mac)| Some((mac?, address)));
        Some(Chosen {
            link: candidate.link,
            lease,
            neighbour,
            discovers: candidate.client.discovers(),
        })
    }

    /// Returns when [`Network::poll`] has something to do even if no frame arrives.
    pub fn due(&self) -> Option<Duration> {
        let mut due = None;
        for Candidate { client, lease, .. } in &self.candidates {
            let lease = lease.as_ref();
            let patience = lease.map(|(_, since)| since.saturating_add(PRIMARY_GRACE));
            due = earliest(&[due, client.due(), patience]);
        }
        due
    }

    fn choose(&self, now: Duration) -> Option<usize> {
        let leased = || {
            self.candidates
                .iter()
                .enumerate()
                .filter_map(|(index, candidate)| Some((index, candidate.lease.as_ref()?)))
        };
        if let Some((index, _)) = leased().find(|(_, (lease, _))| lease.is_primary()) {
            return Some(index);
        }
        let waited = leased().any(|(_, (_, since))| now >= since.saturating_add(PRIMARY_GRACE));
        // With one interface, or all served, there is nothing to wait for.
        if !waited && leased().count() < self.candidates.len() {
            return None;
        }
        leased()
            .find(|(_, (lease, _))| lease.names_wireserver())
            .or_else(|| leased().next())
            .map(|(index, _)| index)
    }
}

impl<L: Link> Default for Network<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Link> Candidate<L> {
    fn poll(
        &mut self,
        now: Duration,
        buffers: &mut FrameBuffers,
        host_name: Option<&str>,
        damaged: &mut u32,
    ) {
        for _ in 0..64 {
            let Some(frame) = link::receive_valid(&mut self.link, &mut buffers.receive, damaged)
            else {
                break;
            };
            if let Some(reply) = dhcp::parse_frame(frame) {
                if let Event::Bound(lease) = self.client.receive(now, reply) {
                    self.lease = Some((lease, now));
                }
            } else if let Some((mac, address)) = link::arp_answer(frame)
                && let Some((router, answer @ None)) = &mut self.router
                && *router == address
            {
                *answer = Some(mac);
            }
        }
        while let Some(length) = self.client.poll(now, &mut buffers.send, host_name) {
            self.link
                .send(buffers.send.get(..length).unwrap_or_default());
        }
        // The router is looked up in the shadow of the request's round trip.
        if let Some(lease) = self.client.requested()
            && self.router.is_none()
            && let Some(gateway) = lease
                .next_hop(lease.wireserver())
                .filter(|g| dhcp::is_unicast(*g))
        {
            self.router = Some((gateway, None));
            self.link.send(&link::arp_probe(self.link.mac(), gateway));
        }
    }
}
