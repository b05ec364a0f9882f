//! Which backend has which number, and in which order the tables change so that a packet never finds an entry that
//! leads nowhere. Pure: takes what is wanted, gives the steps.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use netmanager_common::map::{MAX_BACKENDS, Policy};

use super::{Backend, Service};

/// One write to one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A node listens here; with port 0: there is a node at this address.
    AddPeer(SocketAddr),
    /// Like all removals harmless when there is nothing to remove.
    RemovePeer(SocketAddr),
    /// What is noted of a number is no longer true of what it will mean.
    ClearHealth(u16),
    /// A number's meaning, with a generation that says whether it is in use. Of one that is, only the node may be another.
    SetBackend {
        number: u16,
        generation: u32,
        backend: Backend,
        /// What can go on elsewhere does.
        aside: bool,
    },
    /// An address of a container leads to a backend.
    SetHost {
        address: IpAddr,
        number: u16,
    },
    RemoveHost(IpAddr),
    SetService {
        service_ip: IpAddr,
        policy: Policy,
        /// Those that are chosen from.
        numbers: Vec<u16>,
        /// Those that keep what they have.
        resting: Vec<u16>,
    },
    RemoveService(IpAddr),
}

/// All numbers are taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfNumbers;

/// What was read from the tables.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Every number that was ever used.
    pub(crate) rows: Vec<Row>,
    /// With those that rest.
    pub(crate) services: Vec<(IpAddr, Vec<u16>)>,
    pub(crate) hosts: Vec<(IpAddr, u16)>,
    pub(crate) peers: Vec<SocketAddr>,
}

/// What the tables say of a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) number: u16,
    pub(crate) generation: u32,
    pub(crate) backend: Backend,
    pub(crate) aside: bool,
}

/// What the tables hold, by meaning.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// With those that rest.
    services: BTreeMap<IpAddr, Vec<u16>>,
    backends: BTreeMap<u16, InUse>,
    numbers: BTreeMap<Backend, u16>,
    /// The backends that have an address, the one that the table names last.
    hosts: BTreeMap<IpAddr, Vec<u16>>,
    /// How many backends are behind an entry for their node.
    peers: BTreeMap<SocketAddr, usize>,
    /// Numbers that were in use before, with the generation they were left with, longest unused first.
    retired: VecDeque<(u16, u32)>,
    /// The lowest number that was never in use.
    unused: u32,
}

#[derive(Debug)]
struct InUse {
    backend: Backend,
    generation: u32,
    aside: bool,
    /// How many services list it.
    users: usize,
}

impl Registry {
    /// From what the tables hold, with the steps that finish what a writer has left half done when it died.
    pub(crate) fn rebuild(held: &Held) -> (Self, Vec<Step>) {
        let mut registry = Self::default();
        for &Row { number, generation, backend, aside } in &held.rows {
            registry.unused = registry.unused.max(u32::from(number) + 1);
            if is_in_use(generation) {
                registry.enter(number, generation, backend, aside);
            } else {
                registry.retired.push_back((number, generation));
            }
        }
        for (service_ip, numbers) in &held.services {
            for number in numbers {
                if let Some(in_use) = registry.backends.get_mut(number) {
                    in_use.users += 1;
                }
            }
            registry.services.insert(*service_ip, numbers.clone());
        }
        let steps = registry.sweep(held);
        (registry, steps)
    }

    /// Retires backends that no service lists, and removes addresses and nodes that no backend has.
    fn sweep(&mut self, held: &Held) -> Vec<Step> {
        let mut steps = Vec::new();
        let unlisted =
            self.backends.iter().filter(|(_, in_use)| in_use.users == 0).map(|(&number, _)| number);
        for number in unlisted.collect::<Vec<_>>() {
            self.retire(number, &mut steps);
        }
        for (address, number) in &held.hosts {
            match self.hosts.get_mut(address) {
                // The table's owner is the one that the others stand behind.
                Some(owners) => owners.sort_by_key(|owner| owner == number),
                None => steps.push(Step::RemoveHost(*address)),
            }
        }
        let strangers = held.peers.iter().filter(|peer| !self.peers.contains_key(peer));
        steps.extend(strangers.map(|peer| Step::RemovePeer(*peer)));
        steps
    }

