//! The real root: waiting for it, looking at it, making it what the identity says.

mod network;
mod programs;

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use rustix::fd::BorrowedFd;
use zeroize::Zeroizing;

use super::options::{From, Options, Output as Wanted};
use crate::engine::identity::Identity;
use crate::engine::plan::{
    self, COVER, Context, HOST_NAME, Output, Plan, PlanFault, RootFault, RootView as _, Step,
};
use crate::linux::log::{Level, Log};
use crate::linux::mount::{self, Mounts};
use crate::linux::root::{Below, Root};
use crate::linux::{clock, files};
use crate::wire::kvp;
use crate::wire::ovf::Password;
use crate::wire::settings;
use crate::wire::timestamp;
use crate::wire::vmid::VmId;

/// Where the two families of initramfs mount the real root.
const USUAL: [&str; 2] = ["/sysroot", "/new_root"];
/// The root of the running system.
pub(super) const RUNNING: &str = "/";
/// Our own root, that of the initramfs.
const OWN: &str = "/";
/// How long these are waited for.
const USUAL_WAIT: Duration = Duration::from_secs(90);
/// Our own settings.
const SETTINGS: &str = "/etc/preroot.conf";
/// waagent's, which say how the image's owner wants it to be provisioned.
const WAAGENT: &str = "/etc/waagent.conf";

/// Where systemd-tmpfiles looks for what is to be done on this boot.
const TMPFILES: &str = "/run/tmpfiles.d";

/// The real root, still awaited or here.
pub(super) struct Rooted {
    places: heapless::Vec<String, 2>,
    mounts: Option<Mounts>,
    until: Duration,
    state: State,
    /// Whether the changes are left to the root's own systemd.
    hands_over: bool,
}

enum State {
    /// Somebody will say when and where it is there.
    Gated,
    Awaited,
    Here {
        root: Root,
        /// What fstab lists, mounted for as long as we work.
        below: Option<Below>,
        path: String,
        made_writable: bool,
    },
    Missed,
}

/// What the markers on a root say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    /// Another machine's root, or nobody's yet.
    No,
    /// It has this machine's identity; the platform was not told.
    Configured,
    /// The platform knows that this machine is ready.
    Reported,
}

/// What became of a plan.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Files and directories that were written.
    pub(super) written: u32,
    /// Those that were right already.
    pub(super) unchanged: u32,
}

/// Why a root is not what it should be.
pub(super) enum RootedFault {
    /// No plan could be made.
    Plan(PlanFault),
    /// A change could not be made.
    Apply(String, RootFault),
    /// There is no root.
    Missed,
}

impl RootedFault {
    /// Says what a person should do.
    pub(super) fn fix(&self) -> &'static str {
        match self {
            RootedFault::Plan(PlanFault::NoAccounts(_)) => {
                "provision the deployment, whose /etc/passwd may be empty"
            }
            RootedFault::Plan(PlanFault::OldSystemd(_)) => "give preroot.output=files",
            RootedFault::Plan(_) => "mend the image or the VM's options",
            RootedFault::Apply(_, fault) if fault.is_read_only() => {
                "give the image a writable /etc, /var and /home, as overlays or file systems"
            }
            RootedFault::Apply(..) | RootedFault::Missed => "mend the image",
        }
    }
}

impl fmt::Display for RootedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RootedFault::Plan(fault) => fault.fmt(f),
            RootedFault::Apply(path, fault) => write!(f, "{path}: {fault}"),
            RootedFault::Missed => f.write_str("the root is not there"),
        }
    }
}

impl Rooted {
    /// Begins to wait for the root.
    pub(super) fn new(options: &Options, now: Duration) -> Self {
        let mut places = heapless::Vec::new();
        // Room for two, and there are no more than two.
        match &options.root {
            Some(root) => {
                let _ = places.push(root.clone());
            }
            None => places.extend(USUAL.map(String::from)),
        }
        let default = if options.root.is_some() {
            Duration::ZERO
        } else {
            USUAL_WAIT
        };
        let wait = options.wait_root.unwrap_or(default);
        Rooted {
            places,
            mounts: if wait.is_zero() {
                None
            } else {
                Mounts::open().ok()
            },
            until: now.saturating_add(wait),
            state: State::Awaited,
            hands_over: false,
        }
    }

