//! What the firmware says of the machine, as the kernel shows it below `/sys`.
//!
//! Not an SMBIOS parser. Follows the protocol reference, sections 1.1 to 1.4.

use core::ffi::CStr;

use rustix::fs::{Access, Mode, OFlags, access, open};

use crate::wire::vmid::VmId;

/// The chassis asset tag of every Azure VM: "MSFT AZURE VM" in decimal.
const AZURE_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

/// Says whether this is an Azure VM: three system calls, nothing but the asset tag counts.
pub fn is_azure() -> bool {
    field(c"/sys/class/dmi/id/chassis_asset_tag", &mut [0; 64]) == Some(AZURE_TAG)
}

/// Reads the VM id in the form that the platform uses.
///
/// The kernel does not swap the UUID of a generation 1 machine, which is one that UEFI did not
/// start. `None` when there is no UUID, or it may not be read: only root may.
pub fn vm_id() -> Option<VmId> {
    let mut buffer = [0; 64];
    let plain = VmId::parse(field(c"/sys/class/dmi/id/product_uuid", &mut buffer)?)?;
    let by_uefi = access(c"/sys/firmware/efi", Access::EXISTS).is_ok();
    Some(if by_uefi { plain } else { plain.swapped() })
}

fn field<'a>(path: &CStr, buffer: &'a mut [u8; 64]) -> Option<&'a str> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let length = rustix::io::read(&file, &mut *buffer).ok()?;
    value(buffer.get(..length)?)
}

/// Takes the text of a field; one that is empty, full of 0xff or not text says nothing.
fn value(bytes: &[u8]) -> Option<&str> {
    // A field of 0xff bytes is one that nobody filled in; as they are not UTF-8 they end here too.
    let text = core::str::from_utf8(bytes)
        .ok()?
        .trim_matches([' ', '\t', '\n', '\0']);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::string::{String, ToString};

    #[test]
    fn newline_and_blanks_are_trimmed() {
        assert_eq!(
            value(b"7783-7084-3265-9085-8269-3286-77\n"),
            Some(AZURE_TAG)
        );
        assert_eq!(value(b" x y \n"), Some("x y"));
    }

    #[test]
    fn a_field_that_nobody_filled_in_says_nothing() {
        assert_eq!(value(b""), None);
        assert_eq!(value(b"\n"), None);
        assert_eq!(value(b"\xff\xff\xff\xff\n"), None);
    }

    #[test]
    fn the_tag_spells_its_meaning_in_decimal() {
        let digits: String = AZURE_TAG.split('-').collect();
        let words = b"MSFT AZURE VM";
        let expected: String = words.iter().map(ToString::to_string).collect();
        assert_eq!(digits, expected);
    }

    #[test]
    fn this_machine_is_described_as_the_files_say() {
        let tag = fs::read_to_string("/sys/class/dmi/id/chassis_asset_tag").unwrap_or_default();
        assert_eq!(is_azure(), tag.trim() == AZURE_TAG);
        let uuid = fs::read_to_string("/sys/class/dmi/id/product_uuid").unwrap_or_default();
        // Either order of the first three fields names the machine.
        let uuid = VmId::parse(&uuid);
        assert_eq!(vm_id().is_some(), uuid.is_some());
        assert!(
            vm_id()
                .zip(uuid)
                .is_none_or(|(ours, plain)| ours.same_machine(plain))
        );
    }
}
