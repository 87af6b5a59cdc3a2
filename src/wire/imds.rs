//! The instance metadata document, and the request for it.
//!
//! Reads what the platform says into plain fields; whether a name or a key is any good is decided where
//! the identity is made. Not the service's only document: where a pool machine waits for its owner,
//! another one is asked for. Follows "Azure Instance Metadata Service" of learn.microsoft.com and what
//! cloud-init and azure-init found out about it; what is said of a bad document is cloud-init's wording.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;

use zeroize::Zeroizing;

use super::http::Request;
use super::json::{JsonFault, Kind, Reader, Text};
use super::ovf::{CUSTOM_DATA_TEXT_MAX, CustomData, KEYS_MAX, ListedKey, Preprovisioned};
use super::vmid::VmId;

/// Largest document: user data at its limit makes 86 KiB, keys and tags some more.
pub const DOCUMENT_MAX: usize = 256 * 1024;

/// What an answer may look like, by what the service is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 2021-08-01, with all that this program can use.
    Newest,
    /// 2019-06-01, for a platform that answers 400 to the newest: little more than keys.
    Oldest,
}

/// Writes the request; nothing when it does not fit, which it does.
pub fn request(version: Version, host: Ipv4Addr) -> Option<Request> {
    let path = match version {
        Version::Newest => "/metadata/instance?api-version=2021-08-01&extended=true",
        Version::Oldest => "/metadata/instance?api-version=2019-06-01",
    };
    Request::new("GET", path, host, &["Metadata: true"], None)
}

/// Everything in the document that this program acts on; what is empty there is not here.
#[derive(Default)]
pub struct Metadata {
    /// The VM id, to be compared with the firmware's.
    pub vm_id: Option<VmId>,
    /// The host name, not yet checked.
    pub computer_name: Option<Box<str>>,
    /// The administrator's name, not yet checked.
    pub admin_user_name: Option<Box<str>>,
    /// Whether sshd shall refuse passwords.
    pub disable_password_authentication: Option<bool>,
    /// The administrator's keys, not yet checked; one without text is in the list all the same.
    pub public_keys: Vec<ListedKey>,
    /// User data.
    pub user_data: Option<CustomData>,
    /// Whether there is custom data, which only the disc carries.
    pub has_custom_data: bool,
    /// Whether this is a pool machine whose identity is a placeholder.
    pub preprovisioned: Preprovisioned,
}

/// Says what is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImdsFault {
    /// It is larger than any that the platform writes.
    TooLarge,
    /// It is not a document that can be read.
    Json(JsonFault),
    /// The value of this member cannot be used, or it is there twice.
    Invalid(&'static str),
}

impl fmt::Display for ImdsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Invalid(key) = self {
            return write!(f, "invalid IMDS metadata for key={key}");
        }
        f.write_str("error parsing IMDS metadata: ")?;
        match self {
            Self::Json(fault) => fault.fmt(f),
            _ => write!(f, "it is larger than {DOCUMENT_MAX} bytes"),
        }
    }
}

impl From<JsonFault> for ImdsFault {
    fn from(fault: JsonFault) -> Self {
        Self::Json(fault)
    }
}

const COMPUTE: &str = "compute";
const PROFILE: &str = "compute.osProfile";
const COMPUTER_NAME: &str = "compute.osProfile.computerName";
const ADMIN_USER_NAME: &str = "compute.osProfile.adminUsername";
const DISABLE_PASSWORD: &str = "compute.osProfile.disablePasswordAuthentication";
const KEYS: &str = "compute.publicKeys";
const KEY_DATA: &str = "compute.publicKeys.keyData";
const USER_DATA: &str = "compute.userData";
const VM_ID: &str = "compute.vmId";
const EXTENDED: &str = "extended";
const EXTENDED_COMPUTE: &str = "extended.compute";
const HAS_CUSTOM_DATA: &str = "extended.compute.hasCustomData";
const PPS_TYPE: &str = "extended.compute.ppsType";

/// The members that are read, each by its way from the top; the bits of [`Walk::seen`] are in this order.
static MEMBERS: [&str; 13] = [
    KEY_DATA,
    COMPUTE,
    PROFILE,
    COMPUTER_NAME,
    ADMIN_USER_NAME,
    DISABLE_PASSWORD,
    KEYS,
    USER_DATA,
    VM_ID,
    EXTENDED,
    EXTENDED_COMPUTE,
    HAS_CUSTOM_DATA,
    PPS_TYPE,
];

/// The bit of `KEY_DATA`, which is there once in every key.
const KEY_DATA_BIT: u16 = 1;

/// Reads a document.
#[inline(never)]
pub fn parse(document: &[u8]) -> Result<Metadata, ImdsFault> {
    if document.len() > DOCUMENT_MAX {
        return Err(ImdsFault::TooLarge);
    }
    let mut walk = Walk {
        json: Reader::new(document)?,
        seen: 0,
        found: Metadata::default(),
    };
    walk.object("")?;
    walk.json.end()?;
    Ok(walk.found)
}

/// A way through a document.
struct Walk<'a> {
    json: Reader<'a>,
    seen: u16,
    found: Metadata,
}

