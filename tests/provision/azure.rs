//! The platform at the other end of the cable, in a thread of the test.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use lab::expected::Expected;
use lab::platform::http::Request;
use lab::platform::plug::packet::{self, Interface};
use lab::platform::{Entry, Platform, Scenario, Verdict, pcap};

use crate::machine::{DOCUMENT, HOST_NAME, KEY};

/// A platform that runs.
pub(crate) struct Azure {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Platform>,
    wire: Wire,
}

/// All bytes that went over a cable.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Azure {
    /// Starts the platform that a scenario's text describes, at the host's end of the cable.
    pub(crate) fn start(scenario: &str) -> Self {
        Self::on("host0", scenario)
    }

    /// Starts the platform at the end of another cable.
    pub(crate) fn on(interface: &str, scenario: &str) -> Self {
        let mut platform = platform(scenario);
        let wire = Wire::default();
        platform.record(pcap::Writer::new(Box::new(wire.clone()) as Box<_>).unwrap());
        let interface = Interface::open(interface).unwrap();
        Self::run(platform, wire, move |platform, stop| {
            packet::run(platform, &interface, |_| stop.load(Ordering::Relaxed))
        })
    }

    /// Starts a platform that `serve` runs until it is told to stop.
    pub(crate) fn served(
        scenario: &str,
        serve: impl FnOnce(&mut Platform, &AtomicBool) -> io::Result<()> + Send + 'static,
    ) -> Self {
        Self::run(platform(scenario), Wire::default(), serve)
    }

    fn run(
        mut platform: Platform,
        wire: Wire,
        serve: impl FnOnce(&mut Platform, &AtomicBool) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            serve(&mut platform, &told).unwrap();
            platform
        });
        Azure { stop, thread, wire }
    }

    /// Ends the platform and gives what it heard.
    #[track_caller]
    pub(crate) fn end(self) -> Heard {
        self.stop.store(true, Ordering::Relaxed);
        let platform = self.thread.join().expect("the platform runs to its end");
        let wire = self.wire.0.lock().unwrap().clone();
        Heard { platform, wire }
    }
}

fn platform(scenario: &str) -> Platform {
    let mut scenario = match Scenario::named(scenario) {
        Some(scenario) => scenario,
        None => Scenario::parse(scenario).unwrap(),
    };
    // The metadata service says what the disc says, unless the scenario knows better.
    let disc = fs::read_to_string(DOCUMENT).ok();
    let disc = disc.and_then(|text| Expected::parse(&text, Path::new(DOCUMENT)).ok());
    if let Some(disc) = disc {
        scenario.follow(Some(&disc));
    } else {
        let said = &mut scenario.vm.identity;
        said.computer_name
            .get_or_insert_with(|| HOST_NAME.to_owned());
        said.keys.get_or_insert_with(|| vec![KEY.to_owned()]);
    }
    Platform::new(scenario)
}

/// What the platform heard.
pub(crate) struct Heard {
    pub(crate) platform: Platform,
    /// What was on the wire, as a packet capture.
    pub(crate) wire: Vec<u8>,
}

impl Heard {
    /// Checks that the machine is ready, and that it got there by the rules.
    #[track_caller]
    pub(crate) fn ready(&self) -> &Self {
        assert_eq!(
            self.platform.verdict(),
            Verdict::Ready,
            "{}",
            self.journal()
        );
        self.by_the_rules()
    }

    /// Checks that the machine has given up, by the rules, and gives its words.
    #[track_caller]
    pub(crate) fn failed(&self) -> String {
        self.by_the_rules();
        match self.platform.verdict() {
            Verdict::Failed { description } => description,
            other => panic!("{other:?}\n{}", self.journal()),
        }
    }

    /// Checks that nothing final was reported, and that the rules were kept.
    #[track_caller]
    pub(crate) fn undecided(&self) -> &Self {
        let verdict = self.platform.verdict();
        assert_eq!(verdict, Verdict::Creating, "{}", self.journal());
        self.by_the_rules()
    }

    #[track_caller]
    fn by_the_rules(&self) -> &Self {
        let complaints: Vec<&str> = self.platform.complaints().collect();
        assert!(complaints.is_empty(), "{complaints:?}\n{}", self.journal());
        self
    }

    /// Checks that the machine sent nothing at all.
    #[track_caller]
    pub(crate) fn nothing(&self) {
        assert_eq!(self.platform.frames(), (0, 0), "{}", self.journal());
    }

    /// The requests, in their order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.platform
            .journal()
            .iter()
            .filter_map(|entry| match entry {
                Entry::Request { request, .. } => Some(request),
                _ => None,
            })
    }

    /// Methods and paths of the requests to the WireServer, in their order.
    pub(crate) fn steps(&self) -> Vec<String> {
        self.requests()
            .filter(|request| !request.target.starts_with("/metadata/"))
            .map(|request| format!("{} {}", request.method, request.target))
            .collect()
    }

    /// Everything that happened, a line each.
    pub(crate) fn journal(&self) -> String {
        self.platform
            .journal()
            .iter()
            .fold(String::new(), |mut all, entry| {
                let _ = writeln!(all, "{entry}");
                all
            })
    }
}
