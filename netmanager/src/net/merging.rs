//! The VXLAN device that makes the kernel merge the inner packets of [`netmanager_common::link::Link::Vx`]: that it listens
//! on the tunnel's port is all that it is for. It is of a network in which nobody is, and whatever it gets nonetheless is
//! dropped by our nftables rules.

use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::LinkVxlan;

use super::{Links, MERGING_LINK, NetError};

/// The last of 24 bits; packets of our nodes have another one.
const NETWORK: u32 = 0xff_ffff;

impl Links {
    /// Lets the kernel merge what comes to this UDP port. Done twice it is done once.
    ///
    /// # Errors
    /// When the kernel refuses: it has no VXLAN, or somebody listens on the port.
    pub async fn merge_on(&self, port: u16) -> Result<(), NetError> {
        if self.merges(port).await? {
            return Ok(());
        }
        self.merge_no_more().await?;
        let device = LinkVxlan::new(MERGING_LINK, NETWORK).port(port).learning(false).arp(false).build();
        let failed = |source: rtnetlink::Error| {
            NetError::new(format!("make link {MERGING_LINK}, which listens on port {port}"), source.into())
        };
        self.handle.link().add(device).execute().await.map_err(failed)?;
        let furnished = async {
            let ifindex = self.require(MERGING_LINK).await?;
            self.without_ipv6_address(MERGING_LINK, ifindex).await?;
            // Only now does it listen.
            self.up(MERGING_LINK, ifindex).await
        };
        let furnished = furnished.await;
        if furnished.is_err() {
            self.merge_no_more().await.ok();
        }
        furnished
    }

    /// Whether the kernel merges what comes to this port, by [`Self::merge_on`], of this life or an earlier one.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn merges(&self, port: u16) -> Result<bool, NetError> {
        Ok(self.find(MERGING_LINK).await?.is_some_and(|link| is_for(&link, port)))
    }

    /// Takes the device away; none is no failure. Says whether there was one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn merge_no_more(&self) -> Result<bool, NetError> {
        self.remove(MERGING_LINK).await
    }
}

/// Whether it is as [`Links::merge_on`] makes it.
fn is_for(link: &LinkMessage, port: u16) -> bool {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let (mut is_vxlan, mut has_port, mut has_network) = (false, false, false);
    for info in infos.flatten() {
        match info {
            LinkInfo::Kind(kind) => is_vxlan = *kind == InfoKind::Vxlan,
            LinkInfo::Data(InfoData::Vxlan(data)) => {
                has_port = data.contains(&InfoVxlan::Port(port));
                has_network = data.contains(&InfoVxlan::Id(NETWORK));
            }
            _ => {}
        }
    }
    is_vxlan && has_port && has_network && link.header.flags.contains(LinkFlags::Up)
}
