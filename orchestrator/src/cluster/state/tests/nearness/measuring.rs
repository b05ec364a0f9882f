//! Which worker measures the way to which others, and what is told of it.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::id::Id;
use protocol::rtt::{Coordinate, RttReport};
use serde_json::json;

use super::super::world::World;
use super::{ROUND_TRIPS, ask, deploy_db, measure, measured, near_db, on, why};

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

#[test]
fn one_that_asks_again_and_again_is_told_no_more_often_and_in_the_end() {
    let mut world = measured();
    world.run(Duration::from_secs(5));
    let told = world.told;
    for _ in 0..100 {
        let asks = RttReport { asks: true, ..RttReport::default() };
        world.state.round_trips_known(world.id(0), asks, world.now);
        world.settle();
    }
    assert_eq!(world.told, told + 1);
    world.run(Duration::from_secs(3));
    assert_eq!((world.told, world.peers(0).len()), (told + 2, 2));
}

#[test]
fn to_no_worker_very_many_are_near_wherever_it_says_that_it_is() {
    let mut world = World::with_workers(120);
    ask(&mut world, 120);
    for worker in 0..120 {
        // One is nearer to all others than those are to each other.
        let x = f64::from(u32::try_from(worker).unwrap());
        let height = if worker == 0 { 0.0 } else { 500.0 };
        let coordinate = Coordinate::new([x, 0.0, height, 0.1]).ok();
        let report = RttReport { coordinate, ..RttReport::default() };
        world.state.round_trips_known(world.id(worker), report, world.now);
    }
    world.run(Duration::from_secs(20));
    let middle = world.id(0);
    let tells = (1..120).filter(|worker| world.peers(*worker).iter().any(|peer| peer.node == middle));
    let told = tells.count();
    assert!((64..80).contains(&told), "{told}");
}

#[test]
fn of_many_that_are_to_be_near_some_are_measured_and_others_by_chance_too() {
    let mut world = World::with_workers(60);
    ask(&mut world, 60);
    deploy_db(&mut world, "pi59");
    for number in 0..30 {
        let mut wish = near_db(&json!({ "rigidness": 0.5 }));
        wish["constraints"] = on(&format!("pi{number}"));
        wish["job_name"] = json!(format!("smp.bed.web{number}.bed"));
        world.deploy_described(Id::from_bytes([100 + u8::try_from(number).unwrap(); 12]), 0, &wish);
    }
    world.run(Duration::from_secs(20));
    let partners = (0..30).filter(|it| world.peers(59).iter().any(|peer| peer.node == world.id(*it)));
    let count = partners.count();
    assert!((8..=12).contains(&count) && world.peers(59).len() > 8, "{count} of {}", world.peers(59).len());
    for worker in 0..30 {
        assert!(world.peers(worker).iter().any(|peer| peer.node == world.id(59)), "{worker}");
    }
}

#[test]
fn numbers_that_waver_are_told_to_nobody_while_it_waits() {
    let big = Id::from_bytes([9; 12]);
    let mut world = measured();
    deploy_db(&mut world, "pi2");
    world.deploy_described(
        big,
        0,
        &json!({ "memory": 9000, "job_name": "smp.bed.big.bed", "service_name": "big" }),
    );
    let mut wish = near_db(&json!({}));
    wish["constraints"] = json!([{ "type": "direct", "node": "pi0;pi1" }]);
    world.deploy_with(0, &wish);
    world.run(Duration::from_secs(5));
    let attempts = |world: &World| world.state.decisions(big).unwrap().instances[&0][0].times;
    let (kept, tried) = (world.kept, attempts(&world));
    let mut wavering = ROUND_TRIPS;
    for _ in 0..19 {
        for (one, other) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
            wavering[one][other] += 1_000;
        }
        measure(&mut world, &wavering);
        world.run(Duration::from_secs(3));
    }
    assert_eq!(world.kept, kept);
    let rejections = &why(&world)[0].rejections;
    assert!(rejections.iter().any(|it| it.detail.contains("best is 49 ms on pi0")), "{rejections:?}");
    assert_eq!(attempts(&world), tried, "ways are nothing to it");
}
