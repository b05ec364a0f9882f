//! The decisions of a branch, without its doors.

use std::time::Duration;

use protocol::cluster::{Largest, Report, ReportedService, ReportedWorker, WorkerState};
use protocol::id::Id;
use protocol::net::{JobUpdate, UpdateKind};
use protocol::service::{Instance as Document, Service};
use protocol::status::Status;
use serde_json::{Value, json};

use super::{Restored, State, Unknown, Untaken};
use crate::branch::instance::Kept;
use crate::children::cluster::Cluster;
use crate::children::report::Read;
use crate::clock::Moment;
use crate::parent::summary::Scope;

const SERVICE: Id = Id::from_bytes([9; 12]);

/// A branch `north`, what its store holds, and a clock that is told.
struct World {
    state: State,
    stored: std::collections::BTreeMap<String, Value>,
    now: f64,
}

fn id(number: u8) -> Id {
    Id::from_bytes([number; 12])
}

fn cluster(number: u8) -> Cluster {
    Cluster {
        id: id(number),
        name: format!("c{number}"),
        location: "here".to_owned(),
        ip: "192.0.2.1".to_owned(),
        port: 10100,
        net_port: 10110,
        cordoned: false,
    }
}

fn at(steady: f64) -> Moment {
    Moment { wall: 1_795_374_561.0, steady }
}

fn job(more: &Value) -> Service {
    let mut job = json!({ "_id": SERVICE, "job_name": "a.n.s.n", "microservice_name": "s", "microservice_namespace": "n",
        "microserviceID": SERVICE, "virtualization": "docker", "code": "c", "memory": 100, "vcpus": 1, "constraints": [],
        "applicationID": SERVICE, "app_name": "a", "app_ns": "n", "service_name": "s", "service_ns": "n", "image": "c" });
    for (key, value) in more.as_object().unwrap() {
        job[key] = value.clone();
    }
    serde_json::from_value(job).unwrap()
}

fn report(memory: u64) -> Report {
    Report {
        vcpus: 4,
        memory,
        active_nodes: 2,
        cpu_percent: 10.0,
        virtualization: vec!["docker".to_owned()],
        workers: Some(Vec::new()),
        ..Report::default()
    }
}

impl World {
    /// With clusters `c1`, `c2`, … of so much memory.
    fn new(memory: &[u64]) -> Self {
        let state = State::new("north".to_owned(), Duration::from_secs(60), Restored::default(), at(0.0));
        let mut world = Self { state, stored: Default::default(), now: 0.0 };
        for (number, memory) in (1..).zip(memory) {
            world.state.cluster_is_back(cluster(number), at(world.now));
            world.hear(number, *memory, &[]).unwrap();
        }
        world
    }

    /// What happens after each batch of events.
    fn settle(&mut self) {
        self.state.place_waiting(at(self.now));
        for (key, value) in self.state.take_effects().keep {
            match value {
                Some(value) => drop(self.stored.insert(key, value)),
                None => drop(self.stored.remove(&key)),
            }
        }
    }

    /// A cluster reports instances of the service.
    fn hear(&mut self, number: u8, memory: u64, instances: &[(u32, Status)]) -> Result<(), Untaken> {
        let instance_list =
            instances.iter().map(|(number, status)| Document::new(*number, *status)).collect::<Vec<_>>();
        let job_name = "a.n.s.n".parse().unwrap();
        let job = ReportedService { id: SERVICE, job_name, status: None, instance_list };
        let jobs = if instances.is_empty() { Vec::new() } else { vec![job] };
        let read = Read { report: report(memory), jobs, is_whole: true };
        let taken = self.state.reported(id(number), read, 7, at(self.now)).map(drop);
        self.settle();
        taken
    }

    fn deploy(&mut self, number: u32, more: &Value) {
        self.state.deploy(job(more), Document::new(number, Status::ClusterScheduled));
        self.settle();
    }

    /// What clusters have yet to be told: `c1 deploy 0`.
    fn commands(&self) -> Vec<String> {
        let commands = self.stored.iter().filter(|(key, _)| key.starts_with("command/"));
        commands
            .map(|(key, value)| {
                let cluster: Id = key.split('/').nth(1).unwrap().parse().unwrap();
                let (verb, number) = value["kind"].as_object().unwrap().iter().next().unwrap();
                let cluster = (1..9).find(|number| id(*number) == cluster).unwrap();
                format!("c{cluster} {verb} {number}")
            })
            .collect()
    }

    /// As the one above is told.
    fn told(&mut self) -> Report {
        self.state.summary(Scope::All, at(self.now)).report
    }

    fn status(&mut self, number: u32) -> (Status, String) {
        let told = self.told();
        let instances = told.jobs.into_iter().flat_map(|job| job.instance_list);
        let own = instances.into_iter().find(|instance| instance.instance_number == number).unwrap();
        (own.status, own.status_detail.unwrap_or_default())
    }

