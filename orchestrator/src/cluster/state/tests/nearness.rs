//! Services that are to be near each other.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::rtt::{Coordinate, Measured, RttReport};
use protocol::status::Status;
use serde_json::{Value, json};

use super::super::Wish;
use super::world::{SERVICE, World};

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
fn measure(world: &mut World, round_trips: &[[u32; 3]; 3]) {
    for (worker, row) in round_trips.iter().enumerate() {
        let others =
            (0..3).filter(|other| world.peers(worker).iter().any(|peer| peer.node == world.id(*other)));
        let measured = others.map(|other| Measured { node: world.id(other), micros: vec![row[other]; 8] });
        let report = RttReport { measured: measured.collect(), ..RttReport::default() };
        world.state.round_trips_known(world.id(worker), report, world.now);
    }
    world.settle();
}

/// All have asked whom to measure, and have measured.
fn measured() -> World {
    let mut world = World::with_workers(3);
    ask(&mut world, 3);
    measure(&mut world, &ROUND_TRIPS);
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

fn why(world: &World) -> Vec<protocol::decision::Decision> {
    world.state.decisions(SERVICE).unwrap().instances[&0].clone()
}

#[test]
fn of_a_few_workers_each_measures_all_others_and_of_many_some() {
    let mut world = World::with_workers(3);
    ask(&mut world, 3);
    for worker in 0..3 {
        let peers: BTreeSet<_> = world.peers(worker).iter().map(|peer| peer.node).collect();
        assert_eq!(peers, (0..3).filter(|it| *it != worker).map(|it| world.id(it)).collect());
    }
    let mut world = World::with_workers(60);
    ask(&mut world, 60);
    for worker in 0..60 {
        let x = f64::from(u32::try_from(worker).unwrap());
        let coordinate = Coordinate::new([x, 0.0, 0.1, 0.1]).ok();
        world.state.round_trips_known(
            world.id(worker),
            RttReport { coordinate, ..RttReport::default() },
            world.now,
        );
    }
    world.run(Duration::from_secs(700));
    for worker in 2..58 {
        let peers: Vec<_> = world.peers(worker).iter().map(|peer| peer.node).collect();
        assert!((6..=9).contains(&peers.len()), "{peers:?}");
        let near = [worker - 2, worker - 1, worker + 1, worker + 2];
        assert!(near.iter().all(|near| peers.contains(&world.id(*near))), "{worker}: {peers:?}");
        assert!(world.peers(worker).iter().all(|peer| peer.coordinate.is_some()));
    }
}

#[test]
fn the_way_between_two_that_are_to_be_near_is_measured_however_many_workers_there_are() {
    let mut world = World::with_workers(60);
    ask(&mut world, 60);
    deploy_db(&mut world, "pi7");
    let mut wish = near_db(&json!({ "rigidness": 0.5 }));
    wish["constraints"] = on("pi50");
    world.deploy_with(0, &wish);
    world.run(Duration::from_secs(10));
    for (worker, other) in [(7, 50), (50, 7)] {
        assert!(world.peers(worker).iter().any(|peer| peer.node == world.id(other)), "{worker}");
    }
}

#[test]
fn the_root_is_told_how_far_each_worker_usually_is_from_others() {
    let mut world = measured();
    let told = world.all_told().workers.unwrap();
    let rtts: Vec<_> = told.iter().map(|worker| worker.rtt_ms).collect();
    assert_eq!(rtts, [Some(0.4), Some(0.4), Some(30.0)]);
}

#[test]
fn workers_that_have_said_nothing_new_are_told_nothing() {
    let mut world = measured();
    world.run(Duration::from_secs(10));
    let told = (world.told, world.kept);
    for _ in 0..20 {
        world.run(Duration::from_secs(60));
        measure(&mut world, &ROUND_TRIPS);
    }
    assert_eq!((world.told, world.kept), told);
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
    ask(&mut world, 3);
    let mut close = ROUND_TRIPS;
    (close[1][2], close[2][1]) = (9_000, 9_000);
    measure(&mut world, &close);
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

/// The first two rooms have changed places: what was near is far.
const CHANGED: [[u32; 3]; 3] = [[0, 31_000, 30_000], [31_000, 0, 400], [30_000, 400, 0]];

/// The database is on the second worker, and what is to be near to it on the first one.
fn pair(keys: &Value) -> World {
    let mut world = measured();
    deploy_db(&mut world, "pi1");
    let mut first = near_db(keys);
    first["memory"] = json!(7000);
    let big = json!({ "memory": 7000, "job_name": "smp.bed.big.bed", "service_name": "big", "constraints": on("pi1") });
    world.deploy_described(Id::from_bytes([9; 12]), 0, &big);
    world.run(Duration::from_secs(5));
    world.deploy_with(0, &first);
    world.run(Duration::from_secs(5));
    assert_eq!(world.runs(&web(), 0), Some(0));
    world
}

/// So much time passes, while the workers measure this.
fn pass(world: &mut World, seconds: u64, round_trips: &[[u32; 3]; 3]) {
    for _ in 0..seconds / 5 {
        measure(world, round_trips);
        world.run(Duration::from_secs(5));
    }
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
fn a_worker_that_is_given_up_is_measured_no_more() {
    let mut world = measured();
    world.disconnect(2);
    world.run(Duration::from_secs(120));
    for worker in 0..2 {
        assert!(world.peers(worker).iter().all(|peer| peer.node != world.id(2)), "{worker}");
    }
    assert!(world.state.round_trips.coordinate(world.id(2)).is_none());
    world.connect(2);
    let id = world.id(2);
    world.state.round_trips_known(id, RttReport::default(), world.now);
    world.run(Duration::from_secs(120));
    assert_eq!(world.peers(0).len(), 2, "until it is back");
}
