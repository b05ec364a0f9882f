//! What one answer of the cluster says: for each ServiceIP in it, the instances behind it. Pure.
//!
//! The cluster's word is checked before it may steer packets: addresses must lie in the ranges of the address plan,
//! and an instance that does not run yet (its places are `null`) is no backend.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use protocol::address::{self, SUBNET_FIRST, SUBNET_LAST};
use protocol::name::ServiceName;
use protocol::net::{IpType, TableInstance, TableResult};

use crate::datapath::{Backend, Policy};
use crate::hash::fnv1a;

/// A [`TableResult`], checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The service; `None` when the question was for an address that belongs to none.
    pub service: Option<ServiceName>,
    /// Each ServiceIP that the answer names, with what is behind it now. Also those with nothing behind.
    pub addresses: BTreeMap<Ipv4Addr, Entry>,
    /// The own ServiceIP of each instance, running or not.
    pub instances: BTreeMap<u32, Ipv4Addr>,
    /// Instances that were left out although they claim to run, and why.
    pub rejected: Vec<(u32, Rejected)>,
}

/// How a ServiceIP chooses, and among which instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub policy: Policy,
    pub backends: Vec<Backend>,
}

impl Entry {
    /// The backends that `node` uses when the data plane takes no more than `limit` for one address. Other nodes use
    /// others, so that all instances get work; while instances come and go, most of a node's choice stays.
    #[must_use]
    pub fn at_most(&self, limit: usize, node: Ipv4Addr) -> Vec<Backend> {
        let mut backends = self.backends.clone();
        if backends.len() > limit {
            let [a, b, c, d] = node.octets();
            backends.sort_by_cached_key(|backend| {
                let [e, f, g, h] = backend.ns_ip.octets();
                fnv1a(&[a, b, c, d, e, f, g, h])
            });
            backends.truncate(limit);
        }
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
    #[error("host_ip is not an IPv4 address to which a tunnel can lead")]
    HostIp,
    #[error("host_port is 0")]
    HostPort,
}

impl Table {
    #[must_use]
    pub fn read(result: &TableResult) -> Self {
        let mut table = Self { service: result.app_name.parse().ok(), ..Self::default() };
        // In the order of their numbers: of two instances that claim one NsIP, the younger has it.
        let mut instances: Vec<_> = result.instance_list.iter().collect();
        instances.sort_by_key(|instance| instance.instance_number);
        for instance in instances {
            table.add(instance);
        }
        table
    }

    fn add(&mut self, instance: &TableInstance) {
        let own = own_address(instance);
        if let Some(own) = own {
            self.instances.insert(instance.instance_number, own);
            self.entry(own, Policy::Instance);
        }
        let backend = match backend(instance, own) {
            Ok(backend) => backend,
            Err(reason) => {
                self.rejected.push((instance.instance_number, reason));
                None
            }
        };
        for (address, policy) in service_addresses(instance) {
            self.entry(address, policy);
        }
        let Some(backend) = backend else { return };
        self.entry(backend.instance_ip, Policy::Instance).push(backend);
        for (address, policy) in service_addresses(instance) {
            if address == backend.instance_ip {
                continue;
            }
            let backends = self.entry(address, policy);
            backends.retain(|other| other.ns_ip != backend.ns_ip);
            backends.push(backend);
        }
    }

