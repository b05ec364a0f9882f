//! The whole state against simulated workers, in simulated time.

mod convergence;
mod draining;
mod forgetting;
mod hearing;
mod nearness;
mod outage;
mod placing;
mod terse;
mod world;

use std::time::Duration;

use protocol::cluster::WorkerState;
use protocol::net::{NetService, Subnet, TableQuery};
use protocol::plan::Plan;
use protocol::status::Status;
use serde_json::json;

use self::world::{SERVICE, World};
use super::{Ask, Kept, State};
use crate::cluster::worker::Standing;
use crate::wish::Wish;

#[test]
fn a_burst_is_spread_and_none_is_left_behind() {
    let mut world = World::with_workers(2);
    for number in 0..50 {
        world.deploy(number);
    }
    world.run(Duration::from_secs(5));
    assert_eq!(world.running(0).len(), 25);
    assert_eq!(world.running(1).len(), 25);
    assert!((0..50).all(|number| world.status(number) == Some(Status::Running)));
}

#[test]
fn a_burst_between_two_reports_does_not_overcommit_memory() {
    let mut world = World::with_workers(1);
    for number in 0..200 {
        world.deploy(number);
    }
    // 100 MiB each: 8000 are measured as available. Once the first 80 are seen to use nothing, there is room for as
    // many as the whole machine of 10000 can be promised to.
    assert_eq!(world.running(0).len(), 80);
    world.run(Duration::from_secs(5));
    assert_eq!(world.running(0).len(), 100);
    assert_eq!(world.status(199), Some(Status::NoWorkerCapacity));
    world.undeploy(Some(0));
    world.run(Duration::from_secs(5));
    assert_eq!(world.running(0).len(), 100, "the room is used again");
}

#[test]
fn waiting_for_room_costs_no_messages() {
    let mut world = World::with_workers(1);
    for number in 0..100 {
        world.deploy(number);
    }
    world.run(Duration::from_secs(10));
    let (told, kept) = (world.told, world.kept);
    world.run(Duration::from_secs(60));
    assert_eq!((world.told, world.kept), (told, kept));
}

#[test]
fn an_idle_cluster_keeps_nothing_and_says_nothing() {
    let mut world = World::with_workers(3);
    for number in 0..9 {
        world.deploy(number);
    }
    world.run(Duration::from_secs(10));
    let (told, kept) = (world.told, world.kept);
    world.run(Duration::from_secs(600));
    assert_eq!((world.told, world.kept), (told, kept));
}

#[test]
fn an_instance_that_its_worker_no_longer_names_is_placed_again() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    world.lose_container(0, 0);
    world.run(Duration::from_secs(60));
    assert_eq!(world.status(0), Some(Status::Running));
    assert_eq!(world.running(0).len(), 1);
}

#[test]
fn a_worker_that_comes_back_empty_gets_its_instances_again_soon() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    world.lose_container(0, 0);
    world.disconnect(0);
    world.connect(0);
    world.run(Duration::from_secs(10));
    assert_eq!(world.running(0).len(), 1);
}

#[test]
fn a_worker_that_reports_again_before_it_is_dead_keeps_its_instances() {
    let mut world = World::with_workers(2);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    let silent = usize::from(world.running(0).is_empty());
    let told = world.told;
    world.disconnect(silent);
    world.run(Duration::from_secs(20));
    let standing = world.state.workers[&world.id(silent)].standing();
    assert_eq!(standing, Standing::Unreachable);
    world.resume(silent);
    world.run(Duration::from_secs(40));
    assert_eq!(world.state.workers[&world.id(silent)].standing(), Standing::Reachable);
    assert_eq!((world.running(silent).len(), world.running(1 - silent).len()), (1, 0));
    assert_eq!(world.told, told, "no worker was told anything");
}

