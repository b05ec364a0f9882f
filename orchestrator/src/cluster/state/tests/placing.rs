//! What services ask of their place, and how it is decided.

use std::time::Duration;

use protocol::net::{TableInstance, TableQuery, TableResult};
use protocol::node::{Node, ResourceReport};
use protocol::status::Status;
use serde_json::{Value, json};

use super::world::{SERVICE, World, name};
use crate::cluster::decisions::WithoutPlace;
use crate::cluster::directory::Subject;
use crate::wish::Wish;

fn decisions(world: &World, number: u32) -> Vec<protocol::decision::Decision> {
    world.state.decisions(SERVICE).unwrap().instances[&number].clone()
}

fn describe(world: &mut World, worker: usize, what: impl FnOnce(&mut Node)) {
    let mut node = Node { host: format!("pi{worker}"), ..Node::default() };
    what(&mut node);
    let id = world.id(worker);
    assert_eq!(world.state.register(node, || id, world.now), id);
}

#[test]
fn a_burst_between_two_reports_does_not_overcommit_the_disk() {
    let mut world = World::with_workers(1);
    world.free_disk(0, 1000);
    for number in 0..10 {
        world.deploy_with(number, &json!({ "storage": 300 }));
    }
    assert_eq!(world.running(0).len(), 3);
    world.run(Duration::from_secs(10));
    assert_eq!(world.running(0).len(), 3, "what they do not take up yet stays theirs");
    assert_eq!(world.all_told().largest.unwrap().disk, Some(100));
    assert_eq!(world.status(9), Some(Status::NoWorkerCapacity));
    assert!(world.detail(9).contains("disk (wants 300 MB free; most is 100 on pi0)"), "{}", world.detail(9));
}

#[test]
fn a_service_gets_what_it_asks_of_its_place() {
    let at = |place: &str| place.parse().ok();
    let nfs = json!({ "csi_driver_name": "nfs", "csi_driver_endpoint": "/run/nfs" });
    type Case = (Value, fn(&mut Node, Value));
    let cases: [Case; 4] = [
        (json!({ "arch": ["arm64"] }), |node, _| node.architecture = "arm64".to_owned()),
        (json!({ "volumes": [{ "csi_driver": "nfs" }] }), |node, nfs| node.csi_drivers = vec![nfs]),
        (json!({ "constraints": [{ "type": "addons", "needs": ["FLOps"] }] }), |node, _| {
            node.supported_addons = vec![json!("FLOps")];
        }),
        (
            json!({ "constraints": [{ "type": "geo", "location": "48.137,11.575", "threshold": 20 }] }),
            |node, _| node.location = "48.262,11.668".parse().ok(),
        ),
    ];
    for (wish, able) in cases {
        let mut world = World::with_workers(3);
        world.state.rules.location = at("52.520,13.405");
        for worker in [0, 2] {
            describe(&mut world, worker, |node| node.architecture = "amd64".to_owned());
        }
        describe(&mut world, 1, |node| able(node, nfs.clone()));
        (0..2).for_each(|number| world.deploy_with(number, &wish));
        world.run(Duration::from_secs(5));
        assert_eq!(world.running(1).len(), 2, "{wish}");
    }
}

#[test]
fn attempts_to_find_a_place_are_kept_with_what_would_help() {
    let mut world = World::with_workers(2);
    let worker = world.id(0);
    world.state.wish(worker, Wish::Cordon).unwrap();
    world.deploy_with(0, &json!({ "memory": 9000 }));
    let waits = &decisions(&world, 0)[0];
    assert_eq!((waits.candidates, waits.chosen.as_deref()), (2, None));
    assert_eq!(waits.would_help, ["memory <= 8000: pi1"]);
    assert!(waits.at > 0.0);

    world.state.wish(worker, Wish::Uncordon).unwrap();
    world.undeploy(Some(0));
    world.deploy(1);
    world.run(Duration::from_secs(5));
    let placed = &decisions(&world, 1)[0];
    assert_eq!((placed.chosen.as_deref(), placed.scores.len()), (Some("pi0"), 2));
    assert!(world.state.decisions(protocol::id::Id::from_bytes([99; 12])).is_none());
}

#[test]
fn the_root_is_told_what_a_single_worker_offers_at_most() {
    let mut world = World::with_workers(2);
    describe(&mut world, 0, |node| {
        node.architecture = "arm64".to_owned();
        node.csi_drivers = vec![json!({ "csi_driver_name": "nfs" })];
    });
    let report = world.all_told();
    let largest = report.largest.unwrap();
    assert_eq!((largest.memory, largest.vcpus, report.memory, report.vcpus), (8000, 2, 16000, 4));
    assert_eq!(largest.architectures, ["arm64"]);
    assert_eq!(largest.locations, None, "it is not known where they are");
    assert_eq!(report.csi_drivers, [json!("nfs")]);

    world.state.rules.location = "48.262,11.668".parse().ok();
    world.deploy(0);
    let largest = world.all_told().largest.unwrap();
    assert_eq!(largest.locations, Some(vec![world.state.rules.location.unwrap()]));
    world.deploy(1);
    assert_eq!(world.all_told().largest.unwrap().memory, 7900, "both have one by now");
}

