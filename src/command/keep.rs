//! Keeping the interface for a root in which nobody configures it.
//!
//! Puts a lease into the kernel's own network, its name servers where the root's programs look for
//! them, and what was done into `/run/preroot/lease`. The initramfs does so when its connections are
//! over, because the kernel would reset them, and `preroot lease` on each change.

use alloc::string::{String, ToString as _};
use core::fmt;
use core::time::Duration;

use heapless::Vec;
use rustix::event::{PollFd, PollFlags};

use super::console::Patience;
use super::uplink::Uplink;
use super::worker::RUN_DIRECTORY;
use crate::engine::backoff::earliest;
use crate::engine::plan::{Plan, Resolver, RootView, resolver};
use crate::linux::channel::{Channel, Incoming, MAX_MESSAGE};
use crate::linux::link::Links;
use crate::linux::log::{Level, Log};
use crate::linux::{clock, files, poll};
use crate::wire::lease::Record;
use crate::wire::names::{HOST_NAME_MAX, HostName};
use crate::wire::report::Report;

/// What is in the kernel.
const RECORD: &str = "/run/preroot/lease";
const RECORD_NAME: &str = "lease";
/// Such a file is smaller.
const MAX_RECORD: usize = 8192;

/// Reads what is in the kernel; nothing if nothing was put there, or only wanted there.
pub(super) fn read() -> Option<Record> {
    let mut buffer = alloc::vec![0; MAX_RECORD];
    Record::parse(files::read(RECORD, &mut buffer)?)
}

/// Leaves word that a lease is wanted and not there: a file without a lease.
pub(super) fn want() {
    files::write_private(RUN_DIRECTORY, RECORD_NAME, b"");
}

/// Tells whether a lease is wanted, whether there is one or not.
pub(super) fn is_wanted() -> bool {
    files::exists(RECORD)
}

/// Puts a lease into the kernel in place of `old`, and writes down that it is there.
///
/// Goes on after a refusal: an interface without one of its routes is worth more than none.
// Out of line: it has two callers.
#[inline(never)]
pub(super) fn configure(links: &mut Links, new: &Record, old: Option<&Record>, log: &Log) {
    let index = new.index;
    if let Some(mtu) = new.mtu
        && old.is_none_or(|old| old.mtu != new.mtu)
    {
        let set = links.set_mtu(index, mtu);
        check(set, new, format_args!("mtu {mtu}"), log);
    }
    let network = (new.address, new.prefix);
    if let Some(old) = old {
        if (old.address, old.prefix) == network {
            for route in old.routes.iter().filter(|old| !new.routes.contains(old)) {
                let _ = links.remove_route(index, route, old.address);
            }
        } else {
            deconfigure(links, old);
        }
    }
    // The kernel takes the address away when nobody has renewed the lease in time.
    let seconds = new.term.map_or(u32::MAX, |term| {
        let end = new.obtained.saturating_add(term.lease);
        let left = end.saturating_sub(clock::boottime()).as_secs();
        u32::try_from(left).unwrap_or(u32::MAX)
    });
    let added = links.add_address(index, network, seconds);
    check(added, new, format_args!("address {}", new.address), log);
    for route in &new.routes {
        let added = links.add_route(index, route, new.address);
        check(added, new, format_args!("route {route}"), log);
    }
    let text = new.to_string();
    files::write_private(RUN_DIRECTORY, RECORD_NAME, text.as_bytes());
}

/// Names what the kernel has refused.
fn check(result: rustix::io::Result<()>, record: &Record, what: fmt::Arguments<'_>, log: &Log) {
    if let Err(error) = result {
        log.line(
            Level::Warning,
            format_args!(
                "network: {} takes no {what}: error {} fix=\"see what the DHCP server says\"",
                record.name,
                error.raw_os_error()
            ),
        );
    }
}

/// Takes a lease out of the kernel: its address and the routes that came with it.
pub(super) fn deconfigure(links: &mut Links, record: &Record) {
    // The kernel may have done so itself, when the lease ended.
    let _ = links.remove_address(record.index, (record.address, record.prefix));
}

/// Has the programs of a root ask the name servers of a lease; gives what is to be changed in the root.
// Out of line: it has two callers.
#[inline(never)]
pub(super) fn set_resolver(root: &dyn RootView, record: &Record, log: &Log) -> Option<Plan> {
    if record.dns.is_empty() {
        return None;
    }
    match resolver(root, &record.dns, &record.domain) {
        Resolver::Root(plan) => return Some(plan).filter(|plan| !plan.is_empty()),
        Resolver::Running(path, content) => {
            if !files::write_public(&path, content.as_bytes()) {
                log.line(
                    Level::Warning,
                    format_args!("note: {path} cannot be written: name servers are not known"),
                );
            }
        }
        Resolver::Stays(why) => log.line(
            Level::Warning,
            format_args!("note: {why}: the lease's name servers are not in it"),
        ),
    }
    None
}

/// Says that a resolver's file was not written.
pub(super) fn not_written(fault: fmt::Arguments<'_>, log: &Log) {
    log.line(
        Level::Warning,
        format_args!("note: the lease's name servers are not in /etc/resolv.conf: {fault}"),
    );
}

/// Reads the host name that a root gives itself; none where it is nobody's.
pub(super) fn host_name(root: &dyn RootView) -> Option<String> {
    let file = root
        .read("/etc/hostname", HOST_NAME_MAX.saturating_mul(8))
        .ok()??;
    let name = core::str::from_utf8(&file).ok()?.lines().next()?.trim();
    let name = HostName::new(name).ok()?;
    Some(String::from(name.as_str())).filter(|name| name != "localhost")
}

/// Waits for a lease until then, or until `caller` is gone; tells whether there is one.
pub(super) fn seek(
    uplink: &mut Uplink,
    caller: &Channel,
    host_name: Option<&str>,
    until: Duration,
    log: &Log,
    report: &mut Report,
) -> bool {
    let mut patience = Patience::default();
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        let now = clock::monotonic();
        if uplink.seek(now, host_name, log, report) {
            return true;
        }
        while let Incoming::Message(_) = caller.receive(&mut buffer) {}
        if now >= until || caller.receive(&mut buffer) == Incoming::Closed {
            return false;
        }
        let awaited = uplink.awaited();
        patience.awaiting(now, log, format_args!("{awaited}"), until);
        let due = earliest(&[Some(until), Some(patience.due()), uplink.due(now, false)]);
        let mut fds: Vec<PollFd<'_>, 16> = Vec::new();
        // Room for all: see `Uplink::wait_on`.
        let _ = fds.push(PollFd::new(caller, PollFlags::IN));
        uplink.wait_on(&mut fds);
        let wait = due.map(|due| due.saturating_sub(clock::monotonic()));
        let _ = poll::wait(&mut fds, wait);
    }
}
