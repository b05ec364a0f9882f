//! The start: what an earlier life of this daemon has left is taken over. Containers that live keep their network
//! without a gap; what has died while nobody looked is cleared away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use protocol::link::LinkOffer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::underlay;
use super::{Itself, Node, RECONCILE, SWEEP, now, offloading};
use crate::balance::Balance;
use crate::bare;
use crate::config::Config;
use crate::datapath::Options;
use crate::error::chain;
use crate::link::Why;
use crate::net::{Egresses, Links, NetError, Netns, Watch, sysctl};
use crate::offload::Offloads;
use crate::pathmtu::PathMtus;
use crate::plane::{Choice, Opened, Plane, PlaneError};
use crate::resolver::Resolver;
use crate::roundtrip::RoundTrips;
use crate::slowpath::SlowPath;
use crate::state::{Attachment, StateError, Store};
use crate::table::Entry;

/// Why the node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("{doing}")]
    Datapath { doing: String, source: PlaneError },
}

impl Node {
    /// Opens the data plane and takes over what is there.
    ///
    /// # Errors
    /// When the state cannot be read, there is no uplink, or the data plane cannot be loaded.
    pub async fn open(
        config: Config,
        store: Store,
        pin_dir: &Path,
        choice: Choice,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let mut state = store.node()?;
        let tables = store.tables().unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "the saved tables are not used");
            Vec::new()
        });
        // Before anything is looked at: what changes afterwards is heard of.
        let watch = Watch::open()?;
        let links = Links::open()?;
        let uplink = links.uplink(underlay::wish(&config, &state, None)).await?;
        let egresses = Egresses::open()?;
        sysctl::enable_forwarding()?;
        let options =
            Options { pin_dir: pin_dir.to_owned(), tunnel_port: protocol::port::TUNNEL, plan: state.plan };
        let opened = Plane::open(choice, &options).map_err(|source| {
            let doing =
                format!("open the data plane (in the kernel it is pinned under {})", pin_dir.display());
            StartError::Datapath { doing, source }
        })?;
        let Opened { plane: mut datapath, events: kernel, fallback } = opened;
        // Whatever needs the port now.
        if let Err(error) = bare::remove(protocol::port::TUNNEL).await {
            tracing::warn!(error = chain(&error), "cannot tell whether FOU has the tunnel's port");
        }
        if !datapath.is_in_kernel() {
            // It has the port that this process needs.
            links.merge_no_more().await?;
        }
        // Where other nodes are is in the tables already, if an earlier life has left some.
        let ways = underlay::ways(&egresses, datapath.peers(), uplink.address);
        datapath.set_uplinks(uplink.address, uplink.ifindex, &datapath.uplinks(), &ways).map_err(
            |source| {
                let doing = format!("attach the data plane to the uplink {}", uplink.name);
                StartError::Datapath { doing, source }
            },
        )?;
        let slow_path = SlowPath::open(&links, &mut datapath, &tasks, stop.clone()).await;
        let slow_path = slow_path.inspect_err(|error| {
            tracing::warn!(
                error = chain(error),
                "packets that have to wait for the cluster are lost instead, and senders are not told why packets go no \
                 further; is the kernel module tun loaded?"
            );
        });
        let path_mtus = PathMtus::open(&datapath, &tasks, &stop).inspect_err(|error| {
            tracing::warn!(%error, "packets that are too large for the way to another node are lost, and the cluster is not told how far others are, since no raw socket may be opened to hear of it");
        });
        tracing::info!(uplink = uplink.name, address = %uplink.address, mode = ?datapath.mode(), "data plane is up");
        let left_to_nic = offloading::adopt(&links, &datapath, state.uplink.as_ref(), &uplink).await;
        state.uplink = Some(uplink.clone());
        state.datapath = Some(datapath.mode());

        let offloads = Offloads::new(&tasks, &stop);
        let round_trips = RoundTrips::new(&tasks, &stop);
        let known_links = datapath.linked().map(|node| (node, LinkOffer { vx: true }));
        let mut resolver = Resolver::adopt_links(known_links);
        resolver.set_plan(state.plan);
        let balance = Balance::adopt(&datapath, now());
        let pool = state.pool();
        let mut node = Self {
            config,
            uplink,
            egresses,
            other_uplinks: Vec::new(),
            ways: BTreeMap::new(),
            ways_seen: Instant::now(),
            placements: Vec::new(),
            offer: Err(Why::InUserSpace),
            bare: bare::Merging::default(),
            undecided: BTreeSet::new(),
            store,
            state,
            pool,
            links,
            watch,
            datapath,
            fallback,
            kernel,
            slow_path: slow_path.ok(),
            path_mtus: path_mtus.ok(),
            round_trips,
            offloads,
            left_to_nic,
            links_behind: true,
            resolver,
            balance,
            misses_seen: 0,
            cluster: None,
            itself: Itself::Absent,
            registrations: Vec::new(),
            unnamed: Vec::new(),
            undeployed: Vec::new(),
            told_without_ipv6: false,
            tables_due: None,
            sweep_due: Instant::now() + SWEEP,
            reconcile_due: Instant::now() + RECONCILE,
            lost: BTreeMap::new(),
            tasks,
            stop,
        };
        node.warn_if_translated();
        node.adopt_endpoints().await?;
        node.connect_itself().await;
        node.tend_links().await;
        node.adopt_links();
        node.adopt_services(tables);
        node.follow_uplink().await;
        node.datapath.sweep().map_err(|source| StartError::Datapath {
            doing: "end what an earlier data plane has left".to_owned(),
            source,
        })?;
        node.place_decapsulation();
        if let Err(refusal) = node.apply_rules().await {
            tracing::error!(
                error = chain(&refusal),
                "containers may not reach the world outside the overlay"
            );
        }
        node.tend_offer().await;
        node.warn_of_dropping_chains().await;
        node.write_state()?;
        node.connect_to_cluster();
        Ok(node)
    }

    async fn adopt_endpoints(&mut self) -> Result<(), StartError> {
        let present = self.links.of_containers().await?;
        let (alive, dead): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.state.endpoints).into_iter().partition(|attachment| {
                present.iter().any(|link| link.name == attachment.link && link.ifindex == attachment.ifindex)
                    && is_alive(attachment)
            });
        self.state.endpoints = alive;
        for attachment in dead {
            let instance = &attachment.instance;
            tracing::warn!(%instance, pid = attachment.pid, address = %attachment.ns_ip, "container ended while netmanager was down; cleared away");
            self.take_down(&attachment).await;
            self.undeployed.push(attachment.instance);
        }
        for link in present {
            if !self.state.endpoints.iter().any(|attachment| attachment.link == link.name) {
                tracing::warn!(
                    link = link.name,
                    alias = link.alias,
                    "removing a link that belongs to no container"
                );
                self.links.remove(&link.name).await?;
            }
        }
        self.adopt_in_datapath().map_err(|source| StartError::Datapath {
            doing: "take over the containers in the data plane".to_owned(),
            source,
        })?;
        if !self.state.endpoints.is_empty() {
            tracing::info!(containers = self.state.endpoints.len(), "containers taken over");
        }
        Ok(())
    }

    fn adopt_in_datapath(&mut self) -> Result<(), PlaneError> {
        for attachment in &self.state.endpoints {
            self.datapath.attach_endpoint(&attachment.endpoint())?;
        }
        for endpoint in self.datapath.endpoints()? {
            if !self.state.endpoints.iter().any(|attachment| attachment.ns_ip == endpoint.ns_ip) {
                self.datapath.detach_endpoint(endpoint.ns_ip)?;
            }
        }
        Ok(())
    }

    fn adopt_services(&mut self, tables: Vec<protocol::net::TableResult>) {
        match self.datapath.services() {
            Ok(services) => {
                for service in services {
                    let address = service.service_ip;
                    let backends = [service.backends, service.resting].concat();
                    // The next answer says which of them are being stopped.
                    let entry = Entry { backends, ..Entry::empty(service.policy) };
                    self.balance.adopt_service(address, entry.policy, entry.backends.clone());
                    self.resolver.adopt(address, entry, now());
                }
            }
            Err(error) => tracing::warn!(error = chain(&error), "cannot read which services are published"),
        }
        for table in tables {
            let actions = self.resolver.answered(table, now());
            self.carry_out(actions);
        }
        for attachment in self.state.endpoints.clone() {
            let (service, number) = (&attachment.instance.service, attachment.instance.number);
            let actions = self.resolver.attached(service, number, now());
            self.carry_out(actions);
        }
    }
}

/// Whether the process that the container was attached for still has the network namespace that it had.
pub(super) fn is_alive(attachment: &Attachment) -> bool {
    Netns::of_process(attachment.pid).is_ok_and(|netns| netns.inode() == attachment.netns)
}
