use protocol::cluster::{Cluster, ReportedWorker, Worker, WorkerState};
use protocol::id::Id;
use protocol::overview::{Code, Overview};
use protocol::service::{Instance, Service};
use protocol::status::Status;
use serde_json::json;

use super::overview;
use crate::root::application::Application;

const TOLD: f64 = 1_795_374_558.0;

fn id(number: u8) -> Id {
    Id::from_bytes([number; 12])
}

fn cluster(number: u8, name: &str, active: bool) -> Cluster {
    serde_json::from_value(json!({
        "_id": id(number), "active": active, "active_nodes": 2, "candidate_name": name, "cluster_name": name,
        "candidate_location": "", "cluster_location": "", "ip": "192.0.2.20", "port": "10100",
        "vcpus": 4, "total_cpu_cores": 4, "vgpus": 0, "total_gpu_cores": 0, "memory": 46400, "memory_in_mb": 46400,
        "cpu_percent": 1.0, "aggregated_cpu_percent": 1.0, "memory_percent": 2.5, "vram": 0, "vram_percent": 0.0,
        "gpu_temp": 0.0, "gpu_percent": 0, "gpu_drivers": null, "virtualization": [], "supported_addons": [],
        "csi_drivers": [], "cpu_history": [], "memory_history": [], "last_modified_timestamp": TOLD,
    }))
    .unwrap()
}

fn worker(name: &str, state: WorkerState, silent: u64) -> Worker {
    let worker = ReportedWorker {
        id: id(9),
        name: name.to_owned(),
        ip: "192.0.2.31".to_owned(),
        state,
        cordoned: false,
        draining: false,
        silent,
        vcpus: 4,
        cpu_percent: 1.0,
        memory: 1000,
        memory_percent: 1.0,
        architecture: "amd64".to_owned(),
        virtualization: Vec::new(),
        instances: 3,
        rtt_ms: None,
        itself: None,
    };
    let (cluster_name, cluster_active) = ("home".to_owned(), true);
    Worker { cluster_id: id(4), cluster_name, cluster_active, told_timestamp: TOLD, worker }
}

fn app(number: u8, name: &str, namespace: &str) -> Application {
    let (name, namespace) = (name.to_owned(), namespace.to_owned());
    Application {
        id: id(number),
        owner: "Admin".to_owned(),
        organization: None,
        name,
        namespace,
        description: String::new(),
        services: Vec::new(),
        extra: serde_json::Map::new(),
    }
}

fn service(app: &Application, number: u8, statuses: &[Status]) -> Service {
    let mut service: Service = serde_json::from_value(json!({
        "_id": id(number), "applicationID": app.id, "app_name": app.name, "app_ns": app.namespace,
        "job_name": format!("{}.{}.web.dev", app.name, app.namespace), "service_name": "web", "service_ns": "dev",
        "microserviceID": "", "microservice_name": "web", "microservice_namespace": "dev", "virtualization": "container",
        "code": "busybox", "image": "busybox",
    }))
    .unwrap();
    service.instance_list =
        (0..).zip(statuses).map(|(number, status)| Instance::new(number, *status)).collect();
    service
}

/// Each problem in a line.
fn told(overview: &Overview) -> Vec<String> {
    let line = |problem: &protocol::overview::Problem| {
        let name = problem.subject.as_ref().map_or("-", |subject| &subject.name);
        let since = problem.since.map_or(String::new(), |since| format!(" since {}", since - TOLD));
        format!("{name} {}{since}: {}", problem.code.word(), problem.message)
    };
    overview.problems.iter().map(line).collect()
}

#[test]
fn what_is_most_serious_comes_first() {
    let clusters = [cluster(3, "berlin", false), cluster(4, "home", true)];
    let mut of_lost = worker("pi-9", WorkerState::Dead, 600);
    of_lost.cluster_active = false;
    let mut held = worker("pi-4", WorkerState::Ready, 0);
    (held.worker.cordoned, held.worker.draining) = (true, true);
    let workers =
        [worker("pi-2", WorkerState::Unreachable, 9), worker("pi-3", WorkerState::Dead, 60), held, of_lost];
    let apps = [app(1, "shop", "dev")];
    let services = [service(&apps[0], 11, &[Status::Running, Status::Failed, Status::NodeScheduled])];
    let seen = overview(&clusters, &workers, &apps, &services);
    assert_eq!(
        told(&seen),
        [
            "berlin lost since 0: its services run on as last seen",
            "pi-3 dead since -60: its instances are placed elsewhere",
            "shop/web failed: 1 of 3 run; /1: no reason given; the cluster will try again",
            "pi-2 unreachable since -9: 3 instances there as last seen, nothing is moved yet",
        ]
    );
    assert_eq!((seen.clusters.active, seen.clusters.total), (1, 2));
    assert_eq!((seen.workers.active, seen.workers.cordoned, seen.workers.draining), (2, 1, 1));
    assert_eq!((seen.workers.cpus, seen.workers.memory_free_mb), (4, 46_400), "of the cluster in reach");
    let instances = seen.instances;
    assert_eq!((instances.running, instances.waiting, instances.failed), (1, 1, 1));
}

#[test]
fn of_a_cluster_without_its_broker_no_worker_is_blamed() {
    let mut deaf = cluster(4, "home", true);
    deaf.broker_away_since = Some(TOLD - 7.0);
    let workers = [worker("pi-2", WorkerState::Unreachable, 9), worker("pi-3", WorkerState::Dead, 60)];
    assert_eq!(
        told(&overview(&[deaf], &workers, &[], &[])),
        [
            "home without its broker since -7: its services run on as last seen, nothing is moved and nothing begun"
        ]
    );
}

#[test]
fn what_runs_but_not_as_it_asks_for_is_a_problem() {
    let apps = [app(1, "shop", "dev")];
    let mut web = service(&apps[0], 11, &[Status::Running, Status::Running]);
    web.instance_list[0].status_detail = Some("Running".to_owned());
    web.instance_list[1].status_detail = Some("Running, but its round trip to db is 42 ms".to_owned());
    let seen = overview(&[], &[], &apps, &[web]);
    assert_eq!(told(&seen), ["shop/web astray: /1: its round trip to db is 42 ms"]);
    assert_eq!(seen.instances.running, 2);
}

#[test]
fn a_name_carries_its_namespace_where_another_one_is_called_the_same() {
    let apps = [app(1, "shop", "dev"), app(2, "shop", "prod")];
    let services = [service(&apps[0], 11, &[Status::Requested]), service(&apps[1], 12, &[Status::Running])];
    let seen = overview(&[], &[], &apps, &services);
    assert_eq!(told(&seen), ["shop.dev/web waiting: 0 of 1 run; /0: waits for a decision where to run"]);
}

#[test]
fn clusters_without_any_worker_are_a_problem_and_nothing_at_all_is_none() {
    assert_eq!(overview(&[], &[], &[], &[]), Overview::default());
    let mut empty = cluster(4, "home", true);
    empty.active_nodes = 0;
    let seen = overview(&[empty], &[], &[], &[]);
    assert_eq!(seen.problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::NoWorkers]);
}
