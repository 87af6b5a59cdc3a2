//! Hardware addresses as people write them: six pairs of hexadecimal digits between colons.

use core::fmt;

/// Reads one.
pub fn parse(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut pairs = text.split(':');
    for byte in &mut address {
        let is_digit = |digit: u8| digit.is_ascii_hexdigit();
        let pair = pairs.next()?;
        // Not every number has two digits, nor are digits all that a number may have.
        if pair.len() != 2 || !pair.bytes().all(is_digit) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(address)
}

/// An address, to be shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown(pub [u8; 6]);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown([first, rest @ ..]) = self;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;

    #[test]
    fn what_is_shown_is_read_again_in_either_case() {
        let address = [0x00, 0x0d, 0x3a, 0xff, 0x22, 0x33];
        assert_eq!(Shown(address).to_string(), "00:0d:3a:ff:22:33");
        assert_eq!(parse("00:0d:3a:ff:22:33"), Some(address));
        assert_eq!(parse("00:0D:3A:FF:22:33"), Some(address));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "eth0",
            "0:d:3a:ff:22:33",
            "00:0d:3a:ff:22",
            "00:0d:3a:ff:22:33:44",
            "00:0d:3a:ff:22:3g",
            "00:0d:3a:ff:22:+3",
            "000d:3a:ff:22:33:",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
