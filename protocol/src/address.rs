//! What is fixed of the overlay's addresses, as Oakestra has it: the ranges of IPv6, and the size of a worker's block. The
//! ranges of IPv4 are [`crate::plan::Plan`].

use std::net::{IpAddr, Ipv6Addr};

/// ServiceIPs of IPv6.
pub const SERVICE6_NETWORK: Ipv6Addr = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0);
pub const SERVICE6_PREFIX: u8 = 16;

/// Length of a worker's block: 64 addresses, of which the first host is the containers' gateway.
pub const SUBNET_PREFIX: u8 = 26;

/// IPv6 worker subnets, /120 each.
pub const SUBNET6_FIRST: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0);
pub const SUBNET6_PREFIX: u8 = 120;
/// Instance addresses, IPv6 (`fdff:0000::/21`).
pub const INSTANCE6_FIRST: Ipv6Addr = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0);
/// Round robin addresses, IPv6 (`fdff:2000::/21`).
pub const ROUND_ROBIN6_FIRST: Ipv6Addr = Ipv6Addr::new(0xfdff, 0x2000, 0, 0, 0, 0, 0, 0);

/// Closest addresses, IPv6: reserved in Oakestra (`fdff:1000::/21`), given out by nobody but us.
pub const CLOSEST6_FIRST: Ipv6Addr = Ipv6Addr::new(0xfdff, 0x1000, 0, 0, 0, 0, 0, 0);

/// Whether `address` is in the range from which workers' IPv6 blocks are given out. Data planes tell containers from
/// the rest of the world by it; fd00::/8, the other half of the unique local addresses, is left to people's own networks.
#[must_use]
pub fn is_container6(address: Ipv6Addr) -> bool {
    address.octets()[0] == 0xfc
}

/// Whether `address` can be that of a node on the underlay, for everybody on it: not one that means a group, nobody, or
/// something on one link only.
#[must_use]
pub fn can_be_host(address: IpAddr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && match address {
            IpAddr::V4(address) => !address.is_broadcast(),
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        }
}
