//! Host names and user names, checked once and then carried as types.
//!
//! Not a lookup: whether a user exists is the plan's question. Host names follow RFC 1123 and the
//! kernel's limit, user names what Azure allows an administrator and the account files can hold.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

/// Longest host name that `sethostname` takes.
pub const HOST_NAME_MAX: usize = 64;
/// Longest user name that utmp and the shadow tools take.
pub const USER_NAME_MAX: usize = 32;
/// Longest label of a host name.
const LABEL_MAX: usize = 63;

/// Names that belong to the system on every distribution, present in this root or not (LSB core, 23.2).
const RESERVED: [&str; 14] = [
    "root", "bin", "daemon", "adm", "lp", "sync", "shutdown", "halt", "mail", "news", "uucp",
    "operator", "man", "nobody",
];

/// Says why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// There is nothing in it.
    Empty,
    /// It has more bytes than the system can hold.
    TooLong {
        /// The length in bytes.
        length: usize,
        /// The longest that is accepted.
        max: usize,
    },
    /// A character is not allowed.
    Character(char),
    /// It starts or ends with a character that is only allowed inside.
    Edge(char),
    /// A label between two dots is empty or longer than 63 bytes.
    Label,
    /// It belongs to the system.
    Reserved,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong { length, max } => write!(f, "it has {length} bytes, at most {max} fit"),
            Self::Character(c) => write!(f, "character {} is not allowed", Letter(*c)),
            Self::Edge(c) => write!(f, "it may not start or end with {}", Letter(*c)),
            Self::Label => f.write_str("a label is empty or longer than 63 bytes"),
            Self::Reserved => f.write_str("it belongs to the system"),
        }
    }
}

/// A character in quotes, those that no one sees spelled out.
///
/// `Debug` does as much, and brings tables of all of Unicode with it.
struct Letter(char);

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(letter) = self;
        if letter.is_control() {
            write!(f, "'{}'", letter.escape_default())
        } else {
            write!(f, "'{letter}'")
        }
    }
}

/// Short text that is copied like a number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Short<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Short<N> {
    /// Copies `text` when it fits.
    fn new(text: &str) -> Result<Self, NameFault> {
        let mut bytes = [0; N];
        let room = bytes.get_mut(..text.len());
        match (room, u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text.as_bytes());
                Ok(Self { bytes, length })
            }
            _ => Err(NameFault::TooLong {
                length: text.len(),
                max: N,
            }),
        }
    }

    /// Shows the text.
    fn as_str(&self) -> &str {
        let text = self
            .bytes
            .get(..usize::from(self.length))
            .unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }
}

/// Copies the start of a text, with what a terminal could misread replaced.
pub(crate) fn shown(text: &str, max: usize, is_fit: fn(char) -> bool) -> Box<str> {
    let mut shown = String::new();
    for c in text.chars().map(|c| if is_fit(c) { c } else { '?' }) {
        if shown.len().saturating_add(c.len_utf8()) > max {
            break;
        }
        shown.push(c);
    }
    shown.into()
}

/// Refuses what is neither a letter nor a digit nor one of `others`.
fn only(text: &str, others: &[char]) -> Result<(), NameFault> {
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && !others.contains(&c) {
            return Err(NameFault::Character(c));
        }
    }
    Ok(())
}

/// A host name that the kernel, DHCP and DNS take as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HostName(Short<HOST_NAME_MAX>);

impl HostName {
    /// Accepts letters, digits and inner hyphens in labels of 1 to 63 bytes, 64 bytes in all.
    pub fn new(text: &str) -> Result<Self, NameFault> {
        let name = Short::new(text)?;
        if text.is_empty() {
            return Err(NameFault::Empty);
        }
        only(text, &['-', '.'])?;
        for label in text.split('.') {
            if label.is_empty() || label.len() > LABEL_MAX {
                return Err(NameFault::Label);
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(NameFault::Edge('-'));
            }
        }
        Ok(Self(name))
    }

    /// Shows the name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A user name that cannot break a line of an account file or of sudoers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserName(Short<USER_NAME_MAX>);

impl UserName {
    /// Accepts a letter or `_`, then letters, digits, `_`, `-` and inner dots, 32 bytes in all.
    ///
    /// Upper case and dots are Azure's: `AzureUser` is common, and the distributions take it.
    pub fn new(text: &str) -> Result<Self, NameFault> {
        let name = Short::new(text)?;
        let Some(first) = text.chars().next() else {
            return Err(NameFault::Empty);
        };
        only(text, &['_', '-', '.'])?;
        if !(first.is_ascii_alphabetic() || first == '_') {
            return Err(NameFault::Edge(first));
        }
        if text.ends_with('.') {
            return Err(NameFault::Edge('.'));
        }
        if RESERVED.contains(&text) {
            return Err(NameFault::Reserved);
        }
        Ok(Self(name))
    }

