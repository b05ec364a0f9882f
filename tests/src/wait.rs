//! Waiting for conditions, never for times.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::interrupt;

const PAUSE: Duration = Duration::from_millis(50);

/// Asks `probe` again and again until it gives `Ok`, and gives that value. When the deadline has passed, the error
/// names `what` was waited for and the last thing that was seen instead. Ctrl-C ends the wait, where it is caught.
pub fn eventually<T, Seen: Debug>(
    deadline: Duration,
    what: &str,
    probe: impl FnMut() -> Result<T, Seen>,
) -> Result<T> {
    wait(deadline, what, probe, || interrupt::check().map_err(Into::into))
}

/// As [`eventually`], for what has to be seen to its end, such as cleaning up after Ctrl-C.
pub fn in_the_end<T, Seen: Debug>(
    deadline: Duration,
    what: &str,
    probe: impl FnMut() -> Result<T, Seen>,
) -> Result<T> {
    wait(deadline, what, probe, || Ok(()))
}

fn wait<T, Seen: Debug>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, Seen>,
    may_go_on: impl Fn() -> Result<()>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(seen) if start.elapsed() >= deadline => {
                bail!("waited {} s for: {what}; last seen: {seen:?}", deadline.as_secs_f32());
            }
            Err(_) => {
                may_go_on()?;
                sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::eventually;

    #[test]
    fn the_first_good_answer_ends_the_wait() {
        let mut asked = 0;
        let value = eventually(Duration::from_secs(5), "three questions", || {
            asked += 1;
            if asked == 3 { Ok(asked) } else { Err(asked) }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_missed_deadline_says_what_was_seen_last() {
        let error = eventually(Duration::ZERO, "rain", || Err::<(), _>("sun")).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s for: rain; last seen: \"sun\"");
    }
}
