//! What services ask for when their workers are not heard of any more.

use std::time::Duration;

use protocol::status::Status;
use serde_json::json;

use super::draining::listed;
use super::world::{SERVICE, World};

/// One instance of a service that asks for this, running, and the worker that has it.
fn running(keys: &serde_json::Value) -> (World, usize) {
    let mut world = World::with_workers(2);
    world.deploy_with(0, keys);
    world.run(Duration::from_secs(5));
    let at = usize::from(world.running(0).is_empty());
    (world, at)
}

#[test]
fn what_is_to_be_kept_stays_at_its_worker_however_long_that_is_silent() {
    let (mut world, at) = running(&json!({ "on_disconnect": "keep" }));
    world.disconnect(at);
    world.run(Duration::from_secs(600));
    assert!(world.running(1 - at).is_empty(), "placed a second time");
    assert_eq!(listed(&mut world).0, [Some(world.id(at))], "others may still reach it");
    let told = &world.all_told().jobs[0].instance_list[0];
    let detail = format!("Worker pi{at} is not heard; kept there (on_disconnect)");
    assert_eq!((told.status, told.status_detail.as_deref()), (Status::Running, Some(detail.as_str())));

    world.restart();
    world.run(Duration::from_secs(100));
    assert!(world.running(1 - at).is_empty(), "placed a second time after a restart");
    world.connect(at);
    world.run(Duration::from_secs(10));
    let told = &world.all_told().jobs[0].instance_list[0];
    assert!(!told.status_detail.as_deref().unwrap().contains("not heard"), "{:?}", told.status_detail);
    assert_eq!((world.running(at).len(), world.status(0)), (1, Some(Status::Running)));
}

#[test]
fn what_is_kept_at_a_silent_worker_can_be_taken_back() {
    let (mut world, at) = running(&json!({ "on_disconnect": "keep" }));
    world.disconnect(at);
    world.run(Duration::from_secs(60));
    world.undeploy(Some(0));
    assert_eq!(world.status(0), None);
    world.connect(at);
    world.run(Duration::from_secs(20));
    assert!(world.running(at).is_empty());
}

#[test]
fn a_service_says_how_long_a_silence_it_bears() {
    for (asked, before, after) in [("replace_after 10s", 7, 12), ("replace_after 2m", 115, 125)] {
        let (mut world, at) = running(&json!({ "on_disconnect": asked }));
        world.disconnect(at);
        world.run(Duration::from_secs(before));
        assert!(world.running(1 - at).is_empty(), "{asked}: replaced too early");
        world.run(Duration::from_secs(after - before));
        assert_eq!(world.running(1 - at).len(), 1, "{asked}: not replaced");
        world.connect(at);
        world.run(Duration::from_secs(20));
        assert!(world.running(at).is_empty(), "{asked}: the newest is to stay");
    }
}

#[test]
fn an_original_that_comes_back_takes_over_again_and_is_reached_all_the_time() {
    for restarts in [false, true] {
        let (mut world, at) = running(&json!({ "reconcile": "original" }));
        world.disconnect(at);
        world.run(Duration::from_secs(60));
        assert_eq!(world.running(1 - at).len(), 1);
        if restarts {
            world.restart();
            world.run(Duration::from_secs(5));
        }
        world.connect(at);
        let mut places = Vec::new();
        for _ in 0..20 {
            world.run(Duration::from_secs(1));
            let (at, _) = listed(&mut world);
            places.extend(at);
        }
        assert_eq!(places.len(), 20, "restarts: {restarts}: not listed at some moment, or twice");
        assert_eq!(places.last(), Some(&Some(world.id(at))));
        assert_eq!((world.running(at).len(), world.running(1 - at).len()), (1, 0), "restarts: {restarts}");
        assert_eq!(world.status(0), Some(Status::Running));
    }
}

#[test]
fn an_original_that_has_ended_meanwhile_changes_nothing() {
    let (mut world, at) = running(&json!({ "reconcile": "original" }));
    world.disconnect(at);
    world.lose_container(at, 0);
    world.run(Duration::from_secs(60));
    world.connect(at);
    world.run(Duration::from_secs(20));
    assert_eq!((world.running(at).len(), world.running(1 - at).len()), (0, 1));
    let instance = &world.state.services[&SERVICE].instances[&0];
    assert_eq!(instance.wanted_on(), Some(world.id(1 - at)));
}
