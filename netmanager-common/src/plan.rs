//! Which addresses are services' and which are containers': of IPv4 as the root has it, of IPv6 always the same.

use crate::wire::{Ip, Ip4};

/// The IPv4 addresses from one to another, as numbers of the machine, so that one comparison tells whether an address is
/// among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Range {
    /// The first.
    pub first: u32,
    /// How far the last is from it.
    pub span: u32,
}

impl Range {
    /// From the first to the last, both included; the last one is not before the first.
    #[must_use]
    pub const fn new(first: Ip4, last: Ip4) -> Self {
        let first = u32::from_be_bytes(first.0);
        Self { first, span: u32::from_be_bytes(last.0).wrapping_sub(first) }
    }

    #[inline(always)]
    const fn contains(&self, address: Ip4) -> bool {
        u32::from_be_bytes(address.0).wrapping_sub(self.first) <= self.span
    }
}

/// Value of [`crate::map::PLAN`]. All zero, as before it is written, it has one address, 0.0.0.0, which is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Plan {
    /// Those of containers (NsIPs), gateways and nodes themselves.
    pub containers: Range,
    /// Those of services and of single instances.
    pub services: Range,
}

const _: () = assert!(size_of::<Plan>() == 4 * 4);

impl Plan {
    /// Oakestra's: 10.18.0.0 to 10.29.255.255 and 10.30.0.0/16.
    pub const OAKESTRA: Self = Self {
        containers: Range::new(Ip4([10, 18, 0, 0]), Ip4([10, 29, 255, 255])),
        services: Range::new(Ip4([10, 30, 0, 0]), Ip4([10, 30, 255, 255])),
    };

    /// Service addresses, of services and of single instances; of IPv6 fdff::/16.
    #[must_use]
    #[inline(always)]
    pub const fn is_service(&self, address: Ip) -> bool {
        if address.is_v4() {
            self.services.contains(address.v4())
        } else {
            matches!(address.octets(), [0xfd, 0xff, ..])
        }
    }

    /// Addresses of containers (NsIPs); of IPv6 fc00::/8, from whose beginning the workers' blocks are given out. The other
    /// half of the unique local addresses, fd00::/8, is what people number their own networks from.
    #[must_use]
    #[inline(always)]
    pub const fn is_container(&self, address: Ip) -> bool {
        if address.is_v4() {
            self.containers.contains(address.v4())
        } else {
            matches!(address.octets(), [0xfc, ..])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use proptest::prelude::*;

    use super::{Plan, Range};
    use crate::wire::{Ip, Ip4};

    fn ip(text: &str) -> Ip {
        match text.parse().unwrap() {
            IpAddr::V4(address) => Ip::from_v4(Ip4(address.octets())),
            IpAddr::V6(address) => Ip::from_octets(address.octets()),
        }
    }

    #[test]
    fn the_ranges_of_the_overlay_are_told_apart() {
        for (address, service, container) in [
            ("10.30.0.0", true, false),
            ("10.30.255.255", true, false),
            ("10.18.0.0", false, true),
            ("10.29.255.255", false, true),
            ("10.17.255.255", false, false),
            ("10.31.0.0", false, false),
            ("11.30.0.0", false, false),
            ("127.1.2.3", false, false),
            ("fdff::", true, false),
            ("fdff:2000::1", true, false),
            ("fc00::102", false, true),
            ("fcff:ffff::1", false, true),
            ("fdfe::1", false, false),
            ("fd12:3456::1", false, false),
            ("fe80::1", false, false),
            ("2001:db8::1", false, false),
        ] {
            let told = (Plan::OAKESTRA.is_service(ip(address)), Plan::OAKESTRA.is_container(ip(address)));
            assert_eq!(told, (service, container), "{address}");
        }
    }

    #[test]
    fn before_it_is_written_a_plan_has_nobodys_address_alone() {
        for address in ["0.0.0.1", "10.30.0.1", "10.18.0.1", "255.255.255.255"] {
            assert!(!Plan::default().is_service(ip(address)) && !Plan::default().is_container(ip(address)));
        }
    }

    proptest! {
        #[test]
        fn a_range_has_what_is_between_its_ends(a in any::<u32>(), b in any::<u32>(), other in any::<u32>()) {
            let of = |bits: u32| Ip4(bits.to_be_bytes());
            let range = Range::new(of(a.min(b)), of(a.max(b)));
            prop_assert_eq!(range.contains(of(other)), (a.min(b)..=a.max(b)).contains(&other));
            prop_assert!(range.contains(of(a)) && range.contains(of(b)));
        }

        #[test]
        fn an_address_of_ipv6_is_not_taken_for_one_of_ipv4(bits in any::<u128>()) {
            let plan = Plan { containers: Range { first: 0, span: u32::MAX }, services: Range::default() };
            let address = Ipv6Addr::from_bits(bits);
            let is_v4 = address.to_ipv4_mapped().is_some();
            prop_assert_eq!(plan.is_container(Ip::from_octets(address.octets())), is_v4 || address.octets()[0] == 0xfc);
        }
    }
}
