//! Promises about a platform that is late, busy, forgetful or not there.

use super::scene::{Broken, Scene, Seen};
use crate::boot::{Disc, Options};

/// A short budget, so that to wait for its end takes no longer than it must.
const SHORT: &str = "preroot.timeout=20";

/// What is said where the platform could be told nothing.
const UNREPORTED: &str = "failed: failure to report to the WireServer";

pub(super) fn dhcp_never(scene: &Scene) -> Result<(), Broken> {
    let seen = scene.boot_on("dhcp.answer = no", &[SHORT])?;
    unheard(&seen, "failed: failure to obtain DHCP lease")
}

pub(super) fn wireserver_never(scene: &Scene) -> Result<(), Broken> {
    let seen = scene.boot_on("tcp.wireserver = silent", &[SHORT])?;
    seen.says("dhcp ok")?;
    unheard(&seen, UNREPORTED)
}

/// Nobody was told anything, but the machine has its identity, and the next boot knows what is left.
fn unheard(seen: &Seen, failure: &str) -> Result<(), Broken> {
    seen.went_on()?;
    // While it waits it says so, and at the end it says what for.
    seen.says("waiting for")?;
    seen.says(failure)?;
    seen.untold()?;
    seen.fact("hostname", "vm-desk01")?;
    seen.has_file("/var/lib/preroot/configured", true)?;
    seen.has_file("/var/lib/preroot/reported", false)
}

pub(super) fn wireserver_410_then_200(scene: &Scene) -> Result<(), Broken> {
    let seen = scene.boot_on("goalstate.answers = 410, ok\nhealth.answers = 410, ok", &[])?;
    seen.passed()?;
    answered(&seen, " 410", 2)
}

pub(super) fn wireserver_503_five_times(scene: &Scene) -> Result<(), Broken> {
    let seen = scene.boot_on("goalstate.answers = 503*5, ok", &[])?;
    seen.passed()?;
    seen.says("503")?;
    answered(&seen, " 503", 5)
}

pub(super) fn lost_ready_is_repeated(scene: &Scene) -> Result<(), Broken> {
    let seen = scene.boot_on("health.answers = hangup, ok", &[])?;
    seen.passed()?;
    answered(&seen, "POST /machine/?comp=health", 2)
}

pub(super) fn lost_ready_is_repeated_by_the_next_boot(scene: &Scene) -> Result<(), Broken> {
    let first = scene.boot_on(
        "health.answers = never\njsonhealth.answers = never",
        &["preroot.timeout=12"],
    )?;
    first.went_on()?;
    first.says(UNREPORTED)?;
    first.has_file("/var/lib/preroot/configured", true)?;
    first.has_file("/var/lib/preroot/reported", false)?;
    // The platform takes the disc away when it likes to.
    let second = Seen::of(&Options {
        root_disk: Some(first.0.root_disk.clone()),
        disc: Disc::Empty,
        ..scene.options(&[])
    })?;
    second.went_on()?;
    second.says("only the report is missing")?;
    second.ready()?;
    second.has_file("/var/lib/preroot/reported", true)?;
    second.same_files(scene, &*scene.usual()?)
}

/// Fails unless so many lines of the journal hold this text.
fn answered(seen: &Seen, text: &str, times: usize) -> Result<(), Broken> {
    let journal = seen.journal();
    let found = journal.iter().filter(|line| line.contains(text)).count();
    seen.expect(found == times, || {
        format!("`{text}` stands {found} times in the journal, not {times} times")
    })
}
