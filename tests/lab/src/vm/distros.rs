//! Promises about a Debian that makes its own initramfs: what its generators, its systemd and its
//! network find after us is what they would have found without us.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::guest::{Desk, HOST_NAME};
use super::scene::{Broken, Scene, Seen};
use super::snapshot;
use super::visit::{DEBIANS, DEBIANS_FIRST, Errand, LIMIT, OURS, REAL_INIT, Visit};
use crate::boot::{Disc, Options};
use crate::distro::Initramfs;
use crate::platform::Platform;
use crate::progress;
use crate::words::Words;

/// Has the machine's clock go by what its processor does, a nanosecond an instruction, and not by how
/// busy the host is; while it waits time goes on as everywhere.
const COUNTED: [&str; 2] = ["-icount", "shift=0"];

/// Has the kernel note when programs begin and end, and how long each keeps the processor.
const TRACE: [&str; 2] = [
    "trace_event=sched:sched_process_exec,sched:sched_process_exit,sched:sched_stat_runtime",
    "trace_buf_size=16M",
];

/// What a boot with nothing to do may take: so long, or this part of the time up to the real init.
const BAR: Duration = Duration::from_millis(50);
const BAR_PART: f64 = 0.02;

/// An emulated machine beside others is measured roughly; so many times the bar is no accident.
const ALLOWANCE: f64 = 5.0;

/// What is mounted in a Debian that has started: exactly there, or anywhere below.
const MOUNTS: [&str; 4] = ["/", "/dev/", "/proc/", "/sys/"];
const MOUNTS_RUN: [&str; 3] = ["/run", "/run/lock", "/run/user/1000"];

/// What may be left in `/run/preroot`.
const RUN: [&str; 2] = ["/run/preroot", "/run/preroot/report.json"];

pub(super) fn dracut_with_systemd(scene: &Scene) -> Result<(), Broken> {
    at_home(scene, Initramfs::DracutSystemd)
}

pub(super) fn dracut_without_systemd(scene: &Scene) -> Result<(), Broken> {
    at_home(scene, Initramfs::Dracut)
}

pub(super) fn initramfs_tools(scene: &Scene) -> Result<(), Broken> {
    at_home(scene, Initramfs::InitramfsTools)
}

/// Boots a Debian with the initramfs of one initramfs for the first and for the second time.
fn at_home(scene: &Scene, initramfs: Initramfs) -> Result<(), Broken> {
    let distro = scene.distro()?;
    let desk = Desk::set(&scene.lab, &scene.directory.join(initramfs.name()))?;
    let desk = Arc::new(desk);
    let options = |root: &Path, more: &[&str]| {
        let mut append = vec!["systemd.show_status=0"];
        append.extend(TRACE);
        if initramfs == Initramfs::InitramfsTools {
            append.push("preroot.nic=ens3");
        }
        append.extend(more);
        Options {
            initramfs: Some(distro.initramfs(initramfs)),
            root_disk: Some(root.to_owned()),
            disc: Disc::Empty,
            writable: false,
            time_limit: LIMIT,
            ..scene.options(&append)
        }
    };
    let document = desk.written("document.xml", desk.document().build().as_bytes())?;
    let first = Visit::pay(
        &desk,
        Errand::First,
        Options {
            disc: Disc::Made,
            document: Some(document),
            ..options(&distro.disk(), &[])
        },
    )?;
    first.seen.became_ready()?;
    found_at_home(&first)?;
    let ready = first.seen.0.platform.as_ref().and_then(Platform::ready);
    first.publishes_its_name_after(ready)?;
    let pristine = snapshot::take(&scene.lab, &distro.disk())?;
    let after_first = snapshot::take(&scene.lab, &first.seen.0.root_disk)?;
    first.changed_only(
        &pristine,
        &after_first,
        &[&OURS[..], &DEBIANS_FIRST, &DEBIANS].concat(),
    )?;

    let timed = |append: &[&str]| Options {
        emulator: COUNTED.map(str::to_owned).to_vec(),
        ..options(&first.seen.0.root_disk, append)
    };
    let second = Visit::pay(&desk, Errand::Second, timed(&[]))?;
    found_at_home(&second)?;
    second.seen.says("nothing to do")?;
    let said = second.seen.said();
    let waited = said.iter().find(|line| line.contains("waiting for"));
    second.seen.expect(waited.is_none(), || {
        format!("it waited: {}", waited.map_or("", String::as_str))
    })?;
    second.heard_only_after_its_beginning()?;
    second.publishes_its_name_after(second.began)?;
    let after_second = snapshot::take(&scene.lab, &second.seen.0.root_disk)?;
    second.changed_only(&after_first, &after_second, &DEBIANS)?;

    // One boot without it beside one with it is enough to compare.
    let off = if initramfs == Initramfs::DracutSystemd {
        let options = Options {
            stop_at: Some(REAL_INIT.to_owned()),
            ..timed(&["preroot=off"])
        };
        Some(Seen::of(&options)?)
    } else {
        None
    };
    took_no_time(&second, initramfs, off.as_ref())
}

