//! The pinned tables, typed. Reading them needs no daemon and disturbs none.

pub(super) mod lookup;
mod survey;
pub(super) mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use netmanager_common::event::DropReason;
use netmanager_common::flow;
use netmanager_common::health::Health;
use netmanager_common::life::{self, State};
use netmanager_common::map::{self, FlowKey, FragmentKey, FragmentPorts, Policy, Traffic};
use netmanager_common::plan::Plan;
use netmanager_common::wire::{self, Be16, Ip, Ip4};

use super::paths::Paths;
use super::pin::PinDir;
use super::registry::{Held, Row};
use super::{
    Addresses, Backend, Counters, DatapathError, Early, Endpoint, EndpointCounters, Flow, Node, Service,
    Transport,
};

/// The tables pinned under one directory, for `netmanager status` and `flows`, whether or not a daemon runs.
pub struct Tables {
    pub(super) pins: PinDir,
    pub(super) node: Array<MapData, map::Node>,
    pub(super) plan: Array<MapData, Plan>,
    pub(super) endpoints: HashMap<MapData, Ip, map::Endpoint>,
    pub(super) services: HashMap<MapData, Ip, map::Service>,
    pub(super) backends: Array<MapData, map::Backend>,
    pub(super) hosts: HashMap<MapData, Ip, u32>,
    pub(super) peers: HashMap<MapData, map::Peer, u32>,
    pub(super) turns: HashMap<MapData, Ip, u32>,
    pub(super) traffic: PerCpuArray<MapData, Traffic>,
    pub(super) health: Array<MapData, Health>,
    pub(super) loads: Array<MapData, u32>,
    pub(super) flows: HashMap<MapData, FlowKey, map::Flow>,
    pub(super) assured: HashMap<MapData, FlowKey, map::Flow>,
    fragments: HashMap<MapData, FragmentKey, FragmentPorts>,
    drops: PerCpuArray<MapData, u64>,
    pub(super) slow_path: Array<MapData, u32>,
    punts: PerCpuArray<MapData, u64>,
    early: PerCpuArray<MapData, u64>,
}

