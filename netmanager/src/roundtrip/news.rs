//! What of the measurements is news to the cluster, and how often it is told. Pure.

use std::time::{Duration, Instant};

use protocol::rtt::{Measured, RttReport};

use super::peers::middle;

/// Milliseconds, and the part of what it was, by which something must differ to be news.
const MILLISECONDS: f64 = 1.0;
const PART: f64 = 0.25;
/// The same of an error.
const ERROR: f64 = 0.1;
/// How many measurements make a whole of which a single outlier does not count.
const ENOUGH: usize = 4;
/// Between two reports; each one doubles it, and each [`PAUSE_LAST`] without one halves it. So whatever is measured, there are
/// at most seven reports in a time of any length, and one more for each `PAUSE_LAST` of it: 727 a day.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(120);
/// The first measurement of one more worker does not wait for that, but for no more than one report in so long.
const NEWCOMER_EVERY: Duration = Duration::from_secs(60);
/// Everything is said again after so long, since nobody else says that it still holds.
const ALL_EVERY: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct News {
    /// The cluster has named somebody over this connection: only then it wants to know.
    is_wanted: bool,
    said: Option<(RttReport, Instant)>,
    pause: Duration,
    /// Since when there is something new, and since when somebody of whom nothing was said.
    fresh: Option<Instant>,
    newcomer: Option<Instant>,
    /// When one was last said before the pause was over.
    hurried: Option<Instant>,
}

impl Default for News {
    fn default() -> Self {
        Self { is_wanted: false, said: None, pause: PAUSE_FIRST, fresh: None, newcomer: None, hurried: None }
    }
}

impl News {
    pub(super) fn connected(&mut self) {
        *self = Self::default();
    }

    pub(super) fn disconnected(&mut self) {
        self.is_wanted = false;
    }

    /// The cluster has named peers.
    pub(super) fn told(&mut self) {
        self.is_wanted = true;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// This is what is known now.
    pub(super) fn look(&mut self, report: &RttReport, now: Instant) {
        let (is_news, is_newcomer) = match &self.said {
            Some((said, _)) => (is_news(said, report), names_another(said, report)),
            None => (!report.measured.is_empty(), false),
        };
        self.fresh = is_news.then(|| self.fresh.unwrap_or(now));
        self.newcomer = is_newcomer.then(|| self.newcomer.unwrap_or(now));
    }

    /// When something is to be said.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let news =
            self.fresh.map(|fresh| self.said.as_ref().map_or(fresh, |(_, at)| fresh.max(*at + self.pause)));
        let all = self.said.as_ref().map(|(_, at)| *at + ALL_EVERY);
        [news, self.newcomer_due_at(), all].into_iter().flatten().min().filter(|_| self.is_wanted)
    }

    /// Those that are named together are said together.
    fn newcomer_due_at(&self) -> Option<Instant> {
        let (_, at) = self.said.as_ref()?;
        let soon = self.newcomer?.max(*at) + PAUSE_FIRST;
        Some(self.hurried.map_or(soon, |hurried| soon.max(hurried + NEWCOMER_EVERY)))
    }

    pub(super) fn said(&mut self, report: RttReport, now: Instant) {
        if let Some((_, at)) = &self.said {
            if self.newcomer.is_some() && now < *at + self.pause {
                self.hurried = Some(now);
            }
            let quiet = now.saturating_duration_since(*at).as_secs() / PAUSE_LAST.as_secs();
            let halvings = u32::try_from(quiet).map_or(16, |quiet| quiet.min(16));
            self.pause = (self.pause / (1_u32 << halvings)).max(PAUSE_FIRST);
        }
        self.pause = (self.pause * 2).min(PAUSE_LAST);
        self.said = Some((report, now));
        (self.fresh, self.newcomer) = (None, None);
    }
}

fn names_another(before: &RttReport, after: &RttReport) -> bool {
    after.measured.iter().any(|it| before.measured.iter().all(|before| before.node != it.node))
}

fn is_news(before: &RttReport, after: &RttReport) -> bool {
    let nodes = |report: &RttReport| report.measured.iter().map(|it| it.node).collect::<Vec<_>>();
    if nodes(before) != nodes(after) || before.coordinate.is_some() != after.coordinate.is_some() {
        return true;
    }
    let usual = after.measured.iter().map(|it| f64::from(middle(&it.micros)) / 1000.0);
    let least = usual.min_by(f64::total_cmp).unwrap_or(0.0);
    let has_moved = before.coordinate.zip(after.coordinate).is_some_and(|(before, after)| {
        after.moved_from(&before) >= MILLISECONDS.max(PART * least)
            || (after.error() - before.error()).abs() >= ERROR
    });
    has_moved || before.measured.iter().zip(&after.measured).any(|(before, after)| differ(before, after))
}

