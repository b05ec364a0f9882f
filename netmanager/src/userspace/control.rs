//! The tables' writer: the verbs of the data plane without sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use netmanager_common::event::DropReason;
use netmanager_common::map;
use netmanager_common::tunnel::{OVERHEAD, OVERHEAD6, inner_mtu};
use netmanager_common::wire::{Be16, Ip};
use protocol::plan::Plan;

use super::engine::Engine;
use super::events::{self, Events};
use super::forward::{Forward, Memory, Verdict};
use super::frame::Frame;
use super::moment::now;
use super::reader::Reader;
use crate::datapath::paths::{Egress, Paths};
use crate::datapath::registry::{OutOfNumbers, Registry};
use crate::datapath::{
    Addresses, Backend, Counters, DatapathError, Endpoint, EndpointCounters, Flow, Node, Ranges, Reading,
    Service, Suspect, endpoint_rows, from_ip, full, interface_mtu, ip, ip4, milliseconds, node_of,
    optional_ip6,
};
use crate::datapath::{slots, uplinks};
use crate::plane::PlaneError;

/// The tables, and which backend has which number in them.
#[derive(Debug)]
pub struct Control {
    engine: Arc<Engine>,
    registry: Registry,
    tunnel_port: u16,
}

/// What would become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The host's stack has it.
    Host,
    /// It goes into the container at this interface.
    Deliver(u32),
    /// What is behind its Ethernet header goes to this node.
    Send(SocketAddr),
    /// It goes nowhere.
    Drop(DropReason),
}

impl Control {
    /// With empty tables.
    #[must_use]
    pub fn new(tunnel_port: u16, plan: Plan) -> (Self, Events) {
        let (reporter, events) = events::channel();
        let memory = Memory::new(reporter);
        let engine = Arc::new(Engine::new(memory));
        let control = Self { engine, registry: Registry::default(), tunnel_port };
        control.set_plan(plan);
        (control, events)
    }

    /// As [`crate::datapath::Datapath::set_plan`].
    pub fn set_plan(&self, plan: Plan) {
        self.engine.tables_mut().plan = Ranges::from(plan).0;
    }

