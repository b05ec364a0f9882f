//! The eBPF data plane: loaded, pinned, attached, and its tables filled. The only user of `aya`.
//!
//! Everything lives in the kernel, pinned under [`Options::pin_dir`]: it goes on forwarding when this process dies,
//! and [`Datapath::open`] takes it over again without disturbing a flow.

mod attach;
mod decapsulation;
mod error;
mod events;
mod health;
mod interface;
mod load;
mod model;
pub(crate) mod paths;
mod pin;
mod programs;
mod ranges;
pub(crate) mod registry;
mod rehearsal;
mod repair;
mod ring;
pub(crate) mod slots;
mod slow_path;
mod tables;
mod takeover;
mod trace;
pub(crate) mod uplinks;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use aya::maps::{MapError, PerCpuValues};
use aya::programs::links::FdLink;
pub use netmanager_common::event::DropReason;
pub use netmanager_common::life::State as FlowState;
pub use netmanager_common::link::Link;
use netmanager_common::map;
pub use netmanager_common::map::Policy;
use netmanager_common::map::Traffic;
use netmanager_common::tunnel::{OVERHEAD, OVERHEAD6, inner_mtu};
use netmanager_common::wire::Be16;
use protocol::plan::Plan;

pub use attach::Hook;
pub use decapsulation::{Decapsulation, Place, Placement, UnknownDecapsulation, Why};
pub use error::DatapathError;
pub use events::Events;
pub use load::{FROM_CONTAINER, FROM_SLOW_PATH, FROM_UPLINK, OBJECT, PROGRAMS, UPLINK_XDP, UPLINK_XDP_LONG};
pub use model::{
    Addresses, Backend, Counters, Early, Endpoint, EndpointCounters, Event, Flow, Miss, Node, Reading,
    Service, Suspect, Transport,
};
pub use netmanager_common::trace::Verdict as TraceVerdict;
pub use programs::{Program, Programs, at_tcx};
pub use ranges::Ranges;
pub use rehearsal::{Outcome, Rehearsal, Verdict, try_to_load};
pub use repair::Repair;
pub use slow_path::{Arrival, Datagram, FlowAge, gateway_of};
pub use tables::Tables;
pub(crate) use trace::traced;
pub use trace::{Ends, TraceFilter, Traced, Tracer};

pub(crate) use health::milliseconds;
pub(crate) use interface::mtu as interface_mtu;
use paths::Paths;
use pin::PinDir;
use registry::{Registry, Step};
use tables::table;
pub(crate) use tables::write::full;
use tables::write::removed;
pub(crate) use tables::{
    backend_row, endpoint_rows, endpoints_of, flow_of, from_backend, from_ip, ip, ip4, node_of, numbers,
    optional_ip6, resting, service_row,
};
use takeover::Takeover;

/// Where the data plane is pinned and on which port it listens.
#[derive(Debug, Clone)]
pub struct Options {
    /// A directory in a mounted bpffs, made if it is missing. No part of the path below the mount may hold a dot:
    /// bpffs refuses such names.
    pub pin_dir: PathBuf,
    /// The UDP port on which peers reach this node's tunnel.
    pub tunnel_port: u16,
    /// Which addresses are whose.
    pub plan: Plan,
}

/// The loaded data plane, and the only writer of its tables.
///
/// Its methods act on the network namespace of the calling thread, and block for some microseconds (attaching: some
/// milliseconds). Dropping it leaves everything in place.
#[derive(Debug)]
pub struct Datapath {
    options: Options,
    hook: Hook,
    pins: PinDir,
    ebpf: aya::Ebpf,
    tables: Tables,
    registry: Registry,
    paths: Paths,
    /// The TAP device of the slow path, while there is one.
    slow_path: Option<u32>,
    takeover: Takeover,
    /// Our tcx links by interface, held open: else they, and with them the programs, would end with the BPF file system
    /// if somebody unmounts it.
    links: BTreeMap<u32, FdLink>,
}

impl Datapath {
    /// Loads the programs, adopts pinned tables of the same ABI version, and replaces the programs that are attached.
    /// Flows go on meanwhile.
    ///
    /// If there are tables of another version, the old programs go on with them, and nothing is attached yet: the caller
    /// sets the node, attaches its endpoints and publishes its services again, then calls [`Self::sweep`], which puts
    /// our programs in their places. Services and flows of an older version are taken over if their layout is the same;
    /// else connections begin anew then.
    pub fn open(options: Options) -> Result<Self, DatapathError> {
        Self::open_with(options, Hook::probe())
    }