/// Of enough measurements the longest does not count: as an outlier it would be news when it comes and when it goes.
fn differ(before: &Measured, after: &Measured) -> bool {
    let quarter = |it: &Measured, number: usize| {
        let count = it.micros.len() - usize::from(it.micros.len() >= ENOUGH);
        let micros = it.micros.get(count.saturating_sub(1) * number / 4);
        f64::from(micros.copied().unwrap_or(0)) / 1000.0
    };
    (before.micros.len() < ENOUGH) != (after.micros.len() < ENOUGH)
        || (0..=4).any(|number| {
            let (before, after) = (quarter(before, number), quarter(after, number));
            (before - after).abs() >= MILLISECONDS.max(PART * before)
        })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use protocol::id::Id;
    use protocol::rtt::{Coordinate, Measured, RttReport};

    use super::{ALL_EVERY, NEWCOMER_EVERY, News, PAUSE_FIRST, PAUSE_LAST};

    fn report(x: f64, micros: &[u32]) -> RttReport {
        let measured = vec![Measured { node: Id::from_bytes([1; 12]), micros: micros.to_vec() }];
        RttReport { asks: false, coordinate: Coordinate::new([x, 0.0, 0.1, 0.2]).ok(), measured }
    }

    /// Has said `report` some time ago.
    fn told(report: RttReport, now: Instant) -> News {
        let mut news = News::default();
        news.connected();
        news.told();
        news.said(report, now);
        news
    }

    #[test]
    fn nothing_is_said_to_a_cluster_that_has_named_nobody() {
        let (mut news, now) = (News::default(), Instant::now());
        news.connected();
        news.look(&report(1.0, &[900]), now);
        assert_eq!(news.due_at(), None);
        news.told();
        assert_eq!(news.due_at(), Some(now));
    }

    #[test]
    fn what_wavers_is_no_news_and_what_changes_is() {
        let now = Instant::now();
        let slow = [20_000, 21_000, 22_000, 24_000];
        for (before, after, expected) in [
            (report(1.0, &[300, 400, 500, 600]), report(1.9, &[100, 300, 900, 1500]), false),
            (report(1.0, &[300, 400, 500, 600]), report(1.0, &[300, 400, 500, 90_000]), false),
            (report(1.0, &[300, 400, 500, 90_000]), report(1.0, &[300, 400, 500, 600]), false),
            (report(1.0, &[300, 400, 500, 600]), report(1.0, &[300, 400, 1700, 1700]), true),
            (report(1.0, &[300, 400, 500, 600]), report(2.1, &[300, 400, 500, 600]), true),
            (report(1.0, &slow), report(5.0, &[22_000, 24_000, 25_000, 26_000]), false),
            (report(1.0, &slow), report(1.0, &[22_000, 24_000, 28_000, 29_000]), true),
            (report(1.0, &slow), report(7.0, &slow), true),
            (report(1.0, &slow[..3]), report(1.0, &slow), true),
            (report(1.0, &slow), RttReport::default(), true),
        ] {
            let mut news = told(before.clone(), now);
            news.look(&after, now);
            let due = news.due_at().is_some_and(|due| due < now + ALL_EVERY);
            assert_eq!(due, expected, "{before:?} {after:?}");
        }
    }

    /// Seconds of a day.
    const DAY: u64 = 86_400;
    /// Seven, and one for each pause of a day: 0.7 MB, as a report of eight peers has 0.9 KB. An idle worker sends at most 5 MB a
    /// day over MQTT, of which 1.9 MB are for all else, and as much as here may come, of where its peers are: 3.2 MB together.
    const MOST: usize = 727;

    /// Of eight peers, each of which has been measured so many times, and never the same was found.
    fn of_eight(times: [u32; 8]) -> RttReport {
        let measured = (1..).zip(times).map(|(number, times)| Measured {
            node: Id::from_bytes([number; 12]),
            micros: vec![1000_u32 << (times % 7); 8],
        });
        RttReport { asks: false, coordinate: None, measured: measured.collect() }
    }

    fn is_due(news: &News, now: Instant) -> bool {
        news.due_at().is_some_and(|due| due <= now)
    }

    /// How often something is said in a day in which, in these seconds, something else is found of these peers.
    fn said_in_a_day(is_found: impl Fn(u64, u64) -> bool) -> usize {
        let (start, mut times, mut count) = (Instant::now(), [0_u32; 8], 1);
        let mut news = told(of_eight(times), start);
        for second in 1..DAY {
            let now = start + Duration::from_secs(second);
            let before = times;
            for (place, times) in (0_u64..).zip(&mut times) {
                *times += u32::from(is_found(second, place));
            }
            if times != before {
                news.look(&of_eight(times), now);
            }
            if is_due(&news, now) {
                news.said(of_eight(times), now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn what_never_stops_changing_is_said_ever_more_seldom() {
        for (every, apart) in [(10, 0), (20, 0), (20, 2), (40, 0), (40, 5), (119, 0)] {
            let count = said_in_a_day(|second, place| second % every == place * apart % every);
            assert!((600..=MOST).contains(&count), "{count} a day, of measurements every {every} s");
        }
    }

    #[test]
    fn bursts_after_pauses_of_whatever_length_are_not_said_more_often() {
        for quiet in [121, 300, 480, 1000] {
            let count = said_in_a_day(|second, place| {
                place == 0 && second.is_multiple_of(2) && second % (quiet + 130) < 130
            });
            assert!((300..=MOST).contains(&count), "{count} a day, of bursts with {quiet} s between them");
        }
    }

    #[test]
    fn what_changes_for_good_after_a_quiet_time_is_said_at_once_and_what_follows_within_seconds() {
        let (start, mut times, mut second) = (Instant::now(), [0_u32; 8], 0_u64);
        let at = |second| start + Duration::from_secs(second);
        let mut news = told(of_eight(times), start);
        // A day that was not quiet, and then an hour.
        while second < DAY + 3600 {
            second += 1;
            if second < DAY && second.is_multiple_of(20) {
                times[0] += 1;
                news.look(&of_eight(times), at(second));
            }
            if is_due(&news, at(second)) {
                news.said(of_eight(times), at(second));
            }
        }
        for pause in [0, 2, 4, 8] {
            times[0] += 1;
            news.look(&of_eight(times), at(second));
            second += pause;
            assert!(is_due(&news, at(second)), "{pause} s after the last");
            news.said(of_eight(times), at(second));
        }
        // Two minutes are enough for the first of it.
        second += PAUSE_LAST.as_secs();
        times[0] += 1;
        news.look(&of_eight(times), at(second));
        assert_eq!(news.due_at(), Some(at(second)));
    }

    #[test]
    fn one_more_worker_is_said_soon_whatever_was_said_before_but_not_all_the_time() {
        let start = Instant::now();
        let all = of_eight([1; 8]);
        let some = |count: usize| RttReport { measured: all.measured[..count].to_vec(), ..all.clone() };
        let mut news = told(some(1), start);
        news.pause = PAUSE_LAST;
        let now = start + PAUSE_FIRST * 10;
        news.look(&some(2), now);
        news.look(&some(3), now + PAUSE_FIRST / 2);
        assert_eq!(news.due_at(), Some(now + PAUSE_FIRST));
        news.said(some(3), now + PAUSE_FIRST);
        news.look(&some(2), now + PAUSE_FIRST * 2);
        assert_eq!(news.due_at(), Some(now + PAUSE_FIRST + PAUSE_LAST), "one less");
        news.look(&some(4), now + PAUSE_FIRST * 3);
        assert_eq!(news.due_at(), Some(now + PAUSE_FIRST + NEWCOMER_EVERY));
    }

    #[test]
    fn where_somebody_else_is_measured_all_the_time_it_is_said_twice_as_often_at_most() {
        let one = |number| RttReport {
            measured: vec![Measured { node: Id::from_bytes([number; 12]), micros: vec![900] }],
            ..RttReport::default()
        };
        let (start, mut number, mut count) = (Instant::now(), 0_u8, 1);
        let mut news = told(one(number), start);
        for second in 1..DAY {
            let now = start + Duration::from_secs(second);
            if second.is_multiple_of(10) {
                number = number.wrapping_add(1);
                news.look(&one(number), now);
            }
            if is_due(&news, now) {
                news.said(one(number), now);
                count += 1;
            }
        }
        assert!((1200..=2 * MOST).contains(&count), "{count} a day");
    }

    #[test]
    fn what_does_not_change_is_said_now_and_then() {
        let now = Instant::now();
        let mut news = told(report(1.0, &[900]), now);
        news.look(&report(1.0, &[900]), now);
        assert_eq!(news.due_at(), Some(now + ALL_EVERY));
    }
}
