//! Services that are to be near each other.

mod measuring;
mod moving;

use std::time::Duration;

use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::rtt::{Measured, RttReport};
use protocol::status::Status;
use serde_json::{Value, json};

use super::world::{SERVICE, World};
use crate::wish::Wish;

const DB: Id = Id::from_bytes([8; 12]);
/// Three workers: the first two are in one room, the third is in another town.
const ROUND_TRIPS: [[u32; 3]; 3] = [[0, 400, 30_000], [400, 0, 31_000], [30_000, 31_000, 0]];

fn db() -> ServiceName {
    "smp.bed.db.bed".parse().unwrap()
}

fn web() -> ServiceName {
    super::world::name()
}

fn near_db(keys: &Value) -> Value {
    let mut constraint = json!({ "type": "latency", "threshold": 10, "rigidness": 1, "convergence_time": 0 });
    for (key, value) in keys.as_object().unwrap() {
        constraint[key] = value.clone();
    }
    json!({ "connectivity": [{ "target_microservice_id": "db", "con_constraints": [constraint] }] })
}

fn on(host: &str) -> Value {
    json!([{ "type": "direct", "node": host }])
}

/// Places the instance of `db` on the worker of this name.
fn deploy_db(world: &mut World, host: &str) {
    let keys = json!({ "job_name": db(), "service_name": "db", "constraints": on(host) });
    world.deploy_described(DB, 0, &keys);
    world.run(Duration::from_secs(5));
    assert!(world.runs(&db(), 0).is_some());
}

/// Each measures those that it was told to, and says what it has found.
fn measure<const N: usize>(world: &mut World, round_trips: &[[u32; N]; N]) {
    for (worker, row) in round_trips.iter().enumerate() {
        let others =
            (0..N).filter(|other| world.peers(worker).iter().any(|peer| peer.node == world.id(*other)));
        let measured = others.map(|other| Measured { node: world.id(other), micros: vec![row[other]; 8] });
        let report = RttReport { measured: measured.collect(), ..RttReport::default() };
        world.state.round_trips_known(world.id(worker), report, world.now);
    }
    world.settle();
}

/// All have asked whom to measure, and have measured.
fn measured() -> World {
    measured_as(&ROUND_TRIPS)
}

fn measured_as<const N: usize>(round_trips: &[[u32; N]; N]) -> World {
    let mut world = World::with_workers(u8::try_from(N).unwrap());
    ask(&mut world, N);
    measure(&mut world, round_trips);
    world
}

fn ask(world: &mut World, count: usize) {
    for worker in 0..count {
        let asks = RttReport { asks: true, ..RttReport::default() };
        world.state.round_trips_known(world.id(worker), asks, world.now);
        world.settle();
    }
    world.run(Duration::from_secs(10));
}

/// So much time passes, while the workers measure this.
fn pass<const N: usize>(world: &mut World, seconds: u64, round_trips: &[[u32; N]; N]) {
    for _ in 0..seconds / 5 {
        measure(world, round_trips);
        world.run(Duration::from_secs(5));
    }
}

fn why(world: &World) -> Vec<protocol::decision::Decision> {
    world.state.decisions(SERVICE).unwrap().instances[&0].clone()
}

#[test]
fn an_instance_is_placed_where_the_round_trip_is_short_enough_whichever_of_the_two_comes_first() {
    for host in ["pi0", "pi1", "pi2"] {
        let mut world = measured();
        deploy_db(&mut world, host);
        let db_at = world.runs(&db(), 0).unwrap();
        (0..4).for_each(|number| world.deploy_with(number, &near_db(&json!({}))));
        world.run(Duration::from_secs(5));
        for number in 0..4 {
            let web_at = world.runs(&web(), number).unwrap();
            assert!(ROUND_TRIPS[web_at][db_at] < 10_000, "{host}: {number} is on {web_at}");
        }
    }
    for host in ["pi0", "pi2"] {
        let mut world = measured();
        let mut wish = near_db(&json!({}));
        wish["constraints"] = on(host);
        world.deploy_with(0, &wish);
        world.run(Duration::from_secs(10));
        for number in 0..4 {
            world.deploy_described(DB, number, &json!({ "job_name": db(), "service_name": "db" }));
        }
        world.run(Duration::from_secs(5));
        let web_at = world.runs(&web(), 0).unwrap();
        for number in 0..4 {
            let db_at = world.runs(&db(), number).unwrap();
            assert!(ROUND_TRIPS[web_at][db_at] < 10_000, "{host}: {number} is on {db_at}");
        }
    }
}

