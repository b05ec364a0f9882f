//! Which services this node keeps track of, what is asked for them, and what the data plane holds of them. Pure:
//! events and the time go in, [`Action`]s come out.
//!
//! A service is *of interest* from the first answer about it (or from its first instance here) until nothing has used
//! it for [`IDLE`]; an open connection is a use, however silent ([`is_use`]). While it is of interest the cluster tells of changes, and each change is asked for again.
//!
//! "There is nobody behind this address" is a fact that goes stale unheard: nobody tells us when an address gets its
//! first service. So a negative answer is published (the sender need not wait), but only for [`NEGATIVE`]; then the
//! address is unknown again and the next packet to it asks anew. A client that dials too early gets through once
//! there is somebody to answer.

mod pending;
mod published;
mod rivals;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use protocol::link::LinkOffer;
use protocol::name::ServiceName;
use protocol::net::{TableQuery, TableResult};
use protocol::plan::Plan;

pub use self::pending::{GIVE_UP, TIMEOUT};
use self::pending::{Key, Pending, is_of_overlay};
pub use self::published::{NEGATIVE, RETRY};
use self::published::{Published, publish};
use self::rivals::{Claim, Rivals};
use crate::datapath::{Flow, Policy, Transport};
use crate::table::{Entry, OwnAddress, Table};

/// How long a service stays of interest that nothing here uses.
pub const IDLE: Duration = Duration::from_secs(600);

/// Nodes of which it is known that they take other links than all do.
const MOST_LINKS: usize = 4096;

/// How long an open TCP connection keeps its service of interest without a packet. Connections may be silent for
/// hours; one whose end was not seen must not keep it for ever.
pub const SILENCE: Duration = Duration::from_secs(24 * 3600);

/// Whether the service that `flow` goes to is still needed for it. Without the service its backends are forgotten,
/// which ends the connection.
#[must_use]
pub fn is_use(flow: &Flow) -> bool {
    let open = flow.transport == Transport::Tcp && !flow.state.is_ending() && flow.backend.is_some();
    flow.idle < if open { SILENCE } else { IDLE }
}

/// What is to be done about an event, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Hear of changes to the service.
    Subscribe(ServiceName),
    Unsubscribe(ServiceName),
    /// Tell the cluster that changes are no longer wanted.
    RemoveInterest(ServiceName),
    Query(TableQuery),
    /// Packets to the node at this address may be wrapped in these ways.
    Wrap(IpAddr, LinkOffer),
    Publish(IpAddr, Entry),
    Withdraw(IpAddr),
    /// The ServiceIPs of an instance that runs here are known, or others.
    Identify {
        service: ServiceName,
        number: u32,
        own: OwnAddress,
    },
    /// `rival` is said to have this address, too; `holder` keeps it.
    Contested {
        address: IpAddr,
        holder: ServiceName,
        rival: ServiceName,
    },
}

/// One service of interest.
#[derive(Debug)]
struct Service {
    /// Numbers of its instances on this node.
    local: BTreeSet<u32>,
    last_used: Instant,
    addresses: BTreeMap<IpAddr, Policy>,
    instances: BTreeMap<u32, OwnAddress>,
    /// The last answer, to be kept over a restart.
    answer: Option<TableResult>,
}

impl Service {
    fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_used) >= IDLE
    }
}

#[derive(Debug, Default)]
pub struct Resolver {
    services: BTreeMap<ServiceName, Service>,
    owners: HashMap<IpAddr, ServiceName>,
    rivals: Rivals,
    published: BTreeMap<IpAddr, Published>,
    /// Of nodes that offer others than all do.
    links: BTreeMap<IpAddr, LinkOffer>,
    pending: Pending,
    plan: Plan,
}

impl Resolver {
    /// Takes over how nodes take packets, as an earlier run has learned it.
    pub fn adopt_links(links: impl IntoIterator<Item = (IpAddr, LinkOffer)>) -> Self {
        Self { links: links.into_iter().take(MOST_LINKS).collect(), ..Self::default() }
    }

    /// By which addresses are told apart.
    pub fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// Forgets all that is known, which was of another plan, and what was asked.
    pub fn begin_anew(&mut self, plan: Plan) {
        let links = std::mem::take(&mut self.links);
        let pending = Pending::begin_anew(&self.pending);
        *self = Self { plan, links, pending, ..Self::default() };
    }

    /// What an earlier run has published and the data plane still holds. It stays until an answer replaces it.
    pub fn adopt(&mut self, address: IpAddr, entry: Entry, now: Instant) {
        let expires = entry.is_empty().then_some(now);
        self.published.insert(address, Published { entry, expires, retry: None });
    }