    /// As [`Self::open`], with the kind of attachment given.
    pub fn open_with(options: Options, hook: Hook) -> Result<Self, DatapathError> {
        let pins = PinDir::new(&options.pin_dir);
        let takeover = Takeover::begin(&pins)?;
        let ebpf = load::load(&pins)?;
        let mut tables = Tables::of(&pins)?;
        // Before any program is where packets are.
        tables.set_plan(options.plan)?;
        if let Takeover::Filling(Some(older)) = &takeover {
            older.copy_services(&mut tables)?;
        }
        let (registry, steps) = Registry::rebuild(&tables.held()?);
        let paths = tables.paths()?;
        let mut datapath = Self {
            options,
            hook,
            pins,
            ebpf,
            tables,
            registry,
            paths,
            slow_path: None,
            takeover,
            links: BTreeMap::new(),
        };
        for step in &steps {
            datapath.tables.apply(step, &datapath.paths)?;
        }
        // The device has ended together with the process that made it.
        datapath.tables.set_slow_path(0)?;
        datapath.replace_programs()?;
        Ok(datapath)
    }

    /// Ends what earlier writers have left: attachments at interfaces that the tables do not name, and tables of other
    /// ABI versions. To be called when everything is attached and published again: what is not by then, ends here.
    pub fn sweep(&mut self) -> Result<(), DatapathError> {
        self.finish_takeover()?;
        let attached = self.attached()?;
        for ifindex in self.pins.linked_interfaces()? {
            if !attached.iter().any(|&(of_table, _)| of_table == ifindex) {
                self.detach(ifindex)?;
            }
        }
        self.pins.remove_other_versions()
    }

    /// The underlay carries IP packets of up to `mtu` bytes to `node`, outer headers included; `None`: as large ones as the
    /// uplink.
    pub fn set_path_mtu(&mut self, node: IpAddr, mtu: Option<u16>) -> Result<(), DatapathError> {
        self.paths.set(node, mtu);
        self.write_paths(|backend| backend.node.ip() == node)
    }

    /// How packets to `node` are to be wrapped. Over a path that has no room for it, and to an IPv6 address, they remain
    /// [`Link::Bare`].
    pub fn set_link(&mut self, node: IpAddr, link: Link) -> Result<(), DatapathError> {
        self.paths.set_link(node, link);
        self.write_paths(|backend| backend.node.ip() == node)
    }

    /// The nodes to which packets are to be wrapped as [`Link::Vx`].
    pub fn linked(&self) -> impl Iterator<Item = IpAddr> {
        self.paths.linked()
    }

    /// What the uplink carries: bytes of IP. As much as can be, while there is none.
    #[must_use]
    pub fn uplink_mtu(&self) -> u32 {
        self.paths.uplink_mtu()
    }

    /// The largest packet that is sent to `node`, were the way to there as wide as the uplink: bytes of IP.
    #[must_use]
    pub fn largest_to(&self, node: IpAddr) -> u16 {
        self.paths.largest_to(node)
    }

