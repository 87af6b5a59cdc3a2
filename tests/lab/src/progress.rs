//! What the lab is doing, said while it does it.
//!
//! Plain lines on standard error, never a control character: the same text is right on a
//! terminal, in a pipe and in a log of CI. A step says what and how large when it begins, that it
//! is alive every few seconds, and how long it took when it ends.

use core::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fault::Fault;

/// A step that takes longer says that it is alive this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A step that was shorter does not say that it ended.
const NOTABLE: Duration = Duration::from_secs(2);
/// How much of a failed program's output is shown.
const TAIL: u64 = 4096;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Turns every line but errors off, or on again.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Says whether only errors are wanted.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes one line for the person at the terminal.
pub fn say(text: fmt::Arguments<'_>) {
    if !is_quiet() {
        line(text);
    }
}

/// Writes one line even when quiet.
pub fn line(text: fmt::Arguments<'_>) {
    // A closed standard error is no reason to stop the work.
    let _ = writeln!(std::io::stderr().lock(), "lab: {text}");
}

/// One thing that the lab does and that may take a while.
#[derive(Debug)]
pub struct Step {
    what: String,
    start: Instant,
    beat: Instant,
}

impl Step {
    /// Announces a step; `what` says what and, where it is known, how large.
    pub fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        say(format_args!("{what}"));
        let now = Instant::now();
        // How large it is has been said.
        let what = what.split(" (").next().unwrap_or_default().to_owned();
        Self {
            what,
            start: now,
            beat: now,
        }
    }

    /// Says that the step is alive, with its state, if nothing was said for a while.
    pub fn alive(&mut self, state: &str) {
        if self.beat.elapsed() >= HEARTBEAT {
            self.beat = Instant::now();
            let seconds = self.start.elapsed().as_secs();
            say(format_args!("  {}: {seconds} s{state}", self.what));
        }
    }

    /// Ends the step and, if it was long, says how long.
    pub fn end(self) {
        let took = self.start.elapsed();
        if took >= NOTABLE {
            say(format_args!(
                "  {}: done in {:.1} s",
                self.what,
                took.as_secs_f32()
            ));
        }
    }

    /// Runs a program to its end as part of this step and gives back what it wrote.
    ///
    /// Both outputs are kept, and shown only if the program fails. `state` is asked now and then
    /// for something to show, such as the bytes that have arrived.
    pub fn run(
        &mut self,
        command: &mut Command,
        state: &dyn Fn() -> String,
    ) -> Result<String, Fault> {
        let (output, said) = (scratch(command)?, scratch(command)?);
        let handle = |file: &File| file.try_clone().map_err(|e| cannot_start(command, &e));
        let (to_output, to_said) = (handle(&output)?, handle(&said)?);
        command
            .stdin(Stdio::null())
            .stdout(to_output)
            .stderr(to_said);
        let mut child = command
            .spawn()
            .map_err(|error| cannot_start(command, &error))?;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => thread::sleep(pause),
                Err(error) => return Err(cannot_start(command, &error)),
            }
            // Short programs are not slowed down, long ones are not watched too closely.
            pause = (pause * 2).min(Duration::from_millis(100));
            self.alive(&state());
        };
        let output = text(output, None);
        if status.success() {
            return Ok(output);
        }
        let mut tail = text(said, Some(TAIL));
        if tail.trim().is_empty() {
            tail = output
                .chars()
                .rev()
                .take(TAIL as usize)
                .collect::<Vec<_>>()
                .iter()
                .rev()
                .collect();
        }
        Err(Fault::Program {
            command: shown(command),
            ended: format!("failed ({status})"),
            said: tail.trim_end().to_owned(),
        })
    }
}

/// Runs a short program to its end and gives back its standard output.
pub fn run(command: &mut Command) -> Result<String, Fault> {
    let what = shown(command);
    let now = Instant::now();
    Step {
        what,
        start: now,
        beat: now,
    }
    .run(command, &String::new)
}

/// Makes an error of a program that could not be started or watched.
fn cannot_start(command: &Command, error: &std::io::Error) -> Fault {
    Fault::Program {
        command: shown(command),
        ended: format!("could not be run: {error}"),
        said: String::new(),
    }
}

/// Opens a nameless file for a program's output.
///
/// A pipe would need a reader for each output; a file needs none and can be read from its end.
fn scratch(command: &Command) -> Result<File, Fault> {
    use std::os::unix::fs::OpenOptionsExt as _;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = std::env::temp_dir().join(format!("lab-{}-{number}.output", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&name)
        .map_err(|error| cannot_start(command, &error))?;
    let _ = std::fs::remove_file(&name);
    Ok(file)
}

/// Reads a program's output, or its end.
fn text(mut file: File, last: Option<u64>) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let start = last.map_or(0, |last| length.saturating_sub(last));
    let mut bytes = Vec::new();
    let read = file
        .seek(std::io::SeekFrom::Start(start))
        .and_then(|_| file.read_to_end(&mut bytes));
    // Output that cannot be read back is only ever missing from an error message.
    read.map_or_else(
        |_| String::new(),
        |_| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

/// Shows a command line in one line of bounded length.
fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        if line.len() > 160 {
            line.push_str(" ...");
            break;
        }
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Shows a number of bytes as a person would say it.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 2] = [(1_000_000, "MB"), (1_000, "kB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            return format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_the_fitting_unit() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_000), "1.0 kB");
        assert_eq!(size(42_693_188), "42.6 MB");
    }

    #[test]
    fn output_of_a_program_is_given_back() {
        assert_eq!(
            run(Command::new("echo").arg("two words")).unwrap(),
            "two words\n"
        );
    }

    #[test]
    fn failure_tells_the_command_the_status_and_the_last_words() {
        let fault = run(Command::new("sh").args(["-c", "echo out; echo bad luck >&2; exit 3"]));
        let said = fault.unwrap_err().to_string();
        assert!(said.contains("sh -c"), "{said}");
        assert!(said.contains("exit status: 3"), "{said}");
        assert!(said.ends_with("bad luck"), "{said}");
    }

    #[test]
    fn failure_without_a_word_on_standard_error_shows_standard_output() {
        let fault = run(Command::new("sh").args(["-c", "echo only here; exit 1"]));
        assert!(fault.unwrap_err().to_string().ends_with("only here"));
    }

    #[test]
    fn program_that_does_not_exist_is_named() {
        let fault = run(&mut Command::new("/nonexistent/program"))
            .unwrap_err()
            .to_string();
        assert!(fault.contains("/nonexistent/program"), "{fault}");
    }
}
