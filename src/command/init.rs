//! `preroot init`: the first process of a machine whose initramfs holds nothing else.
//!
//! It mounts what every Linux needs, loads the modules of the devices that are there, lets the
//! worker provision, finds and mounts the root, and becomes the real init. It must never end.

use core::ffi::CStr;
use core::time::Duration;

use alloc::string::{String, ToString as _};
use heapless::Vec;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::AsFd as _;
use rustix::system::RebootCommand;

use super::Exit;
use super::console::Patience;
use super::options::{LogTo, OnFail, Options, Platform, Task};
use super::provision;
use super::supervisor::Supervised;
use super::words::Order;
use crate::linux::block;
use crate::linux::log::{Level, Log};
use crate::linux::module::Modules;
use crate::linux::mount;
use crate::linux::uevent::{News, Uevents};
use crate::linux::{clock, dmi, files, poll, process};
use crate::wire::cmdline::{CommandLine, RootSpec, RootWait};
use crate::wire::superblock::{self, Kind};
use crate::wire::timestamp::millis;

/// Where the real root is mounted until it is the root.
const ROOT: &str = "/sysroot";
/// How long the root's device is waited for, unless the command line says.
const ROOT_WAIT: Duration = Duration::from_secs(90);
/// "For ever", for sums of times.
const FOREVER: Duration = Duration::from_hours(365 * 24);
/// How often the devices are looked at again although nothing was heard.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a person has to read why, before the machine restarts.
const READING_TIME: Duration = Duration::from_secs(10);

/// Runs the command; returns only if this process is not the first.
pub(super) fn run() -> Exit {
    if process::own_pid() != 1 {
        return super::misused(format_args!("init runs as process 1 only"));
    }
    let start = clock::monotonic();
    let api = mount::api_file_systems();
    // Whoever execs us later wants a console; without one there is nobody to tell.
    let _ = mount::open_console();
    let log = Log::kmsg().unwrap_or_else(Log::stderr);
    if let Err(fault) = api {
        log.line(Level::Error, format_args!("{fault}"));
    }
    let mut buffer = [0; files::MAX_COMMAND_LINE];
    let line = CommandLine::new(files::command_line(&mut buffer));
    let mut options = Options::of(Task::Provision);
    options.log = LogTo::Kmsg;
    provision::take_settings(&mut options, &line, Some(&log));
    // The root is where this command mounts it, and as long in coming as this command waits.
    options.root = Some(ROOT.into());
    options.wait_root = Some(options.timeout);

    let wanted = line.value("preroot") != Some("off")
        && (options.platform == Platform::Azure || dmi::is_azure());
    let mut boot = Boot {
        worker: if wanted {
            Supervised::start(&options, start).ok()
        } else {
            None
        },
        // Events first: what appears while the devices are gone through is not missed.
        uevents: Uevents::open().ok(),
        modules: Modules::open_running(line),
        log,
        start,
        line,
    };
    match boot.mount_root() {
        Ok(()) => boot.enter(&options),
        Err(reason) => boot.fail(&options, &reason),
    }
}

/// Why there is no root, in words for the console and the portal.
type Reason = String;

struct Boot<'a> {
    log: Log,
    start: Duration,
    line: CommandLine<'a>,
    worker: Option<Supervised>,
    uevents: Option<Uevents>,
    modules: Option<Modules<'a>>,
}

