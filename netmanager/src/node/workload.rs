//! Containers: connected, named, disconnected.

use std::net::Ipv4Addr;
use std::time::Duration;

use netmanager_common::tunnel::INNER_MTU;
use protocol::id::Id;
use protocol::name::InstanceName;
use protocol::net::{Attach, Attached, Detach, ServiceDeployed, ServiceUndeployed};
use protocol::topic::NodeTopic;
use tokio::time::Instant;

use super::{Node, Reply, Unnamed, answer, now};
use crate::datapath::Endpoint;
use crate::error::chain;
use crate::ipam::{Block6, CAPACITY, Pool};
use crate::listening::{self, Listener};
use crate::net::{NetError, Netns, Wiring, Wiring6, sysctl};
use crate::nft::NftError;
use crate::plane::PlaneError;
use crate::ports::{self, HostPort, InvalidMappings, PortMapping};
use crate::report::SessionState;
use crate::state::{Attachment, Former, StateError};
use crate::table::OwnAddress;

/// How long an attached container waits for its ServiceIP, so that its first packet finds everything in place.
const NAMING: Duration = Duration::from_secs(1);

/// Why a request is not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("this node is not registered yet: POST /register first (node-engine does so when it starts)")]
    NotRegistered,
    #[error("this node is registered as {known}, not as {id}; `netmanager cleanup` makes it forget that")]
    OtherId { known: Id, id: Id },
    #[error("cluster_address: neither the request nor ClusterUrl in netcfg.json says where the cluster is")]
    NoCluster,
    #[error("{field}: expected {expected}")]
    Field { field: &'static str, expected: &'static str },
    #[error("portMappings")]
    Mappings(#[from] InvalidMappings),
    #[error("portMappings: {port} of this node already leads to {holder}")]
    PortTaken { port: HostPort, holder: InstanceName },
    #[error("portMappings: {listener} listens on {port} of this node")]
    PortInUse { port: HostPort, listener: Listener },
    #[error("all {CAPACITY} container addresses of this node are in use")]
    Full,
    #[error(
        "no block of addresses from the cluster's broker at {broker} yet: {reason}; netmanager keeps trying"
    )]
    NoBlock { broker: String, reason: String },
    #[error("connect {instance}")]
    Links { instance: InstanceName, source: NetError },
    #[error("enter {instance} into the data plane")]
    Datapath { instance: InstanceName, source: PlaneError },
    #[error("the firewall's rules")]
    Rules(#[source] NftError),
    #[error("keep the node's state")]
    State(#[source] StateError),
}

impl Node {
    pub(super) async fn attach(&mut self, request: Attach, reply: Reply<Attached>) {
        let started = Instant::now();
        let instance = InstanceName { service: request.service_name, number: request.instance_number };
        let (pid, port_mappings) = (request.pid, request.port_mappings);
        let attached = match self.connect(&instance, pid, &port_mappings).await {
            Ok(attached) => attached,
            Err(refusal) => {
                tracing::warn!(%instance, pid, error = chain(&refusal), "workload refused");
                return answer(reply, Err(refusal));
            }
        };
        let took_ms = started.elapsed().as_millis();
        let (address, address_v6) = (attached.ns_address, &attached.ns_address_v6);
        tracing::info!(%instance, pid, %address, address_v6, took_ms, "workload attached");
        // First to listen, then to say what all listeners are told of.
        let actions = self.resolver.attached(&instance.service, instance.number, now());
        self.carry_out(actions);
        if let Some(attachment) = self.state.endpoint(&instance) {
            self.announce(attachment);
        }
        let up = self.cluster.as_ref().is_some_and(|it| matches!(it.state, SessionState::Up { .. }));
        if up && self.state.endpoint(&instance).is_some_and(|it| it.instance_ip.is_none()) {
            self.unnamed.push(Unnamed { instance, attached, deadline: Instant::now() + NAMING, reply });
        } else {
            answer(reply, Ok(attached));
        }
    }

    async fn connect(
        &mut self,
        instance: &InstanceName,
        pid: i32,
        port_mappings: &str,
    ) -> Result<Attached, Refusal> {
        let ports = ports::parse(port_mappings)?;
        let links_failed = |source| Refusal::Links { instance: instance.clone(), source };
        let mtu = self.container_mtu(instance)?;
        let pool = self.pool.as_mut().ok_or(Refusal::NotRegistered)?;
        let taken = self.state.endpoints.iter().find_map(|other| other.conflict(instance, &ports));
        if let Some((port, holder)) = taken {
            return Err(Refusal::PortTaken { port, holder });
        }
        let before = self.state.endpoint(instance).cloned();
        let held = before.as_ref().map_or(&[][..], |before| &before.ports);
        refuse_listened_on(&ports, held)?;
        let netns = Netns::of_process(pid).map_err(links_failed)?;
        let former = self.state.former.iter().find(|former| former.instance == *instance);
        let ns_ip = match (&before, former) {
            (Some(before), _) => before.ns_ip,
            (None, Some(former)) if pool.take(former.ns_ip) => former.ns_ip,
            (None, _) => pool.allocate().ok_or(Refusal::Full)?,
        };
        let gateway = pool.block().gateway();
        let wiring =
            Wiring::new(instance, ns_ip, gateway, self.wiring6(ns_ip), mtu).leaving(self.left_to_nic);
        let own = self.resolver.own_address(&instance.service, instance.number);
        let own = own.or_else(|| before.as_ref().and_then(Attachment::own_address));
        let attachment = Attachment {
            instance: instance.clone(),
            pid,
            netns: netns.inode(),
            link: wiring.link.clone(),
            ifindex: 0,
            ns_ip,
            ns_ip6: None,
            instance_ip: own.map(|own| own.v4),
            instance_ip6: own.and_then(|own| own.v6),
            mac: wiring.mac,
            gateway_mac: wiring.gateway_mac,
            ports,
        };
        match self.set_up(attachment.clone(), &wiring, &netns).await {
            Ok(()) => {
                self.undeployed.retain(|gone| gone != instance);
                let ns_ip6 = self.state.endpoint(instance).and_then(|attachment| attachment.ns_ip6);
                self.tell_without_ipv6(instance, ns_ip6.is_some());
                Ok(Attached {
                    service_name: instance.service.clone(),
                    ns_address: ns_ip,
                    ns_address_v6: ns_ip6.map(|address| address.to_string()).unwrap_or_default(),
                })
            }
            Err(refusal) => {
                self.take_down(&attachment).await;
                Err(refusal)
            }
        }
    }

    /// The IPv6 addresses that go with a container's; nothing while the node has no IPv6 block.
    pub(super) fn wiring6(&self, ns_ip: Ipv4Addr) -> Option<Wiring6> {
        let block = Block6::new(self.state.subnet6?).ok()?;
        Some(Wiring6 { ns_ip: block.beside(ns_ip), gateway: block.gateway() })
    }

    /// That is nothing to repair, so it is said of the first container only.
    fn tell_without_ipv6(&mut self, instance: &InstanceName, has_ipv6: bool) {
        if !has_ipv6 && !std::mem::replace(&mut self.told_without_ipv6, true) {
            let reason = if self.state.subnet6.is_none() {
                "the cluster has given this node no IPv6 block"
            } else {
                "its network namespace has no IPv6 (disable_ipv6, a kernel without it, or an MTU below 1280)"
            };
            tracing::info!(%instance, reason, "the container has IPv4 only; of others like it this is not said again");
        }
    }

    /// The MTU of a container's link: the largest packet that the tunnel carries on this uplink.
    pub(super) fn container_mtu(&self, instance: &InstanceName) -> Result<u16, Refusal> {
        self.inner_mtu().map_err(|source| Refusal::Datapath { instance: instance.clone(), source })
    }

    pub(super) fn inner_mtu(&self) -> Result<u16, PlaneError> {
        Ok(self.datapath.node()?.map_or(INNER_MTU, |node| node.inner_mtu))
    }

    pub(super) async fn set_up(
        &mut self,
        mut attachment: Attachment,
        wiring: &Wiring,
        netns: &Netns,
    ) -> Result<(), Refusal> {
        let instance = attachment.instance.clone();
        let connected = self.links.connect(wiring, netns).await;
        let connected = connected.map_err(|source| Refusal::Links { instance: instance.clone(), source })?;
        attachment.ifindex = connected.ifindex;
        attachment.ns_ip6 = connected.ns_ip6;
        if !attachment.ports.is_empty()
            && let Err(error) = sysctl::let_loopback_out(&wiring.link)
        {
            let error = chain(&error);
            tracing::warn!(%instance, error, "its host ports are not reached under 127.0.0.1");
        }
        self.datapath
            .attach_endpoint(&attachment.endpoint())
            .map_err(|source| Refusal::Datapath { instance: instance.clone(), source })?;
        let ports_before = self.state.endpoint(&instance).map(|it| it.ports.clone()).unwrap_or_default();
        let rules_change = ports_before != attachment.ports;
        self.state.endpoints.retain(|other| other.instance != instance);
        self.state.former.retain(|former| former.ns_ip != attachment.ns_ip && former.instance != instance);
        self.state.endpoints.push(attachment);
        if rules_change {
            self.apply_rules().await?;
        }
        self.save()
    }

    /// Takes a container out of everything, as far as it is in it. What fails is logged and does not stop the rest.
    pub(super) async fn take_down(&mut self, attachment: &Attachment) {
        let Attachment { instance, link, ns_ip, .. } = attachment;
        // The link first: without the program on it, whatever still runs in the container could send as anybody.
        if let Err(error) = self.links.remove(link).await {
            tracing::error!(%instance, link, error = chain(&error), "link stays");
        }
        if let Err(error) = self.datapath.detach_endpoint(*ns_ip) {
            tracing::error!(%instance, %ns_ip, error = chain(&error), "endpoint stays in the data plane");
        }
        let had_ports = self.state.endpoint(instance).is_some_and(|it| !it.ports.is_empty());
        self.state.endpoints.retain(|other| other.instance != *instance);
        if had_ports && let Err(error) = self.apply_rules().await {
            tracing::error!(%instance, error = chain(&error), "host ports stay");
        }
        if let Some(pool) = &mut self.pool {
            pool.release(*ns_ip);
            self.state.former.retain(|former| former.ns_ip != *ns_ip && former.instance != *instance);
            self.state.former.push(Former { instance: instance.clone(), ns_ip: *ns_ip });
        }
        // Logged where it fails; the next operation writes it again.
        self.save().ok();
    }

    /// Of an instance that is not here, nothing.
    pub(super) async fn detach(&mut self, request: &Detach) -> Result<(), Refusal> {
        if self.state.id.is_none() {
            return Err(Refusal::NotRegistered);
        }
        let instance =
            InstanceName { service: request.service_name.clone(), number: request.instance_number };
        let Some(attachment) = self.state.endpoint(&instance).cloned() else { return Ok(()) };
        self.take_down(&attachment).await;
        tracing::info!(%instance, address = %attachment.ns_ip, "workload detached");
        let actions = self.resolver.detached(&instance.service, instance.number, attachment.ns_ip, now());
        self.carry_out(actions);
        self.undeployed.push(instance);
        self.announce_undeployed();
        Ok(())
    }

    /// The cluster told (or changed) the ServiceIPs of an instance that runs here.
    pub(super) fn identify(&mut self, instance: &InstanceName, own: OwnAddress) {
        let known = self.state.endpoints.iter_mut().find(|other| other.instance == *instance);
        let Some(attachment) = known.filter(|it| it.own_address() != Some(own)) else { return };
        attachment.instance_ip = Some(own.v4);
        attachment.instance_ip6 = own.v6;
        let endpoint = attachment.endpoint();
        tracing::info!(%instance, service_ip = %own.v4, service_ip6 = ?own.v6, "workload has its ServiceIP");
        if let Err(error) = self.datapath.attach_endpoint(&endpoint) {
            tracing::error!(%instance, error = chain(&error), "the data plane does not take its ServiceIP");
        }
        self.settled(endpoint.ns_ip.into());
        if let Some(ns_ip6) = endpoint.ns_ip6 {
            self.settled(ns_ip6.into());
        }
        // Logged where it fails; the next operation writes it again.
        self.save().ok();
        self.answer_unnamed(Instant::now());
    }

    /// Tells those who wait that their container is ready, as soon as it has its ServiceIP or has waited long enough.
    pub(super) fn answer_unnamed(&mut self, moment: Instant) {
        for unnamed in std::mem::take(&mut self.unnamed) {
            let endpoint = self.state.endpoint(&unnamed.instance);
            let named = endpoint.is_none_or(|endpoint| endpoint.instance_ip.is_some());
            if named || unnamed.deadline <= moment {
                answer(unnamed.reply, Ok(unnamed.attached));
            } else {
                self.unnamed.push(unnamed);
            }
        }
    }

    /// Tells the cluster where an instance is reached.
    pub(super) fn announce(&self, attachment: &Attachment) {
        let Some(cluster) = &self.cluster else { return };
        // Oakestra's workers refuse an instance without a valid IPv6 address. This one is no container's.
        let none = || attachment.ns_ip.to_ipv6_mapped();
        let deployed = ServiceDeployed {
            appname: attachment.instance.service.clone(),
            status: "DEPLOYED".to_owned(),
            instance_number: attachment.instance.number,
            nsip: attachment.ns_ip,
            nsipv6: attachment.ns_ip6.unwrap_or_else(none).to_string(),
            host_port: self.config.public_port,
            host_ip: self.advertised(),
            links: self.offered(),
        };
        cluster.session.publish(NodeTopic::ServiceDeployed, &deployed);
    }

    /// Tells the cluster where every instance of this node is reached, and the node itself.
    pub(super) fn announce_all(&self) {
        self.announce_itself();
        for attachment in &self.state.endpoints {
            self.announce(attachment);
        }
    }

    /// Tells the cluster which instances are gone, once it can be told.
    pub(super) fn announce_undeployed(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        if !matches!(cluster.state, SessionState::Up { .. }) {
            return;
        }
        for instance in self.undeployed.drain(..) {
            let undeployed = ServiceUndeployed {
                appname: instance.service,
                status: "UNDEPLOYED".to_owned(),
                instance_number: instance.number,
            };
            cluster.session.publish(NodeTopic::ServiceUndeployed, &undeployed);
        }
    }
}

/// Refuses a port that a process of the node listens on, but for those that are `held` by rules already: who has come
/// to listen there since has never heard anything.
fn refuse_listened_on(ports: &[PortMapping], held: &[PortMapping]) -> Result<(), Refusal> {
    for port in ports.iter().map(|mapping| mapping.host_port()) {
        if held.iter().any(|mapping| mapping.host_port() == port) {
            continue;
        }
        match listening::on(port) {
            Ok(None) => {}
            Ok(Some(listener)) => return Err(Refusal::PortInUse { port, listener }),
            Err(error) => tracing::warn!(%port, %error, "cannot tell whether a process listens on this port"),
        }
    }
    Ok(())
}

impl Attachment {
    fn own_address(&self) -> Option<OwnAddress> {
        Some(OwnAddress { v4: self.instance_ip?, v6: self.instance_ip6 })
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint {
            ns_ip: self.ns_ip,
            ns_ip6: self.ns_ip6,
            instance_ip: self.instance_ip,
            instance_ip6: self.instance_ip6,
            ifindex: self.ifindex,
            mac: self.mac,
            gateway_mac: self.gateway_mac,
        }
    }

    /// The port that this container holds and `instance` asks for.
    fn conflict(&self, instance: &InstanceName, ports: &[PortMapping]) -> Option<(HostPort, InstanceName)> {
        if self.instance == *instance {
            return None;
        }
        let held = |port: &HostPort| self.ports.iter().any(|mapping| mapping.host_port() == *port);
        let port = ports.iter().map(|mapping| mapping.host_port()).find(held)?;
        Some((port, self.instance.clone()))
    }
}

impl crate::state::Node {
    pub(super) fn endpoint(&self, instance: &InstanceName) -> Option<&Attachment> {
        self.endpoints.iter().find(|attachment| attachment.instance == *instance)
    }

    /// The pool as this state leaves it.
    pub(super) fn pool(&self) -> Option<Pool> {
        let block = crate::ipam::Block::new(self.subnet?, &self.plan).ok()?;
        let taken: Vec<_> = self.endpoints.iter().map(|attachment| attachment.ns_ip).collect();
        Some(Pool::restore(block, &self.free, &taken))
    }
}
