//! `preroot lease`: keeps the lease of a root in which nobody else does.
//!
//! A service of the running system: goes on from what the initramfs left in `/run/preroot/lease`, asks
//! for a lease as at boot where there is none, and ends where there is nothing to renew. It ends on any
//! signal as it is, because what it leaves in the kernel is right until the lease ends.

use core::time::Duration;

use heapless::Vec;
use rustix::event::{PollFd, PollFlags};

use super::options::{Network, Nic, Options, Task};
use super::provision;
use super::uplink::{Uplink, random};
use super::{Exit, keep};
use crate::engine::backoff::Backoff;
use crate::engine::dhcp::{Client, Event, Held};
use crate::engine::managers;
use crate::linux::channel::{Channel, Incoming, MAX_MESSAGE};
use crate::linux::datagram::DatagramSocket;
use crate::linux::link::{LinkState, Links};
use crate::linux::log::{Level, Log};
use crate::linux::process::{self, Fork};
use crate::linux::root::Root;
use crate::linux::{clock, memory, poll, tcp};
use crate::wire::dhcp;
use crate::wire::lease::Record;
use crate::wire::report::Report;

/// How long to hold back before asking for another lease, doubling: not every one lasts.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A lease that lasted so long was a good one.
const LASTING: Duration = Duration::from_mins(2);
/// No lease is renewed sooner than this, whatever the server says.
const SOONEST: Duration = Duration::from_secs(1);
/// How long a server that gave a lease for ever may take to hear another host name.
const INFORM: Duration = Duration::from_mins(10);
/// How long a process asks for a lease before the next one does, and how long any wait is at most.
const ROUND: Duration = Duration::from_hours(1);
/// The longest answer.
const MAX_ANSWER: usize = 1500;

/// What became of a lease.
enum End {
    /// It needs nothing any more.
    Infinite,
    /// It is gone from the interface with this hardware address, or that is gone.
    Lost([u8; 6]),
}

/// Runs the command.
#[inline(never)]
pub(super) fn run<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Exit {
    let mut options = Options::of(Task::Provision);
    let log = match provision::prepare(&mut options, arguments) {
        Ok(log) => log,
        Err(exit) => return exit,
    };
    let Ok(root) = Root::open("/") else {
        return Exit::Failed;
    };
    let mut record = keep::read();
    if !keep::is_wanted()
        && let Some(who) = whose(&root, &options)
    {
        return leave_to(who, &log);
    }
    let mut pause = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut random = random();
    let keeper = Keeper { log, root };
    loop {
        let since = clock::boottime();
        match record {
            None if tcp::source_to(dhcp::WIRESERVER).is_some() => {
                return leave_to("whoever has configured it", &keeper.log);
            }
            None => acquire(&options, &keeper),
            Some(record) => match keeper.hold(record) {
                Ok(End::Infinite) => return Exit::Done,
                Ok(End::Lost(mac)) => {
                    keep::want();
                    // Another interface may be of another network.
                    options.nic = Some(Nic::Address(mac));
                }
                Err(error) => {
                    keeper.log.line(
                        Level::Error,
                        format_args!("failed: no rtnetlink: error {}", error.raw_os_error()),
                    );
                    return Exit::Failed;
                }
            },
        }
        if clock::boottime().saturating_sub(since) >= LASTING {
            pause.reset();
        }
        record = keep::read();
        if record.is_none() {
            let _ = poll::wait(&mut [], Some(pause.next(&mut random)));
        }
    }
}

fn leave_to(who: &str, log: &Log) -> Exit {
    log.line(
        Level::Info,
        format_args!("lease: nothing to keep: the network is for {who}"),
    );
    Exit::Done
}

/// Names whose business the network is where there is no lease of ours; nobody's is ours.
fn whose(root: &Root, options: &Options) -> Option<&'static str> {
    match options.network {
        Network::Keep => None,
        Network::Release => Some("others, as the settings say"),
        Network::Auto => managers::find(root),
    }
}

struct Keeper {
    log: Log,
    /// The running system.
    root: Root,
}

impl Keeper {
    /// Renews a lease for as long as that works.
    #[inline(never)]
    fn hold(&self, mut record: Record) -> rustix::io::Result<End> {
        let mut links = Links::open()?;
        links.dump()?;
        let mut link = None;
        while let Some(state) = links.next()? {
            if state.index == record.index {
                link = Some(state);
            }
        }
        let Some(mut link) = link.filter(|link| !link.removed) else {
            self.say(format_args!("the interface is gone"), &record);
            return Ok(End::Lost(record.mac));
        };
        let mut told = None;
        loop {
            let now = clock::boottime();
            let held = match record.term {
                None if keep::host_name(&self.root).is_none_or(|name| name == record.host_name) => {
                    self.log.line(
                        Level::Info,
                        format_args!("lease of {} is for ever: nothing to renew", record.address),
                    );
                    return Ok(End::Infinite);
                }
                // The server does not know the name yet.
                None => Held {
                    address: record.address,
                    server: record.server,
                    renew: now,
                    rebind: now.saturating_add(INFORM),
                    end: Duration::MAX,
                },
                Some(term) => {
                    let at = |after| record.obtained.saturating_add(after);
                    Held {
                        address: record.address,
                        server: record.server,
                        renew: at(term.renew).max(now.saturating_add(SOONEST)),
                        rebind: at(term.rebind),
                        end: at(term.lease),
                    }
                }
            };
            if record.term.is_some() && told != Some(record.address) {
                told = Some(record.address);
                let left = |until: Duration| until.saturating_sub(now).as_secs();
                self.log.line(
                    Level::Info,
                    format_args!(
                        "lease ok ip={} server={} renew={}s end={}s",
                        record.address,
                        record.server,
                        left(held.renew),
                        left(held.end)
                    ),
                );
            }
            let client = Client::resume(record.mac, random(), held);
            let Some(new) = self.renew(client, &record, &mut links, &mut link) else {
                return Ok(End::Lost(record.mac));
            };
            keep::configure(&mut links, &new, Some(&record), &self.log);
            set_resolver(&self.root, &new, &self.log);
            record = new;
        }
    }

