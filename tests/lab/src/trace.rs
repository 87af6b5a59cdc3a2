//! A program and its children, watched to their ends by ptrace: memory at its highest, system calls.
//!
//! Not a debugger: it changes nothing and looks only when a process ends. The program is held before
//! its first instruction by a shell that stops itself and then becomes it, so this needs no code of
//! ours between fork and exec.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::fault::Fault;

/// One process, as it was at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The most memory that it ever had, in KiB.
    pub peak_kib: u64,
}

/// What was seen of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Its exit code; 128 and the signal's number if it was killed.
    pub exit: i32,
    /// Each of its processes, in the order in which they ended.
    pub processes: Vec<Process>,
    /// How many system calls all of them made, from the first instruction to the last.
    pub calls: u64,
}

impl Trace {
    /// Gives the memory of the process that had most.
    pub fn largest_kib(&self) -> u64 {
        self.processes
            .iter()
            .map(|process| process.peak_kib)
            .max()
            .unwrap_or(0)
    }
}

/// Runs a program to its end, with its children; what it writes goes to standard error.
pub fn run(
    program: &Path,
    arguments: &[&OsStr],
    environment: &[(&str, &str)],
) -> Result<Trace, Fault> {
    let fault = |what: &'static str| {
        let path = program.to_owned();
        move |error: Errno| Fault::File {
            doing: what,
            path,
            error: error.into(),
        }
    };
    let mut child = Command::new("/bin/sh")
        .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
        .arg(program)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .process_group(0)
        .spawn()
        .map_err(Fault::file("run", Path::new("/bin/sh")))?;
    let first = Pid::from_raw(child.id().cast_signed());
    waitpid(first, Some(WaitPidFlag::WUNTRACED)).map_err(fault("wait for"))?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_EXITKILL;
    if let Err(error) = ptrace::seize(first, options) {
        // Still stopped: it would stay so for ever.
        let _ = child.kill();
        let _ = child.wait();
        return Err(fault("trace")(error));
    }
    nix::sys::signal::kill(first, Signal::SIGCONT).map_err(fault("go on with"))?;
    watch(first).map_err(fault("watch"))
}

/// Follows every process until the last has ended.
fn watch(first: Pid) -> Result<Trace, Errno> {
    let mut trace = Trace::default();
    // Whether a process is inside a system call: each is reported at its start and at its end.
    let mut inside: BTreeMap<Pid, bool> = BTreeMap::new();
    let mut started = false;
    loop {
        // Other threads have children too, and wait for them themselves.
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::ECHILD) => return Ok(trace),
            Err(Errno::EINTR) => continue,
            status => status?,
        };
        let (pid, signal) = match status {
            WaitStatus::Exited(pid, code) => {
                if pid == first {
                    trace.exit = code;
                }
                continue;
            }
            WaitStatus::Signaled(pid, signal, _) => {
                if pid == first {
                    trace.exit = 128 + signal as i32;
                }
                continue;
            }
            WaitStatus::PtraceSyscall(pid) => {
                let inside = inside.entry(pid).or_default();
                *inside = !*inside;
                if *inside && started {
                    trace.calls += 1;
                }
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == Event::PTRACE_EVENT_EXEC as i32 && pid == first {
                    // It is the program from now on; the end of the call is still to come.
                    started = true;
                    inside.insert(pid, true);
                } else if event == Event::PTRACE_EVENT_EXIT as i32 && started {
                    trace.processes.push(Process {
                        pid: pid.as_raw(),
                        peak_kib: peak_kib(pid),
                    });
                }
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => continue,
        };
        match ptrace::syscall(pid, signal) {
            // It was killed meanwhile; its end is reported next.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads the most memory that a process ever had.
fn peak_kib(pid: Pid) -> u64 {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    peak(&read("status"), &read("smaps_rollup"))
}

/// Takes the highest of what the kernel says.
///
/// From Linux 6.2 to 6.16 the first is short by what each processor has not added up yet, up to
/// some hundred KiB. The last is exact, and a peak too where nothing is ever given back.
fn peak(status: &str, rollup: &str) -> u64 {
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    [
        field(status, "VmHWM:"),
        field(status, "VmRSS:"),
        field(rollup, "Rss:"),
    ]
    .into_iter()
    .flatten()
    .max()
    .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Trace {
        run(
            Path::new("/bin/sh"),
            &["-c".as_ref(), script.as_ref()],
            &[("PATH", "/usr/bin:/bin")],
        )
        .unwrap()
    }

    #[test]
    fn highest_of_what_the_kernel_says_counts() {
        assert_eq!(
            peak(
                "VmPeak:\t 9 kB\nVmHWM:\t     300 kB\nVmRSS:\t 12 kB\n",
                "Rss:  8 kB\n"
            ),
            300
        );
        assert_eq!(
            peak(
                "VmHWM:\t  0 kB\nVmRSS:\t 0 kB\n",
                "0-1 ---p [rollup]\nRss:   344 kB\n"
            ),
            344
        );
        assert_eq!(peak("", ""), 0);
    }

    #[test]
    fn exit_code_and_memory_are_those_of_the_program() {
        let trace = sh("exit 42");
        assert_eq!(trace.exit, 42);
        assert_eq!(trace.processes.len(), 1);
        assert!(trace.largest_kib() > 100 && trace.calls > 10, "{trace:?}");
    }

    #[test]
    fn children_are_followed_and_a_signal_is_told() {
        let trace = sh("(exit 1) & (exit 2) & wait; kill -TERM $$");
        assert_eq!(trace.exit, 128 + 15);
        assert_eq!(trace.processes.len(), 3, "{trace:?}");
    }

    #[test]
    fn memory_is_told_for_each_process() {
        // `dd` is asked for 20 MiB at once: it has them, the shell has not.
        let trace = sh("dd if=/dev/zero of=/dev/null bs=20M count=1 2>/dev/null; :");
        let mut peaks: Vec<_> = trace
            .processes
            .iter()
            .map(|process| process.peak_kib)
            .collect();
        peaks.sort_unstable();
        assert!(
            peaks.len() == 2 && peaks[0] < 10_000 && peaks[1] > 20_000,
            "{peaks:?}"
        );
    }

    #[test]
    fn every_system_call_counts_once() {
        // `kill` of the shell is one call to the kernel.
        let calls = |script| sh(script).calls;
        let none = calls(":");
        assert_eq!(calls("kill -0 $$"), none + 1);
        assert_eq!(calls("kill -0 $$; kill -0 $$; kill -0 $$"), none + 3);
    }
}
