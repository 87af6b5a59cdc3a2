//! The list of changes that makes an installed system what its identity says.
//!
//! A plan is computed from the identity and a view of the root, touches nothing, and holds only what
//! really differs, in the order in which it must happen: whenever it is interrupted, the same plan made
//! again finishes the work. `configured` is its last change. Not the writer: that is `linux::root`.
//! Follows what waagent, cloud-init and azure-init do to a system, where they agree.
//!
//! The functions of the steps are never inlined, though most have one caller: in one function they would
//! share one frame, so large that each access to it takes three bytes more, 4 KB in all.

mod credentials;
mod custom;
mod door;
mod draft;
mod home;
mod hostkeys;
mod hostname;
mod keys;
pub mod kvp;
mod markers;
mod password;
mod resolver;
mod settings;
mod sshd;
mod steps;
mod sudo;
mod users;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::identity::{Identity, Refusal};
use crate::wire::names::UserName;
pub use credentials::{COVER, SYSTEMD, is_left_alone, systemd};
pub use custom::CUSTOM_DATA;
use draft::Draft;
pub use hostkeys::{
    MADE, SSH_KEYGEN, host_key_lines, makes_host_key, planned_host_key, take_made, without_made,
};
pub use hostname::HOST_NAME;
pub use markers::{configured_for, notes, reported_for};
pub use resolver::{Resolver, resolver};
pub use settings::{Settings, Sudo};
pub use steps::{Step, Steps, StepsFault};

/// What the names of half-written files start with; sudo and others skip such names.
pub const TEMPORARY: &str = ".preroot-";

/// What a root does not let us do, and the kernel's number for why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootFault {
    /// What was tried.
    pub act: Act,
    /// The errno, 0 when the kernel had no objection but we have.
    pub errno: i32,
}

/// What was tried on a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// To open the root itself.
    OpenRoot,
    /// To find a file or one of its directories.
    Find,
    /// To read a file.
    Read,
    /// To read a file that is larger than is sensible for it.
    ReadLarge,
    /// To list a directory.
    List,
    /// To create a temporary file or a directory.
    Create,
    /// To set owner, mode or labels.
    Own,
    /// To write data.
    Write,
    /// To bring data to the disk.
    Sync,
    /// To put the new file in place of the old.
    Replace,
    /// To remove a file.
    Remove,
    /// To lock the account files.
    Lock,
    /// To mount something over it.
    Cover,
    /// To write through something that is neither a file nor a directory.
    WrongKind,
}

impl RootFault {
    /// Tells whether the file system takes no writes.
    pub fn is_read_only(self) -> bool {
        self.errno == 30
    }
}

impl fmt::Display for RootFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.act {
            Act::OpenRoot => "the root cannot be opened",
            Act::Find => "it cannot be reached",
            Act::Read => "it cannot be read",
            Act::ReadLarge => "it is larger than such a file can be",
            Act::List => "it cannot be listed",
            Act::Create => "it cannot be created",
            Act::Own => "its owner, mode or label cannot be set",
            Act::Write => "it cannot be written",
            Act::Sync => "it cannot be brought to the disk",
            Act::Replace => "it cannot be replaced",
            Act::Remove => "it cannot be removed",
            Act::Lock => "the account files cannot be locked",
            Act::Cover => "nothing can be mounted over it",
            Act::WrongKind => "it is of another kind",
        })?;
        let why = match self.errno {
            0 => return Ok(()),
            1 | 13 => "no permission",
            2 => "no such file or directory",
            5 => "input/output error",
            11 => "somebody holds it",
            17 => "it exists",
            18 => "another file system is in the way",
            20 => "not a directory",
            21 => "is a directory",
            28 => "no space left",
            30 => "read-only file system",
            38 => "the kernel is older than 5.6",
            40 => "a symbolic link is in the way",
            122 => "quota exceeded",
            errno => return write!(f, " (errno {errno})"),
        };
        write!(f, " ({why})")
    }
}

/// What kind of thing a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// What a root says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its kind.
    pub kind: Kind,
    /// Its permission bits.
    pub mode: u32,
    /// Its user and group.
    pub owner: (u32, u32),
    /// Its size in bytes.
    pub size: u64,
    /// The file system it is on.
    pub device: u64,
}

