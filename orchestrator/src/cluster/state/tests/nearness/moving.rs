//! What becomes of an instance that is too far from what it is to be near to.

use std::time::Duration;

use protocol::id::Id;
use protocol::rtt::{Measured, RttReport};
use protocol::status::Status;
use serde_json::{Value, json};

use super::super::world::{SERVICE, World};
use super::{ROUND_TRIPS, ask, db, deploy_db, measure, measured, measured_as, near_db, on, pass, web, why};
use crate::wish::Wish;

/// The first two rooms have changed places: what was near is far.
const CHANGED: [[u32; 3]; 3] = [[0, 31_000, 30_000], [31_000, 0, 400], [30_000, 400, 0]];

/// The database is on the second worker, and what is to be near to it on the first one.
fn pair(keys: &Value) -> World {
    pair_in(measured(), near_db(keys))
}

fn pair_in(mut world: World, mut first: Value) -> World {
    deploy_db(&mut world, "pi1");
    first["memory"] = json!(7000);
    let big = json!({ "memory": 7000, "job_name": "smp.bed.big.bed", "service_name": "big", "constraints": on("pi1") });
    world.deploy_described(Id::from_bytes([9; 12]), 0, &big);
    world.run(Duration::from_secs(5));
    world.deploy_with(0, &first);
    world.run(Duration::from_secs(5));
    assert_eq!(world.runs(&web(), 0), Some(0));
    world
}

#[test]
fn one_that_is_too_far_away_for_a_while_moves_where_it_is_near_enough_and_runs_all_the_time() {
    let mut world = pair(&json!({}));
    pass(&mut world, 15, &CHANGED);
    assert_eq!(world.runs(&web(), 0), Some(0), "not at once");
    pass(&mut world, 30, &CHANGED);
    assert_eq!(world.runs(&web(), 0), Some(2), "{:?}", world.detail(0));
    assert_eq!(world.status(0), Some(Status::Running));
    assert_eq!(world.runs(&db(), 0), Some(1), "the service that asks is the one that moves");
    assert_eq!(world.detail(0), "Running");
}

#[test]
fn one_that_was_to_move_and_finds_its_place_good_again_stays_for_good() {
    let mut world = pair(&json!({}));
    world.deaf(2, true);
    pass(&mut world, 30, &CHANGED);
    assert!(world.detail(0).contains("Waiting for the worker"), "it was to move: {}", world.detail(0));
    assert_eq!(world.runs(&web(), 0), Some(0));
    world.disconnect(2);
    pass(&mut world, 60, &ROUND_TRIPS);
    assert_eq!((world.runs(&web(), 0), world.status(0)), (Some(0), Some(Status::Running)));
    let record = &world.state.services[&SERVICE].instances[&0].record;
    assert_eq!((record.moving_from, record.document.worker_id), (None, Some(world.id(0))));
    assert!(record.address.is_some());
}

#[test]
fn it_is_borne_for_as_long_as_the_service_says_and_for_a_moment_in_any_case() {
    let mut world = pair(&json!({ "convergence_time": 300 }));
    pass(&mut world, 240, &CHANGED);
    assert_eq!(world.runs(&web(), 0), Some(0));
    pass(&mut world, 120, &CHANGED);
    assert_eq!(world.runs(&web(), 0), Some(2));

    let mut world = pair(&json!({}));
    for _ in 0..20 {
        pass(&mut world, 10, &CHANGED);
        pass(&mut world, 10, &ROUND_TRIPS);
    }
    assert_eq!(world.runs(&web(), 0), Some(0), "moments do not add up");
}

