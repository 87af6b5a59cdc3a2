//! The report of a boot: what happened, when, and what came of it.
//!
//! It is a JSON document for programs and a table with bars for people. It holds no secrets.

use core::fmt;
use core::time::Duration;

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// The largest report, as JSON.
pub const MAX_JSON: usize = 16384;
/// A boot has about a dozen phases; failures add a few.
const MAX_PHASES: usize = 32;
/// The width of the longest bar, in characters.
const BAR: u64 = 32;

/// What happened on a boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The version of preroot that wrote this.
    pub version: String<32>,
    /// The VM id, in the platform's own form.
    pub vm_id: String<40>,
    /// What came of it.
    pub result: Outcome,
    /// Why it failed, in the words that the platform was told.
    pub reason: String<512>,
    /// When preroot started, in microseconds since the kernel did.
    pub started_us: u64,
    /// How long it took altogether, in microseconds.
    pub took_us: u64,
    /// The interface that was used.
    pub interface: String<16>,
    /// Its address and prefix.
    pub address: String<24>,
    /// Its router.
    pub router: String<16>,
    /// The WireServer's address.
    pub wireserver: String<16>,
    /// Where the identity came from: `disc` or nothing.
    pub identity: String<16>,
    /// The host name that was set.
    pub host_name: String<64>,
    /// The admin user that was made.
    pub user: String<32>,
    /// How many files were written.
    pub written: u32,
    /// How many files were as they should be already.
    pub unchanged: u32,
    /// The phases, in the order in which they ended.
    pub phases: Vec<Phase, MAX_PHASES>,
}

/// What came of a boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is not over.
    #[default]
    Unfinished,
    /// This machine was provisioned on an earlier boot.
    NothingToDo,
    /// Provisioned, and not reported because that was not asked for.
    Provisioned,
    /// Provisioned, and the platform has taken the report.
    Ready,
    /// There was no identity to give: a specialized machine. It was reported ready all the same.
    Specialized,
    /// It failed; the reason says why.
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Unfinished => "unfinished",
            Outcome::NothingToDo => "nothing to do",
            Outcome::Provisioned => "provisioned, not reported",
            Outcome::Ready => "ready",
            Outcome::Specialized => "ready, without an identity",
            Outcome::Failed => "failed",
        })
    }
}

/// A stretch of time with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// The name.
    pub name: String<16>,
    /// When it began, in microseconds since preroot started.
    pub start_us: u64,
    /// How long it took, in microseconds.
    pub length_us: u64,
    /// What came of it.
    pub detail: String<96>,
}

impl Report {
    /// Adds a phase; times count from the start of preroot. The thirty-third is lost.
    pub fn phase(
        &mut self,
        name: &str,
        start: Duration,
        end: Duration,
        detail: fmt::Arguments<'_>,
    ) {
        let _ = self.phases.push(Phase {
            name: clip(name),
            start_us: micros(start),
            length_us: micros(end.saturating_sub(start)),
            detail: clip_format(detail),
        });
    }

    /// Writes the report as JSON into `buffer` and returns its length.
    pub fn to_json(&self, buffer: &mut [u8]) -> Option<usize> {
        serde_json_core::to_slice(self, buffer).ok()
    }

    /// Reads a report; unknown members are ignored.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let mut unescaped = [0; 1024];
        let (report, _) = serde_json_core::from_slice_escaped(json, &mut unescaped).ok()?;
        Some(report)
    }
}

/// Draws the report as `preroot status` shows it.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "preroot {}: {} {} after it started, {} after the kernel did",
            self.version,
            self.result,
            Span(self.took_us),
            Span(self.started_us.saturating_add(self.took_us)),
        )?;
        let facts: [(&str, &str); 9] = [
            ("reason", &self.reason),
            ("vm id", &self.vm_id),
            ("interface", &self.interface),
            ("address", &self.address),
            ("router", &self.router),
            ("wireserver", &self.wireserver),
            ("identity", &self.identity),
            ("host name", &self.host_name),
            ("user", &self.user),
        ];
        for (name, value) in facts {
            if !value.is_empty() {
                writeln!(f, "  {name:<11} {value}")?;
            }
        }
        if self.written > 0 || self.unchanged > 0 {
            writeln!(
                f,
                "  {:<11} {} written, {} as they were",
                "files", self.written, self.unchanged
            )?;
        }
        let whole = self
            .phases
            .iter()
            .map(|phase| phase.start_us.saturating_add(phase.length_us))
            .max()
            .unwrap_or(0)
            .max(1);
        if !self.phases.is_empty() {
            writeln!(f, "\n  {:<11} {:>10} {:>10}", "phase", "start", "length")?;
        }
        for phase in &self.phases {
            let scale = |us: u64| {
                us.saturating_mul(BAR)
                    .checked_div(whole)
                    .unwrap_or(0)
                    .min(BAR)
            };
            let from = scale(phase.start_us);
            let to =
                scale(phase.start_us.saturating_add(phase.length_us)).max(from.saturating_add(1));
            write!(
                f,
                "  {:<11} {:>10} {:>10}  ",
                phase.name,
                Span(phase.start_us),
                Span(phase.length_us)
            )?;
            for column in 0..=BAR {
                f.write_str(if column >= from && column < to {
                    "#"
                } else {
                    "."
                })?;
            }
            writeln!(f, "  {}", phase.detail)?;
        }
        Ok(())
    }
}

