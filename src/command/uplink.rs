//! The way to the platform: links, leases, one connection, the WireServer.

mod keep;
mod way;

use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use alloc::boxed::Box;
use alloc::string::String;
use heapless::Vec;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use self::way::Way;
use super::options::{Nic, Options, Task};
use crate::engine::backoff::{Random, earliest};
use crate::engine::exchange::Endpoint;
use crate::engine::imds::Query;
use crate::engine::network::{Chosen, MAX_NICS, Network};
use crate::engine::transport::{self, Peer, Transport};
use crate::engine::wireserver::{Outcome, Wireserver};
use crate::linux::clock;
use crate::linux::link::{self, LinkState, Links};
use crate::linux::log::{Level, Log};
use crate::linux::memory::Buffers;
use crate::linux::module::Modules;
use crate::linux::port::Port;
use crate::linux::tcp::{self, Sockets};
use crate::wire::cmdline::CommandLine;
use crate::wire::dhcp;
use crate::wire::health::Health;
use crate::wire::lease::Record;
use crate::wire::report::{Report, clip};
use crate::wire::timestamp::millis;

/// The driver of Hyper-V's synthetic interfaces. A virtual function has the same hardware address
/// and another driver: it is never used, because the host moves the traffic as it likes.
const SYNTHETIC: &str = "hv_netvsc";

/// How often the kernel is asked for a route that somebody else sets up.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The way to the platform.
pub(super) struct Uplink {
    nic: Option<Nic>,
    links: Option<Links>,
    /// The interfaces that we set up, and shall set down again.
    raised: Vec<(u32, [u8; 6]), MAX_NICS>,
    network: Network<Port>,
    way: Option<Way>,
    wireserver: Option<Box<Wireserver<'static>>>,
    query: Option<Box<Query<'static>>>,
    /// Whether the metadata service is to be asked.
    asks: bool,
    /// What is to be published of the host key.
    fingerprint: Option<String>,
    /// The memory that the next stages take.
    frames: Option<&'static mut transport::Buffers>,
    sockets: Option<&'static mut transport::Storage>,
    response: Option<&'static mut [u8]>,
    metadata: Option<&'static mut [u8]>,
    started: Duration,
    leased: Duration,
    asked: Duration,
    told_faults: u32,
    told_goal_state: bool,
    /// The interface in use is gone.
    gone: bool,
    task: Task,
    /// Who configures the network, once that matters.
    owner: Option<Owner>,
    /// What its lease says of it, for a root that keeps it.
    record: Option<Box<Record>>,
}

/// Who configures the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// We do, for as long as we are at work.
    Us,
    /// Somebody else has, or will.
    Others,
}

impl Uplink {
    /// Prepares the way; nothing is sent yet.
    pub(super) fn new(
        options: &Options,
        buffers: &'static mut Buffers,
        sockets: &'static mut transport::Storage,
        now: Duration,
    ) -> Self {
        let Buffers {
            transport,
            response,
            metadata,
        } = buffers;
        Uplink {
            nic: options.nic.clone(),
            links: None,
            raised: Vec::new(),
            network: Network::new(),
            way: None,
            wireserver: None,
            query: None,
            asks: false,
            fingerprint: None,
            frames: Some(transport),
            sockets: Some(sockets),
            response: Some(response),
            metadata: Some(metadata),
            started: now,
            leased: now,
            asked: now,
            told_faults: 0,
            told_goal_state: false,
            gone: false,
            task: options.task,
            owner: None,
            record: None,
        }
    }

    /// Begins to look for interfaces, unless it did before.
    ///
    /// Where the kernel knows the way already, no interface is touched: it is somebody else's.
    pub(super) fn open(&mut self, now: Duration) -> rustix::io::Result<()> {
        if self.is_open() {
            return Ok(());
        }
        self.started = now;
        self.asked = now;
        // The running system's is not ours, whether it is there yet or not.
        if self.task == Task::Ready || tcp::source_to(dhcp::WIRESERVER).is_some() {
            self.owner = Some(Owner::Others);
            return Ok(());
        }
        self.owner = Some(Owner::Us);
        let mut links = Links::open()?;
        links.dump()?;
        self.links = Some(links);
        Ok(())
    }

