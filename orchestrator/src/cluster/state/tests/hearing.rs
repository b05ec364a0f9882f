//! What becomes of workers and their instances while the broker is out of reach, so that nobody is heard.

use std::time::Duration;

use protocol::cluster::WorkerState;
use protocol::status::Status;
use serde_json::json;

use super::world::World;

fn states(world: &mut World) -> Vec<WorkerState> {
    let workers = world.all_told().workers.unwrap_or_default();
    workers.into_iter().map(|worker| worker.state).collect()
}

/// A world in which the broker has been away for so long.
fn deaf(seconds: u64, keys: &serde_json::Value) -> (World, usize) {
    let mut world = World::with_workers(2);
    world.deploy_with(0, keys);
    world.run(Duration::from_secs(5));
    let at = usize::from(world.running(0).is_empty());
    let now = world.now();
    world.state.hears_nobody(now);
    (0..2).for_each(|worker| world.disconnect(worker));
    world.run(Duration::from_secs(seconds));
    (world, at)
}

#[test]
fn nobody_is_given_up_for_a_silence_that_is_the_broker_s() {
    for keys in [json!({}), json!({ "on_disconnect": "replace_after 10s" })] {
        let (mut world, at) = deaf(600, &keys);
        assert_eq!(states(&mut world), [WorkerState::Unreachable; 2], "{keys}");
        assert_eq!(world.all_told().broker_away, Some(600));
        assert_eq!((world.status(0), world.running(at).len()), (Some(Status::Running), 1), "{keys}");
        let now = world.now();
        world.state.hears_again(now);
        (0..2).for_each(|worker| world.connect(worker));
        world.run(Duration::from_secs(20));
        assert_eq!(states(&mut world), [WorkerState::Ready; 2]);
        assert_eq!(world.all_told().broker_away, None);
        assert_eq!((world.running(at).len(), world.running(1 - at).len()), (1, 0), "{keys}: moved");
    }
}

#[test]
fn who_does_not_come_back_with_the_broker_is_given_up_in_time() {
    let (mut world, at) = deaf(600, &json!({}));
    let now = world.now();
    world.state.hears_again(now);
    world.connect(1 - at);
    // 40 s to come back, the timeout of 30 s among them, and the rest of the silence from before.
    world.run(Duration::from_secs(36));
    assert!(world.running(1 - at).is_empty(), "given up too early");
    world.run(Duration::from_secs(8));
    assert_eq!(world.running(1 - at).len(), 1, "not given up");
}
