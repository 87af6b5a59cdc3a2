//! A virtual machine in QEMU without KVM: its command line, its console and its end.
//!
//! Its network card is a datagram socket to a [`Peer`] in this process, so nothing of the host's
//! network is touched. It knows nothing of what is booted.

mod arguments;

use std::fs::DirBuilder;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::fetch::{Tool, on_path};

use arguments::arguments;
pub use arguments::{Bus, Firmware, Machine, Start, VIRTIO};

/// The largest frame that the emulator sends, with room for offloads.
const FRAME: usize = 65_536 + 64;

/// How often a watcher is asked when the machine says nothing.
const BEAT: Duration = Duration::from_millis(200);

/// How much of a console is kept; a guest that says more is broken.
const CONSOLE: usize = 8 << 20;

/// How a machine came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The guest switched it off.
    PoweredOff,
    /// The guest restarted it.
    Restarted,
    /// The guest's kernel gave up.
    Panicked,
    /// It ran for too long and was ended.
    TimedOut,
    /// A watcher of its console had it ended.
    Stopped,
    /// The emulator failed, with this to say.
    Failed(String),
}

/// What a run left behind.
#[derive(Debug, Clone)]
pub struct Run {
    /// All that the guest wrote on its console.
    pub console: String,
    /// How it ended.
    pub exit: Exit,
    /// How long it ran.
    pub took: Duration,
}

/// The far end of the machine's network cable.
pub trait Peer {
    /// Answers the machine's frames until `over` is set.
    fn serve(&mut self, cable: &Cable, over: &AtomicBool) -> io::Result<()>;
}

/// A cable that leads nowhere: every frame is lost.
#[derive(Debug)]
pub struct Unplugged;

impl Peer for Unplugged {
    fn serve(&mut self, cable: &Cable, over: &AtomicBool) -> io::Result<()> {
        let mut frame = vec![0; FRAME];
        while !over.load(Ordering::Relaxed) {
            cable.receive(&mut frame, Duration::from_millis(100))?;
        }
        Ok(())
    }
}

/// The machine's network cable: one datagram is one Ethernet frame.
#[derive(Debug)]
pub struct Cable {
    socket: UnixDatagram,
    directory: PathBuf,
}

