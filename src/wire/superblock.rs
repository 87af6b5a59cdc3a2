//! File system superblocks: type, UUID and label.
