//! A value that is wiped and never printed.
//!
//! Not a vault: it keeps a password or custom data out of logs and wipes the bytes it owns. It has no
//! `Debug`, `Display` or `Clone` on purpose. Follows house rule C7.

use alloc::vec::Vec;

use zeroize::Zeroizing;

/// Holds bytes that may only end up in the one file they are meant for.
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// Copies `bytes`; the caller still owns the wiping of the original.
    pub fn copy_of(bytes: &[u8]) -> Self {
        // Exactly one allocation: a growing vector would leave unwiped copies behind.
        let mut copy = Vec::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        Self {
            bytes: Zeroizing::new(copy),
        }
    }

    /// Takes over `bytes` without copying them.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { bytes }
    }

    /// Shows the bytes to the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Shows the bytes as text, or nothing when they are not UTF-8.
    pub fn expose_text(&self) -> &str {
        core::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// Gives the bytes away, still wiped when they are dropped.
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }

    /// Tells the length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_has_no_spare_room_that_would_stay_unwiped() {
        let secret = Secret::copy_of(b"Pa55word");
        assert_eq!(secret.expose(), b"Pa55word");
        assert_eq!(secret.bytes.capacity(), secret.len());
    }
}
