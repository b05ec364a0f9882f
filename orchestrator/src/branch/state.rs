//! Everything that a branch knows and decides: events in, effects out. No socket and no store, and no clock but what it is told;
//! whoever owns it ([`super::control`]) makes the effects happen, what is to be kept first.
//!
//! - [`given`]: what the one above wants to run, and to run no more.
//! - [`placing`]: which cluster gets what; what it refuses, or has no room for, goes to the next.
//! - [`outage`]: clusters that are not heard of.
//! - [`reports`]: what clusters say.
//! - [`tables`]: which clusters are told when a table changes.
//! - [`summary`]: what the one above is told.

mod given;
mod outage;
mod placing;
mod reports;
mod summary;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::service::Instance as Document;
use serde::Serialize;
use serde_json::Value;

pub(super) use self::given::Unknown;
use self::outage::Watch;
pub(super) use self::reports::Untaken;
use super::instance::{Instance, Kept};
use super::key;
use crate::children::cluster::Cluster;
use crate::children::command::{Command, CommandKind};
use crate::children::key as of_cluster;
use crate::children::live::Live;
use crate::clock::Moment;
use crate::parent::summary::Told;

#[derive(Debug)]
pub(super) struct State {
    /// Its own, by which services may name it.
    name: String,
    id: Option<Id>,
    /// The silence after which what a cluster has goes to others.
    cluster_timeout: Duration,
    clusters: BTreeMap<Id, Cluster>,
    live: Live,
    services: BTreeMap<Id, BTreeMap<u32, Instance>>,
    /// Without a cluster.
    waiting: BTreeSet<(Id, u32)>,
    /// Something has changed since they were last tried.
    room: bool,
    watch: Watch,
    /// Clusters that are to register anew, and so to say everything again and ask for everything again.
    anew: BTreeSet<Id>,
    interests: BTreeMap<ServiceName, BTreeSet<Id>>,
    /// Gone, and the one above does not know yet.
    departed: Vec<(Id, ServiceName, Document)>,
    told: Told,
    effects: Effects,
}

/// What is to happen, in this order: keep, then tell.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Values by key; `None` deletes.
    pub(super) keep: BTreeMap<String, Option<Value>>,
    /// There is something to tell clusters.
    pub(super) commands: bool,
    pub(super) notices: bool,
    /// Clusters that were heard of.
    pub(super) heard: Vec<Id>,
    /// There is something that the one above should know soon.
    pub(super) report: bool,
}

/// What the store held.
#[derive(Debug, Default)]
pub(super) struct Restored {
    pub(super) id: Option<Id>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) instances: Vec<Kept>,
    pub(super) interests: Vec<(ServiceName, Id)>,
}

impl State {
    pub(super) fn new(name: String, cluster_timeout: Duration, restored: Restored, now: Moment) -> Self {
        let mut services: BTreeMap<Id, BTreeMap<u32, Instance>> = BTreeMap::new();
        let mut waiting = BTreeSet::new();
        for kept in restored.instances {
            let (service, number) = (kept.service.id, kept.document.instance_number);
            if kept.cluster.is_none() {
                waiting.insert((service, number));
            }
            services.entry(service).or_default().insert(number, Instance::of(kept));
        }
        let mut interests: BTreeMap<ServiceName, BTreeSet<Id>> = BTreeMap::new();
        for (name, cluster) in restored.interests {
            interests.entry(name).or_default().insert(cluster);
        }
        Self {
            name,
            id: restored.id,
            cluster_timeout,
            clusters: restored.clusters.into_iter().map(|cluster| (cluster.id, cluster)).collect(),
            live: Live::new(now, cluster_timeout.as_secs_f64()),
            services,
            waiting,
            room: false,
            watch: Watch::default(),
            anew: BTreeSet::new(),
            interests,
            departed: Vec::new(),
            told: Told::default(),
            effects: Effects::default(),
        }
    }

    pub(super) fn id(&self) -> Option<Id> {
        self.id
    }

    pub(super) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// The branch has registered above, for the first time or again. Either side may have missed something meanwhile, so that
    /// its clusters are to begin anew, too: then they tell where everything is, and ask for all tables.
    pub(super) fn parent_is_back(&mut self, id: Id) {
        if self.id != Some(id) {
            self.id = Some(id);
            self.effects.keep.insert(key::OWN_ID.to_owned(), Some(encode(&id)));
        }
        self.anew = self.clusters.keys().copied().collect();
        self.effects.report = true;
    }

    /// A cluster has registered, and is stored.
    pub(super) fn cluster_is_back(&mut self, cluster: Cluster, now: Moment) {
        let id = cluster.id;
        self.anew.remove(&id);
        self.live.greeted(id, now);
        self.clusters.insert(id, cluster);
        self.heard(id);
    }

    /// A cluster is reached elsewhere, and that is stored.
    pub(super) fn cluster_moved(&mut self, cluster: Cluster) {
        self.clusters.insert(cluster.id, cluster);
    }

    fn heard(&mut self, cluster: Id) {
        self.room = true;
        self.effects.heard.push(cluster);
        // Looked through again, so that one of which nobody was woken waits no longer than until the next report.
        self.effects.commands = true;
        self.effects.notices = true;
    }

    fn instance_mut(&mut self, service: Id, number: u32) -> Option<&mut Instance> {
        self.services.get_mut(&service)?.get_mut(&number)
    }

    /// An instance is another one than was kept.
    fn keep(&mut self, service: Id, number: u32) {
        let instance = self.services.get(&service).and_then(|instances| instances.get(&number));
        let value = instance.map(|instance| encode(&instance.kept));
        self.effects.keep.insert(key::instance(service, number), value);
        self.changed(service);
    }

    /// The one above should know soon.
    fn changed(&mut self, service: Id) {
        self.told.changed.insert(service);
        self.effects.report = true;
    }

    /// Leaves a command for a cluster, in place of what it was to be told about this instance.
    fn command(&mut self, cluster: Id, service: Id, kind: CommandKind) {
        let key = match kind {
            CommandKind::Deploy(number) | CommandKind::Remove(number) => {
                of_cluster::command(cluster, service, number)
            }
            CommandKind::RemoveAll => of_cluster::command(cluster, service, -1),
        };
        self.effects.keep.insert(key, Some(encode(&Command { service, kind })));
        self.effects.commands = true;
    }
}

/// What is kept always can be.
fn encode(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
