//! The kernel's clocks and random numbers.
//!
//! Not a calendar: `wire::timestamp` turns seconds into dates. The clocks are read by plain system
//! calls (see [`sys`] for why); on a machine where that fails nothing else would work either, so
//! they read zero rather than fail.

use core::time::Duration;

use linux_raw_sys::general::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::sys;

/// Reads the time since boot that stands still during suspend: for deadlines.
pub fn monotonic() -> Duration {
    since(CLOCK_MONOTONIC)
}

/// Reads the time since boot with suspend: for the timeline, it agrees with the kernel's log.
pub fn boottime() -> Duration {
    since(CLOCK_BOOTTIME)
}

/// Reads the seconds since 1970 UTC, as far as the machine knows them this early.
pub fn unix_seconds() -> i64 {
    sys::clock(CLOCK_REALTIME).map_or(0, |time| time.tv_sec)
}

fn since(clock: u32) -> Duration {
    let Ok(time) = sys::clock(clock) else {
        return Duration::ZERO;
    };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Fills with numbers that differ from boot to boot: transaction ids, ports, sequence numbers.
///
/// Never blocks and never fails, so nothing that must be secret may come from here: early in the
/// boot the kernel's generator may not be seeded yet.
pub fn random(out: &mut [u8]) {
    // Kernels before 5.6 do not know INSECURE and refuse it.
    for flags in [GetRandomFlags::INSECURE, GetRandomFlags::NONBLOCK] {
        if fill(out, flags).is_ok() {
            return;
        }
    }
    // An old kernel that is not seeded yet: the clock and our place among the processes.
    let now = monotonic();
    let mut state = now
        .as_secs()
        .wrapping_mul(1_000_000_007)
        .wrapping_add(now.subsec_nanos().into())
        ^ u64::from(
            rustix::process::getpid()
                .as_raw_nonzero()
                .get()
                .cast_unsigned(),
        ) << 40;
    for byte in out {
        // Knuth's MMIX generator; its top bits are the good ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
}

/// Fills with numbers fit for a secret; blocks until the kernel's generator is seeded.
pub fn random_secret(out: &mut [u8]) -> rustix::io::Result<()> {
    fill(out, GetRandomFlags::empty())
}

fn fill(out: &mut [u8], flags: GetRandomFlags) -> rustix::io::Result<()> {
    let mut rest = out;
    while !rest.is_empty() {
        match getrandom(&mut *rest, flags) {
            Ok(0) => return Err(Errno::IO),
            Ok(length) => rest = rest.get_mut(length..).ok_or(Errno::IO)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn monotonic_goes_forward() {
        let first = monotonic();
        std::thread::sleep(Duration::from_millis(2));
        let passed = monotonic().checked_sub(first).unwrap();
        assert!(passed >= Duration::from_millis(2) && passed < Duration::from_mins(1));
    }

    #[test]
    fn boottime_is_what_the_kernel_calls_uptime() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((boottime().as_secs_f64() - uptime).abs() < 5.0);
    }

    #[test]
    fn unix_seconds_agree_with_the_standard_library() {
        let std = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(unix_seconds().abs_diff(std.cast_signed()) <= 1);
    }

    #[test]
    fn random_fills_the_whole_buffer_with_something_else_each_time() {
        let mut first = [0; 512];
        let mut second = [0; 512];
        random(&mut first);
        random_secret(&mut second).unwrap();
        assert_ne!(first, second);
        // 32 zero bytes at the end would be a part that was not filled.
        assert_ne!(first[480..], [0; 32]);
        assert_ne!(second[480..], [0; 32]);
        random(&mut []);
    }
}
