//! What one answer of the cluster says: for each ServiceIP in it, the instances behind it. Pure.
//!
//! The cluster's word is checked before it may steer packets: addresses must lie in the ranges of the address plan,
//! and an instance that does not run yet (its places are `null`) is no backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use protocol::address;
use protocol::balancing::Balancing;
use protocol::link::LinkOffer;
use protocol::name::ServiceName;
use protocol::net::{IpType, TableInstance, TableResult};
use protocol::plan::Plan;

use crate::datapath::{Backend, Policy};
use crate::hash::fnv1a;

/// A [`TableResult`], checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The service; `None` when the question was for an address that belongs to none.
    pub service: Option<ServiceName>,
    /// Each ServiceIP that the answer names, with what is behind it now. Also those with nothing behind.
    pub addresses: BTreeMap<IpAddr, Entry>,
    /// The own ServiceIPs of each instance, running or not.
    pub instances: BTreeMap<u32, OwnAddress>,
    /// Instances that were left out although they claim to run, and why.
    pub rejected: Vec<(u32, Rejected)>,
    /// How the nodes of instances that run take packets.
    pub links: BTreeMap<IpAddr, LinkOffer>,
}

/// The ServiceIPs of one instance. It is known by the IPv4 one; the other may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAddress {
    pub v4: Ipv4Addr,
    pub v6: Option<Ipv6Addr>,
}

/// How a ServiceIP chooses, and among which instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub policy: Policy,
    /// Under [`Policy::Closest`] those first that the cluster says are close, the others as it has listed them: which is
    /// closest depends on who asks.
    pub backends: Vec<Backend>,
    /// Those that are being stopped: they get nothing new and keep what they have.
    pub leaving: Vec<Backend>,
    /// NsIPs of those that, under [`Policy::Closest`], get nothing new as long as there are others.
    pub busy: BTreeSet<Ipv4Addr>,
}

impl Entry {
    /// Nobody is behind it.
    #[must_use]
    pub fn empty(policy: Policy) -> Self {
        Self { policy, backends: Vec::new(), leaving: Vec::new(), busy: BTreeSet::new() }
    }

    /// Whether neither anything new nor what is under way can go anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty() && self.leaving.is_empty()
    }

    /// The backends that `node` uses when the data plane takes no more than `limit` for one address, the closest first
    /// where that matters: as long as distances are not known, those for which `is_here` before all others.
    ///
    /// Nodes that cannot use all instances use different ones, so that all get work; while instances come and go, most
    /// of a node's choice stays.
    #[must_use]
    pub fn at_most(&self, limit: usize, node: IpAddr, is_here: impl Fn(&Backend) -> bool) -> Vec<Backend> {
        let mut backends = self.backends.clone();
        if self.policy == Policy::Closest {
            backends.sort_by_key(|backend| !is_here(backend));
        } else if backends.len() > limit {
            backends.sort_by_cached_key(|backend| fnv1a(format!("{node} {}", backend.ns_ip).as_bytes()));
        }
        backends.truncate(limit);
        backends
    }
}

/// Why an instance was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("namespace_ip is not an IPv4 address of a worker's block")]
    NamespaceIp,
    #[error("instance_ip is not a ServiceIP")]
    InstanceIp,
    #[error("host_ip is not an address to which a tunnel can lead")]
    HostIp,
    #[error("host_port is 0")]
    HostPort,
}

impl Table {
    #[must_use]
    pub fn read(result: &TableResult, plan: &Plan) -> Self {
        if result.query_key.parse().is_ok_and(|key| plan.is_container(key)) {
            return Self::read_node(result, plan);
        }
        let mut table = Self { service: result.app_name.parse().ok(), ..Self::default() };
        // In the order of their numbers: of two instances that claim one NsIP, the younger has it.
        let mut instances: Vec<_> = result.instance_list.iter().collect();
        instances.sort_by_key(|instance| instance.instance_number);
        for instance in instances {
            table.add(instance, plan);
        }
        for instance in &result.leaving {
            table.add_leaving(instance, plan);
        }
        table.order_by_distance(&result.instance_list);
        table
    }

