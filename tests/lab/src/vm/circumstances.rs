//! Promises about machines where there is nothing to do.

use super::scene::{Broken, Scene, Seen};
use crate::boot::Options;

pub(super) fn not_azure(scene: &Scene) -> Result<(), Broken> {
    nothing_done(
        scene,
        &Options {
            // The last one counts.
            emulator: vec![
                "-smbios".to_owned(),
                "type=3,manufacturer=Desk,asset=none".to_owned(),
            ],
            ..scene.options(&[])
        },
    )
}

pub(super) fn off_switch(scene: &Scene) -> Result<(), Broken> {
    nothing_done(scene, &scene.options(&["preroot=off"]))
}

/// The root is found and the real init runs; nobody looks at the disc or speaks to the network.
fn nothing_done(scene: &Scene, options: &Options) -> Result<(), Broken> {
    let seen = Seen::of(options)?;
    seen.went_on()?;
    seen.silent()?;
    seen.untold()?;
    seen.untouched_files(scene)?;
    seen.has_file("/var/lib/preroot/report.json", false)?;
    let files: Vec<_> = seen.0.words.lines("files").collect();
    seen.expect(files.is_empty(), || {
        format!("written: {}", files.join(", "))
    })
}