/// Fails unless the system is as it is when nobody was there before it.
fn found_at_home(visit: &Visit) -> Result<(), Broken> {
    visit.only("failed", "units failed", |_| false)?;
    visit.fact("state", "running")?;
    visit.fact("static_hostname", HOST_NAME)?;
    visit.fact("hostname", HOST_NAME)?;
    visit.only("renaming", "the interface could not be renamed", |_| false)?;
    visit.only("link", "networkd has not configured it", |link| {
        let words: Vec<_> = link.split_whitespace().collect();
        matches!(words[..], [_, "lo", ..])
            || matches!(words[..], [_, name, "ether", "routable", "configured"] if !name.starts_with("eth"))
    })?;
    let addresses = visit.words.lines("address").count();
    visit.seen.expect(addresses == 1, || {
        format!("{addresses} addresses, not networkd's one")
    })?;
    visit.only("route", "somebody else's routes", |route| {
        ["proto dhcp", "proto kernel"]
            .iter()
            .any(|of| route.contains(of))
    })?;
    visit.only("process", "left behind", |process| {
        !process.contains("preroot") && !process.contains("(deleted)")
    })?;
    visit.only("mounts", "mounted by somebody else", |mount| {
        let place = mount.split(' ').nth(1).unwrap_or_default();
        MOUNTS_RUN.contains(&place)
            || place.starts_with("/run/credentials/systemd-")
            || MOUNTS.iter().any(|known| {
                place == known.trim_end_matches('/') || known.len() > 1 && place.starts_with(known)
            })
            || place == "/" && mount.starts_with("/dev/vda ")
    })?;
    visit.only("run", "left in /run", |path| RUN.contains(&path))
}

/// Says how long the program held up this boot, and a boot without it beside it, if there was one; fails if
/// that is several times what it may be.
fn took_no_time(second: &Visit, initramfs: Initramfs, off: Option<&Seen>) -> Result<(), Broken> {
    let held = held(&second.words);
    let ran = second.words.fact("processor_ns");
    let ran = ran.and_then(|ns| Some(Duration::from_nanos(ns.parse().ok()?)));
    let (with, without) = (init_begins(&second.seen), off.map(init_begins));
    let (Some(held), Some(ran), Some(with)) = (held, ran, with) else {
        return second.seen.expect(false, || {
            format!("no times: {held:?}, {ran:?}, init at {with:?}")
        });
    };
    // The boot waits for the one while it runs or sleeps, and loses the other where it could run itself.
    let added = held.max(ran);
    let part = added.as_secs_f64() / with.as_secs_f64();
    let is_within = added < BAR || part < BAR_PART;
    progress::line(format_args!(
        "{}: a boot with nothing to do: preroot held it up for {:.1} ms and ran for {:.1} ms of \
         {:.2} s from kernel to init ({:.2} %, bar {} ms or {} %: {}){}",
        initramfs.name(),
        held.as_secs_f64() * 1e3,
        ran.as_secs_f64() * 1e3,
        with.as_secs_f64(),
        part * 1e2,
        BAR.as_millis(),
        BAR_PART * 1e2,
        if is_within { "within" } else { "above" },
        match without.flatten() {
            Some(without) => format!("; with preroot=off {:.2} s", without.as_secs_f64()),
            None => String::new(),
        },
    ));
    let limit = BAR.as_secs_f64().max(BAR_PART * with.as_secs_f64()) * ALLOWANCE;
    second.seen.expect(added.as_secs_f64() < limit, || {
        format!("a boot with nothing to do is held up for {held:?}, and loses {ran:?}")
    })
}

/// Takes from the kernel's trace how long the last run of preroot took: the one that the boot waits for.
///
/// Those that it forks begin no program.
fn held(words: &Words) -> Option<Duration> {
    let events: Vec<_> = words.lines("trace").filter_map(event).collect();
    let (pid, _, begin) = events.iter().rfind(|(_, is_exec, _)| *is_exec)?;
    let exit = events
        .iter()
        .find(|(ended, is_exec, at)| ended == pid && !is_exec && at > begin);
    exit.and_then(|(_, _, end)| end.checked_sub(*begin))
}

/// Reads a line `preroot-173 [000] ..... 13.014479: sched_process_exec: filename=... pid=173 ...`.
fn event(line: &str) -> Option<(&str, bool, Duration)> {
    let (head, tail) = line.split_once(": sched_process_")?;
    let at = head.split_whitespace().next_back()?.parse().ok()?;
    let pid = tail.split(' ').find_map(|word| word.strip_prefix("pid="))?;
    Some((
        pid,
        tail.starts_with("exec"),
        Duration::try_from_secs_f64(at).ok()?,
    ))
}

/// Says how long after the kernel the real init began.
fn init_begins(seen: &Seen) -> Option<Duration> {
    let mut lines = seen.0.console.lines();
    let line = lines.find(|line| line.contains(REAL_INIT))?;
    let stamp = line
        .split_once('[')?
        .1
        .split_once(']')?
        .0
        .trim()
        .parse()
        .ok()?;
    Duration::try_from_secs_f64(stamp).ok()
}
