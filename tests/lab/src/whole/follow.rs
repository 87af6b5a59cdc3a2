//! Follows a whole machine: how far it is, whether it is stuck, and when it has done enough.
//!
//! It sees the console, and of the platform what a [`Glance`] has. It ends the machine as a person
//! would: by the power button first, so that logs reach the disk, and by force if that does nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::timeline::{Stage, Timeline};
use crate::monitor::Monitor;
use crate::platform::plug::now;
use crate::platform::{Entry, Platform, Verdict};
use crate::progress;
use crate::qemu::{Watch, Watcher};

/// How long nothing may be said before the machine is ended where no prompt comes.
const QUIET: Duration = Duration::from_secs(45);

/// How long a machine that is stuck is left alone: it may still report that.
const STUCK: Duration = Duration::from_secs(15);

/// How long a system may take to switch itself off.
pub(super) const POWER_DOWN: Duration = Duration::from_mins(1);

/// The same where nothing is there to do so.
const UNHEARD: Duration = Duration::from_secs(2);

/// How long the emulator may take to end itself.
pub(super) const QUIT: Duration = Duration::from_secs(10);

/// How often a person is told that the machine is alive.
const TELL: Duration = Duration::from_secs(30);

/// What a console shows when its machine goes no further, and what it means.
const DEAD_ENDS: &[(&str, &str)] = &[
    ("No bootable device", "the firmware found nothing to boot"),
    ("No bootable option", "the firmware found nothing to boot"),
    (
        "UEFI Interactive Shell",
        "the firmware found nothing to boot",
    ),
    ("grub rescue>", "its boot loader is stuck"),
    ("Kernel panic - not syncing", "its kernel gave up"),
    ("(initramfs)", "its initramfs is stuck"),
    ("Entering emergency mode", "its initramfs is stuck"),
    ("You are in emergency mode", "it is in emergency mode"),
];

/// What a console shows when the disc was mounted, or read without that.
const DISC_READ: [&str; 4] = [
    "UDF-fs: INFO Mounting volume",
    "ISO 9660 Extensions",
    "ISOFS: ",
    "preroot: disc ok",
];

/// Why a machine was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It had reported, and had nothing more to say.
    Done,
    /// It was stuck, for this reason.
    Stuck(&'static str),
    /// Time was up.
    OutOfTime,
}

/// What is seen of the platform while it is busy with the machine.
#[derive(Debug, Default)]
pub(super) struct Glance {
    seen: usize,
    verdict: Verdict,
    asked: Option<(Duration, String)>,
}

impl Glance {
    /// Looks at the platform.
    pub(super) fn look(this: &Mutex<Self>, platform: &Platform) {
        let journal = platform.journal();
        let mut this = lock(this);
        let new = journal.get(this.seen..).unwrap_or_default();
        if new.is_empty() {
            return;
        }
        this.seen = journal.len();
        this.verdict = platform.verdict();
        let last = new.iter().rev().find_map(|entry| match entry {
            Entry::Request { at, request, .. } => {
                Some((*at, format!("{} {}", request.method, request.path())))
            }
            Entry::Dhcp { at, .. } => entry
                .dhcp()
                .map(|spoken| (*at, format!("DHCP {:?}", spoken.kind).to_uppercase())),
            _ => None,
        });
        this.asked = last.or(this.asked.take());
    }
}

fn lock(glance: &Mutex<Glance>) -> MutexGuard<'_, Glance> {
    glance.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far the end of the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The power button was pressed.
    PoweringDown(Duration),
    /// The emulator was told to end.
    Quitting(Duration),
}

/// The follower of one machine.
pub(super) struct Follower<'a> {
    /// How far it has come.
    pub(super) timeline: Timeline,
    /// Why it was ended, if it was.
    pub(super) ending: Option<Ending>,
    /// When that was.
    pub(super) ended: Option<Duration>,
    /// Whether it did not end by itself then.
    pub(super) forced: bool,
    /// How often its kernel started.
    pub(super) starts: usize,
    began: Duration,
    limit: Duration,
    settle: Duration,
    shown: bool,
    glance: &'a Mutex<Glance>,
    monitor: &'a Monitor,
    phase: Phase,
    stuck: Option<(Duration, &'static str)>,
    said: Duration,
    part: String,
    told: Duration,
}

impl<'a> Follower<'a> {
    /// Begins with a machine that is switched on now, which has so much time, and so much behind its prompt.
    pub(super) fn new(
        title: String,
        (limit, settle): (Duration, Duration),
        shown: bool,
        glance: &'a Mutex<Glance>,
        monitor: &'a Monitor,
    ) -> Self {
        Self {
            timeline: Timeline::new(title),
            ending: None,
            ended: None,
            forced: false,
            starts: 0,
            began: now(),
            limit,
            settle,
            shown,
            glance,
            monitor,
            phase: Phase::Running,
            stuck: None,
            said: Duration::ZERO,
            part: String::new(),
            told: Duration::ZERO,
        }
    }