/// The installed system, to look at.
///
/// Paths are absolute; symbolic links are followed, but never out of the root.
pub trait RootView {
    /// Reads a file of at most `limit` bytes; nothing when it does not exist.
    fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, RootFault>;
    /// Looks at what a path leads to; nothing when it leads nowhere.
    fn stat(&self, path: &str) -> Result<Option<Stat>, RootFault>;
    /// Tells whether the last part of a path is itself a symbolic link.
    fn is_link(&self, path: &str) -> Result<bool, RootFault>;
    /// Reads where a symbolic link points to; nothing when it is none.
    fn target(&self, path: &str) -> Result<Option<String>, RootFault>;
    /// Names each entry of a directory but `.` and `..`; none when it does not exist.
    fn list(&self, directory: &str, each: &mut dyn FnMut(&str)) -> Result<(), RootFault>;
}

/// What is to be done with one path.
pub enum Action {
    /// Have a file with this content.
    Write(Zeroizing<Vec<u8>>),
    /// Have a directory.
    Directory,
    /// Have nothing.
    Remove,
}

/// One step of a plan.
pub struct Change {
    /// Where, from the root.
    pub path: String,
    /// How many bytes of `path` belong to the system; no symbolic link is followed behind them,
    /// because there they may be a user's.
    pub trusted: usize,
    /// User and group.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// What.
    pub action: Action,
    /// What for, in words for a person, without secrets.
    pub purpose: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            owner: (user, group),
            mode,
            purpose,
            ..
        } = self;
        let verb = match self.action {
            Action::Write(_) => "write",
            Action::Directory => "mkdir",
            Action::Remove => return write!(f, "{:<25}{path}  ({purpose})", "remove"),
        };
        write!(
            f,
            "{verb:<6} {mode:04o} {user:>5}:{group:<5}  {path}  ({purpose})"
        )
    }
}

/// Something a person should know though it stops nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A listed key is not installed.
    RefusedKey(usize, Refusal),
    /// There are keys or a password but no user to have them.
    NoUser,
    /// The disc only says that there was a password.
    RedactedPassword,
    /// The user's shell in the image is one that lets nobody in.
    NoLoginShell,
    /// Neither sudo nor doas is in the root.
    NoSudo,
    /// Part of /etc/skel is too large or of a kind that is not copied.
    SkelLeftOut(u32),
    /// fstab mounts another file system over the home directory, and it is not there yet.
    HomeWillBeHidden,
    /// The custom data was to be run, and is no script.
    CustomDataNoScript,
    /// The custom data is not base64.
    CustomDataNotBase64,
    /// The platform has custom data for the machine, and the disc, which would carry it, has not.
    CustomDataMissing,
    /// The platform expects its guest proxy agent to speak for the machine.
    GuestProxyAgent,
    /// There is an sshd, but no configuration of it where we know one.
    NoSshdConfig,
    /// A `Match` block in this file lets the administrator log in otherwise, perhaps.
    SshdMatch(Box<str>),
    /// sshd is told to look for keys nowhere.
    NoKeysFile,
    /// This keyword in this file has sshd turn the administrator away.
    TurnedAway(&'static str, Box<str>),
    /// The home directory that is there is one from which sshd takes no keys.
    HomeIsWritable,
    /// sshd is told to use other host keys than the new one.
    NoEd25519,
    /// The same, and nobody makes those that it is told to use.
    HostKeysStay,
    /// Nothing in /etc can be changed, now or later.
    EtcStays,
    /// Neither passwd nor records can have the administrator.
    NoAccountWay,
    /// The account is in the image already, and who makes new ones changes none.
    AccountStays,
    /// Custom data is not run where nothing of it can be put in the root.
    CustomDataNotRun,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedKey(position, refusal) => {
                write!(f, "public key {position} is left out: {refusal}")
            }
            Self::NoUser => f.write_str("there are credentials but no user name"),
            Self::RedactedPassword => f.write_str("the password on the disc is redacted"),
            Self::NoLoginShell => f.write_str("the user's shell in /etc/passwd lets nobody log in"),
            Self::NoSudo => {
                f.write_str("neither sudo nor doas is installed: the user will not become root")
            }
            Self::SkelLeftOut(count) => {
                write!(
                    f,
                    "{count} entries of /etc/skel are not copied (links, or too large)"
                )
            }
            Self::HomeWillBeHidden => f.write_str(
                "the home directory is on a file system of fstab that is not mounted: what is \
                 written now will be hidden",
            ),
            Self::CustomDataNoScript => {
                f.write_str("the custom data is not run: it does not start with #!")
            }
            Self::CustomDataNotBase64 => f.write_str("the custom data is not base64"),
            Self::CustomDataMissing => {
                f.write_str("failure to read customData while hasCustomData=true")
            }
            Self::GuestProxyAgent => {
                f.write_str("the platform expects azure-proxy-agent: preroot speaks for itself")
            }
            Self::NoSshdConfig => {
                f.write_str("sshd has no sshd_config in /etc/ssh: it is left as it is")
            }
            Self::SshdMatch(path) => write!(
                f,
                "a Match block in {path} may overrule what the platform says of passwords"
            ),
            Self::NoKeysFile => f.write_str(
                "sshd's AuthorizedKeysFile names no file: the public keys are not installed",
            ),
            Self::TurnedAway(keyword, path) => {
                write!(f, "{keyword} in {path} has sshd turn the user away")
            }
            Self::HomeIsWritable => f.write_str(
                "the user's home directory may be written by others: sshd may take no keys from it",
            ),
            Self::NoEd25519 => {
                f.write_str("sshd's configuration keeps it from using the new ed25519 host key")
            }
            Self::HostKeysStay => f.write_str(
                "the image's host keys stay: sshd's configuration allows no ed25519 key, and \
                 nothing here makes others",
            ),
            Self::EtcStays => f.write_str(
                "/etc is read-only: sudo's rule, sshd's settings, host keys and what stops other \
                 agents are the image's own",
            ),
            Self::NoAccountWay => f.write_str(
                "there is no way to add a user: /etc is read-only, and nsswitch.conf has no \
                 systemd for passwd; root gets the keys",
            ),
            Self::AccountStays => f.write_str(
                "the user is in the image already, whose account files stay as they are: no \
                 password, no further groups",
            ),
            Self::CustomDataNotRun => {
                f.write_str("the custom data is not run: the root takes no writes")
            }
        }
    }
}

