//! Between the resolver, the session and the data plane.

use std::net::IpAddr;
use std::time::SystemTime;

use netmanager_common::map::MAX_BACKENDS_PER_SERVICE;
use protocol::name::InstanceName;
use protocol::net::{InterestRemove, TableResult};
use protocol::topic::{NodeTopic, updates_available};
use tokio::time::Instant;

use super::{Node, TABLES_DELAY, now};
use crate::datapath::Backend;
use crate::error::chain;
use crate::report::SessionState;
use crate::resolver::Action;
use crate::session::Event;
use crate::table::Table;

impl Node {
    pub(super) async fn event(&mut self, event: Event) {
        match event {
            Event::Up => self.session_up(),
            Event::Down { reason } => self.session_down(reason),
            Event::Subnet(result) => self.block_given(&result).await,
            Event::Table(result) => {
                self.tell_of_rejected(&result);
                let actions = self.resolver.answered(result, now());
                self.tables_due.get_or_insert(Instant::now() + TABLES_DELAY);
                self.carry_out(actions);
            }
            Event::Peers(peers) => self.measure_peers(peers),
            Event::Changed { subject, table: None } => {
                let actions = self.resolver.changed(&subject, now());
                self.carry_out(actions);
            }
            Event::Changed { subject, table: Some(table) } => {
                self.tell_of_rejected(&table);
                let actions = self.resolver.told(&subject, *table, now());
                self.tables_due.get_or_insert(Instant::now() + TABLES_DELAY);
                self.carry_out(actions);
            }
        }
    }

    fn tell_of_rejected(&self, table: &TableResult) {
        for (instance, reason) in Table::read(table, &self.state.plan).rejected {
            tracing::warn!(service = table.app_name, instance, %reason, "instance left out of the table");
        }
    }

    /// The cluster may have forgotten everything, and we may have missed anything.
    fn session_up(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.state = SessionState::Up { since: SystemTime::now() };
            tracing::info!(broker = cluster.session.target().host, "connected to the cluster");
        }
        if self.pool.is_none() {
            self.ask_for_block();
        }
        let actions = self.resolver.connected(now());
        let (queries, subscriptions): (Vec<_>, Vec<_>) =
            actions.into_iter().partition(|action| matches!(action, Action::Query(_)));
        self.carry_out(subscriptions);
        self.announce_all();
        self.announce_undeployed();
        let measured = self.round_trips.connected();
        self.tell_round_trips(&measured);
        self.carry_out(queries);
    }

    fn session_down(&mut self, reason: String) {
        self.resolver.disconnected();
        self.round_trips.disconnected();
        let Some(cluster) = &mut self.cluster else { return };
        cluster.subnet_due = None;
        // Once per outage, not at each try.
        if !matches!(cluster.state, SessionState::Down { .. }) {
            let broker = &cluster.session.target().host;
            tracing::warn!(broker, reason, "no connection to the cluster; trying again until there is");
            cluster.state = SessionState::Down { since: SystemTime::now(), reason };
        } else if let SessionState::Down { reason: last, .. } = &mut cluster.state {
            *last = reason;
        }
    }

    /// Packets that wait for this address may go on.
    pub(super) fn settled(&self, address: IpAddr) {
        if let Some(slow_path) = &self.slow_path {
            slow_path.settled(address);
        }
    }

    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Subscribe(name) => {
                    if let Some(cluster) = &self.cluster {
                        cluster.session.subscribe(updates_available(name));
                    }
                }
                Action::Unsubscribe(name) => {
                    if let Some(cluster) = &self.cluster {
                        cluster.session.unsubscribe(updates_available(name));
                    }
                }
                Action::RemoveInterest(name) => {
                    tracing::info!(service = %name, "service is not used here any more");
                    self.tables_due.get_or_insert(Instant::now() + TABLES_DELAY);
                    if let Some(cluster) = &self.cluster {
                        let remove = InterestRemove { appname: name.to_string() };
                        cluster.session.publish(NodeTopic::InterestRemove, &remove);
                    }
                }
                Action::Query(query) => {
                    tracing::debug!(sname = query.sname, sip = query.sip, "asking for a table");
                    if let Some(cluster) = &self.cluster {
                        cluster.session.publish(NodeTopic::TableQuery, &query);
                    }
                }
                Action::Wrap(node, links) => self.wrap(node, links),
                Action::Publish(address, mut entry) => {
                    let is_here = |backend: &Backend| {
                        self.state.endpoints.iter().any(|attachment| attachment.ns_ip == backend.ns_ip)
                    };
                    let known = entry.backends.len();
                    entry.backends = entry.at_most(MAX_BACKENDS_PER_SERVICE, self.uplink.address, is_here);
                    entry.leaving.truncate(MAX_BACKENDS_PER_SERVICE - entry.backends.len());
                    let (used, leaving, busy) = (entry.backends.len(), entry.leaving.len(), entry.busy.len());
                    tracing::debug!(%address, known, used, leaving, busy, "service published");
                    self.find_ways(&entry.backends);
                    self.tell_of_instances(address, &entry.backends);
                    match self.balance.publish(&mut self.datapath, address, entry) {
                        Ok(()) => {
                            if self.resolver.accepted(address) {
                                tracing::info!(%address, "service is published after all");
                            }
                            self.settled(address);
                        }
                        // Once per address, not at each try.
                        Err(error) if self.resolver.refused(address, now()) => {
                            let error = chain(&error);
                            tracing::error!(%address, error, "service is not published; trying again until it is");
                        }
                        Err(error) => tracing::debug!(%address, error = chain(&error), "still not published"),
                    }
                }
                Action::Withdraw(address) => {
                    if let Err(error) = self.balance.withdraw(&mut self.datapath, address) {
                        tracing::error!(%address, error = chain(&error), "service is not withdrawn");
                    }
                }
                Action::Identify { service, number, own } => {
                    self.identify(&InstanceName { service, number }, own);
                }
                Action::Contested { address, holder, rival } => {
                    tracing::warn!(%address, %holder, %rival,
                        "two services have the same address; who has had it last keeps it until one gives it up");
                }
            }
        }
    }
}
