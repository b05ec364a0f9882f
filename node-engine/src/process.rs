//! What `/proc` knows of a process.

use std::fs;
use std::time::{Duration, SystemTime};

/// `/proc` counts in hundredths of a second on every architecture that Linux has (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// When process `pid` began, to a few hundredths of a second, by the clock as it goes now. It is read from the kernel,
/// so that an adopted container keeps its start time.
#[must_use]
pub fn start_time(pid: u32) -> Option<SystemTime> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let up: f64 = uptime.split(' ').next()?.parse().ok()?;
    let ticks = start_ticks(&stat)?;
    let began_after_boot = Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND));
    let age = Duration::try_from_secs_f64(up).ok()?.saturating_sub(began_after_boot);
    SystemTime::now().checked_sub(age)
}

/// The 22nd field. The second one is the program's name in parentheses, which may itself hold blanks and parentheses.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{start_ticks, start_time};

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1000 100";
        assert_eq!(start_ticks(stat), Some(4242));
    }

    #[test]
    fn this_process_began_a_short_while_ago() {
        let began = start_time(std::process::id()).unwrap();
        assert!(began <= SystemTime::now());
        assert!(began > SystemTime::now() - Duration::from_secs(3600));
    }
}
