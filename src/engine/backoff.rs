//! How long to wait before trying again.
//!
//! Short at first, because the usual loss at boot is a switch port that is not up yet; doubling to
//! a cap, because a platform in trouble is not helped by haste; with jitter, because a thousand
//! machines start together.

use core::time::Duration;

/// A small generator for jitter, ids and ports (xorshift64*); not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Creates a generator from a seed of the kernel's.
    pub fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    /// Returns 32 random bits.
    // Out of line: it has many callers.
    #[inline(never)]
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// Returns `duration` and up to a quarter more: never less, because some waits are a minimum.
    pub fn jitter(&mut self, duration: Duration) -> Duration {
        let most = duration.as_micros() as u64 >> 2;
        let more = u64::from(self.bits()).checked_rem(most).unwrap_or(0);
        duration.saturating_add(Duration::from_micros(more))
    }
}

/// A doubling wait.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u8,
}

impl Backoff {
    /// Creates a wait that starts at `first` and never exceeds `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Backoff {
            first,
            cap,
            tries: 0,
        }
    }

    /// Returns how long to wait now, and doubles the next wait.
    pub fn next(&mut self, random: &mut Random) -> Duration {
        let factor = 1u32.checked_shl(u32::from(self.tries)).unwrap_or(u32::MAX);
        self.tries = self.tries.saturating_add(1);
        random.jitter(self.first.saturating_mul(factor).min(self.cap))
    }

    /// Returns how often [`Backoff::next`] was called since the last reset.
    pub fn tries(&self) -> u8 {
        self.tries
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// Returns the earliest of these times.
pub fn earliest(times: &[Option<Duration>]) -> Option<Duration> {
    let mut earliest = None;
    for time in times.iter().flatten() {
        if earliest.is_none_or(|known| *time < known) {
            earliest = Some(*time);
        }
    }
    earliest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_are_never_shorter() {
        let mut random = Random::new(7);
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(8));
        for expected in [250u64, 500, 1000, 2000, 4000, 8000, 8000, 8000] {
            let wait = backoff.next(&mut random).as_millis() as u64;
            assert!(
                wait >= expected && wait <= expected + expected / 4,
                "{wait}"
            );
        }
    }

    #[test]
    fn many_tries_do_not_overflow() {
        let mut random = Random::new(7);
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(30));
        for _ in 0..1000 {
            assert!(backoff.next(&mut random) <= Duration::from_secs(38));
        }
    }

    #[test]
    fn two_seeds_wait_differently() {
        let wait = |seed| Random::new(seed).jitter(Duration::from_secs(1));
        assert_ne!(wait(1), wait(0x9999_9999_9999));
    }
}