    /// The platform's time at power on.
    pub(super) fn began(&self) -> Duration {
        self.began
    }

    /// Takes what the console shows, whole lines and the beginning of one.
    fn read(&mut self, at: Duration, text: &str) {
        self.said = at;
        // What it does while it is switched off is no part of its boot.
        if self.ending.is_some() {
            return;
        }
        if is_of_kernel(text) {
            self.timeline.reach(Stage::Kernel, at);
        }
        if DISC_READ.iter().any(|words| text.contains(words)) {
            self.timeline.reach(Stage::Disc, at);
        }
        if text.trim_end().ends_with("login:") {
            self.timeline.reach(Stage::LoginPrompt, at);
        }
        let known = DEAD_ENDS.iter().find(|(words, _)| text.contains(words));
        if let Some((_, why)) = known {
            self.stuck.get_or_insert((at, why));
        }
    }

    /// Says whether the machine has done enough, is stuck, or has had its time.
    fn judge(&self, at: Duration, is_final: bool) -> Option<Ending> {
        let quiet = at.saturating_sub(self.said);
        let prompt = self.timeline.at(Stage::LoginPrompt).is_some();
        if is_final && (quiet >= QUIET || prompt && quiet >= self.settle) {
            return Some(Ending::Done);
        }
        let is_late = at >= self.limit;
        match self.stuck {
            Some((since, why)) if is_late || at.saturating_sub(since) >= STUCK => {
                Some(Ending::Stuck(why))
            }
            _ => is_late.then_some(Ending::OutOfTime),
        }
    }

    fn tell(&mut self, at: Duration) {
        if at.saturating_sub(self.told) < TELL {
            return;
        }
        self.told = at;
        let asked = lock(self.glance).asked.clone();
        let asked = match asked {
            Some((when, what)) => {
                let when = when.saturating_sub(self.began).as_secs();
                format!("last asked at {when} s: {what}")
            }
            None => "nothing asked yet".to_owned(),
        };
        progress::say(format_args!(
            "  {}: {} s of {} at most, an emulated machine is slow; {asked}",
            self.timeline.title,
            at.as_secs(),
            self.limit.as_secs()
        ));
    }

    fn step(&mut self, at: Duration) -> Watch {
        match self.phase {
            Phase::Running => {
                let is_final = lock(self.glance).verdict != Verdict::Creating;
                if let Some(ending) = self.judge(at, is_final) {
                    (self.ending, self.ended) = (Some(ending), Some(at));
                    // A machine that cannot be reached is one that has just ended.
                    let _ = self.monitor.power_down();
                    self.phase = Phase::PoweringDown(at);
                }
                self.tell(at);
            }
            Phase::PoweringDown(since) if at.saturating_sub(since) >= self.patience() => {
                self.forced = true;
                let _ = self.monitor.quit();
                self.phase = Phase::Quitting(at);
            }
            Phase::Quitting(since) if at.saturating_sub(since) >= QUIT => return Watch::Stop,
            Phase::PoweringDown(_) | Phase::Quitting(_) => {}
        }
        Watch::Continue
    }

    /// How long the power button may take to have an effect: no one looks at it where all is stuck,
    /// nor where no kernel runs.
    fn patience(&self) -> Duration {
        let is_up = self.timeline.at(Stage::Kernel).is_some() || self.sends();
        match self.ending {
            Some(Ending::Stuck(_)) => UNHEARD,
            _ if !is_up => UNHEARD,
            _ => POWER_DOWN,
        }
    }

    /// Says whether the platform was asked anything.
    fn sends(&self) -> bool {
        lock(self.glance).asked.is_some()
    }
}

impl Watcher for Follower<'_> {
    fn line(&mut self, line: &str) -> Watch {
        let line = plain(line);
        if self.shown {
            println!("{line}");
        }
        self.part.clear();
        if is_of_kernel(&line) && line.contains("] Linux version ") {
            self.starts += 1;
        }
        self.read(now().saturating_sub(self.began), &line);
        Watch::Continue
    }

    fn alive(&mut self, part: &str) -> Watch {
        let at = now().saturating_sub(self.began);
        let part = plain(part);
        if part != self.part {
            self.read(at, &part);
            self.part = part;
        }
        self.step(at)
    }
}