// aya's tables have no `Debug`, and what they hold is not ours to print.
impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    /// Opens what a daemon has pinned under `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, DatapathError> {
        Self::of(&PinDir::new(pin_dir))
    }

    pub(super) fn of(pins: &PinDir) -> Result<Self, DatapathError> {
        Ok(Self {
            pins: pins.clone(),
            node: open(pins, map::NODE)?,
            plan: open(pins, map::PLAN)?,
            endpoints: open(pins, map::ENDPOINTS)?,
            services: open(pins, map::SERVICES)?,
            backends: open(pins, map::BACKENDS)?,
            hosts: open(pins, map::HOSTS)?,
            peers: open(pins, map::PEERS)?,
            turns: open(pins, map::TURNS)?,
            traffic: open(pins, map::TRAFFIC)?,
            health: open(pins, map::HEALTH)?,
            loads: open(pins, map::LOADS)?,
            flows: open(pins, map::FLOWS)?,
            assured: open(pins, map::ASSURED)?,
            fragments: open(pins, map::FRAGMENTS)?,
            drops: open(pins, map::DROPS)?,
            slow_path: open(pins, map::SLOW_PATH)?,
            punts: open(pins, map::PUNTS)?,
            early: open(pins, map::EARLY)?,
        })
    }

    /// The node itself; nothing before [`super::Datapath::set_node`].
    pub fn node(&self) -> Result<Option<Node>, DatapathError> {
        let node = self.node.get(&0, 0).map_err(reading(map::NODE))?;
        Ok(node_of(&node))
    }

    /// The containers attached on this node, by NsIP.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, DatapathError> {
        self.veths(map::CONTAINER)
    }

    /// What [`super::Datapath::attach_node_itself`] has made.
    pub fn node_itself(&self) -> Result<Option<Endpoint>, DatapathError> {
        Ok(self.veths(map::NODE_ITSELF)?.into_iter().next())
    }

    fn veths(&self, holder: u32) -> Result<Vec<Endpoint>, DatapathError> {
        let rows = rows(&self.endpoints, map::ENDPOINTS)?.into_iter().map(|(_, row)| row);
        Ok(endpoints_of(rows.filter(|row| row.veth.holder == holder)))
    }

    /// The services known on this node, by address.
    pub fn services(&self) -> Result<Vec<Service>, DatapathError> {
        let mut services = Vec::new();
        for (service_ip, row) in rows(&self.services, map::SERVICES)? {
            services.push(self.read_service(from_ip(service_ip), &row)?);
        }
        services.sort_by_key(|service| service.service_ip);
        Ok(services)
    }

    /// The connections from containers of this node to service addresses, without those that are over. Flows that begin
    /// or end meanwhile may be missing.
    pub fn flows(&self) -> Result<Vec<Flow>, DatapathError> {
        let now = monotonic_seconds();
        let mut flows = Vec::new();
        for row in self.flows.iter() {
            let (key, row) = row.map_err(reading(map::FLOWS))?;
            // Read only for those that are shown.
            let backend = if key.ifindex == 0 { map::Backend::default() } else { self.backend(row.backend)? };
            flows.extend(flow_of(&key, &row, |_| backend, now));
        }
        flows.sort_by_key(|flow| (flow.client, flow.service, flow.transport));
        Ok(flows)
    }

    /// Traffic of each endpoint, and the drops.
    pub fn counters(&self) -> Result<Counters, DatapathError> {
        let mut endpoints = Vec::new();
        let of_container = |row: &map::Endpoint| is_v4(row) && row.veth.holder == map::CONTAINER;
        for (_, row) in rows(&self.endpoints, map::ENDPOINTS)?.iter().filter(|(_, row)| of_container(row)) {
            let per_cpu = self.traffic.get(&row.veth.slot, 0).map_err(reading(map::TRAFFIC))?;
            let sum = |field: fn(&Traffic) -> u64| per_cpu.iter().map(field).sum();
            endpoints.push(EndpointCounters {
                ns_ip: row.ns_ip.v4().0.into(),
                sent_packets: sum(|traffic| traffic.sent_packets),
                sent_bytes: sum(|traffic| traffic.sent_bytes),
                received_packets: sum(|traffic| traffic.received_packets),
                received_bytes: sum(|traffic| traffic.received_bytes),
            });
        }
        endpoints.sort_by_key(|endpoint| endpoint.ns_ip);
        let drops = by_reason(&self.drops, map::DROPS)?;
        Ok(Counters { endpoints, drops, punts: by_reason(&self.punts, map::PUNTS)? })
    }

    /// What was done before the kernel had a packet.
    pub fn early(&self) -> Result<Early, DatapathError> {
        let count = |event: map::Early| {
            let per_cpu = self.early.get(&(event as u32), 0).map_err(reading(map::EARLY))?;
            Ok::<u64, DatapathError>(per_cpu.iter().sum())
        };
        Ok(Early { unwrapped: count(map::Early::Unwrapped)?, no_metadata: count(map::Early::NoMetadata)? })
    }

    /// Everything that the registry is made from.
    pub(super) fn held(&self) -> Result<Held, DatapathError> {
        let mut held = Held::default();
        for (number, row) in (0..).zip(self.backends.iter()) {
            let row = row.map_err(reading(map::BACKENDS))?;
            if row.generation == 0 {
                // Numbers are used from the lowest: from here on none ever was.
                break;
            }
            let (generation, backend, aside) = (row.generation, from_backend(&row), row.aside != 0);
            held.rows.push(Row { number, generation, backend, aside });
        }
        let services = rows(&self.services, map::SERVICES)?;
        held.services = services
            .iter()
            .map(|(ip, row)| (from_ip(*ip), numbers(row).chain(resting(row)).collect()))
            .collect();
        for (address, number) in rows(&self.hosts, map::HOSTS)? {
            held.hosts.extend(u16::try_from(number).map(|number| (from_ip(address), number)));
        }
        held.peers = rows(&self.peers, map::PEERS)?
            .iter()
            .map(|(peer, _)| SocketAddr::new(from_ip(peer.address), peer.port.get()))
            .collect();
        Ok(held)
    }

    /// The entry that has this NsIP.
    pub(super) fn endpoint(&self, ns_ip: Ip) -> Result<Option<map::Endpoint>, DatapathError> {
        found(&self.endpoints, &ns_ip, map::ENDPOINTS)
    }

    /// The keys of a container's IPv6 entry: one, or none; more only when a writer has died in between.
    pub(super) fn second_entries(&self, slot: u32) -> Result<Vec<Ip>, DatapathError> {
        let rows = rows(&self.endpoints, map::ENDPOINTS)?.into_iter();
        Ok(rows.filter(|(_, row)| row.veth.slot == slot && !is_v4(row)).map(|(key, _)| key).collect())
    }

    fn read_service(&self, service_ip: IpAddr, row: &map::Service) -> Result<Service, DatapathError> {
        let policy = Policy::try_from(row.policy).unwrap_or(Policy::RoundRobin);
        let (backends, resting) = (self.in_use(numbers(row))?, self.in_use(resting(row))?);
        Ok(Service { service_ip, policy, backends, resting })
    }

    fn in_use(&self, numbers: impl Iterator<Item = u16>) -> Result<Vec<Backend>, DatapathError> {
        let mut backends = Vec::new();
        for number in numbers {
            let row = self.backend(number.into())?;
            backends.extend(row.in_use().then(|| from_backend(&row)));
        }
        Ok(backends)
    }

    fn backend(&self, number: u32) -> Result<map::Backend, DatapathError> {
        self.backends.get(&number, 0).map_err(reading(map::BACKENDS))
    }
}

