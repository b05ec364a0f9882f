//! Workers that nobody expects any more.

use std::time::Duration;

use protocol::net::{Subnet, SubnetRequest};
use protocol::plan::Plan;
use serde_json::json;

use super::world::World;
use crate::cluster::state::{Ask, RETURNS, WORKERS, Wish};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn block() -> Subnet {
    Subnet {
        subnet_addr: [10, 18, 0, 64].into(),
        subnet_addr_v6: "fc00::100".parse().unwrap(),
        plan: Plan::default(),
    }
}

/// Two workers, each with a block, of which the first is silent.
fn world() -> World {
    let mut world = World::with_workers(2);
    for worker in 0..2 {
        let request = SubnetRequest { method: "GET".to_owned() };
        world.state.subnet_wanted(world.id(worker), &request, world.now);
        world.state.subnet_given(world.id(worker), block());
    }
    world.disconnect(0);
    world.run(Duration::from_secs(60));
    world.asked.clear();
    world
}

fn count(world: &World, prefix: &str) -> usize {
    world.store.keys().filter(|key| key.starts_with(prefix)).count()
}

#[test]
fn a_worker_that_is_gone_for_a_day_is_forgotten_and_the_root_gets_its_block_back() {
    let mut world = world();
    world.pass(DAY / 2);
    assert_eq!((count(&world, WORKERS), world.asked.len()), (2, 0), "it may come back");
    let other = world.id(1);
    world.connect(1);
    world.pass(DAY / 2);
    world.connect(1);
    assert_eq!((count(&world, WORKERS), world.dismissed.as_slice()), (1, [world.id(0)].as_slice()));
    assert_eq!(world.asked, [Ask::Return(block())]);
    assert!(world.state.workers().eq([other]));
    // The root has not answered yet.
    world.restart();
    assert_eq!(world.asked, [Ask::Return(block()), Ask::Return(block())]);
    world.state.subnet_returned(&block());
    world.settle();
    assert_eq!(count(&world, RETURNS), 0);
}

#[test]
fn a_worker_about_which_somebody_said_something_or_that_may_run_something_is_not_forgotten() {
    let mut cordoned = world();
    cordoned.state.wish(cordoned.id(0), Wish::Cordon).unwrap();
    cordoned.connect(1);
    cordoned.pass(DAY * 2);
    assert!(cordoned.dismissed.iter().all(|id| *id != cordoned.id(0)));

    let mut world = World::with_workers(1);
    world.deploy_with(0, &json!({ "on_disconnect": "keep" }));
    world.run(Duration::from_secs(5));
    world.disconnect(0);
    world.pass(DAY * 2);
    assert_eq!(world.dismissed, []);
    world.connect(0);
    world.run(Duration::from_secs(20));
    assert_eq!(world.running(0).len(), 1);
}