    /// So many seconds pass in which these clusters report what they have.
    fn pass(&mut self, seconds: u32, reporting: &[(u8, &[(u32, Status)])]) {
        for _ in 0..seconds {
            self.now += 1.0;
            for (number, instances) in reporting {
                self.hear(*number, 1000, instances).unwrap();
            }
            self.state.tick(at(self.now));
            self.settle();
        }
    }

    /// Another one on what this one has stored.
    fn restarted(&self) -> Self {
        let kept = |prefix: &str| -> Vec<Value> {
            self.stored
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
                .map(|(_, value)| value.clone())
                .collect()
        };
        let instances: Vec<Kept> =
            kept("instance/").into_iter().map(|value| serde_json::from_value(value).unwrap()).collect();
        let interests = self.stored.keys().filter_map(|key| key.strip_prefix("interest/")?.split_once('/'));
        let restored = Restored {
            id: kept("branch").pop().map(|value| serde_json::from_value(value).unwrap()),
            clusters: vec![cluster(1), cluster(2)],
            instances,
            interests: interests.map(|(name, id)| (name.parse().unwrap(), id.parse().unwrap())).collect(),
        };
        let state = State::new("north".to_owned(), Duration::from_secs(60), restored, at(self.now));
        Self { state, stored: self.stored.clone(), now: self.now }
    }
}

#[test]
fn an_instance_goes_to_the_cluster_with_most_memory_and_twice_is_once() {
    let mut world = World::new(&[500, 2000]);
    world.deploy(0, &json!({}));
    world.deploy(0, &json!({}));
    assert_eq!(world.commands(), ["c2 deploy 0"]);
    let order = world.state.order(id(2), SERVICE, 0).unwrap();
    assert_eq!(
        order.instance_list[0].cluster_id,
        Some(id(2)),
        "clusters know themselves by the branch's ids"
    );
    assert_eq!(world.state.order(id(1), SERVICE, 0), None);
    assert_eq!(world.status(0).0, Status::ClusterScheduled);
    world.hear(2, 1900, &[(0, Status::Running)]).unwrap();
    assert_eq!(world.status(0).0, Status::Running);
}

#[test]
fn who_refuses_is_not_asked_again_and_the_reason_goes_up_when_all_have() {
    let mut world = World::new(&[500, 2000]);
    world.deploy(0, &json!({}));
    world.state.refused(id(2), SERVICE, 0, "cluster c2 answered 400.".to_owned(), at(1.0));
    world.settle();
    assert_eq!(world.commands(), ["c1 deploy 0"]);
    world.state.refused(id(1), SERVICE, 0, "cluster c1 answered 400.".to_owned(), at(1.0));
    world.settle();
    assert_eq!(world.commands(), [] as [&str; 0]);
    let (status, detail) = world.status(0);
    assert!(status.is_unschedulable(), "{status}");
    assert!(detail.starts_with("cluster c1 answered 400."), "{detail}");
    world.pass(70, &[(1, &[]), (2, &[])]);
    assert_eq!(world.commands().len(), 1, "after a while they are asked again");
}

#[test]
fn what_finds_no_worker_goes_to_a_sibling_and_then_says_so_above() {
    let mut world = World::new(&[500, 2000]);
    world.deploy(0, &json!({}));
    world.hear(2, 2000, &[(0, Status::NoWorkerCapacity)]).unwrap();
    assert_eq!(world.commands(), ["c1 deploy 0", "c2 remove 0"]);
    assert_eq!(world.status(0).0, Status::ClusterScheduled, "above there is nothing to be done");
    world.hear(1, 500, &[(0, Status::NoWorkerCapacity)]).unwrap();
    assert_eq!(world.commands(), ["c1 deploy 0", "c2 remove 0"], "the other one has just said no");
    assert_eq!(world.status(0).0, Status::NoWorkerCapacity);
    let told = world.state.summary(Scope::Since(1), at(world.now)).report;
    assert_eq!(told.jobs.len(), 1, "with each report, changed or not");
}

#[test]
fn what_is_taken_back_is_gone_and_whoever_runs_it_still_is_told() {
    let mut world = World::new(&[500]);
    assert_eq!(world.state.undeploy(SERVICE, None), Err(Unknown::Service(SERVICE)));
    world.deploy(0, &json!({}));
    world.deploy(1, &json!({}));
    let unknown = Unknown::Instance { service: SERVICE, number: 7 };
    assert_eq!(world.state.undeploy(SERVICE, Some(7)), Err(unknown));
    world.state.undeploy(SERVICE, None).unwrap();
    world.settle();
    assert_eq!(world.commands(), ["c1 remove 0", "c1 remove 1"]);
    assert!(!world.stored.keys().any(|key| key.starts_with("instance/")), "{:?}", world.stored);
    world.hear(1, 500, &[(0, Status::Undeployed)]).unwrap();
    assert_eq!(world.status(0).0, Status::Undeployed);
    let told = world.state.summary(Scope::All, at(world.now)).departed;
    world.state.departed_told(told);
    assert_eq!(world.told().jobs, []);
    world.stored.clear();
    world.hear(1, 500, &[(1, Status::Running)]).unwrap();
    assert_eq!(world.commands(), ["c1 remove 1"]);
}

