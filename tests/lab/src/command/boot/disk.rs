//! What `cargo lab boot --disk` prints: who asked what, the agents' logs, timelines, the verdict.

use std::fs::File;
use std::process::ExitCode;

use lab::fault::Fault;
use lab::platform::dhcp::{Kind, Spoken};
use lab::platform::{Entry, Platform};
use lab::qemu::Exit;
use lab::whole::{self, Ending, Log, Options, Outcome, heard, timeline};

use serde_json::Value;

use super::Detail;

/// How much of a log's end is shown.
const TAIL: usize = 25;

/// What makes a line of a log worth showing wherever it stands.
const WORTH: [&str; 5] = ["WARN", "ERROR", "CRITICAL", "Traceback", "failed"];

/// How many such lines of one log are shown.
const MOST: usize = 20;

/// Boots each in its turn and tells what came of it.
pub(super) fn run(disks: &[Options], detail: Detail) -> Result<ExitCode, Fault> {
    // Nobody wants to hear after minutes that the second one was misspelt.
    for options in disks {
        File::open(&options.image).map_err(Fault::file("read", &options.image))?;
    }
    let mut ends = Vec::new();
    for options in disks {
        let outcome = whole::run(options)?;
        if detail != Detail::Quiet {
            print(&outcome, options, detail);
        }
        ends.push((outcome.timeline, outcome.judgement));
    }
    let (mut timelines, mut verdicts) = (Vec::new(), Vec::new());
    for (timeline, judgement) in ends {
        verdicts.push((timeline.title.clone(), judgement));
        timelines.push(timeline);
    }
    if detail != Detail::Quiet {
        println!("\nTimelines, in seconds since power on (emulated: compare, do not time)\n");
        print!("{}", timeline::draw(&timelines));
        println!();
    }
    for (name, judgement) in &verdicts {
        println!("{name}: {judgement}");
    }
    let is_good = verdicts
        .iter()
        .all(|(_, judgement)| judgement.is_provisioned());
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints what is known of one machine.
fn print(outcome: &Outcome, options: &Options, detail: Detail) {
    let name = &outcome.timeline.title;
    if detail == Detail::Verbose {
        println!("\n{name}: what the platform heard and said");
        let journal = outcome.platform.iter().flat_map(Platform::journal);
        journal.for_each(|entry| println!("  {entry}"));
    }
    let rows = outcome.rows();
    println!("\n{name}: who asked what\n");
    if rows.is_empty() {
        println!("  nobody asked anything");
    } else {
        println!("     at s  answer {:<22} what", "who");
        for row in &rows {
            println!("  {row}");
        }
    }
    println!();
    let agents = heard::agents(&rows);
    let agents = if agents.is_empty() {
        "none was heard".to_owned()
    } else {
        agents.join(", ")
    };
    println!("  agents     {agents}");
    println!("  host name  {}", host_name(outcome));
    println!("  end        {}", end(outcome));
    for note in notes(outcome) {
        println!("  note       {note}");
    }
    for log in &outcome.logs.logs {
        print_log(log, outcome);
    }
    for why in &outcome.logs.unreadable {
        println!("\n{name}: {why}");
    }
    if options.agent_log && outcome.logs.logs.is_empty() {
        println!("\n{name}: no agent's log was found on the disk");
    }
    if options.keep {
        println!("\n{name}: kept in {}", outcome.directory().display());
    }
}

/// Says by which name the machine is known in the network.
fn host_name(outcome: &Outcome) -> String {
    let journal = outcome.platform.iter().flat_map(Platform::journal);
    let mut names = journal.filter_map(|entry| {
        // Whoever gives an address back publishes nothing.
        let asked = |spoken: &Spoken| matches!(spoken.kind, Kind::Discover | Kind::Request);
        let spoken = entry.dhcp().filter(asked)?;
        let name = spoken.host_name.or(spoken.full_name)?;
        Some((name, entry.at().saturating_sub(outcome.began)))
    });
    match names.next_back() {
        Some((name, at)) => format!(
            "{} (as it last asked for an address with one, after {:.1} s)",
            name.escape_default(),
            at.as_secs_f64()
        ),
        None => "none in any DHCP request: Azure's DNS would not know the machine".to_owned(),
    }
}

/// Says how the machine came to its end.
fn end(outcome: &Outcome) -> String {
    let how = if outcome.forced {
        "by force"
    } else {
        "by its power button"
    };
    match outcome.ending {
        Some(Ending::Stuck(why)) => format!("{how}: {why}"),
        Some(Ending::OutOfTime) => format!("{how}: time was up; --timeout SECONDS gives more"),
        Some(Ending::Done) => format!("{how}, when it had said all"),
        None if outcome.exit == Exit::Panicked => "its kernel gave up".to_owned(),
        None => "it switched itself off".to_owned(),
    }
}

/// Collects what is remarkable and does not count.
fn notes(outcome: &Outcome) -> Vec<String> {
    let mut notes = outcome.notes.clone();
    if outcome.starts > 1 {
        notes.push(format!("its kernel started {} times", outcome.starts));
    }
    let journal: Vec<_> = outcome
        .platform
        .iter()
        .flat_map(Platform::journal)
        .collect();
    let complaints = journal.iter().filter_map(|entry| entry.complaint());
    let others = journal.iter().filter_map(|entry| match entry {
        Entry::Ignored { what, .. } if what.starts_with("TCP to") || what.starts_with("UDP to") => {
            Some(format!("not simulated: {what}"))
        }
        _ => None,
    });
    let counted = heard::count(complaints)
        .into_iter()
        .chain(heard::count(others));
    notes.extend(counted.map(|(what, times)| match times {
        1 => what,
        times => format!("{what} ({times} times)"),
    }));
    notes
}

/// Prints a log: what stands out in it, and its end.
fn print_log(log: &Log, outcome: &Outcome) {
    let lines: Vec<_> = log.text.lines().collect();
    println!("\n{}: {}\n", outcome.timeline.title, log.path);
    if log.path == whole::REPORT
        && let Some(lines) = report(&log.text)
    {
        for line in lines {
            println!("  {}", shown(&line));
        }
        return;
    }
    let tail = lines.len().saturating_sub(TAIL);
    let is_worth = |line: &&&str| WORTH.iter().any(|word| line.contains(word));
    let before = lines.iter().take(tail);
    let worth: Vec<_> = before.filter(is_worth).take(MOST).collect();
    for line in &worth {
        println!("  {}", shown(line));
    }
    if tail > 0 {
        println!(
            "  ... the last {TAIL} of {} lines; --keep has all:",
            lines.len()
        );
    }
    for line in lines.iter().skip(tail) {
        println!("  {}", shown(line));
    }
}

/// Draws preroot's report.
fn report(text: &str) -> Option<Vec<String>> {
    let report: Value = serde_json::from_str(text).ok()?;
    let mut lines = Vec::new();
    for (name, value) in report.as_object()? {
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => lines.push(format!("{name:<14} {text}")),
            Value::Array(_) => {}
            Value::Number(us) if name.ends_with("_us") => {
                let seconds = us.as_f64().map_or(0.0, |us| us / 1e6);
                let name = name.trim_end_matches("_us");
                lines.push(format!("{name:<14} {seconds:.3} s"));
            }
            other => lines.push(format!("{name:<14} {other}")),
        }
    }
    for phase in report["phases"].as_array().into_iter().flatten() {
        let ms = |name: &str| phase[name].as_f64().map_or(0.0, |us| us / 1e3);
        lines.push(format!(
            "{:<14} {:>9.1} ms {:>9.1} ms  {}",
            phase["name"].as_str()?,
            ms("start_us"),
            ms("length_us"),
            phase["detail"].as_str().unwrap_or_default()
        ));
    }
    Some(lines)
}

/// Shows a line that came from outside.
fn shown(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