    /// The session is up: everything may have changed meanwhile, so everything is asked for.
    pub fn connected(&mut self, now: Instant) -> Vec<Action> {
        let mut actions: Vec<_> = self.services.keys().cloned().map(Action::Subscribe).collect();
        for name in self.services.keys() {
            self.pending.ask(Key::Service(name.clone()), now);
        }
        for (address, published) in &self.published {
            if published.expires.is_none() && !self.owners.contains_key(address) {
                self.pending.ask(Key::Address(*address), now);
            }
        }
        actions.extend(self.pending.connected(now).into_iter().map(Action::Query));
        actions
    }

    /// Questions wait until the session is up again.
    pub fn disconnected(&mut self) {
        self.pending.disconnected();
    }

    /// A packet went to an address that the data plane does not know: a ServiceIP, or the NsIP of a node itself. Which
    /// NsIPs are those of this node's containers is for the caller to know.
    pub fn missed(&mut self, address: IpAddr, now: Instant) -> Vec<Action> {
        if !is_of_overlay(address, &self.plan) {
            return Vec::new();
        }
        if let Some(service) = self.owners.get(&address).and_then(|name| self.services.get_mut(name)) {
            service.last_used = now;
        }
        if let Some(published) = self.published.get_mut(&address) {
            // Of what the data plane holds, this packet came before the answer.
            return published.retry.is_some().then(|| published.again(address, now)).into_iter().collect();
        }
        self.pending.miss(address, now).into_iter().map(Action::Query).collect()
    }

    /// The data plane has not taken [`Action::Publish`]: the address stays as it was there, unknown or with what was
    /// behind it before. It is tried again at the next packet that misses it, or after [`RETRY`]. Says whether this is
    /// news.
    pub fn refused(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(published) = self.published.get_mut(&address) else { return false };
        published.retry.replace(now + RETRY).is_none()
    }

    /// The data plane has taken [`Action::Publish`]. Says whether it had refused before.
    pub fn accepted(&mut self, address: IpAddr) -> bool {
        self.published.get_mut(&address).is_some_and(|published| published.retry.take().is_some())
    }

    /// An instance of the service runs here now. The cluster hears of it next, and tells all who listen: that table is
    /// waited for, and asked for only if it does not come.
    pub fn attached(&mut self, name: &ServiceName, number: u32, now: Instant) -> Vec<Action> {
        let actions = self.keep(name, now);
        if let Some(service) = self.services.get_mut(name) {
            service.local.insert(number);
        }
        self.pending.ask_unless_told(Key::Service(name.clone()), now);
        actions
    }

    /// An instance no longer runs here, where it was at `ns_ip`: nothing is sent there any more, though the cluster has not
    /// said so yet. It may have moved, and be elsewhere by now. The service stays of interest for [`IDLE`].
    pub fn detached(
        &mut self,
        name: &ServiceName,
        number: u32,
        ns_ip: Ipv4Addr,
        now: Instant,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(service) = self.services.get_mut(name) else { return actions };
        service.local.remove(&number);
        service.last_used = now;
        for address in service.addresses.keys() {
            let Some(published) = self.published.get(address) else { continue };
            let mut entry = published.entry.clone();
            entry.backends.retain(|backend| backend.ns_ip != ns_ip);
            entry.leaving.retain(|backend| backend.ns_ip != ns_ip);
            publish(&mut self.published, &mut actions, *address, entry, now);
        }
        actions
    }

