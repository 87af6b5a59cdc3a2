//! Kernel uevents.
