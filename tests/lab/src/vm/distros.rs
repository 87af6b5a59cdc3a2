//! Promises about a Debian that makes its own initramfs: what its generators, its systemd and its
//! network find after us is what they would have found without us.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guest::{Desk, Guest, HOST_NAME, UP};
use super::lock;
use super::scene::{Broken, Scene, Seen};
use super::snapshot::{self, Snapshot};
use crate::boot::{Disc, Moment, Options};
use crate::distro::Initramfs;
use crate::platform::journal::Way;
use crate::platform::plug::now;
use crate::platform::{Entry, Platform};
use crate::progress;
use crate::qemu::Exit;
use crate::words::Words;

/// A Debian takes its time in an emulator.
const LIMIT: Duration = Duration::from_mins(6);

/// What the visitor runs.
const LOOK: &str = include_str!("../../data/distro-look.sh");

/// What the real init says first, and the initramfs' systemd does not.
const REAL_INIT: &str = "systemd[1]: Hostname set to <vm-desk01>";

/// Has the kernel note when programs begin and end.
const TRACE: &str = "trace_event=sched:sched_process_exec,sched:sched_process_exit";

/// What a boot with nothing to do may take: so long, or this part of the time up to the real init.
const BAR: Duration = Duration::from_millis(50);
const BAR_PART: f64 = 0.02;

/// An emulated machine beside others is measured roughly; so many times the bar is no accident.
const ALLOWANCE: f64 = 5.0;

