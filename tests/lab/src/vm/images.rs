//! Promises about whole disks: what `cargo lab boot --disk` tells of images with real agents, ours among them.

use std::time::Duration;

use super::scene::{Broken, Scene};
use crate::image::{self, Agent};
use crate::platform::Platform;
use crate::whole::timeline::Stage;
use crate::whole::{self, Ending, Options, Outcome};

/// An emulated machine beside others; a whole system with an agent in Python takes a minute alone.
const LIMIT: Duration = Duration::from_mins(6);

/// Nobody wants to read the logs of these.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) fn with_cloud_init(scene: &Scene) -> Result<(), Broken> {
    provisioned(scene, Agent::CloudInit, "Cloud-Init/").map(drop)
}

pub(super) fn with_waagent(scene: &Scene) -> Result<(), Broken> {
    provisioned(scene, Agent::Waagent, "WALinuxAgent/").map(drop)
}

pub(super) fn with_preroot(scene: &Scene) -> Result<(), Broken> {
    let outcome = provisioned(scene, Agent::Preroot, "preroot/")?;
    let (ready, prompt) = (
        outcome.timeline.at(Stage::Ready),
        outcome.timeline.at(Stage::LoginPrompt),
    );
    let is_before = ready
        .zip(prompt)
        .is_some_and(|(ready, prompt)| ready < prompt);
    expect(&outcome, is_before, || {
        format!("Ready after {ready:?}, the real init's prompt after {prompt:?}")
    })
}

/// Boots an image; fails unless Azure would call it provisioned, and the timeline tells how it came to that.
fn provisioned(scene: &Scene, agent: Agent, name: &str) -> Result<Outcome, Broken> {
    let image = image::make(&scene.lab, agent, image::Firmware::Bios)?;
    let outcome = whole::run(&Options {
        time_limit: LIMIT,
        settle: SETTLE,
        ..Options::new(image)
    })?;
    let judgement = &outcome.judgement;
    expect(&outcome, judgement.is_provisioned(), || {
        judgement.to_string()
    })?;
    let stages = [
        Stage::PowerOn,
        Stage::Kernel,
        Stage::Lease,
        Stage::GoalState,
        Stage::Ready,
    ];
    let times = stages.map(|stage| outcome.timeline.at(stage));
    let is_whole = times.iter().all(Option::is_some) && times.is_sorted();
    expect(&outcome, is_whole, || {
        format!("the stages {stages:?} were reached at {times:?}")
    })?;
    let agents: Vec<_> = outcome.rows().into_iter().map(|row| row.who).collect();
    expect(
        &outcome,
        agents.iter().any(|who| who.starts_with(name)),
        || format!("{name} was not heard, but {agents:?}"),
    )?;
    let ended = (outcome.ending, outcome.forced);
    expect(&outcome, ended == (Some(Ending::Done), false), || {
        format!("the machine did not end by its power button: {ended:?}")
    })?;
    Ok(outcome)
}

fn expect(outcome: &Outcome, holds: bool, why: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds {
        return Ok(());
    }
    let journal = outcome.platform.iter().flat_map(Platform::journal);
    let journal: Vec<_> = journal.map(ToString::to_string).collect();
    Err(Broken::new(why(), &outcome.console, &journal))
}