    /// The ranges by which addresses are told apart.
    #[must_use]
    pub fn ranges(&self) -> Ranges {
        Ranges(self.engine.tables().plan)
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    #[must_use]
    pub fn tunnel_port(&self) -> u16 {
        self.tunnel_port
    }

    /// # Errors
    /// When there is no such interface.
    pub fn set_node(&self, addresses: impl Into<Addresses>, uplink_ifindex: u32) -> Result<(), PlaneError> {
        self.set_uplinks(addresses.into(), uplink_ifindex, &[], &BTreeMap::new())
    }

    /// As [`crate::datapath::Datapath::set_uplinks`], but that any interface may be one: the kernel sends.
    ///
    /// # Errors
    /// When there is no interface `primary`.
    pub fn set_uplinks(
        &self,
        addresses: Addresses,
        primary: u32,
        others: &[u32],
        ways: &BTreeMap<IpAddr, u32>,
    ) -> Result<(), PlaneError> {
        let overhead = if addresses.v6.is_some() { OVERHEAD6 } else { OVERHEAD };
        let uplink_mtu = interface_mtu(primary)?;
        let mut tables = self.engine.tables_mut();
        let (uplinks, egresses) = uplinks::plan(tables.node.uplinks, primary, others, ways, |_| true);
        tables.paths.set_uplink(slots::of(&uplinks, primary).unwrap_or_default(), uplink_mtu);
        tables.paths.replace_egresses(egresses);
        tables.refresh_mtus();
        tables.node = map::Node {
            address: addresses.v4.map(ip4).unwrap_or_default(),
            address6: optional_ip6(addresses.v6),
            uplink_ifindex: primary,
            uplinks,
            tunnel_port: Be16::new(self.tunnel_port),
            inner_mtu: inner_mtu(uplink_mtu, overhead),
        };
        Ok(())
    }

    /// As [`crate::datapath::Datapath::set_egress`].
    pub fn set_egress(&self, node: IpAddr, ifindex: Option<u32>) {
        let mut tables = self.engine.tables_mut();
        let primary = tables.node.uplink_ifindex;
        let egress = ifindex.filter(|ifindex| *ifindex != primary).and_then(|ifindex| {
            let mtu = interface_mtu(ifindex).ok()?;
            let before = tables.node.uplinks;
            tables.node.uplinks = slots::assign(before, slots::taken(&before).chain([ifindex]));
            Some(Egress { ifindex, slot: slots::of(&tables.node.uplinks, ifindex)?, mtu })
        });
        if tables.paths.set_egress(node, egress) {
            tables.refresh_mtus();
        }
    }

    /// The interfaces at which packets of other nodes are taken.
    #[must_use]
    pub fn uplinks(&self) -> Vec<u32> {
        slots::taken(&self.engine.tables().node.uplinks).collect()
    }

    /// Enters a container. Gives the interface at which it was before.
    ///
    /// # Errors
    /// When the table is full.
    pub fn attach_endpoint(&self, endpoint: &Endpoint) -> Result<Option<u32>, DatapathError> {
        self.attach(endpoint, map::CONTAINER)
    }

    /// Enters the node itself: see [`crate::datapath::Datapath::attach_node_itself`].
    ///
    /// # Errors
    /// When the table is full.
    pub fn attach_node_itself(&self, endpoint: &Endpoint) -> Result<Option<u32>, DatapathError> {
        self.attach(endpoint, map::NODE_ITSELF)
    }

    fn attach(&self, endpoint: &Endpoint, holder: u32) -> Result<Option<u32>, DatapathError> {
        let mut tables = self.engine.tables_mut();
        let before = tables.veth(&ip(endpoint.ns_ip.into()));
        let slot = match before {
            Some(veth) => veth.slot,
            None => {
                let taken = |slot: &u32| tables.endpoints.values().any(|row| row.veth.slot == *slot);
                let slot = (0..map::MAX_ENDPOINTS).find(|slot| !taken(slot)).ok_or(full(map::ENDPOINTS))?;
                self.engine.memory.counts.clear(slot);
                slot
            }
        };
        tables.endpoints.retain(|_, row| row.veth.slot != slot);
        for row in endpoint_rows(endpoint, slot, holder) {
            tables.endpoints.insert(row.ns_ip, row);
        }
        Ok(before.map(|veth| veth.ifindex))
    }

    /// Takes a container out. Gives the interface at which it was.
    pub fn detach_endpoint(&self, ns_ip: Ipv4Addr) -> Option<u32> {
        let mut tables = self.engine.tables_mut();
        let veth = tables.veth(&ip(ns_ip.into()))?;
        tables.endpoints.retain(|_, row| row.veth.slot != veth.slot);
        Some(veth.ifindex)
    }

    /// # Errors
    /// When a table is full.
    pub fn publish(&mut self, service: &Service) -> Result<(), DatapathError> {
        let (service_ip, count) = (service.service_ip, service.backends.len() + service.resting.len());
        if count > map::MAX_BACKENDS_PER_SERVICE {
            return Err(DatapathError::TooManyBackends { service_ip, count });
        }
        let mut tables = self.engine.tables_mut();
        let is_new = !tables.services.contains_key(&ip(service_ip));
        if is_new && tables.services.len() >= map::MAX_SERVICES as usize {
            return Err(full(map::SERVICES));
        }
        match self.registry.publish(service) {
            Ok(steps) => {
                steps.iter().for_each(|step| tables.apply(step));
                Ok(())
            }
            Err(OutOfNumbers) => {
                // What was taken before the numbers ran out is given back.
                let (registry, steps) = Registry::rebuild(&tables.held());
                self.registry = registry;
                steps.iter().for_each(|step| tables.apply(step));
                Err(full(map::BACKENDS))
            }
        }
    }

    pub fn set_aside(&mut self, backend: &Backend, aside: bool) {
        let step = self.registry.set_aside(backend, aside);
        step.iter().for_each(|step| self.engine.tables_mut().apply(step));
    }

    /// As [`crate::datapath::Datapath::set_load`].
    pub fn set_load(&self, backend: &Backend, flows: u32) {
        if let Some((number, _)) = self.registry.number(backend) {
            self.engine.tables().set_load(number.into(), flows);
        }
    }

    pub fn set_path_mtu(&self, node: IpAddr, mtu: Option<u16>) {
        let mut tables = self.engine.tables_mut();
        tables.paths.set(node, mtu);
        tables.refresh_mtus();
    }

    /// As [`crate::datapath::Datapath::uplink_mtu`].
    #[must_use]
    pub fn uplink_mtu(&self) -> u32 {
        self.engine.tables().paths.uplink_mtu()
    }

    /// As [`crate::datapath::Datapath::largest_to`].
    #[must_use]
    pub fn largest_to(&self, node: IpAddr) -> u16 {
        self.engine.tables().paths.largest_to(node)
    }

    pub(crate) fn paths(&self) -> Paths {
        self.engine.tables().paths.clone()
    }

    /// As [`crate::datapath::Datapath::narrow_paths`].
    #[must_use]
    pub fn narrow_paths(&self) -> Vec<(IpAddr, u16)> {
        self.engine.tables().paths.narrow().collect()
    }

    /// The nodes that the tables lead to.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<IpAddr> {
        self.registry.nodes().collect()
    }

    /// As [`crate::datapath::Datapath::peers_in_use`].
    #[must_use]
    pub fn nodes_in_use(&self, within: Duration) -> BTreeSet<IpAddr> {
        let (tables, now) = (self.engine.tables(), now().milliseconds());
        let is_in_use = |number| tables.health(number).is_in_use(now, milliseconds(within));
        let used = self.registry.backends().filter(|(number, _)| is_in_use(*number));
        used.map(|(_, backend)| backend.node.ip()).collect()
    }

