//! Where the outer headers of arriving packets are taken off.

use netmanager_common::link::Link;
use serde::{Deserialize, Serialize};

use super::Kernel;
use crate::datapath::FROM_UPLINK;
use crate::error::chain;
use crate::net::Links;
use crate::plane::Mode;
use crate::{bare, hooks, state};

/// What is done to the packets of one uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwrapping {
    pub interface: String,
    /// The kernel's name of the driver, if the daemon has asked for it and there is one.
    pub driver: Option<String>,
    /// `xdp`: in the driver; `tc`: at the ingress; `socket`: by this process.
    pub place: String,
    /// How packets are wrapped that the kernel merges before they come there: `bare`, `vx`.
    #[serde(default)]
    pub merges: Vec<String>,
    /// Why it is done there; nothing while no daemon runs, which has decided it.
    pub why: Option<String>,
    /// Packets that were unwrapped in the driver since the tables were made.
    pub early_packets: u64,
    /// Packets that were not, since the driver gave no room for a mark.
    pub no_metadata_packets: u64,
}

/// Of the uplink that gives the node its address, if there is one yet. The counters are of all uplinks together.
pub(super) fn all(kernel: &Kernel, state: &state::Node) -> Vec<Unwrapping> {
    let one = if !kernel.is_loaded {
        None
    } else if state.datapath == Some(Mode::Userspace) {
        state.uplink.as_ref().map(|uplink| Unwrapping {
            interface: uplink.name.clone(),
            driver: None,
            place: "socket".to_owned(),
            merges: Vec::new(),
            why: Some("netmanager forwards packets itself".to_owned()),
            early_packets: 0,
            no_metadata_packets: 0,
        })
    } else {
        in_kernel(kernel)
    };
    one.into_iter().collect()
}

/// As the daemon has decided; without one as it is seen at the interface.
fn in_kernel(kernel: &Kernel) -> Option<Unwrapping> {
    let (interface, driver, place, why) = match &kernel.placement {
        Some(it) => (it.interface.clone(), it.driver.clone(), it.place.to_string(), Some(it.why.to_string())),
        None => {
            let uplink = kernel.hooks.iter().find(|hook| hook.program == FROM_UPLINK)?;
            let is_early = |it: &hooks::Attached| it.ours && it.place == hooks::Place::Xdp;
            let place = if uplink.attached.iter().any(is_early) { "xdp" } else { "tc" };
            (uplink.interface.clone()?, None, place.to_owned(), None)
        }
    };
    let (early_packets, no_metadata_packets) = (kernel.early.unwrapped, kernel.early.no_metadata);
    let is_early = place == "xdp";
    let merges = |link: &Link| kernel.merged.contains(link) || (*link == Link::Bare && is_early);
    let merges = [Link::Bare, Link::Vx].iter().filter(|link| merges(link)).map(|link| name(*link).to_owned());
    let merges = merges.collect();
    Some(Unwrapping { interface, driver, place, merges, why, early_packets, no_metadata_packets })
}

const fn name(link: Link) -> &'static str {
    match link {
        Link::Bare => "bare",
        Link::Vx => "vx",
    }
}

/// How packets are wrapped that the kernel merges since something listens on the tunnel's port; what cannot be asked does not.
pub(super) async fn merged(links: &Links) -> Vec<Link> {
    let is_vx = links.merges(protocol::port::TUNNEL).await.unwrap_or_else(|error| {
        tracing::debug!(error = chain(&error), "cannot tell whether packets in VXLAN's format are merged");
        false
    });
    let is_bare = bare::is_merged(protocol::port::TUNNEL);
    [(Link::Bare, is_bare), (Link::Vx, is_vx)]
        .into_iter()
        .filter_map(|(link, is)| is.then_some(link))
        .collect()
}
