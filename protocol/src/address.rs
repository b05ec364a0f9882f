//! The address plan of the overlay, as Oakestra has it. All ranges are inclusive.

use std::net::{Ipv4Addr, Ipv6Addr};

/// ServiceIPs: one per service and one per instance, from one pool. Octets three and four stay within 0..=253.
pub const SERVICE_FIRST: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 0);
pub const SERVICE_LAST: Ipv4Addr = Ipv4Addr::new(10, 30, 253, 253);
/// The prefix by which a data plane tells a ServiceIP from any other address.
pub const SERVICE_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 0);
pub const SERVICE_PREFIX: u8 = 16;

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

/// Whether `address` is a ServiceIP (of any kind).
#[must_use]
pub fn is_service(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 10 && second == 30
}

/// Whether `address` is in the range from which workers' IPv6 blocks are given out. Data planes tell containers from
/// the rest of the world by it; fd00::/8, the other half of the unique local addresses, is left to people's own networks.
#[must_use]
pub fn is_container6(address: Ipv6Addr) -> bool {
    address.octets()[0] == 0xfc
}