#[test]
fn where_nowhere_is_near_enough_it_waits_here_and_says_what_there_is() {
    let mut world = measured();
    deploy_db(&mut world, "pi2");
    let mut wish = near_db(&json!({}));
    wish["constraints"] = json!([{ "type": "direct", "node": "pi0;pi1" }]);
    world.deploy_with(0, &wish);
    world.run(Duration::from_secs(5));
    assert_eq!(world.status(0), Some(Status::ClusterScheduled), "it is not offered to other clusters");
    let detail = world.detail(0);
    assert!(detail.contains("2 rtt (wants 10 ms to db; best is 30 ms on pi0)"), "{detail}");
    assert_eq!(why(&world)[0].would_help, ["another node: pi2", "30 ms to db: pi0"]);
}

#[test]
fn before_anything_is_known_a_rigid_service_waits_and_another_one_does_not() {
    let mut world = World::with_workers(3);
    ask(&mut world, 3);
    deploy_db(&mut world, "pi2");
    world.deploy_with(0, &near_db(&json!({})));
    world.run(Duration::from_secs(5));
    // On the worker of the database there is no way to measure.
    assert_eq!(world.runs(&web(), 0), Some(2));
    world.undeploy(None);
    world.run(Duration::from_secs(5));

    let mut wish = near_db(&json!({}));
    wish["constraints"] = on("pi1");
    world.deploy_with(0, &wish);
    world.run(Duration::from_secs(5));
    assert_eq!(world.runs(&web(), 0), None);
    assert!(world.detail(0).contains("rtt (wants 10 ms to db; not known yet of pi1)"), "{}", world.detail(0));
    let mut close = ROUND_TRIPS;
    (close[1][2], close[2][1]) = (9_000, 9_000);
    measure(&mut world, &close);
    world.run(Duration::from_secs(3));
    assert_eq!(world.runs(&web(), 0), Some(1), "as soon as it is known");

    let mut world = World::with_workers(3);
    deploy_db(&mut world, "pi2");
    let mut wish = near_db(&json!({ "rigidness": 0.9 }));
    wish["constraints"] = on("pi1");
    world.deploy_with(0, &wish);
    world.run(Duration::from_secs(5));
    assert_eq!(world.runs(&web(), 0), Some(1));
}

#[test]
fn a_service_whose_target_is_not_here_waits_a_little_for_it_and_then_the_target_follows() {
    let mut world = measured();
    world.deploy_with(0, &near_db(&json!({})));
    world.run(Duration::from_secs(3));
    assert_eq!(world.runs(&web(), 0), None);
    deploy_db(&mut world, "pi2");
    assert_eq!(world.runs(&web(), 0), Some(2));

    let mut world = measured();
    let mut wish = near_db(&json!({}));
    wish["constraints"] = on("pi2");
    world.deploy_with(0, &wish);
    world.run(Duration::from_secs(10));
    assert_eq!(world.runs(&web(), 0), Some(2), "there is nothing to be near to");
    world.deploy_described(DB, 0, &json!({ "job_name": db(), "service_name": "db" }));
    world.run(Duration::from_secs(5));
    assert_eq!(world.runs(&db(), 0), Some(2));
}

#[test]
fn a_target_that_can_only_be_far_away_is_placed_and_the_one_that_asks_follows() {
    let mut world = measured();
    world.deploy_with(0, &near_db(&json!({})));
    world.run(Duration::from_secs(10));
    assert_eq!(world.runs(&web(), 0), Some(0));
    deploy_db(&mut world, "pi2");
    pass(&mut world, 40, &ROUND_TRIPS);
    assert_eq!(world.runs(&web(), 0), Some(2), "{}", world.detail(0));
}

#[test]
fn where_both_ask_neither_is_placed_far_from_the_other() {
    let mut world = measured();
    let mut first = near_db(&json!({ "threshold": 50 }));
    first["constraints"] = on("pi2");
    world.deploy_with(0, &first);
    world.run(Duration::from_secs(10));
    let asks = json!([{ "target_microservice_id": web(), "con_constraints": [{ "type": "latency", "threshold": 10 }] }]);
    let keys =
        json!({ "job_name": db(), "service_name": "db", "connectivity": asks, "constraints": on("pi0") });
    world.deploy_described(DB, 0, &keys);
    world.run(Duration::from_secs(10));
    assert_eq!(world.runs(&db(), 0), None, "the tighter bound holds");
}

#[test]
fn what_is_to_leave_its_worker_stays_there_rather_than_far_from_what_it_needs() {
    let mut world = measured();
    deploy_db(&mut world, "pi2");
    world.deploy_with(0, &near_db(&json!({})));
    world.run(Duration::from_secs(5));
    world.state.wish(world.id(2), Wish::Drain).unwrap();
    world.run(Duration::from_secs(20));
    assert_eq!(world.runs(&web(), 0), Some(2));
    assert!(world.detail(0).contains("rtt (wants 10 ms to db"), "{}", world.detail(0));
}
