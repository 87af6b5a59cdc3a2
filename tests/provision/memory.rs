//! The memory of our processes: secrets are in none of them once the root has been written.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};

use lab::disc::ovf::Document;
use rustix::mount::MountFlags;

use crate::azure::Azure;
use crate::machine::{HOST_NAME, Machine, USER, on_machine};
use crate::run::{Running, our_places};

/// Both as they are written everywhere: without the letters that XML has its own way to write.
const PASSWORD: &str = "Not-A-Real-1!pw";
const CUSTOM_DATA: &str = "#cloud-config, and nobody else's business: 8f14e45fceea167a\n";
const CUSTOM_DATA_ENCODED: &str =
    "I2Nsb3VkLWNvbmZpZywgYW5kIG5vYm9keSBlbHNlJ3MgYnVzaW5lc3M6IDhmMTRlNDVmY2VlYTE2N2EK";

/// Tells which of the secrets lie where in the memory of the program's processes.
fn found() -> (usize, Vec<String>) {
    let mut found = Vec::new();
    let mut processes = 0;
    for place in our_places() {
        let maps = fs::read_to_string(place.join("maps"));
        let memory = fs::File::open(place.join("mem"));
        // The reader of a disc that is ejected may just be ending.
        let (Ok(maps), Ok(mut memory)) = (maps, memory) else {
            continue;
        };
        processes += 1;
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (start, end) = words.next().unwrap().split_once('-').unwrap();
            let start = u64::from_str_radix(start, 16).unwrap();
            let end = u64::from_str_radix(end, 16).unwrap();
            if !words.next().unwrap().starts_with("rw") {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            memory.seek(SeekFrom::Start(start)).unwrap();
            if memory.read_exact(&mut bytes).is_err() {
                continue;
            }
            // What was never touched is most of it; a zero is in no secret.
            for (page, bytes) in bytes.chunks(4096).enumerate() {
                if bytes == [0; 4096] {
                    continue;
                }
                // Halves are secrets too, and one of them is whole in some page.
                for secret in [
                    &PASSWORD[..8],
                    &PASSWORD[7..],
                    &CUSTOM_DATA[10..26],
                    &CUSTOM_DATA[40..56],
                    &CUSTOM_DATA_ENCODED[10..26],
                    &CUSTOM_DATA_ENCODED[60..76],
                ] {
                    let is_here = |window: &[u8]| window == secret.as_bytes();
                    if let Some(at) = bytes.windows(secret.len()).position(is_here) {
                        let at = start + 4096 * page as u64 + at as u64;
                        let place = place.display();
                        found.push(format!("{secret} at {at:x} in {line} of {place}"));
                    }
                }
            }
        }
    }
    (processes, found)
}

fn insert(machine: &Machine) {
    let document = Document::new(HOST_NAME, USER)
        .password(&format!("{PASSWORD}&x"))
        .custom_data(CUSTOM_DATA.as_bytes());
    machine.insert(&document);
}

/// Looks into a run that says `words` and then waits for a DHCP server that never comes.
fn look(machine: &Machine, words: &str) -> (usize, Vec<String>) {
    let azure = Azure::start("dhcp-never");
    let mut run: Running = machine.start(&["--timeout=9"]);
    run.wait_for(words);
    run.wait_for("preroot: waiting for an answer of a DHCP server");
    let found = found();
    run.end().exits(111);
    azure.end();
    found
}

#[test]
fn secrets_are_in_no_process_after_the_root_was_written() {
    on_machine(|machine| {
        insert(machine);
        let (processes, found) = look(machine, "root ok");
        assert!(machine.read("etc/shadow").contains("opsadmin:$6$"));
        assert_eq!(machine.read("var/lib/preroot/custom-data"), CUSTOM_DATA);
        assert!(processes >= 2, "{processes}");
        assert_eq!(found, [""; 0]);
    });
}

#[test]
fn secrets_are_in_no_process_after_a_failure_either() {
    on_machine(|machine| {
        insert(machine);
        let etc = machine.root().join("etc");
        rustix::mount::mount_bind(&etc, &etc).unwrap();
        rustix::mount::mount_remount(&etc, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        let (processes, found) = look(machine, "read-only file system");
        // The disc is still in its drive, and the reader beside it.
        assert!(processes >= 3, "{processes}");
        assert_eq!(found, [""; 0]);
    });
}