    /// Begins to wait for somebody who says where the root is, until `until` at most.
    pub(super) fn gated(until: Duration) -> Self {
        Rooted {
            places: heapless::Vec::new(),
            mounts: None,
            until,
            state: State::Gated,
            hands_over: false,
        }
    }

    /// Looks whether the root has come; tells so once.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub(super) fn poll(&mut self, now: Duration) -> bool {
        if !matches!(self.state, State::Awaited) {
            return false;
        }
        for path in &self.places {
            let here = match &self.mounts {
                None => true,
                Some(mounts) => mounts.is_mount_point(path).unwrap_or(false),
            };
            if here && let Ok(mut root) = Root::open(path) {
                // In the running system everything is as it shall be.
                let below = (path != RUNNING).then(|| Below::mount(&mut root, path));
                self.state = State::Here {
                    root,
                    below,
                    path: path.clone(),
                    made_writable: false,
                };
                return true;
            }
        }
        if now >= self.until {
            self.state = State::Missed;
        }
        false
    }

    /// Tells whether the root is here.
    pub(super) fn is_here(&self) -> bool {
        matches!(self.state, State::Here { .. })
    }

    /// Tells whether somebody has yet to say where the root is.
    pub(super) fn is_gated(&self) -> bool {
        matches!(self.state, State::Gated)
    }

    /// Tells whether the root did not come in time.
    pub(super) fn is_missed(&self) -> bool {
        matches!(self.state, State::Missed)
    }

    /// Waits no longer.
    pub(super) fn give_up(&mut self) {
        if !self.is_here() {
            self.state = State::Missed;
        }
    }

    /// Returns when the root is given up, while it is awaited.
    pub(super) fn awaited_until(&self) -> Option<Duration> {
        matches!(self.state, State::Awaited | State::Gated).then_some(self.until)
    }

    /// Returns what tells that mounts have changed, while the root is awaited.
    pub(super) fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        use rustix::fd::AsFd as _;
        self.awaited_until()?;
        self.mounts.as_ref().map(|mounts| mounts.as_fd())
    }

    /// Returns the places where the root is awaited.
    pub(super) fn places(&self) -> &[String] {
        &self.places
    }

    fn root(&self) -> Option<&Root> {
        match &self.state {
            State::Here { root, .. } => Some(root),
            State::Gated | State::Awaited | State::Missed => None,
        }
    }

    /// Gives the root unless all that is done there is left to its own systemd.
    fn to_write_in(&self) -> Option<&Root> {
        self.root().filter(|_| !self.hands_over)
    }

    /// Reads what the markers say; an unreadable marker says nothing.
    pub(super) fn marked(&self, vm_id: VmId) -> Marked {
        let Some(root) = self.root() else {
            return Marked::No;
        };
        let is_ours = |id: Result<Option<String>, PlanFault>| {
            id.ok()
                .flatten()
                .and_then(|id| VmId::parse(&id))
                .is_some_and(|id| id.same_machine(vm_id))
        };
        // A specialized machine has no identity to be configured with, and is reported once.
        if is_ours(plan::reported_for(root)) {
            Marked::Reported
        } else if is_ours(plan::configured_for(root)) {
            Marked::Configured
        } else {
            Marked::No
        }
    }

    /// Takes the settings that the root has.
    pub(super) fn take_settings(&self, options: &mut Options, log: &Log) {
        if let State::Here { root, path, .. } = &self.state {
            take_file(root, path, From::Root, options, Some(log));
            if let Ok(Some(file)) = root.read(WAAGENT, settings::FILE_MAX) {
                options.take_waagent(&file, &mut |option, value| {
                    log.line(
                        Level::Warning,
                        format_args!("{path}{WAAGENT}: {option}={value} is not honoured"),
                    );
                });
            }
        }
    }

    /// Decides who makes the changes; a root that can be made writable, and may be, is writable then.
    #[inline(never)]
    fn output(&mut self, options: &Options, log: &Log) -> Result<Output, RootedFault> {
        let State::Here { root, path, .. } = &self.state else {
            return Err(RootedFault::Missed);
        };
        let wanted = options.output;
        let is_obvious = wanted == Wanted::Auto && !mount::is_read_only(path);
        if is_obvious || wanted == Wanted::Files || path == RUNNING {
            return Ok(Output::Files);
        }
        let etc = [path, "/etc"].concat();
        let for_good = plan::is_left_alone(root) || mount::is_read_only_for_good(path);
        if wanted == Wanted::Auto {
            if !for_good && options.dry_run {
                return Ok(Output::Files);
            }
            self.make_writable(log);
            if !mount::is_read_only(&etc) {
                return Ok(Output::Files);
            }
        }
        let version = self.root().and_then(|root| plan::systemd(root));
        if version.is_none_or(|version| version < plan::SYSTEMD) {
            return match wanted {
                // The first file that cannot be written is named.
                Wanted::Auto => Ok(Output::Files),
                _ => Err(RootedFault::Plan(PlanFault::OldSystemd(version))),
            };
        }
        self.hands_over = true;
        let etc = !for_good || !mount::is_read_only(&etc);
        Ok(Output::Credentials { etc })
    }

    /// Computes what is to be changed.
    // Kept apart: a larger frame costs its caller more than the call.
    #[inline(never)]
    pub(super) fn plan(
        &mut self,
        identity: &Identity,
        options: &Options,
        vm_id: VmId,
        log: &Log,
    ) -> Result<Plan, RootedFault> {
        let output = self.output(options, log)?;
        let State::Here { root, below, .. } = &self.state else {
            return Err(RootedFault::Missed);
        };
        let missed = below.iter().flat_map(|below| &below.missed);
        // Who makes the changes later does so when all is mounted.
        for (point, why) in missed.filter(|_| output == Output::Files) {
            log.line(
                Level::Warning,
                format_args!("note: {point} of fstab is not mounted: {why}"),
            );
        }
        let mut salt = [0; 16];
        // Only a password needs it, and on a cold machine the kernel takes a second to have it.
        if matches!(identity.password, Password::Given(_))
            && clock::random_secret(&mut salt).is_err()
        {
            return Err(RootedFault::Plan(PlanFault::Random));
        }
        let mut seed = Zeroizing::new([0; 32]);
        let makes_host_key = options.steps.has(Step::HostKeys) && plan::makes_host_key(root);
        if makes_host_key && clock::random_secret(&mut *seed).is_err() {
            return Err(RootedFault::Plan(PlanFault::Random));
        }
        let context = Context {
            vm_id: &vm_id.to_string(),
            today_days: timestamp::days(clock::unix_seconds()),
            salt,
            host_key_seed: makes_host_key.then_some(&*seed),
            steps: options.steps,
            settings: options.settings,
            output,
        };
        plan::plan(identity, root, &context).map_err(RootedFault::Plan)
    }

    /// Makes the changes and brings them to the disk.
    pub(super) fn apply(&mut self, plan: &Plan, log: &Log) -> Result<Counts, RootedFault> {
        self.make_writable(log);
        let Some(root) = self.root() else {
            return Err(RootedFault::Missed);
        };
        let (plan, applied) = match &plan.credentials {
            // `/run` of the initramfs is the real root's, too, and never outlives the boot.
            Some(plan) => {
                let own = Root::open(OWN).map_err(|fault| (0, fault));
                (&**plan, own.and_then(|own| own.note(plan)))
            }
            None => (plan, root.apply(plan)),
        };
        let applied = applied.map_err(|(index, fault)| {
            let path = plan.changes.get(index).map(|change| change.path.clone());
            RootedFault::Apply(path.unwrap_or_default(), fault)
        })?;
        if !applied.relabel.is_empty() {
            // `/run` is the real root's, too; whatever comes first there reads this.
            files::write_private(TMPFILES, "preroot.conf", applied.relabel.as_bytes());
            log.line(
                Level::Warning,
                format_args!("note: some files have no SELinux label until {TMPFILES} is read"),
            );
        }
        if plan.covers_host_name {
            self.cover_host_name(log);
        }
        Ok(Counts {
            written: applied.written,
            unchanged: applied.unchanged,
        })
    }

    /// Puts the host name over the one of a root that takes no writes.
    // Out of line: it is rare.
    #[inline(never)]
    fn cover_host_name(&self, log: &Log) {
        let State::Here { path, below, .. } = &self.state else {
            return;
        };
        let cover = || Root::open(path)?.cover(HOST_NAME, COVER);
        let covered = match below {
            Some(below) => below.outside(cover),
            None => cover(),
        };
        if let Err(fault) = covered {
            log.line(
                Level::Warning,
                format_args!("note: the image's host name stays: {HOST_NAME}: {fault}"),
            );
        }
    }

    /// Gives the lines by which people know this machine's host key.
    pub(super) fn host_key_lines(
        &self,
        plan: &Plan,
        host_name: &str,
        address: &str,
    ) -> Option<[String; 2]> {
        if plan.credentials.is_some() {
            return plan::planned_host_key(plan, host_name, address);
        }
        plan::host_key_lines(self.root()?, host_name, address)
    }

    /// Leaves what the platform is about to be told where the host's operators may find it, too; no
    /// trouble with that is worth a word.
    #[inline(never)]
    pub(super) fn report_to_host(&mut self, report: &str, log: &Log) {
        // What was written before this boot is about another one.
        let boot = clock::unix_seconds().saturating_sub(clock::boottime().as_secs().cast_signed());
        self.make_writable(log);
        if let Some(root) = self.to_write_in() {
            let pool = root.read_since(plan::kvp::POOL, boot, kvp::POOL_MAX);
            let pool = kvp::put(&pool.unwrap_or_default(), kvp::PROVISIONING_REPORT, report);
            let _ = root.note(&plan::kvp::pool(pool));
        }
    }

    /// Leaves on the root that the platform knows, and the report for whoever looks later.
    ///
    /// Nothing waits for the disk here: if the note is lost with the power, the next boot repeats
    /// the report, and nothing else.
    pub(super) fn note(&mut self, reported: Option<VmId>, report: Vec<u8>, log: &Log) -> bool {
        self.make_writable(log);
        let Some(root) = self.to_write_in() else {
            // Then there is nothing that could be missing on the next boot.
            return self.is_here();
        };
        let reported = reported.map(|vm_id| vm_id.to_string());
        let plan = plan::notes(reported.as_deref(), report);
        root.note(&plan).is_ok()
    }

    /// Makes writable what can be.
    ///
    /// What cannot be is named by the first file that it does not take: a root that is read-only for good
    /// may have a writable /etc and /var.
    fn make_writable(&mut self, log: &Log) {
        let State::Here {
            root,
            path,
            made_writable,
            below,
        } = &mut self.state
        else {
            return;
        };
        if self.hands_over {
            return;
        }
        if path != RUNNING
            && mount::is_read_only(path)
            && !plan::is_left_alone(root)
            && mount::remount(path, true).is_ok()
        {
            *made_writable = true;
            log.line(Level::Info, format_args!("root remounted writable for now"));
        }
        if let Some(below) = below {
            below.make_writable();
        }
    }

    /// Leaves the root as it was mounted: whoever mounted it read-only may want to check it.
    pub(super) fn restore(&mut self, log: &Log) {
        if let State::Here { below, .. } = &mut self.state {
            *below = None;
        }
        if let State::Here {
            path,
            made_writable: writable @ true,
            ..
        } = &mut self.state
        {
            *writable = false;
            if mount::remount(path, false).is_err() {
                log.line(
                    Level::Warning,
                    format_args!("root stays writable: it is in use"),
                );
            }
        }
    }
}

/// Takes the settings in a file of a root, which is at `path`; tells the log what is wrong with them.
// Out of line: it has two callers.
#[inline(never)]
pub(super) fn take_file(
    root: &Root,
    path: &str,
    from: From,
    options: &mut Options,
    log: Option<&Log>,
) {
    let file = match root.read(SETTINGS, settings::FILE_MAX) {
        Ok(file) => file.unwrap_or_default(),
        Err(fault) => {
            if let Some(log) = log {
                log.line(
                    Level::Warning,
                    format_args!("{path}{SETTINGS} ignored: {fault}"),
                );
            }
            return;
        }
    };
    options.take_file(&file, from, &mut |line, name, fault| {
        if let Some(log) = log {
            log.line(
                Level::Warning,
                format_args!("{path}{SETTINGS} line {line}: {name} ignored: {fault}"),
            );
        }
    });
}
