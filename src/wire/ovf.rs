//! The provisioning document `ovf-env.xml`.
//!
//! Reads what the platform says into plain fields; whether a name or a key is any good is decided where
//! the identity is made. Elements are matched by namespace URI and local name, as the prefixes vary from
//! copy to copy. What it says of a bad document is cloud-init's wording, which
//! support tooling knows.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use roxmltree::Node;
use zeroize::Zeroizing;

use super::base64;
use super::secret::Secret;
use super::xml;

/// Largest document; custom and user data at their limit make 180 KiB.
///
/// The parser may copy a text three times over, so that this is also what keeps it inside the arena.
pub const DOCUMENT_MAX: usize = 512 * 1024;
/// Most public keys; Azure allows far fewer.
pub const KEYS_MAX: usize = 64;
/// Longest custom data that is read in plain; Azure takes 64 KiB.
pub const CUSTOM_DATA_MAX: usize = 64 * 1024;
/// Longest base64 of custom data: Azure's 64 KiB make 87 384 characters.
pub const CUSTOM_DATA_TEXT_MAX: usize = 128 * 1024;

/// Most tags: the parser reserves a node for each before it starts.
const TAGS_MAX: usize = 2048;
/// Most equals signs: each may be an attribute or a namespace, whose checks are quadratic and worse.
const EQUALS_MAX: usize = 256;

/// What agents put in the place of a password in their copy.
const REDACTED: [&[u8]; 2] = [b"*", b"REDACTED"];

const AZURE: &str = "http://schemas.microsoft.com/windowsazure";
const INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// Says what is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OvfFault {
    /// There is no markup in it.
    Empty,
    /// It is larger than any that the platform writes.
    TooLarge,
    /// It has more tags, attributes or keys than any that the platform writes.
    TooComplex,
    /// It is not UTF-8.
    NotUtf8,
    /// It declares a document type, which may hide anything.
    DocumentType,
    /// It is not well-formed.
    Syntax(&'static str),
    /// An element that must be there is not, or is empty.
    Missing(&'static str),
    /// An element that may be there once is there more often.
    Repeated(&'static str, usize),
    /// A plain value has elements inside.
    Nested(&'static str),
    /// A value is longer than any that the platform writes.
    TooLong(&'static str),
}

impl fmt::Display for OvfFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing(_) | Self::Repeated(..) | Self::Nested(_) | Self::TooLong(_) => {
                "unexpected metadata parsing ovf-env.xml: "
            }
            _ => "error parsing ovf-env.xml: ",
        })?;
        match self {
            Self::Empty => f.write_str("no markup"),
            Self::TooLarge => write!(f, "larger than {DOCUMENT_MAX} bytes"),
            Self::TooComplex => f.write_str("too many elements or attributes"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::DocumentType => f.write_str("document type declarations are not allowed"),
            Self::Syntax(what) => f.write_str(what),
            Self::Missing(name) => write!(f, "missing configuration for '{name}'"),
            Self::Repeated(name, count) => {
                write!(f, "multiple configuration matches for '{name}' ({count})")
            }
            Self::Nested(name) => write!(f, "elements inside '{name}'"),
            Self::TooLong(name) => write!(f, "'{name}' is too long"),
        }
    }
}

impl From<roxmltree::Error> for OvfFault {
    fn from(error: roxmltree::Error) -> Self {
        use roxmltree::Error as E;
        // Words of our own: the library's carry pieces of the document, which may be a password.
        Self::Syntax(match error {
            E::DtdDetected => return Self::DocumentType,
            E::NodesLimitReached | E::AttributesLimitReached | E::NamespacesLimitReached => {
                return Self::TooComplex;
            }
            E::UnexpectedCloseTag(..) | E::UnexpectedEntityCloseTag(_) => "mismatched tag",
            E::NoRootNode | E::UnclosedRootNode | E::UnexpectedEndOfStream => "it ends too early",
            E::UnknownNamespace(..)
            | E::DuplicatedNamespace(..)
            | E::InvalidXmlPrefixUri(_)
            | E::UnexpectedXmlUri(_)
            | E::UnexpectedXmlnsUri(_)
            | E::InvalidElementNamePrefix(_) => "unbound or misused prefix",
            E::UnknownEntityReference(..) | E::MalformedEntityReference(_) => "unknown entity",
            E::DuplicatedAttribute(..) | E::InvalidAttributeValue(_) => "bad attribute",
            E::NonXmlChar(..) => "character not allowed in XML",
            _ => "not well-formed (invalid token)",
        })
    }
}

/// What the document says about the password.
pub enum Password {
    /// Nothing, or an empty element: there is none.
    None,
    /// A token that an agent left in its copy: there was one, and it is set already.
    Redacted,
    /// The password in plain text.
    Given(Secret),
}

/// Whether the machine belongs to a pool and has no owner yet; of two answers the greater is true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preprovisioned {
    /// It has its owner.
    #[default]
    No,
    /// The platform uses a word that is newer than this program.
    Unknown,
    /// It waits running.
    Running,
    /// Only its disk is prepared.
    OsDisk,
    /// It waits saved.
    Savable,
}

