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
        let silent = |how_far: &str, last| Self::Silent {
            how_far: how_far.to_owned(),
            last,
        };
        let Some(platform) = platform else {
            return silent("nobody was at the other end of its cable", None);
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
        let last = rows
            .iter()
            .filter(|row| row.is_http())
            .max_by_key(|row| row.last);
        let report = rows.iter().rev().find(|row| row.is_report());
        let how_far = match (last, report) {
            (_, Some(report)) if report.answer == "200" || report.answer == "201" => {
                "it reported that it is at work, and then neither Ready nor a failure".to_owned()
            }
            (_, Some(report)) => format!("its report was answered with {}", report.answer),
            (Some(_), None) => "it asked, but reported nothing".to_owned(),
            (None, None) if has_lease => "it has an address, but asked nothing".to_owned(),
            (None, None) if !rows.is_empty() => "it asked for an address and got none".to_owned(),
            (None, None) if platform.first_frame().is_some() => {
                "it sent frames, but asked for no address".to_owned()
            }
            (None, None) => "it sent no frame at all".to_owned(),
        };
        // Who is switched off gives its address back.
        let last = last.or(rows.iter().rfind(|row| !row.is_farewell()));
        let last = last.cloned().map(Box::new);
        Self::Silent { how_far, last }
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
