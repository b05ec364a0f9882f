//! Which backends of a service get new flows, and of a closest address which one: what the resolver knows, without those
//! that are dead ends ([`health`]), by their distance ([`distance`]). Carries out in the data plane what is decided there,
//! and sends the probes.

pub mod distance;
pub mod health;
pub mod load;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use self::health::{Action, Answering, Cause, Health, Probe};
use crate::datapath::{Backend, FlowState, Policy, Reading, Service, Suspect, Transport};
use crate::error::chain;
use crate::plane::{Backends, PlaneError};
use crate::slowpath::{SlowPath, Untaken, probe};
use crate::table::Entry;

/// How often distances are looked at, while there is a closest address with a choice.
const LOOK: Duration = Duration::from_secs(5);
/// How old a measurement may be, and the pause between two probes of a node.
const FRESH: Duration = Duration::from_secs(30);

/// What is behind each address, and how its backends do.
#[derive(Debug, Default)]
pub struct Balance {
    services: BTreeMap<IpAddr, Behind>,
    /// The addresses behind which somebody is being stopped.
    with_leaving: BTreeSet<IpAddr>,
    health: Health,
    /// Of the last probe.
    number: u16,
    /// When distances were looked at last.
    looked: Option<Instant>,
    /// When the nodes behind closest addresses were probed last.
    probed: BTreeMap<IpAddr, Instant>,
    /// When connections are counted next.
    count_due: Option<Instant>,
}

#[derive(Debug)]
struct Behind {
    policy: Policy,
    backends: Vec<Backend>,
    /// They are being stopped.
    leaving: Vec<Backend>,
    /// NsIPs of those that come after all others, however close they are.
    busy: BTreeSet<Ipv4Addr>,
    /// The closest one, as long as no other is clearly closer.
    first: Option<Backend>,
}

impl Balance {
    /// Takes over what an earlier run has set aside.
    #[must_use]
    pub fn adopt(datapath: &impl Backends, now: Instant) -> Self {
        let mut balance = Self::default();
        for backend in datapath.aside() {
            balance.health.adopt(backend, now);
        }
        balance
    }

    /// Takes over what an earlier run has published.
    pub fn adopt_service(&mut self, service_ip: IpAddr, policy: Policy, backends: Vec<Backend>) {
        let first = backends.first().copied();
        let entry = Entry { backends, ..Entry::empty(policy) };
        self.services.insert(service_ip, Behind::of(entry, first));
    }

    /// Publishes a service with the backends of `entry`, of which those get new flows that do well. Those that are leaving get
    /// none: connections that they have go on, and other flows elsewhere if there is somebody.
    ///
    /// # Errors
    /// As [`Backends::publish`]. The service is then as it was.
    pub fn publish(
        &mut self,
        datapath: &mut impl Backends,
        service_ip: IpAddr,
        entry: Entry,
    ) -> Result<(), PlaneError> {
        let first = self.services.get(&service_ip).and_then(|behind| behind.first);
        let behind = Behind::of(entry, first);
        self.note_leaving(service_ip, &behind.leaving);
        let before = self.services.insert(service_ip, behind);
        if let Err(error) = self.write(datapath, service_ip) {
            match before {
                Some(before) => {
                    self.note_leaving(service_ip, &before.leaving);
                    self.services.insert(service_ip, before);
                }
                None => self.forget(service_ip),
            }
            return Err(error);
        }
        self.forget_unknown(datapath);
        Ok(())
    }

    /// Makes the address unknown.
    ///
    /// # Errors
    /// As [`Backends::withdraw_service`].
    pub fn withdraw(&mut self, datapath: &mut impl Backends, service_ip: IpAddr) -> Result<(), PlaneError> {
        self.forget(service_ip);
        let withdrawn = datapath.withdraw_service(service_ip);
        self.forget_unknown(datapath);
        withdrawn
    }

