//! The table of one service: what the root says of it, with what this cluster knows better, as workers get it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use protocol::address::{CLOSEST6_FIRST, INSTANCE6_FIRST, ROUND_ROBIN6_FIRST};
use protocol::balancing::Balancing;
use protocol::net::{IpType, NetInstance, NetService, ServiceIp, TableInstance};

use super::instance::Address;

/// How long an instance of another cluster keeps its connections after it was taken back. When it is gone only its own
/// cluster hears: longer than the programs in containers usually get to end by themselves, 10 s.
pub(super) const ELSEWHERE_LEAVES_WITHIN: Duration = Duration::from_secs(15);

/// One service, as far as it is known here.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The root's view; `None` before the root has answered.
    pub(super) root: Option<NetService>,
    /// The instances that this cluster runs, and where. For these the root's view counts only for the addresses that
    /// the root gives: where an instance is, and whether, is known here first.
    pub(super) local: BTreeMap<u32, Option<Address>>,
    /// Instances that this cluster runs and that have no processor time left.
    busy: BTreeSet<u32>,
    /// Those that are being stopped, here and elsewhere, as workers had them before. What the root says of them, which
    /// forgets them first, does not count any more.
    leaving: BTreeMap<u32, Leaving>,
    /// Where those of this cluster were that have moved: listed beside themselves.
    departing: BTreeMap<u32, Address>,
    /// The same of other clusters.
    departing_elsewhere: BTreeMap<u32, Leaving>,
}

#[derive(Debug)]
struct Leaving {
    entry: TableInstance,
    /// When it counts as gone, unless it is said before. Of those here it is always said.
    until: Option<Instant>,
}

impl Table {
    /// The instances that can be reached, as workers get them.
    pub(super) fn instances(&self) -> Vec<TableInstance> {
        let Some(root) = &self.root else {
            return Vec::new();
        };
        root.instance_list
            .iter()
            .filter(|instance| !self.leaving.contains_key(&instance.instance_number))
            .filter_map(|instance| self.instance(&root.service_ip_list, instance))
            .collect()
    }

    /// The instances that get nothing new and keep what they have.
    pub(super) fn leaving(&self) -> Vec<TableInstance> {
        let all = self.leaving.values().chain(self.departing_elsewhere.values());
        let departing = self.root.iter().flat_map(|root| {
            root.instance_list.iter().filter_map(|instance| {
                let was = self.departing.get(&instance.instance_number)?;
                entry(&root.service_ip_list, instance, Some(was))
            })
        });
        all.map(|leaving| leaving.entry.clone()).chain(departing).collect()
    }

    /// An instance that runs here at `address` is being stopped.
    pub(super) fn let_go(&mut self, number: u32, address: Address) {
        if !self.leaving.contains_key(&number) {
            self.local.insert(number, Some(address));
            let entry = self.instances().into_iter().find(|entry| entry.instance_number == number);
            self.leaving.extend(entry.map(|entry| (number, Leaving { entry, until: None })));
        }
        self.local.insert(number, None);
    }

    /// An instance runs here, at `address` if that is known.
    pub(super) fn set_local(&mut self, number: u32, address: Option<Address>) {
        self.leaving.remove(&number);
        self.local.insert(number, address);
    }

    /// Whether an instance that runs here has processor time left.
    pub(super) fn set_busy(&mut self, number: u32, busy: bool) {
        if busy {
            self.busy.insert(number);
        } else {
            self.busy.remove(&number);
        }
    }

    /// Where an instance of this cluster was before it moved; `None`: nothing is under way there any more. Says whether that
    /// is news.
    pub(super) fn set_departing(&mut self, number: u32, address: Option<Address>) -> bool {
        match address {
            Some(address) => self.departing.insert(number, address.clone()) != Some(address),
            None => self.departing.remove(&number).is_some(),
        }
    }

