//! Processes: arguments, fork, exec, exit, and waiting for children.
//!
//! Not a process library: the program has one thread and forks one worker. `fork` goes round libc
//! (see [`fork`]), and nothing here depends on what libc knows of the process.

use core::ffi::{CStr, c_char, c_int};
use core::ptr;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, WaitOptions, WaitStatus, waitpid};

use super::sys;

/// What a shell shows for a process that ended by SIGABRT; ours ends so when it panics.
const ABORTED: i32 = 134;

/// How much of the stack [`wipe_stack`] overwrites: what was used by then, since more would cost memory.
///
/// Without optimisation every frame is larger.
const STACK_WIPED: usize = if cfg!(debug_assertions) { 32 } else { 12 } * 1024;

/// The most arguments, and the most variables, that [`exec`] passes on.
const MAX_STRINGS: usize = 64;

/// The command line of this process.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    vector: &'static [*const c_char],
}

impl Arguments {
    /// Takes the vector that the C start-up code gives to `main`.
    ///
    /// # Safety
    ///
    /// `vector` points to `count` C strings, and they and it live as long as the process.
    pub unsafe fn new(count: c_int, vector: *const *const c_char) -> Self {
        let count = usize::try_from(count).unwrap_or(0);
        if vector.is_null() || count == 0 {
            return Self { vector: &[] };
        }
        // SAFETY: the caller promises `count` pointers that live as long as the process.
        let vector = unsafe { core::slice::from_raw_parts(vector, count) };
        Self { vector }
    }

    /// The name this program was called by (`argv[0]`); empty if the caller gave none.
    pub fn program(self) -> &'static [u8] {
        self.vector.first().map_or(&[], |&text| bytes(text))
    }

    /// The first argument after the program's name: the command.
    pub fn first(self) -> Option<&'static [u8]> {
        self.iter().next()
    }

    /// Goes through the arguments after the program's name.
    pub fn iter(self) -> impl Iterator<Item = &'static [u8]> + Clone {
        self.vector.iter().skip(1).map(|&text| bytes(text))
    }
}

/// Reads one string of an argument vector.
fn bytes(text: *const c_char) -> &'static [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: `Arguments::new` was promised C strings that live as long as the process.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

/// Overwrites what earlier and deeper calls have left on the stack.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what it is about")]
pub fn wipe_stack() {
    let mut stack = [0_u8; STACK_WIPED];
    core::hint::black_box(&mut stack);
}

/// Ends the process as a bug does. No signal: PID 1 would survive it.
pub fn abort() -> ! {
    exit(ABORTED)
}

/// Ends the process at once; nothing of libc's runs at exit.
pub fn exit(code: i32) -> ! {
    sys::exit(code)
}

/// Which of the two processes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The one that called; the other has this id.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Makes a second process that goes on from here with a copy of everything.
///
/// It is the bare system call: libc learns nothing, runs no handlers, and its own idea of the
/// process id is stale in the child ([`own_pid`] asks the kernel). This program has one thread and
/// keeps no buffers in libc, so there is nothing to be left half done; in a program with threads
/// the child may do no more than exec or exit. It leaves no core if it crashes: it may hold a password.
pub fn fork() -> rustix::io::Result<Fork> {
    // SAFETY: neither side uses libc's process state: this program calls into libc for `syscall`
    // and for copying memory only.
    let id = unsafe { sys::fork() }?;
    if let Some(child) = Pid::from_raw(id) {
        return Ok(Fork::Parent(child));
    }
    // Nothing to be done where the kernel refuses.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    Ok(Fork::Child)
}

/// Makes this process the leader of a session of its own, without a terminal.
pub fn new_session() -> rustix::io::Result<()> {
    rustix::process::setsid().map(drop)
}

/// Replaces this program by another; returns only when that failed, with the reason.
///
/// More than 64 arguments or 64 variables are refused with `E2BIG`.
pub fn exec(path: &CStr, arguments: &[&CStr], environment: &[&CStr]) -> Errno {
    let (Some(arguments), Some(environment)) = (pointers(arguments), pointers(environment)) else {
        return Errno::TOOBIG;
    };
    // SAFETY: both arrays end with a null pointer and point to C strings that outlive the call.
    unsafe { sys::exec(path, arguments.as_ptr(), environment.as_ptr()) }
}

/// Lists the strings as the kernel wants them, with a null pointer at the end.
fn pointers(strings: &[&CStr]) -> Option<[*const c_char; MAX_STRINGS + 1]> {
    let mut list = [ptr::null(); MAX_STRINGS + 1];
    if strings.len() > MAX_STRINGS {
        return None;
    }
    for (slot, string) in list.iter_mut().zip(strings) {
        *slot = string.as_ptr();
    }
    Some(list)
}

