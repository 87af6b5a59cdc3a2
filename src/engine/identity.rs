//! What the platform says the VM shall be, checked and free of contradictions.
//!
//! Made from the provisioning disc and the instance metadata service. Where both speak, the service
//! wins, as with cloud-init: it knows what was changed since the disc was written. Only the disc has a
//! password and custom data. Nothing here knows the installed system.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::wire::imds::Metadata;
use crate::wire::names::{HostName, NameFault, UserName, shown};
use crate::wire::ovf::{CustomData, ListedKey, Password, Preprovisioned, Provisioning};
use crate::wire::sshkey::{KeyFault, PublicKey, push_unique};

/// Longest password, in bytes: what bcrypt and with it many PAM stacks look at.
pub const PASSWORD_MAX: usize = 72;

/// Longest piece of a refused name that is repeated in a message.
const SHOWN: usize = 64;

/// Says why a listed key will not be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not a key that sshd would take.
    Key(KeyFault),
    /// It is only the fingerprint of a certificate that the disc does not carry.
    FingerprintOnly,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(fault) => fault.fmt(f),
            Self::FingerprintOnly => f.write_str("there is only a fingerprint, not the key"),
        }
    }
}

/// Public keys for the administrator, each once, and those that were refused.
pub struct Keys {
    /// The keys to install.
    pub accepted: Vec<PublicKey>,
    /// The refused ones by their position in the list, counted from 1.
    pub refused: Vec<(usize, Refusal)>,
}

impl Keys {
    /// Cleans a list of keys, keeps the good ones and remembers the rest.
    // Out of line, as others here: in its one caller it makes every access to a large frame longer.
    #[inline(never)]
    fn collect(list: &[ListedKey]) -> Self {
        let mut keys = Self {
            accepted: Vec::new(),
            refused: Vec::new(),
        };
        for (position, listed) in (1..).zip(list) {
            match listed {
                ListedKey::Fingerprint(_) => {
                    keys.refused.push((position, Refusal::FingerprintOnly));
                }
                ListedKey::Value(text) => match PublicKey::parse(text) {
                    Ok(key) => {
                        push_unique(&mut keys.accepted, key);
                    }
                    Err(fault) => keys.refused.push((position, Refusal::Key(fault))),
                },
            }
        }
        keys
    }
}

/// Everything the platform says about this VM.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the platform says yes or no to each"
)]
pub struct Identity {
    /// The host name.
    pub host_name: HostName,
    /// The administrator's name; an image may bring its own users and need none.
    pub admin: Option<UserName>,
    /// The administrator's keys.
    pub keys: Keys,
    /// The administrator's password; only the disc carries one.
    pub password: Password,
    /// Whether sshd shall accept passwords.
    pub password_authentication: bool,
    /// Custom data, still encoded.
    pub custom_data: Option<CustomData>,
    /// Whether the platform has custom data for this machine that nobody gave us.
    pub custom_data_missing: bool,
    /// Whether waagent, when it is in the image, shall run.
    pub guest_agent: bool,
    /// Whether the host wants to be spoken to through the guest proxy agent.
    pub guest_proxy_agent: bool,
}

/// Says which datum cannot be used, and why.
#[derive(Clone, PartialEq, Eq)]
pub enum IdentityFault {
    /// The host name is not one.
    HostName(Box<str>, NameFault),
    /// The administrator's name is not one.
    UserName(Box<str>, NameFault),
    /// The password is longer than what is safe to set.
    PasswordLength(usize),
    /// The password has a character that no one can type or no file can hold.
    PasswordCharacter,
    /// All of this is the placeholder of a machine of a pool.
    Preprovisioned(Preprovisioned),
}

/// Shows the start of a refused name, fit for a log line.
fn shown_name(name: &str) -> Box<str> {
    shown(name, SHOWN, |c| !c.is_control())
}

impl fmt::Display for IdentityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostName(shown, fault) => {
                write!(f, "unsupported host name '{shown}': {fault}")
            }
            Self::UserName(shown, fault) => {
                write!(f, "unsupported user name '{shown}': {fault}")
            }
            Self::PasswordLength(length) => {
                write!(f, "unsupported password length={length} max={PASSWORD_MAX}")
            }
            Self::Preprovisioned(kind) => {
                write!(f, "unsupported pre-provisioned VM type={}", kind.as_str())
            }
            Self::PasswordCharacter => f.write_str("unsupported password: it has a NUL or newline"),
        }
    }
}

