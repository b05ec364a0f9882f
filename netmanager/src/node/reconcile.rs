//! What others have changed behind our back is put right while the daemon runs, as it is when it starts: containers
//! that died, links that were removed or renamed, programs that were detached, pins that were unmounted.

use std::time::Duration;

use tokio::time::Instant;

use super::adopt::is_alive;
use super::{Node, RECONCILE, Refusal, now};
use crate::error::chain;
use crate::net::{Link, Netns, Wiring};
use crate::state::Attachment;

/// How long a container that has gone keeps its address: whoever runs it detaches it, or starts it anew, and an
/// instance that comes back at its old address is reached at once.
const MOURNING: Duration = Duration::from_secs(5);

impl Node {
    /// Compares what is there with what ought to be, and repairs the difference. Nothing that is right is touched.
    pub(super) async fn reconcile(&mut self) {
        self.reconcile_due = Instant::now() + RECONCILE;
        self.follow_uplink().await;
        match self.links.of_containers().await {
            Ok(present) => self.reconcile_containers(&present).await,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot tell whether all containers are connected");
            }
        }
        self.reconcile_itself().await;
        self.tend_links().await;
        self.repair_merging().await;
        self.repair_datapath();
    }

    async fn reconcile_containers(&mut self, present: &[Link]) {
        let missing = |attachment: &&Attachment| {
            !present.iter().any(|link| link.name == attachment.link && link.ifindex == attachment.ifindex)
        };
        let missing: Vec<_> = self.state.endpoints.iter().filter(missing).cloned().collect();
        self.lost.retain(|instance, _| missing.iter().any(|attachment| attachment.instance == *instance));
        for attachment in missing {
            if is_alive(&attachment) {
                self.reconnect(&attachment).await;
                continue;
            }
            let noticed = *self.lost.entry(attachment.instance.clone()).or_insert_with(Instant::now);
            if noticed + MOURNING <= Instant::now() {
                self.forget(&attachment).await;
            } else {
                self.reconcile_due = self.reconcile_due.min(noticed + MOURNING);
            }
        }
    }

    /// The container is gone and took its link along. Whoever runs it may say so later, or never.
    async fn forget(&mut self, attachment: &Attachment) {
        let instance = &attachment.instance;
        tracing::warn!(%instance, pid = attachment.pid, address = %attachment.ns_ip, "container ended unannounced; cleared away");
        self.lost.remove(instance);
        self.take_down(attachment).await;
        let actions = self.resolver.detached(&instance.service, instance.number, attachment.ns_ip, now());
        self.carry_out(actions);
        self.undeployed.push(instance.clone());
        self.announce_undeployed();
    }

    /// The container lives and its link is not as it was made.
    async fn reconnect(&mut self, attachment: &Attachment) {
        let (instance, link) = (&attachment.instance, &attachment.link);
        match self.restore_link(attachment).await {
            Ok(()) => {
                tracing::warn!(%instance, link, "the container's link was removed or renamed; repaired")
            }
            Err(refusal) => {
                tracing::error!(%instance, link, error = chain(&refusal), "the container is cut off; trying again");
            }
        }
    }

    async fn restore_link(&mut self, attachment: &Attachment) -> Result<(), Refusal> {
        let instance = &attachment.instance;
        let links_failed = |source| Refusal::Links { instance: instance.clone(), source };
        let Some(wiring) = self.wiring(attachment)? else { return Ok(()) };
        let netns = Netns::of_process(attachment.pid).map_err(links_failed)?;
        self.links.rename(attachment.ifindex, &attachment.link).await.map_err(links_failed)?;
        self.set_up(attachment.clone(), &wiring, &netns).await
    }

    /// Gives both ends of each container's link the MTU that fits the uplink now.
    pub(super) async fn resize_containers(&self) {
        for attachment in &self.state.endpoints {
            let instance = &attachment.instance;
            let resized = async {
                let links_failed = |source| Refusal::Links { instance: instance.clone(), source };
                let Some(wiring) = self.wiring(attachment)? else { return Ok(()) };
                let netns = Netns::of_process(attachment.pid).map_err(links_failed)?;
                self.links.connect(&wiring, &netns).await.map(drop).map_err(links_failed)
            };
            if let Err(refusal) = resized.await {
                tracing::error!(%instance, error = chain(&refusal), "the container keeps the old MTU");
            }
        }
    }

    /// What the links of an attached container are to look like; nothing without a block of addresses.
    fn wiring(&self, attachment: &Attachment) -> Result<Option<Wiring>, Refusal> {
        let Some(pool) = &self.pool else { return Ok(None) };
        let mtu = self.container_mtu(&attachment.instance)?;
        let (ns_ip, gateway) = (attachment.ns_ip, pool.block().gateway());
        let wiring = Wiring::new(&attachment.instance, ns_ip, gateway, self.wiring6(ns_ip), mtu);
        Ok(Some(wiring.leaving(self.left_to_nic)))
    }

    fn repair_datapath(&mut self) {
        match self.datapath.repair() {
            Ok(repairs) => {
                for repair in repairs {
                    tracing::warn!("{repair}");
                }
                self.place_decapsulation();
            }
            Err(error) => tracing::error!(error = chain(&error), "the data plane cannot be repaired"),
        }
    }
}
