//! `cargo lab size`: what the product costs, in bytes, memory, system calls and time.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::arch::Arch;
use lab::fault::Fault;
use lab::fetch::Lab;
use lab::footprint::{self, Footprint};
use lab::size::{self, BUDGET, Bytes, ELSEWHERE_CALLS, ELSEWHERE_US, Last, MEMORY_KIB};
use lexopt::prelude::*;

use super::usage;

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Builds the release binary for both processors and compares what it costs with its
budget: bytes, peak memory of `preroot provision` on the simulated platform, system
calls and time of it where there is no platform. Sees too that it is static.

Usage: cargo lab size [OPTION]...

  --update          take these bytes as the last value (tests/lab/data/size.txt)
  --reproducible    build everything a second time, in another directory; both
                    binaries must be equal (takes as long again)
  --bytes           bytes only, without running anything

Fails when the binary is 2 % larger than the last value, or larger at all while above
its budget, and when the memory is above what it may be. The
memory is measured in namespaces, which needs root, or user namespaces and a range of
users in /etc/subuid; --bytes needs neither.

Exit codes: 0 all within budget; 1 something is not, and is named; 2 used wrongly.
";

/// The hidden word by which this program starts itself inside the namespaces.
const INSIDE: &str = "inside";

/// What is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    update: bool,
    reproducible: bool,
    bytes_only: bool,
}

/// Reads the arguments and measures.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    let mut settings = Settings::default();
    let mut words = Vec::new();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("update") => settings.update = true,
            Long("reproducible") => settings.reproducible = true,
            Long("bytes") => settings.bytes_only = true,
            Value(word) => words.push(PathBuf::from(word)),
            other => return Err(usage(other.unexpected())),
        }
    }
    let lab = Lab::open()?;
    match words.as_slice() {
        [] => {}
        [first, preroot, image, work] if first.as_os_str() == INSIDE => {
            println!("{}", footprint::inside(&lab, preroot, image, work)?);
            return Ok(ExitCode::SUCCESS);
        }
        [first, ..] => {
            return Err(Fault::Usage(format!(
                "unexpected argument {}",
                first.display()
            )));
        }
    }
    Ok(if measure(&lab, settings)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Measures, prints the table and says whether all is within budget.
pub(crate) fn measure(lab: &Lab, settings: Settings) -> Result<bool, Fault> {
    let mut last = Last::read(lab)?;
    let mut rows = Vec::new();
    let mut native = None;
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let (program, bytes) = Bytes::measure(lab, arch)?;
        rows.push((arch, bytes));
        if settings.reproducible {
            size::is_reproducible(lab, &program, arch)?;
        }
        if Arch::host() == Some(arch) {
            native = Some(program);
        }
    }
    let footprint = match native.filter(|_| !settings.bytes_only) {
        Some(program) => Some(Footprint::measure(lab, &program, &["size", INSIDE])?),
        None => None,
    };

    let mut wrong = Vec::new();
    println!("\nstatic binary   bytes   gzip -9  zstd -19  budget   last");
    for (arch, bytes) in rows {
        let name = arch.traits().name;
        let known = last.0.get(name).copied();
        let shown = known.map_or_else(|| "none".to_owned(), |last| last.stripped.to_string());
        println!(
            "{name:<13}  {:>7}  {:>7}  {:>8}  {BUDGET:>6}  {shown:>6}",
            bytes.stripped, bytes.gzip, bytes.zstd
        );
        let compared = known.filter(|_| !settings.update);
        if let Err(why) = bytes.judge(compared) {
            wrong.push(format!("{name}: {why}"));
        }
        last.0.insert(name.to_owned(), bytes);
    }
    if let Some(footprint) = footprint {
        show(&footprint, &mut wrong);
    }
    for why in &wrong {
        println!("FAILED {why}");
    }
    if settings.update && wrong.is_empty() {
        last.write(lab)?;
        println!("these are the last values now");
    }
    Ok(wrong.is_empty())
}

/// Prints memory, system calls and time, and collects what is beyond its budget.
fn show(footprint: &Footprint, wrong: &mut Vec<String>) {
    let peaks: Vec<_> = footprint.peaks_kib.iter().map(u64::to_string).collect();
    let largest = footprint.peaks_kib.iter().copied().max().unwrap_or(0);
    let (calls, took) = (footprint.elsewhere_calls, footprint.elsewhere.as_micros());
    println!("\nat run time                                      measured  budget");
    println!("memory of the largest process, KiB                 {largest:>7}  {MEMORY_KIB:>6}");
    println!(
        "  of each, in the order of their ends: {}",
        peaks.join(", ")
    );
    println!(
        "system calls where it is not Azure                 {calls:>7}  {ELSEWHERE_CALLS:>5}-"
    );
    // Times are to be looked at, not to be passed: they are as noisy as the machine.
    println!("time where it is not Azure, microseconds           {took:>7}  {ELSEWHERE_US:>5}-");
    let ready = footprint.ready.as_micros();
    println!("time from start to Ready accepted, microseconds    {ready:>7}       -");
    if largest == 0 || largest > MEMORY_KIB {
        wrong.push(format!("memory: {largest} KiB, not 1 to {MEMORY_KIB}"));
    }
    if calls == 0 || calls >= ELSEWHERE_CALLS {
        wrong.push(format!(
            "not Azure: {calls} system calls, not 1 to {}",
            ELSEWHERE_CALLS - 1
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wrong(peaks: &[u64], calls: u64, micros: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        let footprint = Footprint {
            peaks_kib: peaks.to_vec(),
            elsewhere_calls: calls,
            elsewhere: Duration::from_micros(micros),
            ready: Duration::from_millis(2),
        };
        show(&footprint, &mut wrong);
        wrong
    }

    #[test]
    fn each_budget_fails_by_itself() {
        assert!(wrong(&[100, MEMORY_KIB, 90], 39, 999).is_empty());
        let more = MEMORY_KIB + 1;
        assert!(wrong(&[100, more, 90], 39, 999)[0].contains(&format!("{more} KiB")));
        assert!(wrong(&[100], 40, 999)[0].contains("40 system calls"));
        assert!(wrong(&[100], 39, 1000).is_empty(), "a time is no verdict");
    }

    #[test]
    fn measurement_that_saw_nothing_is_no_success() {
        assert_eq!(wrong(&[], 0, 0).len(), 2);
    }

    #[test]
    fn stray_word_is_refused_by_name() {
        let fault = run(lexopt::Parser::from_iter(["size", "matters"])).unwrap_err();
        assert!(
            fault.is_usage() && fault.to_string().contains("matters"),
            "{fault}"
        );
    }
}