impl Preprovisioned {
    /// Names the kind as the platform does.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "None",
            Self::Running => "Running",
            Self::Savable => "Savable",
            Self::OsDisk => "PreprovisionedOSDisk",
            Self::Unknown => "Unknown",
        }
    }

    /// Reads the platform's name of a kind; none at all is that of a machine that has its owner.
    pub(super) fn from_word(word: &str) -> Self {
        if word.is_empty() {
            return Self::No;
        }
        [Self::Savable, Self::OsDisk, Self::Running, Self::No]
            .into_iter()
            .find(|kind| word.eq_ignore_ascii_case(kind.as_str()))
            .unwrap_or(Self::Unknown)
    }
}

/// One entry of the list of public keys.
#[derive(Debug, PartialEq, Eq)]
pub enum ListedKey {
    /// The key itself, as the platform wrote it.
    Value(String),
    /// Only the fingerprint of a certificate.
    Fingerprint(String),
}

/// Custom data, as it came: in base64, without white space, or plain.
pub struct CustomData {
    content: Secret,
    plain: bool,
}

impl CustomData {
    /// Takes base64, dropping the white space in it; nothing when nothing is left.
    pub(super) fn new(mut text: Zeroizing<Vec<u8>>) -> Option<Self> {
        text.retain(|byte| !byte.is_ascii_whitespace());
        if text.is_empty() {
            return None;
        }
        let content = Secret::new(text);
        let plain = false;
        Some(Self { content, plain })
    }

    /// Takes what is not in base64; nothing when it is empty.
    pub fn plain(content: Zeroizing<Vec<u8>>) -> Option<Self> {
        if content.is_empty() {
            return None;
        }
        let content = Secret::new(content);
        let plain = true;
        Some(Self { content, plain })
    }

    /// Gives it as the platform wrote it.
    pub fn written(&self) -> &Secret {
        &self.content
    }

    /// Decodes it, or gives nothing when it is not base64.
    pub fn decode(&self) -> Option<Secret> {
        let content = self.content.expose();
        if self.plain {
            return Some(Secret::copy_of(content));
        }
        base64::decode(content).map(Secret::new)
    }
}

/// Everything in the document that this program acts on.
pub struct Provisioning {
    /// The host name, not empty, not yet checked.
    pub host_name: String,
    /// The administrator's name, not empty, not yet checked.
    pub user_name: Option<String>,
    /// The administrator's password.
    pub password: Password,
    /// Whether sshd shall refuse passwords; nothing when the document does not say.
    pub disable_password_authentication: Option<bool>,
    /// Custom data, when there is any.
    pub custom_data: Option<CustomData>,
    /// The administrator's keys, not yet checked.
    pub public_keys: Vec<ListedKey>,
    /// Whether waagent, when it is in the image, shall run; only the word `false` forbids it.
    pub guest_agent: bool,
    /// Whether the host wants to be spoken to through the guest proxy agent.
    pub guest_proxy_agent: bool,
    /// Whether this is a pool machine whose identity is a placeholder.
    pub preprovisioned: Preprovisioned,
}

impl Default for Provisioning {
    /// What a machine without a disc is: nothing is said, and nothing is forbidden.
    fn default() -> Self {
        Self {
            host_name: String::new(),
            user_name: None,
            password: Password::None,
            disable_password_authentication: None,
            custom_data: None,
            public_keys: Vec::new(),
            guest_agent: true,
            guest_proxy_agent: false,
            preprovisioned: Preprovisioned::No,
        }
    }
}

impl Provisioning {
    /// Tells whether somebody can get into a machine of which nothing else is known.
    pub fn suffices(&self) -> bool {
        self.user_name.is_some()
            && (!self.public_keys.is_empty() || !matches!(self.password, Password::None))
    }
}

