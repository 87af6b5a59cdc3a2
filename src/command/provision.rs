//! `preroot provision`: everything for this boot, called by a hook of an initramfs.

use super::options::{From, Options, Platform, Task};
use super::rooted;
use super::supervisor::Supervised;
use super::words::Order;
use super::{Exit, console, misused, prefetch};
use crate::linux::log::{Level, Log};
use crate::linux::root::Root;
use crate::linux::{clock, dmi, files};
use crate::wire::cmdline::CommandLine;

/// Runs the command.
pub(super) fn run<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> Exit {
    let start = clock::monotonic();
    let mut options = Options::of(Task::Provision);
    let log = match prepare(&mut options, arguments) {
        Ok(log) => log,
        Err(exit) => return exit,
    };
    if options.dry_run {
        return Supervised::see_through(&options, start, None, &log);
    }
    let order = Order::Root {
        path: options.root.as_deref(),
        wait: options.wait_root,
    };
    loop {
        if let Some(exit) = prefetch::ask(&order, &log) {
            return exit;
        }
        // Somebody may have come in between.
        if let Ok(exit) = prefetch::work(&options, start, &log) {
            return exit;
        }
    }
}

/// Takes all settings into `options`, and opens the log that they name; on the way it may turn out
/// that there is nothing to do.
pub(super) fn prepare<'a>(
    options: &mut Options,
    arguments: impl Iterator<Item = &'a [u8]>,
) -> Result<Log, Exit> {
    if let Err((argument, fault)) = options.take_arguments(arguments) {
        return Err(misused(format_args!("{argument}: {fault}")));
    }
    let mut buffer = [0; files::MAX_COMMAND_LINE];
    let line = CommandLine::new(files::command_line(&mut buffer));
    if line.value("preroot") == Some("off") {
        return Err(Exit::Done);
    }
    // Mistakes are named once the log is known, which may be chosen there itself.
    let mut once_more = options.clone();
    take_settings(options, &line, None);
    if options.platform == Platform::Auto && !dmi::is_azure() {
        return Err(Exit::NotHere);
    }
    let log = console::open(options.log);
    take_settings(&mut once_more, &line, Some(&log));
    Ok(log)
}

/// Takes the kernel's arguments and what the initramfs says; tells the log what is wrong with them.
#[inline(never)]
pub(super) fn take_settings(options: &mut Options, line: &CommandLine<'_>, log: Option<&Log>) {
    options.take_kernel_arguments(line, &mut |name, fault| {
        if let Some(log) = log {
            log.line(
                Level::Warning,
                format_args!("kernel argument preroot.{name} ignored: {fault}"),
            );
        }
    });
    if let Ok(root) = Root::open("/") {
        rooted::take_file(&root, "", From::Initramfs, options, log);
    }
}