impl fmt::Debug for IdentityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Identity {
    /// Lays together what the disc and the metadata service say, and checks it.
    #[inline(never)]
    pub fn new(
        disc: Option<Provisioning>,
        metadata: Option<Metadata>,
    ) -> Result<Self, IdentityFault> {
        let metadata = metadata.unwrap_or_default();
        let mut disc = disc.unwrap_or_default();
        let pool = disc.preprovisioned.max(metadata.preprovisioned);
        if pool != Preprovisioned::No {
            return Err(IdentityFault::Preprovisioned(pool));
        }
        if let Some(name) = metadata.computer_name {
            disc.host_name = String::from(name);
        }
        let host_name = match HostName::new(&disc.host_name) {
            Ok(name) => name,
            Err(fault) => return Err(IdentityFault::HostName(shown_name(&disc.host_name), fault)),
        };
        let admin = match metadata
            .admin_user_name
            .or(disc.user_name.map(String::into_boxed_str))
        {
            None => None,
            Some(name) => match UserName::new(&name) {
                Ok(name) => Some(name),
                Err(fault) => return Err(IdentityFault::UserName(shown_name(&name), fault)),
            },
        };
        if let Password::Given(secret) = &disc.password {
            if secret.len() > PASSWORD_MAX {
                return Err(IdentityFault::PasswordLength(secret.len()));
            }
            let is_bad = |byte: &u8| matches!(byte, 0 | b'\n' | b'\r');
            if secret.expose().iter().any(is_bad) {
                return Err(IdentityFault::PasswordCharacter);
            }
        }
        // A document that does not say leaves passwords on only where it gives one, as cloud-init reads it.
        let disable = metadata
            .disable_password_authentication
            .or(disc.disable_password_authentication);
        let password_authentication = match disable {
            Some(disable) => !disable,
            None => !matches!(disc.password, Password::None),
        };
        // One that is no key makes cloud-init doubt the whole list; the disc's is the same, or better.
        let mut keys = Keys::collect(&metadata.public_keys);
        if keys.accepted.is_empty() || !(keys.refused.is_empty() || disc.public_keys.is_empty()) {
            let more = Keys::collect(&disc.public_keys);
            if !more.accepted.is_empty() || keys.refused.is_empty() {
                keys = more;
            }
        }
        Ok(Self {
            host_name,
            admin,
            keys,
            password: disc.password,
            password_authentication,
            custom_data_missing: metadata.has_custom_data && disc.custom_data.is_none(),
            custom_data: disc.custom_data.or(metadata.user_data),
            guest_agent: disc.guest_agent,
            guest_proxy_agent: disc.guest_proxy_agent,
        })
    }

    /// Tells whether somebody gets into the machine with what is given: a key or a password.
    pub fn has_credentials(&self) -> bool {
        !self.keys.accepted.is_empty() || matches!(self.password, Password::Given(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;
    use crate::wire::{imds, ovf};
    use std::path::PathBuf;
    use std::string::ToString as _;
    use std::{format, fs};

    fn document(name: &str) -> Vec<u8> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/identity");
        fs::read(folder.join(name)).unwrap()
    }

    /// Tells all that a log could tell of these documents.
    fn told(disc: &[u8], metadata: &[u8]) -> String {
        let disc = match ovf::parse(disc) {
            Ok(disc) => disc,
            Err(fault) => return fault.to_string(),
        };
        match Identity::new(Some(disc), imds::parse(metadata).ok()) {
            Ok(identity) => {
                if let Some(data) = &identity.custom_data {
                    data.decode();
                }
                let name = identity.host_name;
                format!("{name} {:?} {:?}", identity.admin, identity.keys.refused)
            }
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn mutated_documents_never_panic() {
        let seeds = ["everything", "prefixes-of-a-rewritten-copy", "cdata"]
            .map(|name| document(&format!("{name}.xml")));
        let metadata = document("both-names-and-keys-are-of-imds.json");
        let mut random = Random::new();
        for round in 0..4_000 {
            let metadata = random.damage(&metadata);
            told(&random.damage(&seeds[round % seeds.len()]), &metadata);
        }
    }

    #[test]
    fn nothing_that_is_told_repeats_the_password() {
        let seed = document("everything.xml");
        let mut random = Random::new();
        let mut refused = 0;
        for _ in 0..4_000 {
            let damaged = random.damage(&seed);
            let told = told(&damaged, b"");
            refused += u32::from(!told.starts_with("vm-demo01"));
            assert!(!told.contains("Not-A-Real"), "{told}");
        }
        assert!(refused > 1_000, "{refused}");
    }
}
