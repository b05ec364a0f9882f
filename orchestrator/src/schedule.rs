//! Where an instance runs: a pure function from a request and the workers as they are to one of them, or to the
//! reasons why none will do.
//!
//! **Filters.** A worker must be heard from, not be cordoned, be named by a `direct` constraint if there is one, offer the runtime, have
//! as many cores and GPUs as one instance wants, and have the memory free. Memory cannot be shared, so it is counted
//! twice over and the smaller result holds: what the worker measures as available less what was placed there and
//! does not show in the measurement yet, and what the machine has less what its instances asked for. A burst of
//! placements between two reports thus cannot overcommit. Cores can be shared: they are a limit for one instance, not
//! a budget, and only weigh in the choice (50 idle services of one core each do fit on two cores).
//!
//! **Choice.** "Best fit" in Oakestra's sense, the worker with the most room, but not at any price: workers whose
//! memory would be filled to the same quarter are taken as equals, among them one with fewer instances of the same
//! service wins, then the one that would be least full. A last tie goes to the smaller id, so that the same input has
//! the same answer.

use std::fmt;

use protocol::id::Id;

/// What one instance wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// MiB.
    pub memory: u64,
    pub vcpus: u32,
    pub vgpus: u32,
    pub virtualization: String,
    /// Host names from a `direct` constraint; empty: any.
    pub nodes: Vec<String>,
    /// Where it failed last. It may fail there again: as good a reason to go elsewhere as a sibling.
    pub avoid: Option<Id>,
}

/// A worker as placement sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    pub id: Id,
    pub host: String,
    /// Heard from within the worker timeout.
    pub responding: bool,
    /// It is to get nothing new, by the will of an operator.
    pub cordoned: bool,
    pub vcpus: u32,
    pub vgpus: u32,
    pub virtualization: Vec<String>,
    /// 0 to 100, measured.
    pub cpu_percent: f64,
    /// MiB the machine has.
    pub memory_total: u64,
    /// MiB available, measured.
    pub memory_available: u64,
    /// What all instances placed here asked for.
    pub committed: Share,
    /// The part of `committed` that the measurements cannot show yet.
    pub unreported: Share,
    /// Instances here of the service that is being placed.
    pub siblings: u32,
}

/// An amount of what a machine has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// MiB.
    pub memory: u64,
    pub vcpus: u32,
}

impl Share {
    pub fn add(&mut self, other: Self) {
        self.memory = self.memory.saturating_add(other.memory);
        self.vcpus = self.vcpus.saturating_add(other.vcpus);
    }
}

impl Worker {
    /// MiB that may still be given out.
    #[must_use]
    pub fn memory_free(&self) -> u64 {
        let by_measurement = self.memory_available.saturating_sub(self.unreported.memory);
        let by_request = self.memory_total.saturating_sub(self.committed.memory);
        by_measurement.min(by_request)
    }

    /// Counts `request` as placed here.
    pub fn reserve(&mut self, request: &Request) {
        let share = Share { memory: request.memory, vcpus: request.vcpus };
        self.committed.add(share);
        self.unreported.add(share);
        self.siblings += 1;
    }

    fn refuses(&self, request: &Request) -> Option<Filter> {
        let offers = |runtime: &String| runtime.eq_ignore_ascii_case(&request.virtualization);
        let refusals = [
            (!self.responding, Filter::Silent),
            (self.cordoned, Filter::Cordoned),
            (!request.nodes.is_empty() && !request.nodes.contains(&self.host), Filter::Node),
            (!self.virtualization.iter().any(offers), Filter::Virtualization),
            (self.vcpus < request.vcpus, Filter::Cpu),
            (self.vgpus < request.vgpus, Filter::Gpu),
            (self.memory_free() < request.memory, Filter::Memory),
        ];
        refusals.into_iter().find_map(|(refused, filter)| refused.then_some(filter))
    }