    /// Tells whether it was opened.
    pub(super) fn is_open(&self) -> bool {
        self.owner.is_some()
    }

    /// Moves everything on that can be moved; returns what became of the report.
    pub(super) fn poll(
        &mut self,
        now: Duration,
        host_name: Option<&str>,
        health: Option<Health<'_>>,
        log: &Log,
        report: &mut Report,
    ) -> Option<Outcome> {
        self.watch_links(now, log, report);
        if self.way.is_none() {
            match self.owner {
                Some(Owner::Others) => self.seek_route(now, log, report),
                Some(Owner::Us) => self.seek_lease(now, host_name, log, report),
                None => {}
            }
        }
        let way = self.way.as_mut()?;
        let wireserver = self.wireserver.as_mut()?;
        if self.asks
            && let Some(buffer) = self.metadata.take()
        {
            self.query = Some(Box::new(Query::new(random(), buffer, now)));
        }
        if let Some(fingerprint) = self.fingerprint.take() {
            wireserver.publish(fingerprint);
        }
        let query = &mut self.query;
        let mut outcome = None;
        way.poll(now, &mut |peer, connection| match peer {
            Peer::Wireserver => outcome = wireserver.poll(now, connection, health),
            Peer::Imds => {
                if let Some(query) = query {
                    query.poll(now, connection);
                }
            }
        });

        if let Some((fault, count)) = wireserver.fault()
            && count != self.told_faults
        {
            self.told_faults = count;
            let wait = wireserver.wait_until().saturating_sub(now);
            log.line(
                Level::Warning,
                format_args!("wireserver: {fault}; next try in {} ms", millis(wait)),
            );
        }
        if let Some(at) = wireserver.goal_state_at()
            && !self.told_goal_state
        {
            self.told_goal_state = true;
            report.phase(
                "goalstate",
                self.leased,
                at,
                format_args!("{}", wireserver.address()),
            );
        }
        if health.is_some() && self.asked == self.started {
            self.asked = now;
        }
        outcome
    }

    /// Has the metadata service asked, too, as soon as there is a lease.
    pub(super) fn ask_metadata(&mut self) {
        self.asks = true;
    }

    /// Has the host key's fingerprint published before the machine is reported ready.
    pub(super) fn publish(&mut self, fingerprint: String) {
        self.fingerprint = Some(fingerprint);
    }