#[test]
fn an_unreachable_worker_gets_nothing_new_until_it_reports_again() {
    let mut world = World::with_workers(1);
    world.disconnect(0);
    world.run(Duration::from_secs(10));
    world.deploy(0);
    world.run(Duration::from_secs(5));
    assert_eq!(world.running(0).len(), 0);
    let told = world.told;
    world.resume(0);
    world.run(Duration::from_secs(5));
    assert_eq!((world.running(0).len(), world.told), (1, told + 1));
}

#[test]
fn a_cordoned_worker_keeps_what_it_has_and_gets_nothing_new_until_it_is_uncordoned() {
    let mut world = World::with_workers(1);
    let worker = world.id(0);
    world.deploy(0);
    world.state.wish(worker, Wish::Cordon).unwrap();
    assert!(world.state.take_effects().report, "the root is to know");
    world.state.wish(worker, Wish::Cordon).unwrap();
    let effects = world.state.take_effects();
    assert!(effects.keep.is_empty() && !effects.report, "twice is once");
    world.deploy(1);
    world.run(Duration::from_secs(5));
    assert_eq!(world.running(0).len(), 1);
    assert_eq!(world.status(1), Some(Status::NoWorkerCapacity));
    assert!(world.all_told().workers.unwrap()[0].cordoned);
    world.state.wish(worker, Wish::Uncordon).unwrap();
    world.run(Duration::from_secs(5));
    assert_eq!(world.running(0).len(), 2);
    assert!(world.state.wish(protocol::id::Id::from_bytes([99; 12]), Wish::Cordon).is_err());
}

#[test]
fn a_cordoned_worker_stays_so_when_the_cluster_restarts_and_when_it_registers_again() {
    let mut world = World::with_workers(1);
    world.state.wish(world.id(0), Wish::Cordon).unwrap();
    world.run(Duration::from_secs(1));
    world.restart();
    world.resume(0);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    assert_eq!(world.running(0).len(), 0);
    let node = protocol::node::Node { host: "pi0".to_owned(), ..Default::default() };
    world.state.register(node, crate::object_id::new, world.now);
    assert!(world.all_told().workers.unwrap()[0].cordoned);
}

#[test]
fn the_root_is_told_of_each_worker_and_of_its_silence() {
    let mut world = World::with_workers(2);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    let told = |world: &mut World| world.all_told().workers.unwrap();
    assert_eq!(told(&mut world).iter().map(|it| it.instances).sum::<u32>(), 1);
    assert!(told(&mut world).iter().all(|it| it.state == WorkerState::Ready && it.silent <= 2));
    world.disconnect(1);
    world.run(Duration::from_secs(10));
    assert_eq!(
        (told(&mut world)[1].state, told(&mut world)[1].name.as_str()),
        (WorkerState::Unreachable, "pi1")
    );
    world.run(Duration::from_secs(30));
    assert_eq!(told(&mut world)[1].state, WorkerState::Dead);
    assert!(told(&mut world)[1].silent >= 30);
}

#[test]
fn after_a_failure_another_worker_is_tried() {
    let mut world = World::with_workers(2);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    let first = usize::from(world.running(0).is_empty());
    world.fail(first, 0);
    world.run(Duration::from_secs(5));
    assert!(world.running(first).is_empty());
    assert_eq!(world.running(1 - first).len(), 1);
}

#[test]
fn a_removed_service_leaves_nothing() {
    let mut world = World::with_workers(2);
    for number in 0..4 {
        world.deploy(number);
    }
    world.run(Duration::from_secs(5));
    world.undeploy(None);
    world.run(Duration::from_secs(5));
    assert!(world.running(0).is_empty() && world.running(1).is_empty());
    assert!(world.state.services.is_empty() && world.state.waiting.is_empty());
    assert!(world.store.keys().all(|key| key.starts_with("worker/")), "{:?}", world.store.keys());
}

