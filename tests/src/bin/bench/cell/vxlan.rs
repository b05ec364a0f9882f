//! The kernel's VXLAN as flannel sets it up: a device without learning, one permanent neighbour and one forwarding entry
//! for the other node, routes to its containers, and the containers of a node on a bridge.

use std::net::Ipv4Addr;

use anyhow::Result;
use integration::Netns;

use super::pair::UPLINK;
use super::{Bed, Overlay, Pair};

/// 1500 without 50 bytes of outer headers.
const MTU: u16 = 1450;
const DEVICE: &str = "flannel.1";
const BRIDGE: &str = "cni0";
/// Linux' own default, which flannel keeps.
const PORT: u16 = 8472;

pub(super) fn build(pair: Pair) -> Result<Bed> {
    let (client, server) = (Netns::new("client")?, Netns::new("server")?);
    for (own, other) in [(0, 1), (1, 0)] {
        let node = &pair.nodes[own];
        let (local, remote) = (pair.address(own), pair.address(other));
        node.ip(&format!(
            "link add {DEVICE} address {} mtu {MTU} type vxlan id 1 local {local} dev {UPLINK} dstport {PORT} nolearning",
            mac(own)
        ))?;
        node.ip(&format!("addr add {}/32 dev {DEVICE}", in_subnet(own, 0)))?;
        node.ip(&format!("link set {DEVICE} up"))?;
        node.ip(&format!(
            "neigh add {} lladdr {} dev {DEVICE} nud permanent",
            in_subnet(other, 0),
            mac(other)
        ))?;
        node.output("bridge", &["fdb", "append", &mac(other), "dev", DEVICE, "dst", &remote.to_string()])?;
        node.ip(&format!(
            "route add {}/24 via {} dev {DEVICE} onlink",
            in_subnet(other, 0),
            in_subnet(other, 0)
        ))?;
        node.ip(&format!("link add {BRIDGE} mtu {MTU} type bridge"))?;
        node.ip(&format!("addr add {}/24 dev {BRIDGE}", in_subnet(own, 1)))?;
        node.ip(&format!("link set {BRIDGE} up"))?;
        let container = if own == 0 { &client } else { &server };
        node.ip(&format!(
            "link add veth0 mtu {MTU} type veth peer name eth0 mtu {MTU} netns {}",
            container.path().display()
        ))?;
        node.ip(&format!("link set veth0 master {BRIDGE} up"))?;
        container.ip(&format!("addr add {}/24 dev eth0", in_subnet(own, 2)))?;
        container.ip("link set eth0 up")?;
        container.ip(&format!("route add default via {}", in_subnet(own, 1)))?;
    }
    Ok(Bed { target: in_subnet(1, 2), overlay: Overlay::Kernel, client, server, pair })
}

fn in_subnet(node: usize, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, if node == 0 { 0 } else { 1 }, host)
}

fn mac(node: usize) -> String {
    format!("02:00:00:00:f1:0{node}")
}