    fn entry(&mut self, address: Ipv4Addr, policy: Policy) -> &mut Vec<Backend> {
        &mut self.addresses.entry(address).or_insert_with(|| Entry { policy, backends: Vec::new() }).backends
    }
}

/// The instance's own ServiceIP: the key of its own, or (from version 0.4.2) the entry of that kind in the list.
fn own_address(instance: &TableInstance) -> Option<Ipv4Addr> {
    let listed = || {
        let own = instance.service_ip.iter().find(|address| address.ip_type == IpType::Instance)?;
        own.address.parse().ok()
    };
    instance.instance_ip.or_else(listed).filter(|own| address::is_service(*own))
}

fn service_addresses(instance: &TableInstance) -> impl Iterator<Item = (Ipv4Addr, Policy)> {
    instance.service_ip.iter().filter_map(|service_ip| {
        let address = service_ip.address.parse().ok().filter(|address| address::is_service(*address))?;
        let policy = match service_ip.ip_type {
            // The closest instance is one of all, as long as distances are not known.
            IpType::RoundRobin | IpType::Closest => Policy::RoundRobin,
            IpType::Instance => Policy::Instance,
        };
        Some((address, policy))
    })
}

/// `Ok(None)` is an instance that does not run yet.
fn backend(instance: &TableInstance, own: Option<Ipv4Addr>) -> Result<Option<Backend>, Rejected> {
    let place = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (Some(ns_ip), Some(host_ip)) = (place(&instance.namespace_ip), place(&instance.host_ip)) else {
        return Ok(None);
    };
    let ns_ip: Ipv4Addr = ns_ip.parse().map_err(|_no_address| Rejected::NamespaceIp)?;
    let last = SUBNET_LAST.to_bits() | 63;
    if !(SUBNET_FIRST.to_bits()..=last).contains(&ns_ip.to_bits()) {
        return Err(Rejected::NamespaceIp);
    }
    let host: Ipv4Addr = host_ip.parse().map_err(|_no_address| Rejected::HostIp)?;
    if host.is_unspecified() || host.is_multicast() || host.is_broadcast() {
        return Err(Rejected::HostIp);
    }
    if instance.host_port == 0 {
        return Err(Rejected::HostPort);
    }
    let instance_ip = own.ok_or(Rejected::InstanceIp)?;
    let node = SocketAddr::new(host.into(), instance.host_port);
    Ok(Some(Backend { ns_ip, ns_ip6: None, instance_ip, instance_ip6: None, node }))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use proptest::prelude::*;
    use protocol::net::TableResult;
    use serde_json::json;

    use super::{Rejected, Table};
    use crate::datapath::{Backend, Policy};

    const ROUND_ROBIN: Ipv4Addr = Ipv4Addr::new(10, 30, 109, 1);

    fn read(value: serde_json::Value) -> Table {
        Table::read(&serde_json::from_value::<TableResult>(value).unwrap())
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
                {"IpType": "instance_ip", "Address": "10.30.0.0", "Address_v6": "fdff::"}]}],
            "query_key": "smp.bed.srv.bed"}));
        let backend = Backend {
            ns_ip: Ipv4Addr::new(10, 18, 0, 66),
            ns_ip6: None,
            instance_ip: Ipv4Addr::new(10, 30, 0, 0),
            instance_ip6: None,
            node: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 32).into(), 50103),
        };
        assert_eq!(table.service.as_ref().unwrap().as_str(), "smp.bed.srv.bed");
        assert_eq!(table.addresses[&ROUND_ROBIN].policy, Policy::RoundRobin);
        assert_eq!(table.addresses[&ROUND_ROBIN].backends, [backend]);
        assert_eq!(table.addresses[&backend.instance_ip].policy, Policy::Instance);
        assert_eq!(table.addresses[&backend.instance_ip].backends, [backend]);
        assert_eq!(table.instances[&0], backend.instance_ip);
    }

    #[test]
    fn an_instance_that_does_not_run_yet_is_no_backend_but_has_its_address() {
        let mut waiting = instance(1, "", "");
        waiting["namespace_ip"] = json!(null);
        waiting["host_ip"] = json!(null);
        waiting["host_port"] = json!(null);
        let table = answer(&[instance(0, "10.18.0.2", "192.0.2.31"), waiting]);
        assert_eq!(table.addresses[&ROUND_ROBIN].backends.len(), 1);
        assert!(table.addresses[&Ipv4Addr::new(10, 30, 0, 1)].backends.is_empty());
        assert_eq!(table.instances[&1], Ipv4Addr::new(10, 30, 0, 1));
        assert!(table.rejected.is_empty());
    }

    #[test]
    fn places_outside_the_address_plan_are_rejected_with_a_reason() {
        let mut no_port = instance(4, "10.18.0.4", "192.0.2.31");
        no_port["host_port"] = json!(0);
        let table = answer(&[
            instance(1, "192.168.1.1", "192.0.2.31"),
            instance(2, "10.18.0.2", "224.0.0.1"),
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
                (4, Rejected::HostPort)
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
        let (one, other) = (Ipv4Addr::new(192, 0, 2, 31), Ipv4Addr::new(192, 0, 2, 32));
        let chosen = entry.at_most(64, one);
        assert_eq!(chosen.len(), 64);
        assert_ne!(chosen, entry.at_most(64, other));
        assert_eq!(entry.at_most(100, one), entry.backends);

        // One of the hundred goes: at most one of the chosen changes.
        let fewer = answer(&numbers[1..]).addresses.remove(&ROUND_ROBIN).unwrap().at_most(64, one);
        assert!(fewer.iter().filter(|backend| !chosen.contains(backend)).count() <= 1);
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_backend_that_is_not_wholly_known(
            places in proptest::collection::vec(
                (0u32..9, "(10\\.(18|30|31)\\.0\\.[0-9]{1,2}|x|)", "(192\\.0\\.2\\.[0-9]|0\\.0\\.0\\.0|)", 0u16..3), 0..9)
        ) {
            let instances: Vec<_> = places.iter().map(|(number, ns_ip, host, port)| {
                let mut instance = instance(*number, ns_ip, host);
                instance["host_port"] = json!(port);
                instance
            }).collect();
            let table = answer(&instances);
            for (address, entry) in &table.addresses {
                prop_assert!(protocol::address::is_service(*address));
                prop_assert!(entry.policy == Policy::RoundRobin || entry.backends.iter().all(|b| b.instance_ip == *address));
                for backend in &entry.backends {
                    prop_assert_eq!(backend.ns_ip.octets()[1], 18);
                    prop_assert!(backend.node.port() != 0 && !backend.node.ip().is_unspecified());
                }
            }
        }
    }
}
