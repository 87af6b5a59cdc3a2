//! Running a program of a root inside it.
//!
//! Not a container: the program is root and may do everything to the system that it is in. Only what it
//! sees is arranged, in a mount namespace that ends with it: its root, and in that the kernel's file
//! systems as this process sees them.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitStatus};
use rustix::thread::UnshareFlags;

use super::clock;
use super::path::terminated;
use super::poll;
use super::process::{self, Fork};

/// The file systems that a program expects to find.
const SHARED: [&CStr; 4] = [c"/dev", c"/proc", c"/sys", c"/run"];

/// What a program finds in its environment.
const ENVIRONMENT: [&CStr; 2] = [
    c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    c"HOME=/root",
];

/// What is printed is its owner's.
const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);

/// What shells say of a program that cannot be run, and of one that is not there.
const NOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Runs `program` in the root at `root`, and all that it starts in its session, for `limit` at most;
/// what it prints goes to the file `output` there, if that is given.
///
/// Says how it ended, by SIGKILL when it took too long; what it wrote is on the disk then.
pub fn run(
    root: &str,
    program: &str,
    arguments: &[&str],
    output: Option<&str>,
    limit: Duration,
) -> rustix::io::Result<WaitStatus> {
    let order = Order::new(root, program, arguments, output)?;
    let words: Vec<&CStr> = order.words.iter().map(CString::as_c_str).collect();
    match process::fork()? {
        Fork::Child => process::exit(match order.carry_out(&words).err() {
            Some(Errno::NOENT) => NOT_FOUND,
            _ => NOT_RUN,
        }),
        Fork::Parent(child) => {
            wait_for(child, limit);
            // Whatever it left behind in its session must not hold the root.
            let _ = rustix::process::kill_process_group(child, Signal::KILL);
            let ended = process::wait(child);
            rustix::fs::sync();
            ended
        }
    }
}

/// Waits until a process has ended, or long enough.
fn wait_for(child: Pid, limit: Duration) {
    let Ok(end) = rustix::process::pidfd_open(child, PidfdFlags::empty()) else {
        return;
    };
    let until = clock::monotonic().saturating_add(limit);
    loop {
        let left = until.saturating_sub(clock::monotonic());
        let ended = poll::wait(&mut [PollFd::new(&end, PollFlags::IN)], Some(left));
        if ended != Ok(0) || left.is_zero() {
            return;
        }
    }
}

/// What the new process needs, put together before there is one: after a fork nothing is allocated.
struct Order {
    root: CString,
    /// Where the shared file systems go, in the order of [`SHARED`].
    places: Vec<CString>,
    /// The program and its arguments.
    words: Vec<CString>,
    output: Option<CString>,
}

impl Order {
    fn new(
        root: &str,
        program: &str,
        arguments: &[&str],
        output: Option<&str>,
    ) -> rustix::io::Result<Self> {
        let mut places = Vec::new();
        for shared in SHARED {
            places.push(terminated(
                &[root, shared.to_str().unwrap_or_default()].concat(),
            )?);
        }
        let mut words = Vec::new();
        for word in [program].iter().chain(arguments) {
            words.push(terminated(word)?);
        }
        Ok(Self {
            root: terminated(root)?,
            places,
            words,
            output: output.map(terminated).transpose()?,
        })
    }

    /// Becomes the program, whose words are `self.words`; returns only when that fails.
    fn carry_out(&self, words: &[&CStr]) -> rustix::io::Result<()> {
        let program = words.first().ok_or(Errno::INVAL)?;
        process::new_session()?;
        // SAFETY: no descriptors are unshared, and this process has one thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private)?;
        for (shared, place) in SHARED.iter().zip(&self.places) {
            // A root that has no place for it does without.
            let _ = rustix::mount::mount_bind_recursive(*shared, place.as_c_str());
        }
        rustix::process::chroot(self.root.as_c_str())?;
        rustix::process::chdir(c"/")?;
        if let Ok(nothing) = open(c"/dev/null", OFlags::RDWR) {
            rustix::stdio::dup2_stdin(&nothing)?;
            rustix::stdio::dup2_stdout(&nothing)?;
            rustix::stdio::dup2_stderr(&nothing)?;
        }
        if let Some(output) = &self.output {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
            let output = open(output, flags)?;
            rustix::fs::fchmod(&output, OWNER)?;
            rustix::stdio::dup2_stdout(&output)?;
            rustix::stdio::dup2_stderr(&output)?;
        }
        Err(process::exec(program, words, &ENVIRONMENT))
    }
}

/// Opens a file for this program only; what is created belongs to its owner.
fn open(path: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, OWNER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;
    use std::process::Command;
    use std::string::String;

    /// Runs a script in a root that is this machine's own.
    ///
    /// Nothing when this is not root: then only the test of the whole program, which has a machine of
    /// its own, tells.
    fn script(name: &str, text: &str, limit: Duration) -> Option<(WaitStatus, String)> {
        let place: PathBuf =
            std::env::temp_dir().join(std::format!("preroot-inside-{name}-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        // Written by another process: what another test forks while this one has it open for writing
        // could not be run.
        let program = place.join("script");
        fs::write(place.join("text"), text).unwrap();
        let copy = Command::new("cp")
            .arg(place.join("text"))
            .arg(&program)
            .status();
        assert!(copy.unwrap().success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let output = place.join("output");
        let root = rustix::process::geteuid().is_root();
        let status = root.then(|| {
            run(
                "/",
                program.to_str().unwrap(),
                &["one", "two words"],
                output.to_str(),
                limit,
            )
            .unwrap()
        });
        let text = fs::read_to_string(&output).unwrap_or_default();
        if root && output.exists() {
            let mode = fs::metadata(&output).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
        }
        fs::remove_dir_all(&place).unwrap();
        Some((status?, text))
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn script_runs_with_its_output_in_a_file_and_its_exit_code_is_told() {
        let text = "#!/bin/sh\necho out $HOME $# $2; echo err >&2; read line && echo input\n\
                    cut -d' ' -f6 /proc/self/stat >/dev/null; exit 7\n";
        if let Some((status, text)) = script("ends", text, LONG) {
            assert_eq!(status.exit_status(), Some(7));
            assert_eq!(text, "out /root 2 two words\nerr\n");
        }
    }

    #[test]
    fn script_that_takes_too_long_is_killed_with_all_it_started() {
        let start = clock::monotonic();
        let text = "#!/bin/sh\nsleep 300 &\necho $!\nwait\n";
        if let Some((status, text)) = script("hangs", text, Duration::from_millis(300)) {
            assert_eq!(status.terminating_signal(), Some(9));
            assert!(clock::monotonic().saturating_sub(start) < Duration::from_secs(30));
            let sleeper = std::format!("/proc/{}/cmdline", text.trim());
            // It may take the kernel a moment; what is left of it then has no command line.
            let gone = || fs::read(&sleeper).is_ok_and(|line| !line.is_empty());
            for _ in 0..1000 {
                if !gone() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            panic!("{sleeper} is still there");
        }
    }

    #[test]
    fn what_cannot_be_run_ends_as_in_a_shell() {
        if let Some((status, _)) = script("no-interpreter", "#!/nonexistent\n", LONG) {
            assert_eq!(status.exit_status(), Some(NOT_FOUND));
        }
        if let Some((status, _)) = script("no-program", "#cloud-config\n", LONG) {
            assert_eq!(status.exit_status(), Some(NOT_RUN));
        }
    }
}