/// Collects every child that has ended, as PID 1 must; never waits.
pub fn reap() {
    loop {
        match waitpid(None, WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // None ready, or no children at all.
            Ok(None) | Err(_) => return,
        }
    }
}

/// Waits until this child has ended and says how.
pub fn wait(child: Pid) -> rustix::io::Result<WaitStatus> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Asks the kernel for the id of this process.
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn run_in_child(body: impl FnOnce() -> i32) -> WaitStatus {
        match fork().unwrap() {
            Fork::Child => exit(body()),
            Fork::Parent(child) => wait(child).unwrap(),
        }
    }

    #[test]
    fn program_is_apart_from_the_arguments() {
        let strings = [c"/init", c"provision", c"", c"--root"].map(CStr::as_ptr);
        let vector = std::vec::Vec::from(strings).leak();
        // SAFETY: four C strings in memory that is never freed.
        let arguments = unsafe { Arguments::new(4, vector.as_ptr()) };
        assert_eq!(arguments.program(), b"/init");
        assert_eq!(arguments.first(), Some(&b"provision"[..]));
        assert_eq!(
            arguments.iter().collect::<Vec<_>>(),
            [&b"provision"[..], b"", b"--root"]
        );
    }

    #[test]
    fn an_empty_vector_has_no_program_and_no_arguments() {
        // SAFETY: no strings are promised.
        let arguments = unsafe { Arguments::new(0, ptr::null()) };
        assert_eq!(arguments.program(), b"");
        assert_eq!(arguments.first(), None);
    }

    #[test]
    fn child_has_its_own_pid_and_its_exit_code_arrives() {
        let parent = own_pid();
        assert_eq!(parent.cast_unsigned(), std::process::id());
        let status = run_in_child(|| if own_pid() == parent { 1 } else { 77 });
        assert_eq!(status.exit_status(), Some(77));
    }

    #[test]
    fn abort_is_seen_as_such() {
        assert_eq!(run_in_child(|| abort()).exit_status(), Some(ABORTED));
    }

    #[test]
    fn memory_of_the_child_is_a_copy() {
        let mut value = 1;
        let place = &raw mut value;
        let status = run_in_child(|| {
            // SAFETY: `value` is a live local, and this process has one thread now.
            unsafe { place.write_volatile(2) };
            0
        });
        assert_eq!(status.exit_status(), Some(0));
        // SAFETY: `value` is a live local that only a child has written.
        assert_eq!(unsafe { place.read_volatile() }, 1);
    }

    #[test]
    fn exec_passes_arguments_and_environment() {
        let status = run_in_child(|| {
            let script = c"test \"$0 $1 $WORD\" = \"zero one two\" && exit 42";
            exec(
                c"/bin/sh",
                &[c"sh", c"-c", script, c"zero", c"one"],
                &[c"WORD=two"],
            );
            1
        });
        assert_eq!(status.exit_status(), Some(42));
    }

    #[test]
    fn exec_that_fails_says_why() {
        assert_eq!(exec(c"/nonexistent", &[c"x"], &[]), Errno::NOENT);
        assert_eq!(exec(c"/bin/sh", &[c"x"; 65], &[]), Errno::TOOBIG);
        assert_eq!(exec(c"/bin/sh", &[c"x"], &[c"A=1"; 65]), Errno::TOOBIG);
    }

    #[test]
    fn new_session_has_no_terminal_and_a_new_leader() {
        let status = run_in_child(|| {
            if new_session().is_err() {
                return 1;
            }
            let leader = rustix::process::getsid(None)
                .unwrap()
                .as_raw_nonzero()
                .get();
            i32::from(leader != own_pid())
        });
        assert_eq!(status.exit_status(), Some(0));
    }

    #[test]
    fn reap_leaves_no_zombie() {
        // In a child, so that the children of other tests are not collected here.
        let status = run_in_child(|| {
            let Ok(Fork::Parent(child)) = fork() else {
                exit(0)
            };
            for _ in 0..100_000 {
                reap();
                if wait_without_hanging(child) == Err(Errno::CHILD) {
                    return 0;
                }
                std::thread::yield_now();
            }
            1
        });
        assert_eq!(status.exit_status(), Some(0));
    }

    fn wait_without_hanging(child: Pid) -> rustix::io::Result<()> {
        // WNOWAIT leaves the child for `reap`, whose work this is to be.
        let options = rustix::process::WaitIdOptions::EXITED
            | rustix::process::WaitIdOptions::NOHANG
            | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(child), options).map(drop)
    }
}
