//! Two nodes and the link between them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Result;
use integration::Netns;
use integration::netns::connect;

use crate::subject::Underlay;

pub(super) const UPLINK: &str = "up0";

/// Two nodes, as network namespaces.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) nodes: [Arc<Netns>; 2],
}

impl Pair {
    /// Joins two new nodes by a veth with an MTU of 1500.
    pub(crate) fn new(underlay: Underlay) -> Result<Self> {
        let pair = Self { nodes: [Arc::new(Netns::new("node1")?), Arc::new(Netns::new("node2")?)] };
        let [first, second] = &pair.nodes;
        connect((first, UPLINK), (second, UPLINK))?;
        for (index, node) in pair.nodes.iter().enumerate() {
            node.ip(&format!("addr add {}/24 dev {UPLINK}", pair.address(index)))?;
            node.output("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
            if underlay == Underlay::Wire {
                // The sender's side of a network card without offloads; the receiver's is to merge.
                let off =
                    ["-K", UPLINK, "tso", "off", "gso", "off", "tx-udp_tnl-segmentation", "off", "gro", "on"];
                node.output("ethtool", &off)?;
            }
        }
        Ok(pair)
    }

    #[expect(clippy::unused_self, reason = "of this pair, as of each")]
    pub(super) fn address(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, if index == 0 { 1 } else { 2 })
    }

    /// The settings of the first node's uplink, as `ethtool -k` names them.
    pub(crate) fn offloads(&self) -> Result<Vec<String>> {
        let text = self.nodes[0].output("ethtool", &["-k", UPLINK])?;
        let of_interest = [
            "tcp-segmentation-offload:",
            "generic-segmentation-offload:",
            "generic-receive-offload:",
            "tx-udp_tnl-segmentation:",
            "tx-checksumming:",
        ];
        let lines =
            text.lines().map(str::trim).filter(|line| of_interest.iter().any(|name| line.starts_with(name)));
        Ok(lines.map(ToOwned::to_owned).collect())
    }
}
