//! The options of a boot: defaults, then the command line of the program, then the kernel's.
//!
//! The kernel's command line has the last word: it is what a person can still change when the
//! machine does not come up.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use crate::engine::plan::Steps;
use crate::wire::cmdline::CommandLine;
use crate::wire::vmid::VmId;

/// A path or name given by a person.
pub(super) type Text = String;

/// The longest path that is taken.
const MAX_PATH: usize = 255;
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
    pub(super) nic: Option<String>,
    /// The device or image file that holds the provisioning disc.
    pub(super) media: Option<Text>,
    /// Who reads the disc.
    pub(super) disc_reader: DiscReader,
    /// The VM id, instead of the firmware's.
    pub(super) vm_id: Option<VmId>,
    /// When the platform is told.
    pub(super) ready: Ready,
    /// What is done, and what is not.
    pub(super) steps: Steps,
    /// The budget of the whole run.
    pub(super) timeout: Duration,
    /// Print the plan; change and report nothing.
    pub(super) dry_run: bool,
    /// Where messages go.
    pub(super) log: LogTo,
    /// What `init` does when there is no root to go on with.
    pub(super) on_fail: OnFail,
}

/// Which platform the caller believes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Platform {
    /// The firmware decides.
    Auto,
    /// It is Azure.
    Azure,
}

/// Who reads the provisioning disc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiscReader {
    /// Our own reader, and the kernel's if that fails.
    Auto,
    /// Only our own.
    Own,
    /// Only the kernel's.
    Kernel,
}

/// When the platform is told that the machine is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// After the root is written and synced.
    Rooted,
    /// As soon as the network is there.
    Early,
    /// Not by this run: the marker for it is left undone.
    Later,
    /// Not at all.
    Never,
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogTo {
    /// A terminal if there is one, else the kernel's log.
    Auto,
    /// The kernel's log.
    Kmsg,
    /// Standard error.
    Stderr,
}

/// What `init` does without a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnFail {
    /// Restart the machine after a while: the next boot may find what this one missed.
    Reboot,
    /// Switch the machine off.
    PowerOff,
    /// Run `/bin/sh` of the initramfs, where somebody put one.
    Shell,
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
}

impl fmt::Display for OptionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionFault::Unknown => f.write_str("there is no such option"),
            OptionFault::NoValue => f.write_str("it needs a value"),
            OptionFault::BadValue(wanted) => write!(f, "its value must be {wanted}"),
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
            steps: Steps::ALL,
            timeout: Duration::from_mins(20),
            dry_run: false,
            log: LogTo::Auto,
            on_fail: OnFail::Reboot,
        }
    }
}

/// The options that are switches: alone they mean yes.
const SWITCHES: [&str; 1] = ["dry-run"];