    /// What the root says now. Who is not in it any more was taken back, as if it had been told; who is elsewhere has moved.
    pub(super) fn learn(&mut self, root: Option<NetService>, now: Instant) {
        let before = self.instances();
        let remain = |number: u32| {
            let mut instances = root.iter().flat_map(|root| &root.instance_list);
            instances.any(|instance| instance.instance_number == number)
        };
        let numbers = before.iter().map(|entry| entry.instance_number);
        let gone = numbers.filter(|number| !remain(*number) && !self.local.contains_key(number));
        for number in gone.collect::<Vec<_>>() {
            self.forgotten_by_root(Some(number), now);
        }
        self.root = root;
        let until = Some(now + ELSEWHERE_LEAVES_WITHIN);
        for entry in self.instances() {
            let number = entry.instance_number;
            let was = before.iter().find(|before| before.instance_number == number);
            if let Some(was) = was.filter(|was| was.namespace_ip != entry.namespace_ip)
                && !self.local.contains_key(&number)
            {
                self.departing_elsewhere.insert(number, Leaving { entry: was.clone(), until });
            }
        }
    }

    /// The root says that an instance was taken back, or all of them. Those here are gone as soon as their workers say so,
    /// the others when their time is over.
    pub(super) fn forgotten_by_root(&mut self, number: Option<u32>, now: Instant) {
        let is_meant = |other: u32| number.is_none_or(|number| number == other);
        let here = |(here, address): (&u32, &Option<Address>)| {
            address.clone().filter(|_| is_meant(*here)).map(|address| (*here, address))
        };
        for (here, address) in self.local.iter().filter_map(here).collect::<Vec<_>>() {
            self.let_go(here, address);
        }
        let until = Some(now + ELSEWHERE_LEAVES_WITHIN);
        let elsewhere = self.instances().into_iter().filter(|entry| is_meant(entry.instance_number));
        self.leaving.extend(elsewhere.map(|entry| (entry.instance_number, Leaving { entry, until })));
        if let Some(root) = &mut self.root {
            root.instance_list.retain(|instance| !is_meant(instance.instance_number));
        }
    }

    /// Takes those away whose time is over.
    pub(super) fn end_leaving(&mut self, now: Instant) {
        for leaving in [&mut self.leaving, &mut self.departing_elsewhere] {
            leaving.retain(|_, leaving| leaving.until.is_none_or(|until| until > now));
        }
    }

    /// When [`Self::end_leaving`] is to be called.
    pub(super) fn leaves_until(&self) -> Option<Instant> {
        let all = self.leaving.values().chain(self.departing_elsewhere.values());
        all.filter_map(|leaving| leaving.until).min()
    }

    /// An instance does not run here any more, and will not.
    pub(super) fn remove_local(&mut self, number: u32) {
        self.local.remove(&number);
        self.busy.remove(&number);
        self.leaving.remove(&number);
        self.departing.remove(&number);
        if let Some(root) = &mut self.root {
            root.instance_list.retain(|instance| instance.instance_number != number);
        }
    }

    fn instance(&self, service_ips: &[ServiceIp], instance: &NetInstance) -> Option<TableInstance> {
        match self.local.get(&instance.instance_number) {
            Some(None) => None,
            Some(Some(address)) => {
                let is_closest = service_ips.iter().any(|ip| ip.ip_type == IpType::Closest);
                let busy = is_closest && self.busy.contains(&instance.instance_number);
                Some(TableInstance { busy, ..entry(service_ips, instance, Some(address))? })
            }
            None => entry(service_ips, instance, None),
        }
    }

    /// Whether the root must be asked before the table can be believed: it never was, or an instance here has no
    /// address of the root's yet.
    pub(super) fn incomplete(&self) -> bool {
        let Some(root) = &self.root else {
            return true;
        };
        let given = |number: &u32| {
            root.instance_list
                .iter()
                .any(|instance| instance.instance_number == *number && instance.instance_ip.is_some())
        };
        !self.local.keys().all(|number| given(number) || self.leaving.contains_key(number))
    }

    /// All ServiceIPs that lead to this service.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let Some(root) = &self.root else {
            return Vec::new();
        };
        let services = root.service_ip_list.iter().flat_map(|ip| [ip.address.parse(), ip.address_v6.parse()]);
        let instances = root.instance_list.iter().flat_map(|instance| {
            [
                instance.instance_ip.map(IpAddr::V4),
                instance.instance_ip_v6.as_ref().and_then(|address| address.parse().ok()),
            ]
        });
        services.filter_map(Result::ok).chain(instances.flatten()).collect()
    }
}

