//! `preroot provision`: everything for this boot, called by a hook of an initramfs.

use super::options::{From, Options, Platform};
use super::rooted;
use super::supervisor::Supervised;
use super::{Exit, console, help, misused};
use crate::linux::log::{Level, Log};
use crate::linux::root::Root;
use crate::linux::{clock, dmi, files};
use crate::wire::cmdline::CommandLine;

/// Runs the command.
pub(super) fn run<'a>(arguments: impl Iterator<Item = &'a [u8]> + Clone) -> Exit {
    let start = clock::monotonic();
    if arguments
        .clone()
        .any(|argument| argument == b"--help" || argument == b"-h")
    {
        return help::print();
    }
    let mut options = Options::default();
    if let Err((argument, fault)) = options.take_arguments(arguments) {
        return misused(format_args!("{argument}: {fault}"));
    }
    let mut buffer = [0; files::MAX_COMMAND_LINE];
    let line = CommandLine::new(files::command_line(&mut buffer));
    if line.value("preroot") == Some("off") {
        return Exit::Done;
    }
    // Mistakes are named once the log is known, which may be chosen there itself.
    let mut once_more = options.clone();
    take_settings(&mut options, &line, None);
    if options.platform == Platform::Auto && !dmi::is_azure() {
        return Exit::NotHere;
    }
    let log = console::open(options.log);
    take_settings(&mut once_more, &line, Some(&log));
    match Supervised::start(&options, start) {
        Ok(mut worker) => {
            let exit = worker.wait(&log);
            worker.wait_for_release(&log);
            exit
        }
        Err(error) => {
            log.line(
                Level::Error,
                format_args!("failed: no worker: error {}", error.raw_os_error()),
            );
            Exit::Failed
        }
    }
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
