//! Addresses and tables: what netmanagers ask, and what the root answers.

use std::net::IpAddr;
use std::time::Instant;

use protocol::id::Id;
use protocol::location::Location;
use protocol::name::ServiceName;
use protocol::net::{
    AddressChanged, InterestRemove, IpType, JobUpdate, NetService, NodeItself, ServiceDeployed,
    ServiceUndeployed, Subnet, SubnetRequest, SubnetResult, TableInstance, TableQuery, TableResult,
    UpdateAvailable, UpdateKind,
};
use protocol::topic::{NodeTopic, updates_available};

use super::{Ask, OWN_ID, State, encode, table_key, worker_key};
use crate::cluster::directory::{Act, Subject, Unreached};
use crate::cluster::instance::{Address, Instance};

impl State {
    /// `nodes/{id}/net/subnet`: a worker wants its block of addresses. It has one for ever.
    pub(in crate::cluster) fn subnet_wanted(&mut self, worker: Id, request: &SubnetRequest, now: Instant) {
        self.heard(worker, now);
        if request.method != "GET" {
            return;
        }
        let Some(known) = self.workers.get(&worker) else {
            return;
        };
        match &known.record.subnet {
            Some(subnet) => {
                let result = subnet_result(subnet);
                self.publish(worker, NodeTopic::SubnetResult, &result);
            }
            None => {
                if self.subnets_asked.insert(worker) {
                    self.effects.ask.push(Ask::Subnet(worker));
                }
            }
        }
    }

    /// The root gave a block.
    pub(in crate::cluster) fn subnet_given(&mut self, worker: Id, subnet: Subnet) {
        self.subnets_asked.remove(&worker);
        let Some(known) = self.workers.get_mut(&worker) else {
            // It was forgotten meanwhile.
            self.give_back(subnet);
            return;
        };
        let subnet = known.record.subnet.get_or_insert(subnet);
        self.directory.set_plan(subnet.plan);
        let result = subnet_result(subnet);
        tracing::info!(worker = %known.host(), subnet = %result.address, "worker got its addresses");
        self.effects.keep.insert(worker_key(worker), Some(encode(&known.record)));
        self.publish(worker, NodeTopic::SubnetResult, &result);
    }

    /// `nodes/{id}/net/tablequery/request`.
    pub(in crate::cluster) fn table_wanted(&mut self, worker: Id, query: &TableQuery, now: Instant) {
        self.heard(worker, now);
        self.directory.query(worker, query, now);
        self.overlay_acts();
    }

    /// A worker listens to updates under this name or address.
    pub(in crate::cluster) fn updates_wanted(&mut self, worker: Id, subject: &Subject) {
        self.directory.listens(worker, subject);
        self.overlay_acts();
    }

    /// A worker's netmanager stopped listening there.
    pub(in crate::cluster) fn updates_unwanted(&mut self, worker: Id, subject: &Subject) {
        self.directory.ignores(worker, subject);
        self.overlay_acts();
    }

    /// `nodes/{id}/net/interest/remove`.
    pub(in crate::cluster) fn interest_removed(
        &mut self,
        worker: Id,
        interest: &InterestRemove,
        now: Instant,
    ) {
        self.heard(worker, now);
        if let Some(subject) = Subject::parse(&interest.appname) {
            self.updates_unwanted(worker, &subject);
        }
    }

    /// `nodes/{id}/net/service/deployed`: an instance got its address.
    pub(in crate::cluster) fn address_known(&mut self, worker: Id, deployed: ServiceDeployed, now: Instant) {
        self.heard(worker, now);
        let ServiceDeployed { appname, instance_number, nsip, nsipv6, host_port, host_ip, links, status: _ } =
            deployed;
        let address = Address {
            worker,
            namespace_ip: nsip.to_string(),
            namespace_ip_v6: nsipv6,
            host_ip: host_ip.to_string(),
            host_port,
            links,
        };
        self.set_address(worker, &appname, instance_number, Some(address));
    }

