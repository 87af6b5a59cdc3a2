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
    /// Whether all of this is a pool machine's placeholder, to be applied to nothing.
    pub preprovisioned: Preprovisioned,
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
        let custom_data = disc.custom_data.or(metadata.user_data);
        let preprovisioned = match disc.preprovisioned {
            Preprovisioned::No => metadata.preprovisioned,
            kind => kind,
        };
        Ok(Self {
            host_name,
            admin,
            keys,
            password: disc.password,
            password_authentication,
            custom_data_missing: metadata.has_custom_data && custom_data.is_none(),
            custom_data,
            guest_agent: disc.guest_agent,
            guest_proxy_agent: disc.guest_proxy_agent,
            preprovisioned,
        })
    }

    /// Tells whether somebody gets into the machine with what is given: a key or a password.
    pub fn has_credentials(&self) -> bool {
        !self.keys.accepted.is_empty() || !matches!(self.password, Password::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ovf;
    use crate::wire::sshkey::tests::Mutator;
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::PathBuf;
    use std::string::{String, ToString as _};
    use std::{format, fs};

    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/ovf")
    }

    /// Tells what the document makes of the machine, in the form of the `.expect` files.
    fn told(document: &[u8]) -> String {
        let identity = match ovf::parse(document).map_err(|fault| fault.to_string()) {
            Ok(disc) => Identity::new(Some(disc), None).map_err(|fault| fault.to_string()),
            Err(fault) => Err(fault),
        };
        let identity = match identity {
            Ok(identity) => identity,
            Err(fault) => return format!("fault={fault}\n"),
        };
        let yes = |flag| if flag { "yes" } else { "no" };
        let mut out = String::new();
        let mut line = |name: &str, value: &str| writeln!(out, "{name}={value}").unwrap();
        line("host", identity.host_name.as_str());
        if let Some(admin) = &identity.admin {
            line("user", admin.as_str());
        }
        match &identity.password {
            Password::None => line("password", "none"),
            Password::Redacted => line("password", "redacted"),
            Password::Given(secret) => {
                let escaped = secret.expose_text().escape_default().to_string();
                line("password", &escaped);
            }
        }
        line("ssh-password", yes(identity.password_authentication));
        for key in &identity.keys.accepted {
            line("key", key.line());
        }
        for (position, refusal) in &identity.keys.refused {
            line("refused", &format!("{position} {refusal}"));
        }
        if let Some(data) = &identity.custom_data {
            let text = match data.decode() {
                Some(bytes) => bytes.expose().escape_ascii().to_string(),
                None => "<undecodable>".into(),
            };
            line("custom-data", &text);
        }
        line("guest-agent", yes(identity.guest_agent));
        line("guest-proxy-agent", yes(identity.guest_proxy_agent));
        line("preprovisioned", identity.preprovisioned.as_str());
        out
    }

    #[test]
    fn each_document_in_the_folder_gives_the_identity_beside_it() {
        let mut stems = BTreeSet::new();
        for entry in fs::read_dir(folder()).unwrap() {
            stems.insert(entry.unwrap().path().with_extension(""));
        }
        assert!(stems.len() >= 25, "{} cases", stems.len());
        let mut wrong = String::new();
        for stem in stems {
            let document = fs::read(stem.with_extension("xml")).unwrap();
            let expected = fs::read_to_string(stem.with_extension("expect")).unwrap();
            let told = told(&document);
            if told != expected {
                let name = stem.file_name().unwrap().to_string_lossy();
                write!(wrong, "\n{name}: expected\n{expected}but was\n{told}").unwrap();
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }

    #[test]
    fn mutated_documents_never_panic() {
        let seeds: std::vec::Vec<_> = ["everything", "prefixes-of-a-rewritten-copy", "cdata"]
            .iter()
            .map(|name| fs::read(folder().join(name).with_extension("xml")).unwrap())
            .collect();
        let mut mutator = Mutator::new();
        for round in 0..4_000 {
            told(&mutator.damage(&seeds[round % seeds.len()]));
        }
    }

    #[test]
    fn no_fault_repeats_the_password() {
        let seed = fs::read(folder().join("everything.xml")).unwrap();
        let mut mutator = Mutator::new();
        for _ in 0..4_000 {
            let told = told(&mutator.damage(&seed));
            assert!(
                !told.starts_with("fault=") || !told.contains("Not-A-Real"),
                "{told}"
            );
        }
    }
}
