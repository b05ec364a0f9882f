//! The way to each other node: through which uplink it begins, and how large packets may be on it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netmanager_common::link::{Link, OVERHEAD_VX};
use netmanager_common::tunnel::{INNER_MTU, OVERHEAD, OVERHEAD6, inner_mtu};

/// An uplink that is not the one of most nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Egress {
    pub(crate) ifindex: u32,
    /// Its place among the uplinks.
    pub(crate) slot: u8,
    pub(crate) mtu: u32,
}

/// What is known of the ways: most begin at the uplink, on some of them there is less room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    uplink_slot: u8,
    uplink_mtu: u32,
    /// Nodes to which the way begins elsewhere.
    egresses: BTreeMap<IpAddr, Egress>,
    /// Nodes to which the underlay carries no larger IP packets than these.
    narrow: BTreeMap<IpAddr, u16>,
    /// Nodes that have asked for [`Link::Vx`].
    vx: BTreeSet<IpAddr>,
}

impl Default for Paths {
    /// Of an uplink that carries everything.
    fn default() -> Self {
        Self {
            uplink_slot: 0,
            uplink_mtu: u32::MAX,
            egresses: BTreeMap::new(),
            narrow: BTreeMap::new(),
            vx: BTreeSet::new(),
        }
    }
}

impl Paths {
    /// The uplink of most nodes has this place, and carries packets of `mtu` bytes.
    pub(crate) fn set_uplink(&mut self, slot: u8, mtu: u32) {
        self.uplink_slot = slot;
        self.uplink_mtu = mtu;
    }

    /// The way to `node` begins there; `None`: at the uplink of most. Says whether that is news.
    pub(crate) fn set_egress(&mut self, node: IpAddr, egress: Option<Egress>) -> bool {
        let before = match egress {
            Some(egress) => self.egresses.insert(node, egress),
            None => self.egresses.remove(&node),
        };
        before != egress
    }

    /// Only the ways to these nodes begin elsewhere.
    pub(crate) fn replace_egresses(&mut self, egresses: BTreeMap<IpAddr, Egress>) {
        self.egresses = egresses;
    }

    /// The place of the uplink through which `node` is reached.
    pub(crate) fn egress(&self, node: IpAddr) -> u8 {
        self.egresses.get(&node).map_or(self.uplink_slot, |egress| egress.slot)
    }

    fn link_mtu(&self, node: IpAddr) -> u32 {
        self.egresses.get(&node).map_or(self.uplink_mtu, |egress| egress.mtu)
    }

    pub(crate) fn uplink_mtu(&self) -> u32 {
        self.uplink_mtu
    }

    /// The largest outer packet to `node`, but for the path.
    pub(crate) fn largest_to(&self, node: IpAddr) -> u16 {
        let overhead = self.overhead(node);
        inner_mtu(self.link_mtu(node), overhead) + overhead
    }

    /// How packets to `node` are to be wrapped, if there is room.
    pub(crate) fn set_link(&mut self, node: IpAddr, link: Link) {
        match link {
            Link::Vx => self.vx.insert(node),
            Link::Bare => self.vx.remove(&node),
        };
    }

    /// How packets to `node` are wrapped. A path that is narrow for what [`Link::Vx`] adds is left to the inner packets.
    pub(crate) fn link(&self, node: IpAddr) -> Link {
        let has_room = self.outer_mtu(node) >= u32::from(INNER_MTU + OVERHEAD_VX);
        if node.is_ipv4() && has_room && self.vx.contains(&node) { Link::Vx } else { Link::Bare }
    }

    /// The nodes to which packets are to be wrapped as [`Link::Vx`], where there is room.
    pub(crate) fn linked(&self) -> impl Iterator<Item = IpAddr> {
        self.vx.iter().copied()
    }

    /// What the tunnel to this node adds.
    fn overhead(&self, node: IpAddr) -> u16 {
        match (node, self.link(node)) {
            (IpAddr::V4(_), Link::Bare) => OVERHEAD,
            (IpAddr::V4(_), Link::Vx) => OVERHEAD_VX,
            (IpAddr::V6(_), _) => OVERHEAD6,
        }
    }

    fn outer_mtu(&self, node: IpAddr) -> u32 {
        self.narrow.get(&node).map_or(u32::MAX, |mtu| u32::from(*mtu)).min(self.link_mtu(node))
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
        let is_narrow = |(node, mtu): &(IpAddr, u16)| u32::from(*mtu) < self.link_mtu(*node);
        self.narrow.iter().map(|(node, mtu)| (*node, *mtu)).filter(is_narrow)
    }