/// A time in microseconds, shown in milliseconds or seconds.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text: String<24> = String::new();
        let us = self.0;
        let written = if us < 10_000_000 {
            fmt::write(
                &mut text,
                format_args!("{}.{:02} ms", us / 1000, us % 1000 / 10),
            )
        } else {
            fmt::write(
                &mut text,
                format_args!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
            )
        };
        written?;
        f.pad(&text)
    }
}

/// Copies what fits of a text.
pub fn clip<const N: usize>(text: &str) -> String<N> {
    clip_format(format_args!("{text}"))
}

/// Formats a text and keeps what fits.
pub fn clip_format<const N: usize>(arguments: fmt::Arguments<'_>) -> String<N> {
    struct Clip<const N: usize>(String<N>);
    impl<const N: usize> fmt::Write for Clip<N> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            // A character that does not fit, and all after it, are left out.
            text.chars()
                .try_for_each(|c| self.0.push(c))
                .map_err(|_| fmt::Error)
        }
    }
    let mut clip = Clip(String::new());
    let _ = fmt::write(&mut clip, arguments);
    clip.0
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn report() -> Report {
        let mut report = Report {
            version: clip("0.1.0"),
            result: Outcome::Ready,
            reason: clip("quote \" slash \\ line\nend"),
            started_us: 5_000_000,
            took_us: 12_340,
            address: clip("10.0.0.4/24"),
            written: 7,
            ..Report::default()
        };
        let ms = Duration::from_millis;
        report.phase("dhcp", ms(1), ms(4), format_args!("10.0.0.4/24"));
        report.phase("health", ms(10), ms(12), format_args!("200"));
        report
    }

    #[test]
    fn json_round_trip_keeps_everything() {
        let mut buffer = [0; MAX_JSON];
        let length = report().to_json(&mut buffer).unwrap();
        assert_eq!(Report::from_json(&buffer[..length]), Some(report()));
    }

    #[test]
    fn full_report_fits() {
        let long = "\u{7}".repeat(600);
        let mut report = report();
        report.reason = clip(&long);
        for _ in 0..40 {
            let end = Duration::from_secs(u64::MAX / 2_000_000);
            report.phase(
                &long,
                Duration::ZERO,
                end,
                format_args!("{}", "x".repeat(96)),
            );
        }
        assert_eq!(report.phases.len(), MAX_PHASES);
        let mut buffer = [0; MAX_JSON];
        let length = report.to_json(&mut buffer).unwrap();
        assert!(Report::from_json(&buffer[..length]).is_some());
    }

    #[test]
    fn members_of_a_later_version_are_ignored() {
        let mut buffer = [0; MAX_JSON];
        let length = report().to_json(&mut buffer).unwrap();
        let json = core::str::from_utf8(&buffer[..length]).unwrap();
        let later = json.replacen('{', "{\"later\":{\"a\":[1,\"x\"]},", 1);
        assert_eq!(Report::from_json(later.as_bytes()), Some(report()));
    }

    #[test]
    fn table_shows_result_facts_and_phases() {
        let table = report().to_string();
        assert!(
            table.starts_with(
                "preroot 0.1.0: ready 12.34 ms after it started, 5012.34 ms after the kernel did\n"
            ),
            "{table}"
        );
        assert!(table.contains("  address     10.0.0.4/24\n"), "{table}");
        let health = table.lines().find(|line| line.contains("health")).unwrap();
        assert_eq!(
            health,
            "  health        10.00 ms    2.00 ms  ..........................######.  200"
        );
    }
}
