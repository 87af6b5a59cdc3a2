//! A value that is wiped and never printed.
