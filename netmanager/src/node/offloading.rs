//! What containers' kernels leave to the NIC: all, until a way to another node is seen to lose it. See [`crate::offload`].
//!
//! What was found is kept by the kernel, at the link of the node itself: a restart of this daemon finds it there, and after
//! one of the machine it is found out anew.

use std::net::{IpAddr, Ipv4Addr};

use tokio::time::Instant;

use super::Node;
use super::adopt::is_alive;
use super::itself::Itself;
use crate::datapath::{Backend, Policy, Ranges, Service};
use crate::error::chain;
use crate::net::{LeftToNic, Links, NetError, Netns, OWN_LINK, Uplink, macs};
use crate::offload::{Asker, Judged, Verdict};
use crate::plane::Plane;
use crate::state::Attachment;

impl Node {
    /// Who asks; nothing while there is nothing to find out. In user space packets are finished before they are sent.
    pub(super) fn asker(&self) -> Option<Asker> {
        let Itself::Connected { ns_ip, .. } = self.itself else { return None };
        if !self.datapath.is_in_kernel() || self.left_to_nic == LeftToNic::Nothing {
            return None;
        }
        let (mac, gateway_mac) = macs(ns_ip);
        Some(Asker { ns_ip, mac, gateway_mac })
    }

    /// When [`Self::ask_nodes`] has something to do, but for nodes that become known.
    pub(super) fn asking_due(&self) -> Option<Instant> {
        self.asker().and_then(|_| self.offloads.deadline()).map(Instant::from_std)
    }

    /// Asks the nodes that are due.
    pub(super) fn ask_nodes(&mut self, moment: Instant) {
        let Some(from) = self.asker() else { return };
        let mut nodes = self.datapath.peers();
        nodes.remove(&self.uplink.address);
        let due = self.offloads.due(&nodes, moment.into_std());
        if due.is_empty() {
            return;
        }
        let services = self.datapath.services().unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "cannot tell whom to ask on other nodes");
            Vec::new()
        });
        let ranges = Ranges::from(self.state.plan);
        for node in due {
            let instances = instances_on(node, &services, &ranges);
            if !instances.is_empty() {
                self.try_bare(node);
            }
            self.offloads.ask(from, self.left_to_nic, ranges, node, &instances);
        }
    }

    /// These are behind this address.
    pub(super) fn tell_of_instances(&mut self, address: IpAddr, backends: &[Backend]) {
        if Ranges::from(self.state.plan).is_service(address) {
            backends.iter().for_each(|backend| self.offloads.instance_on(backend.node.ip()));
        }
    }

    /// What becomes of packets on the way to a node says how they are to be wrapped, and what is to be left to the NIC.
    pub(super) async fn hear_of_way(&mut self, Judged { node, verdict }: Judged) {
        if self.decide_link(node, verdict)
            && let Verdict::Lost(left) = verdict
            && left > self.left_to_nic
        {
            self.hear_of_loss(node, left).await;
        }
    }

    /// It may be one NIC of several; what it costs the others is little.
    async fn hear_of_loss(&mut self, node: IpAddr, left: LeftToNic) {
        let interface = self.ways.get(&node).copied().unwrap_or(self.uplink.ifindex);
        let what = match left {
            LeftToNic::Nothing => {
                "checksums that the NIC is to complete are wrong at a node, or packets with them do not get there: \
                 containers' kernels compute them, and cut segments, themselves from now on"
            }
            LeftToNic::Checksums | LeftToNic::All => {
                "packets that the NIC is to cut into segments do not get to a node: containers' kernels cut them \
                 themselves from now on"
            }
        };
        let remedy =
            format!("a newer driver may do better; after `ip link delete {OWN_LINK}` it is tried again");
        tracing::warn!(%node, interface, remedy, "{what}");
        self.leave_to_nic(left).await;
    }

    /// The uplink is another one, or somebody wants it tried again.
    pub(super) async fn trust_nic_again(&mut self) {
        self.offloads.anew_all();
        if self.left_to_nic != LeftToNic::All {
            tracing::info!(
                "segments and checksums are left to the NIC again, to see whether it gets them right now"
            );
            self.leave_to_nic(LeftToNic::All).await;
        }
        let decided: Vec<_> = self.datapath.linked().chain(self.undecided.iter().copied()).collect();
        decided.into_iter().for_each(|node| self.wrap_anew(node));
    }

    /// Whoever takes the link of the node itself away takes along what was found.
    pub(super) async fn forget_nic_without_own_link(&mut self) {
        if self.left_to_nic != LeftToNic::All && matches!(self.links.left_to_nic(OWN_LINK).await, Ok(None)) {
            self.trust_nic_again().await;
        }
    }

    async fn leave_to_nic(&mut self, left: LeftToNic) {
        self.left_to_nic = left;
        self.links_behind = true;
        self.tend_links().await;
    }

    /// Lets containers and the node itself leave as much to the NIC as they should; tried again until it is so.
    pub(super) async fn tend_links(&mut self) {
        if !self.links_behind {
            return;
        }
        self.links_behind = false;
        if matches!(self.itself, Itself::Connected { .. }) {
            let left = self.links.leave_to_nic(OWN_LINK, self.left_to_nic).await;
            self.note_left(OWN_LINK, left);
        }
        for attachment in self.state.endpoints.clone() {
            // Else it is cleared away.
            if is_alive(&attachment) {
                let left = leave_in(&attachment, self.left_to_nic).await;
                self.note_left(&attachment.link, left);
            }
        }
    }

    fn note_left(&mut self, link: &str, left: Result<(), NetError>) {
        if let Err(error) = left {
            tracing::warn!(
                link,
                error = chain(&error),
                "cannot change what is left to the NIC; trying again"
            );
            self.links_behind = true;
        }
    }
}

async fn leave_in(attachment: &Attachment, left: LeftToNic) -> Result<(), NetError> {
    Netns::of_process(attachment.pid)?.leave_to_nic(left).await
}

/// What an earlier life has found; all, if that was of another uplink.
pub(super) async fn adopt(links: &Links, plane: &Plane, before: Option<&Uplink>, now: &Uplink) -> LeftToNic {
    if !plane.is_in_kernel() || before.is_some_and(|before| before.ifindex != now.ifindex) {
        return LeftToNic::All;
    }
    let found = links.left_to_nic(OWN_LINK).await.unwrap_or_else(|error| {
        tracing::debug!(error = chain(&error), "cannot tell what was left to the NIC");
        None
    });
    found.unwrap_or_default()
}

/// The addresses of instances on a node by which they alone are reached. Not of the node itself: what its processes are sent
/// may be dropped by its firewall, which proves nothing.
fn instances_on(node: IpAddr, services: &[Service], ranges: &Ranges) -> Vec<Ipv4Addr> {
    let addresses = services.iter().filter_map(|service| match (service.service_ip, &service.backends[..]) {
        (IpAddr::V4(address), [backend]) if service.policy == Policy::Instance => {
            (backend.node.ip() == node && ranges.is_service(address.into())).then_some(address)
        }
        _ => None,
    });
    addresses.collect()
}
