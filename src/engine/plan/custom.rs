//! The file with custom data.
//!
//! Kept for whoever wants it; nothing here runs it.

use super::draft::Draft;
use super::{Note, Outcome};

/// Where decoded custom data is kept.
const PATH: &str = "/var/lib/preroot/custom-data";

pub(super) fn add(draft: &mut Draft<'_>) -> Outcome<()> {
    if draft.identity.custom_data_missing {
        draft.note(Note::CustomDataMissing);
    }
    let Some(data) = &draft.identity.custom_data else {
        return Ok(());
    };
    let Some(decoded) = data.decode() else {
        draft.note(Note::CustomDataNotBase64);
        return Ok(());
    };
    super::markers::directory(draft)?;
    draft.write_system(
        PATH,
        0o600,
        decoded.into_bytes(),
        format_args!("custom data"),
    )
}
