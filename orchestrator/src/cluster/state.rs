//! Everything a cluster knows and decides: events in, effects out. No socket and no store, and no clock but what it is
//! told; whoever owns it ([`super::control`]) makes the effects happen, what is to be kept first.
//!
//! - [`demand`]: what is asked of the cluster: workers that join, instances to run and to remove.
//! - [`draining`]: what operators want of workers.
//! - [`hearing`]: whether workers can be heard at all.
//! - [`reports`]: what workers say of themselves and their instances.
//! - [`placing`]: which waiting instance gets which worker.
//! - [`links`]: which services are to be near to which others.
//! - [`nearness`]: what becomes of those that are not.
//! - [`peers`]: which worker measures the way to which others.
//! - [`overlay`]: addresses and tables.
//! - [`time`]: silence, pauses, and what is to be said again.
//! - [`summary`]: what the root is told.

mod demand;
mod draining;
mod forgetting;
mod hearing;
mod links;
mod nearness;
mod overlay;
mod peers;
mod placing;
mod reports;
mod saturation;
mod summary;
mod time;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use protocol::connectivity::Connectivity;
use protocol::id::Id;
use protocol::location::Location;
use protocol::name::{InstanceName, ServiceName};
use protocol::net::{NetInstance, NetService, Subnet};
use protocol::node::{Delete, Deploy};
use protocol::service::{Instance as Document, Service as ServiceDocument};
use protocol::topic::NodeTopic;
use serde::Serialize;
use serde_json::Value;

pub(super) use self::demand::Refused;
use self::links::Ties;
use self::nearness::Lateness;
use self::peers::Measuring;
use super::directory::{Directory, Subject};
use super::instance::{self, Address, Instance, Phase};
use super::places::Places;
use super::round_trips::RoundTrips;
use super::worker::{self, Worker};
use crate::parent::summary::Told;
use crate::schedule::Placement;

/// What workers are given at least to come back after a restart of the cluster or its broker, before they are given up.
const GRACE: Duration = Duration::from_secs(40);

#[derive(Debug)]
pub(super) struct State {
    /// As the root last gave it.
    id: Option<Id>,
    rules: Rules,
    workers: BTreeMap<Id, Worker>,
    /// The broker is out of reach, so that nobody's silence says anything of him.
    hears_nobody_since: Option<Instant>,
    by_host: HashMap<String, Id>,
    services: BTreeMap<Id, Service>,
    /// Two services bear one name while the older is being removed.
    by_name: HashMap<ServiceName, BTreeSet<Id>>,
    /// Services that ask to be near to others, whether those are here or not.
    linked: BTreeSet<Id>,
    ties: Ties,
    /// What workers have measured, and whom they measure.
    round_trips: RoundTrips,
    measuring: Measuring,
    lateness: Lateness,
    /// Where instances are.
    places: Places,
    /// Those that are placed elsewhere and not yet stopped where they were: there.
    former: Places,
    /// Instances without a worker.
    waiting: BTreeSet<(Id, u32)>,
    /// Room was made, or a worker came, since instances were last placed.
    room: bool,
    directory: Directory,
    /// Where the root was told that instances are.
    announced: HashMap<(Id, u32), Option<Address>>,
    /// Gone, and the root does not know yet.
    departed: Vec<(Id, ServiceName, Document)>,
    /// What the root was told last.
    told: Told,
    /// Which worker was told when to remove what it should not have.
    evicted: HashMap<(Id, InstanceName), Instant>,
    /// Workers whose subnet is being asked for at the root.
    subnets_asked: HashSet<Id>,
    effects: Effects,
}

/// What a cluster is told once, by its operator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The silence after which a worker's instances are placed elsewhere.
    pub(super) worker_timeout: Duration,
    /// The silence after which a worker is not expected any more.
    pub(super) forget_after: Duration,
    pub(super) placement: Placement,
    /// Where its workers are that do not say so themselves.
    pub(super) location: Option<Location>,
}

impl Rules {
    /// What workers are given in which to come back, before their silence counts.
    fn grace(&self) -> Duration {
        GRACE.saturating_sub(self.worker_timeout)
    }
}

#[derive(Debug)]
struct Service {
    /// Its instances are beside it, not in it.
    document: ServiceDocument,
    /// What its document says.
    connectivity: Vec<Connectivity>,
    instances: BTreeMap<u32, Instance>,
}

impl Service {
    fn new(document: ServiceDocument) -> Self {
        Self { connectivity: Connectivity::of(&document.sla), document, instances: BTreeMap::new() }
    }
}

/// What is to happen, in this order: keep, then tell.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Values by key; `None` deletes.
    pub(super) keep: BTreeMap<String, Option<Value>>,
    /// MQTT topics and payloads.
    pub(super) publish: Vec<(String, Vec<u8>)>,
    pub(super) ask: Vec<Ask>,
    /// Workers that are let in no more.
    pub(super) dismiss: Vec<Id>,
    /// Where instances are, for the root.
    pub(super) announce: Vec<(Id, NetInstance)>,
    /// There is something that the root should know soon.
    pub(super) report: bool,
}