/// Says why there can be no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanFault {
    /// The user is one of the system's own.
    SystemUser(Box<UserName>, u32),
    /// The name is that of a group of the system.
    SystemGroup(Box<UserName>, u32),
    /// Nobody could log in: neither key nor password, and the user is not there yet.
    NoCredentials(Box<UserName>),
    /// The root has no account files; what it seems to be instead.
    NoAccounts(&'static str),
    /// The user's line in this file cannot be understood.
    DamagedLine(&'static str),
    /// Every user or group id is taken.
    NoFreeId,
    /// The user's home directory is not an absolute path.
    Home,
    /// Something in the home directory is a symbolic link, or not what it should be.
    HomeHasLinks,
    /// There are no random numbers for a password or a key.
    Random,
    /// A part of the root cannot be looked at.
    Root(&'static str, RootFault),
    /// The root's systemd takes no credentials from an initramfs; its version, if it has one at all.
    OldSystemd(Option<u32>),
    /// The credentials have more bytes than it takes.
    TooMuch(usize),
}

impl fmt::Display for PlanFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SystemUser(name, uid) => {
                write!(f, "user '{name}' (uid {uid}) belongs to the system")
            }
            Self::SystemGroup(name, gid) => {
                write!(f, "group '{name}' (gid {gid}) belongs to the system")
            }
            Self::NoCredentials(name) => {
                write!(f, "no usable public key and no password for user '{name}'")
            }
            Self::NoAccounts(what) => write!(f, "/etc/passwd is missing in the root{what}"),
            Self::DamagedLine(file) => write!(f, "the user's line in {file} is damaged"),
            Self::NoFreeId => f.write_str("no free user or group id"),
            Self::Home => f.write_str("the user's home directory is not an absolute path"),
            Self::HomeHasLinks => f.write_str(
                "the user's .ssh or authorized_keys is a symbolic link or of another kind",
            ),
            Self::Random => f.write_str("the kernel gives no random numbers"),
            Self::Root(path, fault) => write!(f, "{path}: {fault}"),
            Self::OldSystemd(None) => f.write_str("there is no systemd in the root"),
            Self::OldSystemd(Some(version)) => write!(
                f,
                "the root's systemd {version} takes no credentials from an initramfs, as {SYSTEMD} does"
            ),
            Self::TooMuch(bytes) => {
                write!(
                    f,
                    "{bytes} bytes of credentials are more than systemd takes"
                )
            }
        }
    }
}

/// What a step of planning gives; the fault is boxed because it is rare, and every step hands it on.
type Outcome<T> = Result<T, Box<PlanFault>>;