/// An instance of the root's view as workers get it: where that has it, or, of one of this cluster, at `here`.
fn entry(service_ips: &[ServiceIp], instance: &NetInstance, here: Option<&Address>) -> Option<TableInstance> {
    let instance_ip = instance.instance_ip?;
    let (worker_id, namespace_ip, namespace_ip_v6, host_ip, host_port, links) = match here {
        Some(address) => (
            Some(address.worker),
            address.namespace_ip.clone(),
            Some(address.namespace_ip_v6.clone()),
            address.host_ip.clone(),
            address.host_port,
            address.links,
        ),
        None => (
            instance.worker_id,
            instance.namespace_ip.clone().filter(|ip| !ip.is_empty())?,
            instance.namespace_ip_v6.clone(),
            instance.host_ip.clone().filter(|ip| !ip.is_empty())?,
            instance.host_port,
            instance.links,
        ),
    };
    let instance_ip_v6 = parsable_v6(instance.instance_ip_v6.as_deref(), INSTANCE6_FIRST, instance_ip);
    let namespace: Ipv4Addr = namespace_ip.parse().ok()?;
    let mut service_ip: Vec<_> = service_ips.iter().cloned().map(complete).collect();
    service_ip.push(ServiceIp {
        ip_type: IpType::Instance,
        address: instance_ip.to_string(),
        address_v6: instance_ip_v6.clone(),
        balancing: Balancing::default(),
    });
    Some(TableInstance {
        instance_number: instance.instance_number,
        instance_ip: Some(instance_ip),
        instance_ip_v6: Some(instance_ip_v6),
        cluster_id: instance.cluster_id,
        worker_id,
        namespace_ip: Some(namespace_ip),
        namespace_ip_v6: Some(parsable_namespace_v6(namespace_ip_v6, namespace)),
        host_ip: Some(host_ip),
        host_port,
        links,
        // Depends on who is told.
        kilometres: None,
        busy: false,
        service_ip,
    })
}

/// `address`, or the IPv4 address in IPv6 form: one that is no container's, so that nobody sends anything there.
fn parsable_namespace_v6(address: Option<String>, ipv4: Ipv4Addr) -> String {
    address
        .filter(|address| address.parse::<Ipv6Addr>().is_ok())
        .unwrap_or_else(|| ipv4.to_ipv6_mapped().to_string())
}

fn complete(mut ip: ServiceIp) -> ServiceIp {
    if let Ok(address) = ip.address.parse() {
        let first = if ip.ip_type == IpType::Closest { CLOSEST6_FIRST } else { ROUND_ROBIN6_FIRST };
        ip.address_v6 = parsable_v6(Some(&ip.address_v6), first, address);
    }
    ip
}

