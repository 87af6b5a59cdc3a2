//! OSTA compressed Unicode, the spelling of names and labels (UDF 2.1.1, 2.1.2).

use alloc::string::String;

use super::super::disc::{Label, names};
use super::bytes::byte;

/// Decodes OSTA compressed Unicode; nothing when it is not well formed.
pub(super) fn text(name: &[u8]) -> Option<String> {
    let (&compression, text) = name.split_first()?;
    let wide = match compression {
        8 => false,
        16 if text.len().is_multiple_of(2) => true,
        _ => return None,
    };
    Some(names::text(text, wide))
}

/// Decodes a fixed-length string, whose last byte says how many bytes of it are used.
pub(super) fn label(field: &[u8]) -> Option<Label> {
    let (&used, name) = field.split_last()?;
    if used == 0 || byte(name, 0) == Some(0) {
        return Some(Label::new());
    }
    text(name.get(..usize::from(used))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_names_are_latin_1() {
        assert_eq!(text(b"\x08Gr\xFC\xDFe").as_deref(), Some("Grüße"));
    }

    #[test]
    fn sixteen_bit_names_are_big_endian_with_surrogates() {
        let name = [16, 0x54, 0x0D, 0xD8, 0x3D, 0xDE, 0x00];
        assert_eq!(text(&name).as_deref(), Some("名😀"));
    }

    #[test]
    fn unknown_compression_odd_length_and_nothing_are_refused() {
        assert_eq!(text(&[]), None);
        assert_eq!(text(&[9, b'a']), None);
        assert_eq!(text(&[254, b'a']), None);
        assert_eq!(text(&[16, 0, b'a', 0]), None);
    }

    #[test]
    fn label_ends_where_its_last_byte_says() {
        let mut field = [0_u8; 32];
        field[..6].copy_from_slice(b"\x08dvd__");
        field[31] = 4;
        assert_eq!(label(&field).as_deref(), Some("dvd"));
        field[31] = 32;
        assert_eq!(label(&field), None);
        field[31] = 0;
        assert_eq!(label(&field).as_deref(), Some(""));
    }
}
