//! Which of the workers that fit is taken.

use protocol::id::Id;

use super::reach;
use super::worker::{Request, Worker};

/// What speaks against a worker, by the name of each part: compared from the first to the last, the least is chosen. First of
/// all, round trips that take longer than the service asks for.
pub type Cost = [(&'static str, u64); 5];

/// A way to choose. Pure: the same request and worker have the same cost.
pub trait Algorithm: Sync {
    fn name(&self) -> &'static str;
    fn cost(&self, request: &Request, worker: &Worker) -> Cost;
}

/// The built-in ways to choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Placement {
    /// The worker with the most room, spread where there is a choice
    #[default]
    BestFit,
    /// As few instances of one service on one worker as can be, whatever room there is
    Spread,
    /// The closest to the place that the service names
    Nearest,
}

impl Placement {
    #[must_use]
    pub fn algorithm(self) -> &'static dyn Algorithm {
        match self {
            Self::BestFit => &BestFit,
            Self::Spread => &Spread,
            Self::Nearest => &Nearest,
        }
    }
}

/// "Best fit" in Oakestra's sense, the worker with the most room, but not at any price: workers whose memory would be
/// filled to the same quarter are taken as equals, among them one with fewer instances of the same service wins, then
/// the one that would be least full.
struct BestFit;

impl Algorithm for BestFit {
    fn name(&self) -> &'static str {
        "best fit"
    }

    fn cost(&self, request: &Request, worker: &Worker) -> Cost {
        [
            late(request, worker),
            ("quarters full", memory_used(request, worker).min(999) / 250),
            ("siblings", siblings(request, worker)),
            ("permille full", used(request, worker)),
            ("", 0),
        ]
    }
}

struct Spread;

impl Algorithm for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn cost(&self, request: &Request, worker: &Worker) -> Cost {
        [
            late(request, worker),
            ("siblings", siblings(request, worker)),
            ("permille full", used(request, worker)),
            ("", 0),
            ("", 0),
        ]
    }
}

/// After the distance, in steps of a tenth of what is allowed, as [`BestFit`].
struct Nearest;

impl Algorithm for Nearest {
    fn name(&self) -> &'static str {
        "nearest"
    }

    fn cost(&self, request: &Request, worker: &Worker) -> Cost {
        let tenths = request.near.iter().map(|near| {
            let away = worker.location.map_or(f64::INFINITY, |at| at.kilometres_to(near.location));
            whole(away / near.kilometres * 10.0, 1000)
        });
        let [late, quarters, siblings, full, _] = BestFit.cost(request, worker);
        [late, ("tenths of the way", tenths.sum()), quarters, siblings, full]
    }
}

/// Without a name where nothing is asked for.
fn late(request: &Request, worker: &Worker) -> (&'static str, u64) {
    if request.links.is_empty() { ("", 0) } else { ("tenths late", reach::tenths_late(request, worker)) }
}

/// A last tie goes to the smaller id, so that the same input has the same answer.
pub(super) fn order(algorithm: &dyn Algorithm, request: &Request, worker: &Worker) -> ([u64; 5], Id) {
    (algorithm.cost(request, worker).map(|(_, value)| value), worker.id)
}

/// Where it failed last counts as a sibling.
fn siblings(request: &Request, worker: &Worker) -> u64 {
    worker.siblings.saturating_add(u32::from(request.avoid == Some(worker.id))).into()
}

/// Permille of the memory that would be used.
fn memory_used(request: &Request, worker: &Worker) -> u64 {
    let total = worker.memory_total.max(1);
    let left = worker.memory_free().saturating_sub(request.memory);
    // Workers say how much memory they have, and may say anything.
    1000 - u64::try_from(1000 * u128::from(left.min(total)) / u128::from(total)).unwrap_or(1000)
}

/// Permille of the memory or the cores, whichever would be used more.
fn used(request: &Request, worker: &Worker) -> u64 {
    let placed = u64::from(worker.unreported.vcpus) + u64::from(request.vcpus);
    let cpu = whole(worker.cpu_percent * 10.0, 1000) + 1000 * placed / u64::from(worker.vcpus.max(1));
    memory_used(request, worker).max(cpu)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
pub(super) fn whole(value: f64, most: u32) -> u64 {
    value.clamp(0.0, f64::from(most)) as u64
}