impl Boot<'_> {
    /// Loads modules and waits until the root's device is there, then mounts it.
    fn mount_root(&mut self) -> Result<(), Reason> {
        self.coldplug();
        let spec = match self.line.root() {
            Some(Ok(spec)) => spec,
            Some(Err(fault)) => return Err(reason(format_args!("root=: {fault}"))),
            None => {
                return Err(reason(format_args!(
                    "there is no root= on the kernel command line"
                )));
            }
        };
        let device = self.find_root(&spec)?;
        let found = clock::monotonic();
        if let Some(obstacle) = device.kind.and_then(Kind::obstacle) {
            return Err(reason(format_args!("root={spec}: {obstacle}")));
        }
        let mut types: Vec<&str, 8> = Vec::new();
        let asked = self.line.root_types();
        let known = device.kind.map_or(&[][..], |kind| kind.mount_types());
        // More than eight types are nobody's wish.
        types.extend(asked.chain(known.iter().copied()).take(8));
        if let Some(modules) = &mut self.modules {
            for name in &types {
                // What is missing or built in, the mount will tell.
                let _ = modules.load(superblock::module_of(name));
            }
        }
        let writable = self.line.root_writable().unwrap_or(false);
        mount::mount_root(&device.path, &types, writable, self.line.root_flags(), ROOT)
            .map_err(|fault| reason(format_args!("root={spec} ({}): {fault}", device.path)))?;
        let to = clock::monotonic();
        self.log.line(
            Level::Info,
            format_args!(
                "mount ok root={spec} device={} ms={}",
                device.path,
                millis(to.saturating_sub(found))
            ),
        );
        Ok(())
    }

    fn coldplug(&mut self) {
        let from = clock::monotonic();
        let Some(modules) = &mut self.modules else {
            return;
        };
        let counts = modules.coldplug();
        let to = clock::monotonic();
        self.log.line(
            Level::Info,
            format_args!(
                "modules ok loaded={} failed={} ms={}",
                counts.loaded,
                counts.failed,
                millis(to.saturating_sub(from))
            ),
        );
        for (name, fault) in modules.faults() {
            self.log
                .line(Level::Warning, format_args!("module {name}: {fault}"));
        }
        if let Some(worker) = &mut self.worker {
            worker.tell(&Order::Phase {
                name: "modules",
                from,
                to,
                detail: &alloc::format!("{} loaded", counts.loaded),
            });
        }
    }

    fn find_root(&mut self, spec: &RootSpec) -> Result<block::Device, Reason> {
        let wait = match self.line.root_wait() {
            RootWait::Unsaid => ROOT_WAIT,
            RootWait::For(wait) => wait,
            RootWait::Forever => FOREVER,
        };
        let until = clock::monotonic().saturating_add(wait);
        let mut patience = Patience::default();
        loop {
            if let Some(device) = block::find(spec) {
                return Ok(device);
            }
            let now = clock::monotonic();
            if now >= until {
                return Err(reason(format_args!(
                    "root={spec} did not appear within {} s",
                    wait.as_secs()
                )));
            }
            patience.awaiting(now, &self.log, format_args!("root={spec}"), until);
            self.wait(until.saturating_sub(now).min(LOOK_AGAIN));
        }
    }

    /// Waits for an event of a device or of the worker, and loads what new devices call for.
    fn wait(&mut self, longest: Duration) {
        let mut fds: Vec<PollFd<'_>, 2> = Vec::new();
        if let Some(uevents) = &self.uevents {
            let _ = fds.push(PollFd::new(uevents, PollFlags::IN));
        }
        let mut longest = longest;
        if let Some(worker) = &self.worker {
            if let Some(worker) = worker.wait_on() {
                let _ = fds.push(PollFd::from_borrowed_fd(worker, PollFlags::IN));
            }
            longest = longest.min(worker.due().saturating_sub(clock::monotonic()));
        }
        let _ = poll::wait(&mut fds, Some(longest));
        drop(fds);
        let Some(uevents) = &mut self.uevents else {
            return;
        };
        let mut buffer = [0; 8192];
        // Whatever the trouble with the socket, there is still the look at the devices each second.
        while let Ok(Some(news)) = uevents.next(&mut buffer) {
            let Some(modules) = &mut self.modules else {
                continue;
            };
            match news {
                News::Device(event) => {
                    if let Some(modalias) = event.modalias() {
                        modules.load_modalias(modalias);
                    }
                }
                // Events were lost: everything is gone through again.
                News::Lost => {
                    modules.coldplug();
                }
            }
        }
    }

    /// Waits until the worker has ended, serving new devices all the while: the optical drive or
    /// the network interface may still be among them.
    fn wait_for_worker(&mut self) {
        while let Some(worker) = &mut self.worker {
            if worker.poll(&self.log).is_some() {
                return;
            }
            self.wait(LOOK_AGAIN);
        }
    }

    /// Waits for the worker and becomes the real init.
    fn enter(mut self, options: &Options) -> ! {
        self.wait_for_worker();
        let root = files::open_directory(ROOT);
        let init = root
            .as_ref()
            .map(|root| mount::find_init(root.as_fd(), self.line.init()));
        let Some(Ok(init)) = init else {
            self.log.line(
                Level::Error,
                format_args!(
                    "failed: {} fix=\"see what root= names, or give init=\"",
                    mount::NoInit
                ),
            );
            restart(&self.log, options.on_fail);
        };
        if self.line.init().is_some_and(|asked| asked != init) {
            self.log.line(
                Level::Warning,
                format_args!("init= cannot be run; {init} will"),
            );
        }
        drop(root);
        let entered = mount::enter_real_root(ROOT);
        if let Some(worker) = &mut self.worker {
            worker.wait_for_release(&self.log);
        }
        process::reap();
        if let Err(fault) = entered {
            self.log.line(Level::Error, format_args!("failed: {fault}"));
            restart(&self.log, OnFail::Reboot);
        }
        let took = millis(clock::monotonic().saturating_sub(self.start));
        self.log.line(
            Level::Info,
            format_args!("handing over to {init} ms={took}"),
        );
        let error = execute(init, &self.line);
        self.log.line(
            Level::Error,
            format_args!(
                "failed: {init} cannot be run: error {}",
                error.raw_os_error()
            ),
        );
        restart(&self.log, OnFail::Reboot)
    }

    /// Says why there is no root, tells the platform, and does what was asked for.
    fn fail(mut self, options: &Options, reason: &str) -> ! {
        self.log.line(
            Level::Error,
            format_args!(
                "failed: {reason} fix=\"check root= and that the initramfs has the drivers\""
            ),
        );
        if let Some(worker) = &mut self.worker {
            worker.tell(&Order::NoRoot(reason));
        }
        self.wait_for_worker();
        if let Some(worker) = &mut self.worker {
            worker.wait_for_release(&self.log);
        }
        restart(&self.log, options.on_fail)
    }
}

