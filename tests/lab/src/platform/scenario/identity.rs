//! Who the VM is to be, as the disc and the metadata service say it, together or apart.
//!
//! What one of them was not told to say it takes from the other. Nothing here makes or reads a disc's sectors.

use crate::disc::ovf::Document;
use crate::expected::Expected;

use super::Scenario;

/// What the metadata service says of who the VM is to be; `None` is what it was not told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The host name.
    pub computer_name: Option<String>,
    /// The user to create; empty for a specialized image.
    pub user: Option<String>,
    /// The user's public keys.
    pub keys: Option<Vec<String>>,
    /// Whether the user may log in with a password.
    pub password_login: Option<bool>,
    /// Whether the platform says that custom data exists (on the disc).
    pub custom_data: Option<bool>,
    /// The pre-provisioning type; `None` for all that customers create, empty where the field is absent.
    pub pps: Option<String>,
}

impl Identity {
    /// An identity for a platform that was told of no other.
    #[must_use]
    pub fn or_own(&self) -> Self {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f demo@laptop\n";
        self.or(&Self {
            computer_name: Some("demo01".into()),
            user: Some("opsadmin".into()),
            keys: Some(vec![key.into()]),
            password_login: Some(false),
            custom_data: Some(false),
            pps: Some("None".into()),
        })
    }

    /// Fills in what was not told.
    fn or(&self, other: &Self) -> Self {
        let own = self.clone();
        let other = other.clone();
        Self {
            computer_name: own.computer_name.or(other.computer_name),
            user: own.user.or(other.user),
            keys: own.keys.or(other.keys),
            password_login: own.password_login.or(other.password_login),
            custom_data: own.custom_data.or(other.custom_data),
            pps: own.pps.or(other.pps),
        }
    }
}

/// What the disc says where it differs from the usual one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disc {
    /// Whether the drive is empty.
    pub absent: bool,
    /// The host name.
    pub host_name: Option<String>,
    /// The user to create.
    pub user: Option<String>,
    /// The user's public keys.
    pub keys: Option<Vec<String>>,
    /// The user's password.
    pub password: Option<String>,
    /// Whether the user may log in with a password.
    pub password_login: Option<bool>,
    /// Custom data, not in base64.
    pub custom_data: Option<String>,
    /// Whether the image's agent may run.
    pub agent: Option<bool>,
    /// The pre-provisioning type.
    pub pps: Option<String>,
}

impl Disc {
    /// Writes the disc's document, if it differs from the usual one, whose words stand where nothing was told.
    pub fn document(&self, usual: &Expected) -> Option<String> {
        if self.absent || *self == Self::default() {
            return None;
        }
        let host_name = self.host_name.as_ref().unwrap_or(&usual.host_name);
        let user = self.user.as_ref().unwrap_or(&usual.user);
        let mut document =
            Document::new(host_name, user).provision_guest_agent(self.agent.unwrap_or(true));
        for key in self.keys.as_ref().unwrap_or(&usual.keys) {
            document = document.key(key);
        }
        if let Some(password) = &self.password {
            document = document.password(password);
        }
        if let Some(login) = self.password_login {
            document = document.disable_password_authentication(!login);
        }
        if let Some(data) = &self.custom_data {
            document = document.custom_data(data.as_bytes());
        }
        if let Some(kind) = &self.pps {
            document = document.preprovisioned(kind);
        }
        Some(document.build())
    }
}

impl Scenario {
    /// Lets the metadata service say what the disc says, where it was told nothing else.
    ///
    /// Without a disc that anybody knows it then says nothing, as for a specialized image.
    pub fn follow(&mut self, disc: Option<&Expected>) {
        let said = match disc {
            Some(disc) => Identity {
                computer_name: Some(disc.host_name.clone()),
                user: Some(disc.user.clone()),
                keys: Some(disc.keys.clone()),
                password_login: Some(disc.password_login),
                custom_data: Some(disc.custom_data),
                pps: Some(disc.pps.clone().unwrap_or_else(|| "None".into())),
            },
            None => Identity {
                computer_name: Some(String::new()),
                user: Some(String::new()),
                keys: Some(Vec::new()),
                ..Identity::default()
            },
        };
        self.vm.identity = self.vm.identity.or(&said);
    }

    /// Says who the VM must become: what the metadata service says wins over the disc.
    ///
    /// Nothing is promised where neither has a host name, nor where the service cannot be asked and there is no disc.
    pub fn expected(&self, disc: Option<&Expected>) -> Option<Expected> {
        if self.tcp.imds != super::Port::Open {
            return disc.cloned();
        }
        let said = &self.vm.identity;
        let mut expected = disc.cloned().unwrap_or_default();
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if let Some(name) = given(&said.computer_name) {
            expected.host_name = name;
        }
        if let Some(user) = given(&said.user) {
            expected.user = user;
        }
        if let Some(keys) = said.keys.clone().filter(|keys| !keys.is_empty()) {
            // Folded and closed as they may be there, not as they are written in a file.
            let line = |key: &String| key.replace("\r\n", "").trim().to_owned();
            expected.keys = keys.iter().map(line).collect();
        }
        (!expected.host_name.is_empty() && !expected.user.is_empty()).then_some(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn usual() -> Expected {
        Expected {
            host_name: "on-disc".into(),
            user: "discadmin".into(),
            keys: vec!["ssh-ed25519 AAAA disc".into()],
            ..Expected::default()
        }
    }

    #[test]
    fn service_says_what_the_disc_says_unless_it_was_told_otherwise() {
        let mut scenario = Scenario::parse("vm.user = other").unwrap();
        scenario.follow(Some(&usual()));
        let said = &scenario.vm.identity;
        assert_eq!(said.user.as_deref(), Some("other"));
        assert_eq!(said.computer_name.as_deref(), Some("on-disc"));
        assert_eq!(said.pps.as_deref(), Some("None"));
        let expected = scenario.expected(Some(&usual())).unwrap();
        assert_eq!(
            (expected.user, expected.host_name),
            ("other".into(), "on-disc".into())
        );
    }

    #[test]
    fn without_a_disc_nothing_is_said_that_was_not_told() {
        let mut scenario = Scenario::default();
        scenario.follow(None);
        assert_eq!(scenario.vm.identity.user.as_deref(), Some(""));
        assert_eq!(scenario.expected(None), None);
        let mut only = Scenario::named("imds-only").unwrap();
        only.follow(None);
        let expected = only.expected(None).unwrap();
        assert_eq!(expected.host_name, "vm-imds01");
        assert_eq!(expected.keys.len(), 1);
    }

    #[test]
    fn disc_differs_only_in_what_it_was_told() {
        assert_eq!(Scenario::default().disc.document(&usual()), None);
        let scenario = Scenario::parse(
            "disc.user = alice\ndisc.password = p\ndisc.custom_data = a\\nb\ndisc.pps = Running",
        )
        .unwrap();
        let text = scenario.disc.document(&usual()).unwrap();
        let read = Expected::parse(&text, Path::new("x")).unwrap();
        assert_eq!(read.user, "alice");
        assert_eq!(read.host_name, "on-disc");
        assert_eq!(read.keys, usual().keys);
        assert!(read.password_login && read.custom_data);
        assert_eq!(read.pps.as_deref(), Some("Running"));
        // RFC 4648 of "a", a line feed, "b".
        assert!(text.contains("<CustomData>YQpi</CustomData>"));
    }
}