    /// The largest inner packet that reaches `node`. Never more than containers send, which is what Oakestra's nodes take
    /// at most.
    pub(crate) fn inner_mtu(&self, node: IpAddr) -> u16 {
        inner_mtu(self.outer_mtu(node), self.overhead(node))
    }

    /// Takes over what an earlier process has learned: that inner packets to `node` have `inner` bytes at most, and go there
    /// by `link`.
    pub(super) fn adopt(&mut self, node: IpAddr, inner: u16, link: Link) {
        self.set_link(node, link);
        // A row that nobody has filled says nothing.
        if inner > 0 && inner < self.inner_mtu(node) {
            self.set(node, Some(inner + self.overhead(node)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netmanager_common::link::Link;

    use super::{Egress, Paths};

    const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const NODE6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

    #[test]
    fn the_narrowest_part_of_the_way_counts() {
        let mut paths = Paths::default();
        assert_eq!((paths.inner_mtu(NODE), paths.inner_mtu(NODE6)), (1450, 1450));
        paths.set_uplink(0, 1492);
        assert_eq!((paths.inner_mtu(NODE), paths.inner_mtu(NODE6)), (1450, 1444));
        paths.set(NODE, Some(1400));
        assert_eq!((paths.inner_mtu(NODE), paths.inner_mtu(NODE6)), (1372, 1444));
        paths.set_uplink(0, 1300);
        assert_eq!((paths.inner_mtu(NODE), paths.inner_mtu(NODE6)), (1272, 1252));
        assert_eq!(paths.narrow().next(), None, "the uplink is narrower");
        paths.set_uplink(0, 1500);
        assert_eq!(paths.narrow().collect::<Vec<_>>(), [(NODE, 1400)]);
        paths.set(NODE, None);
        assert_eq!(paths.inner_mtu(NODE), 1450);
    }

    #[test]
    fn a_way_through_another_uplink_has_that_one_s_room() {
        let mut paths = Paths::default();
        paths.set_uplink(2, 1500);
        let egress = Egress { ifindex: 9, slot: 5, mtu: 1400 };
        assert!(paths.set_egress(NODE, Some(egress)) && !paths.set_egress(NODE, Some(egress)));
        assert_eq!((paths.egress(NODE), paths.egress(NODE6)), (5, 2));
        assert_eq!(
            (paths.inner_mtu(NODE), paths.largest_to(NODE), paths.inner_mtu(NODE6)),
            (1372, 1400, 1450)
        );
        assert!(paths.set_egress(NODE, None));
        assert_eq!((paths.egress(NODE), paths.inner_mtu(NODE)), (2, 1450));
    }

    #[test]
    fn the_link_with_a_shell_is_taken_only_where_it_costs_no_room() {
        let mut paths = Paths::default();
        paths.set_uplink(0, 1500);
        for node in [NODE, NODE6] {
            paths.set_link(node, Link::Vx);
        }
        assert_eq!((paths.link(NODE), paths.inner_mtu(NODE), paths.largest_to(NODE)), (Link::Vx, 1450, 1500));
        assert_eq!((paths.link(NODE6), paths.inner_mtu(NODE6)), (Link::Bare, 1450));
        paths.set(NODE, Some(1499));
        assert_eq!((paths.link(NODE), paths.inner_mtu(NODE)), (Link::Bare, 1450));
        paths.set(NODE, None);
        paths.set_uplink(0, 1499);
        assert_eq!(paths.link(NODE), Link::Bare);
        paths.set_uplink(0, 1500);
        paths.set_link(NODE, Link::Bare);
        assert_eq!((paths.link(NODE), paths.largest_to(NODE)), (Link::Bare, 1478));
    }

    #[test]
    fn what_a_process_has_learned_is_taken_over_by_the_next() {
        for node in [NODE, NODE6] {
            let mut before = Paths::default();
            before.set_uplink(0, 1500);
            before.set(node, Some(1400));
            let mut after = Paths::default();
            after.set_uplink(0, 1500);
            after.adopt(node, before.inner_mtu(node), Link::Bare);
            assert_eq!(before, after);
            after.adopt(node, 0, Link::Bare);
            after.adopt(node, 1450, Link::Bare);
            assert_eq!(before, after);
        }
    }
}
