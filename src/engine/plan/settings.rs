//! How the work is done, where whoever made the image or the machine may choose.
//!
//! Not which parts of it are done: those are [`Steps`](super::Steps).

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Settings {
    /// How the administrator becomes root.
    pub sudo: Sudo,
    /// Whether the administrator may be a user that belongs to the system.
    pub system_users: bool,
    /// Whether root's password is locked.
    pub lock_root: bool,
    /// Whether custom data is run as a program.
    pub run_custom_data: bool,
    /// Whether cloud-init, when it is in the root, is left to act on custom data.
    pub cloud_init: bool,
}

impl Settings {
    /// What holds where nobody chose.
    pub const DEFAULT: Self = Self {
        sudo: Sudo::Auto,
        system_users: false,
        lock_root: false,
        run_custom_data: false,
        cloud_init: false,
    };
}

/// How the administrator becomes root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sudo {
    /// With the password where there is one, else without.
    Auto,
    /// Without a password.
    WithoutPassword,
    /// With the password.
    WithPassword,
    /// Not at all, as far as it is up to us.
    Never,
}
