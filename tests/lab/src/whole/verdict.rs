//! What Azure would say of a machine, in a sentence.
//!
//! The platform's own verdict is all that counts; a complaint of it is a note.

use core::fmt;
use std::time::Duration;

use super::follow::Ending;
use super::heard::{self, Row};
use crate::platform::{Entry, Platform, Verdict, Way};

/// What came of a machine, as far as Azure is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It was provisioned, so long after power on.
    Provisioned(Duration),
    /// It said that it failed.
    Failed {
        /// When, since power on.
        at: Duration,
        /// What it said about it.
        description: String,
    },
    /// It said nothing that counts.
    Silent {
        /// How far it came.
        how_far: String,
        /// What it asked last.
        last: Option<Box<Row>>,
    },
}

impl Judgement {
    /// Asks the platform.
    pub(super) fn of(platform: Option<&Platform>, began: Duration) -> Self {
        let Some(platform) = platform else {
            return Self::Silent {
                how_far: "nobody was at the other end of its cable".to_owned(),
                last: None,
            };
        };
        let at = |at: Option<Duration>| at.unwrap_or(began).saturating_sub(began);
        match platform.verdict() {
            Verdict::Ready => return Self::Provisioned(at(platform.ready())),
            Verdict::Failed { description } => {
                return Self::Failed {
                    at: at(told(platform)),
                    description,
                };
            }
            Verdict::Creating => {}
        }
        let journal = platform.journal();
        let rows = heard::rows(journal, began);
        let has_lease = journal.iter().any(|entry| {
            matches!(entry, Entry::Dhcp { way: Way::ToGuest, summary, .. } if summary.starts_with("ACK "))
        });
        let is_heard = platform.first_frame().is_some();
        Self::silent(&rows, has_lease, is_heard)
    }

    /// Tells how far a machine came that made no final report.
    fn silent(rows: &[Row], has_lease: bool, is_heard: bool) -> Self {
        let last = rows.iter().filter(|row| row.is_http());
        let last = last.max_by_key(|row| row.last);
        let report = rows.iter().rev().find(|row| row.is_report());
        let how_far = match (last, report) {
            (_, Some(report)) if report.answer == "200" || report.answer == "201" => {
                "it reported that it is at work, and then neither Ready nor a failure".to_owned()
            }
            (_, Some(report)) => format!("its report was answered with {}", report.answer),
            (Some(_), None) => "it asked, but reported nothing".to_owned(),
            (None, None) if has_lease => "it has an address, but asked nothing".to_owned(),
            (None, None) if !rows.is_empty() => "it asked for an address and got none".to_owned(),
            (None, None) if is_heard => "it sent frames, but asked for no address".to_owned(),
            (None, None) => "it sent no frame at all".to_owned(),
        };
        // Who is switched off gives its address back.
        let last = last.or(rows.iter().rfind(|row| !row.is_farewell()));
        Self::Silent {
            how_far,
            last: last.cloned().map(Box::new),
        }
    }

    /// Adds why the machine went no further, where that is known and was not told to the platform.
    pub(super) fn because(mut self, ending: Option<Ending>) -> Self {
        if let (Self::Silent { how_far, .. }, Some(Ending::Stuck(why))) = (&mut self, ending) {
            *how_far += "; ";
            *how_far += why;
        }
        self
    }

    /// Says whether Azure would be content.
    pub fn is_provisioned(&self) -> bool {
        matches!(self, Self::Provisioned(_))
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provisioned(at) => write!(
                f,
                "Azure would call it provisioned after {:.1} s.",
                at.as_secs_f64()
            ),
            Self::Failed { at, description } => write!(
                f,
                "Azure would call it failed after {:.1} s, and show: {description}",
                at.as_secs_f64()
            ),
            Self::Silent { how_far, last } => {
                write!(
                    f,
                    "Azure would wait, and give up in the end (OSProvisioningTimedOut): {how_far}."
                )?;
                if let Some(row) = last {
                    write!(
                        f,
                        "\nThe last that it asked, after {:.1} s: {} (answer: {}).",
                        row.last.as_secs_f64(),
                        row.what,
                        row.answer
                    )?;
                }
                Ok(())
            }
        }
    }
}

/// Says when the platform was told for the last time how the machine is.
pub(super) fn told(platform: &Platform) -> Option<Duration> {
    let rows = heard::rows(platform.journal(), Duration::ZERO);
    let report = rows.iter().rev().find(|row| row.is_report());
    report.map(|row| row.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: u64, what: &str, answer: &str) -> Row {
        let at = Duration::from_secs(at);
        Row {
            at,
            last: at,
            times: 1,
            who: "A/1".to_owned(),
            what: what.to_owned(),
            answer: answer.to_owned(),
        }
    }

    fn silent(rows: &[Row], has_lease: bool) -> String {
        Judgement::silent(rows, has_lease, !rows.is_empty()).to_string()
    }

    #[test]
    fn silence_is_told_apart_by_how_far_the_machine_came() {
        let discover = row(5, "DHCP DISCOVER", "none");
        let request = row(6, "DHCP REQUEST", "ACK");
        let asked = row(7, "GET /machine/?comp=goalstate", "200");
        let at_work = row(
            8,
            "POST /machine?comp=health: NotReady, Provisioning",
            "200",
        );
        let refused = row(9, "POST /machine?comp=health: Ready", "400");
        let release = row(99, "DHCP RELEASE", "none");
        let cases: [(&[Row], bool, &str, &str); 6] = [
            (&[], false, "no frame at all", ""),
            (
                std::slice::from_ref(&discover),
                false,
                "got none",
                "5.0 s: DHCP DISCOVER",
            ),
            (
                &[discover.clone(), request, release.clone()],
                true,
                "asked nothing",
                "6.0 s: DHCP REQUEST (answer: ACK)",
            ),
            (
                &[asked.clone(), release],
                true,
                "reported nothing",
                "7.0 s: GET",
            ),
            (&[asked.clone(), at_work], true, "at work", "8.0 s: POST"),
            (&[asked, refused], true, "answered with 400", "9.0 s: POST"),
        ];
        for (rows, has_lease, how_far, last) in cases {
            let said = silent(rows, has_lease);
            assert!(said.contains("OSProvisioningTimedOut"), "{said}");
            assert!(said.contains(how_far) && said.contains(last), "{said}");
        }
    }

    #[test]
    fn why_a_machine_is_stuck_is_told_where_it_told_nothing_itself() {
        let stuck = Some(Ending::Stuck("its kernel gave up"));
        let silent = Judgement::silent(&[], false, false).because(stuck);
        assert!(
            silent
                .to_string()
                .ends_with("no frame at all; its kernel gave up.")
        );
        let provisioned = Judgement::Provisioned(Duration::from_millis(41_260));
        let said = provisioned.because(stuck).to_string();
        assert_eq!(said, "Azure would call it provisioned after 41.3 s.");
    }

    #[test]
    fn platform_that_heard_nothing_and_no_platform_are_not_the_same() {
        let platform = Platform::new(crate::platform::Scenario::default());
        let heard = Judgement::of(Some(&platform), Duration::ZERO).to_string();
        assert!(heard.contains("no frame at all"), "{heard}");
        let nobody = Judgement::of(None, Duration::ZERO).to_string();
        assert!(nobody.contains("nobody"), "{nobody}");
    }
}
