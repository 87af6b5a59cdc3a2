//! Which parts of the work shall be done: the option `--steps`.
//!
//! Not an order: the plan decides in which order its steps come. Follows `design.md` 3.

use core::fmt;

/// One part of the work that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The host name.
    HostName,
    /// The administrator's account.
    User,
    /// The administrator's password.
    Password,
    /// The administrator's public keys.
    Keys,
    /// The administrator's right to become root.
    Sudo,
    /// sshd's configuration.
    Sshd,
    /// sshd's host keys.
    HostKeys,
    /// The file with custom data.
    CustomData,
    /// The files that say the work is done, ours and those of other agents.
    Markers,
}

const NAMES: [(&str, Step); 9] = [
    ("hostname", Step::HostName),
    ("user", Step::User),
    ("password", Step::Password),
    ("keys", Step::Keys),
    ("sudo", Step::Sudo),
    ("sshd", Step::Sshd),
    ("hostkeys", Step::HostKeys),
    ("customdata", Step::CustomData),
    ("markers", Step::Markers),
];

/// Says what is wrong with a list of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepsFault {
    /// The word at this place of the list, counted from 1, names no step.
    Unknown(usize),
}

impl fmt::Display for StepsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Unknown(place) = self;
        write!(f, "word {place} of the list is none of")?;
        NAMES.iter().try_for_each(|(name, _)| write!(f, " {name}"))
    }
}

/// A set of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps(u16);

impl Steps {
    /// Everything, the default.
    pub const ALL: Self = Self(0x01ff);

    /// Leaves one out.
    #[must_use]
    pub fn without(self, step: Step) -> Self {
        Self(self.0 & !Self::bit(step))
    }

    /// Reads a comma-separated list; `all` and an empty list are everything.
    pub fn parse(list: &str) -> Result<Self, StepsFault> {
        if matches!(list.trim(), "" | "all") {
            return Ok(Self::ALL);
        }
        let mut steps = Self(0);
        for (place, word) in (1..).zip(list.split(',')) {
            let (_, step) = NAMES
                .iter()
                .find(|(name, _)| *name == word.trim())
                .ok_or(StepsFault::Unknown(place))?;
            steps.0 |= Self::bit(*step);
        }
        Ok(steps)
    }

    /// Tells whether `step` is in the set.
    pub fn has(self, step: Step) -> bool {
        self.0 & Self::bit(step) != 0
    }

    const fn bit(step: Step) -> u16 {
        1 << step as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_holds_every_step() {
        for (_, step) in NAMES {
            assert!(Steps::ALL.has(step));
            assert!(Steps::parse("").unwrap().has(step));
        }
    }

    #[test]
    fn list_holds_what_it_names_and_nothing_else() {
        let steps = Steps::parse("hostname, keys").unwrap();
        for (_, step) in NAMES {
            assert_eq!(steps.has(step), matches!(step, Step::HostName | Step::Keys));
        }
    }

    #[test]
    fn unknown_word_is_refused_by_its_place() {
        assert_eq!(Steps::parse("user,passwd"), Err(StepsFault::Unknown(2)));
        assert_eq!(Steps::parse("user,"), Err(StepsFault::Unknown(2)));
    }
}
