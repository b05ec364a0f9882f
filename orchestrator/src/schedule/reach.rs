//! How far a worker is from what a service is to be near to, by the time of a round trip, and what is said of it.

use std::fmt::Write as _;

use protocol::connectivity::Bound;

use super::filter::names;
use super::worker::{Request, Worker};

/// What is asked of the way to all instances of another service.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Its name, for people.
    pub target: String,
    pub bound: Bound,
    /// The milliseconds that the service asks for, of which the bound may be a part.
    pub wanted: f64,
}

/// What is known of a way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reach {
    /// There is nothing to be near to.
    Anywhere,
    Unknown,
    /// Neither end measures anything, so that it will not be known.
    Unmeasured,
    Known(RoundTrip),
}

/// See [`Reach`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundTrip {
    /// As usual.
    pub milliseconds: f64,
    /// 0 to 1: the part of the latest ones that takes no longer than is asked for.
    pub share: f64,
    /// Else it is foreseen.
    pub is_measured: bool,
}

impl RoundTrip {
    /// Whether it is not what is asked for.
    #[must_use]
    pub fn violates(&self, bound: &Bound) -> bool {
        self.share < bound.rigidness
    }

    /// `42 ms`; `about 42 ms` where it is foreseen.
    #[must_use]
    pub fn describe(&self, bound: &Bound) -> String {
        let about = if self.is_measured { "" } else { "about " };
        let mut text = format!("{about}{}", milliseconds(self.milliseconds));
        if self.milliseconds <= bound.milliseconds {
            let _infallible = write!(text, ", {:.0} % of the time within", self.share * 100.0);
        }
        text
    }
}

impl Reach {
    /// That of two which speaks more against a place.
    #[must_use]
    pub fn worse(self, other: Self, bound: &Bound) -> Self {
        if self.gravity(bound) >= other.gravity(bound) { self } else { other }
    }

    /// What is not known is worse than what is as it should be, and better than what is not.
    fn gravity(self, bound: &Bound) -> (f64, f64) {
        match self {
            Self::Anywhere => (-1.0, 0.0),
            Self::Unknown => (1.0 - bound.rigidness, f64::INFINITY),
            Self::Unmeasured => (1.0 - bound.rigidness, f64::MAX),
            Self::Known(trip) => (1.0 - trip.share, trip.milliseconds),
        }
    }

    fn keeps_away(self, bound: &Bound, only_known: bool) -> bool {
        match self {
            Self::Anywhere => false,
            Self::Unknown => only_known || bound.rigidness >= 1.0,
            // It would be waited for in vain.
            Self::Unmeasured => only_known,
            Self::Known(trip) => trip.violates(bound),
        }
    }

    fn trip(self) -> Option<RoundTrip> {
        match self {
            Self::Known(trip) => Some(trip),
            Self::Anywhere | Self::Unknown | Self::Unmeasured => None,
        }
    }
}

/// `0.4 ms`, `42 ms`.
#[must_use]
pub fn milliseconds(number: f64) -> String {
    if number < 10.0 { format!("{number:.1} ms") } else { format!("{number:.0} ms") }
}

pub(super) fn is_too_far(request: &Request, worker: &Worker) -> bool {
    ways(request, worker).any(|(link, reach)| reach.keeps_away(&link.bound, request.only_known))
}

/// In tenths, summed over the ways: how much of the time it takes longer than it should. What is not known is the worst.
pub(super) fn tenths_late(request: &Request, worker: &Worker) -> u64 {
    let tenths = ways(request, worker).map(|(_, reach)| match reach {
        Reach::Anywhere => 0,
        Reach::Unknown | Reach::Unmeasured => 10,
        Reach::Known(trip) => super::algorithm::whole((1.0 - trip.share) * 10.0, 10),
    });
    tenths.sum()
}

fn ways<'a>(request: &'a Request, worker: &'a Worker) -> impl Iterator<Item = (&'a Link, Reach)> {
    request.links.iter().zip(worker.reach.iter().copied())
}

/// What was wanted, and which of those that were turned down comes closest.
pub(super) fn detail(request: &Request, refused: &[&Worker]) -> String {
    let mut parts = Vec::new();
    for (index, Link { target, bound, wanted }) in request.links.iter().enumerate() {
        let reach = |worker: &&&Worker| worker.reach.get(index).copied();
        let too_far: Vec<_> = refused
            .iter()
            .filter(|worker| reach(worker).is_some_and(|it| it.keeps_away(bound, request.only_known)))
            .copied()
            .collect();
        if too_far.is_empty() {
            continue;
        }
        let clearly = if bound.milliseconds < *wanted { "clearly less than " } else { "" };
        let mut text = format!("wants {clearly}{wanted} ms to {target}");
        if let Some((worker, trip)) = closest(&too_far, index) {
            let _infallible = write!(text, "; best is {} on {}", trip.describe(bound), worker.host);
        }
        let is_unknown = |reach: Option<Reach>| matches!(reach, Some(Reach::Unknown | Reach::Unmeasured));
        let unknown: Vec<_> = too_far.iter().filter(|worker| is_unknown(reach(worker))).copied().collect();
        if !unknown.is_empty() {
            let _infallible = write!(text, "; not known yet of {}", names(&unknown));
        }
        parts.push(text);
    }
    parts.join(" and ")
}

/// The change that lets one of these have the instance.
pub(super) fn change(request: &Request, only_refused: &[&Worker]) -> String {
    let keeps_away = |index: usize, worker: &Worker| {
        let reach = worker.reach.get(index).copied();
        reach.is_some_and(|reach| reach.keeps_away(&request.links[index].bound, request.only_known))
    };
    for (index, Link { target, bound, .. }) in request.links.iter().enumerate() {
        // Of those that only this way keeps from it.
        let others = |worker: &Worker| {
            (0..request.links.len()).any(|other| other != index && keeps_away(other, worker))
        };
        let only: Vec<_> = only_refused.iter().filter(|worker| !others(worker)).copied().collect();
        if let Some((worker, trip)) = closest(&only, index) {
            return if trip.milliseconds > bound.milliseconds {
                format!("{} to {target}: {}", milliseconds(trip.milliseconds), worker.host)
            } else {
                format!("rigidness <= {:.1} to {target}: {}", (trip.share * 10.0).floor() / 10.0, worker.host)
            };
        }
    }
    format!("a measured round trip: {}", names(only_refused))
}

fn closest<'w>(workers: &[&'w Worker], index: usize) -> Option<(&'w Worker, RoundTrip)> {
    let known = workers.iter().filter_map(|worker| Some((*worker, worker.reach.get(index)?.trip()?)));
    known.min_by(|(_, a), (_, b)| b.share.total_cmp(&a.share).then(a.milliseconds.total_cmp(&b.milliseconds)))
}
