//! The tables in this process's memory: the same rows as the kernel's, changed by the same steps.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use netmanager_common::event::DropReason;
use netmanager_common::health::Health;
use netmanager_common::map::{self, Backend, Endpoint, Node, Peer, Policy, Veth};
use netmanager_common::plan::Plan;
use netmanager_common::wire::{Be16, Ip};

use super::flows::lock;
use crate::datapath;
use crate::datapath::paths::Paths;
use crate::datapath::registry::{Held, Row, Step};
use crate::datapath::{backend_row, from_backend, from_ip, ip, numbers, resting, service_row};

/// What is in them: [`netmanager_common::map`].
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) node: Node,
    /// Which addresses are whose.
    pub(super) plan: Plan,
    /// How large packets may be on the way to each other node.
    pub(super) paths: Paths,
    pub(super) endpoints: HashMap<Ip, Endpoint>,
    pub(super) services: HashMap<Ip, Service>,
    backends: Vec<Backend>,
    /// How they do, as packets have noted it.
    health: Vec<Mutex<Health>>,
    /// How many flows each has, as in [`map::LOADS`].
    loads: Vec<AtomicU32>,
    hosts: HashMap<Ip, u32>,
    peers: HashMap<Peer, Ears>,
}

#[derive(Debug)]
pub(super) struct Service {
    pub(super) row: map::Service,
    /// Connections begun so far.
    turns: AtomicU32,
}

impl Service {
    pub(super) fn turns_taken(&self) -> u32 {
        self.turns.load(Ordering::Relaxed)
    }
}

/// What [`Tables::choose`] has chosen.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub(super) number: u32,
    pub(super) backend: &'a Backend,
    /// Among several, and not by an instance's own address.
    pub(super) chosen: bool,
}

/// How a node takes what is sent to it.
#[derive(Debug, Default)]
struct Ears(AtomicU8);

impl Ears {
    /// Nothing has come from it yet.
    const UNKNOWN: u8 = 0;
    /// By a socket: what is sent in one piece to be segmented on the way may also arrive in one piece.
    const SOCKET: u8 = 1;
    /// By programs before any socket, which must find one packet in each.
    const PROGRAM: u8 = 2;
}

