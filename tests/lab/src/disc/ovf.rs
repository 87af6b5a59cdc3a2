//! Writes the provisioning document that the platform puts on the disc as `ovf-env.xml`.
//!
//! The platform's side only: what it writes is well formed and has the elements and the mixture of
//! namespaces of real documents. A test that wants a broken one breaks it.

use std::fmt::Write as _;

/// Is an SSH key of the admin user.
#[derive(Clone, Debug)]
struct Key {
    fingerprint: String,
    path: String,
    value: Option<String>,
}

/// Collects what the document says, then writes it.
#[derive(Clone, Debug)]
pub struct Document {
    host_name: String,
    user_name: String,
    password: Option<String>,
    disable_password: Option<bool>,
    custom_data: Option<String>,
    keys: Vec<Key>,
    guest_agent: bool,
    preprovisioned: Option<String>,
    proxy_agent: bool,
}

impl Document {
    /// Starts a document with a host name and an admin user, and nothing else that is optional.
    pub fn new(host_name: &str, user_name: &str) -> Self {
        Self {
            host_name: host_name.to_owned(),
            user_name: user_name.to_owned(),
            password: None,
            disable_password: None,
            custom_data: None,
            keys: Vec::new(),
            guest_agent: true,
            preprovisioned: None,
            proxy_agent: false,
        }
    }

    /// Adds a public key of the admin user, as it is in `authorized_keys`.
    #[must_use]
    pub fn key(self, value: &str) -> Self {
        let path = format!("/home/{}/.ssh/authorized_keys", self.user_name);
        self.key_at(&path, Some(value))
    }

    /// Adds a public key for this file; without a value it is one that only a certificate has.
    #[must_use]
    pub fn key_at(mut self, path: &str, value: Option<&str>) -> Self {
        let fingerprint = format!("{:040X}", 0x5e1f_a3c2_u32 + self.keys.len() as u32);
        self.keys.push(Key {
            fingerprint,
            path: path.to_owned(),
            value: value.map(Into::into),
        });
        self
    }

    /// Gives the admin user a password, and allows it for SSH unless told otherwise.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Says whether SSH is to refuse passwords; by default it is when there is none.
    #[must_use]
    pub fn disable_password_authentication(mut self, disable: bool) -> Self {
        self.disable_password = Some(disable);
        self
    }

    /// Adds custom data, which the document carries in base64.
    #[must_use]
    pub fn custom_data(mut self, data: &[u8]) -> Self {
        self.custom_data = Some(base64(data));
        self
    }

    /// Says whether the image's agent may run.
    #[must_use]
    pub fn provision_guest_agent(mut self, provision: bool) -> Self {
        self.guest_agent = provision;
        self
    }

    /// Makes the VM one that was started ahead of its customer: `Running`, `Savable`, ...
    #[must_use]
    pub fn preprovisioned(mut self, kind: &str) -> Self {
        self.preprovisioned = Some(kind.to_owned());
        self
    }

    /// Says that the image must have the proxy agent.
    #[must_use]
    pub fn provision_guest_proxy_agent(mut self) -> Self {
        self.proxy_agent = true;
        self
    }

    /// Writes the document.
    pub fn build(&self) -> String {
        let mut set = String::new();
        let out = &mut set;
        element(
            out,
            6,
            "ConfigurationSetType",
            "LinuxProvisioningConfiguration",
        );
        element(out, 6, "HostName", &self.host_name);
        element(out, 6, "UserName", &self.user_name);
        if let Some(password) = &self.password {
            element(out, 6, "UserPassword", password);
        }
        let disable = self.disable_password.unwrap_or(self.password.is_none());
        element(out, 6, "DisableSshPasswordAuthentication", word(disable));
        if let Some(data) = &self.custom_data {
            element(out, 6, "CustomData", data);
        }
        if !self.keys.is_empty() {
            out.push_str("      <SSH>\n        <PublicKeys>\n");
            for key in &self.keys {
                out.push_str("          <PublicKey>\n");
                element(out, 12, "Fingerprint", &key.fingerprint);
                element(out, 12, "Path", &key.path);
                if let Some(value) = &key.value {
                    element(out, 12, "Value", value);
                }
                out.push_str("          </PublicKey>\n");
            }
            out.push_str("        </PublicKeys>\n      </SSH>\n");
        }

        let mut settings = String::new();
        let out = &mut settings;
        element(out, 6, "KmsServerHostname", "kms.core.windows.net");
        element(out, 6, "ProvisionGuestAgent", word(self.guest_agent));
        out.push_str("      <GuestAgentPackageName i:nil=\"true\" />\n");
        element(out, 6, "RetainWindowsPEPassInUnattend", "true");
        element(out, 6, "RetainOfflineServicingPassInUnattend", "true");
        element(
            out,
            6,
            "PreprovisionedVm",
            word(self.preprovisioned.is_some()),
        );
        match &self.preprovisioned {
            Some(kind) => element(out, 6, "PreprovisionedVMType", kind),
            None => out.push_str("      <PreprovisionedVMType i:nil=\"true\" />\n"),
        }
        element(out, 6, "EnableTrustedImageIdentifier", "false");
        element(out, 6, "ProvisionGuestProxyAgent", word(self.proxy_agent));

        format!(
            r#"<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"
             xmlns:oe="http://schemas.dmtf.org/ovf/environment/1"
             xmlns:wa="http://schemas.microsoft.com/windowsazure"
             xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure"
                                       xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
{set}    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <PlatformSettings xmlns="http://schemas.microsoft.com/windowsazure"
                      xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
{settings}    </PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
"#
        )
    }
}

fn word(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// Writes an element with nothing but text, indented by so much.
fn element(out: &mut String, indent: usize, name: &str, text: &str) {
    let _ = writeln!(out, "{:indent$}<{name}>{}</{name}>", "", escape(text));
}

/// Makes text of any letters that XML 1.0 has.
///
/// # Panics
///
/// At a letter that no XML document can have, such as NUL: the platform would refuse it too.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            // "]]>" may not stand in text.
            '>' => out.push_str("&gt;"),
            // A plain one would reach the reader as a line feed.
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(letter),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => panic!("XML cannot carry {letter:?}"),
            _ => out.push(letter),
        }
    }
    out
}

/// RFC 4648 section 4, on one line.
fn base64(data: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in data.chunks(3) {
        let bytes = [0, 1, 2].map(|index| u32::from(*group.get(index).unwrap_or(&0)));
        let bits = bytes[0] << 16 | bytes[1] << 8 | bytes[2];
        for index in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * index) & 63) as usize];
            out.push(if index <= group.len() {
                letter as char
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_vectors_of_its_rfc() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, coded) in vectors {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn password_of_markup_stays_text() {
        let document = Document::new("vm", "ops").password("<a&b>]]>\r").build();
        assert!(document.contains("<UserPassword>&lt;a&amp;b&gt;]]&gt;&#13;</UserPassword>"));
        assert!(document.contains("<DisableSshPasswordAuthentication>false<"));
    }

    #[test]
    fn without_password_ssh_refuses_passwords() {
        let document = Document::new("vm", "ops").key("ssh-ed25519 AAAA x").build();
        assert!(document.contains("<DisableSshPasswordAuthentication>true<"));
        assert!(!document.contains("UserPassword"));
        assert!(document.contains("<Value>ssh-ed25519 AAAA x</Value>"));
    }
}
