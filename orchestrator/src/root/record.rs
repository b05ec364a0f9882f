//! A service as the root keeps it: what was asked for, its instances, their addresses. Pure: no store, no clock.
//!
//! What belongs to the service is one value of the store, and each instance another one, so that what becomes of an instance
//! costs as much whatever else there is; they appear and go together with their addresses all the same, since transactions
//! make several changes at once. In memory they are shared, not copied, by those who read them and by the next version.
//! What changes with every report (load, logs) is in none of them: see [`super::live`].

mod instance;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use protocol::address::{CLOSEST6_FIRST, ROUND_ROBIN6_FIRST};
use protocol::balancing::Balancing;
use protocol::id::Id;
use protocol::name::{InvalidServiceName, ServiceName};
use protocol::net::{IpType, NetInstance, ServiceIp};
use protocol::service::{CONTAINER, Instance as Document, Service};
use protocol::sla::{Addresses, Microservice};
use protocol::status::Status;
use serde::{Deserialize, Serialize};

pub use self::instance::Instance;
use super::pool;

/// What a service and its new instances say until a cluster is chosen.
pub const WAITING: &str = "Waiting for scheduling decision";

/// Keys of a service that are the root's to fill. In a document, as in one made from what the API once showed, they say
/// nothing; kept, they would stand beside the root's own, and a value with a key twice cannot be read again.
const OWN_KEYS: [&str; 15] = [
    "_id",
    "RR_ip",
    "RR_ip_v6",
    "app_name",
    "app_ns",
    "applicationID",
    "image",
    "instance_list",
    "instance_number",
    "job_name",
    "next_instance_progressive_number",
    "service_name",
    "service_ns",
    "status",
    "status_detail",
];

/// What belongs to the service itself, and stays as it is while instances come and go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Name of the user whose application it is.
    pub owner: String,
    /// Without its instances, and what follows from them: see [`Record::document`].
    pub service: Service,
    pub address: ServiceIp,
    /// The address that leads to the closest instance, if its author asked for one.
    #[serde(default)]
    pub closest: Option<ServiceIp>,
    /// Clusters that asked for this service's table, and are told when it changes.
    pub interested: BTreeSet<Id>,
}

/// A service with its instances.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    head: Arc<Head>,
    /// How many instances it has ever had: the number of the next one.
    next: u32,
    instances: BTreeMap<u32, Arc<Instance>>,
}

impl Deref for Record {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl DerefMut for Record {
    fn deref_mut(&mut self) -> &mut Head {
        Arc::make_mut(&mut self.head)
    }
}

/// What is different in the next version of a service.
#[derive(Debug, PartialEq)]
pub struct Difference<'r> {
    pub head: Option<&'r Head>,
    pub instances: Vec<&'r Instance>,
    /// Numbers of instances that are gone.
    pub gone: Vec<u32>,
}

/// Where a service belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub application: Id,
    pub app_name: String,
    pub app_ns: String,
    pub owner: String,
}

/// An instance that was removed: what is left to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    pub number: u32,
    pub cluster: Option<Id>,
    /// Its address if it is free now; one that the author chose stays the service's.
    pub address: Option<Ipv4Addr>,
}

