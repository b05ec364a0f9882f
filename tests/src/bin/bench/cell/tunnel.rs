//! The kernel's other tunnels, each with one device for the other node, as plain as they can be had.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::pair::UPLINK;
use super::{Bed, Overlay, Pair, plain};
use crate::subject::Underlay;

const DEVICE: &str = "tunnel0";

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// RFC 8926: Ethernet frames in UDP.
    Geneve,
    /// RFC 2003: IPv4 in IPv4, without UDP.
    Ipip,
}

impl Kind {
    /// 1500 without the outer headers: 50 bytes, and 20.
    const fn mtu(self) -> u16 {
        match self {
            Self::Geneve => 1450,
            Self::Ipip => 1480,
        }
    }

    /// What makes the device of a node.
    fn device(self, pair: &Pair, own: usize, other: usize) -> String {
        let (local, remote, mtu) = (pair.address(own), pair.address(other), self.mtu());
        match self {
            Self::Geneve => {
                format!("link add {DEVICE} address {} mtu {mtu} type geneve id 1 remote {remote}", mac(own))
            }
            Self::Ipip => {
                format!("link add {DEVICE} mtu {mtu} type ipip local {local} remote {remote} dev {UPLINK}")
            }
        }
    }
}

pub(super) fn build(pair: Pair, underlay: Underlay, kind: Kind) -> Result<Bed> {
    for (own, other) in [(0, 1), (1, 0)] {
        let (node, device) = (&pair.nodes[own], kind.device(&pair, own, other));
        node.ip(&device).with_context(|| format!("{kind:?}, which this kernel may not have"))?;
        node.ip(&format!("link set {DEVICE} up"))?;
        if kind == Kind::Geneve {
            // Nobody has to be asked for a MAC.
            node.ip(&format!("neigh add {} lladdr {} dev {DEVICE} nud permanent", hop(other), mac(other)))?;
        }
    }
    let (client, server, target) = plain::containers(&pair, underlay, kind.mtu())?;
    for (own, other) in [(0, 1), (1, 0)] {
        let subnet = plain::SUBNETS[other];
        pair.nodes[own].ip(&match kind {
            Kind::Geneve => format!("route add {subnet} via {} dev {DEVICE} onlink", hop(other)),
            Kind::Ipip => format!("route add {subnet} dev {DEVICE}"),
        })?;
    }
    Ok(Bed { target, overlay: Overlay::Kernel, client, server, pair })
}

/// The end of the tunnel on a node, as the other one's routes name it.
fn hop(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 209, 1, if node == 0 { 1 } else { 2 })
}

fn mac(node: usize) -> String {
    format!("02:00:00:00:9e:0{node}")
}
