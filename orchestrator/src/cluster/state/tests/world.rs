//! Workers that obey, report every 2 s, and can be cut off; a store that keeps; a clock that is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use protocol::cluster::{Report, ReportedService};
use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::{NetInstance, ServiceDeployed};
use protocol::node::{DISK_FREE, Delete, Deploy, InstanceReport, InstanceResources, Node, ResourceReport};
use protocol::rtt::{RttPeer, RttPeers};
use protocol::service::Instance as Document;
use protocol::status::Status;
use protocol::topic::NodeTopic;
use serde_json::{Value, json};

use crate::cluster::state::{Ask, INSTANCES, Kept, RETURNS, Rules, SERVICES, State, TABLES, WORKERS};
use crate::parent::summary::{Scope, Summary};
use crate::schedule::Placement;

pub(super) const SERVICE: Id = Id::from_bytes([7; 12]);
const STEP: Duration = Duration::from_millis(500);
const REPORT_EVERY: u32 = 4;
const RULES: Rules = Rules {
    worker_timeout: Duration::from_secs(30),
    forget_after: Duration::from_secs(24 * 3600),
    placement: Placement::BestFit,
    location: None,
};

pub(super) fn name() -> ServiceName {
    "smp.bed.srv.bed".parse().unwrap()
}

/// An instance as its worker reports it.
pub(super) fn named(number: u32) -> InstanceResources {
    named_of(name(), number)
}

fn named_of(job_name: ServiceName, instance: u32) -> InstanceResources {
    InstanceResources {
        cpu_percent: "0.1".to_owned(),
        memory_percent: "0.1".to_owned(),
        disk: "1".to_owned(),
        logs: String::new(),
        job_name,
        virtualization: "docker".to_owned(),
        instance,
    }
}

pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Instant,
    pub(super) store: BTreeMap<String, Value>,
    /// Messages to workers, and values kept.
    pub(super) told: usize,
    pub(super) kept: usize,
    pub(super) announced: Vec<NetInstance>,
    /// Of the root.
    pub(super) asked: Vec<Ask>,
    /// Workers that are let in no more.
    pub(super) dismissed: Vec<Id>,
    workers: Vec<Simulated>,
    steps: u32,
    /// What a root knows that is told of changes only.
    known: BTreeMap<Id, ReportedService>,
}

#[derive(Debug)]
struct Simulated {
    id: Id,
    connected: bool,
    deaf: bool,
    running: BTreeMap<ServiceName, BTreeSet<u32>>,
    /// One of ours, which does not repeat itself. The others are Oakestra's.
    is_terse: bool,
    /// What it has named over this connection.
    named: Option<BTreeMap<ServiceName, BTreeSet<u32>>>,
    /// What it was told last of whom to measure.
    peers: Vec<RttPeer>,
}

