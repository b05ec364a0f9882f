//! How large packets may be on the way to each other node. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netmanager_common::tunnel::{OVERHEAD, OVERHEAD6, inner_mtu};

/// What is known of the ways: all begin at the uplink, on some of them there is less room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    uplink_mtu: u32,
    /// Nodes to which the underlay carries no larger IP packets than these.
    narrow: BTreeMap<IpAddr, u16>,
}

impl Default for Paths {
    /// Of an uplink that carries everything.
    fn default() -> Self {
        Self { uplink_mtu: u32::MAX, narrow: BTreeMap::new() }
    }
}

impl Paths {
    /// The uplink carries packets of `mtu` bytes.
    pub(crate) fn set_uplink(&mut self, mtu: u32) {
        self.uplink_mtu = mtu;
    }

    pub(crate) fn uplink_mtu(&self) -> u32 {
        self.uplink_mtu
    }

    /// The largest outer packet to `node`, but for the path.
    pub(crate) fn largest_to(&self, node: IpAddr) -> u16 {
        inner_mtu(self.uplink_mtu, overhead(node)) + overhead(node)
    }

    /// The underlay carries packets of `mtu` bytes to `node`; `None`: as large ones as the uplink.
    pub(crate) fn set(&mut self, node: IpAddr, mtu: Option<u16>) {
        match mtu {
            Some(mtu) => self.narrow.insert(node, mtu),
            None => self.narrow.remove(&node),
        };
    }

    /// The ways with less room than the uplink.
    pub(crate) fn narrow(&self) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        let is_narrow = |(_, mtu): &(IpAddr, u16)| u32::from(*mtu) < self.uplink_mtu;
        self.narrow.iter().map(|(node, mtu)| (*node, *mtu)).filter(is_narrow)
    }

    /// The largest inner packet that reaches `node`. Never more than containers send, which is what Oakestra's nodes take
    /// at most.
    pub(crate) fn inner_mtu(&self, node: IpAddr) -> u16 {
        let narrow = self.narrow.get(&node).map_or(u32::MAX, |mtu| u32::from(*mtu));
        inner_mtu(self.uplink_mtu.min(narrow), overhead(node))
    }

    /// Takes over what an earlier process has learned: that inner packets to `node` have `inner` bytes at most.
    pub(super) fn adopt(&mut self, node: IpAddr, inner: u16) {
        // A row that nobody has filled says nothing.
        if inner > 0 && inner < self.inner_mtu(node) {
            self.set(node, Some(inner + overhead(node)));
        }
    }
}

/// What the tunnel to this address adds.
pub(super) const fn overhead(node: IpAddr) -> u16 {
    match node {
        IpAddr::V4(_) => OVERHEAD,
        IpAddr::V6(_) => OVERHEAD6,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::Paths;

    const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const NODE6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

    #[test]
    fn the_narrowest_part_of_the_way_counts() {
        let mut paths = Paths::default();
        assert_eq!((paths.inner_mtu(NODE), paths.inner_mtu(NODE6)), (1450, 1450));
        paths.set_uplink(1492);
        assert_eq!((paths.inner_mtu(NODE), paths.inner_mtu(NODE6)), (1450, 1444));
        paths.set(NODE, Some(1400));
        assert_eq!((paths.inner_mtu(NODE), paths.inner_mtu(NODE6)), (1372, 1444));
        paths.set_uplink(1300);
        assert_eq!((paths.inner_mtu(NODE), paths.inner_mtu(NODE6)), (1272, 1252));
        assert_eq!(paths.narrow().next(), None, "the uplink is narrower");
        paths.set_uplink(1500);
        assert_eq!(paths.narrow().collect::<Vec<_>>(), [(NODE, 1400)]);
        paths.set(NODE, None);
        assert_eq!(paths.inner_mtu(NODE), 1450);
    }

    #[test]
    fn what_a_process_has_learned_is_taken_over_by_the_next() {
        for node in [NODE, NODE6] {
            let mut before = Paths::default();
            before.set_uplink(1500);
            before.set(node, Some(1400));
            let mut after = Paths::default();
            after.set_uplink(1500);
            after.adopt(node, before.inner_mtu(node));
            assert_eq!(before, after);
            after.adopt(node, 0);
            after.adopt(node, 1450);
            assert_eq!(before, after);
        }
    }
}
