//! Where an instance runs: a pure function from a request and the workers as they are to one of them, or to the
//! reasons why none will do.
//!
//! **Filters** ([`filter`]). A worker must be heard from, not be cordoned, be named by a `direct` constraint if there is
//! one, offer the runtime, the architecture, the drivers and the addons, be near enough on the map and by the round trips to
//! other services' instances ([`reach`]), have as many cores and GPUs as
//! one instance wants, and have the disk and the memory free. Memory cannot be shared, so it is counted twice over and the smaller
//! result holds: what the worker measures as available less what was placed there and does not show in the measurement
//! yet, and what the machine has less what its instances asked for. A burst of placements between two reports thus cannot
//! overcommit. Cores can be shared: they are a limit for one instance, not a budget, and only weigh in the choice (50 idle
//! services of one core each do fit on two cores).
//!
//! Of the disk, too, what was promised and is not taken up yet is not free; a worker that does not say how much it has is
//! taken at its word.
//!
//! **Choice** ([`algorithm`]). Among those that fit, as the cluster was told to choose.

mod algorithm;
mod filter;
mod reach;
mod worker;

use std::fmt;

use protocol::decision::{Decision, Part, Rejection, SCORES_MAX, Score};

pub use self::algorithm::{Algorithm, Cost, Placement};
use self::filter::{FILTERS, Filter};
pub use self::reach::{Link, Reach, RoundTrip, milliseconds};
pub use self::worker::{Request, Share, Worker};

/// What came of looking for a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The index of the chosen worker.
    pub chosen: Option<usize>,
    /// All but when it was made.
    pub decision: Decision,
}

/// Chooses a worker.
#[must_use]
pub fn place(request: &Request, workers: &[Worker], algorithm: &dyn Algorithm) -> Choice {
    let mut fitting = Vec::new();
    // Of each filter, whom it turned down as the first, and as the only one.
    let mut first: [Vec<&Worker>; FILTERS.len()] = Default::default();
    let mut only: [Vec<&Worker>; FILTERS.len()] = Default::default();
    let asked: Vec<_> = (0..FILTERS.len()).filter(|filter| FILTERS[*filter].is_asked_for(request)).collect();
    for (index, worker) in workers.iter().enumerate() {
        let mut refusing = asked.iter().copied().filter(|filter| FILTERS[*filter].refuses(request, worker));
        match (refusing.next(), refusing.next()) {
            (None, _) => fitting.push((algorithm::order(algorithm, request, worker), index)),
            (Some(filter), more) => {
                first[filter].push(worker);
                if more.is_none() {
                    only[filter].push(worker);
                }
            }
        }
    }
    // Who comes after those that are told of does not matter.
    if fitting.len() > SCORES_MAX {
        fitting.select_nth_unstable(SCORES_MAX);
        fitting.truncate(SCORES_MAX);
    }
    fitting.sort_unstable();
    let chosen = fitting.first().map(|(_, index)| *index);
    let turned_down = first.iter().zip(FILTERS).filter(|(workers, _)| !workers.is_empty());
    let rejections = turned_down.map(|(workers, filter)| Rejection {
        filter: filter.word().into(),
        count: u32::try_from(workers.len()).unwrap_or(u32::MAX),
        detail: filter.detail(request, workers),
    });
    let changes = only.iter().zip(FILTERS).filter(|(workers, _)| !workers.is_empty() && chosen.is_none());
    let score = |worker: &Worker| Score {
        worker: worker.host.clone(),
        parts: algorithm
            .cost(request, worker)
            .into_iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, value)| Part { name: name.into(), value })
            .collect(),
    };
    let decision = Decision {
        at: 0.0,
        times: 1,
        algorithm: algorithm.name().into(),
        candidates: u32::try_from(workers.len()).unwrap_or(u32::MAX),
        chosen: chosen.map(|index| workers[index].host.clone()),
        rejections: rejections.collect(),
        scores: fitting.iter().map(|(_, index)| score(&workers[*index])).collect(),
        would_help: changes.map(|(workers, filter)| filter.change(request, workers)).collect(),
    };
    Choice { chosen, decision }
}

/// Whether the way to what it is to be near to keeps an instance from any worker.
#[must_use]
pub fn lacks_nearness(decision: &Decision) -> bool {
    decision.rejections.iter().any(|rejection| rejection.filter == Filter::RoundTrip.word())
}

/// Why no worker will do, in a sentence.
#[derive(Debug)]
pub struct Refusal<'d>(pub &'d Decision);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { candidates, rejections, .. } = self.0;
        if *candidates == 0 {
            return f.write_str("no worker has registered");
        }
        write!(f, "no worker fits ({candidates} known)")?;
        for (index, Rejection { filter, count, detail }) in rejections.iter().enumerate() {
            let separator = if index == 0 { ":" } else { "," };
            write!(f, "{separator} {count} {filter} ({detail})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
