//! The TAP device of the slow path, which another module makes.

use super::{Links, NetError};

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
}