impl Walk<'_> {
    /// Reads an object; `way` leads to it and ends in a dot, unless it is the whole document.
    fn object(&mut self, way: &str) -> Result<(), ImdsFault> {
        self.json.object()?;
        while let Some(name) = self.json.member()? {
            let is_here = |member: &str| {
                let rest = member.strip_prefix(way).unwrap_or(".");
                !rest.contains('.') && name.is(rest)
            };
            let mut bit = KEY_DATA_BIT;
            let mut members = MEMBERS.iter();
            let Some(member) = members.find(|member| {
                let found = is_here(member);
                bit <<= u32::from(!found);
                found
            }) else {
                self.json.skip()?;
                continue;
            };
            if self.seen & bit != 0 {
                return Err(ImdsFault::Invalid(member));
            }
            self.seen |= bit;
            if self.json.kind()? == Kind::Null {
                self.json.skip()?;
                continue;
            }
            self.value(member).map_err(|fault| match fault {
                ImdsFault::Json(JsonFault::Kind(_)) => ImdsFault::Invalid(member),
                fault => fault,
            })?;
        }
        Ok(())
    }

    /// Reads the value of a member.
    fn value(&mut self, member: &'static str) -> Result<(), ImdsFault> {
        let invalid = ImdsFault::Invalid(member);
        match member {
            COMPUTE => return self.object("compute."),
            PROFILE => return self.object("compute.osProfile."),
            EXTENDED => return self.object("extended."),
            EXTENDED_COMPUTE => return self.object("extended.compute."),
            KEYS => return self.keys(),
            _ => {}
        }
        // What is a flag for one version of the service is text for another.
        let text = match self.json.kind()? {
            Kind::Boolean if matches!(member, DISABLE_PASSWORD | HAS_CUSTOM_DATA) => {
                String::from(if self.json.boolean()? {
                    "true"
                } else {
                    "false"
                })
            }
            _ => string(self.json.text()?),
        };
        let word = text.trim();
        if word.is_empty() {
            return Ok(());
        }
        let found = &mut self.found;
        match member {
            COMPUTER_NAME => found.computer_name = Some(word.into()),
            ADMIN_USER_NAME => found.admin_user_name = Some(word.into()),
            DISABLE_PASSWORD => {
                found.disable_password_authentication = Some(flag(word).ok_or(invalid)?);
            }
            HAS_CUSTOM_DATA => found.has_custom_data = flag(word).ok_or(invalid)?,
            VM_ID => found.vm_id = Some(VmId::parse(word).ok_or(invalid)?),
            PPS_TYPE => found.preprovisioned = Preprovisioned::from_word(word),
            USER_DATA if text.len() > CUSTOM_DATA_TEXT_MAX => return Err(invalid),
            USER_DATA => found.user_data = CustomData::new(Zeroizing::new(text.into_bytes())),
            // The key's text: its object has made room for it.
            _ => {
                if let Some(last) = found.public_keys.last_mut() {
                    *last = ListedKey::Value(text);
                }
            }
        }
        Ok(())
    }

    /// Reads the list of keys.
    fn keys(&mut self) -> Result<(), ImdsFault> {
        self.json.array()?;
        while self.json.element()? {
            if self.found.public_keys.len() == KEYS_MAX {
                return Err(ImdsFault::Invalid(KEYS));
            }
            self.found.public_keys.push(ListedKey::Value(String::new()));
            self.seen &= !KEY_DATA_BIT;
            self.object("compute.publicKeys.")?;
        }
        Ok(())
    }
}

/// Copies text in one allocation of the right size: user data may be a secret.
fn string(text: Text<'_>) -> String {
    let length = text
        .chars()
        .fold(0_usize, |sum, c| sum.saturating_add(c.len_utf8()));
    let mut string = String::with_capacity(length);
    for c in text.chars() {
        string.push(c);
    }
    string
}