#[test]
fn an_instance_that_serves_while_it_finds_no_new_place_is_not_offered_to_other_clusters() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    let from = world.id(0);
    let instance = world.state.instance_mut(SERVICE, 0).unwrap();
    instance.move_away(from, "moves");
    let refused = WithoutPlace::new(&protocol::decision::Decision::default(), world.now);
    instance.no_room("no worker fits".to_owned(), refused, false);
    assert_eq!(world.status(0), Some(Status::ClusterScheduled));
}

#[test]
fn workers_are_told_how_far_those_are_that_are_behind_a_closest_address_in_any_cluster() {
    let mut world = World::with_workers(3);
    for (worker, place) in [(0, "48.137,11.575"), (1, "52.520,13.405")] {
        describe(&mut world, worker, |node| node.location = place.parse().ok());
    }
    (0..3).for_each(|number| world.deploy(number));
    world.run(Duration::from_secs(5));
    let instance = |number: u32| json!({ "instance_number": number, "instance_ip": format!("10.30.0.{number}"), "host_port": 0 });
    let located = world.announced.iter().filter(|it| it.location.is_some());
    assert_eq!(located.count(), 2, "the root is not told where they are: {:?}", world.announced);
    let elsewhere = |number: u32, location: Value| {
        json!({ "instance_number": number, "instance_ip": format!("10.30.0.{number}"), "worker_id": "6b033dc62c1f07cbdcd88440",
            "namespace_ip": format!("10.18.9.{number}"), "host_ip": "192.0.2.90", "host_port": 50103, "location": location })
    };
    let root = |kind: &str| {
        json!({
            "_id": SERVICE, "job_name": name(),
            "service_ip_list": [{ "IpType": kind, "Address": "10.30.1.2", "Address_v6": "fdff:1000::1" }],
            "instance_list": [
                instance(0), instance(1), instance(2),
                elsewhere(3, json!("48.262,11.668")), elsewhere(4, json!(null)),
            ],
        })
    };
    for (kind, expected) in
        [("Closest", vec![Some(0), Some(16), Some(504), None, None]), ("RR", vec![None; 5])]
    {
        let table = serde_json::from_value(root(kind)).unwrap();
        world.state.table_answered(&Subject::Name(name()), Ok(Some(table)), world.now);
        let mut told: Vec<_> = told_table(&mut world).iter().map(|it| it.kilometres).collect();
        told.sort_by_key(|kilometres| kilometres.unwrap_or(u32::MAX));
        assert_eq!(told, expected, "{kind}");
    }
}

/// The table as a worker that asks is told it.
fn told_table(world: &mut World) -> Vec<TableInstance> {
    world.state.take_effects();
    let query = TableQuery { sname: name().to_string(), sip: String::new() };
    world.state.table_wanted(world.id(0), &query, world.now);
    let published = world.state.take_effects().publish;
    let (_, answer) = published.iter().find(|(topic, _)| topic.ends_with("tablequery/result")).unwrap();
    let TableResult { instance_list, .. } = serde_json::from_slice(answer).unwrap();
    instance_list
}

fn told_busy(world: &mut World) -> Vec<u32> {
    told_table(world).iter().filter(|told| told.busy).map(|told| told.instance_number).collect()
}

#[test]
fn who_asks_for_the_closest_is_told_which_instances_have_no_processor_time_left() {
    let nobody: [u32; 0] = [];
    for (kind, expected) in [("Closest", vec![0]), ("RR", vec![])] {
        let mut world = World::with_workers(2);
        (0..2).for_each(|number| world.deploy(number));
        world.run(Duration::from_secs(5));
        let instance = |number: u32| json!({ "instance_number": number, "instance_ip": format!("10.30.0.{number}"), "host_port": 0 });
        let table = json!({
            "_id": SERVICE, "job_name": name(), "instance_list": [instance(0), instance(1)],
            "service_ip_list": [{ "IpType": kind, "Address": "10.30.1.2", "Address_v6": "fdff:1000::1" }],
        });
        let table = serde_json::from_value(table).unwrap();
        world.state.table_answered(&Subject::Name(name()), Ok(Some(table)), world.now);
        assert_eq!(told_busy(&mut world), nobody);
        // It may have one of the two cores of its node.
        let at = usize::from(!world.running(0).contains(&0));
        let report = |cpu_percent: &str| {
            let mut named = super::world::named(0);
            named.cpu_percent = cpu_percent.to_owned();
            ResourceReport { services: vec![named], more: false }
        };
        world.state.resource_report(world.id(at), report("44.0"), world.now);
        assert_eq!(told_busy(&mut world), nobody, "not yet");
        world.state.resource_report(world.id(at), report("45.0"), world.now);
        let is_told =
            world.state.take_effects().publish.iter().any(|(topic, _)| topic.ends_with("updates_available"));
        assert_eq!(is_told, !expected.is_empty());
        assert_eq!(told_busy(&mut world), expected);
        world.state.resource_report(world.id(at), report("30.0"), world.now);
        assert_eq!(told_busy(&mut world), expected, "not for a moment only");
        world.run(Duration::from_secs(11));
        assert_eq!(told_busy(&mut world), nobody);
    }
}