    fn note_leaving(&mut self, service_ip: IpAddr, leaving: &[Backend]) {
        if leaving.is_empty() {
            self.with_leaving.remove(&service_ip);
        } else {
            self.with_leaving.insert(service_ip);
        }
    }

    fn forget(&mut self, service_ip: IpAddr) {
        self.with_leaving.remove(&service_ip);
        self.services.remove(&service_ip);
    }

    /// The kernel side suspects a backend.
    pub fn suspected(
        &mut self,
        datapath: &mut impl Backends,
        slow_path: Option<&SlowPath>,
        suspect: Suspect,
        now: Instant,
    ) {
        let Some(backend) = datapath.suspect(suspect) else { return };
        let Some(reading) = read(datapath, &backend) else { return };
        let others: Vec<_> = self
            .choices()
            .filter(|behind| behind.backends.contains(&backend))
            .flat_map(|behind| &behind.backends)
            .filter(|other| **other != backend)
            .filter_map(|other| read(datapath, other)?.accepted_port)
            .collect();
        let action = self.health.suspected(backend, &reading, |port| others.contains(&port), now);
        self.carry_out(datapath, slow_path, action);
    }

    /// An instance has not taken a datagram.
    pub fn untaken(
        &mut self,
        datapath: &mut impl Backends,
        slow_path: Option<&SlowPath>,
        untaken: Untaken,
        now: Instant,
    ) {
        let has_address = |backend: &&Backend| match untaken.instance {
            IpAddr::V4(address) => backend.instance_ip == address,
            IpAddr::V6(address) => backend.instance_ip6 == Some(address),
        };
        let Some(backend) = self.choices().flat_map(|it| &it.backends).find(has_address).copied() else {
            return;
        };
        let Self { services, health, .. } = self;
        let who = |lately| who_answers(services, datapath, &backend, untaken.port, lately);
        let action = health.untaken(backend, untaken.port, who, now);
        self.carry_out(datapath, slow_path, action);
    }