    /// The nodes that the tables lead to.
    pub fn peers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.registry.nodes()
    }

    /// The nodes to which the underlay carries less than the uplink, and how much.
    #[must_use]
    pub fn narrow_paths(&self) -> Vec<(IpAddr, u16)> {
        self.paths.narrow().collect()
    }

    /// Makes a container reachable, then lets it send. Idempotent; a changed endpoint is updated.
    pub fn attach_endpoint(&mut self, endpoint: &Endpoint) -> Result<(), DatapathError> {
        self.attach_veth(endpoint, map::CONTAINER)
    }

    /// Lets the node's own processes speak to services through a veth of which both ends are in the node's namespace;
    /// `ifindex` is the end that they do not send at. Its instance addresses must be its NsIPs. There is one; it is not
    /// listed among the endpoints, and [`Self::detach_endpoint`] takes it away again.
    pub fn attach_node_itself(&mut self, endpoint: &Endpoint) -> Result<(), DatapathError> {
        let before = self.tables.node_itself()?;
        if let Some(before) = before.filter(|before| before.ns_ip != endpoint.ns_ip) {
            self.detach_endpoint(before.ns_ip)?;
        }
        self.attach_veth(endpoint, map::NODE_ITSELF)
    }

    fn attach_veth(&mut self, endpoint: &Endpoint, holder: u32) -> Result<(), DatapathError> {
        let key = ip(endpoint.ns_ip.into());
        let before = self.tables.endpoint(key)?;
        let slot = match before {
            Some(row) => row.veth.slot,
            None => self.free_slot()?,
        };
        for old in self.tables.second_entries(slot)? {
            if old != optional_ip6(endpoint.ns_ip6) {
                removed(self.tables.endpoints.remove(&old), map::ENDPOINTS)?;
            }
        }
        // The IPv4 entry first: it is the one by which both are found again.
        for row in endpoint_rows(endpoint, slot, holder) {
            self.tables.endpoints.insert(row.ns_ip, row, 0).map_err(table("write", map::ENDPOINTS))?;
        }
        self.attach(FROM_CONTAINER, endpoint.ifindex)?;
        match before {
            Some(row) if row.veth.ifindex != endpoint.ifindex => self.detach(row.veth.ifindex),
            _ => Ok(()),
        }
    }

    /// Undoes [`Self::attach_endpoint`]; of an unknown endpoint nothing.
    pub fn detach_endpoint(&mut self, ns_ip: Ipv4Addr) -> Result<(), DatapathError> {
        let key = ip(ns_ip.into());
        let Some(row) = self.tables.endpoint(key)? else { return Ok(()) };
        self.detach(row.veth.ifindex)?;
        for second in self.tables.second_entries(row.veth.slot)? {
            removed(self.tables.endpoints.remove(&second), map::ENDPOINTS)?;
        }
        removed(self.tables.endpoints.remove(&key), map::ENDPOINTS)
    }

    /// Replaces the whole set of a service's backends; an empty set is a service known to have none. A backend listed
    /// before keeps its flows.
    pub fn publish_service(
        &mut self,
        service_ip: impl Into<IpAddr>,
        policy: Policy,
        backends: &[Backend],
    ) -> Result<(), DatapathError> {
        let (service_ip, backends) = (service_ip.into(), backends.to_vec());
        self.publish(&Service { service_ip, policy, backends, resting: Vec::new() })
    }

    /// As [`Self::publish_service`], also with backends that get no new flows.
    pub fn publish(&mut self, service: &Service) -> Result<(), DatapathError> {
        let (service_ip, count) = (service.service_ip, service.backends.len() + service.resting.len());
        if count > map::MAX_BACKENDS_PER_SERVICE {
            return Err(DatapathError::TooManyBackends { service_ip, count });
        }
        let steps = self.registry.publish(service);
        let steps = steps.map_err(|registry::OutOfNumbers| full(map::BACKENDS));
        self.apply_all(steps)
    }

    /// Makes the address unknown again: the next packet to it raises a miss.
    pub fn withdraw_service(&mut self, service_ip: impl Into<IpAddr>) -> Result<(), DatapathError> {
        let steps = self.registry.withdraw(service_ip.into());
        self.apply_all(Ok(steps))
    }

    /// Where everything is pinned.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        self.pins.path()
    }

    /// The tables, to be read.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// See [`Tables::endpoints`].
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, DatapathError> {
        self.tables.endpoints()
    }

    /// See [`Tables::services`].
    pub fn services(&self) -> Result<Vec<Service>, DatapathError> {
        self.tables.services()
    }

    /// See [`Tables::flows`].
    pub fn flows(&self) -> Result<Vec<Flow>, DatapathError> {
        self.tables.flows()
    }

    /// See [`Tables::counters`].
    pub fn counters(&self) -> Result<Counters, DatapathError> {
        self.tables.counters()
    }

    /// What the kernel side tells as it occurs: misses, each address at most once in 200 ms; backends that do not answer,
    /// each at most once in 500 ms. Call within a tokio runtime. There is one ring: of two streams each gets a part.
    pub fn events(&mut self) -> Result<Events, DatapathError> {
        Events::open(&self.pins)
    }

    /// Detaches and unpins everything under `pin_dir`; of nothing, nothing. Call it in the network namespace of the
    /// node.
    pub fn remove_all(pin_dir: &Path) -> Result<(), DatapathError> {
        let pins = PinDir::new(pin_dir);
        if let Ok(tables) = Tables::of(&pins) {
            // tcx links go with their pins, the filters of clsact one by one.
            for endpoint in tables.endpoints()?.into_iter().chain(tables.node_itself()?) {
                Hook::Clsact.detach(&pins, endpoint.ifindex)?;
            }
            for uplink in tables.uplinks()? {
                Hook::Clsact.detach(&pins, uplink)?;
            }
        }
        pins.remove()
    }

    /// Puts this binary's programs where older ones are attached. An interface that has gone takes its attachment
    /// along; its endpoint stays in the table until it is detached or attached anew.
    fn replace_programs(&mut self) -> Result<(), DatapathError> {
        if let Some(node) = self.tables.node()? {
            match self.write_node(node.addresses, node.uplink_ifindex, node.uplinks) {
                Err(DatapathError::NoInterface { .. }) => {}
                result => result?,
            }
        }
        let early = if matches!(self.takeover, Takeover::Filling(_)) {
            Vec::new()
        } else {
            self.pins.xdp_interfaces()?
        };
        for ifindex in early {
            if attach::xdp::attach(&self.pins, &mut self.ebpf, ifindex).is_err() {
                attach::xdp::detach(&self.pins, ifindex)?;
            }
        }
        for (ifindex, name) in self.attached()? {
            match self.attach(name, ifindex) {
                Err(DatapathError::NoInterface { .. }) => self.detach(ifindex)?,
                result => result?,
            }
        }
        Ok(())
    }

    /// The interfaces that the tables name, and the program of each.
    fn attached(&self) -> Result<Vec<(u32, &'static str)>, DatapathError> {
        let mut endpoints = self.tables.endpoints()?;
        endpoints.extend(self.tables.node_itself()?);
        let mut attached: Vec<_> =
            endpoints.iter().map(|endpoint| (endpoint.ifindex, FROM_CONTAINER)).collect();
        attached.extend(self.tables.uplinks()?.into_iter().map(|ifindex| (ifindex, FROM_UPLINK)));
        attached.extend(self.slow_path.map(|ifindex| (ifindex, FROM_SLOW_PATH)));
        Ok(attached)
    }

    fn write_node(
        &mut self,
        addresses: Addresses,
        uplink_ifindex: u32,
        uplinks: slots::Slots,
    ) -> Result<(), DatapathError> {
        let overhead = if addresses.v6.is_some() { OVERHEAD6 } else { OVERHEAD };
        let uplink_mtu = interface::mtu(uplink_ifindex)?;
        self.paths.set_uplink(slots::of(&uplinks, uplink_ifindex).unwrap_or_default(), uplink_mtu);
        let node = map::Node {
            address: addresses.v4.map(ip4).unwrap_or_default(),
            address6: optional_ip6(addresses.v6),
            uplink_ifindex,
            uplinks,
            tunnel_port: Be16::new(self.options.tunnel_port),
            inner_mtu: inner_mtu(uplink_mtu, overhead),
        };
        self.tables.node.set(0, node, 0).map_err(table("write", map::NODE))?;
        self.write_paths(|_| true)
    }

    /// Writes what is known of the paths into the rows of these backends.
    fn write_paths(&mut self, chosen: impl Fn(&Backend) -> bool) -> Result<(), DatapathError> {
        for row in self.registry.in_use() {
            if chosen(&row.backend) {
                self.tables.set_backend(row, &self.paths)?;
            }
        }
        Ok(())
    }

    /// While another version's programs run, not yet: see [`Self::open`].
    fn attach(&mut self, name: &'static str, ifindex: u32) -> Result<(), DatapathError> {
        if matches!(self.takeover, Takeover::Filling(_)) {
            return Ok(());
        }
        let program = load::program(&mut self.ebpf, name)?;
        let link = self.hook.attach(&self.pins, name, program, ifindex)?;
        self.links.extend(link.map(|link| (ifindex, link)));
        Ok(())
    }

    /// The interface may be gone.
    fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.links.remove(&ifindex);
        self.hook.detach(&self.pins, ifindex)
    }

    /// The lowest slot that no endpoint has, its counters cleared.
    fn free_slot(&mut self) -> Result<u32, DatapathError> {
        let rows = self.tables.endpoints.iter().map(|row| row.map(|(_, endpoint)| endpoint.veth.slot));
        let taken: Vec<u32> = rows.collect::<Result<_, _>>().map_err(table("read", map::ENDPOINTS))?;
        let slot = (0..map::MAX_ENDPOINTS).find(|slot| !taken.contains(slot)).ok_or(full(map::ENDPOINTS))?;
        let cpus = self.tables.traffic.get(&slot, 0).map_err(table("read", map::TRAFFIC))?.len();
        PerCpuValues::try_from(vec![Traffic::default(); cpus])
            .map_err(MapError::from)
            .and_then(|zero| self.tables.traffic.set(slot, zero, 0))
            .map_err(table("clear", map::TRAFFIC))?;
        Ok(slot)
    }

    /// Takes the steps. If one fails, what the registry believes is read anew from the tables.
    fn apply_all(&mut self, steps: Result<Vec<Step>, DatapathError>) -> Result<(), DatapathError> {
        let result =
            steps.and_then(|steps| steps.iter().try_for_each(|step| self.tables.apply(step, &self.paths)));
        if result.is_err() {
            let (registry, unfinished) = Registry::rebuild(&self.tables.held()?);
            self.registry = registry;
            unfinished.iter().try_for_each(|step| self.tables.apply(step, &self.paths))?;
        }
        result
    }
}
