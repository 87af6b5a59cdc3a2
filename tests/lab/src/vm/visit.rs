//! A boot of a Debian that somebody visits: he logs in, looks around, and switches it off.
//!
//! What there must be to see is the promises' matter.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guest::{Desk, Guest, HOST_NAME, UP};
use super::lock;
use super::scene::{Broken, Seen};
use super::snapshot::{self, Snapshot};
use crate::boot::{Moment, Options};
use crate::fault::Fault;
use crate::platform::journal::Way;
use crate::platform::plug::now;
use crate::platform::{Entry, Platform};
use crate::qemu::Exit;
use crate::words::Words;

/// A Debian takes its time in an emulator.
pub(super) const LIMIT: Duration = Duration::from_mins(6);

/// What the real init says first, and the initramfs' systemd does not.
pub(super) const REAL_INIT: &str = "systemd[1]: Hostname set to <vm-desk01>";

/// What the visitor runs.
const LOOK: &str = include_str!("../../data/distro-look.sh");

/// What else a visitor does before he looks around.
pub(super) type Deed = dyn Fn(&mut Guest<'_>) -> Result<(), Fault> + Send + Sync;

/// Where a provisioning writes, as the README has it, on a machine like this.
pub(super) const OURS: [&str; 19] = [
    "/etc/group",
    "/etc/gshadow",
    "/etc/hostname",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/ssh_host_ecdsa_key.pub",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/etc/ssh/sshd_config.d/10-preroot.conf",
    "/etc/subgid",
    "/etc/subuid",
    "/etc/sudoers.d/preroot",
    "/home/deskadmin/.bash_logout",
    "/home/deskadmin/.bashrc",
    "/home/deskadmin/.profile",
    "/home/deskadmin/.ssh/authorized_keys",
    "/var/lib/hyperv/.kvp_pool_1",
    "/var/lib/preroot/",
];

/// Where Debian itself writes when it starts for the first time.
pub(super) const DEBIANS_FIRST: [&str; 3] = [
    "/etc/machine-id",
    // The first use of sudo.
    "/home/deskadmin/.sudo_as_admin_successful",
    "/var/lib/systemd/",
];

/// Where Debian itself writes whenever it runs.
pub(super) const DEBIANS: [&str; 4] = [
    "/tmp/",
    "/var/lib/systemd/random-seed",
    "/var/log/",
    "/var/tmp/",
];

/// Whether somebody comes for the first time, and takes the host key from the console, or comes back, or
/// comes to a machine that makes its host key too late for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    First,
    Second,
    Unannounced,
}

/// A boot, and what a visitor saw of it.
pub(super) struct Visit {
    pub(super) seen: Seen,
    pub(super) words: Words,
    /// When the real init began, by the platform's clock.
    pub(super) began: Option<Duration>,
}

impl Visit {
    /// Boots, lets somebody in, and has him look around and switch the machine off.
    pub(super) fn pay(desk: &Arc<Desk>, errand: Errand, options: Options) -> Result<Self, Broken> {
        Self::pay_and(desk, errand, Arc::new(|_| Ok(())), options)
    }

    /// The same with something to do before.
    pub(super) fn pay_and(
        desk: &Arc<Desk>,
        errand: Errand,
        deed: Arc<Deed>,
        options: Options,
    ) -> Result<Self, Broken> {
        let found = Arc::new(Mutex::new((String::new(), Vec::new(), None)));
        let at_its_beginning = {
            let found = found.clone();
            Moment {
                line: REAL_INIT,
                act: Arc::new(move |_| {
                    lock(&found).2.get_or_insert(now());
                    Ok(())
                }),
            }
        };
        let come = {
            let (desk, found) = (desk.clone(), found.clone());
            Moment {
                line: UP,
                act: Arc::new(move |hands| {
                    let mut guest = match errand {
                        Errand::First => Guest::arrive(&desk, hands)?,
                        Errand::Second => Guest::return_to(&desk, hands),
                        Errand::Unannounced => Guest::trust(&desk, hands)?,
                    };
                    guest.ping()?;
                    deed(&mut guest)?;
                    let said = guest.look(LOOK)?;
                    let mut found = lock(&found);
                    found.0 = said;
                    found.1.extend(guest.refused);
                    found.1.extend(guest.host_key);
                    Ok(())
                }),
            }
        };
        let seen = Seen::of(&Options {
            moments: vec![at_its_beginning, come],
            ..options
        })?;
        let (said, refused, began) = std::mem::take(&mut *lock(&found));
        seen.expect(refused.is_empty(), || refused.join("\n  "))?;
        let words = Words::parse(&said);
        seen.expect(words.began && words.ended, || {
            "nobody could look around".to_owned()
        })?;
        seen.expect(seen.0.exit == Exit::PoweredOff, || {
            format!("the machine ended with {:?}", seen.0.exit)
        })?;
        Ok(Self { seen, words, began })
    }

