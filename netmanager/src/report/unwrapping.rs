//! Where the outer headers of arriving packets are taken off.

use serde::{Deserialize, Serialize};

use super::Kernel;
use crate::datapath::FROM_UPLINK;
use crate::hooks;
use crate::plane::Mode;
use crate::state;

/// What is done to the packets of one uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwrapping {
    pub interface: String,
    /// The kernel's name of the driver, if the daemon has asked for it and there is one.
    pub driver: Option<String>,
    /// `xdp`: in the driver; `tc`: at the ingress; `socket`: by this process.
    pub place: String,
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
    Some(Unwrapping { interface, driver, place, why, early_packets, no_metadata_packets })
}
