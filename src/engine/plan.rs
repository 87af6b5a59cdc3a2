//! The list of changes that makes an installed system what its identity says.