    /// Puts those first that are told to be close: as long as nothing is measured, that is all that is known.
    fn order_by_distance(&mut self, told: &[TableInstance]) {
        let kilometres: BTreeMap<Ipv4Addr, u32> = told
            .iter()
            .filter_map(|told| Some((told.namespace_ip.as_ref()?.parse().ok()?, told.kilometres?)))
            .collect();
        let closest = self.addresses.values_mut().filter(|entry| entry.policy == Policy::Closest);
        for entry in closest {
            entry.backends.sort_by_key(|it| kilometres.get(&it.ns_ip).copied().unwrap_or(u32::MAX));
        }
    }

    /// The answer to a question for the NsIP of a node itself: where that node is. It has no ServiceIP, and speaks under its
    /// NsIPs.
    fn read_node(result: &TableResult, plan: &Plan) -> Self {
        let mut table = Self::default();
        let Some(instance) = result.instance_list.first() else { return table };
        match place(instance, plan) {
            Ok(Some(Place { ns_ip, ns_ip6, node })) => {
                table.links.insert(node.ip(), instance.links);
                let backend = Backend { ns_ip, ns_ip6, instance_ip: ns_ip, instance_ip6: ns_ip6, node };
                let both = [Some(IpAddr::V4(ns_ip)), ns_ip6.map(IpAddr::V6)];
                let entry = Entry { backends: vec![backend], ..Entry::empty(Policy::Instance) };
                table.addresses.extend(both.into_iter().flatten().map(|address| (address, entry.clone())));
            }
            Ok(None) => {}
            Err(reason) => table.rejected.push((instance.instance_number, reason)),
        }
        table
    }

    fn add(&mut self, instance: &TableInstance, plan: &Plan) {
        let own = own_address(instance, plan);
        let own_addresses: Vec<_> = own.iter().flat_map(OwnAddress::both).collect();
        if let Some(own) = own {
            self.instances.insert(instance.instance_number, own);
        }
        let backend = match backend(instance, own, plan) {
            Ok(backend) => backend,
            Err(reason) => {
                self.rejected.push((instance.instance_number, reason));
                None
            }
        };
        if let Some(backend) = backend {
            self.links.insert(backend.node.ip(), instance.links);
        }
        for address in &own_addresses {
            self.entry(*address, Policy::Instance)
                .backends
                .extend(backend.filter(|it| is_reached_by(it, *address)));
        }
        for (address, policy) in service_addresses(instance, plan) {
            let backends = &mut self.entry(address, policy).backends;
            let Some(backend) = backend.filter(|it| is_reached_by(it, address)) else { continue };
            if own_addresses.contains(&address) {
                continue;
            }
            backends.retain(|other| other.ns_ip != backend.ns_ip);
            backends.push(backend);
            if instance.busy && policy == Policy::Closest {
                self.entry(address, policy).busy.insert(backend.ns_ip);
            }
        }
    }

    /// After all that are not: an NsIP may have a new owner already.
    fn add_leaving(&mut self, instance: &TableInstance, plan: &Plan) {
        let own = own_address(instance, plan);
        let (number, Ok(Some(backend)), Some(own)) =
            (instance.instance_number, backend(instance, own, plan), own)
        else {
            return;
        };
        let is_taken = |entry: &Entry| entry.backends.iter().any(|other| other.ns_ip == backend.ns_ip);
        // One that has moved is listed where it is, too.
        let is_another = self.instances.get(&number).is_some_and(|listed| *listed != own);
        if is_another || self.addresses.values().any(is_taken) {
            return;
        }
        self.instances.insert(number, own);
        let by_own = own.both().map(|address| (address, Policy::Instance));
        for (address, policy) in service_addresses(instance, plan).chain(by_own) {
            if is_reached_by(&backend, address) {
                let leaving = &mut self.entry(address, policy).leaving;
                leaving.retain(|other| other.ns_ip != backend.ns_ip);
                leaving.push(backend);
            }
        }
    }

