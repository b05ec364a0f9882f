//! The wall clock, in the one form that the wire uses, and the clock that is never set.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One moment on two clocks. A machine without a battery for its clock may be years off until it is told the time: what
/// is shown is of the wall, what lasts is measured by the steady one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Seconds since the epoch, as of [`now`].
    pub wall: f64,
    /// Seconds that only ever grow, from an arbitrary beginning.
    pub steady: f64,
}

/// This moment.
#[must_use]
pub fn moment() -> Moment {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    Moment { steady: BEGINNING.elapsed().as_secs_f64(), wall: now() }
}

/// Seconds since the epoch, to the microsecond, as Oakestra writes it. A clock that stands before it reads 0.
///
/// The digits beyond would not survive being written and read: 16 digits do.
#[must_use]
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    #[allow(
        clippy::cast_precision_loss,
        reason = "microseconds of a date stay below 2^53 until the year 2255"
    )]
    let micros = since.as_micros() as f64;
    micros / 1e6
}

/// Whole seconds since the epoch, as tokens have them.
#[must_use]
pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A time in UTC as Oakestra writes it beside users: `22/11/2026 19:09`.
#[must_use]
pub fn day_and_minute(seconds: f64) -> String {
    let iso = iso8601(seconds);
    format!("{}/{}/{} {}", &iso[8..10], &iso[5..7], &iso[..4], &iso[11..16])
}

/// A time in UTC as Oakestra writes it in histories: `2026-11-22T19:09:21.682767`.
#[must_use]
pub fn iso8601(seconds: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "microseconds of a date fit 63 bits for 292 000 years"
    )]
    let micros = (seconds * 1e6) as i64;
    let (days, micros_of_day) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (year, month, day) = civil(days);
    let (seconds_of_day, micros) = (micros_of_day / 1_000_000, micros_of_day % 1_000_000);
    let (hour, minute, second) = (seconds_of_day / 3600, seconds_of_day / 60 % 60, seconds_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// Year, month and day of the Gregorian calendar for a number of days since 1970-01-01.
///
/// Counted from 0000-03-01, so that a leap day is the last day of its year and of its four hundred years.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March is month 0: five months of 153 days repeat.
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::iso8601;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0.0, "1970-01-01T00:00:00.000000"),
            (951_782_399.5, "2000-02-28T23:59:59.500000"),
            (951_825_600.0, "2000-02-29T12:00:00.000000"),
            (1_795_374_561.25, "2026-11-22T19:09:21.250000"),
            (4_107_542_400.0, "2100-03-01T00:00:00.000000"),
        ] {
            assert_eq!(iso8601(seconds), text);
        }
        assert_eq!(super::day_and_minute(1_795_374_561.25), "22/11/2026 19:09");
    }
}
