//! The report of a boot: what happened, when, and what came of it.
//!
//! It is a JSON document for programs and a table with bars for people. It holds no secrets.

use core::fmt::{self, Write as _};
use core::time::Duration;

use heapless::string::StringView;
use heapless::{String, Vec};

use super::json::{Quoted, Reader};
use super::timestamp::micros;

/// The largest report, as JSON.
pub const MAX_JSON: usize = 16384;
/// A boot has about a dozen phases; failures add a few.
const MAX_PHASES: usize = 32;
/// The width of the longest bar, in characters.
const BAR: u64 = 32;

/// What happened on a boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

impl Outcome {
    const ALL: [Self; 6] = [
        Self::Unfinished,
        Self::NothingToDo,
        Self::Provisioned,
        Self::Ready,
        Self::Specialized,
        Self::Failed,
    ];

    /// Names the outcome in the document.
    fn name(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::NothingToDo => "nothing-to-do",
            Self::Provisioned => "provisioned",
            Self::Ready => "ready",
            Self::Specialized => "specialized",
            Self::Failed => "failed",
        }
    }
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Adds a phase; times count from the start of the kernel. The thirty-third is lost.
    pub fn phase(&mut self, name: &str, from: Duration, to: Duration, detail: fmt::Arguments<'_>) {
        if self.phases.push(Phase::default()).is_ok()
            && let Some(phase) = self.phases.last_mut()
        {
            clip(&mut phase.name, format_args!("{name}"));
            phase.start_us = micros(from).saturating_sub(self.started_us);
            phase.length_us = micros(to.saturating_sub(from));
            clip(&mut phase.detail, detail);
        }
    }

    /// Writes the JSON document, of at most [`MAX_JSON`] bytes.
    ///
    /// It changes nothing, but shares its list of members with the reader, which does.
    pub fn to_json(&mut self) -> alloc::string::String {
        let mut json = alloc::string::String::new();
        // A string takes all that is written to it.
        let _ = write_members(&mut json, &mut self.members());
        json
    }

    /// Reads a report; unknown members are ignored, missing ones stay empty.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let mut report = Report::default();
        let mut json = Reader::new(json).ok()?;
        read_members(&mut json, &mut report.members())?;
        json.end().ok()?;
        // Every report has one; what has none is another document.
        (!report.version.is_empty()).then_some(report)
    }

    /// Lists what the document has, in its order.
    // Out of line: it is read and written.
    #[inline(never)]
    fn members(&mut self) -> [(&'static str, Member<'_>); 16] {
        [
            ("version", Member::Text(&mut self.version)),
            ("vm_id", Member::Text(&mut self.vm_id)),
            ("result", Member::Outcome(&mut self.result)),
            ("reason", Member::Text(&mut self.reason)),
            ("started_us", Member::Time(&mut self.started_us)),
            ("took_us", Member::Time(&mut self.took_us)),
            ("interface", Member::Text(&mut self.interface)),
            ("address", Member::Text(&mut self.address)),
            ("router", Member::Text(&mut self.router)),
            ("wireserver", Member::Text(&mut self.wireserver)),
            ("identity", Member::Text(&mut self.identity)),
            ("host_name", Member::Text(&mut self.host_name)),
            ("user", Member::Text(&mut self.user)),
            ("written", Member::Count(&mut self.written)),
            ("unchanged", Member::Count(&mut self.unchanged)),
            ("phases", Member::Phases(&mut self.phases)),
        ]
    }
}

impl Phase {
    /// Lists what the document has of a phase, in its order.
    // Out of line: it is read and written.
    #[inline(never)]
    fn members(&mut self) -> [(&'static str, Member<'_>); 4] {
        [
            ("name", Member::Text(&mut self.name)),
            ("start_us", Member::Time(&mut self.start_us)),
            ("length_us", Member::Time(&mut self.length_us)),
            ("detail", Member::Text(&mut self.detail)),
        ]
    }
}