/// Something to ask of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Table(Subject),
    /// Where the node itself is that has this NsIP.
    Node(IpAddr),
    Subnet(Id),
    /// No question: nobody has this block any more.
    Return(Subnet),
    /// No question: nobody here is interested in this service any more.
    Forget(ServiceName),
}

/// What the store held.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) id: Option<Id>,
    pub(super) workers: Vec<worker::Record>,
    pub(super) services: Vec<ServiceDocument>,
    pub(super) instances: Vec<instance::Record>,
    pub(super) tables: Vec<NetService>,
    /// Blocks that the root is to have back.
    pub(super) returns: Vec<Subnet>,
}

impl State {
    pub(super) fn new(kept: Kept, rules: Rules, now: Instant) -> Self {
        let mut state = Self {
            id: kept.id,
            rules,
            workers: BTreeMap::new(),
            hears_nobody_since: None,
            by_host: HashMap::new(),
            services: BTreeMap::new(),
            by_name: HashMap::new(),
            linked: BTreeSet::new(),
            ties: Ties::default(),
            round_trips: RoundTrips::default(),
            measuring: Measuring::default(),
            lateness: Lateness::default(),
            places: Places::default(),
            former: Places::default(),
            waiting: BTreeSet::new(),
            room: true,
            directory: Directory::default(),
            announced: HashMap::new(),
            departed: Vec::new(),
            told: Told::default(),
            evicted: HashMap::new(),
            subnets_asked: HashSet::new(),
            effects: Effects::default(),
        };
        for mut record in kept.workers {
            // Or else a cluster that did not know of plans has kept it.
            let is_of_its_plan = |subnet: &Subnet| subnet.plan.is_container(subnet.subnet_addr.into());
            if let Some(useless) = record.subnet.take_if(|subnet| !is_of_its_plan(subnet)) {
                state.effects.ask.push(Ask::Return(useless));
            }
            if let Some(subnet) = &record.subnet {
                state.directory.set_plan(subnet.plan);
            }
            state.by_host.insert(record.node.host.clone(), record.id);
            state.workers.insert(record.id, Worker::new(record, now + rules.grace()));
        }
        for document in kept.services {
            state.by_name.entry(document.job_name.clone()).or_default().insert(document.id);
            let id = document.id;
            state.services.insert(id, Service::new(document));
            state.link(id);
        }
        for table in kept.tables {
            state.directory.restore(table);
        }
        for record in kept.instances {
            let (id, number) = (record.service, record.document.instance_number);
            let Some(service) = state.services.get_mut(&id) else {
                tracing::warn!(service = %id, instance = number, "stored instance of no service");
                continue;
            };
            service.instances.insert(number, Instance::restore(record, now));
            state.settle(id, number);
        }
        state.effects.ask.extend(kept.returns.into_iter().map(Ask::Return));
        state.directory.restored();
        state.overlay_acts();
        state
    }

    pub(super) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = Id> {
        self.workers.keys().copied()
    }

    /// Everything that follows from a change of an instance, whatever the change was.
    fn changed(&mut self, id: Id, number: u32) {
        let Some(instance) = self.services.get(&id).and_then(|service| service.instances.get(&number)) else {
            return;
        };
        let key = instance_key(id, number);
        let value = encode(&instance.record);
        self.effects.keep.insert(key, Some(value));
        self.effects.report = true;
        self.told.changed.insert(id);
        self.settle(id, number);
    }

    /// What follows from the state an instance is in: whether it waits, and where it is reached.
    fn settle(&mut self, id: Id, number: u32) {
        let Some(service) = self.services.get(&id) else {
            return;
        };
        let Some(instance) = service.instances.get(&number) else {
            return;
        };
        if matches!(instance.phase, Phase::Waiting { .. }) {
            self.waiting.insert((id, number));
        } else {
            self.waiting.remove(&(id, number));
        }
        let (worker, address) = (instance.worker(), instance.address().cloned());
        let leaving = instance.leaving().cloned();
        let departing = instance.record.departing.clone();
        let former = instance.record.moving_from.or(departing.as_ref().map(|address| address.worker));
        let name = service.document.job_name.clone();
        self.places.set((id, number), worker);
        self.former.set((id, number), former);
        match leaving {
            Some(leaving) => self.directory.let_go(&name, number, leaving),
            None => self.directory.set_local(&name, number, address.clone()),
        }
        self.directory.set_departing(&name, number, departing);
        self.announce(id, number, address);
    }

    /// The instances on a worker, in whatever state.
    fn instances_on(&self, worker: Id) -> Vec<(Id, u32)> {
        self.places.on(worker).collect()
    }

