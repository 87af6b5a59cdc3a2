//! The options of a boot, and who has the last word on them.
//!
//! From the first word to the last: the defaults, the root's `waagent.conf`, `preroot.conf` of the
//! initramfs and then of the root, the arguments of the program, those of the kernel. The kernel's
//! command line is what a person can still change when the machine does not come up; the root knows
//! better than the initramfs, which may be made for many roots, what is to become of it.

mod values;
mod waagent;

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use crate::engine::plan::{Settings, Steps, Sudo};
use crate::wire::cmdline::CommandLine;
use crate::wire::mac;
use crate::wire::settings;
use crate::wire::vmid::VmId;

pub(super) use values::{DiscReader, LogTo, Network, Nic, OnFail, Output, Platform, Ready, Task};

/// A path or name given by a person.
pub(super) type Text = String;

/// The longest path that is taken.
const MAX_PATH: usize = 255;
/// What is taken of a reason: a description has no room for more, nor a message between processes.
const MAX_REASON: usize = 1024;
/// The longest name of an interface (`IFNAMSIZ` with its NUL).
const MAX_NAME: usize = 15;

/// What a person may ask for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Where the real root is, or will be, mounted.
    pub(super) root: Option<Text>,
    /// How long to wait until it is a mount point; `None` takes the default of the root.
    pub(super) wait_root: Option<Duration>,
    /// Whether the firmware is asked which platform this is.
    pub(super) platform: Platform,
    /// The one interface to use.
    pub(super) nic: Option<Nic>,
    /// The device or image file that holds the provisioning disc.
    pub(super) media: Option<Text>,
    /// Who reads the disc.
    pub(super) disc_reader: DiscReader,
    /// The VM id, instead of the firmware's.
    pub(super) vm_id: Option<VmId>,
    /// When the platform is told.
    pub(super) ready: Ready,
    /// What becomes of the interface.
    pub(super) network: Network,
    /// Who makes the changes.
    pub(super) output: Output,
    /// What is done, and what is not.
    pub(super) steps: Steps,
    /// How it is done, where there is a choice.
    pub(super) settings: Settings,
    /// The budget of the whole run.
    pub(super) timeout: Duration,
    /// Print the plan; change and report nothing.
    pub(super) dry_run: bool,
    /// Publish the host key's fingerprint through the platform.
    pub(super) report_host_key: bool,
    /// Where messages go.
    pub(super) log: LogTo,
    /// What `init` does when there is no root to go on with.
    pub(super) on_fail: OnFail,
    /// What the command is about, which no option says.
    pub(super) task: Task,
    /// Why it failed, when that is to be told.
    pub(super) reason: Option<Text>,
    /// The options that are not at their default.
    taken: Names,
    /// Those of them on which the last word was said.
    settled: Names,
}

/// What is wrong with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OptionFault {
    /// There is no such option.
    Unknown,
    /// It needs a value.
    NoValue,
    /// It takes no value, or not this one.
    BadValue(&'static str),
    /// It stands in the root, and was needed before the root was there.
    TooLate,
}

impl fmt::Display for OptionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionFault::Unknown => f.write_str("there is no such option"),
            OptionFault::NoValue => f.write_str("it needs a value"),
            OptionFault::BadValue(wanted) => write!(f, "its value must be {wanted}"),
            OptionFault::TooLate => f.write_str("the root is too late for it; try the initramfs"),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            root: None,
            wait_root: None,
            platform: Platform::Auto,
            nic: None,
            media: None,
            disc_reader: DiscReader::Auto,
            vm_id: None,
            ready: Ready::Rooted,
            network: Network::Auto,
            output: Output::Auto,
            steps: Steps::ALL,
            settings: Settings::DEFAULT,
            timeout: Duration::from_mins(20),
            dry_run: false,
            report_host_key: false,
            log: LogTo::Auto,
            on_fail: OnFail::Reboot,
            task: Task::Provision,
            reason: None,
            taken: 0,
            settled: 0,
        }
    }
}

/// A set of options: a bit for each.
type Names = u32;

/// The options, those first that can come from the root.
#[derive(Clone, Copy)]
enum Name {
    Ready,
    Network,
    Output,
    Steps,
    Sudo,
    SystemUsers,
    RootPassword,
    CustomDataExec,
    CloudInit,
    ReportHostKey,
    // The others are needed before there is a root.
    Root,
    WaitRoot,
    Platform,
    Nic,
    Media,
    DiscReader,
    VmId,
    Timeout,
    DryRun,
    Log,
    OnFail,
    Reason,
}