#[test]
fn what_a_silent_cluster_has_goes_to_its_sibling_when_its_time_is_up() {
    let mut world = World::new(&[500, 2000]);
    world.deploy(0, &json!({}));
    world.deploy(1, &json!({ "on_disconnect": "keep" }));
    world.stored.retain(|key, _| !key.starts_with("command/"));
    let running = [(0, Status::Running), (1, Status::Running)];
    world.hear(2, 1000, &running).unwrap();
    world.pass(59, &[(1, &[])]);
    assert_eq!(world.commands(), [] as [&str; 0]);
    assert!(world.status(0).1.contains("not heard of"));
    world.pass(3, &[(1, &[])]);
    assert_eq!(world.commands(), ["c1 deploy 0", "c2 remove 0"]);
    assert_eq!(world.status(1).0, Status::Running, "it is to be kept");
}

#[test]
fn what_fits_nowhere_else_is_left_with_the_silent_cluster_and_told_above() {
    let mut world = World::new(&[500]);
    world.deploy(0, &json!({}));
    world.stored.retain(|key, _| !key.starts_with("command/"));
    world.hear(1, 500, &[(0, Status::Running)]).unwrap();
    world.pass(62, &[]);
    assert!(world.status(0).0.is_unschedulable());
    assert_eq!(world.commands(), [] as [&str; 0]);
    assert_eq!(world.hear(1, 500, &[]), Err(Untaken::Unregistered), "it is to tell everything");
    world.state.cluster_is_back(cluster(1), at(world.now));
    world.hear(1, 500, &[(0, Status::Running)]).unwrap();
    assert_eq!(world.status(0).0, Status::Running);
}

#[test]
fn a_branch_that_was_named_grants_that_and_may_name_one_of_its_clusters() {
    let mut world = World::new(&[500, 2000]);
    for (number, constraint, expected) in [
        (0, json!({ "type": "direct", "cluster": "north" }), "c2 deploy 0"),
        (1, json!({ "type": "clusters", "allowed": ["north", "south"] }), "c2 deploy 1"),
        (2, json!({ "type": "clusters", "allowed": ["north", "c1"] }), "c1 deploy 2"),
    ] {
        // Each instance is one of a service of its own, as it was described when it was asked for.
        world.deploy(number, &json!({ "constraints": [constraint] }));
        assert!(world.commands().contains(&expected.to_owned()), "{:?}", world.commands());
    }
    for (number, left) in
        [(0, json!([])), (1, json!([])), (2, json!([{ "type": "clusters", "allowed": ["north", "c1"] }]))]
    {
        let orders: Vec<_> = [1, 2]
            .into_iter()
            .filter_map(|cluster| world.state.order(id(cluster), SERVICE, number))
            .collect();
        assert_eq!(
            json!(orders[0].sla.constraints),
            left,
            "for a branch below this one, it has been granted"
        );
    }
    world.deploy(3, &json!({ "constraints": [{ "type": "direct", "cluster": "north", "node": "pi" }] }));
    let order = world.state.order(id(2), SERVICE, 3).unwrap();
    assert_eq!(json!(order.sla.constraints), json!([{ "type": "direct", "cluster": "", "node": "pi" }]));
    world.deploy(4, &json!({ "constraints": [{ "type": "clusters", "allowed": ["c9"] }] }));
    assert!(world.status(4).1.contains("allowed are only c9"), "{:?}", world.status(4));
}

