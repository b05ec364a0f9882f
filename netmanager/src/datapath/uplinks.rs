//! The interfaces towards other nodes: which there are, through which of them each node is reached, and where what arrives is
//! unwrapped.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::decapsulation::{self, Decapsulation, Place, Placement, Why};
use super::paths::Egress;
use super::slots::Slots;
use super::takeover::Takeover;
use super::{Addresses, Datapath, DatapathError, FROM_UPLINK, Node, attach, interface, slots};

impl Datapath {
    /// Sets this node's addresses and its only uplink: see [`Self::set_uplinks`].
    pub fn set_node(
        &mut self,
        addresses: impl Into<Addresses>,
        uplink_ifindex: u32,
    ) -> Result<(), DatapathError> {
        self.set_uplinks(addresses, uplink_ifindex, &[], &BTreeMap::new())
    }

    /// Sets this node's addresses, and attaches `from_uplink` to each interface at which packets of other nodes may arrive:
    /// to `primary`, through which packets leave to all nodes but those that `ways` names, to the interfaces that it names
    /// for these, and to `others` as far as there is room. Interfaces that are none of these any more are left. See
    /// [`Self::set_egress`] for which are no way.
    ///
    /// No packet to a node whose way stays the same is sent elsewhere meanwhile.
    pub fn set_uplinks(
        &mut self,
        addresses: impl Into<Addresses>,
        primary: u32,
        others: &[u32],
        ways: &BTreeMap<IpAddr, u32>,
    ) -> Result<(), DatapathError> {
        let before = self.slots()?;
        let (after, egresses) = plan(before, primary, others, ways, interface::is_ethernet);
        for ifindex in slots::taken(&after) {
            match self.attach(FROM_UPLINK, ifindex) {
                // Of the others one may go at any moment.
                Err(DatapathError::NoInterface { .. }) if ifindex != primary => {}
                result => result?,
            }
        }
        self.paths.replace_egresses(egresses);
        self.write_node(addresses.into(), primary, after)?;
        for ifindex in slots::taken(&before).filter(|ifindex| slots::of(&after, *ifindex).is_none()) {
            // First: what it has taken the outer headers off, only the other one knows.
            attach::xdp::detach(&self.pins, ifindex)?;
            self.detach(ifindex)?;
        }
        Ok(())
    }

    /// Packets to `node` leave through this interface from now on, which becomes an uplink if it is none; `None`: through the
    /// primary one. Of an interface that is no Ethernet, or has gone, and when there are too many uplinks, the primary one is
    /// taken too.
    pub fn set_egress(&mut self, node: IpAddr, ifindex: Option<u32>) -> Result<(), DatapathError> {
        let Some(own) = self.tables.node()? else { return Ok(()) };
        let ifindex = ifindex.filter(|it| *it != own.uplink_ifindex && interface::is_ethernet(*it));
        let egress = match ifindex {
            Some(ifindex) => self.egress_through(ifindex, &own)?,
            None => None,
        };
        if self.paths.set_egress(node, egress) {
            self.write_paths(|backend| backend.node.ip() == node)?;
        }
        Ok(())
    }

    fn egress_through(&mut self, ifindex: u32, own: &Node) -> Result<Option<Egress>, DatapathError> {
        let Ok(mtu) = interface::mtu(ifindex) else { return Ok(None) };
        let mut slots = own.uplinks;
        if slots::of(&slots, ifindex).is_none() {
            slots = slots::assign(slots, slots::taken(&slots).chain([ifindex]));
            if slots::of(&slots, ifindex).is_some() {
                self.attach(FROM_UPLINK, ifindex)?;
                self.write_node(own.addresses, own.uplink_ifindex, slots)?;
            }
        }
        Ok(slots::of(&slots, ifindex).map(|slot| Egress { ifindex, slot, mtu }))
    }

    /// Before [`Self::set_node`] all are free.
    fn slots(&self) -> Result<Slots, DatapathError> {
        Ok(self.tables.node()?.map(|node| node.uplinks).unwrap_or_default())
    }

    /// Takes the outer headers off in the place that is `wanted`, or best for each uplink as it is, the primary one first;
    /// nothing before [`Self::set_node`], nor while another version's programs run. To be called again whenever the uplinks
    /// may have changed, and now and then, since a driver shows only under way that it cannot do it.
    ///
    /// No packet is lost by it: what the XDP program lets pass, unwrapped or not, the program at the ingress takes both
    /// ways. (Some drivers reset their queues when an XDP program comes or goes; that is theirs.)
    pub fn decapsulate(&mut self, wanted: Decapsulation) -> Result<Vec<Placement>, DatapathError> {
        let node = if matches!(self.takeover, Takeover::Filling(_)) { None } else { self.tables.node()? };
        let Some(node) = node else { return Ok(Vec::new()) };
        for other in self.pins.xdp_interfaces()? {
            if slots::of(&node.uplinks, other).is_none() {
                attach::xdp::detach(&self.pins, other)?;
            }
        }
        let mut uplinks: Vec<_> = slots::taken(&node.uplinks).collect();
        uplinks.sort_by_key(|ifindex| *ifindex != node.uplink_ifindex);
        let mut placements = Vec::new();
        for ifindex in uplinks {
            match self.decapsulate_at(ifindex, wanted) {
                Err(DatapathError::NoInterface { .. }) if ifindex != node.uplink_ifindex => {}
                placement => placements.push(placement?),
            }
        }
        Ok(placements)
    }

    fn decapsulate_at(&mut self, ifindex: u32, wanted: Decapsulation) -> Result<Placement, DatapathError> {
        let interface = interface::name(ifindex)?;
        let driver = interface::driver(&interface);
        let (place, why) = match decapsulation::choose(wanted, driver.as_deref()) {
            (Place::Xdp, _) if self.tables.early()?.is_in_vain() => (Place::Tc, Why::NoMetadata),
            (Place::Xdp, why) => match attach::xdp::attach(&self.pins, &mut self.ebpf, ifindex) {
                Ok(()) => (Place::Xdp, why),
                Err(why) => (Place::Tc, why),
            },
            tc => tc,
        };
        if place == Place::Tc {
            attach::xdp::detach(&self.pins, ifindex)?;
        }
        Ok(Placement { interface, driver, place, why })
    }
}

/// The places of the uplinks, and through which of them those nodes are reached to which `primary` is not the way: only
/// through interfaces that `may_be_one` lets pass.
pub(crate) fn plan(
    before: Slots,
    primary: u32,
    others: &[u32],
    ways: &BTreeMap<IpAddr, u32>,
    may_be_one: impl Fn(u32) -> bool,
) -> (Slots, BTreeMap<IpAddr, Egress>) {
    let mut found = Vec::new();
    for (node, &ifindex) in ways.iter().filter(|(_, ifindex)| **ifindex != primary) {
        let mtu = interface::mtu(ifindex).ok().filter(|_| may_be_one(ifindex));
        found.extend(mtu.map(|mtu| (*node, ifindex, mtu)));
    }
    let named = found.iter().map(|(_, ifindex, _)| *ifindex);
    let after = slots::assign(before, std::iter::once(primary).chain(named).chain(others.iter().copied()));
    let egress =
        |(node, ifindex, mtu)| Some((node, Egress { ifindex, slot: slots::of(&after, ifindex)?, mtu }));
    (after, found.into_iter().filter_map(egress).collect())
}
