//! Which node this is, where its cluster is, and its block of addresses.

use std::net::Ipv6Addr;
use std::time::Duration;

use protocol::net::{Register, SubnetRequest, SubnetResult};
use protocol::plan::Plan;
use protocol::topic::NodeTopic;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Cluster, Itself, Node, Refusal, Reply, answer};
use crate::clash;
use crate::config::is_host;
use crate::error::chain;
use crate::ipam::{Block, Block6, Pool};
use crate::net::sysctl;
use crate::nft;
use crate::plane::PlaneError;
use crate::report::SessionState;
use crate::session::{Session, Target};
use crate::state::StateError;

/// How long `/register` waits for the node's block of addresses.
pub const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Oakestra's root gives another block for each request, so it is not asked often; but within the time of each
/// registration, with time left for the answer.
const SUBNET_RETRY: Duration = Duration::from_secs(5);

impl Node {
    /// Answered when the block is known, or after [`REGISTER_TIMEOUT`]. The node keeps trying after that.
    pub(super) async fn register(&mut self, request: &Register, reply: Reply<()>) {
        match self.accept(request) {
            Err(refusal) => answer(reply, Err(refusal)),
            Ok(()) if self.pool.is_none() => {
                self.registrations.push((Instant::now() + REGISTER_TIMEOUT, reply));
            }
            Ok(()) => {
                let ready = self.apply_rules().await;
                answer(reply, ready);
            }
        }
    }

    fn accept(&mut self, request: &Register) -> Result<(), Refusal> {
        let expected = "24 hexadecimal digits";
        let id =
            request.client_id.parse().map_err(|_no_id| Refusal::Field { field: "client_id", expected })?;
        if let Some(known) = self.state.id.filter(|known| *known != id) {
            if !self.state.endpoints.is_empty() {
                return Err(Refusal::OtherId { known, id });
            }
            // Nothing depends on it: the node joined another cluster, or anew, or its cluster has forgotten it meanwhile.
            tracing::info!(%known, %id, "node has another id now; its block is given up");
            self.state.subnet = None;
            self.state.subnet6 = None;
            self.state.former.clear();
            self.pool = None;
            self.itself = Itself::Absent;
        }
        let asked =
            Some(request.cluster_address.trim()).filter(|host| !host.is_empty() && *host != "0.0.0.0");
        if asked.is_some_and(|host| !is_host(host)) {
            let expected = "the cluster's host name or address, without scheme and port";
            return Err(Refusal::Field { field: "cluster_address", expected });
        }
        let remembered = || self.state.cluster.clone().filter(|_| self.state.id == Some(id));
        let configured = || self.config.cluster.clone();
        let host = asked.map(ToOwned::to_owned).or_else(configured).or_else(remembered);
        let host = host.ok_or(Refusal::NoCluster)?;
        if self.state.id != Some(id) || self.state.cluster.as_ref() != Some(&host) {
            self.state.id = Some(id);
            self.state.cluster = Some(host);
            self.save()?;
        }
        self.connect_to_cluster();
        Ok(())
    }

    /// Starts the session that the state asks for, unless it runs.
    pub(super) fn connect_to_cluster(&mut self) {
        let (Some(node), Some(host)) = (self.state.id, self.state.cluster.clone()) else { return };
        let target = Target { node, host, port: self.config.cluster_mqtt_port };
        if self.cluster.as_ref().is_some_and(|cluster| *cluster.session.target() == target) {
            return;
        }
        tracing::info!(%node, broker = format!("{}:{}", target.host, target.port), "connecting to the cluster");
        self.resolver.disconnected();
        let (sender, events) = mpsc::channel(256);
        let (session, task) = Session::new(target, sender, self.stop.child_token());
        self.tasks.spawn(task);
        let state = SessionState::Connecting;
        self.cluster = Some(Cluster { session, events, state, subnet_due: None });
    }

    pub(super) fn ask_for_block(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.session.publish(NodeTopic::Subnet, &SubnetRequest { method: "GET".to_owned() });
        cluster.subnet_due = Some(Instant::now() + SUBNET_RETRY);
    }

    pub(super) fn ask_for_block_again(&mut self, moment: Instant) {
        let due = self.cluster.as_ref().and_then(|cluster| cluster.subnet_due);
        if due.is_some_and(|due| due <= moment) {
            tracing::warn!("the cluster did not answer the request for a block of addresses; asking again");
            self.ask_for_block();
        }
    }

    /// The first answer counts: a later one may be another block, meant for a request that was thought lost.
    pub(super) async fn block_given(&mut self, result: &SubnetResult) {
        if let Some(cluster) = &mut self.cluster {
            cluster.subnet_due = None;
        }
        if self.pool.is_some() {
            return;
        }
        let block = match self.take_block(result).await {
            Ok(block) => block,
            Err(error) => {
                tracing::error!(error, "the cluster gave an unusable block of addresses");
                if let Some(cluster) = &mut self.cluster {
                    cluster.subnet_due = Some(Instant::now() + SUBNET_RETRY);
                }
                return;
            }
        };
        let block6 = block6(&result.addressv6);
        let (first, gateway) = (block.first(), block.gateway());
        tracing::info!(block = %first, %gateway, block6 = result.addressv6, "node has its blocks of addresses");
        self.warn_of_clashes().await;
        self.pool = Some(Pool::new(block));
        self.state.subnet = Some(first);
        self.state.subnet6 = block6;
        let saved = self.save();
        self.connect_itself().await;
        for (_, reply) in std::mem::take(&mut self.registrations) {
            let ready = match &saved {
                Ok(()) => self.apply_rules().await,
                Err(_) => self.save(),
            };
            answer(reply, ready);
        }
    }

