//! A pool of key-value pairs, as Hyper-V's guest services keep it in a file.
//!
//! Not the way to the host: a daemon of the real root reads the file when the host asks. Each record has
//! a key of 512 bytes and a value of 2048, UTF-8 with NULs behind; of these the kernel lets fewer
//! through. Follows `hv_kvp_daemon` and what cloud-init and azure-init write for Azure's support.

use alloc::string::String;
use alloc::vec::Vec;

use super::vmid::VmId;

/// The key under which the host looks for what became of provisioning.
pub const PROVISIONING_REPORT: &str = "PROVISIONING_REPORT";
/// The largest pool that is kept: what others have written on this boot, before the root was there.
pub const POOL_MAX: usize = 64 * RECORD;

const RECORD: usize = KEY + VALUE;
const KEY: usize = 512;
const VALUE: usize = 2048;
/// How many UTF-16 units of a value arrive: the kernel's conversion loses one more than it must.
const VALUE_UNITS: usize = 1022;

/// Puts a record into a pool, in place of those with its key; half a record at the end goes.
pub fn put(pool: &[u8], key: &str, value: &str) -> Vec<u8> {
    let mut new = Vec::with_capacity(pool.len().saturating_add(RECORD));
    for record in pool.chunks_exact(RECORD) {
        if name(record) != key.as_bytes() {
            new.extend_from_slice(record);
        }
    }
    let start = new.len();
    new.extend_from_slice(key.as_bytes());
    new.resize(start.saturating_add(KEY), 0);
    new.extend_from_slice(cut(value).as_bytes());
    new.resize(start.saturating_add(RECORD), 0);
    new
}

/// Gives the key of a record.
fn name(record: &[u8]) -> &[u8] {
    let key = record.get(..KEY).unwrap_or_default();
    key.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Cuts a value between two characters, so that all that is left arrives.
fn cut(value: &str) -> &str {
    let mut units = 0_usize;
    for (at, character) in value.char_indices() {
        units = units.saturating_add(character.len_utf16());
        // One byte is for the NUL behind.
        if units > VALUE_UNITS || at.saturating_add(character.len_utf8()) >= VALUE {
            return value.get(..at).unwrap_or_default();
        }
    }
    value
}

/// Says that a machine is provisioned, as the support tools of the platform read it.
pub fn success(vm_id: VmId, timestamp: &str) -> String {
    alloc::format!(
        "result=success|agent={}/{}|pps_type=None|vm_id={vm_id}|timestamp={timestamp}",
        crate::NAME,
        crate::VERSION
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::Random;

    /// Reads a pool as `hv_kvp_daemon` does: whole records, each text up to its NUL.
    fn read(pool: &[u8]) -> Vec<(String, String)> {
        assert_eq!(pool.len() % 2560, 0);
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap();
            assert!(bytes[end..].iter().all(|byte| *byte == 0));
            String::from_utf8(bytes[..end].to_vec()).unwrap()
        };
        pool.chunks(2560)
            .map(|record| (text(&record[..512]), text(&record[512..])))
            .collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn record_is_added_once_and_replaced_after_that() {
        let first = put(b"", "A", "1");
        assert_eq!(read(&first), [pair("A", "1")]);
        let second = put(&first, PROVISIONING_REPORT, "result=error");
        let third = put(&second, PROVISIONING_REPORT, "result=success");
        assert_eq!(
            read(&third),
            [pair("A", "1"), pair(PROVISIONING_REPORT, "result=success")]
        );
        // As a writer leaves it that only ever appends.
        let twice = [&second[..], &second[2560..]].concat();
        assert_eq!(read(&put(&twice, PROVISIONING_REPORT, "x")).len(), 2);
        // A key that only starts alike is another.
        assert_eq!(read(&put(&put(b"", "AB", "1"), "A", "2")).len(), 2);
    }

    #[test]
    fn half_a_record_does_not_shift_those_behind_it() {
        let mut pool = put(b"", "A", "1");
        pool.extend_from_slice(b"half");
        assert_eq!(
            read(&put(&pool, "B", "2")),
            [pair("A", "1"), pair("B", "2")]
        );
    }

    #[test]
    fn long_value_is_cut_between_characters_where_the_kernel_cuts() {
        for (character, units) in [("a", 1), ("é", 1), ("€", 1), ("🚀", 2)] {
            let pool = put(b"", "K", &character.repeat(3000));
            let (_, value) = &read(&pool)[0];
            let count = value.chars().count();
            assert!(count * units <= 1022 && value.len() <= 2047);
            let more = count + 1;
            assert!(more * units > 1022 || more * character.len() > 2047);
        }
        let fits = "a".repeat(1022);
        assert_eq!(read(&put(b"", "K", &fits))[0].1, fits);
    }

    #[test]
    fn success_has_the_published_form() {
        let id = VmId::parse("91267c52-9f02-4cfe-b1f4-a4da7ebac2cf").unwrap();
        assert_eq!(
            success(id, "2026-01-02T03:04:05+00:00"),
            std::format!(
                "result=success|agent=preroot/{}|pps_type=None|\
                 vm_id=91267c52-9f02-4cfe-b1f4-a4da7ebac2cf|timestamp=2026-01-02T03:04:05+00:00",
                crate::VERSION
            )
        );
    }

    #[test]
    fn mutated_pools_keep_their_form() {
        let good = put(&put(b"", "A", "1"), PROVISIONING_REPORT, "x");
        let mut random = Random::new();
        for _ in 0..4_000 {
            let pool = put(&random.damage(&good), PROVISIONING_REPORT, "new");
            assert_eq!(pool.len() % 2560, 0);
            let last = &pool[pool.len() - 2560..];
            assert_eq!(read(last), [pair(PROVISIONING_REPORT, "new")]);
        }
    }
}
