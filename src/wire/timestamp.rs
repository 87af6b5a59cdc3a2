//! Points in time as text and as days: what reports and account files ask for.
//!
//! Not a calendar library: the proleptic Gregorian calendar in UTC, years 0 to 9999, one way only.
//! The way from days to dates is Howard Hinnant's `civil_from_days`.

use core::fmt::Write;
use core::time::Duration;

const SECONDS_PER_DAY: i64 = 86_400;
/// Days in 400 years, which are all equally long.
const ERA: u32 = 146_097;
/// 1970-01-01 in days since 1 March of the year -400: from there on, nothing is negative.
const EPOCH: u32 = 719_468 + ERA;
/// 9999-12-31T23:59:59: what comes later does not fit the format.
const LAST: i64 = 253_402_300_799;
/// 0000-01-01T00:00:00.
const FIRST: i64 = -62_167_219_200;

/// Writes a time as ISO 8601 does, in UTC: `2026-01-02T03:04:05+00:00`.
///
/// A time outside the years 0 to 9999 is moved to their edge.
pub fn timestamp(unix_seconds: i64) -> heapless::String<32> {
    let seconds = unix_seconds.clamp(FIRST, LAST);
    let days = seconds.div_euclid(SECONDS_PER_DAY) as i32;
    let second = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
    let (year, month, day) = date(EPOCH.saturating_add_signed(days));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = heapless::String::new();
    // 25 characters always fit in 32.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00"
    );
    text
}

/// Counts the whole days since 1970-01-01, as `/etc/shadow` does; 0 for a clock before that.
pub fn days(unix_seconds: i64) -> u32 {
    u32::try_from(unix_seconds.div_euclid(SECONDS_PER_DAY)).unwrap_or(if unix_seconds < 0 {
        0
    } else {
        u32::MAX
    })
}

/// Turns days, counted as in [`EPOCH`], into year, month and day.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "the caller's clamp keeps all within 2^24, and the year at 0 or more"
)]
fn date(days: u32) -> (u32, u32, u32) {
    // Years are counted from March, so that the leap day is the last of its year.
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u32::from(month <= 2) - 400;
    (year, month, day)
}

/// Returns whole milliseconds; the standard library's 128-bit ones cost 3 KB to print.
// Out of line: it has many callers.
#[inline(never)]
pub fn millis(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1000);
    seconds.saturating_add(u64::from(duration.subsec_millis()))
}

/// Returns whole microseconds.
// Out of line: it has many callers.
#[inline(never)]
pub fn micros(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000);
    seconds.saturating_add(u64::from(duration.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_count_whole_units_and_stop_at_the_largest() {
        let time = Duration::new(5, 1_999_999);
        assert_eq!((millis(time), micros(time)), (5001, 5_001_999));
        assert_eq!(micros(Duration::MAX), u64::MAX);
    }

    #[test]
    fn known_times_are_written_as_date_writes_them() {
        // From `date -u -d @N --iso-8601=seconds` (GNU coreutils 9.1).
        let known = [
            (0, "1970-01-01T00:00:00+00:00"),
            (951_782_400, "2000-02-29T00:00:00+00:00"),
            (1_767_323_045, "2026-01-02T03:04:05+00:00"),
            (4_107_542_399, "2100-02-28T23:59:59+00:00"),
            (4_107_542_400, "2100-03-01T00:00:00+00:00"),
            (-1, "1969-12-31T23:59:59+00:00"),
        ];
        for (seconds, text) in known {
            assert_eq!(timestamp(seconds), text);
        }
    }

    #[test]
    fn times_beyond_four_digit_years_stop_at_the_edge() {
        assert_eq!(timestamp(i64::MAX), "9999-12-31T23:59:59+00:00");
        assert_eq!(timestamp(LAST + 1), timestamp(LAST));
        assert_eq!(timestamp(i64::MIN), "0000-01-01T00:00:00+00:00");
    }

    #[test]
    fn dates_agree_with_counting_the_days_one_by_one() {
        let (mut year, mut month, mut day) = (1600, 1, 1);
        // 1600-01-01 is 135140 days before 1970-01-01.
        for days in -135_140..200_000 {
            let date = date(EPOCH.checked_add_signed(days).unwrap());
            assert_eq!(date, (year, month, day), "day {days}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u32::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn days_are_whole_and_never_negative() {
        assert_eq!(days(86_399), 0);
        assert_eq!(days(86_400), 1);
        // `date -u -d 2026-01-02 +%s` / 86400
        assert_eq!(days(1_767_323_045), 20_455);
        assert_eq!(days(-1), 0);
        assert_eq!(days(i64::MIN), 0);
        assert_eq!(days(i64::MAX), u32::MAX);
    }
}
