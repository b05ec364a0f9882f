//! Containers that the kernel routes to.

use std::net::Ipv4Addr;

use anyhow::Result;
use integration::Netns;

use super::pair::UPLINK;
use super::{Bed, Overlay, Pair, xdp_pass};
use crate::subject::Underlay;

/// Without an overlay, as large as the underlay.
const MTU: u16 = 1500;

/// The containers' network on each node.
pub(super) const SUBNETS: [&str; 2] = ["10.201.0.0/24", "10.202.0.0/24"];
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 2);

pub(super) fn build(pair: Pair, underlay: Underlay) -> Result<Bed> {
    let (client, server, target) = containers(&pair, underlay, MTU)?;
    for (own, other) in [(0, 1), (1, 0)] {
        if underlay != Underlay::SameNode {
            pair.nodes[own].ip(&format!("route add {} via {}", SUBNETS[other], pair.address(other)))?;
        }
    }
    Ok(Bed { target, overlay: Overlay::Kernel, client, server, pair })
}

pub(super) fn build_with_xdp(pair: Pair, underlay: Underlay) -> Result<Bed> {
    let mut bed = build(pair, underlay)?;
    let [first, second] = &bed.pair.nodes;
    let attached = [xdp_pass::attach(first, UPLINK)?, xdp_pass::attach(second, UPLINK)?];
    bed.overlay = Overlay::Xdp { _attached: attached };
    Ok(bed)
}

/// A client on the first node and a server on the second (or on the first), each known to its own node only; and the
/// server's address.
pub(super) fn containers(pair: &Pair, underlay: Underlay, mtu: u16) -> Result<(Netns, Netns, Ipv4Addr)> {
    let servers_node = if underlay == Underlay::SameNode { 0 } else { 1 };
    let (client, server) = (Netns::new("client")?, Netns::new("server")?);
    connect(&pair.nodes[0], &client, "client", CLIENT, mtu)?;
    connect(&pair.nodes[servers_node], &server, "server", SERVER, mtu)?;
    Ok((client, server, SERVER))
}

/// A veth without a bridge, as netmanager makes them: /32 and permanent neighbours, so that nothing but the way between
/// the nodes differs.
fn connect(node: &Netns, container: &Netns, link: &str, address: Ipv4Addr, mtu: u16) -> Result<()> {
    let [a, b, c, _] = address.octets();
    let gateway = Ipv4Addr::new(a, b, c, 1);
    node.ip(&format!(
        "link add {link} mtu {mtu} address 06:00:00:00:00:01 type veth peer name eth0 mtu {mtu} address 02:00:00:00:00:01 netns {}",
        container.path().display()
    ))?;
    node.ip(&format!("addr add {gateway}/32 dev {link}"))?;
    node.ip(&format!("link set {link} up"))?;
    node.ip(&format!("neigh add {address} lladdr 02:00:00:00:00:01 dev {link} nud permanent"))?;
    node.ip(&format!("route add {address}/32 dev {link}"))?;
    container.ip(&format!("addr add {address}/32 dev eth0"))?;
    container.ip("link set eth0 up")?;
    container.ip(&format!("neigh add {gateway} lladdr 06:00:00:00:00:01 dev eth0 nud permanent"))?;
    container.ip(&format!("route add {gateway}/32 dev eth0"))?;
    container.ip(&format!("route add default via {gateway} dev eth0"))
}