fn flag(word: &str) -> Option<bool> {
    let is = |meaning: &str| word.eq_ignore_ascii_case(meaning);
    if is("true") {
        Some(true)
    } else if is("false") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sshkey::PublicKey;
    use crate::wire::testing::Random;
    use base64ct::{Base64, Encoding as _};
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::PathBuf;
    use std::string::ToString as _;
    use std::{format, fs};

    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/imds")
    }

    fn fault(document: &str) -> ImdsFault {
        parse(document.as_bytes())
            .err()
            .expect("the document is refused")
    }

    /// Tells what the document says, in the form of the `.expect` files.
    fn told(document: &[u8]) -> String {
        let found = match parse(document) {
            Ok(found) => found,
            Err(fault) => return format!("fault={fault}\n"),
        };
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            let escaped = value.escape_debug().to_string().replace("\\\"", "\"");
            writeln!(out, "{name}={escaped}").unwrap();
        };
        let yes = |flag| if flag { "yes" } else { "no" };
        if let Some(id) = found.vm_id {
            line("vm-id", &id.to_string());
        }
        if let Some(name) = &found.computer_name {
            line("host", name);
        }
        if let Some(name) = &found.admin_user_name {
            line("user", name);
        }
        if let Some(disable) = found.disable_password_authentication {
            line("disable-password", yes(disable));
        }
        for key in &found.public_keys {
            match key {
                ListedKey::Value(text) => line("key", text),
                ListedKey::Fingerprint(_) => panic!("the service knows no fingerprints"),
            }
        }
        if let Some(data) = &found.user_data {
            match data.decode() {
                Some(bytes) => line("user-data", &String::from_utf8_lossy(bytes.expose())),
                None => line("user-data", "<undecodable>"),
            }
        }
        line("custom-data", yes(found.has_custom_data));
        line("preprovisioned", found.preprovisioned.as_str());
        out
    }

    #[test]
    fn each_document_in_the_folder_says_what_is_beside_it() {
        let mut stems = BTreeSet::new();
        for entry in fs::read_dir(folder()).unwrap() {
            stems.insert(entry.unwrap().path().with_extension(""));
        }
        assert!(stems.len() >= 30, "{} cases", stems.len());
        let mut wrong = String::new();
        for stem in stems {
            let document = fs::read(stem.with_extension("json")).unwrap();
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
    fn a_folded_key_is_whole_once_it_is_checked() {
        let document = fs::read(folder().join("key-folded-with-line-breaks.json")).unwrap();
        let found = parse(&document).unwrap_or_else(|fault| panic!("{fault}"));
        let [ListedKey::Value(text)] = &found.public_keys[..] else {
            panic!("there is one key");
        };
        let clean = include_str!("../../tests/data/sshkey/rsa.pub").trim_end();
        assert_eq!(PublicKey::parse(text).unwrap().line(), clean);
    }

    #[test]
    fn user_data_at_azures_limit_is_decoded_whole() {
        let data: Vec<u8> = (0..64 * 1024_u32).map(|n| (n * 7) as u8).collect();
        let text = Base64::encode_string(&data);
        let document = format!(r#"{{"compute":{{"userData":"{text}"}}}}"#);
        let found = parse(document.as_bytes()).unwrap_or_else(|fault| panic!("{fault}"));
        let decoded = found.user_data.and_then(|data| data.decode()).unwrap();
        assert_eq!(decoded.expose(), data);
    }

    #[test]
    fn documents_and_user_data_beyond_their_bounds_are_refused() {
        let document = |length| format!(r#"{{"compute":{{"userData":"{}"}}}}"#, "A".repeat(length));
        assert!(parse(document(CUSTOM_DATA_TEXT_MAX).as_bytes()).is_ok());
        assert_eq!(
            fault(&document(CUSTOM_DATA_TEXT_MAX + 1)),
            ImdsFault::Invalid(USER_DATA)
        );
        let mut large = format!("{{}}{}", " ".repeat(DOCUMENT_MAX - 2));
        assert!(parse(large.as_bytes()).is_ok());
        large.push(' ');
        assert_eq!(fault(&large), ImdsFault::TooLarge);
    }

    #[test]
    fn unknown_members_are_skipped_to_any_sensible_depth() {
        let nested = |depth: usize| {
            let value = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"compute":{{"other":{value},"osProfile":{{"computerName":"a"}}}}}}"#)
        };
        let found = parse(nested(60).as_bytes()).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(found.computer_name.as_deref(), Some("a"));
        assert!(matches!(
            fault(&nested(100_000)),
            ImdsFault::Json(JsonFault::Depth(_))
        ));
    }

    #[test]
    fn requests_carry_the_header_that_the_service_demands() {
        for (version, query) in [
            (Version::Newest, "api-version=2021-08-01&extended=true"),
            (Version::Oldest, "api-version=2019-06-01"),
        ] {
            let request = request(version, Ipv4Addr::new(169, 254, 169, 254)).unwrap();
            let text = core::str::from_utf8(request.as_bytes()).unwrap();
            let first = format!("GET /metadata/instance?{query} HTTP/1.1\r\n");
            assert!(text.starts_with(&first), "{text}");
            assert!(text.contains("\r\nHost: 169.254.169.254\r\n"), "{text}");
            assert!(text.contains("\r\nMetadata: true\r\n"), "{text}");
            assert!(text.ends_with("\r\n\r\n"), "{text}");
            assert!(!text.to_ascii_lowercase().contains("x-forwarded-for"));
        }
    }

    #[test]
    fn mutated_documents_never_panic() {
        let seeds: Vec<_> = [
            "everything",
            "escapes",
            "names-in-other-places-mean-nothing",
            "keys-of-every-kind-stay-in-the-list",
        ]
        .iter()
        .map(|name| fs::read(folder().join(name).with_extension("json")).unwrap())
        .collect();
        let mut random = Random::new();
        let (mut read, mut refused) = (0, 0);
        for round in 0..8_000 {
            let bytes = random.damage(&seeds[round % seeds.len()]);
            let told = told(&bytes);
            // A character that no one sees is told in eight letters at most.
            assert!(told.len() <= 8 * bytes.len() + 200, "{told}");
            if told.starts_with("fault=") {
                refused += 1;
            } else {
                read += 1;
            }
        }
        assert!(read > 500 && refused > 500, "{read} {refused}");
    }
}
