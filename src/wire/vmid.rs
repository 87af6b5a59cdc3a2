//! The VM id.
