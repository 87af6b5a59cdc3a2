//! Promises about who comes in afterwards: a real SSH client, over the wire, to an installed Debian.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guest::{Desk, Guest, HOST_NAME, KEY, UP, USER};
use super::lock;
use super::scene::{Broken, Scene, Seen};
use crate::arch::Arch;
use crate::boot::{Moment, Options};
use crate::debian::{self, Flavour};
use crate::fault::Fault;
use crate::secret::Planted;

const PASSWORD: &str = "Plain-6f1c0e&Words";
const CUSTOM_DATA: &str = "# Custom-8d02aa, and nobody else's business\n";

/// So many bytes on each side of a secret make it a piece of the document.
const NEIGHBOURS: usize = 96;

/// How the kernel deals out memory.
const PAGE: usize = 4096;

/// What the console shows when the machine's own system has only just begun.
const BEGUN: &str = "@@ begin";

/// How to come in with a password.
pub(super) const ASKED: [&str; 4] = [
    "-o",
    "PubkeyAuthentication=no",
    "-o",
    "NumberOfPasswordPrompts=1",
];

/// The machine with systemd needs its time.
const SYSTEMD_LIMIT: Duration = Duration::from_mins(5);

/// What came of the boot that somebody visited.
#[derive(Debug, Default)]
pub(super) struct Visited {
    /// Logins that were not as they must be.
    refused: Vec<String>,
    /// What is wrong with the host key.
    host_key: Vec<String>,
    /// Secrets that were found where they do not belong.
    found: Vec<String>,
    console: String,
    journal: Vec<String>,
}

impl Visited {
    fn unless_empty(&self, troubles: &[String]) -> Result<(), Broken> {
        if troubles.is_empty() {
            return Ok(());
        }
        Err(Broken::new(
            troubles.join("\n  "),
            &self.console,
            &self.journal,
        ))
    }
}

pub(super) fn visitor_logs_in(scene: &Scene) -> Result<(), Broken> {
    let visited = visited(scene)?;
    visited.unless_empty(&visited.refused)
}

pub(super) fn host_key_is_the_one_on_the_console(scene: &Scene) -> Result<(), Broken> {
    let visited = visited(scene)?;
    visited.unless_empty(&visited.host_key)
}

pub(super) fn secrets_are_nowhere_else(scene: &Scene) -> Result<(), Broken> {
    let visited = visited(scene)?;
    visited.unless_empty(&visited.found)
}

/// Gives the boot that somebody visited, which is run when it is asked for first.
fn visited(scene: &Scene) -> Result<Arc<Visited>, Broken> {
    let mut made = lock(&scene.visited);
    if let Some(visited) = made.as_ref() {
        return Ok(Arc::clone(visited));
    }
    let visited = Arc::new(visit(scene)?);
    *made = Some(Arc::clone(&visited));
    Ok(visited)
}

/// Boots an installed Debian with a small init, looks into its memory and logs in.
fn visit(scene: &Scene) -> Result<Visited, Broken> {
    let desk = Arc::new(Desk::set(&scene.lab, &scene.directory.join("visit"))?);
    let secrets = [
        Planted::new("the password", PASSWORD),
        Planted::new("custom data", CUSTOM_DATA.trim()),
    ];
    let document = desk.document().password(PASSWORD);
    let text = document.custom_data(CUSTOM_DATA.as_bytes()).build();
    let document = desk.written("document.xml", text.as_bytes())?;
    let troubles = Arc::new(Mutex::new(Visited::default()));
    let pcap = desk.directory.join("wire.pcap");
    let look = {
        let (desk, troubles, secrets) = (desk.clone(), troubles.clone(), secrets.clone());
        Moment {
            line: BEGUN,
            act: Arc::new(move |hands| {
                let memory = desk.directory.join("memory");
                hands.monitor.memory(&memory)?;
                let found = in_memory(&memory, text.as_bytes(), &secrets)?;
                fs::remove_file(&memory).map_err(Fault::file("remove", &memory))?;
                lock(&troubles).found.extend(found);
                Ok(())
            }),
        }
    };
    let come = {
        let (desk, troubles) = (desk.clone(), troubles.clone());
        Moment {
            line: UP,
            act: Arc::new(move |hands| {
                let mut guest = Guest::arrive(&desk, hands)?;
                by_key_and_by_password(&mut guest)?;
                let mut troubles = lock(&troubles);
                troubles.refused = guest.refused;
                troubles.host_key = guest.host_key;
                Ok(())
            }),
        }
    };
    let seen = Seen::of(&Options {
        root_disk: Some(debian::disk(&scene.lab, Flavour::Plain, Arch::X86_64)?),
        document: Some(document),
        pcap: Some(pcap.clone()),
        moments: vec![look, come],
        time_limit: Duration::from_mins(4),
        ..scene.options(&["init=/usr/sbin/lab-init"])
    })?;
    seen.went_on()?;
    seen.became_ready()?;
    seen.fact("kernel_hostname", HOST_NAME)?;
    let mut visited = std::mem::take(&mut *lock(&troubles));
    visited.console.clone_from(&seen.0.console);
    visited.journal = seen.journal();
    let root = &seen.0.root_disk;
    let places = [
        (
            "the root disk",
            fs::read(root).map_err(Fault::file("read", root))?,
        ),
        ("the console", seen.0.console.clone().into_bytes()),
        (
            "the wire",
            fs::read(&pcap).map_err(Fault::file("read", &pcap))?,
        ),
        (
            "the platform's journal",
            visited.journal.join("\n").into_bytes(),
        ),
    ];
    for (place, bytes) in places {
        let mut kept = 0;
        for find in Planted::search(&secrets, &bytes) {
            // The one file that custom data is kept in.
            if place == "the root disk" && find.name == "custom data" && find.form == "as it is" {
                kept += 1;
                if kept == 1 {
                    continue;
                }
            }
            visited.found.push(format!(
                "{} is in {place} {}, at byte {}",
                find.name, find.form, find.at
            ));
        }
    }
    Ok(visited)
}

