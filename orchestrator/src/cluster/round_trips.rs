//! What workers have said of how far they are from each other. In memory only: after a restart of the cluster they say it
//! again. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use protocol::connectivity::Bound;
use protocol::id::Id;
use protocol::rtt::{Coordinate, PEERS_MAX, RttReport, SAMPLES_MAX};

use crate::schedule::{Reach, RoundTrip};

/// Workers repeat themselves every ten minutes; what is so much older holds no more.
const VALID: Duration = Duration::from_secs(1500);
/// A round trip that takes longer is none.
const LONGEST: f64 = 10_000.0;
/// Of so many measurements, the longest is left out: any path is slow once.
const ENOUGH: usize = 4;
/// A coordinate of a larger error says nothing.
const ERROR_MAX: f64 = 0.5;
/// What an estimate may be wrong by at least: milliseconds.
const WAVER: f64 = 0.25;

#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    said: HashMap<Id, Said>,
}

#[derive(Debug)]
struct Said {
    coordinate: Option<Coordinate>,
    /// Milliseconds.
    measured: BTreeMap<Id, Vec<f64>>,
    at: Instant,
}

impl RoundTrips {
    /// A worker says this instead of what it said before. Says whether that is news.
    pub(super) fn take(&mut self, worker: Id, report: RttReport, now: Instant) -> bool {
        let RttReport { coordinate, measured, asks: _ } = report;
        let measured = measured.into_iter().take(PEERS_MAX).filter(|it| it.node != worker).map(|it| {
            let milliseconds =
                it.micros.into_iter().take(SAMPLES_MAX).map(|micros| f64::from(micros) / 1000.0);
            let mut milliseconds: Vec<_> = milliseconds.filter(|took| *took <= LONGEST).collect();
            milliseconds.sort_by(f64::total_cmp);
            (it.node, milliseconds)
        });
        let said = Said { coordinate, measured: measured.collect(), at: now };
        let is_known = |known: &Said| {
            known.is_fresh(now) && known.coordinate == said.coordinate && known.measured == said.measured
        };
        let is_news = !self.said.get(&worker).is_some_and(is_known);
        self.said.insert(worker, said);
        is_news
    }

    pub(super) fn forget(&mut self, worker: Id) {
        self.said.remove(&worker);
    }

    pub(super) fn coordinate(&self, worker: Id) -> Option<Coordinate> {
        self.said.get(&worker)?.coordinate
    }

    /// The usual round trip to those that a worker measures, in milliseconds.
    pub(super) fn usual(&self, worker: Id) -> Option<f64> {
        let measured = self.said.get(&worker)?.measured.values();
        let mut usual: Vec<f64> = measured.filter_map(|it| middle(it)).collect();
        usual.sort_by(f64::total_cmp);
        middle(&usual)
    }

    /// How it stands with the way between two workers, where this is asked of it.
    pub(super) fn reach(&self, one: Id, other: Id, bound: &Bound, now: Instant) -> Reach {
        self.end(one, now).reach(&self.end(other, now), bound)
    }

    /// A worker as one end of many ways.
    pub(super) fn end(&self, worker: Id, now: Instant) -> End<'_> {
        let said = self.said.get(&worker);
        End { worker, measures: said.is_some(), said: said.filter(|said| said.is_fresh(now)) }
    }
}

impl Said {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < VALID
    }
}

/// See [`RoundTrips::end`].
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'t> {
    worker: Id,
    /// It has said something at some time, so that it may again. Workers of Oakestra's never do, nor those that may not ping.
    measures: bool,
    said: Option<&'t Said>,
}

impl End<'_> {
    /// How it stands with the way to all of these, which is as it stands with the worst.
    pub(super) fn worst(&self, others: &[Self], bound: &Bound) -> Reach {
        let mut worst = Reach::Anywhere;
        for other in others {
            worst = worst.worse(self.reach(other, bound), bound);
            if matches!(worst, Reach::Known(trip) if trip.share <= 0.0) {
                break;
            }
        }
        worst
    }

    fn reach(&self, other: &Self, bound: &Bound) -> Reach {
        if self.worker == other.worker {
            return Reach::Known(RoundTrip { milliseconds: 0.0, share: 1.0, is_measured: true });
        }
        match self.measured(other, bound).or_else(|| self.estimated(other, bound)) {
            Some(trip) => Reach::Known(trip),
            None if self.measures || other.measures => Reach::Unknown,
            None => Reach::Unmeasured,
        }
    }

    /// By what either end has measured.
    fn measured(&self, other: &Self, bound: &Bound) -> Option<RoundTrip> {
        let towards = |from: &Self, to: &Self| from.said.and_then(|said| said.measured.get(&to.worker));
        let both = [towards(self, other), towards(other, self)];
        let mut all: Vec<f64> = both.into_iter().flatten().flatten().copied().collect();
        all.sort_by(f64::total_cmp);
        let milliseconds = middle(&all)?;
        if all.len() >= ENOUGH {
            all.pop();
        }
        let within = all.iter().filter(|took| **took <= bound.milliseconds).count();
        Some(RoundTrip { milliseconds, share: part(within, all.len()), is_measured: true })
    }

    /// By where both are, as if what is possible were equally likely.
    fn estimated(&self, other: &Self, bound: &Bound) -> Option<RoundTrip> {
        let at = |end: &Self| {
            let coordinate = end.said.and_then(|said| said.coordinate);
            coordinate.filter(|coordinate| coordinate.error() <= ERROR_MAX)
        };
        let (one, other) = (at(self)?, at(other)?);
        let milliseconds = one.milliseconds_to(&other);
        let waver = WAVER.max(milliseconds * one.error().max(other.error()));
        let share = (bound.milliseconds - (milliseconds - waver)) / (2.0 * waver);
        Some(RoundTrip { milliseconds, share: share.clamp(0.0, 1.0), is_measured: false })
    }
}

