//! Where this node is on the underlay may change while it runs: a lease gives another address, the default route moves
//! to another interface. The data plane and the other nodes must hear of it, or no packet arrives any more.
//!
//! The node sends from the uplink's own address and takes what comes to it. What it tells the others may be another
//! one, when a NAT on the way puts the one for the other.

use std::net::IpAddr;

use tokio::time::Instant;

use super::{Node, now};
use crate::datapath::{Decapsulation, Place, Placement};
use crate::error::chain;
use crate::nft;
use crate::pathmtu::Heard;

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

    /// Sees to it that the uplink's packets are unwrapped where it is best, or where it is wanted.
    pub(super) fn place_decapsulation(&mut self) {
        let placement = match self.datapath.decapsulate(self.config.decapsulation) {
            Ok(placement) => placement,
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "cannot tell where the uplink's packets are unwrapped"
                );
                return;
            }
        };
        if placement == self.placement {
            return;
        }
        if let Some(Placement { interface, driver, place, why }) = &placement {
            let driver = driver.as_deref().unwrap_or("unknown");
            if self.config.decapsulation == Decapsulation::Xdp && *place == Place::Tc {
                tracing::warn!(uplink = interface, driver, %place, %why, "decapsulation is not where it is wanted");
            } else {
                tracing::info!(uplink = interface, driver, %place, %why, "decapsulation");
            }
        }
        self.placement = placement;
    }

    /// Looks where the uplink is now. While there is none, the data plane keeps the last one: it may come back.
    pub(super) async fn follow_uplink(&mut self) {
        // Of several addresses the one in use stays in use, whatever their order.
        let preferred = self.config.public_address.or(Some(self.uplink.address));
        let uplink = match self.links.uplink(self.config.default_interface.as_deref(), preferred).await {
            Ok(uplink) if uplink == self.uplink => return,
            Ok(uplink) => uplink,
            Err(error) => {
                tracing::debug!(error = chain(&error), "the uplink cannot be told at this moment");
                return;
            }
        };
        if let Err(error) = self.datapath.set_node(uplink.address, uplink.ifindex) {
            let error = chain(&error);
            tracing::error!(uplink = uplink.name, error, "the data plane does not follow the uplink");
            return;
        }
        let before = std::mem::replace(&mut self.uplink, uplink.clone());
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
        if (before.ifindex, before.address) != (now.ifindex, now.address) {
            tracing::warn!(
                uplink = now.name, address = %now.address, was = before.name, was_address = %before.address,
                "the uplink changed; connections to other nodes begin anew"
            );
            self.warn_if_translated();
            self.announce_all();
        }
        self.state.uplink = Some(uplink);
        // Logged where it fails; the next operation writes it again.
        self.save().ok();
    }
}