#[test]
fn one_that_is_nowhere_near_enough_stays_and_says_so_once_until_it_is_again() {
    let mut world = pair(&json!({}));
    let mut nowhere = CHANGED;
    // Near enough, but not clearly.
    (nowhere[1][2], nowhere[2][1]) = (9_000, 9_000);
    pass(&mut world, 60, &nowhere);
    assert_eq!(world.runs(&web(), 0), Some(0));
    let detail = world.detail(0);
    let told = "Running, but its round trip to db is 31 ms, wants 10 ms; stays: no worker fits";
    assert!(detail.starts_with(told), "{detail}");
    assert!(
        detail.contains("2 rtt (wants clearly less than 10 ms to db; best is 9.0 ms on pi2)"),
        "{detail}"
    );
    assert!(why(&world)[0].rejections.iter().any(|it| it.filter == "rtt"), "{:?}", why(&world)[0]);
    let kept = world.kept;
    pass(&mut world, 60, &nowhere);
    assert_eq!(world.kept, kept, "said once");
    world.restart();
    ask(&mut world, 3);
    pass(&mut world, 60, &nowhere);
    assert!(world.detail(0).starts_with(told), "after a restart of the cluster, too");
    pass(&mut world, 10, &ROUND_TRIPS);
    assert_eq!((world.detail(0).as_str(), world.status(0)), ("Running", Some(Status::Running)));
}

#[test]
fn where_near_and_far_change_again_and_again_it_moves_ever_more_seldom() {
    let mut world = pair(&json!({}));
    let (mut moves, mut at) = (0, Some(0));
    for round in 0..120 {
        pass(&mut world, 30, if round % 2 == 0 { &CHANGED } else { &ROUND_TRIPS });
        let now_at = world.runs(&web(), 0);
        moves += u32::from(now_at != at);
        at = now_at;
    }
    assert!((1..=7).contains(&moves), "{moves} moves in an hour");
}

#[test]
fn a_wish_is_followed_where_it_can_be_and_keeps_nobody_from_a_place() {
    let mut world = measured();
    deploy_db(&mut world, "pi2");
    world.deploy_with(0, &near_db(&json!({ "rigidness": 0 })));
    world.run(Duration::from_secs(5));
    assert_eq!(world.runs(&web(), 0), Some(2));
    let mut elsewhere = near_db(&json!({ "rigidness": 0 }));
    elsewhere["constraints"] = on("pi0");
    world.deploy_with(1, &elsewhere);
    world.run(Duration::from_secs(5));
    assert_eq!(world.runs(&web(), 1), Some(0));
}

#[test]
fn nothing_moves_on_account_of_a_worker_that_is_silent() {
    let mut keeps = near_db(&json!({}));
    keeps["on_disconnect"] = json!("keep");
    let mut world = pair_in(measured(), keeps);
    pass(&mut world, 10, &CHANGED);
    world.disconnect(0);
    pass(&mut world, 120, &CHANGED);
    let instance = &world.state.services[&SERVICE].instances[&0];
    assert_eq!((instance.worker(), instance.record.moving_from), (Some(world.id(0)), None));
    assert_eq!(world.runs(&web(), 0), Some(0));

    let mut world = pair(&json!({}));
    pass(&mut world, 10, &CHANGED);
    world.disconnect(1);
    pass(&mut world, 25, &CHANGED);
    assert_eq!((world.runs(&web(), 0), world.detail(0).as_str()), (Some(0), "Running"));
}

#[test]
fn it_moves_to_the_place_that_is_clearly_near_enough_and_not_to_one_that_barely_is() {
    let near = [
        [0, 400, 30_000, 30_000],
        [400, 0, 31_000, 31_000],
        [30_000, 31_000, 0, 400],
        [30_000, 31_000, 400, 0],
    ];
    let mut world = pair_in(measured_as(&near), near_db(&json!({})));
    let mut changed = near;
    for (one, other, micros) in [(0, 1, 31_000), (1, 2, 9_000), (1, 3, 5_000)] {
        (changed[one][other], changed[other][one]) = (micros, micros);
    }
    pass(&mut world, 45, &changed);
    assert_eq!(world.runs(&web(), 0), Some(3), "{}", world.detail(0));
    assert_eq!(why(&world)[0].chosen.as_deref(), Some("pi3"));
}