    /// `nodes/{id}/net/service/undeployed`: an instance lost its address.
    pub(in crate::cluster) fn address_lost(
        &mut self,
        worker: Id,
        undeployed: &ServiceUndeployed,
        now: Instant,
    ) {
        self.heard(worker, now);
        self.set_address(worker, &undeployed.appname, undeployed.instance_number, None);
    }

    /// `nodes/{id}/net/service/address-changed`: an instance is reached through another address of its worker.
    pub(in crate::cluster) fn address_moved(&mut self, worker: Id, moved: &AddressChanged, now: Instant) {
        self.heard(worker, now);
        let known = self
            .named(&moved.appname)
            .filter_map(|(_, service)| service.instances.get(&moved.instance_number)?.address())
            .find(|address| address.worker == worker);
        if let Some(known) = known {
            let host_ip = moved.host_ip.to_string();
            let host_port = if moved.host_port == 0 { known.host_port } else { moved.host_port };
            let address = Address { host_ip, host_port, ..known.clone() };
            self.set_address(worker, &moved.appname, moved.instance_number, Some(address));
        }
    }

    /// `nodes/{id}/net/host`: where a worker's own processes are reached by what answers them. The addresses must be of the
    /// worker's own block: nobody draws the answers to another one's processes to himself.
    pub(in crate::cluster) fn node_itself_known(&mut self, worker: Id, itself: &NodeItself, now: Instant) {
        self.heard(worker, now);
        let subnet = self.workers.get(&worker).and_then(|known| known.record.subnet.as_ref());
        if !subnet.is_some_and(|subnet| has(subnet, itself)) {
            tracing::warn!(%worker, nsip = %itself.nsip, "a worker claims an address that is not of its block for itself");
            return;
        }
        if self.directory.itself(worker) != Some(itself) {
            // Other clusters hear of it from the root.
            self.effects.report = true;
        }
        self.directory.node_itself(worker, itself);
        self.overlay_acts();
    }

    fn set_address(&mut self, worker: Id, name: &ServiceName, number: u32, address: Option<Address>) {
        let here = self
            .named(name)
            .find(|(_, service)| {
                let instance = service.instances.get(&number);
                // One that is being stopped may still lose its address.
                let is_it = |instance: &Instance| match address {
                    Some(_) => instance.wanted_on() == Some(worker),
                    None => instance.worker() == Some(worker) || instance.is_departing_from(worker),
                };
                instance.is_some_and(is_it)
            })
            .map(|(id, _)| id);
        let Some((id, instance)) = here.and_then(|id| Some((id, self.instance_mut(id, number)?))) else {
            tracing::debug!(%worker, service = %name, instance = number, "address of an instance that is not there");
            return;
        };
        if instance.reached_at(worker, address) {
            self.changed(id, number);
            self.overlay_acts();
        }
    }

    /// The root answered a question for a table.
    pub(in crate::cluster) fn table_answered(
        &mut self,
        subject: &Subject,
        answer: Result<Option<NetService>, Unreached>,
        now: Instant,
    ) {
        self.directory.root_answered(subject, answer, now);
        self.overlay_acts();
    }

    /// The root answered where the processes of another cluster's node are reached.
    pub(in crate::cluster) fn node_answered(
        &mut self,
        address: IpAddr,
        answer: Result<Option<NodeItself>, Unreached>,
        now: Instant,
    ) {
        self.directory.node_answered(address, answer, now);
        self.overlay_acts();
    }

    /// The root says that a table changed.
    pub(in crate::cluster) fn table_changed(&mut self, update: &JobUpdate, now: Instant) {
        let number = u32::try_from(update.instance_number).ok();
        self.directory.root_changed(&update.job_name, number, update.kind, now);
        self.overlay_acts();
    }

