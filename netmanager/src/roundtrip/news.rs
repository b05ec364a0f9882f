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
/// Between two reports; each time twice as long, until there was no news for some time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(120);
const QUIET: u32 = 4;
/// Everything is said again after so long, since nobody else says that it still holds.
const ALL_EVERY: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct News {
    /// The cluster has named somebody over this connection: only then it wants to know.
    is_wanted: bool,
    said: Option<(RttReport, Instant)>,
    pause: Duration,
    /// Since when there is something new.
    fresh: Option<Instant>,
}

impl Default for News {
    fn default() -> Self {
        Self { is_wanted: false, said: None, pause: PAUSE_FIRST, fresh: None }
    }
}

impl News {
    pub(super) fn connected(&mut self) {
        *self = Self::default();
    }

    pub(super) fn disconnected(&mut self) {
        self.is_wanted = false;
    }

    /// The cluster has named peers, and some of them are new.
    pub(super) fn told(&mut self, is_new: bool) {
        self.is_wanted = true;
        if is_new {
            self.pause = PAUSE_FIRST;
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// This is what is known now.
    pub(super) fn look(&mut self, report: &RttReport, now: Instant) {
        let is_news = match &self.said {
            Some((said, _)) => is_news(said, report),
            None => !report.measured.is_empty(),
        };
        self.fresh = is_news.then(|| self.fresh.unwrap_or(now));
    }

    /// When something is to be said.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let news =
            self.fresh.map(|fresh| self.said.as_ref().map_or(fresh, |(_, at)| fresh.max(*at + self.pause)));
        let all = self.said.as_ref().map(|(_, at)| *at + ALL_EVERY);
        [news, all].into_iter().flatten().min().filter(|_| self.is_wanted)
    }

    pub(super) fn said(&mut self, report: RttReport, now: Instant) {
        let quiet = self.said.as_ref().is_some_and(|(_, at)| now >= *at + self.pause * QUIET);
        self.pause = if quiet { PAUSE_FIRST } else { (self.pause * 2).min(PAUSE_LAST) };
        self.said = Some((report, now));
        self.fresh = None;
    }
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

fn differ(before: &Measured, after: &Measured) -> bool {
    let quarter = |it: &Measured, number: usize| {
        let micros = it.micros.get(it.micros.len().saturating_sub(1) * number / 4);
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

    use super::{ALL_EVERY, News, PAUSE_LAST};

    fn report(x: f64, micros: &[u32]) -> RttReport {
        let measured = vec![Measured { node: Id::from_bytes([1; 12]), micros: micros.to_vec() }];
        RttReport { asks: false, coordinate: Coordinate::new([x, 0.0, 0.1, 0.2]).ok(), measured }
    }

    /// Has said `report` some time ago.
    fn told(report: RttReport, now: Instant) -> News {
        let mut news = News::default();
        news.connected();
        news.told(true);
        news.said(report, now);
        news
    }

    #[test]
    fn nothing_is_said_to_a_cluster_that_has_named_nobody() {
        let (mut news, now) = (News::default(), Instant::now());
        news.connected();
        news.look(&report(1.0, &[900]), now);
        assert_eq!(news.due_at(), None);
        news.told(true);
        assert_eq!(news.due_at(), Some(now));
    }

    #[test]
    fn what_wavers_is_no_news_and_what_changes_is() {
        let now = Instant::now();
        let slow = [20_000, 21_000, 22_000, 24_000];
        for (before, after, expected) in [
            (report(1.0, &[300, 400, 500, 600]), report(1.9, &[100, 300, 900, 1500]), false),
            (report(1.0, &[300, 400, 500, 600]), report(1.0, &[300, 400, 500, 1700]), true),
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

    #[test]
    fn what_never_stops_changing_is_said_ever_more_seldom_and_what_does_not_change_now_and_then() {
        let start = Instant::now();
        let mut news = told(report(1.0, &[900]), start);
        let (mut count, mut now) = (0, start);
        while now < start + Duration::from_secs(86_400) {
            now += Duration::from_secs(1);
            let x = if count % 2 == 0 { 500.0 } else { 1.0 };
            news.look(&report(x, &[900]), now);
            if news.due_at().is_some_and(|due| due <= now) {
                news.said(report(x, &[900]), now);
                count += 1;
            }
        }
        assert!(count < 86_400 / 120 + 20, "{count} a day, of a KB each");
        news.look(&report(if count % 2 == 0 { 1.0 } else { 500.0 }, &[900]), now);
        assert!(news.due_at().unwrap() > now + PAUSE_LAST);
    }
}