impl Record {
    /// A service without instances. `address` is its ServiceIP, `closest` the one that leads to the closest instance.
    ///
    /// # Errors
    /// When its names do not make a service name; a checked SLA's do.
    pub fn new(
        id: Id,
        parent: &Parent,
        sla: Microservice,
        address: Ipv4Addr,
        closest: Option<Ipv4Addr>,
    ) -> Result<Self, InvalidServiceName> {
        let (name, namespace) = (sla.microservice_name.clone(), sla.microservice_namespace.clone());
        let both = |ip_type, address, chosen_v6: Option<&str>, first| {
            let chosen_v6 = chosen_v6.and_then(|text| text.parse::<Ipv6Addr>().ok());
            let address_v6 = chosen_v6.unwrap_or_else(|| beside(address, first)).to_string();
            let balancing = Balancing::default();
            ServiceIp { ip_type, address: address.to_string(), address_v6, balancing }
        };
        let chosen = &sla.addresses;
        let balancing = Balancing::of(&sla);
        let address = both(IpType::RoundRobin, address, chosen.rr_ip_v6.as_deref(), ROUND_ROBIN6_FIRST);
        let address = ServiceIp { balancing, ..address };
        let closest = closest
            .map(|address| both(IpType::Closest, address, chosen.closest_ip_v6.as_deref(), CLOSEST6_FIRST));
        let sla = as_stored(sla, id);
        let head = Head {
            owner: parent.owner.clone(),
            service: Service {
                id,
                job_name: ServiceName::new(&parent.app_name, &parent.app_ns, &name, &namespace)?,
                image: sla.code.clone(),
                sla,
                application_id: parent.application,
                app_name: parent.app_name.clone(),
                app_ns: parent.app_ns.clone(),
                service_name: name,
                service_ns: namespace,
                next_instance_progressive_number: 0,
                instance_list: Vec::new(),
                rr_ip: Some(address.address.clone()),
                rr_ip_v6: Some(address.address_v6.clone()),
                status: None,
                status_detail: None,
            },
            address,
            closest,
            interested: BTreeSet::new(),
        };
        Ok(Self::of(head, 0, []))
    }

    /// One that was kept. `next` is the number of its next instance.
    pub fn of(head: Head, next: u32, instances: impl IntoIterator<Item = Instance>) -> Self {
        let instances = instances.into_iter().map(|instance| (instance.number, Arc::new(instance)));
        Self { head: Arc::new(head), next, instances: instances.collect() }
    }

    #[must_use]
    pub fn next(&self) -> u32 {
        self.next
    }