    /// When [`Self::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let look = self.has_choice_of_distance().then_some(self.looked).flatten().map(|looked| looked + LOOK);
        let is_by_load = self.services.values().any(Behind::is_choice_of_load);
        let count = is_by_load.then_some(self.count_due).flatten();
        [self.health.deadline(), look, count].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, datapath: &mut impl Backends, slow_path: Option<&SlowPath>, now: Instant) {
        let actions = self.health.tick(|backend| read(datapath, backend), slow_path.is_some(), now);
        self.carry_out(datapath, slow_path, actions);
        let is_due = self.looked.is_none_or(|looked| looked + LOOK <= now);
        if is_due && self.has_choice_of_distance() {
            self.looked = Some(now);
            self.look(datapath, slow_path, now);
        }
        if self.count_due.is_none_or(|due| due <= now) {
            self.count_due = Some(now + self.count(datapath));
        }
    }

    /// Counts the connections to those of whom the one with the fewest is chosen. Gives the pause until the next time.
    fn count(&self, datapath: &mut impl Backends) -> Duration {
        let by_load = self.services.values().filter(|behind| behind.is_choice_of_load());
        let backends: BTreeSet<_> = by_load.flat_map(|behind| behind.backends.iter().copied()).collect();
        if backends.is_empty() {
            return load::pause(0);
        }
        let counted = datapath.flows().and_then(|flows| {
            let counts = load::count(&flows, &datapath.endpoints()?, backends);
            counts.iter().try_for_each(|(backend, count)| datapath.set_load(backend, *count))?;
            Ok(load::pause(flows.len()))
        });
        counted.unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "connections are not counted");
            load::pause(0)
        })
    }

    fn has_choice_of_distance(&self) -> bool {
        self.services.values().any(Behind::is_choice_of_distance)
    }

    /// Puts first who is closest now, and has those probed of whom nothing was heard for long: each node once.
    fn look(&mut self, datapath: &mut impl Backends, slow_path: Option<&SlowPath>, now: Instant) {
        let (mut changed, mut stale) = (Vec::new(), BTreeMap::new());
        for (service_ip, behind) in self.services.iter().filter(|(_, it)| it.is_choice_of_distance()) {
            let order = behind.by_distance(&self.health, datapath).0;
            if order.first() != behind.first.as_ref() {
                changed.push(*service_ip);
            }
            for backend in order {
                let heard = read(datapath, &backend).and_then(|reading| reading.heard);
                if heard.is_none_or(|ago| ago >= FRESH) {
                    stale.insert(backend.node.ip(), backend);
                }
            }
        }
        for service_ip in changed {
            if let Err(error) = self.write(datapath, service_ip) {
                tracing::error!(%service_ip, error = chain(&error), "new flows go where they went before");
            }
        }
        self.probed.retain(|_, probed| now.saturating_duration_since(*probed) < FRESH);
        for (node, backend) in stale {
            if self.probed.contains_key(&node) {
                continue;
            }
            self.probed.insert(node, now);
            self.probe(datapath, slow_path, &backend, Probe::Echo);
        }
    }

    /// Why a backend gets no new flows; nothing if it does.
    #[must_use]
    pub fn aside(&self, backend: &Backend) -> Option<Cause> {
        self.health.aside(backend)
    }

    fn carry_out(
        &mut self,
        datapath: &mut impl Backends,
        slow_path: Option<&SlowPath>,
        actions: impl IntoIterator<Item = Action>,
    ) {
        for action in actions {
            match action {
                Action::Probe(backend, probe) => self.probe(datapath, slow_path, &backend, probe),
                Action::SetAside(backend, cause) => {
                    tracing::warn!(instance = %backend.instance_ip, node = %backend.node, %cause, "backend is set aside");
                    self.rewrite(datapath, &backend);
                }
                Action::TakeBack(backend) => {
                    tracing::info!(instance = %backend.instance_ip, node = %backend.node, "backend is taken back");
                    self.rewrite(datapath, &backend);
                }
            }
        }
    }

    /// As a container of this node that is not the backend itself, if there is another.
    fn probe(
        &mut self,
        datapath: &impl Backends,
        slow_path: Option<&SlowPath>,
        backend: &Backend,
        probe: Probe,
    ) {
        let Some(slow_path) = slow_path else { return };
        let endpoints = datapath.endpoints().unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "cannot read who could probe a backend");
            Vec::new()
        });
        let able = endpoints.iter().filter(|endpoint| endpoint.instance_ip.is_some());
        let Some(from) = able.min_by_key(|endpoint| endpoint.ns_ip == backend.ns_ip) else { return };
        self.number = self.number.wrapping_add(1);
        slow_path.send(match probe {
            Probe::Echo => probe::echo(from, backend.instance_ip, self.number),
            Probe::Connect(port) => probe::connect(from, backend.instance_ip, port, self.number),
        });
    }

    /// Writes every service that the backend is one choice of.
    fn rewrite(&mut self, datapath: &mut impl Backends, backend: &Backend) {
        let services: Vec<_> = self
            .services
            .iter()
            .filter(|(_, behind)| behind.is_choice() && behind.backends.contains(backend))
            .map(|(service_ip, _)| *service_ip)
            .collect();
        for service_ip in services {
            if let Err(error) = self.write(datapath, service_ip) {
                tracing::error!(%service_ip, error = chain(&error), "new flows go where they went before");
            }
        }
    }

    fn write(&mut self, datapath: &mut impl Backends, service_ip: IpAddr) -> Result<(), PlaneError> {
        let Some(behind) = self.services.get_mut(&service_ip) else { return Ok(()) };
        let policy = behind.policy;
        let (backends, mut resting) = match policy {
            Policy::Instance => (behind.backends.clone(), Vec::new()),
            Policy::RoundRobin | Policy::LeastConnections => self.health.split(behind.backends.clone()),
            Policy::Closest => behind.by_distance(&self.health, datapath),
        };
        resting.extend(&behind.leaving);
        let first = backends.first().copied();
        datapath.publish(&Service { service_ip, policy, backends, resting })?;
        behind.first = first;
        self.move_flows(datapath)
    }

    /// What can go on elsewhere leaves the backends that rest in some service.
    fn move_flows(&self, datapath: &mut impl Backends) -> Result<(), PlaneError> {
        let before: BTreeSet<_> = datapath.aside().into_iter().collect();
        if self.health.is_empty() && before.is_empty() && self.with_leaving.is_empty() {
            return Ok(());
        }
        let resting = self.choices().flat_map(|behind| self.health.split(behind.backends.clone()).1);
        let leaving = self.with_leaving.iter().filter_map(|service_ip| self.services.get(service_ip));
        let replaced = leaving.filter(|behind| behind.is_choice() && !behind.backends.is_empty());
        let now: BTreeSet<_> = resting.chain(replaced.flat_map(|behind| behind.leaving.clone())).collect();
        for backend in now.symmetric_difference(&before) {
            datapath.set_aside(backend, now.contains(backend))?;
        }
        Ok(())
    }

    fn forget_unknown(&mut self, datapath: &impl Backends) {
        if !self.health.is_empty() {
            self.health.retain(|backend| datapath.knows(backend));
        }
    }

    fn choices(&self) -> impl Iterator<Item = &Behind> {
        self.services.values().filter(|behind| behind.is_choice())
    }
}