    /// The cluster said that the table of a service (or address) changed.
    pub fn changed(&mut self, name_or_address: &str, now: Instant) -> Vec<Action> {
        match Key::parse(name_or_address, &self.plan) {
            Some(Key::Service(name)) if self.services.contains_key(&name) => self.ask_service(&name, now),
            Some(key @ Key::Address(_)) => {
                self.pending.ask(key, now).into_iter().map(Action::Query).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The cluster said that the table of a service changed, and how it is now. What is not kept track of is not learnt.
    pub fn told(&mut self, name_or_address: &str, table: TableResult, now: Instant) -> Vec<Action> {
        match Key::parse(name_or_address, &self.plan) {
            Some(Key::Service(name))
                if table.app_name == name_or_address && table.query_key == name_or_address =>
            {
                if !self.services.contains_key(&name) {
                    return Vec::new();
                }
                let actions = self.answered(table, now);
                let is_told = |service: &Service| {
                    service.local.iter().all(|number| service.instances.contains_key(number))
                };
                if !self.services.get(&name).is_some_and(is_told) {
                    self.pending.ask_unless_told(Key::Service(name), now);
                }
                actions
            }
            _ => self.changed(name_or_address, now),
        }
    }

    /// The ServiceIPs of an instance that runs here, as far as they are known.
    #[must_use]
    pub fn own_address(&self, name: &ServiceName, number: u32) -> Option<OwnAddress> {
        self.services.get(name)?.instances.get(&number).copied()
    }

    /// The service that an address belongs to, as far as it is known.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&ServiceName> {
        self.owners.get(&address)
    }

    /// The cluster answered.
    pub fn answered(&mut self, result: TableResult, now: Instant) -> Vec<Action> {
        let mut table = Table::read(&result, &self.plan);
        let asked = Key::parse(&result.query_key, &self.plan);
        let again = self.pending.settle(asked.as_ref(), &table, now);
        if let (Some(Key::Address(address)), Some(name)) = (&asked, &table.service) {
            // The service's own address, which an answer without instances does not name.
            if !table.addresses.contains_key(address)
                && self.owners.get(address).is_none_or(|owner| owner == name)
            {
                let policy = self.policy_of(name, *address);
                table.addresses.insert(*address, Entry::empty(policy));
            }
        }
        let mut actions = self.learn_links(&table);
        actions.extend(match table.service.clone() {
            Some(name) => self.learn(&name, table, result, now),
            None => match asked {
                Some(Key::Address(_)) if !table.addresses.is_empty() => self.learn_node(table, now),
                Some(Key::Address(address)) => self.learn_nobody(address, now),
                _ => Vec::new(),
            },
        });
        actions.extend(again.into_iter().map(Action::Query));
        actions
    }

    /// The links that a node takes beside those that all do.
    #[must_use]
    pub fn links_of(&self, node: IpAddr) -> LinkOffer {
        self.links.get(&node).copied().unwrap_or_default()
    }

    /// The links of nodes, where they are others than before. They come before what leads there.
    fn learn_links(&mut self, table: &Table) -> Vec<Action> {
        let mut actions = Vec::new();
        for (node, links) in &table.links {
            if self.links_of(*node) == *links {
                continue;
            }
            if links.is_empty() {
                self.links.remove(node);
            } else if self.links.len() < MOST_LINKS {
                self.links.insert(*node, *links);
            } else {
                continue;
            }
            actions.push(Action::Wrap(*node, *links));
        }
        actions
    }

    /// The kind that the address had when the service had instances. One that was never seen is taken for the
    /// service's own: an instance's address vanishes together with the instance.
    fn policy_of(&self, name: &ServiceName, address: IpAddr) -> Policy {
        let known = self.services.get(name).and_then(|service| service.addresses.get(&address));
        known.copied().unwrap_or(Policy::RoundRobin)
    }

    fn learn(&mut self, name: &ServiceName, table: Table, result: TableResult, now: Instant) -> Vec<Action> {
        let first_contact = !self.services.contains_key(name);
        let mut actions = self.keep(name, now);
        let Some(service) = self.services.get_mut(name) else { return actions };

        let identified: Vec<_> = service
            .local
            .iter()
            .filter_map(|number| Some((*number, *table.instances.get(number)?)))
            .filter(|(number, own)| service.instances.get(number) != Some(own))
            .collect();
        actions.extend(identified.into_iter().map(|(number, own)| Action::Identify {
            service: name.clone(),
            number,
            own,
        }));
        service.instances = table.instances;
        service.answer = Some(result);

        let named = table.addresses.keys().copied().collect();
        self.rivals.named(name, &named);
        let vanished: Vec<_> =
            service.addresses.keys().copied().filter(|address| !named.contains(address)).collect();
        let mut to_ask = BTreeSet::new();
        for address in vanished {
            let policy = service.addresses[&address];
            let before = to_ask.len();
            to_ask.extend(self.rivals.released(address));
            // Another service has it now, or may be given it.
            if policy == Policy::Instance || to_ask.len() > before {
                service.addresses.remove(&address);
                self.owners.remove(&address);
            }
            publish(&mut self.published, &mut actions, address, Entry::empty(policy), now);
        }
        for (address, entry) in table.addresses {
            if let Some(holder) = self.owners.get(&address).filter(|holder| *holder != name) {
                match self.rivals.claim(address, name, holder.clone()) {
                    Claim::Taken => _ = to_ask.insert(holder.clone()),
                    Claim::Refused { news } => {
                        let (holder, rival) = (holder.clone(), name.clone());
                        actions.extend(news.then_some(Action::Contested { address, holder, rival }));
                        continue;
                    }
                }
            }
            if let Some(service) = self.services.get_mut(name) {
                service.addresses.insert(address, entry.policy);
            }
            publish(&mut self.published, &mut actions, address, entry, now);
            let holder = self.owners.insert(address, name.clone());
            if let Some(service) = holder.filter(|it| it != name).and_then(|it| self.services.get_mut(&it)) {
                service.addresses.remove(&address);
            }
        }
        for rival in to_ask {
            if self.services.contains_key(&rival) {
                actions.extend(self.ask_service(&rival, now));
            }
        }
        if first_contact {
            // Whatever changed between this answer and the subscription.
            actions.extend(self.ask_service(name, now));
        }
        actions
    }

    /// A node itself, by its NsIPs. The cluster tells of it again, unasked, when it is reached elsewhere.
    fn learn_node(&mut self, table: Table, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for (address, entry) in table.addresses {
            publish(&mut self.published, &mut actions, address, entry, now);
        }
        actions
    }

    fn learn_nobody(&mut self, address: IpAddr, now: Instant) -> Vec<Action> {
        let policy = match self.owners.remove(&address).and_then(|name| self.services.get_mut(&name)) {
            Some(service) => service.addresses.remove(&address),
            None => None,
        };
        // The next packet asks for the address, and not for one of them.
        drop(self.rivals.released(address));
        let mut actions = Vec::new();
        let entry = Entry::empty(policy.unwrap_or(Policy::Instance));
        publish(&mut self.published, &mut actions, address, entry, now);
        actions
    }

    /// Makes the service one of interest.
    fn keep(&mut self, name: &ServiceName, now: Instant) -> Vec<Action> {
        if self.services.contains_key(name) {
            return Vec::new();
        }
        let service = Service {
            local: BTreeSet::new(),
            last_used: now,
            addresses: BTreeMap::new(),
            instances: BTreeMap::new(),
            answer: None,
        };
        self.services.insert(name.clone(), service);
        self.pending.is_connected().then(|| Action::Subscribe(name.clone())).into_iter().collect()
    }

    fn ask_service(&mut self, name: &ServiceName, now: Instant) -> Vec<Action> {
        self.pending.ask(Key::Service(name.clone()), now).into_iter().map(Action::Query).collect()
    }

    /// When [`Resolver::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let of_published = |published: &Published| [published.expires, published.retry];
        let published = self.published.values().flat_map(of_published).flatten().min();
        [published, self.pending.deadline()].into_iter().flatten().min()
    }

    /// Asks again what was not answered, publishes again what was refused, forgets negative answers that have had
    /// their time.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        let expired: Vec<_> = self
            .published
            .iter()
            .filter(|(_, published)| published.expires.is_some_and(|expires| expires <= now))
            .map(|(address, _)| *address)
            .collect();
        for address in &expired {
            self.published.remove(address);
        }
        let mut actions: Vec<_> = expired.into_iter().map(Action::Withdraw).collect();
        for (address, published) in &mut self.published {
            if published.retry.is_some_and(|retry| retry <= now) {
                actions.push(published.again(*address, now));
            }
        }
        let services = &self.services;
        let due = self.pending.due(now, |name| services.contains_key(name));
        actions.extend(due.into_iter().map(Action::Query));
        actions
    }

