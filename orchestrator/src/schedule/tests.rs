use std::time::Duration;

use proptest::prelude::*;
use protocol::connectivity::Bound;
use protocol::constraint::Near;
use protocol::decision::SCORES_MAX;
use protocol::id::Id;

use super::{Choice, FILTERS, Link, Placement, Reach, Refusal, Request, RoundTrip, Share, Worker};

const MUNICH: &str = "48.137,11.575";
const BERLIN: &str = "52.520,13.405";

fn worker(number: u8) -> Worker {
    Worker {
        id: Id::from_bytes([number; 12]),
        host: format!("worker{number}"),
        responding: true,
        cordoned: false,
        vcpus: 4,
        vgpus: 0,
        virtualization: vec!["docker".to_owned()],
        architecture: "amd64".to_owned(),
        drivers: Vec::new(),
        addons: Vec::new(),
        location: None,
        cpu_percent: 10.0,
        memory_total: 8000,
        memory_available: 6000,
        disk_available: None,
        disk_promised: 0,
        committed: Share::default(),
        unreported: Share::default(),
        siblings: 0,
        reach: Vec::new(),
    }
}

fn request() -> Request {
    Request { memory: 100, vcpus: 1, virtualization: "docker".to_owned(), ..Request::default() }
}

fn near(place: &str, kilometres: f64) -> Vec<Near> {
    vec![Near { location: place.parse().unwrap(), kilometres, milliseconds: None }]
}

/// To the database, within 10 ms.
fn link(rigidness: f64) -> Link {
    let bound = Bound { milliseconds: 10.0, rigidness, convergence: Duration::ZERO };
    Link { target: "db".to_owned(), bound, wanted: bound.milliseconds }
}

fn known(milliseconds: f64, share: f64) -> Reach {
    Reach::Known(RoundTrip { milliseconds, share, is_measured: true })
}

fn choose(request: &Request, workers: &[Worker]) -> Choice {
    super::place(request, workers, Placement::BestFit.algorithm())
}

fn place(request: &Request, workers: &[Worker]) -> Option<usize> {
    choose(request, workers).chosen
}

#[test]
fn each_filter_refuses_says_why_and_what_would_help() {
    type Case = (&'static str, &'static str, fn(&mut Worker), fn(&mut Request));
    let cases: [Case; 18] = [
        ("silent (worker1)", "worker1 back", |worker| worker.responding = false, |_| {}),
        ("cordoned (worker1)", "hypha uncordon worker1", |worker| worker.cordoned = true, |_| {}),
        ("node (wants pi)", "another node: worker1", |_| {}, |request| request.nodes = vec!["pi".to_owned()]),
        (
            "runtime (wants wasm; there is docker)",
            "runtime wasm on worker1",
            |_| {},
            |request| request.virtualization = "wasm".to_owned(),
        ),
        (
            "arch (wants arm64 or riscv64; there is amd64)",
            "another arch: worker1",
            |_| {},
            |request| request.architectures = vec!["arm64".to_owned(), "riscv64".to_owned()],
        ),
        (
            "cpu (wants 5 cores; most is 4 on worker1)",
            "vcpus <= 4: worker1",
            |_| {},
            |request| request.vcpus = 5,
        ),
        (
            "gpu (wants 1 GPUs; most is 0 on worker1)",
            "vgpus <= 0: worker1",
            |_| {},
            |request| request.vgpus = 1,
        ),
        (
            "driver (wants nfs and s3)",
            "driver nfs and s3 on worker1",
            |worker| worker.drivers = vec!["nfs".to_owned()],
            |request| request.drivers = vec!["nfs".to_owned(), "s3".to_owned()],
        ),
        (
            "addon (wants FLOps)",
            "addon FLOps on worker1",
            |_| {},
            |request| request.addons = vec!["FLOps".to_owned()],
        ),
        (
            "distance (wants within 20 km of 48.137,11.575; it is not known where they are)",
            "--location for worker1",
            |_| {},
            |request| request.near = near(MUNICH, 20.0),
        ),
        (
            "distance (wants within 20 km of 48.137,11.575; worker1 is 485 km too far away)",
            "485 km more: worker1",
            |worker| worker.location = BERLIN.parse().ok(),
            |request| request.near = near(MUNICH, 20.0),
        ),
        (
            "distance (wants within 2 ms of 48.137,11.575; worker1 is 305 km too far away)",
            "305 km more: worker1",
            |worker| worker.location = BERLIN.parse().ok(),
            |request| {
                request.near = vec![Near { milliseconds: Some(2.0), ..near(MUNICH, 200.0)[0] }];
            },
        ),
        (
            "rtt (wants 10 ms to db; best is 42 ms on worker1)",
            "42 ms to db: worker1",
            |worker| worker.reach = vec![known(42.0, 0.0)],
            |request| request.links = vec![link(1.0)],
        ),
        (
            "rtt (wants 10 ms to db; best is 8.0 ms, 60 % of the time within on worker1)",
            "rigidness <= 0.6 to db: worker1",
            |worker| worker.reach = vec![known(8.0, 0.6)],
            |request| request.links = vec![link(0.7)],
        ),
        (
            "rtt (wants 10 ms to db; not known yet of worker1)",
            "a measured round trip: worker1",
            |worker| worker.reach = vec![Reach::Unknown],
            |request| request.links = vec![link(1.0)],
        ),
        (
            "disk (wants 500 MB free; most is 400 on worker1)",
            "storage <= 400: worker1",
            |worker| (worker.disk_available, worker.disk_promised) = (Some(1000), 600),
            |request| request.storage = 500,
        ),
        (
            "memory (wants 6001 MB free; most is 6000 on worker1)",
            "memory <= 6000: worker1",
            |_| {},
            |request| request.memory = 6001,
        ),
        (
            "memory (wants 100 MB free; most is 50 on worker1)",
            "memory <= 50: worker1",
            |worker| worker.unreported.memory = 5950,
            |_| {},
        ),
    ];
    for (reason, help, spoil_worker, spoil_request) in cases {
        let (mut worker, mut request) = (worker(1), request());
        assert_eq!(place(&request, std::slice::from_ref(&worker)), Some(0));
        spoil_worker(&mut worker);
        spoil_request(&mut request);
        let choice = choose(&request, &[worker]);
        assert_eq!(choice.chosen, None, "{reason}");
        let refusal = Refusal(&choice.decision).to_string();
        assert_eq!(refusal, format!("no worker fits (1 known): 1 {reason}"));
        assert_eq!(choice.decision.would_help, [help]);
    }
    assert_eq!(Refusal(&choose(&request(), &[]).decision).to_string(), "no worker has registered");
}

