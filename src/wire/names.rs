//! Host names and user names.
