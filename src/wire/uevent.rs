//! One message of the kernel's uevent socket, or the `uevent` file of a device in sysfs.
//!
//! Not the socket, and not udev's own messages, which have another head. Follows `kobject_uevent_env()`
//! in the kernel's `lib/kobject_uevent.c`: `ACTION@DEVPATH`, NUL, then `KEY=VALUE`, each with its NUL.

/// What the kernel says of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uevent<'a> {
    /// What happened: `add`, `remove`, `change`, `bind`...
    pub action: &'a str,
    /// Where the device is below `/sys`, with the slash in front.
    pub path: &'a str,
    properties: Properties<'a>,
}

impl<'a> Uevent<'a> {
    /// Reads one message; `None` when it is not the kernel's form or not UTF-8.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(message).ok()?;
        let (head, rest) = text.split_once('\0')?;
        let (action, path) = head.split_once('@')?;
        if action.is_empty() || !path.starts_with('/') {
            return None;
        }
        Some(Self {
            action,
            path,
            properties: Properties {
                text: rest,
                end: '\0',
            },
        })
    }

    /// Gives the value of `KEY=`.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.properties.value(key)
    }

    /// Tells whether a device has come, or has a driver or a medium now: a reason to look again.
    pub fn is_news(&self) -> bool {
        matches!(self.action, "add" | "change" | "bind" | "online")
    }

    /// Gives the subsystem, such as `block` or `net`.
    pub fn subsystem(&self) -> &'a str {
        self.value("SUBSYSTEM").unwrap_or("")
    }

    /// Gives the node's path below `/dev`.
    pub fn device_name(&self) -> Option<&'a str> {
        self.value("DEVNAME").filter(|name| !name.is_empty())
    }

    /// Gives the text that the patterns of `modules.alias` are for.
    pub fn modalias(&self) -> Option<&'a str> {
        self.value("MODALIAS").filter(|alias| !alias.is_empty())
    }
}

/// The `KEY=VALUE` of a device: NULs between them in a message, line ends in a sysfs file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties<'a> {
    text: &'a str,
    end: char,
}

impl<'a> Properties<'a> {
    /// Takes the content of a `uevent` file; empty when it is not UTF-8.
    pub fn of_file(content: &'a [u8]) -> Self {
        Self {
            text: str::from_utf8(content).unwrap_or(""),
            end: '\n',
        }
    }

    /// Gives the value of `KEY=`.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.text
            .split(self.end)
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;

    /// As seen on the socket when a disc drive appeared (Linux 6.1).
    const DRIVE: &[u8] = b"add@/devices/pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/block/sr0\0\
        ACTION=add\0DEVPATH=/devices/pci0000:00/0000:00:01.1/ata2/host1/target1:0:0/1:0:0:0/block/sr0\0\
        SUBSYSTEM=block\0MAJOR=11\0MINOR=0\0DEVNAME=sr0\0DEVTYPE=disk\0DISKSEQ=3\0SEQNUM=1010\0";

    #[test]
    fn a_message_of_the_kernel_is_read() {
        let event = Uevent::parse(DRIVE).unwrap();
        assert_eq!(event.action, "add");
        assert!(event.path.ends_with("/block/sr0"));
        assert!(event.is_news());
        assert_eq!(event.subsystem(), "block");
        assert_eq!(event.device_name(), Some("sr0"));
        assert_eq!(event.value("DISKSEQ"), Some("3"));
        assert_eq!(event.value("DEV"), None);
        assert_eq!(event.modalias(), None);
    }

    #[test]
    fn a_modalias_may_hold_equals_signs_and_signs_of_all_kinds() {
        let event =
            Uevent::parse(b"add@/devices/x\0MODALIAS=of:NaT=b@c\0SUBSYSTEM=platform\0").unwrap();
        assert_eq!(event.modalias(), Some("of:NaT=b@c"));
        assert_eq!(event.subsystem(), "platform");
    }

    #[test]
    fn messages_that_are_not_the_kernels_are_refused() {
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        for message in [
            &b""[..],
            b"add@/x",
            b"@/x\0",
            b"add@x\0",
            b"add\0A=1\0",
            b"add@/\xff\0",
        ] {
            assert_eq!(Uevent::parse(message), None, "{message:?}");
        }
    }

    #[test]
    fn a_departure_is_no_news() {
        assert!(!Uevent::parse(b"remove@/devices/x\0").unwrap().is_news());
    }

    #[test]
    fn a_uevent_file_is_read_by_lines() {
        let file =
            b"MAJOR=253\nMINOR=1\nDEVNAME=vda1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=my root\n";
        let properties = Properties::of_file(file);
        assert_eq!(properties.value("PARTNAME"), Some("my root"));
        assert_eq!(properties.value("PARTN"), Some("1"));
        assert_eq!(properties.value("PART"), None);
    }

    #[test]
    fn no_mutation_makes_it_panic() {
        let mut random = Random::new();
        let (mut read, mut refused) = (0, 0);
        for _ in 0..5000 {
            let mut message = DRIVE.to_vec();
            for _ in 0..=random.below(3) {
                let at = random.below(message.len());
                message[at] = random.any() as u8;
            }
            message.truncate(random.below(message.len() + 1));
            match Uevent::parse(&message) {
                Some(event) => {
                    let _ = (event.device_name(), event.modalias(), event.is_news());
                    read += 1;
                }
                None => refused += 1,
            }
        }
        assert!(read > 500 && refused > 500);
    }
}