impl Cable {
    /// Lays a cable; its sockets are in a short-lived directory that only we can enter.
    ///
    /// The name of a socket may have 107 bytes, less than many a path to a build directory.
    fn lay() -> Result<Self, Fault> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lab-{}-{number}.cable", std::process::id());
        let directory = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(Fault::file("create", &directory))?;
        let ours = directory.join("lab");
        let socket = UnixDatagram::bind(&ours).map_err(Fault::file("create", &ours))?;
        Ok(Self { socket, directory })
    }

    /// The lab's end.
    pub fn socket(&self) -> &UnixDatagram {
        &self.socket
    }

    /// The name of the machine's end.
    pub fn machine(&self) -> PathBuf {
        self.directory.join("vm")
    }

    /// Waits for a frame of the machine, but not longer than `limit`.
    pub fn receive(&self, frame: &mut [u8], limit: Duration) -> io::Result<Option<usize>> {
        // Zero would mean to wait for ever.
        self.socket
            .set_read_timeout(Some(limit.max(Duration::from_micros(1))))?;
        match self.socket.recv(frame) {
            Ok(length) => Ok(Some(length)),
            Err(error) if is_no_frame(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame to the machine; before it is up, and when it is gone, frames are lost.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self.socket.send_to(frame, self.machine()) {
            Err(error) if !is_nobody_there(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // A directory left behind in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn is_no_frame(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn is_nobody_there(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotFound, WouldBlock};
    matches!(error.kind(), ConnectionRefused | NotFound | WouldBlock)
}

/// What a watcher of the console wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// To see the next line.
    Continue,
    /// The end of the machine, at once and without a warning to it.
    Stop,
}

/// Who follows a machine's console while it runs.
pub trait Watcher: Send {
    /// Hears a line.
    fn line(&mut self, line: &str) -> Watch;

    /// Is asked again and again, whether or not something was said; `part` is of a line that has no end yet.
    fn alive(&mut self, part: &str) -> Watch {
        let _ = part;
        Watch::Continue
    }
}

impl<F: FnMut(&str) -> Watch + Send> Watcher for F {
    fn line(&mut self, line: &str) -> Watch {
        self(line)
    }
}

/// Runs a machine to its end; every line of its console goes to `watcher` as it comes.
pub fn run(
    qemu: &Tool,
    machine: &Machine,
    peer: &mut dyn Peer,
    watcher: &mut dyn Watcher,
) -> Result<Run, Fault> {
    let cable = Cable::lay()?;
    let mut command = mortal(qemu);
    if let Some(tree) = qemu.tree() {
        // Its firmware comes in packages of its own, and it looks for them in /usr only.
        for directory in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(tree.join(directory));
        }
    }
    command.args(arguments(machine, &cable)?);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command
        .spawn()
        .map_err(Fault::file("run", qemu.program()))?;
    let over = AtomicBool::new(false);
    let limit = start + machine.time_limit;
    let (console, asked, ended, said) = thread::scope(|scope| {
        let said = child.stderr.take().map(|mut stderr| {
            scope.spawn(move || {
                let mut text = Vec::new();
                // What was read before an error is still worth showing.
                let _ = stderr.read_to_end(&mut text);
                String::from_utf8_lossy(&text).trim_end().to_owned()
            })
        });
        let following = scope.spawn(|| {
            let (console, asked) = follow(&mut child, limit, watcher);
            if asked.is_some() {
                // This very process and no other; it may have just ended by itself.
                let _ = child.kill();
            }
            let ended = child.wait();
            over.store(true, Ordering::Relaxed);
            (console, asked, ended)
        });
        let served = peer.serve(&cable, &over);
        let (console, asked, ended) = following.join().unwrap_or_else(|_| {
            let why = "its console could not be followed".to_owned();
            (
                String::new(),
                Some(Exit::Failed(why)),
                Err(io::ErrorKind::Other.into()),
            )
        });
        let said = said
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        let (said, asked) = match served {
            Ok(()) => (said, asked),
            Err(error) => {
                let why = format!("the simulated platform failed: {error}");
                (said, Some(Exit::Failed(why)))
            }
        };
        (console, asked, ended, said)
    });
    let status = ended.map_err(Fault::file("wait for", qemu.program()))?;
    let exit = asked.unwrap_or_else(|| kind(&console, status, &said));
    Ok(Run {
        console,
        exit,
        took: start.elapsed(),
    })
}

/// Starts a command line whose program dies with this one, if the system has the means.
///
/// A machine that hangs would otherwise outlive a lab that was killed.
fn mortal(qemu: &Tool) -> Command {
    let Some(setpriv) = on_path("setpriv") else {
        return qemu.command();
    };
    let direct = qemu.command();
    let mut command = Command::new(setpriv);
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(qemu.program());
    for (name, value) in direct.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

/// Reads the console until it is closed, time is up or the watcher has seen enough.
fn follow(
    child: &mut Child,
    deadline: Instant,
    watcher: &mut dyn Watcher,
) -> (String, Option<Exit>) {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    // The thread ends with the pipe, and the pipe with the child.
    if let Some(mut stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut chunk = vec![0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut chunk) {
                let read = chunk.get(..length).unwrap_or_default().to_vec();
                if sender.send(read).is_err() {
                    break;
                }
            }
        });
    } else {
        drop(sender);
    }
    let (mut console, mut line) = (String::new(), Vec::new());
    let end = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(BEAT)) {
            Ok(chunk) => {
                let mut stop = false;
                for byte in chunk {
                    match byte {
                        b'\n' => {
                            let text = String::from_utf8_lossy(&line).into_owned();
                            line.clear();
                            stop |= watcher.line(&text) == Watch::Stop;
                            console.push_str(&text);
                            console.push('\n');
                        }
                        b'\r' => {}
                        _ => line.push(byte),
                    }
                }
                stop |= watcher.alive(&String::from_utf8_lossy(&line)) == Watch::Stop;
                if stop {
                    break Some(Exit::Stopped);
                }
                if console.len() + line.len() > CONSOLE {
                    break Some(Exit::Failed("the guest does not stop talking".to_owned()));
                }
            }
            Err(RecvTimeoutError::Timeout) if left <= BEAT => break Some(Exit::TimedOut),
            Err(RecvTimeoutError::Timeout) => {
                if watcher.alive(&String::from_utf8_lossy(&line)) == Watch::Stop {
                    break Some(Exit::Stopped);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    if !line.is_empty() {
        let text = String::from_utf8_lossy(&line);
        watcher.line(&text);
        console.push_str(&text);
    }
    (console, end)
}

/// Tells from the guest's last words how it ended: the emulator ends in the same way for all.
fn kind(console: &str, status: ExitStatus, said: &str) -> Exit {
    if !status.success() {
        return Exit::Failed(format!("{status}: {said}"));
    }
    if console.contains("Kernel panic - not syncing") {
        Exit::Panicked
    } else if console.contains("reboot: Power down") || console.contains("reboot: System halted") {
        Exit::PoweredOff
    } else {
        Exit::Restarted
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn guests_last_words_tell_how_it_ended() {
        let good = ExitStatus::from_raw(0);
        assert_eq!(
            kind("[ 9.1] reboot: Power down\n", good, ""),
            Exit::PoweredOff
        );
        assert_eq!(
            kind("Kernel panic - not syncing: x\n", good, ""),
            Exit::Panicked
        );
        assert_eq!(
            kind("reboot: Restarting system\n", good, ""),
            Exit::Restarted
        );
        let bad = ExitStatus::from_raw(0x100);
        assert!(
            matches!(kind("reboot: Power down", bad, "no"), Exit::Failed(why) if why.ends_with("no"))
        );
    }

    #[test]
    fn frames_before_the_machine_is_up_are_lost_without_an_error() {
        let cable = Cable::lay().unwrap();
        cable.send(b"hello").unwrap();
        let mut frame = [0; 16];
        assert_eq!(cable.receive(&mut frame, Duration::ZERO).unwrap(), None);
    }

    #[test]
    fn frames_cross_the_cable_whole() {
        let cable = Cable::lay().unwrap();
        let vm = UnixDatagram::bind(cable.machine()).unwrap();
        cable.send(b"one").unwrap();
        let mut frame = [0; 16];
        assert_eq!(vm.recv(&mut frame).unwrap(), 3);
        vm.send_to(b"three", cable.directory.join("lab")).unwrap();
        assert_eq!(
            cable.receive(&mut frame, Duration::from_secs(1)).unwrap(),
            Some(5)
        );
    }

    #[test]
    fn machine_that_runs_too_long_is_ended() {
        let mut child = Command::new("sh")
            .args(["-c", "echo line; printf part; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = Vec::new();
        let deadline = Instant::now() + Duration::from_millis(500);
        let (console, exit) = follow(&mut child, deadline, &mut |line: &str| {
            lines.push(line.to_owned());
            Watch::Continue
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(exit, Some(Exit::TimedOut));
        assert_eq!(console, "line\npart");
        assert_eq!(lines, ["line", "part"]);
    }

    #[test]
    fn watcher_can_end_the_machine() {
        let mut child = Command::new("sh")
            .args(["-c", "echo enough; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let (_, exit) = follow(&mut child, deadline, &mut |_: &str| Watch::Stop);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(exit, Some(Exit::Stopped));
    }
}
