//! XML documents, bounded, and without document types.
//!
//! The reading is `roxmltree`'s. It stands in one place with fixed options, so that the compiler leaves
//! out what these never ask for: the code for entities and document types.

use roxmltree::{Document, ParsingOptions};

/// Most nodes; no document of the platform has a tenth of it.
const MAX_NODES: u32 = 4096;

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Document<'_>, roxmltree::Error> {
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: MAX_NODES,
        entity_resolver: None,
    };
    Document::parse_with_options(text, options)
}
