//! What this node tells its cluster of how far the others are.

use protocol::rtt::{RttPeers, RttReport};
use protocol::topic::NodeTopic;
use tokio::time::Instant;

use super::Node;

impl Node {
    /// The cluster names those that are to be measured.
    pub(super) fn measure_peers(&mut self, peers: RttPeers) {
        let Some(cluster) = &self.cluster else { return };
        let own = cluster.session.target().node;
        self.round_trips.told(peers, own, Instant::now().into_std());
    }

    /// Measures those that are due, and says what is news.
    pub(super) fn tend_round_trips(&mut self, moment: Instant) {
        if let Some(report) = self.round_trips.tick(moment.into_std()) {
            self.tell_round_trips(&report);
        }
    }

    pub(super) fn tell_round_trips(&self, report: &RttReport) {
        if let Some(cluster) = &self.cluster {
            cluster.session.publish(NodeTopic::Rtt, report);
        }
    }
}
