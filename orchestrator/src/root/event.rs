//! What has happened, as far as the root has seen it: told from what is different of a service, or in a report. The last ones are
//! kept, in memory only; who listens is told of them (`stream.rs`). Pure, but for [`Events`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::cluster::{ReportedWorker, WorkerState};
use protocol::event::{Code, Event, Kind, Subject};
use protocol::id::Id;
use protocol::status::Status;

use super::application::Application;
use super::key;
use super::record::{Instance, Record};
use super::stream::Owner;
use crate::children::cluster::Cluster;
use crate::clock;
use crate::standing::{Mood, cause, mood};
use crate::store::{Store, StoreError};

/// Events that are kept.
const KEPT_MAX: usize = 1000;
/// Bytes of a message: reasons come from workers.
const MESSAGE_MAX: usize = 500;

/// Something that has happened, without its time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Happening {
    pub subject: Subject,
    pub code: Code,
    pub message: String,
}

/// The last that have happened.
#[derive(Debug)]
pub(super) struct Events(Mutex<History>);

#[derive(Debug, Default)]
struct History {
    /// When the root was started: of two roots, the later has the later events.
    begun: u32,
    /// How many there have been.
    count: u64,
    kept: VecDeque<(Event, Owner)>,
    /// Name and organization of the user whose an application is.
    owners: BTreeMap<Id, (String, Id)>,
    /// Of clusters, and of workers with that of their cluster, as events name them.
    names: Names,
}

/// Names of clusters and workers.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<Id, String>);

impl Names {
    fn of(&self, id: Id) -> String {
        self.0.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}

impl Default for Events {
    fn default() -> Self {
        let begun = u32::try_from(clock::seconds()).unwrap_or(u32::MAX);
        Self(Mutex::new(History { begun, ..History::default() }))
    }
}

impl Events {
    /// Nothing has happened yet; but it is known whose the applications are, and what clusters are called.
    pub(super) async fn load(store: &Store, root_organization: Id) -> Result<Self, StoreError> {
        let events = Self::default();
        for (_, entry) in store.list::<Application>(key::APPLICATIONS).await? {
            let Application { id, owner, organization, .. } = entry.value;
            events.belongs(id, (owner, organization.unwrap_or(root_organization)));
        }
        for (_, entry) in store.list::<Cluster>(crate::children::key::CLUSTERS).await? {
            events.is_called(entry.value.id, &entry.value.name);
        }
        Ok(events)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose an application is, and so what happens to its services.
    pub(super) fn belongs(&self, application: Id, owner: (String, Id)) {
        self.history().owners.insert(application, owner);
    }

    /// An application is gone, with all of its services.
    pub(super) fn belongs_to_nobody(&self, application: Id) {
        self.history().owners.remove(&application);
    }

    /// What a cluster is called.
    pub(super) fn is_called(&self, cluster: Id, name: &str) {
        self.history().names.0.insert(cluster, name.to_owned());
    }

    /// Something has happened to a cluster.
    pub(super) fn of_cluster(&self, id: Id, code: Code, message: impl Into<String>) {
        let mut history = self.history();
        let subject = Subject { kind: Kind::Cluster, id, name: history.names.of(id) };
        history.add(Happening { subject, code, message: message.into() }, &None);
    }

    /// A service has become another one, or has come or gone.
    pub(super) fn of_service(&self, before: Option<&Record>, after: Option<&Record>) {
        let Some(known) = after.or(before) else { return };
        let mut history = self.history();
        let owner = history.owners.get(&known.service.application_id).cloned();
        // Of an application that is not known here, only those learn who look after all.
        let owner = owner.or_else(|| Some((known.owner.clone(), Id::from_bytes([0; 12]))));
        for happening in of_service(before, after, &history.names) {
            history.add(happening, &owner);
        }
    }

    /// A cluster has told of its workers. `before`: what it had told; nothing, if this is the first time, and then nothing has
    /// happened.
    pub(super) fn of_workers(&self, cluster: Id, before: Option<&Seen>, after: &[ReportedWorker]) {
        let mut history = self.history();
        let cluster = history.names.of(cluster);
        for worker in after {
            let name = format!("{cluster}/{}", worker.name);
            if history.names.0.get(&worker.id) != Some(&name) {
                history.names.0.insert(worker.id, name);
            }
        }
        let Some(before) = before else { return };
        for happening in of_workers(before, after, &history.names) {
            if happening.code == Code::Gone {
                history.names.0.remove(&happening.subject.id);
            }
            history.add(happening, &None);
        }
    }

    /// The oldest first, each with whose it is.
    pub(super) fn all(&self) -> Vec<(Event, Owner)> {
        self.history().kept.iter().cloned().collect()
    }
}

impl History {
    fn add(&mut self, happening: Happening, owner: &Owner) {
        let Happening { subject, code, message } = happening;
        self.count += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.begun.to_be_bytes());
        id[4..].copy_from_slice(&self.count.to_be_bytes());
        let event = Event {
            id: Id::from_bytes(id),
            ts: clock::now(),
            severity: code.severity(),
            subject,
            code,
            message: shortened(message),
        };
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((event, owner.clone()));
    }
}

fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_MAX));
    message
}