pub(super) fn open<T>(pins: &PinDir, name: &'static str) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let path = pins.tables().join(name);
    let data = MapData::from_pin(&path).map_err(|source| DatapathError::NotPinned {
        path: pins.path().to_owned(),
        source: Box::new(source),
    })?;
    Map::from_map_data(data).and_then(T::try_from).map_err(table("open", name))
}

pub(super) fn found<K: Pod, V: Pod>(
    table: &HashMap<MapData, K, V>,
    key: &K,
    name: &'static str,
) -> Result<Option<V>, DatapathError> {
    match table.get(key, 0) {
        Ok(row) => Ok(Some(row)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(reading(name)(source)),
    }
}

pub(super) fn rows<K: Pod, V: Pod>(
    table: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<Vec<(K, V)>, DatapathError> {
    table.iter().collect::<Result<_, _>>().map_err(reading(name))
}

/// The counters that are not 0.
pub(super) fn by_reason(
    table: &PerCpuArray<MapData, u64>,
    name: &'static str,
) -> Result<Vec<(DropReason, u64)>, DatapathError> {
    let mut counts = Vec::new();
    for reason in DropReason::ALL {
        let per_cpu = table.get(&(*reason as u32), 0).map_err(reading(name))?;
        let count: u64 = per_cpu.iter().sum();
        counts.extend((count > 0).then_some((*reason, count)));
    }
    Ok(counts)
}

pub(crate) fn numbers(row: &map::Service) -> impl Iterator<Item = u16> + use<> {
    row.backends.into_iter().take(row.count.into())
}

pub(crate) fn resting(row: &map::Service) -> impl Iterator<Item = u16> + use<> {
    row.backends.into_iter().skip(row.count.into()).take(row.resting.into())
}

pub(crate) fn from_backend(row: &map::Backend) -> Backend {
    Backend {
        ns_ip: row.ns_ip.0.into(),
        ns_ip6: optional_v6(row.ns_ip6),
        instance_ip: row.instance_ip.0.into(),
        instance_ip6: optional_v6(row.instance_ip6),
        node: SocketAddr::new(from_ip(row.node), row.port.get()),
    }
}

/// Nothing while it has no address.
pub(crate) fn node_of(row: &map::Node) -> Option<Node> {
    let addresses = Addresses {
        v4: (!row.address.is_none()).then(|| row.address.0.into()),
        v6: optional_v6(row.address6),
    };
    (addresses != Addresses::default()).then_some(Node {
        addresses,
        uplink_ifindex: row.uplink_ifindex,
        uplinks: row.uplinks,
        tunnel_port: row.tunnel_port.get(),
        inner_mtu: row.inner_mtu,
    })
}

/// A container's entries: of IPv4, the one by which both are found again, and of IPv6 if it has that.
pub(crate) fn endpoint_rows(
    endpoint: &Endpoint,
    slot: u32,
    holder: u32,
) -> impl Iterator<Item = map::Endpoint> + use<> {
    let row = map::Endpoint {
        ns_ip: ip(endpoint.ns_ip.into()),
        instance_ip: endpoint.instance_ip.map(|own| ip(own.into())).unwrap_or_default(),
        veth: map::Veth {
            ifindex: endpoint.ifindex,
            slot,
            mac: endpoint.mac,
            gateway_mac: endpoint.gateway_mac,
            holder,
        },
    };
    let second = map::Endpoint {
        ns_ip: optional_ip6(endpoint.ns_ip6),
        instance_ip: optional_ip6(endpoint.instance_ip6),
        ..row
    };
    [row, second].into_iter().filter(|row| !row.ns_ip.is_none())
}

/// The containers that have these entries, by NsIP.
pub(crate) fn endpoints_of(rows: impl Iterator<Item = map::Endpoint>) -> Vec<Endpoint> {
    let (v4, v6): (Vec<_>, Vec<_>) = rows.partition(is_v4);
    let mut endpoints: Vec<_> = v4
        .iter()
        .map(|row| {
            let second = v6.iter().find(|second| second.veth.slot == row.veth.slot);
            Endpoint {
                ns_ip: Ipv4Addr::from(row.ns_ip.v4().0),
                ns_ip6: second.and_then(|second| optional_v6(second.ns_ip)),
                instance_ip: (!row.instance_ip.is_none()).then(|| row.instance_ip.v4().0.into()),
                instance_ip6: second.and_then(|second| optional_v6(second.instance_ip)),
                ifindex: row.veth.ifindex,
                mac: row.veth.mac,
                gateway_mac: row.veth.gateway_mac,
            }
        })
        .collect();
    endpoints.sort_by_key(|endpoint| endpoint.ns_ip);
    endpoints
}

/// A flow as the container sees it that has begun it; nothing for its other direction, and of one that is over.
pub(crate) fn flow_of(
    key: &FlowKey,
    row: &map::Flow,
    backend: impl FnOnce(u32) -> map::Backend,
    now: u32,
) -> Option<Flow> {
    let protocol = u8::try_from(key.protocol).ok()?;
    let (state, idle) = (State::of(row.state), flow::idle(now, row.last_seen));
    if key.ifindex == 0 || life::is_over(protocol, state, idle) {
        return None;
    }
    let transport = match protocol {
        wire::TCP => Transport::Tcp,
        wire::UDP => Transport::Udp,
        _ => Transport::Icmp,
    };
    let backend = backend(row.backend);
    let live = backend.in_use() && backend.generation == row.generation;
    Some(Flow {
        transport,
        client: SocketAddr::new(from_ip(key.source), key.source_port.get()),
        service: SocketAddr::new(from_ip(key.destination), key.destination_port.get()),
        backend: live.then(|| from_backend(&backend)),
        idle: Duration::from_secs(idle.into()),
        state,
    })
}

/// With the way to its node.
pub(crate) fn backend_row(row: Row, paths: &Paths) -> map::Backend {
    let Row { generation, backend, aside, .. } = row;
    let node = backend.node.ip();
    map::Backend {
        generation,
        ns_ip: ip4(backend.ns_ip),
        ns_ip6: optional_ip6(backend.ns_ip6),
        instance_ip: ip4(backend.instance_ip),
        instance_ip6: optional_ip6(backend.instance_ip6),
        node: ip(node),
        port: Be16::new(backend.node.port()),
        mtu: paths.inner_mtu(node),
        aside: aside.into(),
        egress: paths.egress(node),
        link: paths.link(node) as u8,
        _pad: 0,
    }
}

/// The row of a service in the table of `node`. The lists are together no longer than [`map::MAX_BACKENDS_PER_SERVICE`].
pub(crate) fn service_row(
    node: &map::Node,
    service_ip: Ip,
    policy: Policy,
    numbers: &[u16],
    resting: &[u16],
) -> map::Service {
    let mut backends = [0; map::MAX_BACKENDS_PER_SERVICE];
    for (place, number) in backends.iter_mut().zip(numbers.iter().chain(resting)) {
        *place = *number;
    }
    #[expect(clippy::cast_possible_truncation, reason = "as said")]
    let length = |numbers: &[u16]| numbers.len() as u16;
    map::Service {
        service_ip,
        count: length(numbers),
        resting: length(resting),
        policy: policy as u16,
        first: match policy {
            Policy::RoundRobin | Policy::LeastConnections => flow::first_turn(node.own_address(), service_ip),
            Policy::Instance | Policy::Closest => 0,
        },
        backends,
    }
}

/// Each container has one such entry.
fn is_v4(endpoint: &map::Endpoint) -> bool {
    endpoint.ns_ip.is_v4()
}

pub(crate) fn ip4(address: Ipv4Addr) -> Ip4 {
    Ip4(address.octets())
}

pub(crate) fn ip(address: IpAddr) -> Ip {
    match address {
        IpAddr::V4(address) => Ip::from_v4(ip4(address)),
        IpAddr::V6(address) => Ip::from_octets(address.octets()),
    }
}

pub(crate) fn optional_ip6(address: Option<Ipv6Addr>) -> Ip {
    address.map_or(Ip::NONE, |address| ip(address.into()))
}

pub(crate) fn from_ip(address: Ip) -> IpAddr {
    Ipv6Addr::from(address.octets()).to_canonical()
}

fn optional_v6(address: Ip) -> Option<Ipv6Addr> {
    (!address.is_none()).then(|| address.octets().into())
}

fn reading(name: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    table("read", name)
}

pub(super) fn table(action: &'static str, name: &'static str) -> impl FnOnce(MapError) -> DatapathError {
    move |source| DatapathError::Table { action, table: name, source: Box::new(source) }
}

/// The clock of the kernel side, with the precision that it has there.
pub(super) fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the argument is a valid place for the answer. Linux always has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}

/// The clock of `last_seen`, wrapped like it.
#[expect(clippy::cast_possible_truncation, reason = "it wraps")]
pub(super) fn monotonic_seconds() -> u32 {
    monotonic().as_secs() as u32
}
