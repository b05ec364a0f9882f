//! Where this node is on the underlay may change while it runs: a lease gives another address, the default route moves
//! to another interface. The data plane and the other nodes must hear of it, or no packet arrives any more. Connections
//! outlive that: an instance stays what it is when its node is reached elsewhere.
//!
//! There may be several ways out. One interface, the uplink, gives the node its address; each other node is reached through
//! whichever the kernel's routes say, and packets are taken from all that may lead to nodes.
//!
//! The node sends from the uplink's own address and takes what comes to it. What it tells the others may be another
//! one, when a NAT on the way puts the one for the other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::{Node, now};
use crate::config::Config;
use crate::datapath::{Backend, Decapsulation, Place, Placement};
use crate::error::chain;
use crate::net::{Candidate, Egresses, NetError, Wish};
use crate::pathmtu::Heard;
use crate::{nft, state};

/// Links come and go often where containers do, and each look asks for the route to each node.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

impl Node {
    /// The address under which the other nodes reach this one.
    pub(super) fn advertised(&self) -> IpAddr {
        self.config.public_address.unwrap_or(self.uplink.address)
    }

    /// Without a NAT nothing would reach this node, and nothing that it sends would be taken.
    pub(super) fn warn_if_translated(&self) {
        let (advertised, uplink) = (self.advertised(), &self.uplink);
        if advertised != uplink.address {
            tracing::warn!(
                %advertised, address = %uplink.address, uplink = uplink.name,
                "other nodes are told NodePublicAddress, which is no address of the uplink: this needs a NAT that \
                 translates the one into the other both ways; without one, put the uplink's address or \"0.0.0.0\" \
                 into netcfg.json, or name another uplink with DefaultInterface"
            );
        }
    }

    /// A firewall in the way of containers does not keep the node from starting: the overlay works all the same.
    pub(super) async fn warn_of_dropping_chains(&self) {
        let dropping = nft::dropping_chains().await.unwrap_or_else(|error| {
            tracing::debug!(error = chain(&error), "cannot tell whether a firewall is in the way");
            Vec::new()
        });
        for chain in dropping {
            // As it is to be typed: a quoted field would have its quotes escaped.
            let remedy = chain.remedy();
            tracing::warn!(
                "the policy of chain {chain} drops what containers send to the world and what comes to host ports; \
                 to let it through: {remedy}"
            );
        }
    }

    /// The path to another node carries less than the uplink.
    pub(super) fn hear_of_path(&mut self, heard: Heard) {
        let Some(path_mtus) = &mut self.path_mtus else { return };
        if let Err(error) = path_mtus.hear(heard, &mut self.datapath, now()) {
            tracing::warn!(error = chain(&error), "the data plane is not told what a path carries");
        }
    }

    /// A path that carried less may carry more by now, and of a new one nothing is known.
    pub(super) fn tend_paths(&mut self, moment: Instant) {
        let Some(path_mtus) = &mut self.path_mtus else { return };
        if let Err(error) = path_mtus.tick(&mut self.datapath, moment.into_std()) {
            tracing::warn!(error = chain(&error), "the data plane is not told what a path may carry");
        }
    }

