//! What a run of `preroot provision` costs: memory on the simulated platform, time and system calls
//! where there is no platform.
//!
//! It runs in namespaces of its own, with the lab started anew inside them, so that the network, the
//! mounts and `/run` of this machine are not touched. Not a benchmark: the processor is whatever it is.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::arch::Arch;
use crate::boot::{DOCUMENT, VM_ID};
use crate::disc::Builder;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, remove_directory, this_program};
use crate::platform::{Platform, Scenario, plug};
use crate::progress::{self, Step};
use crate::rootfs;
use crate::trace::{self, Trace};

/// How often the time of a run is taken; the least disturbed half decides.
const RUNS: usize = 41;

/// The exit code for "this is not Azure".
const NOT_HERE: i32 = 99;

/// Where the kernel shows what the firmware says.
const FIRMWARE: &str = "/sys/devices/virtual/dmi/id";

/// What the program took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Memory of each process of a provisioning, in KiB, in the order in which they ended.
    pub peaks_kib: Vec<u64>,
    /// System calls of a run on another machine than Azure's.
    pub elsewhere_calls: u64,
    /// The time that such a run takes, beyond that of a program that does nothing.
    pub elsewhere: Duration,
    /// The time from the start of a provisioning until Ready was accepted, on a link without
    /// latency, with root and disc there.
    pub ready: Duration,
}

impl Footprint {
    /// Measures a release binary for this processor.
    ///
    /// `lab` is the program to start inside the namespaces; it calls [`inside`].
    pub fn measure(lab: &Lab, preroot: &Path, inside: &[&str]) -> Result<Self, Fault> {
        let work = lab
            .directory()
            .join(format!("footprint-{}", std::process::id()));
        remove_directory(&work)?;
        create_directory(&work)?;
        let result = Self::measure_in(lab, preroot, inside, &work);
        remove_directory(&work)?;
        result
    }

    fn measure_in(lab: &Lab, preroot: &Path, words: &[&str], work: &Path) -> Result<Self, Fault> {
        let mut step = Step::begin("measuring memory and system calls (in a network namespace)");
        let host = Arch::host().unwrap_or(Arch::X86_64);
        let image = rootfs::image(lab, host)?;
        let root = work.join("root");
        create_directory(&root)?;
        // Inside there is no network to fetch them by.
        for program in ["debugfs", "ip", "mount"] {
            lab.tool(program)?;
        }
        let unshare = lab.tool("unshare")?;
        let mut command = unshare.command();
        if !nix::unistd::geteuid().is_root() {
            // The files of a root belong to more than one user.
            command.args(["--user", "--map-root-user", "--map-auto"]);
        }
        command.args(["--net", "--mount", "--"]);
        command.arg(this_program()?).args(words);
        command.arg(preroot).arg(&image).arg(work);
        let said = step.run(&mut command, &String::new)?;
        step.end();
        Self::parse(&said).ok_or_else(|| Fault::Content {
            path: work.to_owned(),
            why: format!("the measurement gave `{}`", said.trim()),
        })
    }

