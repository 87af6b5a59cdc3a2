//! What a boot must have made of a machine, read from the document on its provisioning disc.
//!
//! It reads documents that the lab trusts; how a hostile one is read is the product's affair, and
//! none of the product's code is used here, so that both cannot be wrong in the same way.

use std::path::Path;

use base64ct::{Base64, Base64Unpadded, Encoding as _};
use sha2::{Digest as _, Sha256};

use crate::fault::Fault;

/// The identity that a machine shall have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The host name.
    pub host_name: String,
    /// The user to create; empty if there is none.
    pub user: String,
    /// The user's public keys, as they are written in a file.
    pub keys: Vec<String>,
    /// Whether the user may log in with a password.
    pub password_login: bool,
    /// Whether there is custom data.
    pub custom_data: bool,
    /// The type of a VM that was started ahead of its customer.
    pub pps: Option<String>,
}

impl Expected {
    /// Reads the document; `path` is named if it cannot be read.
    pub fn parse(document: &str, path: &Path) -> Result<Self, Fault> {
        let wrong = |why: String| Fault::Content {
            path: path.to_owned(),
            why,
        };
        let xml = roxmltree::Document::parse(document.trim_start_matches('\u{feff}'))
            .map_err(|error| wrong(format!("not XML: {error}")))?;
        let texts = |name: &str| {
            let nodes = xml
                .descendants()
                .filter(move |node| node.tag_name().name() == name);
            let text =
                |node: roxmltree::Node<'_, '_>| node.text().unwrap_or_default().trim().to_owned();
            nodes.map(text).collect::<Vec<_>>()
        };
        let host_name = texts("HostName").pop();
        let set = |name: &str| texts(name).pop().filter(|text| !text.is_empty());
        let disabled = set("DisableSshPasswordAuthentication");
        let pooled = set("PreprovisionedVm").filter(|text| text.eq_ignore_ascii_case("true"));
        Ok(Self {
            password_login: disabled.map_or(set("UserPassword").is_some(), |text| {
                !text.eq_ignore_ascii_case("true")
            }),
            custom_data: set("CustomData").is_some(),
            pps: set("PreprovisionedVMType").or(pooled.map(|_| "Running".to_owned())),
            host_name: host_name.ok_or_else(|| wrong("no HostName in it".to_owned()))?,
            user: texts("UserName").pop().unwrap_or_default(),
            keys: texts("Value"),
        })
    }

    /// Gives the fingerprints of the keys, as `ssh-keygen -lf` shows them.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys
            .iter()
            .filter_map(|key| fingerprint(key))
            .collect()
    }
}

/// Computes the fingerprint of a public key from the line that it is written in.
fn fingerprint(key: &str) -> Option<String> {
    let blob = Base64::decode_vec(key.split_whitespace().nth(1)?).ok()?;
    Some(format!(
        "SHA256:{}",
        Base64Unpadded::encode_string(&Sha256::digest(blob))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = include_str!("../data/ovf-env.xml");

    #[test]
    fn own_document_names_host_user_and_key() {
        let expected = Expected::parse(OWN, Path::new("x")).unwrap();
        assert_eq!(expected.host_name, "vm-desk01");
        assert_eq!(expected.user, "deskadmin");
        assert!(!expected.password_login && expected.custom_data);
        assert_eq!(expected.pps, None);
        // As `ssh-keygen -lf` of OpenSSH 9.2 printed it for this key.
        assert_eq!(
            expected.fingerprints(),
            ["SHA256:S27PnUB9LnhPECQ+8xAZxrEc5C17vDKJd6XQSrol3p4"]
        );
    }

    #[test]
    fn document_without_a_host_name_is_refused() {
        let fault = Expected::parse("<Environment/>", Path::new("x.xml"))
            .unwrap_err()
            .to_string();
        assert_eq!(fault, "x.xml: no HostName in it");
    }

    #[test]
    fn text_that_is_no_xml_is_refused() {
        let fault = Expected::parse("HostName=x", Path::new("x.xml"))
            .unwrap_err()
            .to_string();
        assert!(fault.starts_with("x.xml: not XML"), "{fault}");
    }

    #[test]
    fn line_without_a_key_has_no_fingerprint() {
        assert_eq!(fingerprint("ssh-ed25519"), None);
        assert_eq!(fingerprint("ssh-ed25519 !!!! demo"), None);
    }
}
