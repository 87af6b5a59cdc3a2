//! The VM id: the SMBIOS system UUID in the form that Azure itself uses.
//!
//! Generation 1 firmware speaks SMBIOS 2.3, whose UUID Linux does not byte-swap; Azure stores the
//! first three fields little-endian. So the plain and the swapped form name the same machine.

use core::fmt;

/// A VM id, sixteen bytes in the order in which the text form shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmId([u8; 16]);

impl VmId {
    /// Reads the text form, hyphens where RFC 9562 puts them, either case.
    ///
    /// `None` for anything else, and for the all-zero and all-one ids that firmware without a
    /// UUID shows.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut digits = text.bytes();
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) && digits.next() != Some(b'-') {
                return None;
            }
            let high = hex(digits.next()?)?;
            let low = hex(digits.next()?)?;
            *byte = high << 4 | low;
        }
        if digits.next().is_some() || bytes == [0; 16] || bytes == [0xff; 16] {
            return None;
        }
        Some(VmId(bytes))
    }

    /// Reverses the bytes of the first three fields.
    #[must_use]
    pub fn swapped(self) -> Self {
        let mut bytes = self.0;
        for field in [0..4, 4..6, 6..8] {
            bytes.get_mut(field).unwrap_or_default().reverse();
        }
        VmId(bytes)
    }

    /// Tells whether both ids name the same machine, whichever generation's form they have.
    pub fn same_machine(self, other: Self) -> bool {
        self == other || self.swapped() == other
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn id(text: &str) -> VmId {
        VmId::parse(text).unwrap()
    }

    /// Test vectors of cloud-init and of waagent.
    #[test]
    fn swap_reverses_the_first_three_fields() {
        for (plain, swapped) in [
            (
                "527c2691-029f-fe4c-b1f4-a4da7ebac2cf",
                "91267c52-9f02-4cfe-b1f4-a4da7ebac2cf",
            ),
            (
                "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8",
                "D0DF4C54-4ECB-4A4B-9954-5BDF3ED5C3B8",
            ),
        ] {
            assert_eq!(id(plain).swapped(), id(swapped));
            assert_eq!(id(swapped).swapped(), id(plain));
            assert!(id(plain).same_machine(id(swapped)));
        }
    }

    #[test]
    fn text_form_is_lower_case_whatever_the_kernel_prints() {
        assert_eq!(
            id("544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8\n").to_string(),
            "544cdfd0-cb4e-4b4a-9954-5bdf3ed5c3b8"
        );
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for text in [
            "",
            "Not Specified",
            "544cdfd0cb4e4b4a99545bdf3ed5c3b8",
            "544cdfd0-cb4e-4b4a-9954-5bdf3ed5c3b",
            "544cdfd0-cb4e-4b4a-9954-5bdf3ed5c3b80",
            "544cdfd0-cb4e-4b4a-9954-5bdf3ed5c3bg",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ] {
            assert_eq!(VmId::parse(text), None, "{text}");
        }
    }
}
