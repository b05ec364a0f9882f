//! Which paths are looked at while packets go there: one that becomes narrower between silent routers makes connections
//! stand still, which must not last until the next measurement. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often.
const INTERVAL: Duration = Duration::from_secs(5);
/// A path over which nothing has come back for so long is not in use.
pub(super) const IN_USE: Duration = Duration::from_secs(15);

/// When to look at the paths that are in use, and at which one is looked just now.
#[derive(Debug, Default)]
pub(super) struct Watch {
    at: Option<Instant>,
    under_way: BTreeSet<IpAddr>,
}

impl Watch {
    /// Whether it is time to look; then the next time is an [`INTERVAL`] later. Without `nodes` there is none.
    pub(super) fn is_due(&mut self, nodes: &BTreeSet<IpAddr>, now: Instant) -> bool {
        let next = now + INTERVAL;
        let at = *self.at.get_or_insert(next);
        if nodes.is_empty() {
            self.at = None;
            return false;
        }
        let is_due = at <= now;
        if is_due {
            self.at = Some(next);
        }
        is_due
    }

    /// Whether to look at the path to this node, which is in use: not while the last look is under way.
    pub(super) fn begin(&mut self, node: IpAddr) -> bool {
        self.under_way.insert(node)
    }

    /// The look at this path has ended.
    pub(super) fn ended(&mut self, node: IpAddr) {
        self.under_way.remove(&node);
    }

    /// When [`Self::is_due`] will be true.
    pub(super) fn next(&self) -> Option<Instant> {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use super::{INTERVAL, Watch};

    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn paths_are_looked_at_in_intervals_while_there_are_nodes() {
        let (mut watch, nodes, now) = (Watch::default(), BTreeSet::from([NODE]), Instant::now());
        assert!(!watch.is_due(&nodes, now));
        assert_eq!(watch.next(), Some(now + INTERVAL));
        assert!(!watch.is_due(&nodes, now + INTERVAL - Duration::from_nanos(1)));
        let late = now + INTERVAL * 3;
        assert!(watch.is_due(&nodes, late));
        assert!(!watch.is_due(&nodes, late), "once");
        assert_eq!(watch.next(), Some(late + INTERVAL));
        assert!(!watch.is_due(&BTreeSet::new(), late + INTERVAL));
        assert_eq!(watch.next(), None, "nobody is there: the node can sleep");
    }

    #[test]
    fn no_path_is_looked_at_twice_at_a_time() {
        let mut watch = Watch::default();
        assert!(watch.begin(NODE));
        assert!(!watch.begin(NODE));
        watch.ended(NODE);
        assert!(watch.begin(NODE));
    }
}
