//! Files below a root.
