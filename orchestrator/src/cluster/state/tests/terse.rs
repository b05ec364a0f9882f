//! Workers that do not repeat what they have said.

use std::time::Duration;

use protocol::node::ResourceReport;
use protocol::status::Status;

use super::world::{World, named};

#[test]
fn what_was_named_in_parts_is_there_for_as_long_as_its_worker_says_that_it_is_alive() {
    let mut world = World::with_workers(1);
    for number in 0..3 {
        world.deploy(number);
    }
    world.run(Duration::from_secs(5));
    // From now on it says only what stands here.
    world.disconnect(0);
    let part = |number, more| ResourceReport { services: vec![named(number)], more };
    world.state.resource_report(world.id(0), part(0, true), world.now);
    world.state.resource_report(world.id(0), part(1, false), world.now);
    for _ in 0..60 {
        world.run(Duration::from_secs(1));
        world.state.still_as_reported(world.id(0), world.now);
    }
    assert_eq!([0, 1].map(|number| world.status(number)), [Some(Status::Running); 2]);
    assert_ne!(world.status(2), Some(Status::Running), "it was not named");
}

#[test]
fn to_be_alive_is_no_list_where_none_was_heard() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    // The cluster is another process, and the worker does not know that it has heard nothing yet.
    world.disconnect(0);
    world.restart();
    world.state.worker_listens(world.id(0), world.now);
    world.resume(0);
    let told = world.told;
    world.run(Duration::from_secs(120));
    assert_eq!((world.status(0), world.told), (Some(Status::Running), told));
}
