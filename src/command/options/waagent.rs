//! What a `waagent.conf` says of provisioning, as options of ours. Follows waagent's README.

use super::Options;
use crate::wire::settings;

/// The options of `waagent.conf` that are honoured: with this word, they set an option of ours.
static WAAGENT: [[&str; 4]; 3] = [
    [
        "Provisioning.AllowResetSysUser",
        "y",
        "system-users",
        "allow",
    ],
    [
        "Provisioning.DeleteRootPassword",
        "y",
        "root-password",
        "lock",
    ],
    [
        "Provisioning.RegenerateSshHostKeyPair",
        "n",
        "steps",
        "hostname,user,password,keys,sudo,sshd,customdata,markers",
    ],
];

/// Those that are not, though they are about provisioning, and the value that makes no difference.
/// The others are about what waagent does while it runs.
static WAAGENT_ONLY: [[&str; 2]; 7] = [
    // It would run earlier than there, without a network: whoever wants that says so to us.
    ["Provisioning.ExecuteCustomData", "n"],
    ["Provisioning.PasswordCryptId", "6"],
    ["OS.SshDir", "/etc/ssh"],
    ["OS.HomeDir", "/home"],
    ["OS.PasswordPath", "/etc/shadow"],
    ["OS.SudoersDir", "/etc/sudoers.d"],
    ["Lib.Dir", "/var/lib/waagent"],
];

impl Options {
    /// Takes what a `waagent.conf` says of provisioning; calls `complain` for each option that
    /// somebody may believe to be honoured.
    pub(in crate::command) fn take_waagent(
        &mut self,
        file: &[u8],
        complain: &mut dyn FnMut(&str, &str),
    ) {
        self.settled = self.taken;
        for [theirs, word, name, value] in &WAAGENT {
            if settings::waagent_says(file, theirs, word) {
                // Our own words for our own options: there is nothing wrong with them.
                let _ = self.take(name, Some(value));
            }
        }
        for [theirs, same] in &WAAGENT_ONLY {
            if let Some(value) = settings::waagent(file, theirs)
                && !value.trim_end_matches('/').eq_ignore_ascii_case(same)
            {
                complain(theirs, value);
            }
        }
    }
}