    /// Sees to it that the uplinks' packets are unwrapped where it is best, or where it is wanted.
    pub(super) fn place_decapsulation(&mut self) {
        let placements = match self.datapath.decapsulate(self.config.decapsulation) {
            Ok(placements) => placements,
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "cannot tell where the uplinks' packets are unwrapped"
                );
                return;
            }
        };
        for placement in placements.iter().filter(|placement| !self.placements.contains(placement)) {
            let Placement { interface, driver, place, why } = placement;
            let driver = driver.as_deref().unwrap_or("unknown");
            if self.config.decapsulation == Decapsulation::Xdp && *place == Place::Tc {
                tracing::warn!(uplink = interface, driver, %place, %why, "decapsulation is not where it is wanted");
            } else {
                tracing::info!(uplink = interface, driver, %place, %why, "decapsulation");
            }
        }
        self.placements = placements;
    }

    /// Before these are published: through which interfaces their nodes are reached, where that is not known yet.
    pub(super) fn find_ways(&mut self, backends: &[Backend]) {
        for node in backends.iter().map(|backend| backend.node.ip()) {
            if node == self.uplink.address || self.ways.contains_key(&node) {
                continue;
            }
            let Some(ifindex) = way(&self.egresses, node, self.uplink.address) else { continue };
            match self.datapath.set_egress(node, Some(ifindex)) {
                Ok(()) => drop(self.ways.insert(node, ifindex)),
                Err(error) => {
                    tracing::warn!(%node, error = chain(&error), "the data plane is not told the way to a node");
                }
            }
        }
    }

    /// At the first word of a change: through which interfaces other nodes are reached now. Over IPv6 the kernel does not insist on
    /// the interface that a program names, so that until then packets go nowhere. All else waits for [`Self::follow_uplink`].
    pub(super) fn follow_ways(&mut self) {
        if self.ways_seen.elapsed() < BETWEEN_LOOKS {
            return;
        }
        self.ways_seen = Instant::now();
        for (node, ifindex) in ways(&self.egresses, self.datapath.peers(), self.uplink.address) {
            let before = self.ways.get(&node).copied();
            if before == Some(ifindex) {
                continue;
            }
            if let Err(error) = self.datapath.set_egress(node, Some(ifindex)) {
                tracing::warn!(%node, error = chain(&error), "the data plane is not told the way to a node");
                continue;
            }
            if before.is_some() {
                tracing::info!(%node, ifindex, was = before, "the way to a node changed");
            }
            // Also if it had none for a while.
            self.wrap_anew(node);
            self.ways.insert(node, ifindex);
        }
    }

    /// Looks where the uplinks are now, and through which of them each other node is reached. While there is no uplink, the
    /// data plane keeps the last one: it may come back.
    pub(super) async fn follow_uplink(&mut self) {
        let wish = wish(&self.config, &self.state, Some(self.uplink.address));
        let found = async {
            let uplink = self.links.uplink(wish).await?;
            let others = self.links.other_uplinks(uplink.ifindex, uplink.address).await?;
            Ok::<_, NetError>((uplink, others))
        };
        let (uplink, others) = match found.await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(error = chain(&error), "the uplink cannot be told at this moment");
                return;
            }
        };
        let ways = ways(&self.egresses, self.datapath.peers(), uplink.address);
        if uplink == self.uplink && others == self.other_uplinks && ways == self.ways {
            return;
        }
        let indices: Vec<_> = others.iter().map(|other| other.ifindex).collect();
        if let Err(error) = self.datapath.set_uplinks(uplink.address, uplink.ifindex, &indices, &ways) {
            let error = chain(&error);
            tracing::error!(uplink = uplink.name, error, "the data plane does not follow the uplink");
            return;
        }
        self.tell_of_ways(&others, &ways);
        (self.other_uplinks, self.ways) = (others, ways);
        self.place_decapsulation();
        let before = std::mem::replace(&mut self.uplink, uplink.clone());
        self.tend_offer().await;
        if before == uplink {
            return;
        }
        let now = &uplink;
        if before.mtu != now.mtu {
            tracing::warn!(
                uplink = now.name,
                mtu = now.mtu,
                was_mtu = before.mtu,
                "the uplink's MTU changed"
            );
            self.resize_containers().await;
        }
        if before.ifindex != now.ifindex {
            self.trust_nic_again().await;
        }
        if (before.ifindex, before.address) != (now.ifindex, now.address) {
            tracing::warn!(
                uplink = now.name, address = %now.address, was = before.name, was_address = %before.address,
                "the uplink changed; the other nodes are told"
            );
            self.warn_if_translated();
            self.announce_all();
        }
        self.state.uplink = Some(uplink);
        // Logged where it fails; the next operation writes it again.
        self.save().ok();
    }

    fn tell_of_ways(&mut self, others: &[Candidate], ways: &BTreeMap<IpAddr, u32>) {
        if others != self.other_uplinks {
            let names: Vec<_> = others.iter().map(|other| other.name.as_str()).collect();
            tracing::info!(others = ?names, "interfaces where packets of other nodes may arrive beside the uplink");
        }
        for (node, ifindex) in ways {
            let before = self.ways.get(node).copied();
            if before == Some(*ifindex) {
                continue;
            }
            if before.is_some() {
                tracing::info!(%node, ifindex, was = before, "the way to a node changed");
            }
            self.wrap_anew(*node);
        }
    }
}

/// What says which interface is the uplink of this node.
pub(super) fn wish<'a>(config: &'a Config, state: &state::Node, current: Option<IpAddr>) -> Wish<'a> {
    let cluster = config.cluster.as_deref().or(state.cluster.as_deref());
    Wish {
        named: config.default_interface.as_deref(),
        public: config.public_address,
        current,
        // A name would have to be looked up, which without a way to anywhere takes long.
        towards: cluster.and_then(|host| host.parse().ok()),
    }
}

/// Through which interfaces these nodes are reached, as far as there is a route.
pub(super) fn ways(
    egresses: &Egresses,
    nodes: impl IntoIterator<Item = IpAddr>,
    own: IpAddr,
) -> BTreeMap<IpAddr, u32> {
    let nodes = nodes.into_iter().filter(|node| *node != own);
    nodes.filter_map(|node| Some((node, way(egresses, node, own)?))).collect()
}

fn way(egresses: &Egresses, node: IpAddr, own: IpAddr) -> Option<u32> {
    egresses.towards(node, Some(own)).unwrap_or_else(|error| {
        tracing::debug!(%node, error = chain(&error), "cannot tell the way to a node");
        None
    })
}