static NAMES: [(&str, Name); 22] = [
    ("ready", Name::Ready),
    ("network", Name::Network),
    ("output", Name::Output),
    ("steps", Name::Steps),
    ("sudo", Name::Sudo),
    ("system-users", Name::SystemUsers),
    ("root-password", Name::RootPassword),
    ("customdata.exec", Name::CustomDataExec),
    ("cloud-init", Name::CloudInit),
    ("report-host-key", Name::ReportHostKey),
    ("root", Name::Root),
    ("wait-root", Name::WaitRoot),
    ("platform", Name::Platform),
    ("nic", Name::Nic),
    ("media", Name::Media),
    ("disc-reader", Name::DiscReader),
    ("vm-id", Name::VmId),
    ("timeout", Name::Timeout),
    ("dry-run", Name::DryRun),
    ("log", Name::Log),
    ("onfail", Name::OnFail),
    ("reason", Name::Reason),
];

/// Where settings come from that are not on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// The initramfs, before anything is done.
    Initramfs,
    /// The root, when much is done already.
    Root,
}

/// The options that are switches: alone they mean yes.
const SWITCHES: [&str; 1] = ["dry-run"];

impl Options {
    /// Gives the defaults for a task.
    // Out of line: each command begins with it.
    #[inline(never)]
    pub(super) fn of(task: Task) -> Self {
        Options {
            task,
            ..Options::default()
        }
    }

    /// Takes program arguments: `--name VALUE`, `--name=VALUE`, or a switch.
    ///
    /// On a fault, gives the argument that is wrong.
    pub(super) fn take_arguments<'a>(
        &mut self,
        mut arguments: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), (&'a str, OptionFault)> {
        while let Some(argument) = arguments.next() {
            let argument = core::str::from_utf8(argument)
                .map_err(|_| ("(not UTF-8)", OptionFault::Unknown))?;
            let name = argument
                .strip_prefix("--")
                .ok_or((argument, OptionFault::Unknown))?;
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None if SWITCHES.contains(&name) => (name, None),
                None => match arguments.next().map(core::str::from_utf8) {
                    Some(Ok(value)) => (name, Some(value)),
                    Some(Err(_)) => return Err((argument, OptionFault::BadValue("UTF-8"))),
                    None => (name, None),
                },
            };
            self.take(name, value).map_err(|fault| (argument, fault))?;
        }
        Ok(())
    }

    /// Takes `preroot.NAME=VALUE` of the kernel's command line, after which no file changes what
    /// was said; calls `complain` for each that is wrong, which is otherwise ignored: a typing
    /// mistake must not cost a boot.
    pub(super) fn take_kernel_arguments(
        &mut self,
        line: &CommandLine<'_>,
        complain: &mut dyn FnMut(&str, OptionFault),
    ) {
        for argument in line.arguments() {
            let Some(name) = argument.name.strip_prefix("preroot.") else {
                continue;
            };
            if let Err(fault) = self.take(name, argument.value) {
                complain(name, fault);
            }
        }
        self.settled = self.taken;
    }

    /// Takes a `preroot.conf`; calls `complain` with the line of each setting that is wrong, which
    /// is otherwise ignored.
    pub(super) fn take_file(
        &mut self,
        file: &[u8],
        from: From,
        complain: &mut dyn FnMut(usize, &str, OptionFault),
    ) {
        settings::each(file, &mut |line, name, value| {
            let late = from == From::Root
                && find(name).is_some_and(|name| name as u32 >= Name::Root as u32);
            let taken = if late {
                Err(OptionFault::TooLate)
            } else {
                self.take(name, value)
            };
            if let Err(fault) = taken {
                complain(line, name, fault);
            }
        });
    }

    /// Takes one option, unless the last word on it was said; `_` in its name is as good as `-`.
    // Out of line, as it is called from all of the above.
    #[inline(never)]
    fn take(&mut self, name: &str, value: Option<&str>) -> Result<(), OptionFault> {
        let name = find(name).ok_or(OptionFault::Unknown)?;
        let bit = 1 << name as u32;
        if self.settled & bit == 0 {
            let value = match (value, name) {
                (Some(value), _) => value,
                (None, Name::DryRun) => "yes",
                (None, _) => return Err(OptionFault::NoValue),
            };
            self.set(name, value)?;
            self.taken |= bit;
        }
        Ok(())
    }

    fn set(&mut self, name: Name, value: &str) -> Result<(), OptionFault> {
        match name {
            Name::Root => {
                self.root = Some(text(value, MAX_PATH, "a directory, of 255 bytes at most")?);
            }
            Name::WaitRoot => self.wait_root = Some(seconds(value)?),
            Name::Platform => {
                self.platform = match word(value, "auto or azure")? {
                    0 => Platform::Auto,
                    _ => Platform::Azure,
                };
            }
            Name::Nic => {
                self.nic = Some(match mac::parse(value) {
                    Some(address) => Nic::Address(address),
                    None => Nic::Name(text(
                        value,
                        MAX_NAME,
                        "the name of an interface, 15 characters at most, or its hardware address",
                    )?),
                });
            }
            Name::Reason if self.task == Task::Failed => {
                let end = value.floor_char_boundary(MAX_REASON);
                let reason = value.get(..end).unwrap_or_default();
                // A hook that knows none has something to report all the same.
                self.reason = Some(reason.into()).filter(|_| !reason.is_empty());
            }
            Name::Reason => return Err(OptionFault::Unknown),
            Name::Media => {
                self.media = Some(text(
                    value,
                    MAX_PATH,
                    "a device or a file, of 255 bytes at most",
                )?);
            }
            Name::DiscReader => {
                self.disc_reader = match word(value, "auto, own or kernel")? {
                    0 => DiscReader::Auto,
                    1 => DiscReader::Own,
                    _ => DiscReader::Kernel,
                };
            }
            Name::VmId => {
                self.vm_id = Some(VmId::parse(value).ok_or(OptionFault::BadValue("a UUID"))?);
            }
            Name::Ready => {
                self.ready = match word(value, "rooted, early, later or never")? {
                    0 => Ready::Rooted,
                    1 => Ready::Early,
                    2 => Ready::Later,
                    _ => Ready::Never,
                };
            }
            Name::Network => {
                self.network = match word(value, "auto, release or keep")? {
                    0 => Network::Auto,
                    1 => Network::Release,
                    _ => Network::Keep,
                };
            }
            Name::Output => {
                self.output = match word(value, "auto, files or credentials")? {
                    0 => Output::Auto,
                    1 => Output::Files,
                    _ => Output::Credentials,
                };
            }
            Name::Steps => {
                self.steps = Steps::parse(value)
                    .map_err(|_| OptionFault::BadValue("a list of steps; see preroot --help"))?;
            }
            Name::Sudo => {
                self.settings.sudo = match word(value, "auto, nopasswd, password or never")? {
                    0 => Sudo::Auto,
                    1 => Sudo::WithoutPassword,
                    2 => Sudo::WithPassword,
                    _ => Sudo::Never,
                };
            }
            Name::SystemUsers => {
                self.settings.system_users = word(value, "refuse or allow")? != 0;
            }
            Name::RootPassword => {
                self.settings.lock_root = word(value, "keep or lock")? != 0;
            }
            Name::CustomDataExec => {
                self.settings.run_custom_data = word(value, "yes or no")? == 0;
            }
            Name::CloudInit => {
                self.settings.cloud_init = word(value, "off or userdata")? != 0;
            }
            Name::ReportHostKey => self.report_host_key = word(value, "yes or no")? == 0,
            Name::Timeout => self.timeout = seconds(value)?,
            Name::DryRun => self.dry_run = word(value, "yes or no")? == 0,
            Name::Log => {
                self.log = match word(value, "auto, kmsg or stderr")? {
                    0 => LogTo::Auto,
                    1 => LogTo::Kmsg,
                    _ => LogTo::Stderr,
                };
            }
            Name::OnFail => {
                self.on_fail = match word(value, "reboot, poweroff or shell")? {
                    0 => OnFail::Reboot,
                    1 => OnFail::PowerOff,
                    _ => OnFail::Shell,
                };
            }
        }
        Ok(())
    }
}

