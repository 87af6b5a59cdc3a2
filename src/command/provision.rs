//! `preroot provision`: everything for this boot, called by a hook of an initramfs.

use super::options::{Options, Platform};
use super::supervisor::Supervised;
use super::{Exit, console, help, misused};
use crate::linux::log::Level;
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
    // Faults are named once the log is known, which the line itself may choose.
    options.take_kernel_arguments(&line, &mut |_, _| {});
    if options.platform == Platform::Auto && !dmi::is_azure() {
        return Exit::NotHere;
    }
    let log = console::open(options.log);
    options
        .clone()
        .take_kernel_arguments(&line, &mut |name, fault| {
            log.line(
                Level::Warning,
                format_args!("kernel argument preroot.{name} ignored: {fault}"),
            );
        });
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
