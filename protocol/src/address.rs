//! The address plan of the overlay, as Oakestra has it. All ranges are inclusive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ServiceIPs: one per service and one per instance, from one pool. Octets three and four stay within 0..=253.
pub const SERVICE_FIRST: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 0);
pub const SERVICE_LAST: Ipv4Addr = Ipv4Addr::new(10, 30, 253, 253);
/// The prefix by which a data plane tells a ServiceIP from any other address.
pub const SERVICE_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 0);
pub const SERVICE_PREFIX: u8 = 16;

/// The same of IPv6.
pub const SERVICE6_NETWORK: Ipv6Addr = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0);
pub const SERVICE6_PREFIX: u8 = 16;

/// Worker subnets: blocks of 64 addresses, the first host of each is the containers' gateway.
pub const SUBNET_FIRST: Ipv4Addr = Ipv4Addr::new(10, 18, 0, 0);
pub const SUBNET_LAST: Ipv4Addr = Ipv4Addr::new(10, 29, 255, 192);
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

/// Whether `address` is a ServiceIP (of any kind): 10.30.0.0/16 or fdff::/16.
#[must_use]
pub fn is_service(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets(), [10, 30, ..]),
        IpAddr::V6(address) => address.segments()[0] == SERVICE6_NETWORK.segments()[0],
    }
}

/// Whether `address` lies in the range of the workers' blocks: an NsIP, a gateway, or one that nobody has.
#[must_use]
pub fn is_container(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            (SUBNET_FIRST..=Ipv4Addr::from_bits(SUBNET_LAST.to_bits() | 63)).contains(&address)
        }
        IpAddr::V6(address) => is_container6(address),
    }
}

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
