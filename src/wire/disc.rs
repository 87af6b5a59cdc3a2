//! The provisioning disc, whichever file system it carries.
