//! What the node says of itself.

use std::net::SocketAddr;

use super::Node;
use crate::error::chain;
use crate::report::{Daemon, Kernel, Report, SessionState};
use crate::slowpath::SlowPath;

impl Node {
    pub(super) async fn report(&self) -> Report {
        let mut kernel = self.datapath.look(&self.links).await.unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "cannot read the data plane's tables");
            Kernel::default()
        });
        kernel.placement = self.placements.first().cloned();
        let daemon = Daemon {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tunnel: SocketAddr::new(self.advertised(), self.config.public_port),
            session: self
                .cluster
                .as_ref()
                .map_or(SessionState::Unregistered, |cluster| cluster.state.clone()),
            fallback: self.fallback.clone(),
            misses: self.misses_seen,
            slow_path: self.slow_path.as_ref().map(SlowPath::counts),
            left_to_nic: self.left_to_nic,
            links_on_trial: self.links_on_trial(),
        };
        let owner = |address| self.resolver.owner(address).cloned();
        Report::new(&self.state, kernel, owner, Some(daemon))
    }
}