/// Reads a document; bytes around the markup (byte order mark, NULs) are ignored.
// Out of line, as others here: in its one caller it makes every access to a large frame longer.
#[inline(never)]
pub fn parse(document: &[u8]) -> Result<Provisioning, OvfFault> {
    if document.len() > DOCUMENT_MAX {
        return Err(OvfFault::TooLarge);
    }
    let text = core::str::from_utf8(markup(document)?).map_err(|_| OvfFault::NotUtf8)?;
    let count = |byte| text.bytes().filter(|b| *b == byte).count();
    if count(b'<') > TAGS_MAX || count(b'=') > EQUALS_MAX {
        return Err(OvfFault::TooComplex);
    }
    let tree = xml::parse(text)?;
    provisioning(tree.root_element()).map_err(|fault| *fault)
}

/// What reading a part of the document gives; the fault is boxed because it is rare, and every step
/// hands it on.
type Outcome<T> = Result<T, Box<OvfFault>>;

#[inline(never)]
fn provisioning(root: Node<'_, '_>) -> Outcome<Provisioning> {
    let section = required(root, "ProvisioningSection")?;
    let linux = required(section, "LinuxProvisioningConfigurationSet")?;
    let section = required(root, "PlatformSettingsSection")?;
    let platform = required(section, "PlatformSettings")?;

    Ok(Provisioning {
        disable_password_authentication: flag(linux, "DisableSshPasswordAuthentication")?,
        guest_agent: word(platform, "ProvisionGuestAgent")?
            .is_none_or(|word| !word.eq_ignore_ascii_case("false")),
        guest_proxy_agent: flag(platform, "ProvisionGuestProxyAgent")?.unwrap_or(false),
        preprovisioned: preprovisioned(platform)?,
        host_name: word(linux, "HostName")?.ok_or(OvfFault::Missing("HostName"))?,
        user_name: word(linux, "UserName")?,
        password: password(linux)?,
        custom_data: custom_data(linux)?,
        public_keys: public_keys(linux)?,
    })
}

/// Cuts off what surrounds the markup.
fn markup(document: &[u8]) -> Result<&[u8], OvfFault> {
    let start = document
        .iter()
        .position(|b| *b == b'<')
        .ok_or(OvfFault::Empty)?;
    let end = document
        .iter()
        .rposition(|b| *b == b'>')
        .ok_or(OvfFault::Empty)?;
    document.get(start..=end).ok_or(OvfFault::Empty)
}

fn is_azure(node: Node<'_, '_>, name: &str) -> bool {
    node.tag_name().name() == name && node.tag_name().namespace() == Some(AZURE)
}

/// Finds the one child of that name; an identity that is there twice must not be guessed.
fn child<'a, 'input>(
    parent: Node<'a, 'input>,
    name: &'static str,
) -> Outcome<Option<Node<'a, 'input>>> {
    let mut found = None;
    let mut count = 0_usize;
    for node in parent.children() {
        if is_azure(node, name) {
            found = found.or(Some(node));
            count = count.saturating_add(1);
        }
    }
    if count > 1 {
        return Err(OvfFault::Repeated(name, count).into());
    }
    Ok(found)
}

fn required<'a, 'input>(parent: Node<'a, 'input>, name: &'static str) -> Outcome<Node<'a, 'input>> {
    Ok(child(parent, name)?.ok_or(OvfFault::Missing(name))?)
}

/// Collects text and CDATA of a plain element, exactly as written; nothing when it is nil or absent.
fn content(parent: Node<'_, '_>, name: &'static str) -> Outcome<Option<Secret>> {
    let Some(node) = child(parent, name)? else {
        return Ok(None);
    };
    if node.attribute((INSTANCE, "nil")).is_some_and(is_true) {
        return Ok(None);
    }
    let mut length = 0_usize;
    for child in node.children() {
        if child.is_element() {
            return Err(OvfFault::Nested(name).into());
        }
        length = length.saturating_add(text(child).len());
    }
    // One allocation of the right size: this may be a password.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    for child in node.children() {
        bytes.extend_from_slice(text(child).as_bytes());
    }
    Ok(Some(Secret::new(bytes)))
}

/// Gives the text of a text node, nothing of others.
fn text<'a>(node: Node<'a, '_>) -> &'a str {
    if node.is_text() {
        node.text().unwrap_or_default()
    } else {
        ""
    }
}

/// Reads a value whose surrounding white space means nothing; an empty one is no value.
fn word(parent: Node<'_, '_>, name: &'static str) -> Outcome<Option<String>> {
    let content = content(parent, name)?;
    let word = content
        .as_ref()
        .map(|content| content.expose_text().trim())
        .unwrap_or_default();
    Ok(Some(word).filter(|word| !word.is_empty()).map(String::from))
}

fn flag(parent: Node<'_, '_>, name: &'static str) -> Outcome<Option<bool>> {
    Ok(word(parent, name)?.map(|word| is_true(&word)))
}