/// Of numbers in their order.
fn middle(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

fn part(of: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { number(of) / number(whole) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use protocol::connectivity::Bound;
    use protocol::id::Id;
    use protocol::rtt::{Coordinate, Measured, RttReport};

    use super::{End, RoundTrips, VALID};
    use crate::schedule::{Reach, RoundTrip};

    const ONE: Id = Id::from_bytes([1; 12]);
    const OTHER: Id = Id::from_bytes([2; 12]);

    fn within(milliseconds: f64) -> Bound {
        Bound { milliseconds, rigidness: 1.0, convergence: Duration::ZERO }
    }

    fn measured(node: Id, micros: &[u32]) -> RttReport {
        RttReport { measured: vec![Measured { node, micros: micros.to_vec() }], ..RttReport::default() }
    }

    fn at(x: f64, error: f64) -> RttReport {
        RttReport { coordinate: Coordinate::new([x, 0.0, 1.0, error]).ok(), ..RttReport::default() }
    }

    fn known(reach: Reach) -> RoundTrip {
        match reach {
            Reach::Known(distance) => distance,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_either_end_has_measured_counts_and_a_single_outlier_does_not() {
        let (mut trips, now) = (RoundTrips::default(), Instant::now());
        assert_eq!(trips.reach(ONE, OTHER, &within(10.0), now), Reach::Unmeasured);
        trips.take(ONE, measured(OTHER, &[8_000, 9_000]), now);
        let distance = known(trips.reach(OTHER, ONE, &within(10.0), now));
        assert!(distance.is_measured && distance.share > 0.99);
        trips.take(OTHER, measured(ONE, &[9_000, 70_000]), now);
        assert!(known(trips.reach(ONE, OTHER, &within(10.0), now)).share > 0.99);
        trips.take(OTHER, measured(ONE, &[60_000, 70_000]), now);
        let distance = known(trips.reach(ONE, OTHER, &within(10.0), now));
        assert!((0.6..0.7).contains(&distance.share) && (8.0..10.0).contains(&distance.milliseconds));
    }

    #[test]
    fn between_those_that_have_not_measured_each_other_it_is_foreseen_as_surely_as_they_are_of_their_places()
    {
        let (mut trips, now) = (RoundTrips::default(), Instant::now());
        trips.take(ONE, at(0.0, 0.1), now);
        assert_eq!(trips.reach(ONE, OTHER, &within(10.0), now), Reach::Unknown);
        trips.take(OTHER, at(18.0, 0.1), now);
        for (bound, share) in [(17.0, 0.0), (20.0, 0.5), (23.0, 1.0)] {
            let distance = known(trips.reach(ONE, OTHER, &within(bound), now));
            assert!((distance.milliseconds - 20.0).abs() < 1e-9 && !distance.is_measured);
            assert!((distance.share - share).abs() < 1e-9, "{bound}: {distance:?}");
        }
        trips.take(OTHER, at(18.0, 0.6), now);
        assert_eq!(trips.reach(ONE, OTHER, &within(100.0), now), Reach::Unknown);
    }

    #[test]
    fn what_nobody_has_said_for_long_is_not_known() {
        let (mut trips, now) = (RoundTrips::default(), Instant::now());
        trips.take(ONE, measured(OTHER, &[8_000]), now);
        assert_eq!(trips.reach(ONE, OTHER, &within(10.0), now + VALID), Reach::Unknown);
        trips.forget(ONE);
        assert_eq!(trips.reach(ONE, OTHER, &within(10.0), now), Reach::Unmeasured);
        assert!(known(trips.reach(ONE, ONE, &within(10.0), now)).share > 0.99);
    }

    #[test]
    fn what_cannot_be_is_left_out() {
        let (mut trips, now) = (RoundTrips::default(), Instant::now());
        let many = (0..200)
            .map(|number| Measured { node: Id::from_bytes([number; 12]), micros: vec![u32::MAX; 99] });
        trips.take(ONE, RttReport { measured: many.collect(), ..RttReport::default() }, now);
        assert!(trips.said[&ONE].measured.len() <= super::PEERS_MAX);
        assert_eq!(trips.reach(ONE, OTHER, &within(10.0), now), Reach::Unknown);
    }

    #[test]
    fn what_was_said_before_is_no_news_until_it_has_run_out() {
        let (mut trips, now) = (RoundTrips::default(), Instant::now());
        assert!(trips.take(ONE, measured(OTHER, &[8_000]), now));
        assert!(!trips.take(ONE, measured(OTHER, &[8_000]), now));
        assert!(trips.take(ONE, measured(OTHER, &[8_001]), now));
        assert!(trips.take(ONE, measured(OTHER, &[8_001]), now + VALID));
    }

    #[test]
    fn the_way_to_several_is_as_long_as_the_longest() {
        let (mut trips, now) = (RoundTrips::default(), Instant::now());
        let third = Id::from_bytes([3; 12]);
        trips.take(OTHER, measured(ONE, &[4_000]), now);
        trips.take(third, measured(ONE, &[30_000]), now);
        let ends = [OTHER, third].map(|worker| trips.end(worker, now));
        let worst = |ends: &[End]| trips.end(ONE, now).worst(ends, &within(10.0));
        assert!((known(worst(&ends)).milliseconds - 30.0).abs() < 1e-9);
        assert!((known(worst(&ends[..1])).milliseconds - 4.0).abs() < 1e-9);
        assert_eq!(worst(&[]), Reach::Anywhere);
    }
}