#[test]
fn one_that_is_near_enough_most_of_the_time_stays() {
    let mut world = pair(&json!({}));
    let slow = [400, 400, 400, 400, 400, 400, 30_000, 30_000];
    for _ in 0..24 {
        for (worker, other) in [(0, 1), (1, 0)] {
            let measured = vec![Measured { node: world.id(other), micros: slow.to_vec() }];
            let report = RttReport { measured, ..RttReport::default() };
            world.state.round_trips_known(world.id(worker), report, world.now);
        }
        world.run(Duration::from_secs(5));
    }
    assert_eq!(world.runs(&web(), 0), Some(0));
    assert!(world.detail(0).ends_with("stays: it is near enough most of the time"), "{}", world.detail(0));
}

#[test]
fn where_nobody_measures_it_is_a_wish_and_what_lacks_only_memory_may_go_elsewhere() {
    let mut world = World::with_workers(3);
    deploy_db(&mut world, "pi2");
    let mut wish = near_db(&json!({}));
    wish["constraints"] = on("pi1");
    world.deploy_with(0, &wish);
    world.run(Duration::from_secs(5));
    assert_eq!(world.runs(&web(), 0), Some(1));

    let mut world = measured();
    deploy_db(&mut world, "pi2");
    let mut big = near_db(&json!({}));
    (big["constraints"], big["memory"]) = (on("pi2"), json!(9000));
    world.deploy_with(0, &big);
    world.run(Duration::from_secs(5));
    assert_eq!(world.status(0), Some(Status::NoWorkerCapacity), "{}", world.detail(0));
}

#[test]
fn what_is_said_of_one_that_is_too_far_away_does_not_waver_and_ends_when_it_asks_for_nothing() {
    let mut world = pair(&json!({}));
    let mut nowhere = CHANGED;
    (nowhere[1][2], nowhere[2][1]) = (31_000, 31_000);
    pass(&mut world, 60, &nowhere);
    assert!(world.detail(0).starts_with("Running, but"), "{}", world.detail(0));
    world.state.wish(world.id(0), Wish::Drain).unwrap();
    pass(&mut world, 10, &nowhere);
    let kept = world.kept;
    pass(&mut world, 60, &nowhere);
    assert!(world.detail(0).starts_with("Stays on pi0, which is drained"), "{}", world.detail(0));
    assert_eq!(world.kept, kept);
    world.state.wish(world.id(0), Wish::Uncordon).unwrap();
    pass(&mut world, 60, &nowhere);
    assert!(world.detail(0).starts_with("Running, but"), "{}", world.detail(0));
    world.deploy_with(0, &json!({ "memory": 7000 }));
    assert_eq!(world.detail(0), "Running");
}

#[test]
fn when_a_target_becomes_far_those_that_ask_for_it_move_a_few_at_a_time() {
    let mut world = measured();
    deploy_db(&mut world, "pi1");
    let services: Vec<Id> = (0..6).map(|number| Id::from_bytes([100 + number; 12])).collect();
    for (number, id) in services.iter().enumerate() {
        let mut wish = near_db(&json!({}));
        wish["constraints"] = on("pi0;pi2");
        wish["job_name"] = json!(format!("smp.bed.web{number}.bed"));
        world.deploy_described(*id, 0, &wish);
    }
    world.run(Duration::from_secs(5));
    let on = |world: &World, worker: usize| {
        let at = Some(world.id(worker));
        services.iter().filter(|id| world.state.services[*id].instances[&0].worker() == at).count()
    };
    assert_eq!(on(&world, 0), 6);
    measure(&mut world, &CHANGED);
    let mut moved = 0;
    for _ in 0..120 {
        world.run(Duration::from_millis(500));
        let so_far = on(&world, 2);
        assert!(so_far <= moved + 2, "{moved}, and then {so_far}");
        moved = so_far;
    }
    assert_eq!(moved, 6);
}
