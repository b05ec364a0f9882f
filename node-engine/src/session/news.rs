//! What of the reports is news to the cluster. One that has not said that it keeps what it is told gets everything, each
//! time.

use std::time::{Duration, Instant};

use protocol::node::{InstanceResources, Node, ResourceReport};

/// Of the machine's processors and memory, in points of per cent: what wavers by less is as it was.
const NODE_POINTS: [f64; 2] = [10.0, 2.0];
/// The same of an instance.
const INSTANCE_POINTS: [f64; 2] = [5.0, 1.0];
/// Bytes that an instance has on disk.
const DISK: u64 = 1 << 20;
/// MB that are free on the machine's disk: at least so many, and one part in so many of what was free.
const DISK_FREE: u64 = 100;
const DISK_FREE_PART: u64 = 20;
/// What instances have written is shown; it is not worth a report each time.
const LOGS_EVERY: Duration = Duration::from_secs(4);
/// Everything is said again after so long: what wavers may have wandered.
const ALL_EVERY: Duration = Duration::from_secs(300);

/// What was said over one connection.
#[derive(Debug)]
pub(super) struct News {
    is_kept: bool,
    node: Option<Said<Node>>,
    instances: Option<Said<ResourceReport>>,
    /// Anything, since it was last asked whether something should be.
    spoke: bool,
}

#[derive(Debug)]
struct Said<T> {
    what: T,
    at: Instant,
}

impl News {
    /// To a cluster that keeps what it is told, or to another one.
    pub(super) fn to(is_kept: bool) -> Self {
        Self { is_kept, node: None, instances: None, spoke: false }
    }

    pub(super) fn is_news_of_node(&self, node: &Node, now: Instant) -> bool {
        let Some(Said { what, at }) = self.node.as_ref().filter(|_| self.is_kept) else { return true };
        now.saturating_duration_since(*at) >= ALL_EVERY
            || what.ip != node.ip
            || is_news_of_disk(what.disk_free().unwrap_or(0), node.disk_free().unwrap_or(0))
            || differ(
                [what.cpu_percent, what.memory_percent],
                [node.cpu_percent, node.memory_percent],
                NODE_POINTS,
            )
    }

    pub(super) fn is_news_of_instances(&self, report: &ResourceReport, now: Instant) -> bool {
        let Some(Said { what, at }) = self.instances.as_ref().filter(|_| self.is_kept) else { return true };
        let age = now.saturating_duration_since(*at);
        age >= ALL_EVERY
            || what.services.len() != report.services.len()
            || what.services.iter().zip(&report.services).any(|(before, after)| {
                is_news(before, after) || age >= LOGS_EVERY && before.logs != after.logs
            })
    }

    pub(super) fn said_of_node(&mut self, node: Node, now: Instant) {
        self.node = Some(Said { what: node, at: now });
        self.spoke = true;
    }

    pub(super) fn said_of_instances(&mut self, report: ResourceReport, now: Instant) {
        self.instances = Some(Said { what: report, at: now });
        self.spoke = true;
    }

    /// Asked once in the time within which something is to be said: whether that is that all is as it was.
    pub(super) fn nothing_was_said(&mut self) -> bool {
        let spoke = std::mem::replace(&mut self.spoke, false);
        self.is_kept && self.instances.is_some() && !spoke
    }
}

/// The order is that of the runtime's list, which changes with it.
fn is_news(before: &InstanceResources, after: &InstanceResources) -> bool {
    let name = |it: &InstanceResources| (it.job_name.clone(), it.instance);
    let number = |text: &str| text.parse().unwrap_or(0.0);
    let measured = |it: &InstanceResources| [number(&it.cpu_percent), number(&it.memory_percent)];
    let disk = |it: &InstanceResources| it.disk.parse::<u64>().unwrap_or(0);
    name(before) != name(after)
        || differ(measured(before), measured(after), INSTANCE_POINTS)
        || disk(before).abs_diff(disk(after)) >= DISK
}

fn is_news_of_disk(before: u64, after: u64) -> bool {
    before.abs_diff(after) >= DISK_FREE.max(before / DISK_FREE_PART)
}

