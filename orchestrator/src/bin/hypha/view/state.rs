//! States in words, and what they mean for who waits for them.

use protocol::service::{Instance, Service};
use protocol::status::Status;

use crate::output::Mood;

/// The word for a state, as tables and progress show it.
pub(crate) const fn word(status: Status) -> &'static str {
    match status {
        Status::Requested => "requested",
        Status::ClusterScheduled => "accepted",
        Status::NodeScheduled => "placed",
        Status::Creating => "creating",
        Status::Created => "created",
        Status::Running => "running",
        Status::Failed => "failed",
        Status::Dead => "dead",
        Status::Completed => "completed",
        Status::Undeployed => "removed",
        _ => "waiting",
    }
}

pub(crate) const fn mood(status: Status) -> Mood {
    match status {
        Status::Running | Status::Completed => Mood::Good,
        Status::Failed | Status::Dead => Mood::Bad,
        Status::Undeployed => Mood::Plain,
        _ => Mood::Changing,
    }
}

/// Whether the instance is one of those that were asked for, whatever became of it so far: the cluster starts again
/// what failed, and what has done its one task is not to do it twice.
pub(crate) fn counts(instance: &Instance) -> bool {
    instance.status != Status::Undeployed
}

pub(crate) fn is_ready(instance: &Instance) -> bool {
    matches!(instance.status, Status::Running | Status::Completed)
}

/// Why it is as it is: what the root says, else what the state itself means. Nothing for what is as it should be.
pub(crate) fn cause(status: Status, detail: Option<&str>) -> String {
    if matches!(status, Status::Running | Status::Completed | Status::Undeployed) {
        return String::new();
    }
    // Oakestra fills the field with these when there is nothing to say.
    const EMPTY: [&str; 4] =
        ["", "No extra information", "Waiting for scheduling decision", "Container is starting up"];
    let detail = detail.map(str::trim).filter(|detail| !EMPTY.contains(detail));
    detail.map_or_else(|| meaning(status).to_owned(), str::to_owned)
}

const fn meaning(status: Status) -> &'static str {
    match status {
        Status::Requested => "waits for a decision where to run",
        Status::ClusterScheduled => "its cluster looks for a worker",
        Status::NodeScheduled => "its worker is about to create it",
        Status::Creating => "its worker creates it",
        Status::Created => "started, first report awaited",
        Status::Failed => "no reason given; the cluster will try again",
        Status::Dead => "it ended; the cluster will start it again",
        Status::TargetClusterNotFound => "no cluster has the name that the constraints ask for",
        Status::TargetClusterNotActive => "the cluster that the constraints ask for is out of reach",
        Status::TargetClusterNoCapacity => "the cluster that the constraints ask for has no room",
        Status::NoActiveClusterWithCapacity => "no cluster in reach has room for it",
        Status::NoWorkerCapacity => "no worker has room for it",
        Status::NoQualifiedWorkerFound | Status::NoNodeFound => "no worker fits its needs",
        Status::Running | Status::Completed | Status::Undeployed => "",
    }
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) ready: usize,
    pub(crate) total: usize,
    pub(crate) word: &'static str,
    pub(crate) mood: Mood,
    /// Empty when all is well.
    pub(crate) cause: String,
}

/// The worst of the instances speaks for the service; before it, that one could not be placed at all.
pub(crate) fn standing(service: &Service) -> Standing {
    let total = service.instance_list.iter().filter(|instance| counts(instance)).count();
    let ready = service.instance_list.iter().filter(|instance| is_ready(instance)).count();
    let unplaced = service.status.filter(|status| status.is_unschedulable());
    let worst = service
        .instance_list
        .iter()
        .filter(|instance| counts(instance) && !is_ready(instance))
        .max_by_key(|instance| mood(instance.status) == Mood::Bad);
    let (status, cause) = match (unplaced, worst) {
        (Some(status), _) => (status, cause(status, service.status_detail.as_deref())),
        (None, Some(worst)) => {
            let cause = cause(worst.status, worst.status_detail.as_deref());
            (worst.status, format!("/{}: {cause}", worst.instance_number))
        }
        (None, None) if total == 0 => {
            let asked =
                service.status == Some(Status::Requested) && service.next_instance_progressive_number == 0;
            let cause = if asked { "no instance yet" } else { "no instance; hypha scale" };
            return Standing { ready, total, word: "stopped", mood: Mood::Plain, cause: cause.to_owned() };
        }
        (None, None) => (Status::Running, String::new()),
    };
    Standing { ready, total, word: word(status), mood: mood(status), cause }
}

#[cfg(test)]
mod tests {
    use protocol::service::Instance;
    use protocol::status::Status;

    use super::{cause, standing};
    use crate::output::Mood;
    use crate::sample;

    #[test]
    fn the_worst_instance_speaks_for_the_service() {
        let app = sample::app(1, "shop", "prod");
        let mut service = sample::service(&app, 2, "web");
        service.instance_list = vec![
            Instance::new(0, Status::Running),
            Instance { status_detail: Some("image not found".into()), ..Instance::new(1, Status::Failed) },
            Instance::new(2, Status::NodeScheduled),
            Instance::new(3, Status::Undeployed),
        ];
        let standing = standing(&service);
        assert_eq!((standing.ready, standing.total, standing.mood), (1, 3, Mood::Bad));
        assert_eq!(standing.cause, "/1: image not found");
    }

    #[test]
    fn a_service_that_does_not_fit_says_so() {
        let app = sample::app(1, "shop", "prod");
        let mut service = sample::service(&app, 2, "web");
        service.status = Some(Status::NoActiveClusterWithCapacity);
        service.status_detail = Some("Waiting for scheduling decision".into());
        let standing = standing(&service);
        assert_eq!(
            (standing.word, standing.cause.as_str()),
            ("waiting", "no cluster in reach has room for it")
        );
    }

    #[test]
    fn phrases_that_say_nothing_are_not_passed_on() {
        assert_eq!(
            cause(Status::Dead, Some("Container is starting up")),
            "it ended; the cluster will start it again"
        );
        assert_eq!(cause(Status::Failed, Some("no such image")), "no such image");
        assert_eq!(cause(Status::Running, Some("No extra information")), "");
    }
}
