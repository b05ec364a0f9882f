//! Workers that are to become empty.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::id::Id;
use protocol::net::{TableQuery, TableResult};
use protocol::status::Status;
use serde_json::json;

use super::world::{SERVICE, World, name};
use crate::cluster::directory::Subject;
use crate::wish::Wish;

fn drain(world: &mut World, worker: usize) {
    world.state.wish(world.id(worker), Wish::Drain).unwrap();
}

/// How many workers have the instance at this moment.
fn copies(world: &World, number: u32) -> usize {
    (0..2).filter(|worker| world.running(*worker).contains(&number)).count()
}

#[test]
fn what_runs_on_a_drained_worker_moves_and_is_running_somewhere_all_the_time() {
    let mut world = World::with_workers(2);
    for number in 0..6 {
        world.deploy(number);
    }
    world.run(Duration::from_secs(5));
    assert_eq!(world.running(0).len(), 3);
    drain(&mut world, 0);
    for _ in 0..100 {
        world.run(Duration::from_millis(500));
        assert!((0..6).all(|number| copies(&world, number) > 0), "one runs nowhere");
        let told = world.all_told().workers.unwrap()[0].instances;
        assert!(told > 0 || world.status_all(Status::Running), "told to be empty too early");
        let twice = (0..6).filter(|number| copies(&world, *number) > 1).count();
        assert!(twice <= 2, "they move one after the other: {twice}");
    }
    assert!(world.running(0).is_empty());
    assert_eq!(*world.running(1), BTreeSet::from([0, 1, 2, 3, 4, 5]));
    assert!((0..6).all(|number| world.status(number) == Some(Status::Running)));
    // It gets nothing new, until it is to.
    world.deploy(6);
    world.run(Duration::from_secs(5));
    assert!(world.running(0).is_empty());
    world.state.wish(world.id(0), Wish::Uncordon).unwrap();
    world.deploy(7);
    world.run(Duration::from_secs(5));
    assert_eq!(*world.running(0), BTreeSet::from([7]));
}

#[test]
fn what_fits_nowhere_else_stays_and_says_so() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    drain(&mut world, 0);
    world.run(Duration::from_secs(20));
    assert_eq!((world.running(0).len(), world.status(0)), (1, Some(Status::Running)));
    let detail = world.detail(0);
    assert!(detail.starts_with("Stays on pi0, which is drained: no worker fits"), "{detail}");
    let kept = world.kept;
    world.run(Duration::from_secs(20));
    assert_eq!(world.kept, kept, "said once");
}

#[test]
fn draining_goes_on_after_a_restart_of_the_cluster_and_loses_nothing() {
    for pause in [0, 500, 1000, 1500, 2500] {
        let mut world = World::with_workers(2);
        for number in 0..4 {
            world.deploy(number);
        }
        world.run(Duration::from_secs(5));
        drain(&mut world, 0);
        world.run(Duration::from_millis(pause.max(500)));
        world.restart();
        world.run(Duration::from_secs(60));
        assert!(world.running(0).is_empty(), "{pause}");
        assert_eq!(*world.running(1), BTreeSet::from([0, 1, 2, 3]), "{pause}");
    }
}

#[test]
fn one_that_is_taken_back_while_it_moves_is_gone_from_both() {
    let mut world = World::with_workers(2);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    let from = usize::from(world.running(0).is_empty());
    drain(&mut world, from);
    world.run(Duration::from_millis(500));
    world.undeploy(Some(0));
    world.run(Duration::from_secs(60));
    assert_eq!((copies(&world, 0), world.status(0)), (0, None));
}

#[test]
fn a_worker_that_is_lost_while_an_instance_leaves_it_serves_no_more() {
    let mut world = World::with_workers(2);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    let from = usize::from(world.running(0).is_empty());
    drain(&mut world, from);
    world.disconnect(from);
    world.run(Duration::from_secs(60));
    assert_eq!(world.status(0), Some(Status::Running));
    assert!(world.running(1 - from).contains(&0));
}

/// On which workers the instance is in the table, and on which it was.
pub(super) fn listed(world: &mut World) -> (Vec<Option<Id>>, Vec<Option<Id>>) {
    let root = json!({
        "_id": SERVICE, "job_name": name(), "service_ip_list": [],
        "instance_list": [{ "instance_number": 0, "instance_ip": "10.30.0.0", "host_port": 0 }],
    });
    let subject = Subject::Name(name());
    let table = serde_json::from_value(root).unwrap();
    world.state.table_answered(&subject, Ok(Some(table)), world.now);
    world.state.take_effects();
    let query = TableQuery { sname: name().to_string(), sip: String::new() };
    // Asking is a sign of life.
    let asker = if world.is_connected(0) { 0 } else { 1 };
    world.state.table_wanted(world.id(asker), &query, world.now);
    let published = world.state.take_effects().publish;
    let (_, answer) = published.iter().find(|(topic, _)| topic.ends_with("tablequery/result")).unwrap();
    let TableResult { instance_list, leaving, .. } = serde_json::from_slice(answer).unwrap();
    let workers = |list: Vec<protocol::net::TableInstance>| list.iter().map(|it| it.worker_id).collect();
    (workers(instance_list), workers(leaving))
}

/// An instance that runs on the other worker and is not stopped yet where it was.
fn moved() -> (World, usize) {
    let mut world = World::with_workers(2);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    let from = usize::from(world.running(0).is_empty());
    assert_eq!(listed(&mut world), (vec![Some(world.id(from))], vec![]));
    world.deaf(from, true);
    drain(&mut world, from);
    world.run(Duration::from_secs(5));
    assert_eq!(copies(&world, 0), 2);
    let listed = listed(&mut world);
    assert_eq!(listed, (vec![Some(world.id(1 - from))], vec![Some(world.id(from))]));
    let told = world.all_told().workers.unwrap();
    assert_eq!((told[0].instances, told[1].instances), (1, 1), "it is not empty yet");
    (world, from)
}

#[test]
fn where_an_instance_was_is_told_until_it_is_stopped_there() {
    let (mut world, from) = moved();
    world.restart();
    world.run(Duration::from_secs(5));
    assert_eq!(listed(&mut world).1, [Some(world.id(from))]);
    world.deaf(from, false);
    world.run(Duration::from_secs(60));
    assert_eq!(copies(&world, 0), 1);
    assert_eq!(listed(&mut world), (vec![Some(world.id(1 - from))], vec![]));
    assert_eq!(world.all_told().workers.unwrap()[from].instances, 0);
}

#[test]
fn what_is_gone_from_where_it_was_without_a_word_is_not_told_for_ever() {
    let (mut world, from) = moved();
    world.lose_container(from, 0);
    world.run(Duration::from_secs(20));
    assert_eq!(listed(&mut world).1, []);
    let (mut world, from) = moved();
    world.disconnect(from);
    world.run(Duration::from_secs(60));
    assert_eq!(listed(&mut world), (vec![Some(world.id(1 - from))], vec![]));
    let (mut world, _) = moved();
    world.undeploy(Some(0));
    world.run(Duration::from_secs(5));
    assert_eq!(world.status(0), None);
}
