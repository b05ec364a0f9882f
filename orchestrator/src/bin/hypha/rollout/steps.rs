//! How to get from the instances that are there to the number that is wanted.

use protocol::service::Service;

use orchestrator::standing::{counts, is_ready};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) start: usize,
    /// Numbers of the instances to stop, in this order.
    pub(crate) stop: Vec<u32>,
}

/// What does not run goes first, then the youngest: the ones that were there longest have the most connections.
pub(crate) fn steps(service: &Service, wanted: usize) -> Steps {
    let mut there: Vec<_> = service.instance_list.iter().filter(|instance| counts(instance)).collect();
    there.sort_by_key(|instance| (is_ready(instance), std::cmp::Reverse(instance.instance_number)));
    let surplus = there.len().saturating_sub(wanted);
    Steps {
        start: wanted.saturating_sub(there.len()),
        stop: there[..surplus].iter().map(|instance| instance.instance_number).collect(),
    }
}

#[cfg(test)]
mod tests {
    use protocol::service::{Instance, Service};
    use protocol::status::Status;

    use super::steps;
    use crate::sample;

    fn service(instances: &[Status]) -> Service {
        let mut service = sample::service(&sample::app(1, "shop", "prod"), 2, "web");
        service.instance_list =
            (0..).zip(instances).map(|(number, &status)| Instance::new(number, status)).collect();
        service
    }

    #[test]
    fn what_is_missing_is_started_and_what_is_right_is_left() {
        let service = service(&[Status::Running, Status::Failed, Status::Undeployed, Status::Completed]);
        assert_eq!(
            steps(&service, 5).start,
            2,
            "removed ones do not count, failed ones are started again by the cluster"
        );
        let none = steps(&service, 3);
        assert_eq!((none.start, none.stop), (0, vec![]));
    }

    #[test]
    fn what_does_not_run_is_stopped_first_then_the_youngest() {
        let service = service(&[Status::Failed, Status::Running, Status::Running, Status::NodeScheduled]);
        assert_eq!(steps(&service, 1).stop, [3, 0, 2]);
        assert_eq!(steps(&service, 0).stop, [3, 0, 2, 1]);
    }
}