#[test]
fn what_would_help_is_what_is_wrong_with_somebody_alone() {
    let hopeless = Worker { cordoned: true, vcpus: 1, ..worker(1) };
    let small = Worker { memory_available: 1536, ..worker(2) };
    let far = Worker { location: BERLIN.parse().ok(), ..worker(3) };
    let at_hand = MUNICH.parse().ok();
    let workers = [Worker { location: at_hand, ..hopeless }, Worker { location: at_hand, ..small }, far];
    let request = Request { memory: 2048, vcpus: 2, near: near(MUNICH, 20.0), ..request() };
    let Choice { chosen, decision } = choose(&request, &workers);
    assert_eq!((chosen, decision.candidates), (None, 3));
    let counts: Vec<_> =
        decision.rejections.iter().map(|rejection| (&*rejection.filter, rejection.count)).collect();
    assert_eq!(counts, [("cordoned", 1), ("distance", 1), ("memory", 1)]);
    assert_eq!(decision.would_help, ["485 km more: worker3", "memory <= 1536: worker2"]);
}

#[test]
fn who_is_near_enough_comes_before_who_is_so_most_of_the_time_and_that_before_who_is_not_known() {
    let at = |number, reach| Worker { reach: vec![reach], ..worker(number) };
    let order = |rigidness, reaches: [Reach; 4]| {
        let workers: Vec<_> = (1..).zip(reaches).map(|(number, reach)| at(number, reach)).collect();
        let Choice { decision, .. } =
            choose(&Request { links: vec![link(rigidness)], ..request() }, &workers);
        decision.scores.into_iter().map(|score| score.worker).collect::<Vec<_>>()
    };
    let reaches = [Reach::Unknown, known(9.0, 0.8), known(4.0, 1.0), known(30.0, 0.0)];
    assert_eq!(order(0.0, reaches), ["worker3", "worker2", "worker1", "worker4"]);
    assert_eq!(order(0.7, reaches), ["worker3", "worker2", "worker1"]);
    assert_eq!(order(1.0, reaches), ["worker3"]);
    assert_eq!(order(1.0, [Reach::Anywhere; 4]).len(), 4);
    // What nobody measures is a wish.
    let unmeasured = [Reach::Unmeasured, known(9.0, 0.8), known(4.0, 1.0), Reach::Unknown];
    assert_eq!(order(1.0, unmeasured), ["worker3", "worker1"]);
    // The way that is worst speaks for all.
    let worst = |one: Reach, other| one.worse(other, &link(0.7).bound);
    assert_eq!(worst(known(4.0, 1.0), Reach::Unknown), Reach::Unknown);
    assert_eq!(worst(Reach::Unmeasured, Reach::Unknown), Reach::Unknown);
    assert_eq!(worst(Reach::Unknown, known(30.0, 0.0)), known(30.0, 0.0));
    assert_eq!(worst(Reach::Anywhere, known(4.0, 1.0)), known(4.0, 1.0));
}

#[test]
fn what_is_asked_for_and_there_is_no_obstacle() {
    let able = Worker {
        drivers: vec!["nfs".to_owned(), "s3".to_owned()],
        addons: vec!["FLOps".to_owned()],
        architecture: String::new(),
        location: "48.262,11.668".parse().ok(),
        ..worker(1)
    };
    let request = Request {
        drivers: vec!["s3".to_owned()],
        addons: vec!["FLOps".to_owned()],
        architectures: vec!["arm64".to_owned()],
        near: near(MUNICH, 20.0),
        ..request()
    };
    assert_eq!(place(&request, &[able]), Some(0), "a worker that does not say its architecture may have any");
}

