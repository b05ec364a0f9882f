//! Tables of services, who wants to know of them, and what must be asked at the root: the overlay's control, pure.
//!
//! A worker that asks for a name or an address is interested in it from then on, whatever the answer was. Oakestra's
//! cluster tells changes under the service's name only, so a worker that asked for an address before there was an
//! instance is never told (the black hole of its first connection). Here a change is told under the name and under
//! each address of the service that somebody asked for, and what the root does not know is asked again as long as
//! somebody is interested.

mod interests;
mod node_itself;
mod nodes;
mod question;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::{IpType, NetService, TableInstance, TableQuery, TableResult, UpdateKind};
use protocol::plan::Plan;

use self::interests::Interests;
use self::nodes::Nodes;
use self::question::{Questions, Send};
use super::instance::Address;
use super::table::Table;
pub(super) use crate::parent::subject::Subject;

/// Instances of a table that is told to all at each change, some 400 bytes each.
const TOLD_TO_ALL: usize = 16;

/// The root was not reached, or could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreached;

/// What is to be done about the directory's decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Ask the root for the table.
    Ask(Subject),
    /// Answer a worker.
    Answer { worker: Id, result: TableResult },
    /// Tell all who listen under this name or address that the table changed.
    Notify { subject: Subject, kind: UpdateKind },
    /// Nobody here wants to know of this service any more: the root need not tell.
    Forget(ServiceName),
    /// What the root says of a service that runs here is to be kept.
    Keep(ServiceName),
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    tables: HashMap<ServiceName, Known>,
    by_address: HashMap<IpAddr, ServiceName>,
    interests: Interests,
    questions: Questions,
    nodes: Nodes,
    /// Services with instances of other clusters that are being stopped.
    with_leaving: HashSet<ServiceName>,
    /// By which addresses are told apart, as the root said it last.
    plan: Plan,
    acts: Vec<Act>,
}

#[derive(Debug, Default)]
struct Known {
    table: Table,
    /// The addresses under which it is found.
    indexed: Vec<IpAddr>,
    /// What workers were last told of.
    told: Vec<TableInstance>,
    told_leaving: Vec<TableInstance>,
}

impl Directory {
    pub(super) fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// What the root says of a service, for the store.
    pub(super) fn root_view(&self, name: &ServiceName) -> Option<&NetService> {
        self.tables.get(name)?.table.root.as_ref()
    }

    /// After a restart: what the root said before. Nobody needs to be told.
    pub(super) fn restore(&mut self, root: NetService) {
        let name = root.job_name.clone();
        let known = self.tables.entry(name.clone()).or_default();
        known.table.root = Some(root);
        self.index(&name);
    }

    /// After a restart: the tables are what workers were told, and what none of our instances needs is dropped.
    pub(super) fn restored(&mut self) {
        for known in self.tables.values_mut() {
            known.told = known.table.instances();
            known.told_leaving = known.table.leaving();
        }
        for name in self.tables.keys().cloned().collect::<Vec<_>>() {
            self.forget_if_unwanted(&name);
        }
    }

    /// An instance runs here, at `address` if that is known.
    pub(super) fn set_local(&mut self, name: &ServiceName, number: u32, address: Option<Address>) {
        let known = self.tables.entry(name.clone()).or_default();
        known.table.set_local(number, address);
        if known.table.incomplete() {
            self.ask_afresh(Subject::Name(name.clone()));
        }
        self.tell(name);
    }

    /// An instance that runs here has no processor time left, or has again.
    pub(super) fn set_busy(&mut self, name: &ServiceName, number: u32, busy: bool) {
        if let Some(known) = self.tables.get_mut(name) {
            known.table.set_busy(number, busy);
            self.tell(name);
        }
    }

    /// An instance that runs here is being stopped: it gets nothing new, and keeps what it has.
    pub(super) fn let_go(&mut self, name: &ServiceName, number: u32, address: Address) {
        self.tables.entry(name.clone()).or_default().table.let_go(number, address);
        self.tell(name);
    }