#[test]
fn an_instance_on_a_silent_worker_is_removed_at_once() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    world.disconnect(0);
    world.run(Duration::from_secs(40));
    world.undeploy(None);
    assert!(world.state.services.is_empty());
    world.connect(0);
    world.run(Duration::from_secs(10));
    assert!(world.running(0).is_empty(), "what it still had is removed when it is back");
}

#[test]
fn workers_that_boast_are_summed_up_all_the_same() {
    let mut world = World::with_workers(0);
    let boaster = |host: &str| {
        let (host, memory, vcpus) = (host.to_owned(), u64::MAX, u32::MAX);
        protocol::node::Node { host, memory, vcpus, ..Default::default() }
    };
    for host in ["pi1", "pi2"] {
        let (state, now) = (&mut world.state, world.now);
        state.register(boaster(host), crate::object_id::new, now);
    }
    let report = world.all_told();
    assert_eq!((report.memory, report.vcpus, report.active_nodes), (u64::MAX, u32::MAX, 2));
}

#[test]
fn a_subnet_is_asked_for_once_and_kept() {
    let mut world = World::with_workers(1);
    let worker = world.id(0);
    let request = protocol::net::SubnetRequest { method: "GET".to_owned() };
    world.state.subnet_wanted(worker, &request, world.now);
    world.state.subnet_wanted(worker, &request, world.now);
    assert_eq!(world.state.take_effects().ask, [Ask::Subnet(worker)]);
    let subnet = |third| Subnet {
        subnet_addr: [10, 18, third, 0].into(),
        subnet_addr_v6: [0xfc00, 0, 0, 0, 0, 0, 0, 0].into(),
        plan: Plan::default(),
    };
    world.state.subnet_given(worker, subnet(1));
    world.state.subnet_given(worker, subnet(2));
    assert_eq!(world.state.workers[&worker].record.subnet, Some(subnet(1)));
}

/// A worker that got its block from a root with other addresses than Oakestra's.
fn elsewhere() -> World {
    let plan = Plan::new("172.20.0.0/14".parse().unwrap(), "172.24.0.0/16".parse().unwrap()).unwrap();
    let mut world = World::with_workers(1);
    let worker = world.id(0);
    let subnet_addr_v6 = "fc00::100".parse().unwrap();
    world.state.subnet_given(worker, Subnet { subnet_addr: [172, 20, 0, 64].into(), subnet_addr_v6, plan });
    world
}

#[test]
fn a_worker_is_told_the_plan_that_its_block_is_of() {
    let told = elsewhere().state.take_effects().publish;
    let plan = r#""plan":{"containers":"172.20.0.0/14","services":"172.24.0.0/16"}"#;
    assert!(told.iter().any(|(_, payload)| String::from_utf8_lossy(payload).contains(plan)), "{told:?}");
}

#[test]
fn a_block_that_is_not_of_the_plan_that_was_kept_with_it_is_given_back_and_another_asked_for() {
    let mut world = elsewhere();
    let worker = world.id(0);
    // As a cluster has stored it that did not know of plans.
    world.state.workers.get_mut(&worker).unwrap().record.subnet.as_mut().unwrap().plan = Plan::default();
    let record = world.state.workers[&worker].record.clone();
    let kept = Kept { workers: vec![record], ..Kept::default() };
    let mut state = State::new(kept, world.state.rules, world.now);
    assert!(
        matches!(state.take_effects().ask.as_slice(), [Ask::Return(useless)] if useless.subnet_addr.octets()[0] == 172)
    );
    let request = protocol::net::SubnetRequest { method: "GET".to_owned() };
    state.subnet_wanted(worker, &request, world.now);
    assert_eq!(state.take_effects().ask, [Ask::Subnet(worker)]);
}