    /// How little this worker is wanted: compared part by part, the smallest is chosen.
    fn cost(&self, request: &Request) -> (u64, u32, u64, Id) {
        let total = self.memory_total.max(1);
        let left = self.memory_free().saturating_sub(request.memory);
        // Workers say how much memory they have, and may say anything.
        let memory_used =
            1000 - u64::try_from(1000 * u128::from(left.min(total)) / u128::from(total)).unwrap_or(1000);
        let measured = permille(self.cpu_percent);
        let placed = u64::from(self.unreported.vcpus) + u64::from(request.vcpus);
        let cpu_used = measured + 1000 * placed / u64::from(self.vcpus.max(1));
        let siblings = self.siblings.saturating_add(u32::from(request.avoid == Some(self.id)));
        (memory_used.min(999) / 250, siblings, memory_used.max(cpu_used), self.id)
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000 before")]
fn permille(percent: f64) -> u64 {
    (percent * 10.0).clamp(0.0, 1000.0) as u64
}

/// A condition that a worker did not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Filter {
    Silent,
    Cordoned,
    Node,
    Virtualization,
    Cpu,
    Gpu,
    Memory,
}

/// Why no worker will do: how many fell at which filter, the first that each did not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    request: Request,
    workers: usize,
    counts: [usize; 7],
    most_memory: u64,
    most_vcpus: u32,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.workers == 0 {
            return f.write_str("no worker has registered");
        }
        let Request { memory, vcpus, vgpus, virtualization, nodes, avoid: _ } = &self.request;
        write!(f, "no worker fits ({} known)", self.workers)?;
        let mut separator = ": ";
        for (filter, count) in FILTERS.into_iter().zip(self.counts) {
            if count == 0 {
                continue;
            }
            f.write_str(separator)?;
            separator = ", ";
            match filter {
                Filter::Silent => write!(f, "{count} not responding"),
                Filter::Cordoned => write!(f, "{count} cordoned"),
                Filter::Node => write!(f, "{count} not named by the constraint ({})", nodes.join(";")),
                Filter::Virtualization => write!(f, "{count} without runtime {virtualization}"),
                Filter::Cpu => write!(f, "{count} with too few cores ({} of {vcpus})", self.most_vcpus),
                Filter::Gpu => write!(f, "{count} with too few GPUs (of {vgpus})"),
                Filter::Memory => {
                    write!(f, "{count} with too little memory ({} of {memory} MiB free)", self.most_memory)
                }
            }?;
        }
        Ok(())
    }
}

const FILTERS: [Filter; 7] = [
    Filter::Silent,
    Filter::Cordoned,
    Filter::Node,
    Filter::Virtualization,
    Filter::Cpu,
    Filter::Gpu,
    Filter::Memory,
];