    /// Where an instance was that has moved to another worker, as long as something is under way there.
    pub(super) fn set_departing(&mut self, name: &ServiceName, number: u32, address: Option<Address>) {
        if self.tables.entry(name.clone()).or_default().table.set_departing(number, address) {
            self.tell(name);
        }
    }

    /// An instance does not run here any more, and will not.
    pub(super) fn remove_local(&mut self, name: &ServiceName, number: u32) {
        let Some(known) = self.tables.get_mut(name) else {
            return;
        };
        known.table.remove_local(number);
        self.index(name);
        self.keep(name);
        self.tell(name);
        self.forget_if_unwanted(name);
    }

    /// A worker asks.
    pub(super) fn query(&mut self, worker: Id, query: &TableQuery, now: Instant) {
        let key = if query.sip.is_empty() { &query.sname } else { &query.sip };
        let Some(subject) = Subject::parse(key) else {
            tracing::warn!(%worker, key = ?key.chars().take(128).collect::<String>(), "table query for no name or address");
            self.answer(worker, key.clone(), None);
            return;
        };
        if let Some(address) = subject.ns_ip(&self.plan) {
            self.query_node(worker, key.clone(), address, now);
            return;
        }
        self.interests.add(worker, subject.clone());
        let name = self.name_of(&subject);
        if name.as_ref().is_some_and(|name| !self.tables[name].table.incomplete()) {
            self.answer(worker, key.clone(), name);
            return;
        }
        let subject = name.map_or(subject, Subject::Name);
        if self.questions.believed_unknown(&subject, now) {
            self.answer_with_what_is_known(worker, key.clone());
        } else {
            self.ask(&subject);
            self.questions.wait(&subject, worker, key.clone(), now);
        }
    }

    /// A worker listens under this name or address. What is not known yet is asked for, so that there will be news.
    pub(super) fn listens(&mut self, worker: Id, subject: &Subject) {
        if subject.ns_ip(&self.plan).is_some() {
            return;
        }
        self.interests.add(worker, subject.clone());
        if self.name_of(subject).is_none() && !self.questions.is_open(subject) {
            self.ask(subject);
        }
    }

    /// A worker does not want to know any more.
    pub(super) fn ignores(&mut self, worker: Id, subject: &Subject) {
        if let Subject::Name(name) = subject {
            // Who asked for an address and then follows the service's name says only of the name that it is done.
            let addresses = self.tables.get(name).map(|known| known.table.addresses()).unwrap_or_default();
            for address in addresses {
                self.ignores(worker, &Subject::Address(address));
            }
        }
        if !self.interests.remove(worker, subject) {
            return;
        }
        match self.name_of(subject) {
            Some(name) => self.forget_if_unwanted(&name),
            None => self.questions.forget(subject),
        }
    }

    /// A worker is gone, and its interests with it.
    pub(super) fn forget_worker(&mut self, worker: Id) {
        for subject in self.interests.of_worker(worker) {
            self.ignores(worker, &subject);
        }
        self.interests.forget(worker);
        self.nodes.forget(worker);
    }

    /// The root says that a table changed.
    pub(super) fn root_changed(
        &mut self,
        name: &ServiceName,
        number: Option<u32>,
        kind: UpdateKind,
        now: Instant,
    ) {
        match kind {
            UpdateKind::Deployment => self.ask_afresh(Subject::Name(name.clone())),
            UpdateKind::Undeployment => {
                let Some(known) = self.tables.get_mut(name).filter(|known| known.table.root.is_some()) else {
                    return;
                };
                known.table.forgotten_by_root(number, now);
                self.index(name);
                self.keep(name);
                self.tell(name);
            }
        }
    }