fn is_true(word: &str) -> bool {
    ["true", "1", "on", "yes"]
        .iter()
        .any(|yes| word.trim().eq_ignore_ascii_case(yes))
}

fn password(linux: Node<'_, '_>) -> Outcome<Password> {
    Ok(match content(linux, "UserPassword")? {
        Some(secret) if REDACTED.contains(&secret.expose()) => Password::Redacted,
        Some(secret) if !secret.is_empty() => Password::Given(secret),
        _ => Password::None,
    })
}

#[inline(never)]
fn custom_data(linux: Node<'_, '_>) -> Outcome<Option<CustomData>> {
    const NAME: &str = "CustomData";
    let Some(content) = content(linux, NAME)? else {
        return Ok(None);
    };
    if content.len() > CUSTOM_DATA_TEXT_MAX {
        return Err(OvfFault::TooLong(NAME).into());
    }
    Ok(CustomData::new(content.into_bytes()))
}

#[inline(never)]
fn public_keys(linux: Node<'_, '_>) -> Outcome<Vec<ListedKey>> {
    let mut keys = Vec::new();
    let Some(ssh) = child(linux, "SSH")? else {
        return Ok(keys);
    };
    let Some(list) = child(ssh, "PublicKeys")? else {
        return Ok(keys);
    };
    for entry in list.children() {
        if !is_azure(entry, "PublicKey") {
            continue;
        }
        if keys.len() == KEYS_MAX {
            return Err(OvfFault::TooComplex.into());
        }
        let value = word(entry, "Value")?;
        let fingerprint = word(entry, "Fingerprint")?;
        match (value, fingerprint) {
            (Some(value), _) => keys.push(ListedKey::Value(value)),
            (None, Some(fingerprint)) => keys.push(ListedKey::Fingerprint(fingerprint)),
            (None, None) => {}
        }
    }
    Ok(keys)
}

fn preprovisioned(platform: Node<'_, '_>) -> Outcome<Preprovisioned> {
    let running = flag(platform, "PreprovisionedVm")?.unwrap_or(false);
    let word = word(platform, "PreprovisionedVMType")?.unwrap_or_default();
    let kind = Preprovisioned::from_word(&word);
    Ok(if running {
        kind.max(Preprovisioned::Running)
    } else {
        kind
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64ct::{Base64, Encoding as _};
    use std::fmt::Write as _;
    use std::format;

    const GOOD: &str = include_str!("../../tests/data/identity/everything.xml");

    fn fault(document: &str) -> OvfFault {
        parse(document.as_bytes())
            .err()
            .expect("the document is refused")
    }

    #[test]
    fn documents_beyond_the_bound_are_refused_before_they_are_read() {
        let mut large = format!("{GOOD}{}", " ".repeat(DOCUMENT_MAX - GOOD.len()));
        assert!(parse(large.as_bytes()).is_ok());
        large.push(' ');
        assert_eq!(fault(&large), OvfFault::TooLarge);
    }

    #[test]
    fn custom_data_at_azures_limit_is_decoded_whole() {
        let data: Vec<u8> = (0..64 * 1024_u32).map(|n| (n * 7) as u8).collect();
        let text = Base64::encode_string(&data);
        let document = GOOD.replace("I2Nsb3VkLWNvbmZpZwpob3N0bmFtZTogZGVtbwo=", &text);
        let custom = parse(document.as_bytes())
            .ok()
            .and_then(|found| found.custom_data)
            .unwrap();
        assert_eq!(custom.decode().unwrap().expose(), data);
    }

    #[test]
    fn custom_data_far_beyond_azures_limit_is_refused() {
        let text = "A".repeat(CUSTOM_DATA_TEXT_MAX + 1);
        let document = GOOD.replace("I2Nsb3VkLWNvbmZpZwpob3N0bmFtZTogZGVtbwo=", &text);
        assert_eq!(fault(&document), OvfFault::TooLong("CustomData"));
    }

    #[test]
    fn markup_that_is_costly_to_parse_is_refused_by_its_count() {
        let namespaces = (0..EQUALS_MAX).fold(String::new(), |mut all, n| {
            write!(all, "<a xmlns:n{n}=\"u{n}\">").unwrap();
            all
        });
        let document = GOOD.replace("<wa:Version>", &format!("{namespaces}<wa:Version>"));
        assert_eq!(fault(&document), OvfFault::TooComplex);
        let deep = GOOD.replace(
            "<wa:Version>",
            &format!("{}<wa:Version>", "<a>".repeat(TAGS_MAX)),
        );
        assert_eq!(fault(&deep), OvfFault::TooComplex);
    }
}