    /// The services of this name.
    fn named(&self, name: &ServiceName) -> impl Iterator<Item = (Id, &Service)> {
        let ids = self.by_name.get(name).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.services.get(id)?)))
    }

    fn announce(&mut self, id: Id, number: u32, address: Option<Address>) {
        let known = self.announced.get(&(id, number));
        if known == Some(&address) || (known.is_none() && address.is_none()) {
            return;
        }
        let location = address.as_ref().and_then(|address| self.location(address.worker));
        self.effects.announce.push((id, announcement(number, address.as_ref(), location)));
        self.announced.insert((id, number), address);
    }

    /// The instance is gone: it is forgotten here, and the root is told once.
    fn gone(&mut self, id: Id, number: u32) {
        let Some(service) = self.services.get_mut(&id) else {
            return;
        };
        let Some(instance) = service.instances.remove(&number) else {
            return;
        };
        let name = service.document.job_name.clone();
        let mut document = instance.document();
        document.status = protocol::status::Status::Undeployed;
        document.status_detail = Some("Removed".to_owned());
        document.last_modified_timestamp = crate::clock::now();
        tracing::info!(service = %name, instance = number, "instance removed");
        if service.instances.is_empty() {
            self.services.remove(&id);
            self.unlink(id);
            self.effects.keep.insert(service_key(id), None);
            if let Some(ids) = self.by_name.get_mut(&name) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
        self.places.set((id, number), None);
        self.former.set((id, number), None);
        self.effects.keep.insert(instance_key(id, number), None);
        self.effects.report = true;
        self.waiting.remove(&(id, number));
        self.announced.remove(&(id, number));
        self.directory.remove_local(&name, number);
        self.departed.push((id, name, document));
        self.told.changed.insert(id);
        self.room = true;
    }

    /// Tells a worker to run an instance.
    fn tell_deploy(&mut self, id: Id, number: u32) {
        let Some(service) = self.services.get(&id) else {
            return;
        };
        let Some(instance) = service.instances.get(&number) else {
            return;
        };
        let Some(worker) = instance.wanted_on() else {
            return;
        };
        let document = instance.document();
        let deploy = Deploy {
            service: ServiceDocument {
                status: Some(document.status),
                instance_list: vec![document],
                ..service.document.clone()
            },
            instance_number: number,
        };
        self.publish(worker, NodeTopic::ControlDeploy, &deploy);
    }

    /// Tells a worker that it should not have this instance.
    fn tell_delete(
        &mut self,
        worker: Id,
        job_name: ServiceName,
        instance_number: u32,
        virtualization: String,
    ) {
        self.publish(worker, NodeTopic::ControlDelete, &Delete { job_name, virtualization, instance_number });
    }

    fn publish(&mut self, worker: Id, topic: NodeTopic, payload: &impl Serialize) {
        self.effects.publish.push((topic.of(&worker), encode(payload).to_string().into_bytes()));
    }

    fn phase(&self, id: Id, number: u32) -> Option<Phase> {
        Some(self.services.get(&id)?.instances.get(&number)?.phase)
    }

    fn instance_mut(&mut self, id: Id, number: u32) -> Option<&mut Instance> {
        self.services.get_mut(&id)?.instances.get_mut(&number)
    }
}

/// Our types have text keys and finite numbers only, so that they can always be written.
fn encode(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a value could not be written as JSON");
        Value::Null
    })
}

fn announcement(instance_number: u32, address: Option<&Address>, location: Option<Location>) -> NetInstance {
    NetInstance {
        instance_number,
        instance_ip: None,
        instance_ip_v6: None,
        cluster_id: None,
        worker_id: address.map(|address| address.worker),
        namespace_ip: address.map(|address| address.namespace_ip.clone()),
        namespace_ip_v6: address.map(|address| address.namespace_ip_v6.clone()),
        host_ip: address.map(|address| address.host_ip.clone()),
        host_port: address.map_or(0, |address| address.host_port),
        links: address.map(|address| address.links).unwrap_or_default(),
        location,
    }
}

/// Where the cluster's own id is kept.
pub(super) const OWN_ID: &str = "cluster";
pub(super) const WORKERS: &str = "worker/";
pub(super) const SERVICES: &str = "service/";
pub(super) const INSTANCES: &str = "instance/";
pub(super) const TABLES: &str = "table/";
pub(super) const RETURNS: &str = "return/";

fn worker_key(id: Id) -> String {
    format!("{WORKERS}{id}")
}

fn service_key(id: Id) -> String {
    format!("{SERVICES}{id}")
}

fn instance_key(service: Id, number: u32) -> String {
    format!("{INSTANCES}{service}/{number:010}")
}

fn return_key(subnet: &Subnet) -> String {
    format!("{RETURNS}{}", subnet.subnet_addr)
}

fn table_key(name: &ServiceName) -> String {
    format!("{TABLES}{name}")
}

#[cfg(test)]
mod tests;