    /// Shows the name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Tells whether sudoers would read the bare name as something else: as an alias, which has only
    /// capitals, digits and `_`, or as the beginning of another kind of line.
    pub fn means_more_in_sudoers(&self) -> bool {
        let name = self.as_str();
        name == "Defaults"
            || name.ends_with("_Alias")
            || name.starts_with(|c: char| c.is_ascii_uppercase())
                && name
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    }
}

macro_rules! prints_as_text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
prints_as_text!(HostName, UserName);

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn host(text: &str) -> Result<String, NameFault> {
        HostName::new(text).map(|name| name.as_str().into())
    }

    fn user(text: &str) -> Result<String, NameFault> {
        UserName::new(text).map(|name| name.as_str().into())
    }

    #[test]
    fn ordinary_host_names_pass_unchanged() {
        for name in [
            "vm-demo01",
            "a",
            "0day",
            "VM1",
            "vm.example.net",
            &"a".repeat(63),
        ] {
            assert_eq!(host(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn host_names_that_dns_or_the_kernel_refuse_are_refused() {
        assert_eq!(host(""), Err(NameFault::Empty));
        assert_eq!(host(&"a".repeat(64)), Err(NameFault::Label));
        assert_eq!(
            host(&"a".repeat(65)),
            Err(NameFault::TooLong {
                length: 65,
                max: 64
            })
        );
        assert_eq!(host("vm_1"), Err(NameFault::Character('_')));
        assert_eq!(host("vm\n"), Err(NameFault::Character('\n')));
        assert_eq!(host("vmé"), Err(NameFault::Character('é')));
        assert_eq!(host("-vm"), Err(NameFault::Edge('-')));
        assert_eq!(host("vm-.net"), Err(NameFault::Edge('-')));
        assert_eq!(host("vm..net"), Err(NameFault::Label));
        assert_eq!(host("vm."), Err(NameFault::Label));
        assert_eq!(host("../etc"), Err(NameFault::Character('/')));
    }

    #[test]
    fn ordinary_user_names_pass_unchanged() {
        for name in [
            "opsadmin",
            "AzureUser",
            "_svc",
            "a-b_c9",
            "first.last",
            &"a".repeat(32),
        ] {
            assert_eq!(user(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn user_names_that_break_a_file_or_belong_to_the_system_are_refused() {
        assert_eq!(user(""), Err(NameFault::Empty));
        assert_eq!(
            user(&"a".repeat(33)),
            Err(NameFault::TooLong {
                length: 33,
                max: 32
            })
        );
        assert_eq!(user("a:0"), Err(NameFault::Character(':')));
        assert_eq!(user("a\nb"), Err(NameFault::Character('\n')));
        assert_eq!(user("a b"), Err(NameFault::Character(' ')));
        assert_eq!(user("a/b"), Err(NameFault::Character('/')));
        assert_eq!(user("%wheel"), Err(NameFault::Character('%')));
        assert_eq!(user("1000"), Err(NameFault::Edge('1')));
        assert_eq!(user("-rf"), Err(NameFault::Edge('-')));
        assert_eq!(user(".."), Err(NameFault::Edge('.')));
        assert_eq!(user("a."), Err(NameFault::Edge('.')));
        assert_eq!(user("root"), Err(NameFault::Reserved));
        assert_eq!(user("nobody"), Err(NameFault::Reserved));
    }

    #[test]
    fn names_that_sudoers_would_misread_are_known() {
        for (name, alias) in [
            ("ADMIN", true),
            ("A_1", true),
            ("AzureUser", false),
            ("_A", false),
            ("ALL", true),
            // The keywords of sudoers(5).
            ("Defaults", true),
            ("defaults", false),
            ("User_Alias", true),
            ("Runas_Alias", true),
            ("Host_Alias", true),
            ("Cmnd_Alias", true),
            ("Cmd_Alias", true),
        ] {
            assert_eq!(
                UserName::new(name).unwrap().means_more_in_sudoers(),
                alias,
                "{name}"
            );
        }
    }
}