    /// What has to be written to make this of `before`, beside the number of the next instance.
    #[must_use]
    pub fn since<'r>(&'r self, before: &Self) -> Difference<'r> {
        let is_new = |(number, instance): &(&u32, &Arc<Instance>)| {
            let known = before.instances.get(number);
            known.is_none_or(|known| !Arc::ptr_eq(known, instance) && known != *instance)
        };
        let is_same_head = Arc::ptr_eq(&self.head, &before.head) || self.head == before.head;
        Difference {
            head: (!is_same_head).then_some(&*self.head),
            instances: self.instances.iter().filter(is_new).map(|(_, instance)| &**instance).collect(),
            gone: before
                .instances
                .keys()
                .filter(|number| !self.instances.contains_key(number))
                .copied()
                .collect(),
        }
    }

    /// Takes over another description. What instances run with is what they were started with.
    pub fn describe(&mut self, sla: Microservice) {
        let head = &mut **self;
        let addresses = std::mem::take(&mut head.service.sla.addresses);
        let sla = as_stored(sla, head.service.id);
        head.service.image.clone_from(&sla.code);
        head.address.balancing = Balancing::of(&sla);
        head.service.sla = Microservice { addresses, ..sla };
    }

    /// Adds an instance that waits for a cluster. Its number was never used before in this service.
    pub fn add_instance(&mut self, address: Ipv4Addr) -> u32 {
        let number = self.next;
        self.next += 1;
        self.instances.insert(number, Arc::new(Instance::new(number, address)));
        number
    }

    /// The ServiceIP that the author chose for the next instance.
    #[must_use]
    pub fn chosen_for_next(&self) -> Option<Ipv4Addr> {
        chosen_address(&self.service.sla.addresses, self.next)
    }

    /// The ServiceIPs of the service itself, as tables name them.
    #[must_use]
    pub fn service_ips(&self) -> Vec<ServiceIp> {
        [&self.address].into_iter().chain(&self.closest).cloned().collect()
    }

    /// The addresses that are the service's for as long as it lives, and that nobody else may have. IPv6 only where the
    /// author chose it, since the root's own go with an IPv4 address.
    pub fn owned(&self) -> impl Iterator<Item = IpAddr> {
        let chosen = &self.service.sla.addresses;
        let own = [Some(&self.address), self.closest.as_ref()].into_iter().flatten();
        let own = own.map(|own| own.address.as_str());
        let v6 = [&chosen.rr_ip_v6, &chosen.closest_ip_v6].into_iter().flatten().map(String::as_str);
        let texts = own.chain(v6).filter_map(|text| text.parse().ok());
        texts.chain(chosen_instances(chosen).map(|(_, address)| address.into()))
    }

    /// Removes these instances, as far as they are there.
    pub fn remove_instances(&mut self, numbers: impl IntoIterator<Item = u32>) -> Vec<Removed> {
        let mut removed = Vec::new();
        for number in numbers {
            let Some(instance) = self.instances.remove(&number) else { continue };
            let chosen = chosen_address(&self.service.sla.addresses, number);
            removed.push(Removed {
                number,
                cluster: instance.cluster_id,
                address: instance.place.instance_ip.filter(|own| Some(*own) != chosen),
            });
        }
        removed
    }

    /// Gives an instance to a cluster. Its addresses stay.
    pub fn place(&mut self, number: u32, cluster: Id, location: &str) {
        if let Some(instance) = self.instance_mut(number) {
            instance.give_to(cluster, location);
        }
    }

    /// Notes where an instance is that its cluster may have back later.
    pub fn remember_original(&mut self, number: u32) {
        if let Some(instance) = self.instance_mut(number) {
            instance.original = Some(instance.place.clone());
        }
    }

    /// Gives an instance back to the cluster that had it, at the addresses that it had there. Says whether that may be.
    pub fn restore_original(&mut self, number: u32, cluster: Id, location: &str) -> bool {
        let Some(instance) = self.instance_mut(number).filter(|instance| instance.is_original_of(cluster))
        else {
            return false;
        };
        if let Some(original) = instance.original.take() {
            instance.place = original;
        }
        instance.give_to(cluster, location);
        true
    }

    /// Says what an instance is waiting for.
    pub fn explain(&mut self, number: u32, status: Status, detail: &str) {
        if let Some(instance) = self.instance_mut(number) {
            instance.status = status;
            instance.status_detail = Some(detail.to_owned());
        }
    }

    /// Takes over what a cluster says of one of its instances; of one that is not (or no longer) its own, nothing.
    /// Load, logs and times are not kept here.
    pub fn observe(&mut self, cluster: Id, reported: &Document) {
        let instance = self.instance_mut(reported.instance_number);
        if let Some(instance) = instance.filter(|instance| instance.cluster_id == Some(cluster)) {
            instance.observe(reported);
        }
    }

    /// Takes over where an instance is reached, from one of these clusters if it is theirs. Says whether it is.
    pub fn settle(&mut self, reported: &NetInstance, from: &[Id]) -> bool {
        let is_theirs = |instance: &&mut Instance| {
            instance.place.cluster_id.is_some_and(|cluster| from.contains(&cluster))
        };
        let instance = self.instance_mut(reported.instance_number).filter(is_theirs);
        instance.map(|instance| instance.settle(reported)).is_some()
    }

    #[must_use]
    pub fn instance(&self, number: u32) -> Option<&Instance> {
        self.instances.get(&number).map(|instance| &**instance)
    }

    /// In the order of their numbers.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().map(|instance| &**instance)
    }

    /// Whether this is the IPv6 address of the service or of one of its instances.
    #[must_use]
    pub fn has_v6(&self, address: &str) -> bool {
        let of_instances = self.instances().filter_map(|instance| instance.place.instance_ip_v6.as_deref());
        let own = [&self.address].into_iter().chain(&self.closest).map(|own| own.address_v6.as_str());
        of_instances.chain(own).any(|own| own == address)
    }

    /// The service as clients and workers read it, with all of its instances.
    #[must_use]
    pub fn document(&self) -> Service {
        self.document_with(self.instances().map(Instance::document).collect())
    }

    /// The same with these instances only. What it says of the whole is of all.
    #[must_use]
    pub fn document_with(&self, instance_list: Vec<Document>) -> Service {
        // A service is as its instance is which most needs a look: it is running when all of it is.
        let worst = self.instances().min_by_key(|instance| urgency(instance.status));
        Service {
            next_instance_progressive_number: self.next,
            instance_list,
            status: worst.map(|instance| instance.status),
            status_detail: worst.and_then(|instance| instance.status_detail.clone()),
            ..self.service.clone()
        }
    }

    fn instance_mut(&mut self, number: u32) -> Option<&mut Instance> {
        self.instances.get_mut(&number).map(Arc::make_mut)
    }
}

