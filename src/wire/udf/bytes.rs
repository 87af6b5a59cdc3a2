//! Little-endian numbers at fixed places of a structure.

use super::Address;

#[expect(clippy::inline_always, reason = "the check is shorter than a call")]
#[inline(always)]
pub(super) fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

#[expect(clippy::inline_always, reason = "the check is shorter than a call")]
#[inline(always)]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

#[expect(clippy::inline_always, reason = "the check is shorter than a call")]
#[inline(always)]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

#[expect(clippy::inline_always, reason = "the check is shorter than a call")]
#[inline(always)]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)
}

/// Takes the length, with its two type bits, and the address from a long allocation descriptor
/// (ECMA-167 4/14.14.2).
pub(super) fn long_ad(bytes: &[u8], at: usize) -> Option<(u32, Address)> {
    let descriptor = bytes.get(at..)?;
    let block = u32_at(descriptor, 4)?;
    let partition = u16_at(descriptor, 8)?;
    Some((u32_at(descriptor, 0)?, Address { block, partition }))
}
