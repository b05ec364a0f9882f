//! How the other nodes wrap packets to this one, and this one packets to them: see [`crate::link`].

use std::net::IpAddr;

use netmanager_common::link::Link;
use protocol::link::LinkOffer;

use super::Node;
use crate::error::chain;
use crate::link::{Situation, Wanted, Why, offer};

impl Node {
    /// What the other nodes are told.
    pub(super) const fn offered(&self) -> LinkOffer {
        LinkOffer { vx: self.offer.is_ok() }
    }

    /// Looks whether this node's kernel can merge what arrives, has it do so, and tells the others when that has changed.
    /// The programs take either format at all times, so that nothing is lost while they learn of it.
    pub(super) async fn tend_offer(&mut self) {
        let before = self.offer;
        self.offer = self.merge().await;
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

    async fn merge(&self) -> Result<(), Why> {
        let place = self.placements.iter().find(|placement| placement.interface == self.uplink.name);
        let situation = Situation {
            is_in_kernel: self.datapath.is_in_kernel(),
            advertised: self.advertised(),
            mtu: self.uplink.mtu,
            place: place.map(|placement| placement.place),
        };
        let wanted = self.config.link;
        if let Err(why) = offer(wanted, &situation) {
            if let Err(error) = self.links.merge_no_more().await {
                tracing::warn!(error = chain(&error), "a VXLAN device that is not needed any more stays");
            }
            return Err(why);
        }
        self.links.merge_on(protocol::port::TUNNEL).await.map_err(|error| {
            let error = chain(&error);
            // On every look: at a level that shows it once, when the offer changes, it would hide the reason.
            if self.offer != Err(Why::Refused) {
                tracing::warn!(error, "the kernel does not merge packets of the tunnel: throughput suffers");
            }
            Why::Refused
        })
    }

    /// What an earlier life with another configuration has entered.
    pub(super) fn adopt_links(&mut self) {
        for node in self.datapath.linked() {
            self.wrap(node, LinkOffer { vx: true });
        }
    }

    /// The node at this address takes packets wrapped in these ways.
    pub(super) fn wrap(&mut self, node: IpAddr, links: LinkOffer) {
        let link = if links.vx && self.config.link != Wanted::Bare { Link::Vx } else { Link::Bare };
        // Other headers before it: another thing for the NIC.
        self.offloads.anew(node);
        if let Err(error) = self.datapath.set_link(node, link) {
            tracing::warn!(%node, error = chain(&error), "the data plane is not told how a node takes packets");
        }
    }
}