/// The description of a service in the form that clients and workers read.
fn as_stored(mut sla: Microservice, id: Id) -> Microservice {
    sla.microservice_id = id.to_string();
    sla.extra.retain(|key, _| !OWN_KEYS.contains(&key.as_str()));
    if sla.virtualization == "container" {
        CONTAINER.clone_into(&mut sla.virtualization);
    }
    sla
}

/// Lower is more urgent.
fn urgency(status: Status) -> u8 {
    match status {
        unschedulable if unschedulable.is_unschedulable() => 0,
        Status::Failed => 1,
        Status::Dead => 2,
        Status::Requested => 3,
        Status::ClusterScheduled => 4,
        Status::NodeScheduled => 5,
        Status::Creating => 6,
        Status::Created => 7,
        Status::Running => 8,
        _ => 9,
    }
}

/// The numbers of the instances whose addresses the author chose, with these.
fn chosen_instances(addresses: &Addresses) -> impl Iterator<Item = (u32, Ipv4Addr)> {
    addresses.of_instances().flat_map(|range| {
        (range.from..=range.to)
            .filter_map(move |number| Some((number, pool::after(range.start, number - range.from)?)))
    })
}

fn chosen_address(addresses: &Addresses, number: u32) -> Option<Ipv4Addr> {
    let range = addresses.of_instances().find(|range| (range.from..=range.to).contains(&number))?;
    pool::after(range.start, number - range.from)
}