fn of_service(before: Option<&Record>, after: Option<&Record>, names: &Names) -> Vec<Happening> {
    let mut all = Vec::new();
    let Some(known) = after.or(before) else { return all };
    let service = &known.service;
    let label = format!("{}/{}", service.app_name, service.service_name);
    let mut note = |number: Option<u32>, code, message: String| {
        let (kind, name) = match number {
            Some(number) => (Kind::Instance, format!("{label}/{number}")),
            None => (Kind::Service, label.clone()),
        };
        all.push(Happening { subject: Subject { kind, id: service.id, name }, code, message });
    };
    match (before, after) {
        (Some(before), Some(after)) => {
            let difference = after.since(before);
            if difference.head.is_some_and(|head| head.service.sla != before.service.sla) {
                note(None, Code::Changed, "for instances that are started from now on".to_owned());
            }
            for instance in difference.instances {
                of_instance(before.instance(instance.number), instance, names, &mut |code, message| {
                    note(Some(instance.number), code, message);
                });
            }
            for number in difference.gone {
                note(Some(number), Code::Removed, String::new());
            }
        }
        (None, Some(after)) => note(None, Code::Created, after.service.image.clone()),
        (Some(before), None) => {
            for instance in before.instances() {
                note(Some(instance.number), Code::Removed, "with its service".to_owned());
            }
            note(None, Code::Deleted, String::new());
        }
        (None, None) => {}
    }
    all
}

fn of_instance(
    before: Option<&Instance>,
    after: &Instance,
    names: &Names,
    note: &mut dyn FnMut(Code, String),
) {
    let was = |of: fn(&Instance) -> Option<Id>| before.and_then(of);
    let cluster = (was(|it| it.cluster_id), after.cluster_id);
    match cluster {
        (Some(from), Some(to)) if from != to => {
            note(Code::Moved, format!("from cluster {} to {}", names.of(from), names.of(to)));
        }
        (None, Some(to)) => note(Code::Scheduled, format!("in cluster {}", names.of(to))),
        _ => {}
    }
    match (was(|it| it.worker_id), after.worker_id) {
        (Some(from), Some(to)) if from != to => {
            note(Code::Moved, format!("from {} to {}", names.of(from), names.of(to)));
        }
        (None, Some(to)) => note(Code::Placed, format!("on {}", names.of(to))),
        _ => {}
    }
    let status = before.map_or(Status::Requested, |before| before.status);
    if status == after.status {
        return;
    }
    let is_bad = |status: Status| mood(status) == Mood::Bad;
    let place = after.worker_id.map(|worker| format!("on {}", names.of(worker))).unwrap_or_default();
    let why = || cause(after.status, after.status_detail.as_deref());
    if after.status.is_unschedulable() {
        if !status.is_unschedulable() {
            note(Code::Waiting, why());
        }
    } else if is_bad(after.status) {
        if !is_bad(status) {
            note(Code::Failed, why());
        }
    } else {
        if is_bad(status) {
            note(Code::Restarted, place.clone());
        }
        match after.status {
            Status::Running => note(Code::Running, place),
            Status::Completed => note(Code::Completed, place),
            _ => {}
        }
    }
}

/// What of a worker makes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    state: WorkerState,
    cordoned: bool,
    draining: bool,
}

/// What a cluster had told of its workers.
pub(super) type Seen = BTreeMap<Id, Condition>;

/// As it is told now.
pub(super) fn seen<'w>(workers: impl Iterator<Item = &'w ReportedWorker>) -> Seen {
    let condition = |worker: &ReportedWorker| Condition {
        state: worker.state,
        cordoned: worker.cordoned,
        draining: worker.draining,
    };
    workers.map(|worker| (worker.id, condition(worker))).collect()
}

fn of_workers(before: &Seen, after: &[ReportedWorker], names: &Names) -> Vec<Happening> {
    let mut all = Vec::new();
    let mut note = |id, code, message: String| {
        let subject = Subject { kind: Kind::Worker, id, name: names.of(id) };
        all.push(Happening { subject, code, message });
    };
    let now = seen(after.iter());
    for worker in after {
        let Some(was) = before.get(&worker.id) else {
            note(worker.id, Code::Joined, worker.ip.clone());
            continue;
        };
        if was.state != worker.state {
            match worker.state {
                WorkerState::Ready => note(worker.id, Code::Back, format!("it was {}", word(was.state))),
                WorkerState::Unreachable => {
                    note(
                        worker.id,
                        Code::Unreachable,
                        "it has missed reports; nothing is moved yet".to_owned(),
                    );
                }
                WorkerState::Dead => {
                    let message = format!("silent for {} s; its instances go elsewhere", worker.silent);
                    note(worker.id, Code::Dead, message);
                }
            }
        }
        let wish = |draining, cordoned| match (draining, cordoned) {
            (true, _) => Code::Draining,
            (false, true) => Code::Cordoned,
            (false, false) => Code::Uncordoned,
        };
        let (asked, wanted) = (wish(was.draining, was.cordoned), wish(worker.draining, worker.cordoned));
        if asked != wanted {
            note(worker.id, wanted, "by an operator".to_owned());
        }
    }
    for id in before.keys().filter(|id| !now.contains_key(id)) {
        note(*id, Code::Gone, "it is not expected any more".to_owned());
    }
    all
}

const fn word(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Ready => "ready",
        WorkerState::Unreachable => "unreachable",
        WorkerState::Dead => "dead",
    }
}

#[cfg(test)]
mod tests;