    /// Reads what [`inside`] wrote.
    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text.lines().last()?).ok()?;
        let peaks = value.get("peaks_kib")?.as_array()?;
        Some(Self {
            peaks_kib: peaks.iter().map(Value::as_u64).collect::<Option<_>>()?,
            elsewhere_calls: value.get("elsewhere_calls")?.as_u64()?,
            elsewhere: Duration::from_nanos(value.get("elsewhere_ns")?.as_u64()?),
            ready: Duration::from_nanos(value.get("ready_ns")?.as_u64()?),
        })
    }

    fn to_line(&self) -> String {
        json!({
            "peaks_kib": self.peaks_kib,
            "elsewhere_calls": self.elsewhere_calls,
            "elsewhere_ns": nanos(self.elsewhere),
            "ready_ns": nanos(self.ready),
        })
        .to_string()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Does the measuring, inside the namespaces, and gives the line that tells the result.
pub fn inside(lab: &Lab, preroot: &Path, image: &Path, work: &Path) -> Result<String, Fault> {
    let mount = lab.tool("mount")?;
    let cover = |path: &str| progress::run(mount.command().args(["-t", "tmpfs", "lab", path]));
    // In memory: the disk of this machine is not what is measured.
    cover(&work.to_string_lossy())?;
    let root = take_out(lab, image, work)?;
    // The report goes to /run, which must not be the machine's.
    cover("/run")?;
    if Path::new(FIRMWARE).is_dir() {
        // The lab may itself run on Azure.
        cover(FIRMWARE)?;
        let tag = Path::new(FIRMWARE).join("chassis_asset_tag");
        fs::write(&tag, "Default string\n").map_err(Fault::file("write", &tag))?;
    }
    let (elsewhere_calls, elsewhere) = elsewhere(preroot)?;
    let (provisioning, ready) = provision(lab, preroot, &root, work)?;
    Ok(Footprint {
        peaks_kib: provisioning
            .processes
            .iter()
            .map(|process| process.peak_kib)
            .collect(),
        elsewhere_calls,
        elsewhere,
        ready,
    }
    .to_line())
}

/// Takes what a provisioning reads and writes out of a root disk, owners included.
fn take_out(lab: &Lab, image: &Path, work: &Path) -> Result<PathBuf, Fault> {
    let root = work.join("root");
    for directory in ["var/lib", "usr/lib"] {
        create_directory(&root.join(directory))?;
    }
    let mut command = lab.tool("debugfs")?.command();
    command
        .current_dir(&root)
        .args(["-R", "rdump /etc /home ."])
        .arg(image);
    progress::run(&mut command)?;
    if !root.join("etc/passwd").is_file() {
        return Err(Fault::Content {
            path: image.to_owned(),
            why: "no /etc/passwd could be read from it".to_owned(),
        });
    }
    Ok(root)
}

/// Runs a whole provisioning on the simulated platform and watches its memory; then more of them, each
/// for another machine, to take the time.
fn provision(
    lab: &Lab,
    preroot: &Path,
    root: &Path,
    work: &Path,
) -> Result<(Trace, Duration), Fault> {
    let ip = lab.tool("ip")?;
    for words in [
        "link add name platform type veth peer name eth0 address 00:0d:3a:5e:11:0a",
        "link set platform up",
    ] {
        progress::run(ip.command().args(words.split(' ')))?;
    }
    let disc = work.join("disc.img");
    let sectors = Builder::new().file("ovf-env.xml", DOCUMENT).build();
    fs::write(&disc, sectors).map_err(Fault::file("write", &disc))?;

    let at = Path::new("the veth pair");
    let interface = plug::packet::Interface::open("platform").map_err(Fault::file("open", at))?;
    let over = AtomicBool::new(false);
    let mut platform = Platform::new(Scenario::default());
    let arguments: [&OsStr; 14] = [
        "provision".as_ref(),
        "--root".as_ref(),
        root.as_ref(),
        "--platform".as_ref(),
        "azure".as_ref(),
        "--vm-id".as_ref(),
        VM_ID.as_ref(),
        "--nic".as_ref(),
        "eth0".as_ref(),
        "--media".as_ref(),
        disc.as_ref(),
        "--timeout".as_ref(),
        "30".as_ref(),
        "--log=stderr".as_ref(),
    ];
    let (traced, served) = thread::scope(|scope| {
        let tracing = scope.spawn(|| {
            let measured = trace::run(preroot, &arguments, &[])
                .and_then(|trace| Ok((trace, time_to_ready(preroot, arguments)?)));
            over.store(true, Ordering::Relaxed);
            measured
        });
        let served = plug::packet::run(&mut platform, &interface, |_| over.load(Ordering::Relaxed));
        (tracing.join(), served)
    });
    served.map_err(Fault::file("serve", at))?;
    let measured = traced.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (trace, ready) = measured?;
    if trace.exit != 0 || platform.ready().is_none() {
        let journal: Vec<_> = platform.journal().iter().map(ToString::to_string).collect();
        return Err(Fault::Program {
            command: "preroot provision".to_owned(),
            ended: format!(
                "ended with {} and the platform accepted no Ready",
                trace.exit
            ),
            said: journal.join("\n"),
        });
    }
    Ok((trace, ready))
}

/// Takes the time from start to Ready of several runs, as the program's own report tells it.
fn time_to_ready(preroot: &Path, arguments: [&OsStr; 14]) -> Result<Duration, Fault> {
    let report = Path::new("/run/preroot/report.json");
    let mut times = Vec::with_capacity(RUNS);
    for number in 0..RUNS {
        // The root knows the machines before, and would have nothing to do for them.
        let vm_id = format!("91267c52-9f02-4cfe-b1f4-{number:012x}");
        let arguments = arguments.map(|word| if word == VM_ID { vm_id.as_ref() } else { word });
        let mut command = Command::new(preroot);
        command.args(arguments).env_clear();
        progress::run(&mut command)?;
        let text = fs::read(report).map_err(Fault::file("read", report))?;
        let ended = serde_json::from_slice::<Value>(&text)
            .ok()
            .and_then(|value| {
                let phases = value.get("phases")?.as_array()?.clone();
                let health = phases.iter().find(|phase| phase["name"] == "health")?;
                Some(health["start_us"].as_u64()? + health["length_us"].as_u64()?)
            });
        times.push(Duration::from_micros(ended.ok_or_else(|| {
            Fault::Content {
                path: report.to_owned(),
                why: "it tells of no report to the platform".to_owned(),
            }
        })?));
    }
    times.sort_unstable();
    Ok(times.get(RUNS / 2).copied().unwrap_or_default())
}

/// Runs it where the platform is another: counts its system calls and takes its time.
fn elsewhere(preroot: &Path) -> Result<(u64, Duration), Fault> {
    let trace = trace::run(preroot, &["provision".as_ref()], &[])?;
    if trace.exit != NOT_HERE {
        return Err(Fault::Program {
            command: "preroot provision".to_owned(),
            ended: format!(
                "ended with {} and not with {NOT_HERE} where it is not Azure",
                trace.exit
            ),
            said: String::new(),
        });
    }
    // To start any program takes a while; wrong use ends before anything is looked at.
    let whole = median(preroot, &["provision"])?;
    let start = median(preroot, &["no-such-command"])?;
    Ok((trace.calls, whole.saturating_sub(start)))
}

/// Takes the time of a run, from its start to its end as its parent sees them.
fn median(program: &Path, arguments: &[&str]) -> Result<Duration, Fault> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let mut command = Command::new(program);
        command.args(arguments).env_clear();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let start = Instant::now();
        command.status().map_err(Fault::file("run", program))?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(RUNS / 2).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_crosses_the_namespace_unharmed() {
        let footprint = Footprint {
            peaks_kib: vec![120, 344, 80],
            elsewhere_calls: 17,
            elsewhere: Duration::from_micros(85),
            ready: Duration::from_micros(2100),
        };
        let said = format!("some noise\n{}\n", footprint.to_line());
        assert_eq!(Footprint::parse(&said), Some(footprint));
        assert_eq!(Footprint::parse("noise"), None);
        assert_eq!(Footprint::parse("{}"), None);
        assert_eq!(Footprint::parse(""), None);
    }
}
