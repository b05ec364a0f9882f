//! The conditions that a worker must meet, and what is said of those that do not meet them.

use std::collections::BTreeSet;

use super::reach;
use super::worker::{Request, Worker};

/// A condition. They are applied in this order: what cannot be changed by waiting comes before what can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    Silent,
    Cordoned,
    Node,
    Runtime,
    Architecture,
    Cpu,
    Gpu,
    Driver,
    Addon,
    Distance,
    RoundTrip,
    Disk,
    Memory,
}

pub(super) const FILTERS: [Filter; 13] = [
    Filter::Silent,
    Filter::Cordoned,
    Filter::Node,
    Filter::Runtime,
    Filter::Architecture,
    Filter::Cpu,
    Filter::Gpu,
    Filter::Driver,
    Filter::Addon,
    Filter::Distance,
    Filter::RoundTrip,
    Filter::Disk,
    Filter::Memory,
];

/// Names in a sentence, at most.
const NAMES_MAX: usize = 3;

impl Filter {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Cordoned => "cordoned",
            Self::Node => "node",
            Self::Runtime => "runtime",
            Self::Architecture => "arch",
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Driver => "driver",
            Self::Addon => "addon",
            Self::Distance => "distance",
            Self::RoundTrip => "rtt",
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }

    /// Whether it may refuse a worker at all: most services ask for little.
    pub(super) fn is_asked_for(self, request: &Request) -> bool {
        match self {
            Self::Silent | Self::Cordoned | Self::Runtime => true,
            Self::Node => !request.nodes.is_empty(),
            Self::Architecture => !request.architectures.is_empty(),
            Self::Cpu => request.vcpus > 0,
            Self::Gpu => request.vgpus > 0,
            Self::Driver => !request.drivers.is_empty(),
            Self::Addon => !request.addons.is_empty(),
            Self::Distance => !request.near.is_empty(),
            Self::RoundTrip => !request.links.is_empty(),
            Self::Disk => request.storage > 0,
            Self::Memory => request.memory > 0,
        }
    }

    pub(super) fn refuses(self, request: &Request, worker: &Worker) -> bool {
        let lacks = |wanted: &[String], has: &[String]| !wanted.iter().all(|one| has.contains(one));
        match self {
            Self::Silent => !worker.responding,
            Self::Cordoned => worker.cordoned,
            Self::Node => !request.nodes.is_empty() && !request.nodes.contains(&worker.host),
            Self::Runtime => {
                let offered = &worker.virtualization;
                !offered.iter().any(|runtime| runtime.eq_ignore_ascii_case(&request.virtualization))
            }
            Self::Architecture => {
                let wanted = &request.architectures;
                !wanted.is_empty()
                    && !worker.architecture.is_empty()
                    && !wanted.contains(&worker.architecture)
            }
            Self::Cpu => worker.vcpus < request.vcpus,
            Self::Gpu => worker.vgpus < request.vgpus,
            Self::Driver => lacks(&request.drivers, &worker.drivers),
            Self::Addon => lacks(&request.addons, &worker.addons),
            Self::Distance => worker.too_far(&request.near).is_none_or(|excess| excess > 0.0),
            Self::RoundTrip => reach::is_too_far(request, worker),
            Self::Disk => worker.disk_free().is_some_and(|free| free < request.storage),
            Self::Memory => worker.memory_free() < request.memory,
        }
    }

    /// What was wanted, and which of those that were turned down comes closest.
    pub(super) fn detail(self, request: &Request, refused: &[&Worker]) -> String {
        let best = |amount: fn(&Worker) -> u64| refused.iter().max_by_key(|worker| amount(worker));
        let most = |wanted: u64, unit: &str, amount: fn(&Worker) -> u64| {
            let most = best(amount).map(|worker| format!("; most is {} on {}", amount(worker), worker.host));
            format!("wants {wanted} {unit}{}", most.unwrap_or_default())
        };
        let there_is = |what: fn(&Worker) -> Vec<&str>| {
            let all: BTreeSet<_> = refused.iter().flat_map(|worker| what(worker)).collect();
            let all: Vec<_> = all.into_iter().collect();
            if all.is_empty() { String::new() } else { format!("; there is {}", all.join(", ")) }
        };
        match self {
            Self::Silent | Self::Cordoned => names(refused),
            Self::Node => format!("wants {}", request.nodes.join(" or ")),
            Self::Runtime => {
                let offered = there_is(|worker| worker.virtualization.iter().map(String::as_str).collect());
                format!("wants {}{offered}", request.virtualization)
            }
            Self::Architecture => {
                let wanted = request.architectures.join(" or ");
                format!("wants {wanted}{}", there_is(|worker| vec![worker.architecture.as_str()]))
            }
            Self::Cpu => most(request.vcpus.into(), "cores", |worker| worker.vcpus.into()),
            Self::Gpu => most(request.vgpus.into(), "GPUs", |worker| worker.vgpus.into()),
            Self::Driver => format!("wants {}", request.drivers.join(" and ")),
            Self::Addon => format!("wants {}", request.addons.join(" and ")),
            Self::Distance => distance(request, refused),
            Self::RoundTrip => reach::detail(request, refused),
            Self::Disk => most(request.storage, "MB free", disk_free),
            Self::Memory => most(request.memory, "MB free", Worker::memory_free),
        }
    }

    /// The change that lets one of these have the instance, whom nothing else keeps from it.
    pub(super) fn change(self, request: &Request, only_refused: &[&Worker]) -> String {
        let most = |key: &str, amount: fn(&Worker) -> u64| {
            let best = only_refused.iter().max_by_key(|worker| amount(worker));
            best.map(|worker| format!("{key} <= {}: {}", amount(worker), worker.host)).unwrap_or_default()
        };
        let names = names(only_refused);
        match self {
            Self::Silent => format!("{names} back"),
            Self::Cordoned => format!("hypha uncordon {names}"),
            Self::Node => format!("another node: {names}"),
            Self::Runtime => format!("runtime {} on {names}", request.virtualization),
            Self::Architecture => format!("another arch: {names}"),
            Self::Cpu => most("vcpus", |worker| worker.vcpus.into()),
            Self::Gpu => most("vgpus", |worker| worker.vgpus.into()),
            Self::Driver => format!("driver {} on {names}", request.drivers.join(" and ")),
            Self::Addon => format!("addon {} on {names}", request.addons.join(" and ")),
            Self::Distance => match nearest(request, only_refused) {
                Some((worker, excess)) => format!("{excess:.0} km more: {}", worker.host),
                None => format!("--location for {names}"),
            },
            Self::RoundTrip => reach::change(request, only_refused),
            Self::Disk => most("storage", disk_free),
            Self::Memory => most("memory", Worker::memory_free),
        }
    }
}

/// Of one that says; others are not turned down.
fn disk_free(worker: &Worker) -> u64 {
    worker.disk_free().unwrap_or(0)
}

pub(super) fn names(workers: &[&Worker]) -> String {
    let mut names: Vec<_> = workers.iter().take(NAMES_MAX).map(|worker| worker.host.as_str()).collect();
    if workers.len() > NAMES_MAX {
        names.push("...");
    }
    names.join(", ")
}

fn distance(request: &Request, refused: &[&Worker]) -> String {
    let wanted = request.near.iter().map(|near| format!("within {near}"));
    let wanted = wanted.collect::<Vec<_>>().join(" and ");
    match nearest(request, refused) {
        Some((worker, excess)) => format!("wants {wanted}; {} is {excess:.0} km too far away", worker.host),
        None => format!("wants {wanted}; it is not known where they are"),
    }
}

/// Which of those whose place is known is the least too far away.
fn nearest<'w>(request: &Request, workers: &[&'w Worker]) -> Option<(&'w Worker, f64)> {
    let known = workers.iter().filter_map(|worker| Some((*worker, worker.too_far(&request.near)?.ceil())));
    known.min_by(|a, b| a.1.total_cmp(&b.1))
}
