//! Mounts, and the switch to the real root.