    /// Waits until a lease is due, and asks for it again; `None` when it is lost.
    #[inline(never)]
    fn renew(
        &self,
        mut client: Client,
        record: &Record,
        links: &mut Links,
        link: &mut LinkState,
    ) -> Option<Record> {
        let mut socket = None;
        let mut asked = Duration::ZERO;
        let mut answer = [0; MAX_ANSWER];
        let mut name = None;
        loop {
            let now = clock::boottime();
            while let Ok(Some(state)) = links.next() {
                if state.index != record.index {
                    continue;
                }
                if state.removed {
                    self.say(format_args!("the interface is gone"), record);
                    return None;
                }
                if state.carrier != link.carrier {
                    let what = if state.carrier {
                        client.link_up(now);
                        "is back"
                    } else {
                        "is lost"
                    };
                    self.say(format_args!("the carrier {what}"), record);
                }
                *link = state;
            }
            if client.has_ended(now) {
                self.say(format_args!("nobody renewed it in time"), record);
                keep::deconfigure(links, record);
                return None;
            }
            if client.due().is_some_and(|due| due <= now) {
                // It may have been changed since the last time.
                name = keep::host_name(&self.root);
            }
            if let Some((message, server)) = client.renew(now, name.as_deref()) {
                asked = now;
                if socket.is_none() {
                    socket = DatagramSocket::open(record.index)
                        .inspect_err(|error| {
                            let error = error.raw_os_error();
                            self.say(format_args!("no port 68: error {error}"), record);
                        })
                        .ok();
                }
                let server = server.unwrap_or(core::net::Ipv4Addr::BROADCAST);
                if let (Some(socket), Some(bytes)) = (&socket, message.to_bytes()) {
                    // What cannot be sent is lost, and sent again.
                    let _ = socket.send(&bytes, server);
                }
            }
            while let Some(Ok(Some(bytes))) = socket.as_ref().map(|s| s.receive(&mut answer)) {
                let Some(reply) = dhcp::parse(bytes, [0; 6]) else {
                    continue;
                };
                match client.receive(now, reply) {
                    Event::Nothing => {}
                    Event::Refused => {
                        self.say(format_args!("the server refused to renew it"), record);
                        keep::deconfigure(links, record);
                        return None;
                    }
                    Event::Bound(lease) => {
                        // The name may be another one by now.
                        let nic = (record.index, &*link.name);
                        let name = name.as_deref();
                        return Some(Record::new(&lease, nic, record.mac, asked, name));
                    }
                }
            }
            let mut fds: Vec<PollFd<'_>, 2> = Vec::new();
            let _ = fds.push(PollFd::new(links, PollFlags::IN));
            if let Some(socket) = &socket {
                let _ = fds.push(PollFd::new(socket, PollFlags::IN));
            }
            let due = client.due().unwrap_or(now);
            let left = due.saturating_sub(clock::boottime());
            let _ = poll::wait(&mut fds, Some(left.min(ROUND)));
        }
    }

    fn say(&self, what: core::fmt::Arguments<'_>, record: &Record) {
        let Record { name, address, .. } = record;
        self.log.line(
            Level::Warning,
            format_args!("lease of {address} on {name}: {what}"),
        );
    }
}

/// Asks for a lease as at boot, and puts it into the kernel, in a process of its own: closing packet
/// sockets takes long, and each uplink wants the one set of buffers.
// Kept apart: a larger frame costs its caller more than the call.
#[inline(never)]
fn acquire(options: &Options, keeper: &Keeper) {
    let Ok((ours, theirs)) = Channel::pair() else {
        return;
    };
    match process::fork() {
        Ok(Fork::Child) => {
            drop(ours);
            seek(options, keeper, &theirs);
            process::exit(0)
        }
        Ok(Fork::Parent(_)) => {
            drop(theirs);
            let mut buffer = [0; MAX_MESSAGE];
            while ours.receive(&mut buffer) != Incoming::Closed {
                let _ = poll::wait(&mut [PollFd::new(&ours, PollFlags::IN)], None);
            }
            process::reap();
        }
        Err(_) => {}
    }
}

fn seek(options: &Options, keeper: &Keeper, caller: &Channel) {
    let Keeper { log, root } = keeper;
    let Some((buffers, sockets)) = memory::take_buffers() else {
        return;
    };
    let start = clock::monotonic();
    let mut uplink = Uplink::new(options, buffers, sockets, start);
    if uplink.open(start).is_err() {
        return;
    }
    let name = keep::host_name(root);
    let mut report = Report::default();
    let until = start.saturating_add(ROUND);
    if keep::seek(
        &mut uplink,
        caller,
        name.as_deref(),
        until,
        log,
        &mut report,
    ) && let Some(record) = uplink.keep(log)
    {
        set_resolver(root, record, log);
    }
}

fn set_resolver(root: &Root, record: &Record, log: &Log) {
    if let Some(plan) = keep::set_resolver(root, record, log)
        && let Err((_, fault)) = root.refresh(&plan)
    {
        keep::not_written(format_args!("{fault}"), log);
    }
}