/// Where a provisioning writes, as the README has it, on a machine like this.
const OURS: [&str; 19] = [
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
const DEBIANS_FIRST: [&str; 3] = [
    "/etc/machine-id",
    // The first use of sudo.
    "/home/deskadmin/.sudo_as_admin_successful",
    "/var/lib/systemd/",
];

/// Where Debian itself writes whenever it runs.
const DEBIANS: [&str; 4] = [
    "/tmp/",
    "/var/lib/systemd/random-seed",
    "/var/log/",
    "/var/tmp/",
];

/// What is mounted in a Debian that has started: exactly there, or anywhere below.
const MOUNTS: [&str; 4] = ["/", "/dev/", "/proc/", "/sys/"];
const MOUNTS_RUN: [&str; 3] = ["/run", "/run/lock", "/run/user/1000"];

/// What may be left in `/run/preroot`.
const RUN: [&str; 2] = ["/run/preroot", "/run/preroot/report.json"];

pub(super) fn dracut_with_systemd(scene: &Scene) -> Result<(), Broken> {
    at_home(scene, Initramfs::DracutSystemd)
}

pub(super) fn dracut_without_systemd(scene: &Scene) -> Result<(), Broken> {
    at_home(scene, Initramfs::Dracut)
}

pub(super) fn initramfs_tools(scene: &Scene) -> Result<(), Broken> {
    at_home(scene, Initramfs::InitramfsTools)
}

/// Boots a Debian with the initramfs of one initramfs for the first and for the second time.
fn at_home(scene: &Scene, initramfs: Initramfs) -> Result<(), Broken> {
    let distro = scene.distro()?;
    let desk = Desk::set(&scene.lab, &scene.directory.join(initramfs.name()))?;
    let desk = Arc::new(desk);
    let options = |root: &Path, more: &[&str]| {
        let mut append = vec!["systemd.show_status=0", TRACE];
        if initramfs == Initramfs::InitramfsTools {
            append.push("preroot.nic=ens3");
        }
        append.extend(more);
        Options {
            initramfs: Some(distro.initramfs(initramfs)),
            root_disk: Some(root.to_owned()),
            disc: Disc::Empty,
            writable: false,
            time_limit: LIMIT,
            ..scene.options(&append)
        }
    };
    let document = desk.written("document.xml", desk.document().build().as_bytes())?;
    let first = Visit::pay(
        &desk,
        true,
        Options {
            disc: Disc::Made,
            document: Some(document),
            ..options(&distro.disk(), &[])
        },
    )?;
    first.seen.became_ready()?;
    first.found_at_home()?;
    let ready = first.seen.0.platform.as_ref().and_then(Platform::ready);
    first.publishes_its_name_after(ready)?;
    let pristine = snapshot::take(&scene.lab, &distro.disk())?;
    let after_first = snapshot::take(&scene.lab, &first.seen.0.root_disk)?;
    first.changed_only(
        &pristine,
        &after_first,
        &[&OURS[..], &DEBIANS_FIRST, &DEBIANS].concat(),
    )?;

    let second = Visit::pay(&desk, false, options(&first.seen.0.root_disk, &[]))?;
    second.found_at_home()?;
    second.seen.says("nothing to do")?;
    let said = second.seen.said();
    let waited = said.iter().find(|line| line.contains("waiting for"));
    second.seen.expect(waited.is_none(), || {
        format!("it waited: {}", waited.map_or("", String::as_str))
    })?;
    let heard = second.seen.0.platform.as_ref();
    let heard = heard.and_then(Platform::first_frame);
    second
        .seen
        .expect(second.began.is_some() && heard >= second.began, || {
            "the machine sends frames before its real init has begun".to_owned()
        })?;
    second.publishes_its_name_after(second.began)?;
    let after_second = snapshot::take(&scene.lab, &second.seen.0.root_disk)?;
    second.changed_only(&after_first, &after_second, &DEBIANS)?;

    let off = Seen::of(&Options {
        stop_at: Some(REAL_INIT.to_owned()),
        ..options(&first.seen.0.root_disk, &["preroot=off"])
    })?;
    second.took_no_time(initramfs, &off)
}

/// A boot, and what a visitor saw of it.
struct Visit {
    seen: Seen,
    words: Words,
    /// When the real init began, by the platform's clock.
    began: Option<Duration>,
}

impl Visit {
    /// Boots, lets somebody in, and has him look around and switch the machine off.
    fn pay(desk: &Arc<Desk>, is_first: bool, options: Options) -> Result<Self, Broken> {
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
                    let mut guest = if is_first {
                        Guest::arrive(&desk, hands)?
                    } else {
                        Guest::return_to(&desk, hands)
                    };
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
    fn only(&self, name: &str, why: &str, may_be: impl Fn(&str) -> bool) -> Result<(), Broken> {
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
    fn fact(&self, name: &str, value: &str) -> Result<(), Broken> {
        let fact = self.words.fact(name).unwrap_or("not told");
        self.seen.expect(fact == value, || {
            let more: Vec<_> = self.words.lines("warning").collect();
            format!("{name} is {fact}, not {value}\n  {}", more.join("\n  "))
        })
    }

    /// Fails unless the system is as it is when nobody was there before it.
    fn found_at_home(&self) -> Result<(), Broken> {
        self.only("failed", "units failed", |_| false)?;
        self.fact("state", "running")?;
        self.fact("static_hostname", HOST_NAME)?;
        self.fact("hostname", HOST_NAME)?;
        self.only("renaming", "the interface could not be renamed", |_| false)?;
        self.only("link", "networkd has not configured it", |link| {
            let words: Vec<_> = link.split_whitespace().collect();
            matches!(words[..], [_, "lo", ..])
                || matches!(words[..], [_, name, "ether", "routable", "configured"] if !name.starts_with("eth"))
        })?;
        let addresses = self.words.lines("address").count();
        self.seen.expect(addresses == 1, || {
            format!("{addresses} addresses, not networkd's one")
        })?;
        self.only("route", "somebody else's routes", |route| {
            ["proto dhcp", "proto kernel"]
                .iter()
                .any(|of| route.contains(of))
        })?;
        self.only("process", "left behind", |process| {
            !process.contains("preroot") && !process.contains("(deleted)")
        })?;
        self.only("mounts", "mounted by somebody else", |mount| {
            let place = mount.split(' ').nth(1).unwrap_or_default();
            MOUNTS_RUN.contains(&place)
                || place.starts_with("/run/credentials/systemd-")
                || MOUNTS.iter().any(|known| {
                    place == known.trim_end_matches('/')
                        || known.len() > 1 && place.starts_with(known)
                })
                || place == "/" && mount.starts_with("/dev/vda ")
        })?;
        self.only("run", "left in /run", |path| RUN.contains(&path))
    }

    /// Fails unless networkd asks for an address, and with the machine's name, after this.
    fn publishes_its_name_after(&self, moment: Option<Duration>) -> Result<(), Broken> {
        let entries = self.seen.0.platform.iter().flat_map(Platform::journal);
        let mut asked = entries.filter_map(|entry| match entry {
            Entry::Dhcp {
                at,
                way: Way::FromGuest,
                summary,
                ..
            } if Some(*at) > moment && summary.starts_with("DISCOVER") => Some(summary),
            _ => None,
        });
        let asked = asked.next();
        let named = format!(" host={HOST_NAME} ");
        self.seen
            .expect(asked.is_some_and(|asked| asked.contains(&named)), || {
                format!("networkd asks for no address in the machine's name: {asked:?}")
            })
    }

    /// Fails unless the files that changed are all among these, or directories above one.
    fn changed_only(
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

    /// Says how long the program held up this boot; fails if that is several times what it may be.
    fn took_no_time(&self, initramfs: Initramfs, off: &Seen) -> Result<(), Broken> {
        let (held, beside) = held(&self.words);
        let (with, without) = (init_begins(&self.seen), init_begins(off));
        let (Some(held), Some(with), Some(without)) = (held, with, without) else {
            return self.seen.expect(false, || {
                format!("no times: held {held:?}, init at {with:?}, without at {without:?}")
            });
        };
        let part = held.as_secs_f64() / with.as_secs_f64();
        let is_within = held < BAR || part < BAR_PART;
        progress::line(format_args!(
            "{}: a boot with nothing to do: preroot held it up for {:.1} ms of {:.2} s from kernel to \
             init ({:.2} %, bar {} ms or {} %: {}){}; with preroot=off {:.2} s",
            initramfs.name(),
            held.as_secs_f64() * 1e3,
            with.as_secs_f64(),
            part * 1e2,
            BAR.as_millis(),
            BAR_PART * 1e2,
            if is_within { "within" } else { "above" },
            beside.map_or_else(String::new, |beside| format!(
                ", and ran {:.1} ms beside it",
                beside.as_secs_f64() * 1e3
            )),
            without.as_secs_f64(),
        ));
        let limit = BAR.as_secs_f64().max(BAR_PART * with.as_secs_f64()) * ALLOWANCE;
        self.seen.expect(held.as_secs_f64() < limit, || {
            format!("a boot with nothing to do is held up for {held:?}")
        })
    }
}

/// Takes from the kernel's trace how long the last run of preroot took, and the one before.
///
/// The last is the one that the boot waits for. Those that it forks begin no program.
fn held(words: &Words) -> (Option<Duration>, Option<Duration>) {
    let events: Vec<_> = words.lines("trace").filter_map(event).collect();
    let mut runs = events
        .iter()
        .filter(|(_, is_exec, _)| *is_exec)
        .map(|(pid, _, begin)| {
            let exit = events
                .iter()
                .find(|(ended, is_exec, at)| ended == pid && !is_exec && at > begin);
            exit.and_then(|(_, _, end)| end.checked_sub(*begin))
        });
    let last = runs.next_back().flatten();
    (last, runs.next_back().flatten())
}

/// Reads a line `preroot-173 [000] ..... 13.014479: sched_process_exec: filename=... pid=173 ...`.
fn event(line: &str) -> Option<(&str, bool, Duration)> {
    let (head, tail) = line.split_once(": sched_process_")?;
    let at = head.split_whitespace().next_back()?.parse().ok()?;
    let pid = tail.split(' ').find_map(|word| word.strip_prefix("pid="))?;
    Some((
        pid,
        tail.starts_with("exec"),
        Duration::try_from_secs_f64(at).ok()?,
    ))
}

/// Says how long after the kernel the real init began.
fn init_begins(seen: &Seen) -> Option<Duration> {
    let mut lines = seen.0.console.lines();
    let line = lines.find(|line| line.contains(REAL_INIT))?;
    let stamp = line
        .split_once('[')?
        .1
        .split_once(']')?
        .0
        .trim()
        .parse()
        .ok()?;
    Duration::try_from_secs_f64(stamp).ok()
}
