//! When a machine came how far, and several of them drawn one above the other.
//!
//! A stage that was not seen is not in a timeline; nothing is made up.

use core::fmt::Write as _;
use std::time::Duration;

/// How wide a bar may be; with name and time before it a line has at most 80 columns.
const BAR: usize = 50;

/// After how many columns there is a number above the bars.
const TICK: usize = 10;

/// How many milliseconds a column may stand for.
const STEPS: [u64; 19] = [
    50, 100, 200, 300, 400, 500, 1_000, 1_500, 2_000, 2_500, 3_000, 4_000, 5_000, 6_000, 10_000,
    12_000, 15_000, 60_000, 2_000_000,
];

/// How far a machine has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It was switched on; its firmware runs.
    PowerOn,
    /// Its kernel says its first words.
    Kernel,
    /// It sent its first frame.
    FirstFrame,
    /// It was given an address.
    Lease,
    /// It read the provisioning disc.
    Disc,
    /// It asked for the goal state.
    GoalState,
    /// Its Ready was accepted.
    Ready,
    /// It told that provisioning failed.
    Failed,
    /// Somebody could log in on its console.
    LoginPrompt,
    /// It was ended without having been provisioned.
    End,
}

impl Stage {
    /// Names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PowerOn => "power on",
            Self::Kernel => "kernel",
            Self::FirstFrame => "first frame",
            Self::Lease => "lease",
            Self::Disc => "disc read",
            Self::GoalState => "goal state",
            Self::Ready => "Ready accepted",
            Self::Failed => "failed, told",
            Self::LoginPrompt => "login prompt",
            Self::End => "the end",
        }
    }
}

/// What one machine's boot took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Which machine.
    pub title: String,
    stages: Vec<(Stage, Duration)>,
}

impl Timeline {
    /// Starts one with the moment of power on.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            stages: vec![(Stage::PowerOn, Duration::ZERO)],
        }
    }

    /// Takes note of a stage; only its first time counts.
    pub fn reach(&mut self, stage: Stage, at: Duration) {
        if self.at(stage).is_none() {
            let place = self.stages.partition_point(|known| known.1 <= at);
            self.stages.insert(place, (stage, at));
        }
    }

    /// Says when a stage was reached.
    pub fn at(&self, stage: Stage) -> Option<Duration> {
        let found = self.stages.iter().find(|(known, _)| *known == stage);
        found.map(|(_, at)| *at)
    }

    /// Lists the stages in the order in which they were reached.
    pub fn stages(&self) -> &[(Stage, Duration)] {
        &self.stages
    }

    fn end(&self) -> Duration {
        self.stages.last().map_or(Duration::ZERO, |(_, at)| *at)
    }
}

/// Draws timelines one above the other, on one scale.
///
/// Each bar is the time from one stage to the next.
pub fn draw(timelines: &[Timeline]) -> String {
    let end = timelines.iter().map(Timeline::end).max();
    let end = end.unwrap_or_default().as_millis() as u64;
    let fits = |step: &&u64| end / **step < BAR as u64;
    let step = STEPS.iter().find(fits).copied().unwrap_or(u64::MAX);
    let columns = (end / step) as usize + 1;
    let column = |at: Duration| (at.as_millis() as u64 / step) as usize;

    let mut text = String::new();
    let mut ruler = String::new();
    for tick in (0..columns).step_by(TICK) {
        let seconds = tick as u64 * step;
        let number = format!("{}.{}", seconds / 1000, seconds % 1000 / 100);
        let _ = write!(ruler, "{:<TICK$}", number.trim_end_matches(".0"));
    }
    let _ = writeln!(text, "  {:<14} {:>8}  {}", "", "", ruler.trim_end());
    for timeline in timelines {
        let _ = writeln!(text, "{}", timeline.title);
        for (index, (stage, at)) in timeline.stages.iter().enumerate() {
            let next = timeline.stages.get(index + 1).map(|(_, at)| column(*at));
            let from = column(*at);
            let to = next.unwrap_or(0).max(from + 1);
            let bar: String = (0..columns)
                .map(|place| {
                    if (from..to).contains(&place) {
                        '#'
                    } else {
                        '.'
                    }
                })
                .collect();
            let seconds = at.as_secs_f64();
            let _ = writeln!(text, "  {:<14} {seconds:>6.1} s  {bar}", stage.name());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(title: &str, stages: &[(Stage, u64)]) -> Timeline {
        let mut timeline = Timeline::new(title);
        for (stage, ms) in stages {
            timeline.reach(*stage, Duration::from_millis(*ms));
        }
        timeline
    }

    #[test]
    fn timelines_stand_one_above_the_other_on_one_scale() {
        let slow = timeline("slow", &[(Stage::Kernel, 100), (Stage::Ready, 620)]);
        let quick = timeline("quick", &[(Stage::Kernel, 149), (Stage::Ready, 200)]);
        // Counted by hand: a column is a twentieth of a second.
        let wanted = "
                           0         0.5
slow
  power on          0.0 s  ##...........
  kernel            0.1 s  ..##########.
  Ready accepted    0.6 s  ............#
quick
  power on          0.0 s  ##...........
  kernel            0.1 s  ..##.........
  Ready accepted    0.2 s  ....#........
";
        assert_eq!(draw(&[slow, quick]), wanted.trim_start_matches('\n'));
    }

    #[test]
    fn stages_stand_in_the_order_in_which_they_were_reached_and_only_once() {
        let timeline = timeline(
            "x",
            &[
                (Stage::Ready, 900),
                (Stage::Lease, 500),
                (Stage::Lease, 700),
            ],
        );
        let order: Vec<_> = timeline.stages().iter().map(|(stage, _)| *stage).collect();
        assert_eq!(order, [Stage::PowerOn, Stage::Lease, Stage::Ready]);
        assert_eq!(timeline.at(Stage::Lease), Some(Duration::from_millis(500)));
        assert_eq!(timeline.at(Stage::Kernel), None);
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for end in [0, 10, 2_499, 2_500, 61_300, 600_000, 86_400_000] {
            let drawn = draw(&[timeline("x", &[(Stage::LoginPrompt, end)])]);
            for line in drawn.lines() {
                assert!(line.len() <= 80, "{end}: {line}");
            }
        }
        draw(&[]);
    }
}
