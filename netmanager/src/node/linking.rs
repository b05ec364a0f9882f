//! How the other nodes wrap packets to this one, and this one packets to them: see [`crate::link`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use netmanager_common::link::Link;
use protocol::link::LinkOffer;

use super::Node;
use crate::error::chain;
use crate::link::{Situation, Wanted, Why, merges_bare, offer};
use crate::net::fou::Outer;
use crate::offload::{Crossing, Verdict};

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
        // Only one of them can have the port.
        self.offer = match offer(self.config.link, &situation) {
            Ok(()) => {
                self.merge_bare_no_more().await;
                self.merge_vx().await
            }
            Err(why) => {
                if let Err(error) = self.links.merge_no_more().await {
                    tracing::warn!(error = chain(&error), "a VXLAN device that is not needed any more stays");
                }
                Err(why)
            }
        };
        if self.offer.is_err() && merges_bare(&situation) {
            self.merge_bare().await;
        } else {
            self.merge_bare_no_more().await;
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

    /// What comes from Oakestra's nodes, and from ours where nothing better is offered.
    async fn merge_bare(&mut self) {
        let was_on = self.bare.is_on();
        match self.bare.keep(Outer::of(self.uplink.address), protocol::port::TUNNEL).await {
            Ok(true) if !was_on => tracing::info!("the kernel merges bare packets of IPv4 (FOU)"),
            Ok(_) => {}
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "the kernel does not merge bare packets: throughput suffers");
            }
        }
    }

    async fn merge_bare_no_more(&mut self) {
        let was_on = self.bare.is_on();
        match self.bare.end(protocol::port::TUNNEL).await {
            Ok(()) if was_on => tracing::info!("the kernel merges bare packets no more"),
            Ok(()) => {}
            Err(error) => tracing::warn!(error = chain(&error), "the kernel goes on merging bare packets"),
        }
    }

    /// Somebody may have taken away what keeps others from the socket, or the socket.
    pub(super) async fn repair_merging(&mut self) {
        if self.bare.is_on() {
            self.merge_bare().await;
        }
    }

    /// What an earlier life, perhaps with another configuration, has entered.
    pub(super) fn adopt_links(&mut self) {
        for node in self.datapath.linked() {
            self.wrap(node, LinkOffer { vx: true });
        }
    }

    /// The node at this address takes packets wrapped in these ways. VXLAN's format is for those that are cut on their way, so
    /// that the node's kernel merges them; where they cross whole, it costs. Which it is, a trial shows.
    pub(super) fn wrap(&mut self, node: IpAddr, links: LinkOffer) {
        let is_vx = links.vx && self.config.link != Wanted::Bare;
        if is_vx && self.config.link == Wanted::Auto {
            self.undecided.insert(node);
        } else {
            self.undecided.remove(&node);
        }
        self.use_link(node, if is_vx { Link::Vx } else { Link::Bare });
        // Other headers before it: another thing for the NIC.
        self.offloads.anew(node);
    }

    /// The node is reached by another way.
    pub(super) fn wrap_anew(&mut self, node: IpAddr) {
        match self.resolver.links_of(node) {
            links if links.is_empty() => self.offloads.anew(node),
            links => self.wrap(node, links),
        }
    }

    /// The node is about to be asked what becomes of packets. If it is not decided how they are to be wrapped, it is asked by
    /// bare ones, and all others are bare for so long.
    pub(super) fn try_bare(&mut self, node: IpAddr) {
        if self.undecided.contains(&node) {
            self.use_link(node, Link::Bare);
        }
    }

    /// Something is known of what becomes of packets to this node. Says whether it is about how they are wrapped from now on.
    pub(super) fn decide_link(&mut self, node: IpAddr, verdict: Verdict) -> bool {
        if !self.undecided.contains(&node) {
            // The way may be another one than it was, and nobody has told.
            let has_choice = self.config.link == Wanted::Auto && self.resolver.links_of(node).vx;
            let is_bare = !self.datapath.linked().any(|linked| linked == node);
            if has_choice && is_bare && verdict.is_against_bare() {
                self.wrap_anew(node);
                return false;
            }
            return true;
        }
        match verdict {
            Verdict::Takes(Crossing::Whole) => {
                self.undecided.remove(&node);
                tracing::debug!(%node, "packets cross whole to a node: they go bare");
                true
            }
            Verdict::Takes(Crossing::Cut) | Verdict::Lost(_) => {
                self.undecided.remove(&node);
                tracing::debug!(%node, "packets to a node are cut on their way: they go in VXLAN's format");
                self.use_link(node, Link::Vx);
                self.offloads.anew(node);
                false
            }
            // There will be another trial.
            Verdict::Unknown => {
                self.use_link(node, Link::Vx);
                false
            }
        }
    }

    /// The nodes that are not decided about. This one, which stands in tables, too, sends itself nothing.
    pub(super) fn links_on_trial(&self) -> BTreeSet<IpAddr> {
        self.undecided.iter().copied().filter(|node| *node != self.uplink.address).collect()
    }

    fn use_link(&mut self, node: IpAddr, link: Link) {
        if let Err(error) = self.datapath.set_link(node, link) {
            tracing::warn!(%node, error = chain(&error), "the data plane is not told how a node takes packets");
        }
    }
}
