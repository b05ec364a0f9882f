//! Which cluster gets an instance. Pure.

use protocol::id::Id;
use protocol::service::CONTAINER;
use protocol::sla::Microservice;
use protocol::status::Status;

/// A cluster as the choice sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub id: Id,
    pub name: String,
    pub location: String,
    /// It was heard of lately.
    pub active: bool,
    /// How many active workers it has.
    pub workers: u32,
    pub vcpus: u32,
    /// MiB that are free, less what was placed there since it said so.
    pub memory: u64,
    pub virtualization: Vec<String>,
}

/// Why no cluster is chosen: the status for clients, and the reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: Status,
    pub detail: String,
}

/// The active cluster with the most free memory among those that fit, or that which the SLA names.
///
/// # Errors
/// What is missing, where.
pub fn choose<'a>(sla: &Microservice, clusters: &'a [Candidate]) -> Result<&'a Candidate, Refusal> {
    if let Some(name) = named_cluster(sla) {
        let refuse = |status, detail| Err(Refusal { status, detail });
        let Some(cluster) = clusters.iter().find(|cluster| cluster.name == name) else {
            return refuse(Status::TargetClusterNotFound, format!("No cluster is named {name:?}."));
        };
        if !cluster.active {
            return refuse(
                Status::TargetClusterNotActive,
                format!("Cluster {name} has not been heard of lately."),
            );
        }
        return match lack(sla, cluster) {
            None => Ok(cluster),
            Some(lack) => {
                refuse(Status::TargetClusterNoCapacity, format!("Cluster {name} does not fit: {lack}."))
            }
        };
    }
    let mut lacks = Vec::new();
    let mut best: Option<&Candidate> = None;
    for cluster in clusters.iter().filter(|cluster| cluster.active) {
        match lack(sla, cluster) {
            Some(lack) => lacks.push(format!("{}: {lack}", cluster.name)),
            None if best.is_none_or(|best| cluster.memory > best.memory) => best = Some(cluster),
            None => {}
        }
    }
    best.ok_or_else(|| Refusal {
        status: Status::NoActiveClusterWithCapacity,
        detail: if !lacks.is_empty() {
            format!("No cluster fits ({}).", lacks.join("; "))
        } else if clusters.is_empty() {
            "No cluster has registered yet.".to_owned()
        } else {
            "No cluster has been heard of lately.".to_owned()
        },
    })
}

/// The cluster that a `direct` constraint names. An empty name is no constraint.
fn named_cluster(sla: &Microservice) -> Option<&str> {
    sla.constraints.iter().find_map(|constraint| {
        let direct = constraint.get("type")?.as_str()? == "direct";
        let cluster = constraint.get("cluster")?.as_str()?;
        (direct && !cluster.is_empty()).then_some(cluster)
    })
}

fn lack(sla: &Microservice, cluster: &Candidate) -> Option<String> {
    let wanted = if sla.virtualization == "container" { CONTAINER } else { sla.virtualization.as_str() };
    if cluster.workers == 0 {
        Some("no worker is active".to_owned())
    } else if sla.memory > cluster.memory {
        Some(format!("needs {} MB of memory, {} MB are free", sla.memory, cluster.memory))
    } else if sla.vcpus > cluster.vcpus {
        Some(format!("needs {} CPUs, it has {}", sla.vcpus, cluster.vcpus))
    } else if !cluster.virtualization.iter().any(|offered| offered == wanted) {
        Some(format!("no worker runs {wanted}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use protocol::sla::Microservice;
    use protocol::status::Status;
    use serde_json::json;

    use super::{Candidate, choose};
    use crate::object_id;

    fn cluster(name: &str, memory: u64) -> Candidate {
        Candidate {
            id: object_id::new(),
            name: name.to_owned(),
            location: "here".to_owned(),
            active: true,
            workers: 2,
            vcpus: 4,
            memory,
            virtualization: vec!["docker".to_owned()],
        }
    }

    fn service(memory: u64) -> Microservice {
        Microservice { virtualization: "docker".to_owned(), memory, vcpus: 1, ..Microservice::default() }
    }

    fn pinned(name: &str) -> Microservice {
        Microservice { constraints: vec![json!({ "type": "direct", "cluster": name })], ..service(100) }
    }

    fn outcome(sla: &Microservice, clusters: &[Candidate]) -> Result<String, Status> {
        choose(sla, clusters).map(|cluster| cluster.name.clone()).map_err(|refusal| refusal.status)
    }

    #[test]
    fn the_fitting_cluster_with_the_most_memory_is_chosen() {
        let asleep = Candidate { active: false, ..cluster("asleep", 9000) };
        let clusters = [cluster("small", 500), cluster("large", 2000), asleep];
        assert_eq!(outcome(&service(100), &clusters).as_deref(), Ok("large"));
        assert_eq!(outcome(&service(3000), &clusters), Err(Status::NoActiveClusterWithCapacity));
        assert_eq!(
            outcome(&Microservice { vcpus: 5, ..service(1) }, &clusters),
            Err(Status::NoActiveClusterWithCapacity)
        );
    }

    #[test]
    fn a_cluster_that_cannot_run_it_is_not_chosen() {
        let unikernel = Microservice { virtualization: "unikernel".to_owned(), ..service(1) };
        let able = Candidate { virtualization: vec!["unikernel".to_owned()], ..cluster("able", 10) };
        assert_eq!(outcome(&unikernel, &[cluster("unable", 100), able]).as_deref(), Ok("able"));
        let container = Microservice { virtualization: "container".to_owned(), ..service(1) };
        assert_eq!(outcome(&container, &[cluster("any", 100)]).as_deref(), Ok("any"));
    }

    #[test]
    fn a_named_cluster_is_taken_or_the_reason_said() {
        let asleep = Candidate { active: false, ..cluster("asleep", 9000) };
        let clusters = [cluster("tiny", 10), cluster("large", 2000), asleep];
        assert_eq!(outcome(&pinned("large"), &clusters).as_deref(), Ok("large"));
        assert_eq!(outcome(&pinned("tiny"), &clusters), Err(Status::TargetClusterNoCapacity));
        assert_eq!(outcome(&pinned("asleep"), &clusters), Err(Status::TargetClusterNotActive));
        assert_eq!(outcome(&pinned("nowhere"), &clusters), Err(Status::TargetClusterNotFound));
        assert_eq!(outcome(&pinned(""), &clusters).as_deref(), Ok("large"));
    }

    #[test]
    fn the_reason_says_what_is_missing_where() {
        let refusal = choose(&service(3000), &[cluster("a", 500), cluster("b", 700)]).unwrap_err();
        assert_eq!(
            refusal.detail,
            "No cluster fits (a: needs 3000 MB of memory, 500 MB are free; b: needs 3000 MB of memory, 700 MB are free)."
        );
        let empty = Candidate { workers: 0, ..cluster("a", 0) };
        assert_eq!(
            choose(&service(1), &[empty]).unwrap_err().detail,
            "No cluster fits (a: no worker is active)."
        );
        assert_eq!(choose(&service(1), &[]).unwrap_err().detail, "No cluster has registered yet.");
    }
}
