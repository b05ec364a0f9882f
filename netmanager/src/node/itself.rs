//! The node's own processes: they speak to services through a link of their own, under an NsIP that no container has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use protocol::net::NodeItself;
use protocol::topic::NodeTopic;
use tokio::time::Instant;

use super::Node;
use crate::datapath::Endpoint;
use crate::error::chain;
use crate::ipam::Block6;
use crate::net::{Connected, NetError, OwnWiring};
use crate::plane::PlaneError;

/// After a failure, until it is tried again: a try is itself a change of links, of which the kernel tells.
const RETRY: Duration = Duration::from_secs(10);

/// How it stands with the way of the node's own processes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Itself {
    /// There is no block yet.
    Absent,
    Failed {
        retry: Instant,
    },
    Connected {
        ns_ip: Ipv4Addr,
        /// Nothing where the node has no IPv6.
        ns_ip6: Option<Ipv6Addr>,
    },
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the link of the node itself")]
    Links(#[source] NetError),
    #[error("enter the node itself into the data plane")]
    Datapath(#[source] PlaneError),
    #[error("{0} is in use by a container of an earlier version; it is free when that has ended")]
    Taken(Ipv4Addr),
}

impl Node {
    /// Lets the node's own processes speak to services. What is so already stays as it is. A failure is logged: containers
    /// do without.
    pub(super) async fn connect_itself(&mut self) {
        let Some(ns_ip) = self.pool.as_ref().map(|pool| pool.block().itself()) else { return };
        match self.set_up_itself(ns_ip).await {
            Ok(Connected { ns_ip6, .. }) => {
                tracing::info!(address = %ns_ip, address_v6 = ?ns_ip6, "the node's own processes reach services");
                self.itself = Itself::Connected { ns_ip, ns_ip6 };
                self.announce_itself();
            }
            Err(failure) => {
                tracing::error!(
                    error = chain(&failure),
                    "the node's own processes do not reach services; trying again"
                );
                self.itself = Itself::Failed { retry: Instant::now() + RETRY };
            }
        }
    }

    async fn set_up_itself(&mut self, ns_ip: Ipv4Addr) -> Result<Connected, Failure> {
        if self.state.endpoints.iter().any(|attachment| attachment.ns_ip == ns_ip) {
            return Err(Failure::Taken(ns_ip));
        }
        let block6 = self.state.subnet6.and_then(|first| Block6::new(first).ok());
        let wiring =
            self.own_wiring(ns_ip, block6.map(|block| block.beside(ns_ip))).map_err(Failure::Datapath)?;
        let connected = self.links.connect_itself(&wiring).await.map_err(Failure::Links)?;
        let Connected { ifindex, ns_ip6 } = connected;
        let endpoint = Endpoint {
            ns_ip,
            ns_ip6,
            instance_ip: Some(ns_ip),
            instance_ip6: ns_ip6,
            ifindex,
            mac: wiring.mac,
            gateway_mac: wiring.gateway_mac,
        };
        self.datapath.attach_node_itself(&endpoint).map_err(Failure::Datapath)?;
        Ok(connected)
    }

    fn own_wiring(&self, ns_ip: Ipv4Addr, ns_ip6: Option<Ipv6Addr>) -> Result<OwnWiring, PlaneError> {
        let services = self.state.plan.service_network();
        Ok(OwnWiring::new(ns_ip, ns_ip6, self.inner_mtu()?, services).leaving(self.left_to_nic))
    }

    /// Puts right what somebody has changed of the link, its addresses and its routes.
    pub(super) async fn reconcile_itself(&mut self) {
        let (ns_ip, ns_ip6) = match self.itself {
            Itself::Absent => return,
            Itself::Failed { retry } => {
                if retry <= Instant::now() {
                    self.connect_itself().await;
                }
                return;
            }
            Itself::Connected { ns_ip, ns_ip6 } => (ns_ip, ns_ip6),
        };
        let Ok(wiring) = self.own_wiring(ns_ip, ns_ip6) else { return };
        match self.links.is_itself_connected(&wiring).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!("the link of the node itself is not as it was made; repairing");
                self.forget_nic_without_own_link().await;
                self.connect_itself().await;
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot tell whether the node itself is connected")
            }
        }
    }

    /// Tells the cluster where the node's own processes are reached, so that other nodes find out whom to answer.
    pub(super) fn announce_itself(&self) {
        let (Some(cluster), Itself::Connected { ns_ip, ns_ip6 }) = (&self.cluster, self.itself) else {
            return;
        };
        let itself = NodeItself {
            nsip: ns_ip,
            nsipv6: ns_ip6,
            host_port: self.config.public_port,
            host_ip: self.advertised(),
            links: self.offered(),
        };
        cluster.session.publish(NodeTopic::NodeItself, &itself);
    }

    /// Whether this is the NsIP of a container of this node, or of the node itself.
    pub(super) fn is_here(&self, ns_ip: IpAddr) -> bool {
        let itself = match self.itself {
            Itself::Connected { ns_ip, ns_ip6 } => Some((ns_ip, ns_ip6)),
            Itself::Absent | Itself::Failed { .. } => None,
        };
        let containers = self.state.endpoints.iter().map(|attachment| (attachment.ns_ip, attachment.ns_ip6));
        containers
            .chain(itself)
            .any(|(v4, v6)| ns_ip == IpAddr::V4(v4) || v6.is_some_and(|v6| ns_ip == IpAddr::V6(v6)))
    }
}