    /// Whether a sweep could end an interest, so that nobody lists all flows for nothing.
    #[must_use]
    pub fn may_sweep(&self, now: Instant) -> bool {
        self.services.values().any(|service| service.is_idle(now) && service.local.is_empty())
    }

    /// Ends the interest in services that nothing here has used for [`IDLE`]. `used` tells of an address whether a
    /// flow to it needs it.
    pub fn sweep(&mut self, used: impl Fn(IpAddr) -> bool, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.services.retain(|name, service| {
            if !service.local.is_empty() || service.addresses.keys().any(|address| used(*address)) {
                service.last_used = now;
            }
            if !service.is_idle(now) {
                return true;
            }
            self.rivals.named(name, &BTreeSet::new());
            for address in service.addresses.keys() {
                self.owners.remove(address);
                drop(self.rivals.released(*address));
                if self.published.remove(address).is_some() {
                    actions.push(Action::Withdraw(*address));
                }
            }
            actions.push(Action::Unsubscribe(name.clone()));
            actions.push(Action::RemoveInterest(name.clone()));
            false
        });
        actions
    }

    /// The last answers, to be given to [`Resolver::answered`] after a restart.
    pub fn answers(&self) -> impl Iterator<Item = &TableResult> {
        self.services.values().filter_map(|service| service.answer.as_ref())
    }

    /// Each address that the data plane holds as it is here, its service where that is known, and what is behind it.
    pub fn published(&self) -> impl Iterator<Item = (IpAddr, Option<&ServiceName>, &Entry)> {
        let held = self.published.iter().filter(|(_, it)| it.retry.is_none());
        held.map(|(address, it)| (*address, self.owners.get(address), &it.entry))
    }
}

#[cfg(test)]
mod tests;