#[test]
fn a_worker_that_boasts_harms_nobody() {
    let boaster = Worker { memory_total: u64::MAX, memory_available: u64::MAX, vcpus: u32::MAX, ..worker(2) };
    for placement in [Placement::BestFit, Placement::Spread, Placement::Nearest] {
        let workers = [worker(1), boaster.clone()];
        assert!(super::place(&request(), &workers, placement.algorithm()).chosen.is_some());
    }
}

#[test]
fn a_constraint_may_name_several_nodes() {
    let request = Request { nodes: vec!["worker2".to_owned(), "worker3".to_owned()], ..request() };
    assert_eq!(place(&request, &[worker(1), worker(2), worker(3)]), Some(1));
}

#[test]
fn the_worker_with_the_most_room_is_chosen() {
    let busy = Worker { cpu_percent: 95.0, ..worker(1) };
    assert_eq!(place(&request(), &[busy, worker(2)]), Some(1));
    let full = Worker { memory_available: 1000, ..worker(1) };
    assert_eq!(place(&request(), &[full, worker(2)]), Some(1));
}

#[test]
fn instances_of_one_service_are_spread_where_there_is_a_choice() {
    let crowded = Worker { siblings: 1, ..worker(1) };
    let busier = Worker { cpu_percent: 60.0, ..worker(2) };
    assert_eq!(place(&request(), &[crowded.clone(), busier]), Some(1));
    let nearly_full = Worker { memory_available: 150, ..worker(2) };
    let workers = [crowded, nearly_full];
    assert_eq!(place(&request(), &workers), Some(0), "spread at the price of a full worker");
    let spread = super::place(&request(), &workers, Placement::Spread.algorithm());
    assert_eq!(spread.chosen, Some(1), "who asked for it pays the price");
}

#[test]
fn the_nearest_is_chosen_where_a_place_is_named() {
    let far = Worker { location: BERLIN.parse().ok(), ..worker(1) };
    let close = Worker { location: "48.262,11.668".parse().ok(), memory_available: 500, ..worker(2) };
    let request = Request { near: near(MUNICH, 1000.0), ..request() };
    let workers = [far, close];
    assert_eq!(place(&request, &workers), Some(0), "the most room");
    let choice = super::place(&request, &workers, Placement::Nearest.algorithm());
    assert_eq!(choice.chosen, Some(1));
    let parts: Vec<_> =
        choice.decision.scores[1].parts.iter().map(|part| (&*part.name, part.value)).collect();
    assert_eq!(parts[0], ("tenths of the way", 5));
    assert_eq!(choice.decision.scores[0].worker, "worker2");
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

fn any_placement() -> impl Strategy<Value = Placement> {
    prop::sample::select(vec![Placement::BestFit, Placement::Spread, Placement::Nearest])
}

proptest! {
    #[test]
    fn nothing_is_ever_overcommitted(
        mut workers in prop::collection::vec(any_worker(), 0..8),
        wishes in prop::collection::vec((0..3000_u64, 0..8_u32), 0..60),
        placement in any_placement(),
    ) {
        let before = workers.clone();
        for (memory, vcpus) in wishes {
            let request = Request { memory, vcpus, ..request() };
            if let Some(chosen) = super::place(&request, &workers, placement.algorithm()).chosen {
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
        placement in any_placement(),
    ) {
        let request = Request { memory, ..request() };
        let mut workers = workers;
        workers.sort_by_key(|worker| worker.id);
        workers.dedup_by_key(|worker| worker.id);
        let chosen = |workers: &[Worker]| {
            super::place(&request, workers, placement.algorithm()).chosen.map(|index| workers[index].id)
        };
        let mut reversed = workers.clone();
        reversed.reverse();
        prop_assert_eq!(chosen(&reversed), chosen(&workers));
    }

    #[test]
    fn a_filter_that_is_not_asked_for_refuses_nobody(worker in any_worker()) {
        for filter in FILTERS.into_iter().filter(|filter| !filter.is_asked_for(&Request::default())) {
            prop_assert!(!filter.refuses(&Request::default(), &worker), "{filter:?}");
        }
    }

    #[test]
    fn every_worker_is_accounted_for(workers in prop::collection::vec(any_worker(), 0..8), memory in 0..9000_u64) {
        let decision = choose(&Request { memory, ..request() }, &workers).decision;
        let refused: u32 = decision.rejections.iter().map(|rejection| rejection.count).sum();
        let fit = workers.len() - refused as usize;
        prop_assert_eq!(decision.scores.len(), fit.min(SCORES_MAX));
        prop_assert_eq!(decision.chosen.is_none(), decision.scores.is_empty());
        prop_assert!(decision.chosen.is_none() || decision.would_help.is_empty());
    }
}