impl World {
    pub(super) fn with_workers(count: u8) -> Self {
        let now = Instant::now();
        let state = State::new(Kept::default(), RULES, now);
        let mut world = Self {
            state,
            now,
            store: BTreeMap::new(),
            told: 0,
            kept: 0,
            announced: Vec::new(),
            asked: Vec::new(),
            dismissed: Vec::new(),
            workers: Vec::new(),
            steps: 0,
            known: BTreeMap::new(),
        };
        for number in 0..count {
            let node = Node {
                host: format!("pi{number}"),
                ip: format!("192.0.2.{}", u32::from(number) + 31),
                vcpus: 2,
                virtualization: vec!["docker".to_owned()],
                ..measured()
            };
            let id = world.state.register(node, || Id::from_bytes([number + 1; 12]), now);
            world.workers.push(Simulated {
                id,
                connected: false,
                deaf: false,
                running: BTreeMap::from([(name(), BTreeSet::new())]),
                is_terse: number % 2 == 0,
                named: None,
                peers: Vec::new(),
            });
            world.connect(number.into());
        }
        world
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// As a root that has just heard of the cluster is told.
    pub(super) fn all_told(&mut self) -> Report {
        self.summary().report
    }

    pub(super) fn summary(&mut self) -> Summary {
        self.tell_root(Scope::Since(1));
        self.state.summary(Scope::All, self.now)
    }

    /// A root that has heard everything so far is told what has changed, and then knows what one does that hears everything
    /// now.
    fn tell_root(&mut self, scope: Scope) {
        let Summary { report, departed } = self.state.summary(scope, self.now);
        for mut job in report.jobs {
            job.instance_list.retain(|instance| instance.status != Status::Undeployed);
            self.known.insert(job.id, job);
        }
        self.known.retain(|_, job| !job.instance_list.is_empty());
        self.state.reported(departed);
        let all = self.state.summary(Scope::All, self.now).report.jobs;
        let known: Vec<_> = self.known.values().cloned().collect();
        assert_eq!(known, all);
    }

    pub(super) fn id(&self, worker: usize) -> Id {
        self.workers[worker].id
    }

    pub(super) fn running(&self, worker: usize) -> &BTreeSet<u32> {
        &self.workers[worker].running[&name()]
    }

    /// Whom it was told to measure.
    pub(super) fn peers(&self, worker: usize) -> &[RttPeer] {
        &self.workers[worker].peers
    }

    /// The worker that runs an instance, if just one does.
    pub(super) fn runs(&self, service: &ServiceName, number: u32) -> Option<usize> {
        let on = |worker: &Simulated| worker.running.get(service).is_some_and(|it| it.contains(&number));
        let mut on = (0..self.workers.len()).filter(|worker| on(&self.workers[*worker]));
        on.next().filter(|_| on.next().is_none())
    }

    pub(super) fn is_connected(&self, worker: usize) -> bool {
        self.workers[worker].connected
    }

    pub(super) fn status(&self, number: u32) -> Option<Status> {
        Some(self.state.services.get(&SERVICE)?.instances.get(&number)?.status())
    }

    pub(super) fn status_all(&self, status: Status) -> bool {
        self.wanted().iter().all(|number| self.status(*number) == Some(status))
    }

    pub(super) fn detail(&self, number: u32) -> String {
        let instance = self.state.services.get(&SERVICE).and_then(|service| service.instances.get(&number));
        instance.and_then(|instance| instance.record.document.status_detail.clone()).unwrap_or_default()
    }

    pub(super) fn wanted(&self) -> BTreeSet<u32> {
        let instances = self.state.services.get(&SERVICE).map(|service| &service.instances);
        let wanted = instances.into_iter().flatten().filter(|(_, instance)| !instance.record.removing);
        wanted.map(|(number, _)| *number).collect()
    }

    pub(super) fn deploy(&mut self, number: u32) {
        self.deploy_as(SERVICE, number);
    }

    pub(super) fn deploy_as(&mut self, id: Id, number: u32) {
        self.deploy_described(id, number, &json!({}));
    }

    /// The service is described with these keys, too.
    pub(super) fn deploy_with(&mut self, number: u32, keys: &Value) {
        self.deploy_described(SERVICE, number, keys);
    }

    pub(super) fn deploy_described(&mut self, id: Id, number: u32, keys: &Value) {
        let mut document = json!({"_id": id, "job_name": name(), "microservice_name": "srv",
            "microservice_namespace": "bed", "virtualization": "docker", "code": "bed:1", "memory": 100, "vcpus": 1,
            "applicationID": "6b033dd4d683569b0801fa17", "app_name": "smp", "app_ns": "bed", "service_name": "srv",
            "service_ns": "bed", "image": "bed:1"});
        for (key, value) in keys.as_object().unwrap() {
            document[key] = value.clone();
        }
        let service = serde_json::from_value(document).unwrap();
        self.state.deploy(service, Document::new(number, Status::ClusterScheduled)).unwrap();
        self.settle();
    }

    pub(super) fn undeploy(&mut self, number: Option<u32>) {
        self.state.undeploy(SERVICE, number, self.now).unwrap();
        self.settle();
    }

    /// A worker reports so many MB free on its disk.
    pub(super) fn free_disk(&mut self, worker: usize, free: u64) {
        let disk_info = serde_json::from_value(json!({ DISK_FREE: free.to_string() })).unwrap();
        let node = Node { disk_info: Some(disk_info), ..measured() };
        self.state.node_report(self.id(worker), &node, self.now);
    }

    pub(super) fn disconnect(&mut self, worker: usize) {
        self.workers[worker].connected = false;
    }

    pub(super) fn connect(&mut self, worker: usize) {
        self.workers[worker].connected = true;
        self.workers[worker].named = None;
        self.state.worker_listens(self.id(worker), self.now);
        self.settle();
    }

    /// Its reports come again, over the session that it had.
    pub(super) fn resume(&mut self, worker: usize) {
        self.workers[worker].connected = true;
    }

    /// Takes commands and does nothing about them.
    pub(super) fn deaf(&mut self, worker: usize, deaf: bool) {
        self.workers[worker].deaf = deaf;
    }

    /// A container is gone, and its worker does not say so.
    pub(super) fn lose_container(&mut self, worker: usize, number: u32) {
        self.workers[worker].lose(&name(), number);
    }

    /// A container ends, and its worker says so.
    pub(super) fn fail(&mut self, worker: usize, number: u32) {
        if self.workers[worker].lose(&name(), number) && self.workers[worker].connected {
            self.report(worker, &name(), number, Status::Dead);
        }
        self.settle();
    }

    /// What an instance is there for is done.
    pub(super) fn end_job(&mut self, worker: usize, number: u32) {
        self.workers[worker].lose(&name(), number);
        self.report(worker, &name(), number, Status::Completed);
        self.settle();
    }

    /// The cluster is killed and started again; workers find it.
    pub(super) fn restart(&mut self) {
        let kept = Kept {
            id: None,
            workers: self.read(WORKERS),
            services: self.read(SERVICES),
            instances: self.read(INSTANCES),
            tables: self.read(TABLES),
            returns: self.read(RETURNS),
        };
        self.state = State::new(kept, RULES, self.now);
        self.known.clear();
        self.tell_root(Scope::All);
        self.settle();
        for worker in 0..self.workers.len() {
            if self.workers[worker].connected {
                self.connect(worker);
            }
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, prefix: &str) -> Vec<T> {
        let values = self.store.iter().filter(|(key, _)| key.starts_with(prefix));
        values.map(|(_, value)| serde_json::from_value(value.clone()).unwrap()).collect()
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += STEP;
            self.steps += 1;
            self.state.tick(self.now);
            if self.steps.is_multiple_of(REPORT_EVERY) {
                self.say_reports();
            }
            self.settle();
        }
    }

    /// Nothing happens for so long, but that the cluster looks at the clock now and then.
    pub(super) fn pass(&mut self, duration: Duration) {
        self.run(STEP);
        self.now += duration;
        self.run(STEP);
    }

    fn say_reports(&mut self) {
        self.tell_root(Scope::Since(1));
        for worker in self.workers.iter_mut().filter(|worker| worker.connected) {
            if worker.is_terse && worker.named.as_ref() == Some(&worker.running) {
                self.state.still_as_reported(worker.id, self.now);
                continue;
            }
            worker.named = Some(worker.running.clone());
            self.state.node_report(worker.id, &measured(), self.now);
            let running =
                worker.running.iter().flat_map(|(name, numbers)| numbers.iter().map(move |it| (name, *it)));
            let services = running.map(|(name, number)| named_of(name.clone(), number));
            let report = ResourceReport { services: services.collect(), more: false };
            self.state.resource_report(worker.id, report, self.now);
            if !worker.is_terse {
                // A list of another runtime, as Oakestra's workers send it.
                self.state.resource_report(worker.id, ResourceReport::default(), self.now);
            }
        }
    }

    /// What was decided happens, and what follows from it, until nothing more does.
    pub(super) fn settle(&mut self) {
        loop {
            self.state.place_waiting(self.now);
            let effects = self.state.take_effects();
            self.kept += effects.keep.len();
            for (key, value) in effects.keep {
                match value {
                    Some(value) => self.store.insert(key, value),
                    None => self.store.remove(&key),
                };
            }
            self.asked.extend(effects.ask);
            self.dismissed.extend(effects.dismiss);
            self.announced.extend(effects.announce.into_iter().map(|(_, instance)| instance));
            if effects.publish.is_empty() {
                return;
            }
            for (topic, payload) in effects.publish {
                self.deliver(&topic, &payload);
            }
        }
    }

    fn deliver(&mut self, topic: &str, payload: &[u8]) {
        let Some((node, topic)) = NodeTopic::parse(topic) else {
            return;
        };
        self.told += 1;
        let Some(index) = self.workers.iter().position(|worker| worker.id == node) else {
            return;
        };
        if !self.workers[index].connected || self.workers[index].deaf {
            return;
        }
        match topic {
            NodeTopic::ControlDeploy => {
                let deploy: Deploy = serde_json::from_slice(payload).unwrap();
                self.start(index, &deploy.service.job_name, deploy.instance_number);
            }
            NodeTopic::ControlDelete => {
                let delete: Delete = serde_json::from_slice(payload).unwrap();
                self.workers[index].lose(&delete.job_name, delete.instance_number);
                self.report(index, &delete.job_name, delete.instance_number, Status::Undeployed);
            }
            NodeTopic::RttPeers => {
                let RttPeers { peers } = serde_json::from_slice(payload).unwrap();
                self.workers[index].peers = peers;
            }
            _ => {}
        }
    }

    fn start(&mut self, worker: usize, service: &ServiceName, number: u32) {
        self.workers[worker].running.entry(service.clone()).or_default().insert(number);
        let deployed = ServiceDeployed {
            appname: service.clone(),
            status: "DEPLOYED".to_owned(),
            instance_number: number,
            nsip: [10, 18, 0, 2].into(),
            nsipv6: String::new(),
            host_port: 50103,
            links: protocol::link::LinkOffer { vx: true },
            host_ip: [192, 0, 2, 31].into(),
        };
        self.state.address_known(self.workers[worker].id, deployed, self.now);
        self.report(worker, service, number, Status::Created);
    }

    fn report(&mut self, worker: usize, service: &ServiceName, instance: u32, status: Status) {
        let report = InstanceReport {
            sname: service.clone(),
            status,
            status_detail: String::new(),
            instance,
            publicip: String::new(),
        };
        self.state.instance_report(self.workers[worker].id, report, self.now);
    }
}

impl Simulated {
    fn lose(&mut self, service: &ServiceName, number: u32) -> bool {
        self.running.get_mut(service).is_some_and(|numbers| numbers.remove(&number))
    }
}

fn measured() -> Node {
    Node { memory: 8000, memory_percent: 20.0, cpu_percent: 5.0, ..Node::default() }
}