/// Says whether a line is one of the kernel's, which have their time in front.
fn is_of_kernel(line: &str) -> bool {
    let Some((stamp, _)) = line
        .trim_start()
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    else {
        return false;
    };
    let Some((seconds, micros)) = stamp.trim_start().split_once('.') else {
        return false;
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !seconds.is_empty() && micros.len() == 6 && is_number(seconds) && is_number(micros)
}

/// Takes out what a firmware and a boot loader tell a terminal to do.
///
/// ECMA-48: an escape sequence is ESC, then for a control sequence `[`, parameters, and a letter.
pub(super) fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => match characters.next() {
                Some('[') => {
                    while characters
                        .next()
                        .is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c))
                    {}
                }
                Some(' '..='/') => {
                    characters.next();
                }
                _ => {}
            },
            '\t' => text.push('\t'),
            character if character.is_control() => {}
            character => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn follow(check: impl FnOnce(&mut Follower<'_>)) {
        let (glance, monitor) = (Mutex::default(), Monitor::new(0));
        let title = "x".to_owned();
        check(&mut Follower::new(
            title,
            (600 * SECOND, 6 * SECOND),
            false,
            &glance,
            &monitor,
        ));
    }

    #[test]
    fn console_tells_how_far_the_machine_is() {
        follow(|follower| {
            for (at, line) in [
                (1, "SeaBIOS (version 1.16.2)"),
                (2, "[    0.000000] Linux version 6.1.0-40-cloud-amd64"),
                (
                    3,
                    "[    3.100000] systemd[1]: Detected architecture x86-64.",
                ),
                (
                    4,
                    "[   12.000000] UDF-fs: INFO Mounting volume 'rd_rdfe_stable'",
                ),
                (5, "Last login: Mon"),
                (6, "vm-desk01 login: "),
            ] {
                follower.read(at * SECOND, line);
            }
            let timeline = &follower.timeline;
            let wanted = [
                (Stage::PowerOn, 0),
                (Stage::Kernel, 2),
                (Stage::Disc, 4),
                (Stage::LoginPrompt, 6),
            ];
            let wanted = wanted.map(|(stage, at)| (stage, at * SECOND));
            assert_eq!(timeline.stages(), wanted);
        });
    }

    #[test]
    fn kernel_that_starts_is_counted_once_however_its_line_comes() {
        follow(|follower| {
            let line = "[    0.000000] Linux version 6.1.0-40-cloud-amd64";
            follower.alive(&line[..20]);
            follower.alive(line);
            follower.line(line);
            assert_eq!(follower.starts, 1);
            follower.line(line);
            assert_eq!(follower.starts, 2);
        });
    }

    #[test]
    fn machine_is_ended_when_it_has_reported_and_is_quiet() {
        follow(|follower| {
            follower.read(10 * SECOND, "vm login: ");
            assert_eq!(follower.judge(60 * SECOND, false), None, "no report yet");
            assert_eq!(follower.judge(12 * SECOND, true), None, "not yet quiet");
            assert_eq!(follower.judge(16 * SECOND, true), Some(Ending::Done));
        });
        follow(|follower| {
            follower.read(10 * SECOND, "Starting something");
            assert_eq!(follower.judge(30 * SECOND, true), None, "no prompt yet");
            assert_eq!(follower.judge(55 * SECOND, true), Some(Ending::Done));
        });
    }

    #[test]
    fn what_comes_behind_the_end_is_no_stage() {
        follow(|follower| {
            follower.ending = Some(Ending::OutOfTime);
            follower.read(601 * SECOND, "vm login: ");
            assert_eq!(follower.timeline.stages().len(), 1);
        });
    }

    #[test]
    fn machine_that_is_stuck_or_out_of_time_is_ended() {
        follow(|follower| {
            follower.read(5 * SECOND, "No bootable device.");
            assert_eq!(follower.judge(6 * SECOND, false), None);
            let why = "the firmware found nothing to boot";
            assert_eq!(follower.judge(20 * SECOND, false), Some(Ending::Stuck(why)));
        });
        follow(|follower| {
            let ending = follower.judge(600 * SECOND, false);
            assert_eq!(ending, Some(Ending::OutOfTime));
        });
    }

    #[test]
    fn what_a_firmware_does_to_a_terminal_is_taken_out() {
        assert_eq!(
            plain("\x1b[2J\x1b[01;01H\x1b[=3h\x1b(BBdsDxe: loading\x07 Boot0001\r"),
            "BdsDxe: loading Boot0001"
        );
        assert_eq!(plain("\x1b["), "");
        assert_eq!(plain("a\tb"), "a\tb");
    }

    #[test]
    fn kernels_lines_are_known_by_their_time() {
        assert!(is_of_kernel("[    0.000000] Linux version"));
        assert!(is_of_kernel("[12345.123456] x"));
        for line in [
            "[  OK  ] Started",
            "[0.1] x",
            "0.000000] x",
            "[ a.000000] x",
        ] {
            assert!(!is_of_kernel(line), "{line}");
        }
    }
}
