//! The record that Hyper-V's daemon of the real root shows to the host.

use std::fs;

use crate::azure::Azure;
use crate::healthy::with_key;
use crate::machine::{Machine, OTHER_VM_ID, VM_ID, on_machine};

const POOL: &str = "var/lib/hyperv/.kvp_pool_1";

/// Reads the pool as the daemon does: 512 bytes of key and 2048 of value, each up to its NUL.
fn records(machine: &Machine) -> Vec<(String, String)> {
    let pool = fs::read(machine.root().join(POOL)).unwrap();
    assert_eq!(pool.len() % 2560, 0);
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    };
    pool.chunks(2560)
        .map(|record| (text(&record[..512]), text(&record[512..])))
        .collect()
}

#[test]
fn host_finds_what_the_platform_was_told() {
    on_machine(|machine| {
        // Of an earlier boot, and about nothing any more.
        let pool = machine.root().join(POOL);
        fs::create_dir_all(pool.parent().unwrap()).unwrap();
        fs::write(&pool, [0; 2560]).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let file = fs::File::options().write(true).open(&pool).unwrap();
        file.set_modified(long_ago).unwrap();
        let document = with_key().build();
        machine.insert_text(&document.replace("</Environment>", "</Environmen>"));
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(111);
        let told = azure.end().failed();
        assert_eq!(records(machine), [("PROVISIONING_REPORT".into(), told)]);

        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(0);
        azure.end().ready();
        let [(key, value)] = &records(machine)[..] else {
            panic!("{:?}", records(machine));
        };
        assert_eq!(key, "PROVISIONING_REPORT");
        let version = env!("CARGO_PKG_VERSION");
        let start = format!(
            "result=success|agent=preroot/{version}|pps_type=None|vm_id={VM_ID}|timestamp=20"
        );
        assert!(value.starts_with(&start), "{value}");
        assert_eq!(machine.rights("var/lib/hyperv"), (0o755, 0, 0));
        assert_eq!(machine.rights(POOL), (0o644, 0, 0));

        // Others have written since: theirs stays.
        let others = [&[b'K'; 1][..], &[0; 511], &[b'v'; 1], &[0; 2047]].concat();
        let ours = fs::read(&pool).unwrap();
        fs::write(&pool, [others, ours].concat()).unwrap();
        let azure = Azure::start("healthy");
        machine.provision(&["--vm-id", OTHER_VM_ID]).exits(0);
        azure.end().ready();
        let keys: Vec<_> = records(machine)
            .into_iter()
            .map(|record| record.0)
            .collect();
        assert_eq!(keys, ["K", "PROVISIONING_REPORT"]);
        assert!(records(machine)[1].1.contains(OTHER_VM_ID));
    });
}

#[test]
fn host_is_told_nothing_when_the_platform_is_not() {
    on_machine(|machine| {
        machine.insert(&with_key());
        machine.provision(&["--ready=never"]).exits(0);
        assert!(!machine.has("var/lib/hyperv"));
    });
}
