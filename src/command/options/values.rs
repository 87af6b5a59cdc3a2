//! What the options have for values.

use alloc::string::String;
use core::fmt;

use crate::wire::mac;

/// By what an interface is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::command) enum Nic {
    /// Its name, which may change while the machine boots.
    Name(String),
    /// Its hardware address, which a virtual function may have as well.
    Address([u8; 6]),
}

impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nic::Name(name) => f.write_str(name),
            Nic::Address(address) => mac::Shown(*address).fmt(f),
        }
    }
}

/// Which platform the caller believes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum Platform {
    /// The firmware decides.
    Auto,
    /// It is Azure.
    Azure,
}

/// Who reads the provisioning disc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum DiscReader {
    /// Our own reader, and the kernel's if that fails.
    Auto,
    /// Only our own.
    Own,
    /// Only the kernel's.
    Kernel,
}

/// When the platform is told that the machine is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum Ready {
    /// After the root is written and synced.
    Rooted,
    /// As soon as the network is there.
    Early,
    /// Not by this run: the marker for it is left undone.
    Later,
    /// Not at all.
    Never,
}

/// What becomes of the interface when the work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum Network {
    /// It is kept where nobody in the root will configure it.
    Auto,
    /// It goes back down, as it came.
    Release,
    /// It keeps its address and routes.
    Keep,
}

/// Who makes the changes in the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum Output {
    /// Its own systemd where it takes no writes, if that can; else we do.
    Auto,
    /// We do.
    Files,
    /// Its own systemd.
    Credentials,
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum LogTo {
    /// A terminal if there is one, else the kernel's log.
    Auto,
    /// The kernel's log.
    Kmsg,
    /// Standard error.
    Stderr,
}

/// What `init` does without a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum OnFail {
    /// Restart the machine after a while: the next boot may find what this one missed.
    Reboot,
    /// Switch the machine off.
    PowerOff,
    /// Run `/bin/sh` of the initramfs, where somebody put one.
    Shell,
}

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::command) enum Task {
    /// Everything.
    Provision,
    /// Everything, as soon as somebody says that the root is there.
    Prefetch,
    /// Telling the platform that the machine is ready.
    Ready,
    /// Telling the platform that it does not come up.
    Failed,
}

impl Task {
    /// Tells whether nothing is to be done but a report.
    pub(in crate::command) fn reports_only(self) -> bool {
        matches!(self, Task::Ready | Task::Failed)
    }
}
