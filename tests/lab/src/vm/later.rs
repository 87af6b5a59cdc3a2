//! The promise about a report that is left to the running system.

use std::sync::Arc;

use super::guest::Desk;
use super::scene::{Broken, Scene};
use super::snapshot;
use super::visit::{DEBIANS, Errand, LIMIT, Visit};
use crate::boot::{Disc, Options};
use crate::platform::{Platform, Verdict};

/// How a report stands in the journal.
const REPORT: &str = "POST /machine/?comp=health";

pub(super) fn ready_later(scene: &Scene) -> Result<(), Broken> {
    let distro = scene.distro()?;
    let mut desk = Desk::set(&scene.lab, &scene.directory.join("later"))?;
    // The initramfs has shown the host key before it had an address.
    desk.by_name = true;
    let desk = Arc::new(desk);
    let options = || Options {
        root_disk: Some(distro.disk()),
        disc: Disc::Empty,
        writable: false,
        time_limit: LIMIT,
        ..scene.options(&["preroot.ready=later", "systemd.show_status=0"])
    };
    let document = desk.written("document.xml", desk.document().build().as_bytes())?;
    let first = Visit::pay(
        &desk,
        Errand::First,
        Options {
            disc: Disc::Made,
            document: Some(document),
            ..options()
        },
    )?;
    let platform = first.seen.0.platform.as_ref();
    let verdict = platform.map(Platform::verdict);
    first.seen.expect(verdict == Some(Verdict::Ready), || {
        format!("the platform's verdict is {verdict:?}, not Ready")
    })?;
    // Before the report networkd has been here, with the habits of its own.
    let mut complaints = platform.into_iter().flat_map(Platform::complaints);
    let complaint = complaints.find(|complaint| !complaint.starts_with("dhcp: "));
    first.seen.expect(complaint.is_none(), || {
        format!("the platform complains: {complaint:?}")
    })?;
    first.fact("state", "running")?;
    let ready = platform.and_then(Platform::ready);
    first
        .seen
        .expect(first.began.is_some() && ready > first.began, || {
            "the initramfs reported, and not the running system".to_owned()
        })?;
    first.ran_after("preroot-ready.service", "ssh.service")?;
    first.only("run", "still to be reported", |path| {
        !path.ends_with("/ready-later")
    })?;
    first.seen.has_file("/var/lib/preroot/reported", true)?;

    let before = snapshot::take(&scene.lab, &first.seen.0.root_disk)?;
    let second = Visit::pay(
        &desk,
        Errand::Second,
        Options {
            root_disk: Some(first.seen.0.root_disk.clone()),
            ..options()
        },
    )?;
    second.fact("state", "running")?;
    let journal = second.seen.journal();
    let told = journal.iter().find(|line| line.contains(REPORT));
    second.seen.expect(told.is_none(), || {
        "the second boot reports once more".to_owned()
    })?;
    second.heard_only_after_its_beginning()?;
    let after = snapshot::take(&scene.lab, &second.seen.0.root_disk)?;
    second.changed_only(&before, &after, &DEBIANS)
}