/// Where the value of a member is, or goes.
enum Member<'a> {
    Text(&'a mut StringView),
    Time(&'a mut u64),
    Count(&'a mut u32),
    Outcome(&'a mut Outcome),
    Phases(&'a mut Vec<Phase, MAX_PHASES>),
}

/// Reads an object that has these members.
fn read_members(json: &mut Reader<'_>, members: &mut [(&str, Member<'_>)]) -> Option<()> {
    json.object().ok()?;
    while let Some(name) = json.member().ok()? {
        match members.iter_mut().find(|(known, _)| name.is(known)) {
            Some((_, member)) => member.read(json)?,
            None => json.skip().ok()?,
        }
    }
    Some(())
}

impl Member<'_> {
    fn read(&mut self, json: &mut Reader<'_>) -> Option<()> {
        match self {
            Member::Text(text) => {
                text.clear();
                write!(text, "{}", json.text().ok()?).ok()?;
            }
            Member::Time(us) => **us = json.integer().ok()?,
            Member::Count(count) => **count = json.integer().ok()?.try_into().ok()?,
            Member::Outcome(outcome) => {
                let name = json.text().ok()?;
                let known = Outcome::ALL.into_iter().find(|known| name.is(known.name()));
                **outcome = known?;
            }
            Member::Phases(phases) => {
                json.array().ok()?;
                while json.element().ok()? {
                    let mut phase = Phase::default();
                    read_members(json, &mut phase.members())?;
                    phases.push(phase).ok()?;
                }
            }
        }
        Some(())
    }
}

/// Writes an object that has these members.
fn write_members(
    json: &mut alloc::string::String,
    members: &mut [(&str, Member<'_>)],
) -> fmt::Result {
    let mut before = "{";
    for (name, member) in members {
        write!(json, "{before}\"{name}\":")?;
        before = ",";
        match member {
            Member::Text(text) => write!(json, "{}", Quoted(text))?,
            Member::Time(us) => write!(json, "{us}")?,
            Member::Count(count) => write!(json, "{count}")?,
            Member::Outcome(outcome) => write!(json, "\"{}\"", outcome.name())?,
            Member::Phases(phases) => {
                let mut before = "";
                json.push('[');
                for phase in phases.iter_mut() {
                    json.push_str(before);
                    before = ",";
                    write_members(json, &mut phase.members())?;
                }
                json.push(']');
            }
        }
    }
    json.push('}');
    Ok(())
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

/// Writes what fits of a text in the place of another.
pub fn clip(text: &mut StringView, arguments: fmt::Arguments<'_>) {
    text.clear();
    // An error only says that something was left out.
    let _ = fmt::write(&mut Clip(text), arguments);
}

/// Takes text until a character does not fit; that one, and all after it, are left out.
struct Clip<'a>(&'a mut StringView);

impl fmt::Write for Clip<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars()
            .try_for_each(|c| self.0.push(c))
            .map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn clipped<const N: usize>(text: &str) -> String<N> {
        let mut clipped = String::new();
        clip(&mut clipped, format_args!("{text}"));
        clipped
    }

    fn report() -> Report {
        let mut report = Report {
            version: clipped("0.1.0"),
            result: Outcome::Ready,
            reason: clipped("quote \" slash \\ line\nend"),
            started_us: 5_000_000,
            took_us: 12_340,
            address: clipped("10.0.0.4/24"),
            written: 7,
            ..Report::default()
        };
        let ms = |ms: u64| Duration::from_millis(5000 + ms);
        report.phase("dhcp", ms(1), ms(4), format_args!("10.0.0.4/24"));
        report.phase("health", ms(10), ms(12), format_args!("200"));
        report
    }

    #[test]
    fn json_round_trip_keeps_everything() {
        let mut every = report();
        every.phases[0].detail = clipped("\u{e9} \u{1f680} \t");
        for outcome in Outcome::ALL {
            every.result = outcome;
            let json = every.to_json();
            assert_eq!(
                Report::from_json(json.as_bytes()),
                Some(every.clone()),
                "{json}"
            );
        }
    }

    #[test]
    fn document_looks_like_this() {
        let mut report = report();
        report.phases.truncate(1);
        assert_eq!(
            report.to_json(),
            concat!(
                r#"{"version":"0.1.0","vm_id":"","result":"ready","#,
                r#""reason":"quote \" slash \\ line\nend","started_us":5000000,"took_us":12340,"#,
                r#""interface":"","address":"10.0.0.4/24","router":"","wireserver":"","#,
                r#""identity":"","host_name":"","user":"","written":7,"unchanged":0,"phases":["#,
                r#"{"name":"dhcp","start_us":1000,"length_us":3000,"detail":"10.0.0.4/24"}]}"#,
            )
        );
    }

    #[test]
    fn full_report_fits() {
        let long = "\u{7}".repeat(600);
        let mut report = report();
        report.reason = clipped(&long);
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
        let json = report.to_json();
        assert!(json.len() <= MAX_JSON, "{}", json.len());
        assert_eq!(Report::from_json(json.as_bytes()), Some(report));
    }

    #[test]
    fn members_of_a_later_version_are_ignored() {
        let json = report().to_json();
        let later = json.replacen('{', "{\"later\":{\"a\":[1,\"x\"]},", 1);
        assert_eq!(Report::from_json(later.as_bytes()), Some(report()));
    }

    #[test]
    fn damaged_report_is_refused() {
        let json = report().to_json();
        for (old, new) in [
            ("}", ""),
            ("]}", "]}}"),
            ("ready", "steady"),
            ("\"0.1.0\"", "\"\""),
            ("\"0.1.0\"", "1"),
            ("12340", "\"12340\""),
            ("\"written\":7", "\"written\":4294967296"),
            ("10.0.0.4/24", "10.0.0.4/24 and something too long for it"),
            ("[{", "{"),
        ] {
            let damaged = json.replacen(old, new, 1);
            assert_ne!(damaged, json);
            assert_eq!(Report::from_json(damaged.as_bytes()), None, "{damaged}");
        }
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
