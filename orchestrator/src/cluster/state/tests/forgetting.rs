//! Workers that nobody expects any more.

use std::time::Duration;

use protocol::net::{Subnet, SubnetRequest};
use protocol::plan::Plan;
use protocol::status::Status;
use serde_json::json;

use super::world::World;
use crate::cluster::state::{Ask, RETURNS, Refused, WORKERS};
use crate::wish::Wish;

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

#[test]
fn a_worker_that_is_deleted_is_gone_at_once_with_its_block_whatever_was_said_of_it() {
    let mut world = world();
    let (id, other) = (world.id(0), world.id(1));
    world.state.wish(id, Wish::Drain).unwrap();
    world.settle();
    world.state.delete_worker(id, world.now).unwrap();
    world.settle();
    assert!(world.state.workers().eq([other]));
    assert_eq!((count(&world, WORKERS), world.dismissed.as_slice()), (1, [id].as_slice()));
    assert_eq!((world.asked.as_slice(), count(&world, RETURNS)), ([Ask::Return(block())].as_slice(), 1));
    assert_eq!(world.all_told().workers.unwrap().len(), 1);
    assert_eq!(world.state.delete_worker(id, world.now), Err(Refused::UnknownWorker(id)));
    world.restart();
    assert!(world.state.workers().eq([other]));
}

#[test]
fn what_runs_on_a_worker_that_is_deleted_goes_elsewhere_at_once_also_what_would_wait() {
    for (asked, silent_for) in
        [(json!({}), 8), (json!({ "on_disconnect": "keep", "reconcile": "original" }), 60)]
    {
        let mut world = World::with_workers(2);
        world.deploy_with(0, &asked);
        world.run(Duration::from_secs(5));
        let from = usize::from(world.running(0).is_empty());
        world.disconnect(from);
        world.run(Duration::from_secs(silent_for));
        assert!(world.running(1 - from).is_empty(), "{asked}: it waits for its worker");
        world.state.delete_worker(world.id(from), world.now).unwrap();
        world.run(Duration::from_secs(3));
        assert_eq!((world.running(1 - from).len(), world.status(0)), (1, Some(Status::Running)), "{asked}");
    }
}

#[test]
fn what_had_ended_on_a_worker_that_is_deleted_is_not_run_again_and_what_was_to_go_is_gone() {
    let mut world = World::with_workers(1);
    world.deploy_with(0, &json!({ "one_shot": true }));
    world.deploy_with(1, &json!({ "one_shot": true }));
    world.run(Duration::from_secs(5));
    world.end_job(0, 0);
    world.disconnect(0);
    world.undeploy(Some(1));
    world.run(Duration::from_secs(8));
    world.state.delete_worker(world.id(0), world.now).unwrap();
    world.run(Duration::from_secs(5));
    assert_eq!((world.status(0), world.status(1)), (Some(Status::Completed), None));
    world.undeploy(Some(0));
    assert_eq!(world.status(0), None);
}

#[test]
fn a_worker_that_is_heard_or_of_which_nobody_knows_is_not_deleted() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    let id = world.id(0);
    let refused = world.state.delete_worker(id, world.now).unwrap_err();
    assert!(refused.to_string().starts_with("worker pi0 is heard from (last "), "{refused}");
    world.state.hears_nobody(world.now);
    world.disconnect(0);
    world.run(Duration::from_secs(60));
    let refused = world.state.delete_worker(id, world.now).unwrap_err();
    assert!(refused.to_string().starts_with("the broker is out of reach"), "{refused}");
    world.state.hears_again(world.now);
    let refused = world.state.delete_worker(id, world.now).unwrap_err();
    assert!(refused.to_string().starts_with("worker pi0 is heard from (last 0 s ago)"), "{refused}");
    assert_eq!((world.running(0).len(), count(&world, WORKERS)), (1, 1));
}

#[test]
fn a_block_that_comes_for_a_worker_that_is_forgotten_goes_back() {
    let mut world = World::with_workers(1);
    let request = SubnetRequest { method: "GET".to_owned() };
    let id = world.id(0);
    world.state.subnet_wanted(id, &request, world.now);
    world.disconnect(0);
    world.run(Duration::from_secs(8));
    world.state.delete_worker(id, world.now).unwrap();
    world.state.subnet_given(id, block());
    world.settle();
    assert_eq!(world.asked, [Ask::Subnet(id), Ask::Return(block())]);
    assert_eq!(count(&world, RETURNS), 1);
}
