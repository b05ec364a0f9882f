//! TAP devices, which other modules make: that of the slow path, and one that stands for an uplink.

use std::net::Ipv4Addr;

use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::LinkAttribute;

use super::pair::End;
use super::{Links, NetError, Reason};

/// What a TAP device can carry at most (`tun.c`, `MAX_MTU`).
const MTU: u16 = 65_521;

impl Links {
    /// Sets the device up and gives its index. It has no address, and the kernel has nothing to say on it.
    ///
    /// # Errors
    /// When there is no such device, or the kernel refuses.
    pub async fn start_tap(&self, name: &str) -> Result<u32, NetError> {
        let ifindex = self.require(name).await?;
        self.without_ipv6_address(name, ifindex).await?;
        self.mtu(name, ifindex, MTU).await?;
        self.up(name, ifindex).await?;
        Ok(ifindex)
    }

    /// Sets a device up, with an address of its own and one other machine behind it that has this MAC. Gives its index and its
    /// own MAC.
    ///
    /// # Errors
    /// When there is no such device, or the kernel refuses.
    pub async fn lead_to(
        &self,
        name: &str,
        (own, other, other_mac): (Ipv4Addr, Ipv4Addr, [u8; 6]),
    ) -> Result<(u32, [u8; 6]), NetError> {
        let ifindex = self.require(name).await?;
        self.without_ipv6_address(name, ifindex).await?;
        self.up(name, ifindex).await?;
        let end = End { links: self, name, ifindex, scope: AddressScope::Universe, other_mac };
        end.address(own.into()).await?;
        end.other(other.into(), own.into()).await?;
        let link = self.find(name).await?;
        let mac = link.iter().flat_map(|link| &link.attributes).find_map(|attribute| match attribute {
            LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        });
        let mac =
            mac.ok_or_else(|| NetError::new(format!("look for the MAC of {name}"), Reason::NotEthernet));
        mac.map(|mac| (ifindex, mac))
    }
}
