//! Secrets that a test plants, and the search for them.

use base64ct::{Base64Unpadded, Encoding as _};

/// How much is passed over at once where there is nothing.
const BLOCK: usize = 4096;

/// A text that must be found nowhere but where it belongs, in every form that it may take.
#[derive(Debug, Clone)]
pub struct Planted {
    name: &'static str,
    forms: Vec<(&'static str, Vec<u8>)>,
}

/// One find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Find {
    /// Which secret.
    pub name: &'static str,
    /// In what form.
    pub form: &'static str,
    /// Where.
    pub at: usize,
}

impl Planted {
    /// Takes a secret, and the name under which it is spoken of.
    pub fn new(name: &'static str, secret: &str) -> Self {
        let mut forms = vec![("as it is", secret.as_bytes().to_vec())];
        let escaped = secret
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        if escaped != secret {
            forms.push(("as XML", escaped.into_bytes()));
        }
        // Three bytes become four letters, so it depends on what stands before.
        for before in 0..3 {
            let all = [&b"   "[..before], secret.as_bytes()].concat();
            let text = Base64Unpadded::encode_string(&all).into_bytes();
            // The letters at the ends have bits of the neighbours.
            let start = [0, 2, 3][before];
            let end = text.len() - 1;
            forms.push(("as base64", text[start..end].to_vec()));
        }
        Self { name, forms }
    }

    /// Finds everything of these secrets in some bytes.
    pub fn search(secrets: &[Self], bytes: &[u8]) -> Vec<Find> {
        let all: Vec<_> = secrets
            .iter()
            .flat_map(|secret| {
                let with_name =
                    |(form, text): &(&'static str, Vec<u8>)| (secret.name, *form, text.clone());
                secret.forms.iter().map(with_name)
            })
            .collect();
        let mut begins = [false; 256];
        for (.., text) in &all {
            begins[usize::from(text[0])] = true;
        }
        let mut found = Vec::new();
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            // Most of a disk and of a memory is empty.
            if block == &[0; BLOCK][..block.len()] {
                continue;
            }
            for (offset, byte) in block.iter().enumerate() {
                if !begins[usize::from(*byte)] {
                    continue;
                }
                let at = index * BLOCK + offset;
                for (name, form, text) in &all {
                    if bytes[at..].starts_with(text) {
                        found.push(Find { name, form, at });
                    }
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_found_in_each_form_at_each_place() {
        let secret = "Plain-&-Words";
        let planted = [Planted::new("password", secret)];
        let inside = |before: usize| {
            let text = format!("{}{secret}!!", "x".repeat(before));
            base64ct::Base64::encode_string(text.as_bytes())
        };
        let cases = [
            ("as it is", secret.to_owned()),
            ("as XML", "Plain-&amp;-Words".to_owned()),
            ("as base64", inside(0)),
            ("as base64", inside(1)),
            ("as base64", inside(2)),
        ];
        for (form, text) in cases {
            for at in [0, 4090, 8191] {
                let mut bytes = vec![0; 20_000];
                assert_eq!(Planted::search(&planted, &bytes), []);
                bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
                let found = Planted::search(&planted, &bytes);
                assert_eq!(found.len(), 1, "{form} {text} at {at}: {found:?}");
                assert_eq!(found[0].form, form);
            }
        }
        let other = base64ct::Base64::encode_string(b"Plain-+-Words");
        assert_eq!(Planted::search(&planted, other.as_bytes()), []);
    }
}