    /// As [`crate::datapath::Datapath::reading`].
    #[must_use]
    pub fn reading(&self, backend: &Backend) -> Option<Reading> {
        let (number, _) = self.registry.number(backend)?;
        Some(Reading::of(&self.engine.tables().health(number), now().milliseconds()))
    }

    /// As [`crate::datapath::Datapath::suspect`].
    #[must_use]
    pub fn suspect(&self, suspect: Suspect) -> Option<Backend> {
        self.registry.backend(u16::try_from(suspect.number).ok()?, suspect.generation)
    }

    #[must_use]
    pub fn aside(&self) -> Vec<Backend> {
        self.registry.aside().collect()
    }

    #[must_use]
    pub fn knows(&self, backend: &Backend) -> bool {
        self.registry.number(backend).is_some()
    }

    pub fn withdraw_service(&mut self, service_ip: impl Into<IpAddr>) {
        let mut tables = self.engine.tables_mut();
        self.registry.withdraw(service_ip.into()).iter().for_each(|step| tables.apply(step));
    }

    /// Where nodes listen on another port than this one.
    pub(super) fn other_tunnels(&self) -> BTreeSet<SocketAddr> {
        let tables = self.engine.tables();
        tables.listening().filter(|node| node.port() != 0 && node.port() != self.tunnel_port).collect()
    }

    /// As [`crate::datapath::Tables::node`].
    #[must_use]
    pub fn node(&self) -> Option<Node> {
        node_of(&self.engine.tables().node)
    }

    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.reader().endpoints()
    }

    #[must_use]
    pub fn node_itself(&self) -> Option<Endpoint> {
        self.reader().node_itself()
    }

    #[must_use]
    pub fn services(&self) -> Vec<Service> {
        self.reader().services()
    }

    /// Where other nodes listen.
    #[must_use]
    pub fn peers(&self) -> Vec<SocketAddr> {
        let mut peers: Vec<_> = self.engine.tables().listening().filter(|node| node.port() != 0).collect();
        peers.sort_unstable();
        peers
    }

    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        self.reader().flows()
    }

    fn reader(&self) -> Reader {
        Reader::new(&self.engine)
    }

    /// Forgets all that packets have left behind: flows, and datagrams of which fragments have come.
    pub fn forget_packets(&self) {
        self.engine.memory.flows.clear();
        self.engine.memory.assured.clear();
        self.engine.memory.fragments.clear();
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        let counts = &self.engine.memory.counts;
        let tables = self.engine.tables();
        let rows = tables.endpoints.values().filter(|row| row.ns_ip.is_v4());
        let mut endpoints: Vec<_> = rows
            .filter_map(|row| {
                let slot = counts.slot(row.veth.slot)?;
                Some(EndpointCounters {
                    ns_ip: row.ns_ip.v4().0.into(),
                    sent_packets: slot.sent_packets.load(Ordering::Relaxed),
                    sent_bytes: slot.sent_bytes.load(Ordering::Relaxed),
                    received_packets: slot.received_packets.load(Ordering::Relaxed),
                    received_bytes: slot.received_bytes.load(Ordering::Relaxed),
                })
            })
            .collect();
        endpoints.sort_by_key(|endpoint| endpoint.ns_ip);
        let [drops, punts] = counts.by_reason();
        Counters { endpoints, drops, punts }
    }

    /// What becomes of a frame that the container at `ifindex` sends; the frame is rewritten as it would go on.
    pub fn judge_sent(&self, frame: &mut [u8], ifindex: u32) -> Judgement {
        self.judge(frame, ifindex, |forward, frame| forward.from_container(frame))
    }

    /// What becomes of a packet that has arrived from `peer`. In `frame` there is room for an Ethernet header before it.
    pub fn judge_arrived(&self, frame: &mut [u8], peer: IpAddr) -> Judgement {
        let uplink = self.engine.tables().node.uplink_ifindex;
        self.judge(frame, uplink, |forward, frame| forward.from_uplink(frame, ip(peer)))
    }

    fn judge(
        &self,
        bytes: &mut [u8],
        ifindex: u32,
        look: impl FnOnce(&Forward<'_>, &mut Frame<'_>) -> Result<Verdict, DropReason>,
    ) -> Judgement {
        let tables = self.engine.tables();
        let forward = Forward { tables: &tables, memory: &self.engine.memory, now: now() };
        let mut frame = Frame {
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            bytes,
            gso_size: 0,
            open_checksum: false,
            ifindex,
            fragments: &self.engine.memory.fragments,
            now: forward.now,
        };
        match look(&forward, &mut frame) {
            Ok(Verdict::Host) => Judgement::Host,
            Ok(Verdict::Deliver(veth)) => Judgement::Deliver(veth.ifindex),
            Ok(Verdict::Send { node, port }) => Judgement::Send(address(node, port)),
            Err(reason) => Judgement::Drop(reason),
        }
    }
}

fn address(node: Ip, port: Be16) -> SocketAddr {
    SocketAddr::new(from_ip(node), port.get())
}
