//! How a report is made: how much it tells, what the last one has told, and what sums leave out.

use std::collections::{BTreeMap, BTreeSet};

use protocol::cluster::{Report, ReportedWorker, WorkerState};
use protocol::id::Id;
use serde_json::{Map, Value, json};

/// Places of workers that are told of.
pub(crate) const LOCATIONS_MAX: usize = 64;

/// How much a report tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// What has changed since the report that was answered with this number, which is the last one that was made.
    Since(u32),
}

impl Scope {
    pub(crate) const fn since(self) -> Option<u32> {
        match self {
            Self::All => None,
            Self::Since(number) => Some(number),
        }
    }
}

/// A report, and how much of what is gone it tells: the receipt for who made it.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) report: Report,
    pub(crate) departed: usize,
}

/// What the last report has told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    workers: BTreeMap<Id, ReportedWorker>,
    /// Services that have changed since.
    pub(crate) changed: BTreeSet<Id>,
}

impl Told {
    /// What a report says of workers: those that are told of, and the ids of those that are not known any more. All of them
    /// have been told then, and of all services what there is.
    pub(crate) fn tell(&mut self, scope: Scope, all: Vec<ReportedWorker>) -> (Vec<ReportedWorker>, Vec<Id>) {
        let ids: BTreeSet<Id> = all.iter().map(|worker| worker.id).collect();
        let (workers, forgotten) = match scope {
            Scope::All => (all.clone(), Vec::new()),
            Scope::Since(_) => (
                all.iter().filter(|worker| self.is_news(worker)).cloned().collect(),
                self.workers.keys().filter(|id| !ids.contains(id)).copied().collect(),
            ),
        };
        let told = all.into_iter().map(|worker| (worker.id, worker)).collect();
        *self = Self { workers: told, changed: BTreeSet::new() };
        (workers, forgotten)
    }

    /// For how long one is silent is no news while it is in time; of one that is not, it always is.
    fn is_news(&self, worker: &ReportedWorker) -> bool {
        worker.state != WorkerState::Ready
            || self
                .workers
                .get(&worker.id)
                .is_none_or(|told| *told != ReportedWorker { silent: told.silent, ..worker.clone() })
    }
}

pub(crate) fn distinct<'t>(texts: impl Iterator<Item = &'t str>) -> impl Iterator<Item = String> {
    let mut seen = BTreeSet::new();
    texts.filter(move |text| seen.insert(*text)).map(str::to_owned)
}

/// Keys that Oakestra's root expects and that nothing here fills yet.
pub(crate) fn other_keys() -> Map<String, Value> {
    let keys = json!({
        "gpu_percent": 0.0, "gpu_temp": 0.0, "gpu_drivers": null, "vram": 0, "vram_percent": 0.0,
        "cpu_history": [], "memory_history": [], "aggregation_per_architecture": {},
    });
    match keys {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}