    /// The nodes behind which there is an instance.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.peers.keys().filter(|peer| peer.port() == 0).map(SocketAddr::ip)
    }

    /// The rows that stand for an instance.
    pub(super) fn in_use(&self) -> impl Iterator<Item = Row> + '_ {
        self.backends.iter().map(|(&number, in_use)| {
            let InUse { backend, generation, aside, .. } = *in_use;
            Row { number, generation, backend, aside }
        })
    }

    /// Replaces a service's backends. New ones are complete before the service names them, old ones go after it has
    /// ceased to.
    pub(crate) fn publish(&mut self, service: &Service) -> Result<Vec<Step>, OutOfNumbers> {
        let &Service { service_ip, policy, .. } = service;
        let mut steps = Vec::new();
        let chosen_from = service.backends.len();
        let mut numbers: Vec<u16> = Vec::with_capacity(chosen_from + service.resting.len());
        let mut count = 0;
        for (place, backend) in service.backends.iter().chain(&service.resting).enumerate() {
            let number = self.number_of(backend, &mut steps)?;
            if !numbers.contains(&number) {
                numbers.push(number);
                count += usize::from(place < chosen_from);
            }
        }
        for number in &numbers {
            if let Some(in_use) = self.backends.get_mut(number) {
                in_use.users += 1;
            }
        }
        let (chosen_from, resting) = numbers.split_at(count);
        let (chosen_from, resting) = (chosen_from.to_vec(), resting.to_vec());
        steps.push(Step::SetService { service_ip, policy, numbers: chosen_from, resting });
        let before = self.services.insert(service_ip, numbers).unwrap_or_default();
        self.release(&before, &mut steps);
        Ok(steps)
    }

    /// Sets a backend aside, or takes it back. Nothing if it is so, or not known.
    pub(crate) fn set_aside(&mut self, backend: &Backend, aside: bool) -> Option<Step> {
        let number = *self.numbers.get(backend)?;
        let in_use = self.backends.get_mut(&number).filter(|in_use| in_use.aside != aside)?;
        in_use.aside = aside;
        Some(Step::SetBackend { number, generation: in_use.generation, backend: *backend, aside })
    }

    /// The number and the generation of a backend.
    pub(crate) fn number(&self, backend: &Backend) -> Option<(u16, u32)> {
        let number = *self.numbers.get(backend)?;
        self.backends.get(&number).map(|in_use| (number, in_use.generation))
    }

    /// The backend that has this number in this generation.
    pub(crate) fn backend(&self, number: u16, generation: u32) -> Option<Backend> {
        self.backends.get(&number).filter(|it| it.generation == generation).map(|it| it.backend)
    }

    /// All backends, with their numbers.
    pub(crate) fn backends(&self) -> impl Iterator<Item = (u16, &Backend)> {
        self.backends.iter().map(|(number, in_use)| (*number, &in_use.backend))
    }

    /// The backends that are set aside.
    pub(crate) fn aside(&self) -> impl Iterator<Item = Backend> {
        self.backends.values().filter(|in_use| in_use.aside).map(|in_use| in_use.backend)
    }

    /// Forgets a service.
    pub(crate) fn withdraw(&mut self, service_ip: IpAddr) -> Vec<Step> {
        let Some(numbers) = self.services.remove(&service_ip) else { return Vec::new() };
        let mut steps = vec![Step::RemoveService(service_ip)];
        self.release(&numbers, &mut steps);
        steps
    }

    fn number_of(&mut self, backend: &Backend, steps: &mut Vec<Step>) -> Result<u16, OutOfNumbers> {
        if let Some(&number) = self.numbers.get(backend) {
            return Ok(number);
        }
        if let Some(number) = self.elsewhere(backend) {
            self.move_to(number, *backend, steps);
            return Ok(number);
        }
        let (number, generation) = self.take_number()?;
        steps.extend(self.enter(number, generation, *backend, false).into_iter().map(Step::AddPeer));
        steps.push(Step::ClearHealth(number));
        steps.push(Step::SetBackend { number, generation, backend: *backend, aside: false });
        steps.extend(addresses(backend).map(|address| Step::SetHost { address, number }));
        Ok(number)
    }

    /// The number of the same container at another address of the underlay: its node has moved, and flows go along.
    fn elsewhere(&self, backend: &Backend) -> Option<u16> {
        let owners = self.hosts.get(&IpAddr::V4(backend.ns_ip))?;
        let is_same = |number: &&u16| {
            self.backends
                .get(number)
                .is_some_and(|it| Backend { node: backend.node, ..it.backend } == *backend)
        };
        owners.iter().find(is_same).copied()
    }

    /// The number stays, and what it means but for where that is. The news is a new beginning: it is not aside.
    fn move_to(&mut self, number: u16, backend: Backend, steps: &mut Vec<Step>) {
        let Some(in_use) = self.backends.get_mut(&number) else { return };
        let before = std::mem::replace(&mut in_use.backend, backend);
        in_use.aside = false;
        let generation = in_use.generation;
        self.numbers.remove(&before);
        self.numbers.insert(backend, number);
        steps.extend(self.count_peers(&backend).into_iter().map(Step::AddPeer));
        steps.push(Step::SetBackend { number, generation, backend, aside: false });
        self.discount_peers(&before, steps);
    }

    /// A number that is not in use. The never used first: a number rests as long as possible, until no packet can be
    /// on its way that has read its old meaning.
    fn take_number(&mut self) -> Result<(u16, u32), OutOfNumbers> {
        if self.unused < MAX_BACKENDS {
            let number = u16::try_from(self.unused).ok().ok_or(OutOfNumbers)?;
            self.unused += 1;
            return Ok((number, 1));
        }
        let (number, generation) = self.retired.pop_front().ok_or(OutOfNumbers)?;
        Ok((number, generation.wrapping_add(1)))
    }

    /// Notes a backend as in use. Gives the entries for its node that are not there yet.
    fn enter(&mut self, number: u16, generation: u32, backend: Backend, aside: bool) -> Vec<SocketAddr> {
        self.backends.insert(number, InUse { backend, generation, aside, users: 0 });
        self.numbers.insert(backend, number);
        for address in addresses(&backend) {
            self.hosts.entry(address).or_default().push(number);
        }
        self.count_peers(&backend)
    }

    /// One more backend is behind the entries for its node. Gives those that are not there yet.
    fn count_peers(&mut self, backend: &Backend) -> Vec<SocketAddr> {
        let mut first = Vec::new();
        for peer in peers(backend) {
            let count = self.peers.entry(peer).or_default();
            *count += 1;
            first.extend((*count == 1).then_some(peer));
        }
        first
    }

    /// One less.
    fn discount_peers(&mut self, backend: &Backend, steps: &mut Vec<Step>) {
        for peer in peers(backend) {
            let Some(count) = self.peers.get_mut(&peer) else { continue };
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&peer);
                steps.push(Step::RemovePeer(peer));
            }
        }
    }

    fn release(&mut self, numbers: &[u16], steps: &mut Vec<Step>) {
        for number in numbers {
            let Some(in_use) = self.backends.get_mut(number) else { continue };
            in_use.users = in_use.users.saturating_sub(1);
            if in_use.users == 0 {
                self.retire(*number, steps);
            }
        }
    }

    /// Addresses first, then the number, then the node: the reverse of how they were entered.
    fn retire(&mut self, number: u16, steps: &mut Vec<Step>) {
        let Some(InUse { backend, generation, .. }) = self.backends.remove(&number) else { return };
        self.numbers.remove(&backend);
        for address in addresses(&backend) {
            let Some(owners) = self.hosts.get_mut(&address) else { continue };
            owners.retain(|owner| *owner != number);
            match owners.last() {
                Some(&heir) => steps.push(Step::SetHost { address, number: heir }),
                None => {
                    self.hosts.remove(&address);
                    steps.push(Step::RemoveHost(address));
                }
            }
        }
        let generation = generation.wrapping_add(1);
        steps.push(Step::SetBackend { number, generation, backend, aside: false });
        self.retired.push_back((number, generation));
        self.discount_peers(&backend, steps);
    }
}

/// As [`netmanager_common::map::Backend::in_use`].
fn is_in_use(generation: u32) -> bool {
    generation & 1 == 1
}

/// The addresses from which a backend's packets may come. Of each family both are the same where an instance has no
/// address of its own.
fn addresses(backend: &Backend) -> impl Iterator<Item = IpAddr> + use<> {
    let v4 = [Some(backend.ns_ip), (backend.instance_ip != backend.ns_ip).then_some(backend.instance_ip)];
    let v6 = [backend.ns_ip6, backend.instance_ip6.filter(|own| backend.ns_ip6 != Some(*own))];
    let v4 = v4.into_iter().flatten().map(IpAddr::V4);
    v4.chain(v6.into_iter().flatten().map(IpAddr::V6))
}

/// The two entries for a backend's node.
fn peers(backend: &Backend) -> [SocketAddr; 2] {
    [backend.node, SocketAddr::new(backend.node.ip(), 0)]
}

#[cfg(test)]
mod tests;