    /// Returns the question to the metadata service, once it is under way.
    pub(super) fn query(&mut self) -> Option<&mut Query<'static>> {
        self.query.as_deref_mut()
    }

    /// Tells when the WireServer gave its goal state.
    pub(super) fn goal_state_at(&self) -> Option<Duration> {
        self.wireserver.as_ref()?.goal_state_at()
    }

    /// Tells whether the lease is worth nothing any more: its interface is gone, or nobody has
    /// answered for long.
    pub(super) fn is_lost(&self) -> bool {
        self.gone
            || self
                .wireserver
                .as_ref()
                .is_some_and(|wireserver| wireserver.is_cut_off())
    }

    /// Returns when the report was asked for.
    pub(super) fn asked(&self) -> Duration {
        self.asked
    }

    /// Tells what is awaited.
    pub(super) fn awaited(&self) -> Awaited<'_> {
        if self.way.is_some() {
            Awaited::Wireserver
        } else if self.owner == Some(Owner::Others) {
            Awaited::Route
        } else if self.network.is_empty() {
            Awaited::Interface(self.nic.as_ref())
        } else {
            Awaited::Lease
        }
    }

    /// Adds what is to be waited on.
    pub(super) fn wait_on<'s>(&'s self, fds: &mut Vec<PollFd<'s>, 16>) {
        // There is room for all: eight interfaces and at most five more.
        if let Some(links) = &self.links {
            let _ = fds.push(PollFd::new(links, PollFlags::IN));
        }
        for port in self.network.links() {
            let _ = fds.push(PollFd::new(port, PollFlags::IN));
        }
        if let Some(way) = &self.way {
            way.wait_on(fds);
        }
    }

    /// Returns when [`Uplink::poll`] has something to do without an event.
    pub(super) fn due(&mut self, now: Duration, reporting: bool) -> Option<Duration> {
        let way = self.way.as_mut().and_then(|way| way.due(now));
        let network = match self.way {
            Some(_) => None,
            None if self.owner == Some(Owner::Others) => Some(now.saturating_add(LOOK_AGAIN)),
            None => self.network.due(),
        };
        let wireserver = self
            .wireserver
            .as_ref()
            .filter(|wireserver| reporting || wireserver.goal_state_at().is_none())
            .and_then(|wireserver| wireserver.due());
        let query = self.query.as_ref().and_then(|query| query.due());
        earliest(&[way, network, wireserver, query])
    }

    /// Gives the interfaces back: down, without addresses, with their own names.
    pub(super) fn release(&mut self) {
        if let Some(links) = &mut self.links {
            for (index, _) in &self.raised {
                // One that is gone needs nothing.
                let _ = links.set_down(*index);
            }
        }
        self.raised.clear();
    }

    fn watch_links(&mut self, now: Duration, log: &Log, report: &mut Report) {
        while let Some(links) = &mut self.links {
            match links.next() {
                Ok(Some(state)) => self.link_changed(&state, now, log, report),
                Ok(None) => return,
                Err(error) => {
                    log.line(
                        Level::Warning,
                        format_args!("rtnetlink: error {}", error.raw_os_error()),
                    );
                    return;
                }
            }
        }
    }

    fn link_changed(&mut self, state: &LinkState, now: Duration, log: &Log, report: &mut Report) {
        if state.removed {
            let in_use = self.way.as_ref().and_then(Way::index);
            self.gone |= in_use == Some(state.index);
            self.network.remove(state.mac);
            self.raised.retain(|(index, _)| *index != state.index);
            return;
        }
        if self.raised.iter().any(|(index, _)| *index == state.index) {
            if state.carrier {
                self.network.link_up(state.mac, now);
            } else if !state.up
                && let Some(links) = &mut self.links
            {
                // Somebody has put it down under us; one that is gone is heard of, too.
                let _ = links.set_up(state.index);
            }
            return;
        }
        if self.way.is_some() || !self.is_candidate(state) {
            return;
        }
        match self.raise(state, now) {
            Ok(()) => report.phase("nic", self.started, now, format_args!("{}", state.name)),
            Err(error) => log.line(
                Level::Error,
                format_args!(
                    "nic: cannot use {}: error {}",
                    state.name,
                    error.raw_os_error()
                ),
            ),
        }
    }

    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    fn is_candidate(&self, state: &LinkState) -> bool {
        match &self.nic {
            Some(Nic::Name(name)) => state.name.as_str() == name,
            // A virtual function has the same address, and comes later.
            Some(Nic::Address(address)) => {
                state.mac == *address && self.raised.iter().all(|(_, mac)| mac != address)
            }
            None => {
                state.ethernet
                    && link::driver(&state.name).is_some_and(|driver| driver == SYNTHETIC)
            }
        }
    }

    fn raise(&mut self, state: &LinkState, now: Duration) -> rustix::io::Result<()> {
        if let Some(links) = &mut self.links {
            links.set_up(state.index)?;
        }
        // It counts as ours even if the rest fails, so that it is set down again.
        let _ = self.raised.push((state.index, state.mac));
        let port = match Port::open(state.index, state.name.clone(), state.mac) {
            Err(Errno::AFNOSUPPORT) => {
                if let Some(mut modules) = Modules::open_running(CommandLine::new(b"")) {
                    let _ = modules.load("af_packet");
                }
                Port::open(state.index, state.name.clone(), state.mac)
            }
            result => result,
        }?;
        // Azure attaches no more interfaces than there is room for.
        let _ = self.network.add(port, random(), now);
        Ok(())
    }

    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    fn seek_lease(
        &mut self,
        now: Duration,
        host_name: Option<&str>,
        log: &Log,
        report: &mut Report,
    ) {
        let Some(frames) = self.frames.as_mut() else {
            return;
        };
        let Some(chosen) = self.network.poll(now, &mut frames.frames, host_name) else {
            return;
        };
        let (Some(frames), Some(sockets), Some(response)) = (
            self.frames.take(),
            self.sockets.take(),
            self.response.take(),
        ) else {
            return;
        };
        self.leased = now;
        self.tell_lease(&chosen, now, log, report);
        self.take_down(&chosen, host_name);
        self.way = Some(Way::Own(Box::new(Transport::new(
            chosen.link,
            &chosen.lease,
            chosen.neighbour,
            random(),
            now,
            frames,
            sockets,
        ))));
        self.converse(chosen.lease.wireserver(), response);
    }

    /// Takes the way that somebody else has set up, once it is there.
    fn seek_route(&mut self, now: Duration, log: &Log, report: &mut Report) {
        let Some(address) = tcp::source_to(dhcp::WIRESERVER) else {
            return;
        };
        let Some(response) = self.response.take() else {
            return;
        };
        self.leased = now;
        let wireserver = dhcp::WIRESERVER;
        log.line(
            Level::Info,
            format_args!("network ok ip={address} configured by others, left alone"),
        );
        clip(&mut report.address, format_args!("{address}"));
        clip(&mut report.wireserver, format_args!("{wireserver}"));
        self.way = Some(Way::Kernel(Sockets::new()));
        self.converse(wireserver, response);
    }

    fn converse(&mut self, wireserver: Ipv4Addr, response: &'static mut [u8]) {
        let endpoint = Endpoint {
            address: wireserver,
            port: 80,
        };
        self.wireserver = Some(Box::new(Wireserver::new(endpoint, random(), response)));
    }

    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    fn tell_lease(&self, chosen: &Chosen<Port>, now: Duration, log: &Log, report: &mut Report) {
        let lease = &chosen.lease;
        let wireserver = lease.wireserver();
        log.line(
            Level::Info,
            format_args!(
                "dhcp ok nic={} ip={lease} server={} wireserver={wireserver} ms={}",
                chosen.link.name,
                lease.server,
                millis(now.saturating_sub(self.started))
            ),
        );
        report.phase(
            "dhcp",
            self.started,
            now,
            format_args!("{lease} after {} discover(s)", chosen.discovers),
        );
        clip(&mut report.interface, format_args!("{}", chosen.link.name));
        clip(&mut report.address, format_args!("{lease}"));
        if let Some(router) = lease.next_hop(wireserver) {
            clip(&mut report.router, format_args!("{router}"));
        }
        clip(&mut report.wireserver, format_args!("{wireserver}"));
    }
}