    /// The registration succeeded, for the first time or after an outage: the root is told where everything is, and
    /// asked for everything again, since either side may have missed something.
    pub(in crate::cluster) fn root_is_back(&mut self, id: Id) {
        if self.id != Some(id) {
            self.id = Some(id);
            self.effects.keep.insert(OWN_ID.to_owned(), Some(encode(&id)));
        }
        self.announced.clear();
        let all: Vec<_> = self
            .services
            .iter()
            .flat_map(|(id, service)| {
                service.instances.iter().map(|(number, instance)| (*id, *number, instance))
            })
            .map(|(id, number, instance)| (id, number, instance.address().cloned()))
            .collect();
        for (id, number, address) in all {
            self.announce(id, number, address);
        }
        self.directory.root_is_back();
        self.overlay_acts();
        self.effects.report = true;
    }

    /// Turns what the directory decided into effects.
    pub(in crate::cluster) fn overlay_acts(&mut self) {
        for act in self.directory.take_acts() {
            match act {
                Act::Ask(subject) => {
                    let ask = subject.ns_ip(self.directory.plan()).map(Ask::Node);
                    self.effects.ask.push(ask.unwrap_or(Ask::Table(subject)));
                }
                Act::Answer { worker, mut result } => {
                    self.tell_distances(worker, &mut result);
                    self.publish(worker, NodeTopic::TableResult, &result);
                }
                Act::Notify { subject, kind } => self.notify(&subject, kind),
                Act::Forget(name) => {
                    self.effects.keep.insert(table_key(&name), None);
                    self.effects.ask.push(Ask::Forget(name));
                }
                Act::Keep(name) => {
                    let value = self.directory.root_view(&name).map(encode);
                    self.effects.keep.insert(table_key(&name), value);
                }
            }
        }
    }

    /// How far those are that are behind a closest address, for as long as the worker has measured nothing.
    fn tell_distances(&self, worker: Id, result: &mut TableResult) {
        let Some(own) = self.location(worker) else { return };
        let is_closest =
            |told: &TableInstance| told.service_ip.iter().any(|ip| ip.ip_type == IpType::Closest);
        let name = result.app_name.parse::<ServiceName>().ok();
        let root = name.and_then(|name| self.directory.root_view(&name));
        let elsewhere = |number: u32| {
            let mut instances = root.iter().flat_map(|root| &root.instance_list);
            instances.find(|instance| instance.instance_number == number)?.location
        };
        for told in result.instance_list.iter_mut().filter(|told| is_closest(told)) {
            let here = told.worker_id.filter(|other| self.workers.contains_key(other));
            let location = match here {
                Some(other) => self.location(other),
                None => elsewhere(told.instance_number),
            };
            told.kilometres = location.map(|location| whole_kilometres(own.kilometres_to(location)));
        }
    }

    pub(super) fn location(&self, worker: Id) -> Option<Location> {
        self.workers.get(&worker).and_then(|known| known.node().location.or(self.rules.location))
    }

    fn notify(&mut self, subject: &Subject, kind: UpdateKind) {
        let table = self.directory.told_to_all(subject).map(Box::new);
        let payload = encode(&UpdateAvailable { kind, table }).to_string().into_bytes();
        self.effects.publish.push((updates_available(subject), payload));
    }
}

/// No two places are farther apart than half the way around the Earth.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most 20 016, and not negative"
)]
fn whole_kilometres(kilometres: f64) -> u32 {
    kilometres.round() as u32
}

/// Whether the addresses are of this block, a /26 and a /120.
fn has(subnet: &Subnet, itself: &NodeItself) -> bool {
    let v4 = itself.nsip.to_bits() & !63 == subnet.subnet_addr.to_bits();
    v4 && itself.nsipv6.is_none_or(|nsip| nsip.to_bits() & !255 == subnet.subnet_addr_v6.to_bits())
}

fn subnet_result(subnet: &Subnet) -> SubnetResult {
    SubnetResult {
        address: subnet.subnet_addr,
        addressv6: IpAddr::V6(subnet.subnet_addr_v6).to_string(),
        plan: subnet.plan,
    }
}