    /// The root answered: `Ok(None)`, it does not know; `Err`, it was not reached.
    pub(super) fn root_answered(
        &mut self,
        subject: &Subject,
        answer: Result<Option<NetService>, Unreached>,
        now: Instant,
    ) {
        let Some(answered) = self.questions.answered(subject) else {
            return;
        };
        let reached = answer.is_ok();
        let known = match answer {
            Ok(Some(root)) => {
                self.learn(subject, root, now);
                true
            }
            Ok(None) => {
                self.unlearn(subject, now);
                false
            }
            Err(Unreached) => false,
        };
        for (worker, key) in &answered.waiting {
            self.answer_with_what_is_known(*worker, key.clone());
        }
        let name = self.name_of(subject);
        let unsettled = match &name {
            Some(name) => !reached || self.tables[name].table.incomplete(),
            None => self.interests.contains(subject),
        };
        if answered.again {
            self.ask(subject);
        } else if unsettled {
            self.questions.ask_later(subject, &answered, !known, now);
        }
        if let Some(name) = name {
            self.forget_if_unwanted(&name);
        }
    }

    /// The root is there again, and may have forgotten what it was to tell us.
    pub(super) fn root_is_back(&mut self) {
        let known = self.tables.keys().cloned().map(Subject::Name);
        let subjects: Vec<_> = known.chain(self.questions.subjects().cloned()).collect();
        for subject in subjects {
            self.ask(&subject);
        }
    }

    /// Asks again what is due, and answers those who have waited long enough with what is known.
    pub(super) fn tick(&mut self, now: Instant) {
        for (worker, key) in self.questions.late(now) {
            self.answer_with_what_is_known(worker, key);
        }
        self.acts.extend(self.questions.due(now).into_iter().map(Act::Ask));
        for address in self.nodes.due(now) {
            let subject = Subject::Address(address);
            if self.interests.contains(&subject) {
                self.ask(&subject);
            } else {
                self.nodes.forget_elsewhere(address);
            }
        }
        let over = |name: &ServiceName| {
            let until = self.tables.get(name).and_then(|known| known.table.leaves_until());
            until.is_none_or(|until| until <= now)
        };
        for name in self.with_leaving.iter().filter(|name| over(name)).cloned().collect::<Vec<_>>() {
            if let Some(known) = self.tables.get_mut(&name) {
                known.table.end_leaving(now);
            }
            self.tell(&name);
            self.forget_if_unwanted(&name);
        }
    }

    fn learn(&mut self, subject: &Subject, root: NetService, now: Instant) {
        let name = root.job_name.clone();
        let known = self.tables.entry(name.clone()).or_default();
        let was_known = known.table.root.is_some();
        let changed = known.table.root.as_ref() != Some(&root);
        known.table.learn(Some(root), now);
        let reachable = !known.table.instances().is_empty();
        self.index(&name);
        if changed {
            self.keep(&name);
        }
        let told = self.tell(&name);
        // Somebody asked for this address when it led nowhere.
        if !told && was_known && reachable && matches!(subject, Subject::Address(_)) {
            self.acts.push(Act::Notify { subject: subject.clone(), kind: UpdateKind::Deployment });
        }
    }

    /// The root does not know the service. What runs here is told all the same once it does.
    fn unlearn(&mut self, subject: &Subject, now: Instant) {
        let Some(name) = self.name_of(subject) else {
            return;
        };
        if let Some(known) = self.tables.get_mut(&name)
            && known.table.local.is_empty()
        {
            known.table.learn(None, now);
            self.index(&name);
            self.tell(&name);
        }
    }

    fn ask(&mut self, subject: &Subject) {
        if self.questions.ask(subject) == Send::Now {
            self.acts.push(Act::Ask(subject.clone()));
        }
    }

    fn ask_afresh(&mut self, subject: Subject) {
        if self.questions.ask_afresh(&subject) == Send::Now {
            self.acts.push(Act::Ask(subject));
        }
    }

    fn answer_with_what_is_known(&mut self, worker: Id, query_key: String) {
        let name = Subject::parse(&query_key).and_then(|subject| self.name_of(&subject));
        self.answer(worker, query_key, name);
    }

