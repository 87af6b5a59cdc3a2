//! The files with custom data: ours, and waagent's where waagent is in the root.
//!
//! Kept for whoever wants it. Nothing here runs it: a plan only says that it is to be run, where somebody
//! asked for that, and that it was.

use super::draft::{Draft, content};
use super::{Note, Outcome, Output, markers};
use crate::wire::{accounts, settings};

/// Where decoded custom data is kept.
pub const CUSTOM_DATA: &str = "/var/lib/preroot/custom-data";
/// The id of the VM whose custom data was run.
const RUN: &str = "/var/lib/preroot/custom-data.run";
/// Where waagent keeps it.
const WAAGENT: &str = "/var/lib/waagent/CustomData";

#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>) -> Outcome<()> {
    if draft.identity.custom_data_missing {
        draft.note(Note::CustomDataMissing);
    }
    let Some(data) = &draft.identity.custom_data else {
        return forget(draft);
    };
    let Some(decoded) = data.decode() else {
        draft.note(Note::CustomDataNotBase64);
        return forget(draft);
    };
    let vm_id = draft.context.vm_id;
    let mut wanted = draft.context.settings.run_custom_data;
    if wanted && draft.context.output != Output::Files {
        draft.note(Note::CustomDataNotRun);
        wanted = false;
    }
    let is_script = decoded.expose().starts_with(b"#!");
    let mode = if wanted && is_script { 0o700 } else { 0o600 };
    markers::directory(draft)?;
    if markers::has_waagent(draft)? {
        let conf = draft.read_or_empty("/etc/waagent.conf")?;
        let plain = settings::waagent_says(&conf, "Provisioning.DecodeCustomData", "y");
        let copy = if plain { &decoded } else { data.written() };
        let copy = accounts::File::new(copy.expose().to_vec());
        draft.system_directory("/var/lib/waagent", 0o700, "state of waagent")?;
        draft.write_system(
            WAAGENT,
            0o600,
            copy,
            format_args!("custom data for waagent"),
        )?;
    }
    let purpose = format_args!("custom data");
    draft.write_system(CUSTOM_DATA, mode, decoded.into_bytes(), purpose)?;
    if wanted && !is_script {
        draft.note(Note::CustomDataNoScript);
    } else if wanted {
        // Written before it is run: what fails half-way is not tried a second time.
        let before = draft.read_or_empty(RUN)?;
        if before.trim_ascii() != vm_id.as_bytes() {
            draft.run_custom_data();
            let purpose = format_args!("custom data is run for VM {vm_id}, once");
            draft.write_system(RUN, 0o600, content(format_args!("{vm_id}\n")), purpose)?;
        }
    }
    Ok(())
}

/// Removes the custom data of another VM, which nobody may take for this one's.
fn forget(draft: &mut Draft<'_>) -> Outcome<()> {
    if markers::is_anothers(draft)? {
        for path in [CUSTOM_DATA, WAAGENT] {
            if draft.has(path)? {
                draft.remove(path, "custom data of another VM");
            }
        }
    }
    Ok(())
}