    /// Fails unless the visitor saw no line of that name but those that may be.
    pub(super) fn only(
        &self,
        name: &str,
        why: &str,
        may_be: impl Fn(&str) -> bool,
    ) -> Result<(), Broken> {
        let wrong: Vec<_> = self
            .words
            .lines(name)
            .filter(|line| !may_be(line))
            .collect();
        self.seen.expect(wrong.is_empty(), || {
            format!("{why}:\n  {}", wrong.join("\n  "))
        })
    }

    /// Fails unless a fact is as it must be.
    pub(super) fn fact(&self, name: &str, value: &str) -> Result<(), Broken> {
        let fact = self.words.fact(name).unwrap_or("not told");
        self.seen.expect(fact == value, || {
            let more: Vec<_> = self.words.lines("warning").collect();
            format!("{name} is {fact}, not {value}\n  {}", more.join("\n  "))
        })
    }

    /// Fails unless the machine kept silent until its real init began.
    pub(super) fn heard_only_after_its_beginning(&self) -> Result<(), Broken> {
        let heard = self.seen.0.platform.as_ref();
        let heard = heard.and_then(Platform::first_frame);
        self.seen
            .expect(self.began.is_some() && heard >= self.began, || {
                "the machine sends frames before its real init has begun".to_owned()
            })
    }

    /// Fails unless a unit was started after another had been.
    pub(super) fn ran_after(&self, later: &str, earlier: &str) -> Result<(), Broken> {
        let started = |unit: &str| {
            let word = format!("Started {unit} ");
            self.words
                .lines("units")
                .position(|line| line.contains(&word))
        };
        let (later_at, earlier_at) = (started(later), started(earlier));
        self.seen
            .expect(earlier_at.is_some() && later_at > earlier_at, || {
                let all: Vec<_> = self.words.lines("units").collect();
                format!(
                    "{later} was not started after {earlier}\n  {}",
                    all.join("\n  ")
                )
            })
    }

    /// Fails unless somebody asks for an address, and with the machine's name, after this.
    ///
    /// What the REQUEST says is what a server registers: a DISCOVER may have left before the disc was read.
    pub(super) fn publishes_its_name_after(&self, moment: Option<Duration>) -> Result<(), Broken> {
        let entries = self.seen.0.platform.iter().flat_map(Platform::journal);
        let mut asked = entries.filter_map(|entry| match entry {
            Entry::Dhcp {
                at,
                way: Way::FromGuest,
                summary,
                ..
            } if Some(*at) > moment && summary.starts_with("REQUEST") => Some(summary),
            _ => None,
        });
        let asked = asked.next();
        let named = format!(" host={HOST_NAME} ");
        self.seen
            .expect(asked.is_some_and(|asked| asked.contains(&named)), || {
                format!("nobody asks for an address in the machine's name: {asked:?}")
            })
    }

    /// Fails unless the files that changed are all among these, or directories above one.
    pub(super) fn changed_only(
        &self,
        before: &Snapshot,
        after: &Snapshot,
        places: &[&str],
    ) -> Result<(), Broken> {
        let is_known = |path: &str| {
            places.iter().any(|place| {
                path == place.trim_end_matches('/')
                    || place.ends_with('/') && path.starts_with(place)
                    || place.starts_with(&format!("{path}/"))
            })
        };
        let strange = snapshot::changes(before, after).filter(|(_, path)| !is_known(path));
        let strange = snapshot::shown(strange);
        self.seen.expect(strange.is_empty(), || {
            format!("changed on the root disk:\n{strange}")
        })
    }
}