    fn answer(&mut self, worker: Id, query_key: String, name: Option<ServiceName>) {
        let table = name.as_ref().map(|name| &self.tables[name].table);
        let instance_list = table.map(Table::instances).unwrap_or_default();
        let leaving = table.map(Table::leaving).unwrap_or_default();
        // Oakestra's workers look up a pending query by this name too.
        let app_name = match name {
            Some(name) => name.to_string(),
            None if query_key.parse::<IpAddr>().is_ok() => String::new(),
            None => query_key.clone(),
        };
        let result = TableResult { app_name, instance_list, query_key, leaving };
        self.acts.push(Act::Answer { worker, result });
    }

    /// What all who listen under this name may be told along with the news that the table changed. Nothing if it is not known
    /// whole, or is long: then each asks once for several changes. Nothing either if each is told something else: how far away
    /// the instances are.
    pub(super) fn told_to_all(&self, subject: &Subject) -> Option<TableResult> {
        let Subject::Name(name) = subject else { return None };
        let table = &self.tables.get(name)?.table;
        let (instance_list, leaving) = (table.instances(), table.leaving());
        let is_long = instance_list.len() + leaving.len() > TOLD_TO_ALL;
        let is_closest =
            |told: &TableInstance| told.service_ip.iter().any(|ip| ip.ip_type == IpType::Closest);
        if table.incomplete() || is_long || instance_list.iter().any(is_closest) {
            return None;
        }
        let app_name = name.to_string();
        Some(TableResult { query_key: app_name.clone(), app_name, instance_list, leaving })
    }

    /// Tells whoever listens, if the table is not what they were told of last. Says whether it did.
    fn tell(&mut self, name: &ServiceName) -> bool {
        let Some(known) = self.tables.get_mut(name) else {
            return false;
        };
        let (instances, leaving) = (known.table.instances(), known.table.leaving());
        if known.table.leaves_until().is_some() {
            self.with_leaving.insert(name.clone());
        } else {
            self.with_leaving.remove(name);
        }
        if instances == known.told && leaving == known.told_leaving {
            return false;
        }
        let only_fewer = instances.iter().all(|instance| known.told.contains(instance));
        let kind = if only_fewer { UpdateKind::Undeployment } else { UpdateKind::Deployment };
        known.told = instances;
        known.told_leaving = leaving;
        self.acts.push(Act::Notify { subject: Subject::Name(name.clone()), kind });
        for address in known.table.addresses() {
            let subject = Subject::Address(address);
            if self.interests.contains(&subject) {
                self.acts.push(Act::Notify { subject, kind });
            }
        }
        true
    }

    fn keep(&mut self, name: &ServiceName) {
        if self.tables.get(name).is_some_and(|known| !known.table.local.is_empty()) {
            self.acts.push(Act::Keep(name.clone()));
        }
    }

    /// Follows the addresses of a service, which the root may give to another one later.
    fn index(&mut self, name: &ServiceName) {
        let Some(known) = self.tables.get_mut(name) else {
            return;
        };
        let addresses = known.table.addresses();
        for address in &known.indexed {
            if !addresses.contains(address) && self.by_address.get(address) == Some(name) {
                self.by_address.remove(address);
            }
        }
        for address in &addresses {
            self.by_address.insert(*address, name.clone());
        }
        known.indexed = addresses;
    }

    fn name_of(&self, subject: &Subject) -> Option<ServiceName> {
        let name = match subject {
            Subject::Name(name) => name,
            Subject::Address(address) => self.by_address.get(address)?,
        };
        self.tables.contains_key(name).then(|| name.clone())
    }

    fn forget_if_unwanted(&mut self, name: &ServiceName) {
        let Some(known) = self.tables.get(name) else {
            return;
        };
        let wanted = |subject: &Subject| self.interests.contains(subject);
        if !known.table.local.is_empty()
            || wanted(&Subject::Name(name.clone()))
            || known.table.addresses().into_iter().any(|address| wanted(&Subject::Address(address)))
        {
            return;
        }
        self.tables.remove(name);
        self.with_leaving.remove(name);
        self.questions.forget(&Subject::Name(name.clone()));
        self.by_address.retain(|_, owner| owner != name);
        self.acts.push(Act::Forget(name.clone()));
    }
}

#[cfg(test)]
mod tests;