/// Finds an option; `_` is as good as `-`.
fn find(name: &str) -> Option<Name> {
    let dash = |byte| if byte == b'_' { b'-' } else { byte };
    NAMES
        .iter()
        .find(|(known, _)| known.bytes().eq(name.bytes().map(dash)))
        .map(|(_, name)| *name)
}

/// Takes a text of at most `longest` bytes.
fn text(value: &str, longest: usize, wanted: &'static str) -> Result<Text, OptionFault> {
    if value.is_empty() {
        return Err(OptionFault::NoValue);
    }
    if value.len() > longest {
        return Err(OptionFault::BadValue(wanted));
    }
    Ok(Text::from(value))
}

fn seconds(value: &str) -> Result<Duration, OptionFault> {
    // A day is beyond every use, and far from where sums of times overflow.
    match value.parse() {
        Ok(seconds @ 0..=86400) => Ok(Duration::from_secs(seconds)),
        _ => Err(OptionFault::BadValue("a number of seconds, 86400 at most")),
    }
}

/// Tells which of the words that `wanted` lists, as a person would, the value is, counted from 0.
#[inline(never)]
fn word(value: &str, wanted: &'static str) -> Result<usize, OptionFault> {
    wanted
        .split([',', ' '])
        .filter(|word| !matches!(*word, "" | "or"))
        .position(|word| word == value)
        .ok_or(OptionFault::BadValue(wanted))
}

#[cfg(test)]
mod tests;
