//! One file per command.

#![forbid(unsafe_code)]