impl Behind {
    fn of(entry: Entry, first: Option<Backend>) -> Self {
        let Entry { policy, backends, leaving, busy } = entry;
        Self { policy, backends, leaving, busy, first }
    }

    /// Whether the address stands for more than one instance by itself.
    fn is_choice(&self) -> bool {
        self.policy != Policy::Instance
    }

    fn is_choice_of_distance(&self) -> bool {
        self.policy == Policy::Closest && self.backends.len() > 1
    }

    fn is_choice_of_load(&self) -> bool {
        self.policy == Policy::LeastConnections && self.backends.len() > 1
    }

    /// Those that get new flows, the closest first but for those that are busy, and those that rest.
    fn by_distance(&self, health: &Health, datapath: &impl Backends) -> (Vec<Backend>, Vec<Backend>) {
        let (live, resting) = health.split(self.backends.clone());
        let measured = |backend: &Backend| read(datapath, backend)?.round_trip;
        // What is true of one instance on a node is true of the others.
        let mut nodes: BTreeMap<IpAddr, Duration> = BTreeMap::new();
        for (node, time) in live.iter().filter_map(|it| Some((it.node.ip(), measured(it)?))) {
            nodes.entry(node).and_modify(|least| *least = time.min(*least)).or_insert(time);
        }
        let mut ordered =
            distance::ordered(live, self.first, |backend| nodes.get(&backend.node.ip()).copied());
        ordered.sort_by_key(|backend| self.busy.contains(&backend.ns_ip));
        (ordered, resting)
    }
}

/// Who of the services that the backend is behind has answered datagrams to this port. Of itself only those of flows
/// that were not idle for so long count as new.
fn who_answers(
    services: &BTreeMap<IpAddr, Behind>,
    datapath: &impl Backends,
    backend: &Backend,
    port: u16,
    lately: Duration,
) -> Answering {
    let flows = datapath.flows().unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "cannot read which flows there are");
        Vec::new()
    });
    let is_behind = |behind: &Behind| behind.is_choice() && behind.backends.contains(backend);
    let mut answering = Answering::Nobody;
    for flow in flows.iter().filter(|flow| {
        flow.transport == Transport::Udp
            && flow.service.port() == port
            && flow.state != FlowState::New
            && services.get(&flow.service.ip()).is_some_and(is_behind)
    }) {
        // Idle times are to the second.
        if flow.backend.as_ref() == Some(backend) && flow.idle < lately {
            return Answering::Itself;
        }
        answering = Answering::Another;
    }
    answering
}

fn read(datapath: &impl Backends, backend: &Backend) -> Option<Reading> {
    datapath.reading(backend).unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "cannot read how a backend does");
        None
    })
}