    fn entry(&mut self, address: IpAddr, policy: Policy) -> &mut Entry {
        self.addresses.entry(address).or_insert_with(|| Entry::empty(policy))
    }
}

impl OwnAddress {
    fn both(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [Some(IpAddr::V4(self.v4)), self.v6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// Whether the instance has an address of the family of `address`.
fn is_reached_by(backend: &Backend, address: IpAddr) -> bool {
    address.is_ipv4() || backend.ns_ip6.is_some()
}

/// The instance's own ServiceIPs: the keys of their own, or (from version 0.4.2) the entry of that kind in the list.
fn own_address(instance: &TableInstance, plan: &Plan) -> Option<OwnAddress> {
    let listed = instance.service_ip.iter().find(|address| address.ip_type == IpType::Instance);
    let v4 = instance.instance_ip.or_else(|| listed?.address.parse().ok());
    let v6 = instance.instance_ip_v6.as_deref().or_else(|| Some(listed?.address_v6.as_str()));
    let v6: Option<Ipv6Addr> = v6.and_then(|text| text.parse().ok());
    let v4 = v4.filter(|own| plan.is_service((*own).into()))?;
    Some(OwnAddress { v4, v6: v6.filter(|own| plan.is_service((*own).into())) })
}

fn service_addresses(instance: &TableInstance, plan: &Plan) -> impl Iterator<Item = (IpAddr, Policy)> {
    instance.service_ip.iter().flat_map(|service_ip| {
        let policy = match service_ip.ip_type {
            IpType::RoundRobin if service_ip.balancing == Balancing::LeastConnections => {
                Policy::LeastConnections
            }
            IpType::RoundRobin => Policy::RoundRobin,
            IpType::Closest => Policy::Closest,
            IpType::Instance => Policy::Instance,
        };
        let v4 = service_ip.address.parse().map(IpAddr::V4).ok();
        let v6 = service_ip.address_v6.parse().map(IpAddr::V6).ok();
        let both = [v4, v6].into_iter().flatten().filter(|address| plan.is_service(*address));
        both.map(move |address| (address, policy))
    })
}

/// Where an instance is.
struct Place {
    ns_ip: Ipv4Addr,
    ns_ip6: Option<Ipv6Addr>,
    node: SocketAddr,
}

/// `Ok(None)` is an instance that does not run yet.
fn place(instance: &TableInstance, plan: &Plan) -> Result<Option<Place>, Rejected> {
    let place = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (Some(ns_ip), Some(host_ip)) = (place(&instance.namespace_ip), place(&instance.host_ip)) else {
        return Ok(None);
    };
    let ns_ip: Ipv4Addr = ns_ip.parse().map_err(|_no_address| Rejected::NamespaceIp)?;
    if !plan.is_container(ns_ip.into()) {
        return Err(Rejected::NamespaceIp);
    }
    let host: IpAddr = host_ip.parse().map_err(|_no_address| Rejected::HostIp)?;
    let host = host.to_canonical();
    if !address::can_be_host(host) {
        return Err(Rejected::HostIp);
    }
    if instance.host_port == 0 {
        return Err(Rejected::HostPort);
    }
    // Clusters write some address for a container without IPv6, since Oakestra's workers insist on one.
    let ns_ip6 = instance.namespace_ip_v6.as_deref().and_then(|text| text.parse().ok());
    let ns_ip6 = ns_ip6.filter(|ns_ip| address::is_container6(*ns_ip));
    Ok(Some(Place { ns_ip, ns_ip6, node: SocketAddr::new(host, instance.host_port) }))
}

/// `Ok(None)` is an instance that does not run yet.
fn backend(
    instance: &TableInstance,
    own: Option<OwnAddress>,
    plan: &Plan,
) -> Result<Option<Backend>, Rejected> {
    let Some(Place { ns_ip, ns_ip6, node }) = place(instance, plan)? else { return Ok(None) };
    let own = own.ok_or(Rejected::InstanceIp)?;
    let (ns_ip6, instance_ip6) = ns_ip6.zip(own.v6).unzip();
    Ok(Some(Backend { ns_ip, ns_ip6, instance_ip: own.v4, instance_ip6, node }))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use proptest::prelude::*;
    use protocol::net::TableResult;
    use protocol::plan::Plan;
    use serde_json::json;

    use super::{Entry, OwnAddress, Rejected, Table};
    use crate::datapath::{Backend, Policy};

    const ROUND_ROBIN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 30, 109, 1));
    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 31));

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn elsewhere(_: &Backend) -> bool {
        false
    }

    fn read(value: serde_json::Value) -> Table {
        Table::read(&serde_json::from_value::<TableResult>(value).unwrap(), &Plan::default())
    }

    fn instance(number: u32, ns_ip: &str, host_ip: &str) -> serde_json::Value {
        let own = format!("10.30.0.{number}");
        json!({"instance_number": number, "instance_ip": own, "namespace_ip": ns_ip, "host_ip": host_ip, "host_port": 50103,
            "service_ip": [{"IpType": "RR", "Address": "10.30.109.1"}, {"IpType": "instance_ip", "Address": own}]})
    }

    fn answer(instances: &[serde_json::Value]) -> Table {
        read(
            json!({"app_name": "smp.bed.srv.bed", "instance_list": instances, "query_key": "smp.bed.srv.bed"}),
        )
    }

    /// As captured from Oakestra's cluster.
    #[test]
    fn the_captured_answer_is_read() {
        let table = read(json!({"app_name": "smp.bed.srv.bed", "instance_list": [{"instance_number": 0,
            "instance_ip": "10.30.0.0", "instance_ip_v6": "fdff::", "cluster_id": "6b033dc3d683569b0801fa16",
            "worker_id": "6b033dc62c1f07cbdcd88440", "namespace_ip": "10.18.0.66", "namespace_ip_v6": "fc00::102",
            "host_ip": "192.0.2.32", "host_port": 50103, "service_ip": [
                {"IpType": "RR", "Address": "10.30.109.1", "Address_v6": "fdff:2000::"},
                {"IpType": "RR", "Address": "10.30.109.9", "Address_v6": "", "balancing": "least_connections"},
                {"IpType": "instance_ip", "Address": "10.30.0.0", "Address_v6": "fdff::"}]}],
            "query_key": "smp.bed.srv.bed"}));
        let backend = Backend {
            ns_ip: Ipv4Addr::new(10, 18, 0, 66),
            ns_ip6: Some("fc00::102".parse().unwrap()),
            instance_ip: Ipv4Addr::new(10, 30, 0, 0),
            instance_ip6: Some("fdff::".parse().unwrap()),
            node: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 32).into(), 50103),
        };
        assert_eq!(table.service.as_ref().unwrap().as_str(), "smp.bed.srv.bed");
        for (text, policy) in [
            ("10.30.109.1", Policy::RoundRobin),
            ("fdff:2000::", Policy::RoundRobin),
            ("10.30.109.9", Policy::LeastConnections),
            ("10.30.0.0", Policy::Instance),
            ("fdff::", Policy::Instance),
        ] {
            let entry = &table.addresses[&address(text)];
            assert_eq!((entry.policy, entry.backends.as_slice()), (policy, [backend].as_slice()), "{text}");
        }
        assert_eq!(table.addresses.len(), 5);
        assert_eq!(table.instances[&0], OwnAddress { v4: backend.instance_ip, v6: backend.instance_ip6 });
    }

    #[test]
    fn an_instance_that_does_not_run_yet_is_no_backend_but_has_its_address() {
        let mut waiting = instance(1, "", "");
        waiting["namespace_ip"] = json!(null);
        waiting["host_ip"] = json!(null);
        waiting["host_port"] = json!(null);
        let table = answer(&[instance(0, "10.18.0.2", "192.0.2.31"), waiting]);
        assert_eq!(table.addresses[&ROUND_ROBIN].backends.len(), 1);
        assert!(table.addresses[&address("10.30.0.1")].backends.is_empty());
        assert_eq!(table.instances[&1], OwnAddress { v4: Ipv4Addr::new(10, 30, 0, 1), v6: None });
        assert!(table.rejected.is_empty());
    }

    #[test]
    fn places_outside_the_address_plan_are_rejected_with_a_reason() {
        let mut no_port = instance(4, "10.18.0.4", "192.0.2.31");
        no_port["host_port"] = json!(0);
        let table = answer(&[
            instance(1, "192.168.1.1", "192.0.2.31"),
            instance(2, "10.18.0.2", "224.0.0.1"),
            instance(5, "10.18.0.2", "fe80::1"),
            instance(3, "not an address", "192.0.2.31"),
            no_port,
        ]);
        assert!(table.addresses.values().all(|entry| entry.backends.is_empty()));
        assert_eq!(
            table.rejected,
            [
                (1, Rejected::NamespaceIp),
                (2, Rejected::HostIp),
                (3, Rejected::NamespaceIp),
                (4, Rejected::HostPort),
                (5, Rejected::HostIp)
            ]
        );
    }

    #[test]
    fn the_younger_of_two_instances_has_the_address_that_both_claim() {
        let table = answer(&[instance(7, "10.18.0.2", "192.0.2.31"), instance(3, "10.18.0.2", "192.0.2.31")]);
        let backends = &table.addresses[&ROUND_ROBIN].backends;
        assert_eq!(backends.len(), 1);
        assert_eq!(backends[0].instance_ip, Ipv4Addr::new(10, 30, 0, 7));
    }

    #[test]
    fn nodes_that_cannot_use_all_instances_use_different_ones() {
        let numbers: Vec<_> =
            (0..100).map(|number| instance(number, &format!("10.18.{number}.2"), "192.0.2.31")).collect();
        let entry = answer(&numbers).addresses.remove(&ROUND_ROBIN).unwrap();
        let other = address("2001:db8::32");
        let chosen = entry.at_most(64, NODE, elsewhere);
        assert_eq!(chosen.len(), 64);
        assert_ne!(chosen, entry.at_most(64, other, elsewhere));
        assert_eq!(entry.at_most(100, NODE, elsewhere), entry.backends);

        // One of the hundred goes: at most one of the chosen changes.
        let fewer =
            answer(&numbers[1..]).addresses.remove(&ROUND_ROBIN).unwrap().at_most(64, NODE, elsewhere);
        assert!(fewer.iter().filter(|backend| !chosen.contains(backend)).count() <= 1);
    }

    /// An instance with everything that there is.
    fn complete(number: u32, ns_ip6: &str, host_ip: &str) -> serde_json::Value {
        let mut instance = instance(number, &format!("10.18.0.{}", number + 2), host_ip);
        instance["namespace_ip_v6"] = json!(ns_ip6);
        instance["instance_ip_v6"] = json!(format!("fdff::{number}"));
        instance["service_ip"] = json!([
            {"IpType": "RR", "Address": "10.30.109.1", "Address_v6": "fdff:2000::1"},
            {"IpType": "RR", "Address": "10.30.109.2", "Address_v6": ""},
            {"IpType": "Closest", "Address": "10.30.109.3", "Address_v6": "fdff:1000::1"},
            {"IpType": "instance_ip", "Address": format!("10.30.0.{number}"), "Address_v6": format!("fdff::{number}")},
        ]);
        instance
    }

    #[test]
    fn a_service_may_have_several_addresses_of_each_kind_and_family() {
        let table = answer(&[complete(1, "fc00::2", "192.0.2.31"), complete(2, "fc00::3", "2001:db8::32")]);
        assert_eq!(table.rejected, []);
        for (text, policy, instances) in [
            ("10.30.109.1", Policy::RoundRobin, 2),
            ("fdff:2000::1", Policy::RoundRobin, 2),
            ("10.30.109.2", Policy::RoundRobin, 2),
            ("10.30.109.3", Policy::Closest, 2),
            ("fdff:1000::1", Policy::Closest, 2),
            ("10.30.0.1", Policy::Instance, 1),
            ("fdff::2", Policy::Instance, 1),
        ] {
            let entry = &table.addresses[&address(text)];
            assert_eq!((entry.policy, entry.backends.len()), (policy, instances), "{text}");
        }
        assert_eq!(
            table.addresses[&address("fdff::2")].backends[0].node,
            "[2001:db8::32]:50103".parse().unwrap()
        );
    }

    #[test]
    fn an_instance_without_ipv6_is_behind_no_ipv6_address() {
        // As our workers and Oakestra's clusters write "none"; and one that is no container's.
        for none in ["::ffff:10.18.0.3", "", "2001:db8::1"] {
            let table = answer(&[complete(1, "fc00::2", "192.0.2.31"), complete(2, none, "192.0.2.31")]);
            assert_eq!(table.addresses[&ROUND_ROBIN].backends.len(), 2, "{none}");
            assert_eq!(table.addresses[&address("fdff:2000::1")].backends.len(), 1, "{none}");
            assert_eq!(table.addresses[&address("fdff::2")].backends, [], "{none}");
        }
    }

    #[test]
    fn of_a_closest_address_the_instances_here_come_first_and_the_others_as_listed() {
        let numbers: Vec<_> =
            (1..=3).map(|number| complete(number, "fc00::2", &format!("192.0.2.3{number}"))).collect();
        let entry = answer(&numbers).addresses.remove(&address("10.30.109.3")).unwrap();
        let order = |is_here: &dyn Fn(&Backend) -> bool| -> Vec<_> {
            let chosen = entry.at_most(2, NODE, is_here);
            chosen.iter().map(|backend| backend.instance_ip.octets()[3]).collect()
        };
        assert_eq!(order(&elsewhere), [1, 2]);
        assert_eq!(order(&|backend| backend.ns_ip == Ipv4Addr::new(10, 18, 0, 5)), [3, 1]);
    }

    #[test]
    fn as_long_as_nothing_is_measured_the_closest_are_those_that_are_said_to_be() {
        let mut instances: Vec<_> =
            (1..=4).map(|number| complete(number, "fc00::2", &format!("192.0.2.3{number}"))).collect();
        for (instance, kilometres) in
            instances.iter_mut().zip([json!(500), json!(null), json!(20), json!(20)])
        {
            instance["kilometres"] = kilometres;
        }
        let table = answer(&instances);
        let order = |text: &str| -> Vec<_> {
            let backends = &table.addresses[&address(text)].backends;
            backends.iter().map(|backend| backend.instance_ip.octets()[3]).collect()
        };
        assert_eq!(order("10.30.109.3"), [3, 4, 1, 2]);
        assert_eq!(order("10.30.109.1"), [1, 2, 3, 4], "in turn it does not matter");
    }

    #[test]
    fn only_of_a_closest_address_it_counts_that_an_instance_is_busy() {
        let mut instances = [complete(1, "fc00::2", "192.0.2.31"), complete(2, "fc00::3", "192.0.2.32")];
        instances[1]["busy"] = json!(true);
        let table = answer(&instances);
        for (text, busy) in [("10.30.109.3", 1), ("fdff:1000::1", 1), ("10.30.109.1", 0), ("10.30.0.2", 0)] {
            let entry = &table.addresses[&address(text)];
            assert_eq!(entry.busy.len(), busy, "{text}");
            assert!(
                entry
                    .backends
                    .iter()
                    .filter(|it| entry.busy.contains(&it.ns_ip))
                    .all(|it| it.instance_ip.octets()[3] == 2)
            );
        }
    }

    #[test]
    fn who_is_being_stopped_is_behind_its_addresses_but_no_choice() {
        let answer = |leaving: &[serde_json::Value]| {
            let instances = [instance(1, "10.18.0.2", "192.0.2.31")];
            read(
                json!({"app_name": "smp.bed.srv.bed", "instance_list": instances, "query_key": "smp.bed.srv.bed",
                "leaving": leaving}),
            )
        };
        let goes = instance(2, "10.18.0.3", "192.0.2.32");
        let table = answer(std::slice::from_ref(&goes));
        for (text, backends) in [("10.30.109.1", 1), ("10.30.0.2", 0)] {
            let entry = &table.addresses[&address(text)];
            assert_eq!((entry.backends.len(), entry.leaving.len()), (backends, 1), "{text}");
            assert_eq!(entry.leaving[0].ns_ip, Ipv4Addr::new(10, 18, 0, 3));
        }
        assert!(table.instances.contains_key(&2));
        // Whose NsIP somebody else has by now is gone, as is who is nowhere, and whose number is another's.
        let mut another = instance(1, "10.18.0.9", "192.0.2.32");
        another["instance_ip"] = json!("10.30.0.9");
        for other in [instance(2, "10.18.0.2", "192.0.2.31"), instance(2, "", ""), another] {
            assert!(answer(&[other]).addresses.values().all(|entry| entry.leaving.is_empty()));
        }
        // One that has moved is where it is, and where it was.
        let moved = answer(&[instance(1, "10.18.0.9", "192.0.2.32")]);
        for text in ["10.30.109.1", "10.30.0.1"] {
            let Entry { backends, leaving, .. } = &moved.addresses[&address(text)];
            assert_eq!((backends[0].ns_ip, leaving[0].ns_ip), ([10, 18, 0, 2].into(), [10, 18, 0, 9].into()));
        }
    }

    #[test]
    fn a_node_itself_is_behind_its_ns_ips() {
        let itself = |host: &str| {
            read(json!({"app_name": "", "query_key": "10.18.0.62", "instance_list": [{"instance_number": 0,
                "namespace_ip": "10.18.0.62", "namespace_ip_v6": "fc00::3e", "host_ip": host, "host_port": 50103}]}))
        };
        let table = itself("192.0.2.31");
        let addresses: Vec<_> = table.addresses.keys().map(ToString::to_string).collect();
        assert_eq!((table.service, addresses), (None, vec!["10.18.0.62".to_owned(), "fc00::3e".to_owned()]));
        for entry in table.addresses.values() {
            let backend = entry.backends[0];
            assert_eq!((backend.instance_ip, backend.instance_ip6), (backend.ns_ip, backend.ns_ip6));
            assert_eq!(backend.node, "192.0.2.31:50103".parse().unwrap());
        }
        assert_eq!(itself("fe80::1").rejected, [(0, Rejected::HostIp)]);
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_backend_that_is_not_wholly_known(
            places in proptest::collection::vec(
                (0u32..9, "(10\\.(18|30|31)\\.0\\.[0-9]{1,2}|x|)", "(192\\.0\\.2\\.[0-9]|0\\.0\\.0\\.0|2001:db8::[0-9]|fe80::1|::|)", 0u16..3), 0..9)
        ) {
            let instances: Vec<_> = places.iter().map(|(number, ns_ip, host, port)| {
                let mut instance = instance(*number, ns_ip, host);
                instance["host_port"] = json!(port);
                instance
            }).collect();
            let table = answer(&instances);
            for (address, entry) in &table.addresses {
                prop_assert!(Plan::default().is_service(*address));
                prop_assert!(entry.policy == Policy::RoundRobin || entry.backends.iter().all(|b| IpAddr::V4(b.instance_ip) == *address));
                for backend in &entry.backends {
                    prop_assert_eq!(backend.ns_ip.octets()[1], 18);
                    prop_assert!(backend.node.port() != 0 && !backend.node.ip().is_unspecified());
                }
            }
        }
    }
}