/// Chooses a worker, as its index in `workers`.
///
/// # Errors
/// The reasons, when none fits.
pub fn place(request: &Request, workers: &[Worker]) -> Result<usize, Box<Refusal>> {
    let mut refusal = Box::new(Refusal {
        request: request.clone(),
        workers: workers.len(),
        counts: [0; 7],
        most_memory: 0,
        most_vcpus: 0,
    });
    let mut best = None;
    for (index, worker) in workers.iter().enumerate() {
        match worker.refuses(request) {
            None => {
                let cost = worker.cost(request);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, index));
                }
            }
            Some(filter) => {
                refusal.counts[filter as usize] += 1;
                match filter {
                    Filter::Memory => refusal.most_memory = refusal.most_memory.max(worker.memory_free()),
                    Filter::Cpu => refusal.most_vcpus = refusal.most_vcpus.max(worker.vcpus),
                    _ => {}
                }
            }
        }
    }
    best.map(|(_, index)| index).ok_or(refusal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::id::Id;

    use super::{Request, Share, Worker, place};

    fn worker(number: u8) -> Worker {
        Worker {
            id: Id::from_bytes([number; 12]),
            host: format!("worker{number}"),
            responding: true,
            cordoned: false,
            vcpus: 4,
            vgpus: 0,
            virtualization: vec!["docker".to_owned()],
            cpu_percent: 10.0,
            memory_total: 8000,
            memory_available: 6000,
            committed: Share::default(),
            unreported: Share::default(),
            siblings: 0,
        }
    }

    fn request() -> Request {
        Request {
            memory: 100,
            vcpus: 1,
            vgpus: 0,
            virtualization: "docker".to_owned(),
            nodes: Vec::new(),
            avoid: None,
        }
    }

    #[test]
    fn each_filter_refuses_and_is_named() {
        type Case = (&'static str, fn(&mut Worker), fn(&mut Request));
        let cases: [Case; 7] = [
            ("1 not responding", |worker| worker.responding = false, |_| {}),
            ("1 not named by the constraint (pi)", |_| {}, |request| request.nodes = vec!["pi".to_owned()]),
            ("1 without runtime wasm", |_| {}, |request| request.virtualization = "wasm".to_owned()),
            ("1 with too few cores (4 of 5)", |_| {}, |request| request.vcpus = 5),
            ("1 with too few GPUs (of 1)", |_| {}, |request| request.vgpus = 1),
            ("1 with too little memory (6000 of 6001 MiB free)", |_| {}, |request| request.memory = 6001),
            (
                "1 with too little memory (50 of 100 MiB free)",
                |worker| worker.unreported.memory = 5950,
                |_| {},
            ),
        ];
        for (reason, spoil_worker, spoil_request) in cases {
            let (mut worker, mut request) = (worker(1), request());
            assert_eq!(place(&request, std::slice::from_ref(&worker)), Ok(0));
            spoil_worker(&mut worker);
            spoil_request(&mut request);
            let refusal = place(&request, &[worker]).unwrap_err();
            assert_eq!(refusal.to_string(), format!("no worker fits (1 known): {reason}"));
        }
        assert_eq!(place(&request(), &[]).unwrap_err().to_string(), "no worker has registered");
    }

    #[test]
    fn a_worker_that_boasts_harms_nobody() {
        let boaster =
            Worker { memory_total: u64::MAX, memory_available: u64::MAX, vcpus: u32::MAX, ..worker(2) };
        assert!(place(&request(), &[worker(1), boaster]).is_ok());
    }

    #[test]
    fn a_constraint_may_name_several_nodes() {
        let request = Request { nodes: vec!["worker2".to_owned(), "worker3".to_owned()], ..request() };
        assert_eq!(place(&request, &[worker(1), worker(2), worker(3)]), Ok(1));
    }

    #[test]
    fn the_worker_with_the_most_room_is_chosen() {
        let busy = Worker { cpu_percent: 95.0, ..worker(1) };
        assert_eq!(place(&request(), &[busy, worker(2)]), Ok(1));
        let full = Worker { memory_available: 1000, ..worker(1) };
        assert_eq!(place(&request(), &[full, worker(2)]), Ok(1));
    }

    #[test]
    fn instances_of_one_service_are_spread_where_there_is_a_choice() {
        let crowded = Worker { siblings: 1, ..worker(1) };
        let busier = Worker { cpu_percent: 60.0, ..worker(2) };
        assert_eq!(place(&request(), &[crowded.clone(), busier]), Ok(1));
        let nearly_full = Worker { memory_available: 150, ..worker(2) };
        assert_eq!(place(&request(), &[crowded, nearly_full]), Ok(0), "spread at the price of a full worker");
    }

    #[test]
    fn a_burst_is_spread_evenly() {
        let mut workers = [worker(1), worker(2)];
        for _ in 0..50 {
            let chosen = place(&request(), &workers).unwrap();
            workers[chosen].reserve(&request());
        }
        assert_eq!(workers.map(|worker| worker.siblings), [25, 25]);
    }

    prop_compose! {
        fn any_worker()(
            number in 0..=255_u8,
            responding in prop::bool::weighted(0.9),
            vcpus in 0..16_u32,
            cpu_percent in -5.0..150.0_f64,
            memory_total in 0..10_000_u64,
            memory_available in 0..12_000_u64,
            committed in 0..4000_u64,
            siblings in 0..5_u32,
        ) -> Worker {
            let committed = Share { memory: committed, vcpus: 0 };
            Worker { responding, vcpus, cpu_percent, memory_total, memory_available, committed, siblings,
                     ..worker(number) }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_ever_overcommitted(
            mut workers in prop::collection::vec(any_worker(), 0..8),
            wishes in prop::collection::vec((0..3000_u64, 0..8_u32), 0..60),
        ) {
            let before = workers.clone();
            for (memory, vcpus) in wishes {
                let request = Request { memory, vcpus, ..request() };
                if let Ok(chosen) = place(&request, &workers) {
                    prop_assert!(workers[chosen].responding);
                    prop_assert!(workers[chosen].vcpus >= vcpus);
                    workers[chosen].reserve(&request);
                }
            }
            for (before, after) in before.iter().zip(&workers) {
                let placed = after.unreported.memory;
                prop_assert!(placed <= before.memory_available);
                prop_assert!(placed == 0 || before.committed.memory + placed <= before.memory_total);
            }
        }

        #[test]
        fn the_order_of_the_workers_does_not_matter(
            workers in prop::collection::vec(any_worker(), 1..8),
            memory in 0..3000_u64,
        ) {
            let request = Request { memory, ..request() };
            let mut workers = workers;
            workers.sort_by_key(|worker| worker.id);
            workers.dedup_by_key(|worker| worker.id);
            let chosen = place(&request, &workers).ok().map(|index| workers[index].id);
            let mut reversed = workers.clone();
            reversed.reverse();
            prop_assert_eq!(place(&request, &reversed).ok().map(|index| reversed[index].id), chosen);
            prop_assert_eq!(place(&request, &workers).ok().map(|index| workers[index].id), chosen);
        }

        #[test]
        fn a_refusal_accounts_for_every_worker(workers in prop::collection::vec(any_worker(), 0..8)) {
            let request = Request { memory: 9000, ..request() };
            if let Err(refusal) = place(&request, &workers) {
                prop_assert_eq!(refusal.counts.iter().sum::<usize>(), workers.len());
            }
        }
    }
}
