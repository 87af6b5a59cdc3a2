//! The emulator's monitor (QMP): stops a machine, switches it off, and looks into its memory.

use std::env::temp_dir;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::fault::Fault;

/// The door of one machine.
#[derive(Debug)]
pub struct Monitor {
    path: PathBuf,
    memory: u64,
}

impl Monitor {
    /// Names a door for a machine with so many bytes of memory.
    ///
    /// The name of a socket may have 107 bytes, less than many a path to a build directory.
    pub(crate) fn new(memory: u64) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lab-{}-{number}.monitor", std::process::id());
        Self {
            path: temp_dir().join(name),
            memory,
        }
    }

    /// Gives the emulator's arguments.
    pub(crate) fn arguments(&self) -> [String; 2] {
        let path = self.path.to_string_lossy().replace(',', ",,");
        ["-qmp".to_owned(), format!("unix:{path},server=on,wait=off")]
    }

    /// Writes all memory of the machine to a file; it stands still meanwhile.
    pub fn memory(&self, to: &Path) -> Result<(), Fault> {
        let saved = || -> io::Result<()> {
            let mut door = Door::open(&self.path)?;
            door.ask(&json!({ "execute": "qmp_capabilities" }))?;
            door.ask(&json!({ "execute": "stop" }))?;
            door.ask(&json!({
                "execute": "pmemsave",
                "arguments": { "val": 0, "size": self.memory, "filename": to },
            }))?;
            door.ask(&json!({ "execute": "cont" }))
        };
        saved().map_err(Fault::file("save the machine's memory to", to))
    }

    /// Presses the machine's power button: its system may do what it does before it goes.
    pub fn power_down(&self) -> Result<(), Fault> {
        self.tell("system_powerdown")
    }

    /// Ends the emulator, which first writes to the disk's image what it has not written yet.
    pub fn quit(&self) -> Result<(), Fault> {
        self.tell("quit")
    }

    fn tell(&self, word: &str) -> Result<(), Fault> {
        let told = || -> io::Result<()> {
            let mut door = Door::open(&self.path)?;
            door.ask(&json!({ "execute": "qmp_capabilities" }))?;
            door.ask(&json!({ "execute": word }))
        };
        told().map_err(Fault::file("reach the emulator at", &self.path))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // The emulator has removed it, if it came so far as to make it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// An open door.
struct Door(BufReader<UnixStream>);

impl Door {
    /// Connects, and takes the greeting.
    fn open(path: &Path) -> io::Result<Self> {
        let mut door = Self(BufReader::new(UnixStream::connect(path)?));
        door.hear()?;
        Ok(door)
    }

    /// Asks, and waits until it is done.
    fn ask(&mut self, question: &Value) -> io::Result<()> {
        let stream = self.0.get_mut();
        stream.write_all(question.to_string().as_bytes())?;
        stream.write_all(b"\n")?;
        loop {
            let said = self.hear()?;
            if let Some(error) = said.get("error") {
                return Err(io::Error::other(error.to_string()));
            }
            // What else comes are events.
            if said.get("return").is_some() {
                return Ok(());
            }
        }
    }

    fn hear(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    /// Plays an emulator that answers each question so, and tells what it was asked.
    fn emulator(
        monitor: &Monitor,
        mut answer: impl FnMut(&Value) -> &'static [u8] + Send + 'static,
    ) -> JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(&monitor.path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"QMP\": {}}\n").unwrap();
            let mut asked = Vec::new();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let asks: Value = serde_json::from_str(&line.unwrap()).unwrap();
                asked.push(asks["execute"].as_str().unwrap().to_owned());
                stream.write_all(answer(&asks)).unwrap();
            }
            asked
        })
    }

    #[test]
    fn power_button_is_pressed_by_its_own_word() {
        let monitor = Monitor::new(1 << 20);
        let emulator = emulator(&monitor, |_| b"{\"return\": {}}\n");
        monitor.power_down().unwrap();
        assert_eq!(
            emulator.join().unwrap(),
            ["qmp_capabilities", "system_powerdown"]
        );
    }

    #[test]
    fn events_are_passed_over_and_an_error_is_told() {
        let monitor = Monitor::new(1 << 20);
        let emulator = emulator(&monitor, |asks| {
            if asks["execute"] == "pmemsave" {
                assert_eq!(asks["arguments"]["size"], 1 << 20);
                return b"{\"error\": {\"desc\": \"no room\"}}\n";
            }
            b"{\"event\": \"STOP\"}\n{\"return\": {}}\n"
        });
        let fault = monitor.memory(Path::new("/nonexistent/x")).unwrap_err();
        assert!(fault.to_string().contains("no room"), "{fault}");
        assert_eq!(
            emulator.join().unwrap(),
            ["qmp_capabilities", "stop", "pmemsave"]
        );
    }
}