/// `address`, or one made from the IPv4 address within the range that `first` begins. Oakestra's workers drop a whole
/// entry when an IPv6 address in it cannot be parsed; a made one is its own and leads nowhere.
fn parsable_v6(address: Option<&str>, first: Ipv6Addr, ipv4: Ipv4Addr) -> String {
    match address.and_then(|address| address.parse::<Ipv6Addr>().ok()) {
        Some(address) => address.to_string(),
        None => Ipv6Addr::from_bits(first.to_bits() | u128::from(ipv4.to_bits())).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use protocol::net::{TableInstance, TableResult};
    use serde_json::{Value, json};

    use super::{Address, ELSEWHERE_LEAVES_WITHIN, Table};

    fn root(namespace_ip: &Value) -> protocol::net::NetService {
        serde_json::from_value(json!({
            "_id": "6b033dd4d683569b0801fa18", "job_name": "smp.bed.srv.bed",
            "service_ip_list": [{"IpType": "RR", "Address": "10.30.109.1", "Address_v6": "fdff:2000::"}],
            "instance_list": [{"instance_number": 0, "instance_ip": "10.30.0.0", "instance_ip_v6": "fdff::",
                "cluster_id": "6b033dc3d683569b0801fa16", "worker_id": "6b033dc62c1f07cbdcd88440",
                "namespace_ip": namespace_ip, "namespace_ip_v6": "fc00::102",
                "host_ip": "192.0.2.32", "host_port": 50103}],
        }))
        .unwrap()
    }

    #[test]
    fn a_table_is_written_as_oakestra_writes_it() {
        let table = Table { root: Some(root(&json!("10.18.0.66"))), ..Table::default() };
        let result = TableResult {
            leaving: Vec::new(),
            app_name: "smp.bed.srv.bed".to_owned(),
            instance_list: table.instances(),
            query_key: "smp.bed.srv.bed".to_owned(),
        };
        let captured = json!({"app_name": "smp.bed.srv.bed", "instance_list": [{"instance_number": 0,
            "instance_ip": "10.30.0.0", "instance_ip_v6": "fdff::", "cluster_id": "6b033dc3d683569b0801fa16",
            "worker_id": "6b033dc62c1f07cbdcd88440", "namespace_ip": "10.18.0.66", "namespace_ip_v6": "fc00::102",
            "host_ip": "192.0.2.32", "host_port": 50103, "service_ip": [
                {"IpType": "RR", "Address": "10.30.109.1", "Address_v6": "fdff:2000::"},
                {"IpType": "instance_ip", "Address": "10.30.0.0", "Address_v6": "fdff::"}]}],
            "query_key": "smp.bed.srv.bed"});
        assert_eq!(serde_json::to_value(result).unwrap(), captured);
    }

    #[test]
    fn what_runs_here_is_known_better_here() {
        let address = Address {
            worker: protocol::id::Id::from_bytes([1; 12]),
            namespace_ip: "10.18.0.2".to_owned(),
            namespace_ip_v6: String::new(),
            host_ip: "192.0.2.31".to_owned(),
            host_port: 50103,
            links: protocol::link::LinkOffer { vx: true },
        };
        let mut table = Table { root: Some(root(&json!("10.18.0.66"))), ..Table::default() };
        table.local.insert(0, None);
        assert!(table.instances().is_empty(), "its worker is gone, whatever the root still says");
        table.local.insert(0, Some(address));
        let instances = table.instances();
        assert_eq!(instances[0].host_ip.as_deref(), Some("192.0.2.31"));
        assert!(instances[0].links.vx);
        assert_eq!(instances[0].namespace_ip_v6.as_deref(), Some("::ffff:10.18.0.2"), "not parsable");
        assert!(!table.incomplete());
        table.local.insert(1, None);
        assert!(table.incomplete(), "instance 1 has no address of the root's");
    }

    #[test]
    fn an_instance_of_another_cluster_that_moves_is_told_where_it_was_for_a_while() {
        let now = Instant::now();
        let mut table = Table::default();
        table.learn(Some(root(&json!("10.18.0.66"))), now);
        table.learn(Some(root(&json!("10.18.0.66"))), now);
        assert_eq!(table.leaving(), []);
        table.learn(Some(root(&json!("10.18.1.2"))), now);
        let places = |list: Vec<TableInstance>| list.into_iter().map(|it| it.namespace_ip.unwrap());
        assert_eq!(places(table.instances()).collect::<Vec<_>>(), ["10.18.1.2"]);
        assert_eq!(places(table.leaving()).collect::<Vec<_>>(), ["10.18.0.66"]);
        assert_eq!(table.leaves_until(), Some(now + ELSEWHERE_LEAVES_WITHIN));
        table.end_leaving(now + ELSEWHERE_LEAVES_WITHIN);
        assert_eq!(table.leaving(), []);
    }

    #[test]
    fn a_closest_address_is_told_with_an_ipv6_one_of_its_range() {
        let mut root = root(&json!("10.18.0.66"));
        let closest = json!({"IpType": "Closest", "Address": "10.30.1.2", "Address_v6": ""});
        root.service_ip_list.push(serde_json::from_value(closest).unwrap());
        let table = Table { root: Some(root), ..Table::default() };
        let told = serde_json::to_value(&table.instances()[0].service_ip[1]).unwrap();
        let expected =
            json!({"IpType": "Closest", "Address": "10.30.1.2", "Address_v6": "fdff:1000::a1e:102"});
        assert_eq!(told, expected);
    }

    #[test]
    fn an_instance_that_does_not_run_yet_is_not_told() {
        let table = Table { root: Some(root(&Value::Null)), ..Table::default() };
        assert!(table.instances().is_empty());
        assert_eq!(table.addresses().len(), 4);
    }
}