    /// The block, if it can be used: the node follows its plan by then. Else why not.
    async fn take_block(&mut self, result: &SubnetResult) -> Result<Block, String> {
        let block = Block::new(result.address, &result.plan).map_err(|error| error.to_string())?;
        self.follow_plan(result.plan).await.map_err(|error| chain(&error))?;
        Ok(block)
    }

    /// Where somebody else has the overlay's addresses, containers do not reach them.
    async fn warn_of_clashes(&self) {
        let routes = self.links.routes().await.unwrap_or_default();
        for clash in clash::of_routes(&routes, &self.state.plan) {
            tracing::warn!(
                "{clash}: containers do not reach the machines there; {} give the overlay other addresses",
                clash::FLAGS
            );
        }
    }

    /// From the block on, addresses are told apart by the plan that it is of. No container is attached without a block.
    async fn follow_plan(&mut self, plan: Plan) -> Result<(), PlaneError> {
        if plan != self.state.plan {
            tracing::info!(%plan, "the overlay has other addresses than before");
            // Its route leads to where services were.
            if let Err(error) = self.links.disconnect_itself().await {
                tracing::warn!(error = chain(&error), "the link of the node itself is not taken away");
            }
            // Whatever was known has addresses that mean something else now.
            for service in self.datapath.services()? {
                self.balance.withdraw(&mut self.datapath, service.service_ip)?;
            }
            self.datapath.set_plan(plan)?;
            self.resolver.begin_anew(plan);
            self.state.plan = plan;
            self.save_tables();
        }
        Ok(())
    }

    pub(super) fn expire_registrations(&mut self, moment: Instant) {
        let waiting = std::mem::take(&mut self.registrations);
        for (deadline, reply) in waiting {
            if deadline > moment {
                self.registrations.push((deadline, reply));
                continue;
            }
            let reason = match self.cluster.as_ref().map(|cluster| &cluster.state) {
                Some(SessionState::Up { .. }) => "it is connected but did not answer".to_owned(),
                Some(SessionState::Down { reason, .. }) => reason.clone(),
                Some(SessionState::Connecting | SessionState::Unregistered) | None => {
                    "no connection yet".to_owned()
                }
            };
            let cluster = self.state.cluster.clone().unwrap_or_default();
            let port = self.config.cluster_mqtt_port;
            answer(reply, Err(Refusal::NoBlock { broker: format!("{cluster}:{port}"), reason }));
        }
    }

    /// Brings our nftables table to what the block and the attached containers ask for.
    pub(super) async fn apply_rules(&self) -> Result<(), Refusal> {
        let Some(pool) = &self.pool else { return Ok(()) };
        let forwards: Vec<_> = self
            .state
            .endpoints
            .iter()
            .flat_map(|endpoint| {
                let (ns_ip, ns_ip6) = (endpoint.ns_ip, endpoint.ns_ip6);
                endpoint.ports.iter().map(move |mapping| nft::Forward { mapping: *mapping, ns_ip, ns_ip6 })
            })
            .collect();
        nft::apply(pool.block(), &forwards).await.map_err(Refusal::Rules)?;
        if let Some(block) = self.state.subnet6.and_then(|first| Block6::new(first).ok())
            && sysctl::has_ipv6()
        {
            // Containers do without IPv6 rather than not at all.
            if let Err(error) = nft::apply6(block, &forwards).await {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "by IPv6 containers do not reach the world, and nobody their host ports"
                );
            }
            if let Err(error) = sysctl::enable_forwarding6() {
                tracing::warn!(error = chain(&error), "containers do not reach the world by IPv6");
            }
        }
        Ok(())
    }

    pub(super) fn save(&mut self) -> Result<(), Refusal> {
        self.write_state().map_err(|error| {
            tracing::error!(error = chain(&error), "the node's state is not saved");
            Refusal::State(error)
        })
    }

    pub(super) fn write_state(&mut self) -> Result<(), StateError> {
        if let Some(pool) = &self.pool {
            self.state.free = pool.order();
        }
        self.store.save_node(&self.state)
    }
}

/// The IPv6 block that the cluster gave, if it is one: a node without is one of IPv4 only.
fn block6(given: &str) -> Option<Ipv6Addr> {
    let first: Ipv6Addr = given.parse().ok()?;
    match Block6::new(first) {
        Ok(_) => Some(first),
        Err(error) => {
            tracing::error!(%error, "the cluster gave an unusable block of IPv6 addresses; containers have IPv4 only");
            None
        }
    }
}
