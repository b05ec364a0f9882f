//! What is said of an instance beside its status: why it was not the first of its kind, and why it gets no place.

use protocol::status::Status;

use super::{Instance, Phase};
use crate::cluster::decisions::WithoutPlace;

impl Instance {
    /// A detail, and why it is not the first of its kind: the reason of a failure is wanted when all looks well again.
    pub(super) fn after_what(&self, detail: &str) -> String {
        match &self.record.left {
            Some(reason) if detail.is_empty() => format!("Before: {reason}"),
            Some(reason) => format!("{detail}; before: {reason}"),
            None => detail.to_owned(),
        }
    }

    /// Nothing fits; and it `is_bound` to this cluster, where something is that it is to be near to. Says whether that is new.
    pub(in crate::cluster) fn no_room(
        &mut self,
        reason: String,
        refused: WithoutPlace,
        is_bound: bool,
    ) -> bool {
        self.phase = Phase::Waiting { until: None, no_room: true };
        // One that still serves where it was lacks nothing that the root could give it elsewhere.
        let serves = self.record.moving_from.is_some();
        let status = if serves || is_bound { Status::ClusterScheduled } else { Status::NoWorkerCapacity };
        let is_news = self.status() != status || self.says_otherwise(&reason, &refused);
        if is_news {
            self.set(status, reason);
            self.refused = Some(refused);
        }
        is_news
    }

    /// It stays where it is, though it should not, since nothing else fits. Says whether that is new.
    pub(in crate::cluster) fn stays(&mut self, detail: String, refused: WithoutPlace) -> bool {
        let is_news = self.says_otherwise(&detail, &refused);
        if is_news {
            self.remark(detail);
            self.refused = Some(refused);
        }
        is_news
    }

    /// Something is to be said of it, of which its status is not another one.
    pub(in crate::cluster) fn remark(&mut self, detail: String) {
        self.refused = None;
        self.record.document.status_detail = Some(detail);
    }

    fn says_otherwise(&self, detail: &str, refused: &WithoutPlace) -> bool {
        let is_same = self.record.document.status_detail.as_deref() == Some(detail);
        !is_same && !self.refused.as_ref().is_some_and(|earlier| refused.repeats(earlier))
    }
}
