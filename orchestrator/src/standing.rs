//! How instances and services stand, in words, and what that means for who waits for them. Pure; the same for the root, which
//! says what is wrong, and for `hypha`, which shows the rest.

use protocol::service::{Instance, Service};
use protocol::status::Status;

/// How good a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Plain,
    Good,
    Changing,
    Bad,
}

/// The word for a state, as tables and progress show it.
#[must_use]
pub const fn word(status: Status) -> &'static str {
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

/// How good it is to be in this state.
#[must_use]
pub const fn mood(status: Status) -> Mood {
    match status {
        Status::Running | Status::Completed => Mood::Good,
        Status::Failed | Status::Dead => Mood::Bad,
        Status::Undeployed => Mood::Plain,
        _ => Mood::Changing,
    }
}

/// Whether the instance is one of those that were asked for, whatever became of it so far: the cluster starts again
/// what failed, and what has done its one task is not to do it twice.
#[must_use]
pub fn counts(instance: &Instance) -> bool {
    instance.status != Status::Undeployed
}

/// Whether it does what it is for, or has done it.
#[must_use]
pub fn is_ready(instance: &Instance) -> bool {
    matches!(instance.status, Status::Running | Status::Completed)
}

/// How the detail of an instance begins that runs, but not as its service asks for.
pub const RUNNING_BUT: &str = "Running, but ";

/// What is not as the service asks for, of an instance that runs.
#[must_use]
pub fn shortfall(status: Status, detail: Option<&str>) -> Option<&str> {
    detail.filter(|_| status == Status::Running)?.strip_prefix(RUNNING_BUT)
}

/// Why it is as it is: what the root says, else what the state itself means. Nothing for what is as it should be.
#[must_use]
pub fn cause(status: Status, detail: Option<&str>) -> String {
    if let Some(shortfall) = shortfall(status, detail) {
        return shortfall.to_owned();
    }
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
pub struct Standing {
    /// Of those that were asked for.
    pub ready: usize,
    /// All that were asked for.
    pub total: usize,
    pub word: &'static str,
    pub mood: Mood,
    /// Empty when all is well.
    pub cause: String,
}

/// The worst of the instances speaks for the service; before it, that one could not be placed at all.
#[must_use]
pub fn standing(service: &Service) -> Standing {
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
    use protocol::service::{Instance, Service};
    use protocol::status::Status;
    use serde_json::json;

    use super::{Mood, cause, standing};

    fn service() -> Service {
        serde_json::from_value(json!({
            "_id": "6b033dc62c1f07cbdcd88440", "applicationID": "6b033dc62c1f07cbdcd88441",
            "job_name": "shop.prod.web.prod", "app_name": "shop", "app_ns": "prod",
            "service_name": "web", "service_ns": "prod",
            "microserviceID": "", "microservice_name": "web", "microservice_namespace": "prod", "virtualization": "container",
        "code": "busybox", "image": "busybox",
        }))
        .unwrap()
    }

    #[test]
    fn the_worst_instance_speaks_for_the_service() {
        let mut service = service();
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
        let mut service = service();
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