#[test]
fn the_one_above_sees_one_cluster_with_what_all_of_them_have() {
    let mut world = World::new(&[500, 2000]);
    let largest = Largest {
        memory: 300,
        disk: Some(10),
        vcpus: 2,
        architectures: vec!["arm64".to_owned()],
        locations: Some(Vec::new()),
        ..Largest::default()
    };
    let worker = ReportedWorker {
        id: id(77),
        name: "pi".to_owned(),
        ip: String::new(),
        state: WorkerState::Ready,
        cordoned: false,
        draining: false,
        silent: 0,
        vcpus: 2,
        cpu_percent: 1.0,
        memory: 300,
        memory_percent: 1.0,
        architecture: "arm64".to_owned(),
        virtualization: Vec::new(),
        instances: 0,
        rtt_ms: None,
        itself: None,
    };
    let said = Report {
        largest: Some(largest),
        workers: Some(vec![worker]),
        active_nodes: 1,
        cpu_percent: 40.0,
        ..report(500)
    };
    let read = Read { report: said, jobs: Vec::new(), is_whole: true };
    world.state.reported(id(1), read, 7, at(0.0)).unwrap();
    let told = world.told();
    assert_eq!((told.memory, told.vcpus, told.active_nodes), (2500, 8, 3));
    assert!((told.cpu_percent - 20.0).abs() < 1e-9, "each worker counts as much: {}", told.cpu_percent);
    assert_eq!(told.virtualization, ["docker"]);
    let largest = told.largest.unwrap();
    assert_eq!((largest.memory, largest.vcpus, largest.disk), (2000, 4, None), "c2 does not say");
    assert_eq!(largest.architectures, [] as [&str; 0], "nor which there are");
    let state = |told: &Report| told.workers.as_ref().unwrap()[0].state;
    assert_eq!(told.workers.as_ref().unwrap()[0].name, "pi");
    world.now = 40.0;
    assert_eq!(state(&world.told()), WorkerState::Unreachable, "its cluster is silent");
    assert_eq!(world.told().active_nodes, 0);
}

#[test]
fn who_asked_for_a_table_is_told_of_changes_but_not_of_its_own() {
    let mut world = World::new(&[500, 2000]);
    let name = "a.n.s.n".parse().unwrap();
    assert!(world.state.interested(&name, &[id(1), id(2)]));
    assert!(!world.state.interested(&name, &[id(2)]), "it was before");
    world.deploy(0, &json!({}));
    let (known, numbers) = world.state.theirs(SERVICE, &[id(2)]).unwrap();
    assert_eq!((known, numbers.len()), (name.clone(), 1));
    assert!(world.state.theirs(SERVICE, &[id(1)]).unwrap().1.is_empty(), "it has none");
    world.state.settled(&name, &numbers, &[id(2)]);
    world.settle();
    let notices = |world: &World| {
        world.stored.keys().filter(|key| key.starts_with("notice/")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(notices(&world), [format!("notice/{}/a.n.s.n/0", id(1))]);

    world.stored.retain(|key, _| !key.starts_with("notice/"));
    let mut world = world.restarted();
    assert!(world.state.disinterested(&name, &[id(1)]), "another one is");
    let update = JobUpdate { job_name: name.clone(), instance_number: -1, kind: UpdateKind::Undeployment };
    world.state.table_changed(&update);
    world.settle();
    assert_eq!(notices(&world), [format!("notice/{}/a.n.s.n/-1", id(2))]);
    assert!(!world.state.disinterested(&name, &[id(2)]));
    world.settle();
    assert!(!world.stored.keys().any(|key| key.starts_with("interest/")));
}

#[test]
fn a_restart_knows_what_was_decided_and_clusters_begin_anew_with_the_one_above() {
    let mut world = World::new(&[500, 2000]);
    world.state.parent_is_back(id(42));
    world.state.cluster_is_back(cluster(1), at(0.0));
    world.state.cluster_is_back(cluster(2), at(0.0));
    world.deploy(0, &json!({}));
    world.hear(2, 2000, &[(0, Status::Running)]).unwrap();
    let mut world = world.restarted();
    assert_eq!(world.state.id(), Some(id(42)));
    let told = world.told();
    assert_eq!(told.active_nodes, 0, "nothing is known of workers yet");
    assert_eq!(told.jobs, [], "whether it still runs is not known either");
    world.state.parent_is_back(id(42));
    assert_eq!(world.hear(2, 2000, &[]), Err(Untaken::Unregistered));
    let of_oakestra = Report { workers: None, ..report(500) };
    let read = Read { report: of_oakestra, jobs: Vec::new(), is_whole: true };
    assert!(world.state.reported(id(1), read, 7, at(1.0)).is_ok(), "it would not know what to do");
    world.state.cluster_is_back(cluster(2), at(1.0));
    world.hear(2, 2000, &[(0, Status::Running)]).unwrap();
    assert_eq!((world.told().active_nodes, world.status(0).0), (4, Status::Running));
}

#[test]
fn a_cluster_that_has_lost_its_memory_is_told_again() {
    let mut world = World::new(&[500]);
    world.deploy(0, &json!({}));
    world.hear(1, 500, &[(0, Status::Running)]).unwrap();
    world.stored.retain(|key, _| !key.starts_with("command/"));
    world.state.cluster_is_back(cluster(1), at(1.0));
    world.now = 30.0;
    world.hear(1, 500, &[]).unwrap();
    assert_eq!(world.commands(), ["c1 deploy 0"]);
}