impl Options {
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
                Some((name, value)) => (name, value),
                None if SWITCHES.contains(&name) => (name, "yes"),
                None => match arguments.next().map(core::str::from_utf8) {
                    Some(Ok(value)) => (name, value),
                    Some(Err(_)) => return Err((argument, OptionFault::BadValue("UTF-8"))),
                    None if self.set(name, "") == Err(OptionFault::Unknown) => {
                        return Err((argument, OptionFault::Unknown));
                    }
                    None => return Err((argument, OptionFault::NoValue)),
                },
            };
            self.set(name, value).map_err(|fault| (argument, fault))?;
        }
        Ok(())
    }

    /// Takes `preroot.NAME=VALUE` of the kernel's command line; calls `complain` for each that is
    /// wrong, which is otherwise ignored: a typing mistake must not cost a boot.
    pub(super) fn take_kernel_arguments(
        &mut self,
        line: &CommandLine<'_>,
        complain: &mut dyn FnMut(&str, OptionFault),
    ) {
        for argument in line.arguments() {
            let Some(name) = argument.name.strip_prefix("preroot.") else {
                continue;
            };
            let dash = |c| if c == '_' { '-' } else { c };
            let normal: String = name.chars().map(dash).collect();
            let value = match argument.value {
                Some(value) => value,
                None if SWITCHES.contains(&normal.as_str()) => "yes",
                None => "",
            };
            if let Err(fault) = self.set(&normal, value) {
                complain(name, fault);
            }
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), OptionFault> {
        match name {
            "root" => self.root = Some(text(value, MAX_PATH, "a directory, of 255 bytes at most")?),
            "wait-root" => self.wait_root = Some(seconds(value)?),
            "platform" => {
                self.platform = one_of(
                    value,
                    &[("auto", Platform::Auto), ("azure", Platform::Azure)],
                    "auto or azure",
                )?;
            }
            "nic" => {
                self.nic = Some(text(
                    value,
                    MAX_NAME,
                    "the name of an interface, 15 characters at most",
                )?);
            }
            "media" => {
                self.media = Some(text(
                    value,
                    MAX_PATH,
                    "a device or a file, of 255 bytes at most",
                )?);
            }
            "disc-reader" => {
                self.disc_reader = one_of(
                    value,
                    &[
                        ("auto", DiscReader::Auto),
                        ("own", DiscReader::Own),
                        ("kernel", DiscReader::Kernel),
                    ],
                    "auto, own or kernel",
                )?;
            }
            "vm-id" => {
                self.vm_id = Some(VmId::parse(value).ok_or(OptionFault::BadValue("a UUID"))?);
            }
            "ready" => {
                self.ready = one_of(
                    value,
                    &[
                        ("rooted", Ready::Rooted),
                        ("early", Ready::Early),
                        ("later", Ready::Later),
                        ("never", Ready::Never),
                    ],
                    "rooted, early, later or never",
                )?;
            }
            "steps" => {
                self.steps = Steps::parse(value)
                    .map_err(|_| OptionFault::BadValue("a list of steps; see preroot --help"))?;
            }
            "timeout" => self.timeout = seconds(value)?,
            "dry-run" => {
                self.dry_run = one_of(value, &[("yes", true), ("no", false)], "yes or no")?;
            }
            "log" => {
                self.log = one_of(
                    value,
                    &[
                        ("auto", LogTo::Auto),
                        ("kmsg", LogTo::Kmsg),
                        ("stderr", LogTo::Stderr),
                    ],
                    "auto, kmsg or stderr",
                )?;
            }
            "onfail" => {
                self.on_fail = one_of(
                    value,
                    &[
                        ("reboot", OnFail::Reboot),
                        ("poweroff", OnFail::PowerOff),
                        ("shell", OnFail::Shell),
                    ],
                    "reboot, poweroff or shell",
                )?;
            }
            _ => return Err(OptionFault::Unknown),
        }
        Ok(())
    }
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

fn one_of<T: Copy>(
    value: &str,
    choices: &[(&str, T)],
    wanted: &'static str,
) -> Result<T, OptionFault> {
    choices
        .iter()
        .find(|(name, _)| *name == value)
        .map(|(_, choice)| *choice)
        .ok_or(OptionFault::BadValue(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(arguments: &[&str]) -> Result<Options, OptionFault> {
        let mut options = Options::default();
        options
            .take_arguments(arguments.iter().map(|argument| argument.as_bytes()))
            .map_err(|(_, fault)| fault)?;
        Ok(options)
    }

    #[test]
    fn both_forms_of_an_argument_are_taken() {
        for arguments in [
            &["--nic", "eth1", "--dry-run"][..],
            &["--nic=eth1", "--dry-run=yes"],
        ] {
            let options = take(arguments).unwrap();
            assert_eq!(options.nic.as_deref(), Some("eth1"));
            assert!(options.dry_run);
        }
    }

    #[test]
    fn wrong_arguments_say_what_is_wrong() {
        assert_eq!(take(&["--nick", "x"]).unwrap_err(), OptionFault::Unknown);
        assert_eq!(take(&["nic"]).unwrap_err(), OptionFault::Unknown);
        assert_eq!(take(&["--nic"]).unwrap_err(), OptionFault::NoValue);
        assert_eq!(take(&["--nic="]).unwrap_err(), OptionFault::NoValue);
        for arguments in [
            ["--timeout", "soon"],
            ["--timeout", "86401"],
            ["--timeout", "-1"],
            ["--ready", "Rooted"],
            ["--vm-id", "0"],
            ["--platform", "aws"],
            ["--nic", "a-name-too-long-for-it"],
        ] {
            let fault = take(&arguments).unwrap_err();
            assert!(matches!(fault, OptionFault::BadValue(_)), "{arguments:?}");
        }
    }

    #[test]
    fn kernel_arguments_have_the_last_word_and_mistakes_are_only_named() {
        let mut options = take(&["--nic", "eth1", "--timeout", "5"]).unwrap();
        let line = CommandLine::new(
            b"quiet preroot.nic=eth7 root=/dev/sda preroot.wait_root=3 preroot.tpyo=1 \
              preroot.dry-run preroot.ready=soon",
        );
        let mut complaints = std::vec::Vec::new();
        options.take_kernel_arguments(&line, &mut |name, fault| {
            complaints.push((std::string::String::from(name), fault));
        });
        assert_eq!(options.nic.as_deref(), Some("eth7"));
        assert_eq!(options.wait_root, Some(Duration::from_secs(3)));
        assert_eq!(options.timeout, Duration::from_secs(5));
        assert!(options.dry_run);
        let names: std::vec::Vec<_> = complaints.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tpyo", "ready"]);
    }
}