/// The IPv6 address that goes with an IPv4 ServiceIP: no two have the same, as no two have the same IPv4 address.
fn beside(address: Ipv4Addr, first: Ipv6Addr) -> Ipv6Addr {
    let [_, _, third, fourth] = address.octets();
    Ipv6Addr::from_bits(first.to_bits() | u128::from(u16::from_be_bytes([third, fourth])))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use protocol::service::Instance;
    use protocol::sla::Microservice;
    use protocol::status::Status;

    use super::{Difference, Parent, Record};
    use crate::object_id;

    fn record() -> Record {
        let parent = Parent {
            application: object_id::new(),
            app_name: "shop".to_owned(),
            app_ns: "prod".to_owned(),
            owner: "Admin".to_owned(),
        };
        let sla = Microservice {
            microservice_name: "web".to_owned(),
            microservice_namespace: "prod".to_owned(),
            virtualization: "container".to_owned(),
            code: "docker.io/library/nginx:latest".to_owned(),
            ..Microservice::default()
        };
        Record::new(object_id::new(), &parent, sla, Ipv4Addr::new(10, 30, 1, 2), None).unwrap()
    }

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 30, 0, last)
    }

    #[test]
    fn a_new_service_has_the_forms_that_clients_and_workers_read() {
        let service = record().document();
        assert_eq!(service.job_name.as_str(), "shop.prod.web.prod");
        assert_eq!(service.sla.virtualization, "docker");
        assert_eq!(service.sla.microservice_id, service.id.to_string());
        assert_eq!(service.image, service.sla.code);
        assert_eq!(service.rr_ip_v6.as_deref(), Some("fdff:2000::102"));
        assert_eq!(service.status, None);
    }

    #[test]
    fn no_key_of_a_document_stands_beside_one_of_the_root_s() {
        let mut service = record().document();
        service.status = Some(Status::Running);
        service.status_detail = Some("Running".to_owned());
        let deploy = protocol::node::Deploy { service, instance_number: 0 };
        let keys = |value: serde_json::Value| value.as_object().unwrap().clone();
        let known = keys(serde_json::to_value(Microservice::default()).unwrap());
        let written = keys(serde_json::to_value(deploy).unwrap());
        let own: Vec<_> = written.keys().filter(|key| !known.contains_key(*key)).collect();
        assert_eq!(own.len(), super::OWN_KEYS.len(), "{own:?}");
        assert!(own.iter().all(|key| super::OWN_KEYS.contains(&key.as_str())), "{own:?}");
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let mut record = record();
        assert_eq!((record.add_instance(address(1)), record.add_instance(address(2))), (0, 1));
        assert_eq!(record.remove_instances([1]).len(), 1);
        assert_eq!(record.add_instance(address(2)), 2);
        assert_eq!(record.remove_instances(0..3).len(), 2);
        assert_eq!(record.add_instance(address(1)), 3);
    }

    #[test]
    fn a_removed_instance_gives_back_its_address_and_names_its_cluster() {
        let mut record = record();
        let cluster = object_id::new();
        record.add_instance(address(1));
        record.add_instance(address(2));
        record.place(1, cluster, "here");
        let removed = record.remove_instances([0, 1]);
        assert_eq!(removed.iter().map(|one| one.cluster).collect::<Vec<_>>(), [None, Some(cluster)]);
        assert_eq!(
            removed.iter().map(|one| one.address).collect::<Vec<_>>(),
            [Some(address(1)), Some(address(2))]
        );
        assert_eq!(record.instances().count(), 0);
        assert!(record.remove_instances([0, 1]).is_empty());
    }

    #[test]
    fn only_what_is_different_is_to_be_written() {
        let mut before = record();
        let cluster = object_id::new();
        for last in 1..=3 {
            let number = before.add_instance(address(last));
            before.place(number, cluster, "here");
        }
        let mut after = before.clone();
        assert_eq!(after.since(&before), Difference { head: None, instances: Vec::new(), gone: Vec::new() });
        after.observe(cluster, &before.instance(0).unwrap().document());
        after.interested.remove(&cluster);
        assert_eq!(after.since(&before), Difference { head: None, instances: Vec::new(), gone: Vec::new() });
        after.observe(cluster, &Instance::new(1, Status::Running));
        after.remove_instances([2]);
        after.add_instance(address(4));
        after.interested.insert(cluster);
        let Difference { head, instances, gone } = after.since(&before);
        assert!(head.is_some_and(|head| head.interested.contains(&cluster)));
        assert_eq!(instances.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(gone, [2]);
    }

    #[test]
    fn a_service_is_running_when_all_of_it_is() {
        let mut record = record();
        let running = |number| Instance::new(number, Status::Running);
        let cluster = object_id::new();
        record.add_instance(address(1));
        record.add_instance(address(2));
        assert_eq!(record.document().status, Some(Status::Requested));
        record.place(0, cluster, "here");
        record.observe(cluster, &running(0));
        record.observe(cluster, &running(1));
        assert_eq!(record.document().status, Some(Status::Requested), "the second is not this cluster's");
        record.place(1, cluster, "here");
        record.observe(cluster, &running(1));
        assert_eq!(record.document().status, Some(Status::Running));
        record.explain(1, Status::NoActiveClusterWithCapacity, "no cluster has 4 GiB");
        assert_eq!(record.document().status, Some(Status::NoActiveClusterWithCapacity));
        assert_eq!(record.document().status_detail.as_deref(), Some("no cluster has 4 GiB"));
        record.remove_instances([0, 1]);
        assert_eq!(record.document().status, None);
    }
}
