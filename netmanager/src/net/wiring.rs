//! What the links of one container are to look like. Pure: the same instance and addresses give the same names and
//! MACs, so that a set-up that is done twice finds what the first has made.

use std::net::{Ipv4Addr, Ipv6Addr};

use protocol::name::InstanceName;

use super::LeftToNic;
use crate::hash::fnv1a;

/// The link inside the container.
pub const CONTAINER_LINK: &str = "eth0";
/// The link through which the node's own processes speak to services.
pub const OWN_LINK: &str = "hynode0";
/// The other end of it, where the data plane is; in the same namespace.
pub const OWN_LINK_PEER: &str = "hynode1";
/// The VXLAN device that lends the tunnel's port its merging of packets.
pub const MERGING_LINK: &str = "hymerge";
/// How the names of our links on the node begin. nftables tells them from other links by it.
pub const LINK_PREFIX: &str = "hy";
const DIGITS: usize = 12;
/// What a link must carry to have IPv6 (RFC 8200, 5).
const MTU6_MIN: u16 = 1280;

/// The pair of links that connects one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Name of the node's end: 14 characters (the kernel takes 15).
    pub link: String,
    /// For people who read `ip link`: the instance.
    pub alias: String,
    pub ns_ip: Ipv4Addr,
    pub gateway: Ipv4Addr,
    /// The same of IPv6; nothing where the container is to have none.
    pub v6: Option<Wiring6>,
    /// MAC of the container's end.
    pub mac: [u8; 6],
    /// MAC of the node's end.
    pub gateway_mac: [u8; 6],
    /// Of both ends: the largest packet that the tunnel carries, so that a sender splits its data itself.
    pub mtu: u16,
    /// By the container's kernel.
    pub left_to_nic: LeftToNic,
}

/// The IPv6 addresses of one container's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wiring6 {
    pub ns_ip: Ipv6Addr,
    pub gateway: Ipv6Addr,
}

impl Wiring {
    /// On a link that is too small for IPv6, `v6` is left out.
    #[must_use]
    pub fn new(
        instance: &InstanceName,
        ns_ip: Ipv4Addr,
        gateway: Ipv4Addr,
        v6: Option<Wiring6>,
        mtu: u16,
    ) -> Self {
        let alias = instance.to_string();
        let hash = fnv1a(alias.as_bytes()) >> 16;
        let (mac, gateway_mac) = macs(ns_ip);
        Self {
            link: format!("{LINK_PREFIX}{hash:0DIGITS$x}"),
            alias,
            ns_ip,
            gateway,
            v6: v6.filter(|_| mtu >= MTU6_MIN),
            mac,
            gateway_mac,
            mtu,
            left_to_nic: LeftToNic::default(),
        }
    }

    #[must_use]
    pub fn leaving(self, left_to_nic: LeftToNic) -> Self {
        Self { left_to_nic, ..self }
    }
}

/// Whether a link of this name was made by netmanager for a container.
#[must_use]
pub(super) fn is_container_link(name: &str) -> bool {
    name.strip_prefix(LINK_PREFIX).is_some_and(|rest| {
        rest.len() == DIGITS && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Whether a link of this name was made by netmanager.
#[must_use]
pub fn is_our_link(name: &str) -> bool {
    is_container_link(name) || [OWN_LINK, OWN_LINK_PEER, MERGING_LINK].contains(&name)
}

/// What the link of the node itself is to look like: a pair of which both ends are in the node's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnWiring {
    pub ns_ip: Ipv4Addr,
    /// Nothing where the node is to have none.
    pub ns_ip6: Option<Ipv6Addr>,
    /// MAC of the end at which processes send.
    pub mac: [u8; 6],
    /// MAC of the end where the data plane is.
    pub gateway_mac: [u8; 6],
    /// Of both ends, as of containers' links.
    pub mtu: u16,
    /// The services' IPv4 network, which is reached there: its first address and the length of its prefix.
    pub services: (Ipv4Addr, u8),
    /// By the node's own kernel, of what its processes send to services.
    pub left_to_nic: LeftToNic,
}

impl OwnWiring {
    /// On a link that is too small for IPv6, `ns_ip6` is left out.
    #[must_use]
    pub fn new(ns_ip: Ipv4Addr, ns_ip6: Option<Ipv6Addr>, mtu: u16, services: (Ipv4Addr, u8)) -> Self {
        let (mac, gateway_mac) = macs(ns_ip);
        let (ns_ip6, left_to_nic) = (ns_ip6.filter(|_| mtu >= MTU6_MIN), LeftToNic::default());
        Self { ns_ip, ns_ip6, mac, gateway_mac, mtu, services, left_to_nic }
    }

    #[must_use]
    pub fn leaving(self, left_to_nic: LeftToNic) -> Self {
        Self { left_to_nic, ..self }
    }
}

/// The MACs of whoever has this NsIP, and of the other end. Locally administered, and given by us: udev leaves addresses
/// alone that user space has set.
#[must_use]
pub(crate) fn macs(ns_ip: Ipv4Addr) -> ([u8; 6], [u8; 6]) {
    let [a, b, c, d] = ns_ip.octets();
    ([0x02, 0x48, a, b, c, d], [0x06, 0x48, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use protocol::name::InstanceName;

    use super::{MERGING_LINK, OWN_LINK, OWN_LINK_PEER, Wiring, Wiring6, is_container_link, is_our_link};

    fn wiring(number: u32) -> Wiring {
        let instance = InstanceName { service: "smp.bed.srv.bed".parse().unwrap(), number };
        Wiring::new(&instance, Ipv4Addr::new(10, 18, 0, 66), Ipv4Addr::new(10, 18, 0, 65), None, 1450)
    }

    #[test]
    fn a_link_that_is_too_small_for_ipv6_has_none() {
        let instance = InstanceName { service: "smp.bed.srv.bed".parse().unwrap(), number: 0 };
        let v6 = Some(Wiring6 { ns_ip: "fc00::102".parse().unwrap(), gateway: "fc00::101".parse().unwrap() });
        let wiring =
            |mtu| Wiring::new(&instance, Ipv4Addr::new(10, 18, 0, 66), Ipv4Addr::new(10, 18, 0, 65), v6, mtu);
        assert_eq!((wiring(1280).v6, wiring(1279).v6), (v6, None));
    }

    #[test]
    fn a_link_is_named_after_its_instance_and_fits_the_kernel() {
        assert_eq!(wiring(0), wiring(0));
        assert_eq!(wiring(0).alias, "smp.bed.srv.bed.instance.0");
        let names: HashSet<_> = (0..2000).map(|number| wiring(number).link).collect();
        assert_eq!(names.len(), 2000, "two instances of one service share a link name");
        assert!(names.iter().all(|name| name.len() <= 15 && is_our_link(name)));
    }

    #[test]
    fn links_of_others_are_not_ours() {
        for name in ["hy", "hypha0", "hy0123456789a", "hy0123456789ag", "eth0", "veth0123456789ab"] {
            assert!(!is_our_link(name), "{name}");
        }
        for name in [OWN_LINK, OWN_LINK_PEER, MERGING_LINK] {
            assert!(is_our_link(name) && !is_container_link(name), "{name}");
        }
    }

    #[test]
    fn both_macs_are_unicast_and_locally_administered() {
        let wiring = wiring(0);
        for mac in [wiring.mac, wiring.gateway_mac] {
            assert_eq!(mac[0] & 3, 2, "{mac:x?}");
        }
        assert_ne!(wiring.mac, wiring.gateway_mac);
    }
}
