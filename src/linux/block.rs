//! Block devices: optical drives, and the one that holds the root.