impl Tables {
    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::AddPeer(node) => {
                self.peers.entry(peer(node)).or_default();
            }
            Step::RemovePeer(node) => {
                self.peers.remove(&peer(node));
            }
            Step::ClearHealth(number) => {
                let place = usize::from(*number);
                if self.health.len() <= place {
                    self.health.resize_with(place + 1, Mutex::default);
                }
                self.health[place] = Mutex::default();
                self.loads.resize_with(self.health.len(), AtomicU32::default);
                self.loads[place] = AtomicU32::default();
            }
            Step::SetBackend { number, generation, backend, aside } => {
                let place = usize::from(*number);
                if self.backends.len() <= place {
                    self.backends.resize(place + 1, Backend::default());
                }
                let row = Row { number: *number, generation: *generation, backend: *backend, aside: *aside };
                self.backends[place] = backend_row(row, &self.paths);
            }
            Step::SetHost { address, number } => {
                self.hosts.insert(ip(*address), u32::from(*number));
            }
            Step::RemoveHost(address) => {
                self.hosts.remove(&ip(*address));
            }
            Step::SetService { service_ip, policy, numbers, resting } => {
                let key = ip(*service_ip);
                let row = service_row(&self.node, key, *policy, numbers, resting);
                // It keeps its turn.
                let turns = self.services.remove(&key).map(|before| before.turns).unwrap_or_default();
                self.services.insert(key, Service { row, turns });
            }
            Step::RemoveService(service_ip) => {
                self.services.remove(&ip(*service_ip));
            }
        }
    }

    /// Writes the MTU of each backend as the paths have it now.
    pub(super) fn refresh_mtus(&mut self) {
        for row in &mut self.backends {
            row.mtu = self.paths.inner_mtu(from_ip(row.node));
        }
    }

    /// All of them once more, for packets that are to change none.
    pub(super) fn copy(&self) -> Self {
        let service = |service: &Service| Service { row: service.row, turns: service.turns_taken().into() };
        let ears = |Ears(ears): &Ears| Ears(ears.load(Ordering::Relaxed).into());
        Self {
            node: self.node,
            plan: self.plan,
            paths: self.paths.clone(),
            endpoints: self.endpoints.clone(),
            services: self.services.iter().map(|(address, row)| (*address, service(row))).collect(),
            backends: self.backends.clone(),
            health: self.health.iter().map(|health| Mutex::new(*lock(health))).collect(),
            loads: self.loads.iter().map(|load| load.load(Ordering::Relaxed).into()).collect(),
            hosts: self.hosts.clone(),
            peers: self.peers.iter().map(|(peer, of)| (*peer, ears(of))).collect(),
        }
    }

    /// What the registry would find in them.
    pub(super) fn held(&self) -> Held {
        let rows = (0..).zip(&self.backends).filter(|(_, row)| row.generation != 0);
        Held {
            rows: rows
                .map(|(number, row)| Row {
                    number,
                    generation: row.generation,
                    backend: from_backend(row),
                    aside: row.aside != 0,
                })
                .collect(),
            services: self
                .services
                .iter()
                .map(|(address, service)| {
                    (from_ip(*address), numbers(&service.row).chain(resting(&service.row)).collect())
                })
                .collect(),
            hosts: self
                .hosts
                .iter()
                .filter_map(|(address, number)| Some((from_ip(*address), u16::try_from(*number).ok()?)))
                .collect(),
            peers: self.listening().collect(),
        }
    }

    /// Where other nodes listen; with port 0: that there is one.
    pub(super) fn listening(&self) -> impl Iterator<Item = SocketAddr> {
        self.peers.keys().map(|peer| SocketAddr::new(from_ip(peer.address), peer.port.get()))
    }

    /// The attachment of the container of this node that has this NsIP.
    pub(super) fn veth(&self, ns_ip: &Ip) -> Option<Veth> {
        self.endpoints.get(ns_ip).map(|endpoint| endpoint.veth)
    }

    /// The instance address of the container of this node that has this NsIP, or none.
    pub(super) fn instance_ip(&self, ns_ip: &Ip) -> Ip {
        self.endpoints.get(ns_ip).map_or(Ip::NONE, |endpoint| endpoint.instance_ip)
    }

    pub(super) fn backend(&self, number: u32) -> Option<&Backend> {
        self.backends.get(usize::try_from(number).ok()?)
    }

    /// What is noted of a backend, to be noted more; nothing if there is no such number.
    pub(super) fn note<T>(&self, number: u32, note: impl FnOnce(&mut Health) -> T) -> Option<T> {
        self.health.get(usize::try_from(number).ok()?).map(|health| note(&mut lock(health)))
    }

    /// How many flows a backend has.
    fn load(&self, number: u32) -> u32 {
        self.load_of(number).map_or(0, |load| load.load(Ordering::Relaxed))
    }

    fn load_of(&self, number: u32) -> Option<&AtomicU32> {
        self.loads.get(usize::try_from(number).ok()?)
    }

    /// It has so many flows.
    pub(super) fn set_load(&self, number: u32, flows: u32) {
        if let Some(load) = self.load_of(number) {
            load.store(flows, Ordering::Relaxed);
        }
    }

    /// A flow has begun.
    pub(super) fn begun(&self, flow: &map::Flow) {
        self.change_load(flow, |open| open.saturating_add(1));
    }

    /// A flow is over.
    pub(super) fn ended(&self, flow: &map::Flow) {
        self.change_load(flow, |open| open.saturating_sub(1));
    }

    /// Of those that an instance was chosen for: what goes to an instance's own address is mostly its clients' answers.
    fn change_load(&self, flow: &map::Flow, change: impl Fn(u32) -> u32) {
        let lives = self.backend(flow.backend).is_some_and(|backend| backend.generation == flow.generation);
        if let Some(load) = self.load_of(flow.backend).filter(|_| lives && flow.chosen != 0) {
            let changed = load.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| Some(change(open)));
            changed.ok();
        }
    }

    /// The number of a backend, if some address leads to it.
    pub(super) fn number_of(&self, backend: &datapath::Backend) -> Option<u16> {
        let number = *self.hosts.get(&ip(backend.ns_ip.into()))?;
        let row = self.backend(number).filter(|row| row.in_use() && from_backend(row) == *backend);
        row.and_then(|_| u16::try_from(number).ok())
    }

    /// What is noted of a backend.
    pub(super) fn health(&self, number: u16) -> Health {
        self.note(number.into(), |health| *health).unwrap_or_default()
    }

    /// The backend of a service that has the turn, or is the closest one; nothing if the service is not known.
    pub(super) fn choose(&self, service_ip: &Ip) -> Option<Result<Chosen<'_>, DropReason>> {
        let service = self.services.get(service_ip)?;
        let count = u32::from(service.row.count);
        if count == 0 {
            return Some(Err(DropReason::NoBackend));
        }
        let policy = service.row.policy;
        let first = count == 1 || policy == Policy::Closest as u16;
        let turn = if first { 0 } else { service.turns.fetch_add(1, Ordering::Relaxed) };
        let in_turn = |step| {
            let place = netmanager_common::flow::in_turn(service.row.first, turn.wrapping_add(step), count);
            u32::from(service.row.backends[place])
        };
        let number = if policy == Policy::LeastConnections as u16 {
            (0..count).map(in_turn).min_by_key(|number| self.load(*number)).unwrap_or_default()
        } else {
            in_turn(0)
        };
        let backend = self.backend(number).filter(|backend| backend.in_use());
        let chosen = policy != Policy::Instance as u16;
        Some(backend.map(|backend| Chosen { number, backend, chosen }).ok_or(DropReason::TableChanged))
    }

    /// The backend that is behind an address, NsIP or instance address, if the table knows the address.
    pub(super) fn owner(&self, address: &Ip) -> Option<&Backend> {
        self.hosts.get(address).and_then(|number| self.backend(*number))
    }

    /// The instance that speaks under this address too: see `netmanager-ebpf`, `guard.rs`.
    pub(super) fn left_behind(&self, address: &Ip) -> Option<&Backend> {
        let row = &self.services.get(address)?.row;
        let number = resting(row).next().filter(|_| row.policy == Policy::Instance as u16)?;
        self.backend(number.into())
    }

    /// The instance on another node that has this NsIP.
    pub(super) fn host_of(&self, ns_ip: &Ip) -> Result<&Backend, DropReason> {
        let backend = self.owner(ns_ip).ok_or(DropReason::NoEndpoint)?;
        let right = backend.ns_ip_like(*ns_ip) == *ns_ip && backend.in_use();
        if right { Ok(backend) } else { Err(DropReason::TableChanged) }
    }

    pub(super) fn knows_peer(&self, node: Ip) -> bool {
        self.peers.contains_key(&Peer::node(node))
    }

    /// Notes from which port a known node has sent. Who speaks from where it listens has a socket there, and sockets
    /// take segments however they come. Programs spread over many ports, and once one was heard they are believed to
    /// be there.
    pub(super) fn heard(&self, node: Ip, port: Be16) {
        let Some(Ears(ears)) = self.peers.get(&Peer::node(node)) else { return };
        let listens = self.peers.contains_key(&Peer::listening(node, port));
        match ears.load(Ordering::Relaxed) {
            Ears::PROGRAM => {}
            _ if !listens => ears.store(Ears::PROGRAM, Ordering::Relaxed),
            Ears::UNKNOWN => ears.store(Ears::SOCKET, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Whether a node takes many packets in one, should the way to it not take them apart.
    pub(super) fn takes_segments(&self, node: Ip) -> bool {
        let ears = self.peers.get(&Peer::node(node));
        ears.is_some_and(|Ears(ears)| ears.load(Ordering::Relaxed) == Ears::SOCKET)
    }
}

fn peer(node: &SocketAddr) -> Peer {
    Peer::listening(ip(node.ip()), Be16::new(node.port()))
}

#[cfg(test)]
mod tests {
    use super::Tables;
    use crate::datapath::ip;
    use crate::datapath::registry::Step;
    use netmanager_common::wire::Be16;

    #[test]
    fn segments_go_to_whoever_has_spoken_from_where_it_listens_and_from_nowhere_else() {
        let mut tables = Tables::default();
        for port in [0, 50103] {
            tables.apply(&Step::AddPeer(([192, 0, 2, 2], port).into()));
        }
        let node = ip([192, 0, 2, 2].into());
        assert!(!tables.takes_segments(node), "nothing has come from it");
        tables.heard(node, Be16::new(50103));
        assert!(tables.takes_segments(node));
        tables.heard(node, Be16::new(61000));
        assert!(!tables.takes_segments(node));
        tables.heard(node, Be16::new(50103));
        assert!(!tables.takes_segments(node), "by chance a program's port may be that one");
        tables.heard(ip([192, 0, 2, 9].into()), Be16::new(50103));
        assert!(!tables.takes_segments(ip([192, 0, 2, 9].into())), "no peer");
    }
}