fn differ(before: [f64; 2], after: [f64; 2], by: [f64; 2]) -> bool {
    before.iter().zip(after).zip(by).any(|((before, after), by)| (before - after).abs() >= by)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use protocol::node::{InstanceResources, Node, ResourceReport};

    use super::{LOGS_EVERY, News, is_news_of_disk};

    fn instance(number: u32, cpu_percent: &str, logs: &str) -> InstanceResources {
        InstanceResources {
            cpu_percent: cpu_percent.to_owned(),
            memory_percent: "1.0".to_owned(),
            disk: "4096".to_owned(),
            logs: logs.to_owned(),
            job_name: "smp.bed.srv.bed".parse().unwrap(),
            virtualization: "docker".to_owned(),
            instance: number,
        }
    }

    fn report(services: &[InstanceResources]) -> ResourceReport {
        ResourceReport { services: services.to_vec(), more: false }
    }

    fn node(cpu_percent: f64, memory_percent: f64, ip: &str) -> Node {
        Node { cpu_percent, memory_percent, ip: ip.to_owned(), ..Node::default() }
    }

    #[test]
    fn a_cluster_that_does_not_keep_it_is_told_everything_each_time() {
        let (mut news, now) = (News::to(false), Instant::now());
        for _ in 0..2 {
            assert!(news.is_news_of_node(&Node::default(), now));
            assert!(news.is_news_of_instances(&ResourceReport::default(), now));
            news.said_of_node(Node::default(), now);
            news.said_of_instances(ResourceReport::default(), now);
        }
        assert!(!news.nothing_was_said() && !news.nothing_was_said(), "it does not know that word");
    }

    #[test]
    fn what_wavers_is_no_news_and_what_changes_is() {
        let (mut news, now) = (News::to(true), Instant::now());
        news.said_of_node(node(20.0, 50.0, "192.0.2.31"), now);
        for (after, expected) in [
            (node(29.0, 51.0, "192.0.2.31"), false),
            (node(30.5, 50.0, "192.0.2.31"), true),
            (node(9.0, 50.0, "192.0.2.31"), true),
            (node(20.0, 47.0, "192.0.2.31"), true),
            (node(20.0, 50.0, "192.0.2.32"), true),
        ] {
            assert_eq!(news.is_news_of_node(&after, now), expected, "{after:?}");
        }
        assert!(news.is_news_of_node(&node(20.0, 50.0, "192.0.2.31"), now + Duration::from_secs(300)));

        news.said_of_instances(report(&[instance(0, "1.0", "a")]), now);
        for (after, expected) in [
            (report(&[instance(0, "4.0", "a")]), false),
            (report(&[instance(0, "7.0", "a")]), true),
            (report(&[instance(1, "1.0", "a")]), true),
            (report(&[]), true),
            (report(&[instance(0, "1.0", "a"), instance(1, "1.0", "a")]), true),
            (report(&[instance(0, "1.0", "b")]), false),
        ] {
            assert_eq!(news.is_news_of_instances(&after, now), expected, "{after:?}");
        }
        let later = now + LOGS_EVERY;
        assert!(news.is_news_of_instances(&report(&[instance(0, "1.0", "b")]), later));
        assert!(!news.is_news_of_instances(&report(&[instance(0, "1.0", "a")]), later));
    }

    #[test]
    fn a_disk_is_news_when_a_good_part_of_it_was_filled_or_freed() {
        for (before, after, expected) in [
            (1000, 901, false),
            (1000, 900, true),
            (1000, 1100, true),
            (40_000, 38_001, false),
            (40_000, 38_000, true),
        ] {
            assert_eq!(is_news_of_disk(before, after), expected, "{before} {after}");
        }
    }

    #[test]
    fn that_all_is_as_it_was_is_said_after_what_it_was_and_in_silence_only() {
        let (mut news, now) = (News::to(true), Instant::now());
        news.said_of_node(Node::default(), now);
        assert!(!news.nothing_was_said(), "something was");
        assert!(!news.nothing_was_said(), "of instances nothing was said yet");
        news.said_of_instances(ResourceReport::default(), now);
        assert!(!news.nothing_was_said());
        assert!(news.nothing_was_said() && news.nothing_was_said());
    }
}
