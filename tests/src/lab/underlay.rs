//! The network between the nodes: a bridge in a namespace of its own, which is also the nodes' router.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::long_cable::LongCable;
use crate::netns::{Netns, connect};

/// The link of a node to the underlay, by its name inside the node.
pub const UPLINK: &str = "eth0";
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PREFIX: u8 = 24;

#[derive(Debug)]
pub struct Underlay {
    pub netns: Netns,
}

impl Underlay {
    pub fn make() -> Result<Self> {
        let netns = Netns::new("underlay")?;
        netns.ip("link add bridge0 type bridge forward_delay 0")?;
        netns.ip(&format!("addr add {ROUTER}/{PREFIX} dev bridge0"))?;
        netns.ip("link set bridge0 up")?;
        Ok(Self { netns })
    }

    /// Makes a node: a namespace with this address on the underlay, and a default route.
    pub fn add_node(&self, name: &str, address: Ipv4Addr) -> Result<Arc<Netns>> {
        let node = Netns::new(name)?;
        connect((&self.netns, name), (&node, UPLINK))?;
        self.netns.ip(&format!("link set {name} master bridge0"))?;
        node.ip(&format!("addr add {address}/{PREFIX} dev {UPLINK}"))?;
        node.ip(&format!("route add default via {ROUTER}"))?;
        Ok(Arc::new(node))
    }

    /// Pulls a node's cable out.
    pub fn unplug(&self, node: &str) -> Result<()> {
        self.netns.ip(&format!("link set {node} down"))
    }

    /// Gives a node a cable on which each frame takes so long, each way.
    pub fn lengthen(&self, node: &str, delay: Duration) -> Result<LongCable> {
        let [near, far] = ends(node);
        self.netns.ip(&format!("link add {near} type veth peer name {far}"))?;
        for link in [&near, &far] {
            self.netns.ip(&format!("link set {link} up"))?;
        }
        self.netns.ip(&format!("link set {far} master bridge0"))?;
        self.netns.ip(&format!("link set {node} nomaster"))?;
        LongCable::join(&self.netns, [node, &near], delay)
    }

    /// Gives it the short one back.
    pub fn shorten(&self, node: &str, cable: LongCable) -> Result<()> {
        cable.remove()?;
        self.netns.ip(&format!("link delete {}", ends(node)[0]))?;
        self.netns.ip(&format!("link set {node} master bridge0"))
    }

    pub fn plug_in(&self, node: &str) -> Result<()> {
        self.netns.ip(&format!("link set {node} up"))
    }
}

/// The names of a long cable's end, beside the node's own link and at the bridge.
fn ends(node: &str) -> [String; 2] {
    ["near", "far"].map(|end| format!("{node}-{end}"))
}