fn reason(text: core::fmt::Arguments<'_>) -> Reason {
    text.to_string()
}

/// Runs the real init in place of this process; returns only if that fails.
fn execute(init: &str, line: &CommandLine<'_>) -> rustix::io::Errno {
    let mut texts: Vec<Vec<u8, 256>, 33> = Vec::new();
    let mut push = |text: &[u8]| {
        let mut owned: Vec<u8, 256> = Vec::new();
        // An argument that is too long, or one too many, is left out: init can do without.
        if owned.extend_from_slice(text).is_ok() && owned.push(0).is_ok() {
            let _ = texts.push(owned);
        }
    };
    push(init.as_bytes());
    line.init_arguments().for_each(&mut push);
    let arguments: Vec<&CStr, 33> = texts
        .iter()
        .filter_map(|text| CStr::from_bytes_with_nul(text).ok())
        .collect();
    let Some(path) = arguments.first() else {
        return rustix::io::Errno::INVAL;
    };
    process::exec(
        path,
        &arguments,
        &[
            c"TERM=linux",
            c"HOME=/",
            c"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ],
    )
}

/// Ends a boot that cannot go on.
fn restart(log: &Log, on_fail: OnFail) -> ! {
    if on_fail == OnFail::Shell {
        let shell = c"/bin/sh";
        let error = process::exec(
            shell,
            &[shell],
            &[c"TERM=linux", c"PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        );
        log.line(
            Level::Error,
            format_args!(
                "there is no /bin/sh in the initramfs: error {}",
                error.raw_os_error()
            ),
        );
    }
    let (word, command) = match on_fail {
        OnFail::PowerOff => ("off", RebootCommand::PowerOff),
        OnFail::Reboot | OnFail::Shell => ("restart", RebootCommand::Restart),
    };
    log.line(
        Level::Error,
        format_args!("the machine goes {word} in {} s", READING_TIME.as_secs()),
    );
    loop {
        let _ = poll::wait(&mut [], Some(READING_TIME));
        rustix::fs::sync();
        let _ = rustix::system::reboot(command);
    }
}