#[test]
fn nodes_are_told_from_services_by_the_roots_plan_after_a_restart_too() {
    let mut world = elsewhere();
    world.settle();
    for last in [62, 126] {
        for (network, is_node) in [("172.21.0", true), ("172.24.0", false), ("10.18.0", false)] {
            let sip = format!("{network}.{last}");
            let query = TableQuery { sname: String::new(), sip: sip.clone() };
            world.state.table_wanted(world.id(0), &query, world.now);
            let asked = world.state.take_effects().ask;
            let of_node = asked == [Ask::Node(sip.parse().unwrap())];
            assert!(of_node == is_node && asked.len() == 1, "{sip}: {asked:?}");
        }
        world.restart();
    }
}

#[test]
fn a_worker_speaks_for_no_other_node_s_processes() {
    let mut world = World::with_workers(2);
    let (worker, other) = (world.id(0), world.id(1));
    world.state.subnet_given(
        worker,
        Subnet {
            subnet_addr: [10, 18, 0, 64].into(),
            subnet_addr_v6: "fc00::100".parse().unwrap(),
            plan: Plan::default(),
        },
    );
    let itself = |nsip: &str, nsipv6: Option<&str>| protocol::net::NodeItself {
        nsip: nsip.parse().unwrap(),
        nsipv6: nsipv6.map(|address| address.parse().unwrap()),
        host_port: 50103,
        links: protocol::link::LinkOffer { vx: true },
        host_ip: "192.0.2.31".parse().unwrap(),
    };
    let mut known = |worker, claimed: protocol::net::NodeItself| {
        let query = TableQuery { sname: String::new(), sip: claimed.nsip.to_string() };
        world.state.node_itself_known(worker, &claimed, world.now);
        world.state.take_effects();
        world.state.table_wanted(other, &query, world.now);
        let told = world.state.take_effects().publish;
        told.iter().any(|(_, payload)| String::from_utf8_lossy(payload).contains("192.0.2.31"))
    };
    assert!(!known(worker, itself("10.18.0.62", None)), "of another block");
    assert!(!known(worker, itself("10.18.0.126", Some("fc00::23e"))), "of another IPv6 block");
    assert!(!known(other, itself("10.18.0.126", None)), "of one who has no block");
    assert!(known(worker, itself("10.18.0.126", Some("fc00::13e"))));
}

#[test]
fn the_root_is_told_where_an_instance_is_and_when_it_is_nowhere() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(2));
    let announced = |world: &mut World| {
        world.announced.drain(..).map(|instance| instance.namespace_ip).collect::<Vec<_>>()
    };
    assert_eq!(announced(&mut world), [Some("10.18.0.2".to_owned())]);
    world.disconnect(0);
    world.run(Duration::from_secs(40));
    assert_eq!(announced(&mut world), [None]);
}

#[test]
fn an_instance_of_a_service_made_anew_waits_until_the_old_one_is_gone() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    world.deaf(0, true);
    world.undeploy(None);
    let other: protocol::id::Id = "6b033dd4d683569b0801fa99".parse().unwrap();
    world.deploy_as(other, 0);
    world.run(Duration::from_secs(3));
    assert_eq!(world.state.services[&other].instances[&0].worker(), None);
    world.deaf(0, false);
    world.run(Duration::from_secs(60));
    assert_eq!(world.state.services[&other].instances[&0].status(), Status::Running);
    assert!(!world.state.services.contains_key(&SERVICE));
}

#[test]
fn tables_survive_a_restart() {
    let mut world = World::with_workers(1);
    world.deploy(0);
    world.run(Duration::from_secs(5));
    let name = world::name();
    let view: NetService = serde_json::from_value(json!({"_id": SERVICE, "job_name": name,
        "service_ip_list": [], "instance_list": [{"instance_number": 0, "instance_ip": "10.30.0.0"}]}))
    .unwrap();
    let subject = crate::cluster::directory::Subject::Name(name.clone());
    world.state.table_answered(&subject, Ok(Some(view)), world.now);
    world.run(Duration::from_millis(500));
    world.restart();
    assert!(world.state.directory.root_view(&name).is_some());
}
