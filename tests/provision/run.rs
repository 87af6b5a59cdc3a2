//! The program, run as its callers run it: what it says, how it ends, and what it leaves behind.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_preroot");
/// How long after its end something of a run may still be there.
///
/// On an idle machine it is gone in 16 ms: the kernel closes a packet socket when no processor can see
/// it any more. On a busy one that, and the processor itself, take much longer.
const AFTERLIFE: Duration = Duration::from_secs(3);

/// Runs the program with these arguments and no others.
pub(crate) fn call(arguments: &[&str]) -> Run {
    Running::start(arguments).end()
}

/// The program, running.
pub(crate) struct Running {
    child: Child,
    started: Instant,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<()>,
    lines: Receiver<String>,
    said: String,
}

impl Running {
    /// Starts the program with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let started = Instant::now();
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let stdout = thread::spawn(move || {
            let mut all = Vec::new();
            stdout.read_to_end(&mut all).unwrap();
            all
        });
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let stderr = thread::spawn(move || {
            for line in stderr.lines() {
                // Whoever does not listen any more has heard enough.
                let _ = sender.send(line.unwrap());
            }
        });
        Running {
            child,
            started,
            stdout,
            stderr,
            lines,
            said: String::new(),
        }
    }

    /// Gives the number of the process that the caller knows.
    pub(crate) fn id(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits until the program says a line with these words.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, words: &str) {
        while !self.said.contains(words) {
            match self.lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => {
                    self.said.push_str(&line);
                    self.said.push('\n');
                }
                Err(error) => panic!("{error}: no \"{words}\" in:\n{}", self.said),
            }
        }
    }

    /// Waits until the program's caller goes on.
    pub(crate) fn exit(&mut self) {
        self.child.wait().unwrap();
    }

    /// Waits until the program has ended, and checks that nothing of it is left behind.
    #[track_caller]
    pub(crate) fn end(self) -> Run {
        let run = self.end_beside_others();
        let ended = Instant::now();
        let left = loop {
            let left = processes();
            if left.is_empty() || ended.elapsed() > AFTERLIFE {
                break left;
            }
            thread::sleep(Duration::from_millis(1));
        };
        assert!(left.is_empty(), "left behind: {left:?}\n{run}");
        run
    }

    /// Waits until the program has ended; another run of it may go on.
    #[track_caller]
    pub(crate) fn end_beside_others(mut self) -> Run {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.started.elapsed() > Duration::from_secs(50) {
                let _ = self.child.kill();
                let said: Vec<String> = self.lines.try_iter().collect();
                panic!("it does not end:\n{}{}", self.said, said.join("\n"));
            }
            thread::sleep(Duration::from_millis(1));
        };
        let took = self.started.elapsed();
        let stdout = self.stdout.join().unwrap();
        self.stderr.join().unwrap();
        for line in self.lines.try_iter() {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        Run {
            status,
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: self.said,
            took,
        }
    }
}

/// How a run ended, and what it said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Run {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Checks that a line was said that has these words.
    #[track_caller]
    pub(crate) fn says(&self, words: &str) -> &Self {
        assert!(self.stderr.contains(words), "no \"{words}\" in:\n{self}");
        self
    }

    /// Checks that nothing of the kind was said.
    #[track_caller]
    pub(crate) fn never_says(&self, words: &str) -> &Self {
        assert!(!self.stderr.contains(words), "\"{words}\" in:\n{self}");
        self
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} after {:?}\n{}{}",
            self.status, self.took, self.stdout, self.stderr
        )
    }
}

/// A process of the program.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its number in this namespace.
    pub(crate) number: i32,
    /// What it does, for whoever wonders why it is still there.
    _state: String,
}

/// Lists the processes of the program in this network.
///
/// `/proc` is the machine's, so it lists those of other tests too, and by other numbers.
pub(crate) fn processes() -> Vec<Process> {
    let mut found = Vec::new();
    for process in our_places() {
        let read = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        let status = read("status");
        let field = |name| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
        };
        let number = field("NSpid:").split_whitespace().last();
        // It may have gone in between.
        if let Some(number) = number {
            found.push(Process {
                number: number.parse().unwrap(),
                _state: format!("{} in {}", field("State:").trim(), read("wchan")),
            });
        }
    }
    found
}

/// Gives the directories of these processes in `/proc`.
pub(crate) fn our_places() -> Vec<PathBuf> {
    let here = fs::read_link("/proc/self/ns/net").unwrap();
    let program = fs::canonicalize(PROGRAM).unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let process = entry.path();
        // What is not a process, not ours to look at, or just ending has none of these.
        let is_ours = fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program)
            && fs::read_link(process.join("ns/net")).is_ok_and(|net| net == here);
        if is_ours {
            found.push(process);
        }
    }
    found
}
