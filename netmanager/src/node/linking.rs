//! How the other nodes wrap packets to this one, and this one packets to them: see [`crate::link`].

use std::net::IpAddr;

use netmanager_common::link::Link;
use protocol::link::LinkOffer;

use super::Node;
use crate::datapath::Place;
use crate::error::chain;
use crate::link::{Situation, Wanted, Why, offer};
use crate::net::fou;
use crate::offload::{Crossing, Verdict};
use crate::plane::Plane;

impl Node {
    /// What the other nodes are told.
    pub(super) const fn offered(&self) -> LinkOffer {
        LinkOffer { vx: self.offer.is_ok() }
    }

    /// Looks whether this node's kernel can merge what arrives, has it do so, and tells the others when that has changed.
    /// The programs take either format at all times, so that nothing is lost while they learn of it.
    pub(super) async fn tend_offer(&mut self) {
        let before = self.offer;
        let situation = self.situation();
        self.offer = match offer(self.config.link, &situation) {
            Ok(()) => {
                // Only one of them can have the port.
                self.merge_bare(false).await;
                self.merge_vx().await
            }
            Err(why) => {
                if let Err(error) = self.links.merge_no_more().await {
                    tracing::warn!(error = chain(&error), "a VXLAN device that is not needed any more stays");
                }
                Err(why)
            }
        };
        if self.offer.is_err() {
            self.merge_bare(situation.is_in_kernel && situation.place != Some(Place::Xdp)).await;
        }
        if before == self.offer {
            return;
        }
        match self.offer {
            Ok(()) => {
                tracing::info!("other nodes may send packets in VXLAN's format, which the kernel merges")
            }
            Err(why) => tracing::info!(%why, "other nodes are to send bare packets"),
        }
        if before.is_ok() != self.offer.is_ok() {
            self.announce_all();
        }
    }

    fn situation(&self) -> Situation {
        let place = self.placements.iter().find(|placement| placement.interface == self.uplink.name);
        Situation {
            is_in_kernel: self.datapath.is_in_kernel(),
            advertised: self.advertised(),
            mtu: self.uplink.mtu,
            place: place.map(|placement| placement.place),
        }
    }

    async fn merge_vx(&self) -> Result<(), Why> {
        self.links.merge_on(protocol::port::TUNNEL).await.map_err(|error| {
            let error = chain(&error);
            // On every look: at a level that shows it once, when the offer changes, it would hide the reason.
            if self.offer != Err(Why::Refused) {
                tracing::warn!(error, "the kernel does not merge packets of the tunnel: throughput suffers");
            }
            Why::Refused
        })
    }

    /// Has the kernel merge bare packets, or not, where it can. Oakestra's nodes send them, and ours where nothing better is
    /// offered.
    async fn merge_bare(&mut self, wanted: bool) {
        let (address, port) = (self.uplink.address, protocol::port::TUNNEL);
        let merged = match (wanted, self.merges_bare) {
            (true, _) => fou::merge_on(address, port),
            (false, true) => fou::merge_no_more(address, port).map(|_there_was| false),
            (false, false) => return,
        };
        let merges = merged.unwrap_or_else(|error| {
            tracing::debug!(error = chain(&error), "whether the kernel merges bare packets is not changed");
            self.merges_bare
        });
        if std::mem::replace(&mut self.merges_bare, merges) == merges {
            return;
        }
        tracing::info!(merges, "whether the kernel merges bare packets of IPv4 (FOU)");
        if let Err(refusal) = self.apply_rules().await {
            let error = chain(&refusal);
            tracing::warn!(error, "what comes to the tunnel's port elsewhere than at uplinks is not dropped");
        }
    }

    /// What an earlier life with another configuration has entered.
    pub(super) fn adopt_links(&mut self) {
        for node in self.datapath.linked() {
            self.use_link(node, if self.config.link == Wanted::Bare { Link::Bare } else { Link::Vx });
        }
    }

    /// The node at this address takes packets wrapped in these ways. VXLAN's format is for those that are cut on their way, so
    /// that the node's kernel merges them; where they cross whole, it costs.
    pub(super) fn wrap(&mut self, node: IpAddr, links: LinkOffer) {
        let is_vx = links.vx && self.config.link != Wanted::Bare;
        if is_vx && self.config.link == Wanted::Auto && self.asker().is_some() {
            self.undecided.insert(node);
            self.use_link(node, Link::Bare);
        } else {
            self.undecided.remove(&node);
            self.use_link(node, if is_vx { Link::Vx } else { Link::Bare });
        }
    }

    /// The node is reached by another way.
    pub(super) fn wrap_anew(&mut self, node: IpAddr) {
        self.offloads.anew(node);
        let links = self.resolver.links_of(node);
        if !links.is_empty() {
            self.wrap(node, links);
        }
    }

    /// Something is known of what becomes of packets to this node.
    pub(super) fn decide_link(&mut self, node: IpAddr, verdict: Verdict) {
        let goes_bare = |plane: &Plane| !plane.linked().any(|linked| linked == node);
        let is_vx = if self.undecided.remove(&node) {
            verdict != Verdict::Takes(Crossing::Whole)
        } else {
            // The way is another one than it was, and nobody has told.
            verdict == Verdict::Takes(Crossing::Cut)
                && self.config.link == Wanted::Auto
                && self.resolver.links_of(node).vx
                && goes_bare(&self.datapath)
        };
        if is_vx {
            tracing::debug!(%node, "packets to a node are cut on their way: they go in VXLAN's format");
            self.use_link(node, Link::Vx);
        }
    }

    fn use_link(&mut self, node: IpAddr, link: Link) {
        // Other headers before it: another thing for the NIC.
        self.offloads.anew(node);
        if let Err(error) = self.datapath.set_link(node, link) {
            tracing::warn!(%node, error = chain(&error), "the data plane is not told how a node takes packets");
        }
    }
}