/// Looks for secrets in a machine's memory, and says among what they stand.
///
/// A piece of the disc's document, byte for byte, is a buffer of the kernel's, through which it came
/// from the drive or from process to process: programs cannot wipe those. Whatever a program made of
/// it has other neighbours. The file that custom data is kept in has been written just now.
fn in_memory(memory: &Path, document: &[u8], secrets: &[Planted]) -> Result<Vec<String>, Fault> {
    let bytes = fs::read(memory).map_err(Fault::file("read", memory))?;
    let places = Planted::search(secrets, document);
    let mut found = Vec::new();
    for find in Planted::search(secrets, &bytes) {
        let is_piece = places.iter().any(|place| {
            let piece = |all: &[u8], at: usize| {
                let start = at.checked_sub(NEIGHBOURS)?;
                all.get(start..at + NEIGHBOURS).map(<[u8]>::to_vec)
            };
            let wanted = piece(document, place.at);
            place.form == find.form && wanted.is_some() && piece(&bytes, find.at) == wanted
        });
        let page = find.at - find.at % PAGE;
        let page = bytes.get(page..page + PAGE).unwrap_or_default();
        let is_file = page
            .strip_prefix(CUSTOM_DATA.as_bytes())
            .is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
        if is_piece || is_file {
            continue;
        }
        let (from, to) = (find.at.saturating_sub(48), bytes.len().min(find.at + 48));
        let around: String = String::from_utf8_lossy(&bytes[from..to])
            .chars()
            .map(|c| {
                if c.is_control() || c == '\u{fffd}' {
                    '.'
                } else {
                    c
                }
            })
            .collect();
        found.push(format!(
            "{} is in memory {}, at byte {:#x}: {around}",
            find.name, find.form, find.at
        ));
    }
    Ok(found)
}

pub(super) fn visitor_logs_in_under_systemd(scene: &Scene) -> Result<(), Broken> {
    let desk = Arc::new(Desk::set(&scene.lab, &scene.directory.join("systemd"))?);
    let refused = Arc::new(Mutex::new(Vec::new()));
    let come = {
        let (desk, refused) = (desk.clone(), refused.clone());
        Moment {
            line: UP,
            act: Arc::new(move |hands| {
                let mut guest = Guest::arrive(&desk, hands)?;
                under_systemd(&mut guest)?;
                lock(&refused).extend(guest.refused);
                Ok(())
            }),
        }
    };
    let seen = Seen::of(&Options {
        root_disk: Some(debian::disk(&scene.lab, Flavour::Plain, Arch::X86_64)?),
        document: Some(desk.written("document.xml", desk.document().build().as_bytes())?),
        moments: vec![come],
        time_limit: SYSTEMD_LIMIT,
        ..scene.options(&["systemd.show_status=0", "quiet"])
    })?;
    seen.became_ready()?;
    seen.fact("kernel_hostname", HOST_NAME)?;
    seen.fact("failed", "")?;
    let refused = lock(&refused).join("\n  ");
    seen.expect(refused.is_empty(), || refused.clone())
}

fn by_key_and_by_password(guest: &mut Guest<'_>) -> Result<(), Fault> {
    const WHO: &str = "id -un; hostname; pwd";
    let whole = format!("{USER}\n{HOST_NAME}\n/home/{USER}\n");
    guest.desk.written("password", PASSWORD.as_bytes())?;
    guest.comes_in("by password", &ASKED, WHO, "", &whole)?;
    // As it stands in the document.
    guest.desk.written("password", b"Plain-6f1c0e&amp;Words")?;
    let known = guest.desk.directory.join("known_hosts");
    let wrong = guest.ssh(guest.strict, &known, &ASKED, "true", "")?;
    if wrong.status.success() {
        guest
            .refused
            .push("another password is accepted".to_owned());
    }
    // The last command lets the machine end.
    let command = format!(
        "{WHO}; sudo -n true 2>/dev/null || echo asks; \
         sudo -S -p '' sh -c 'cat /var/lib/preroot/custom-data; touch /run/over'"
    );
    let answer = format!("{whole}asks\n{CUSTOM_DATA}");
    // Only sudo reads it.
    let input = format!("{PASSWORD}\n");
    guest.comes_in("by key", &KEY, &command, &input, &answer)
}

fn under_systemd(guest: &mut Guest<'_>) -> Result<(), Fault> {
    let command = "id -un; hostname; cat /run/systemd/netif/links/* | grep -c =configured; \
                   sudo -n systemctl poweroff --no-wall --no-block";
    let answer = format!("{USER}\n{HOST_NAME}\n1\n");
    guest.comes_in("by key", &KEY, command, "", &answer)
}