/// What a plan needs to know besides identity and root.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The VM id, lower case, as IMDS gives it.
    pub vm_id: &'a str,
    /// Days since 1970, for the age of the password; 0 when the clock is not to be believed.
    pub today_days: u32,
    /// Sixteen bytes from the kernel's random source.
    pub salt: [u8; 16],
    /// Thirty-two of them for a host key; without them the host keys stay as they are.
    pub host_key_seed: Option<&'a [u8; 32]>,
    /// What to do.
    pub steps: Steps,
    /// How to do it.
    pub settings: Settings,
    /// Who does it.
    pub output: Output,
}

/// Who makes the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// We do, in the root.
    Files,
    /// The root's own systemd, when it runs; it finds what to do among its credentials.
    Credentials {
        /// Whether /etc will take writes then.
        etc: bool,
    },
}

/// Changes in their order, and what a person should know.
#[derive(Default)]
pub struct Plan {
    /// The changes; no path is in two of them.
    pub changes: Vec<Change>,
    /// The notes.
    pub notes: Vec<Note>,
    /// Whether [`CUSTOM_DATA`] is to be run when all is written.
    pub run_custom_data: bool,
    /// Types of host keys that the root's [`SSH_KEYGEN`] is to make before anything is written.
    pub host_key_types: Vec<&'static str>,
    /// What is written below `/run` of the initramfs, instead of the changes, where the root's systemd
    /// makes these.
    pub credentials: Option<Box<Plan>>,
    /// Whether [`COVER`] is to be mounted over the root's [`HOST_NAME`] then.
    pub covers_host_name: bool,
}

impl Plan {
    /// Tells whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        for kind in &self.host_key_types {
            writeln!(f, "{:<25}{SSH_KEYGEN}  ({kind}, in the root)", "run")?;
        }
        if self.run_custom_data {
            writeln!(f, "{:<25}{CUSTOM_DATA}  (as root, in the root)", "run")?;
        }
        if self.covers_host_name {
            writeln!(f, "{:<25}{HOST_NAME}  (with {COVER})", "mount over")?;
        }
        if self.is_empty() {
            writeln!(f, "nothing to change")?;
        }
        if let Some(credentials) = &self.credentials {
            writeln!(f, "nothing of it now: the root's systemd does it, by")?;
            credentials.fmt(f)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

/// Computes what must change in `root` so that it is what `identity` says.
///
/// Empty when the root is configured for this VM already.
pub fn plan(
    identity: &Identity,
    root: &dyn RootView,
    context: &Context<'_>,
) -> Result<Plan, PlanFault> {
    let mut context = *context;
    if context.output == (Output::Credentials { etc: false }) {
        for step in [Step::Sudo, Step::Sshd, Step::HostKeys] {
            context.steps = context.steps.without(step);
        }
    }
    let mut draft = Draft::new(identity, root, &context);
    let is_done = || {
        // A marker that cannot be read says nothing, and is replaced.
        let id = configured_for(root).ok().flatten();
        id.is_some_and(|id| id.eq_ignore_ascii_case(context.vm_id))
    };
    match context.output {
        Output::Files if is_done() => {}
        Output::Files => fill(&mut draft).map_err(|fault| *fault)?,
        Output::Credentials { etc } => fill(&mut draft)
            .and_then(|()| credentials::add(&mut draft, etc))
            .map_err(|fault| *fault)?,
    }
    Ok(draft.finish())
}

/// Adds the steps to a plan, in their order.
fn fill(draft: &mut Draft<'_>) -> Outcome<()> {
    let steps = draft.context.steps;
    // Before anything else: what has none is not an installed system, or not yet.
    if !draft.has("/etc/passwd")? {
        return Err(PlanFault::NoAccounts(what_it_is(draft)?).into());
    }
    if draft.identity.guest_proxy_agent {
        draft.note(Note::GuestProxyAgent);
    }
    if steps.has(Step::HostName) {
        hostname::add(draft)?;
    }
    users::add(draft)?;
    if steps.has(Step::Sshd) {
        sshd::add(draft)?;
    }
    if steps.has(Step::HostKeys) {
        hostkeys::add(draft)?;
    }
    if steps.has(Step::CustomData) {
        custom::add(draft)?;
    }
    if steps.has(Step::Markers) {
        markers::add(draft)?;
    }
    Ok(())
}

/// Says what a root seems to be that has no account files.
fn what_it_is(draft: &Draft<'_>) -> Outcome<&'static str> {
    let signs = [
        ("/ostree/repo", ": it is an ostree without its deployment"),
        ("/usr/lib/passwd", ": its accounts are in /usr/lib/passwd"),
    ];
    for (sign, what) in signs {
        if draft.has(sign)? {
            return Ok(what);
        }
    }
    Ok("")
}

#[cfg(test)]
mod tests;