/// Makes a generator that no other machine has.
pub(super) fn random() -> Random {
    let mut seed = [0; 8];
    clock::random(&mut seed);
    Random::new(u64::from_ne_bytes(seed))
}

/// What an uplink is waiting for.
pub(super) enum Awaited<'a> {
    /// A suitable interface.
    Interface(Option<&'a Nic>),
    /// A lease.
    Lease,
    /// A network that somebody else sets up.
    Route,
    /// The WireServer.
    Wireserver,
}

impl Awaited<'_> {
    /// Returns the published words for never having got it.
    pub(super) fn failure(&self) -> &'static str {
        match self {
            Awaited::Interface(_) => "failure to find DHCP interface",
            Awaited::Lease | Awaited::Route => "failure to obtain DHCP lease",
            Awaited::Wireserver => "failure to report to the WireServer",
        }
    }
}

impl fmt::Display for Awaited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Awaited::Interface(None) => write!(f, "an interface of driver {SYNTHETIC}"),
            Awaited::Interface(Some(name)) => write!(f, "interface {name}"),
            Awaited::Lease => f.write_str("an answer of a DHCP server"),
            Awaited::Route => f.write_str("a route to the WireServer"),
            Awaited::Wireserver => f.write_str("the WireServer"),
        }
    }
}
