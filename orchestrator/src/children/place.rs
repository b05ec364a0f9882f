//! Which cluster gets an instance. Pure.

use protocol::cluster::Largest;
use protocol::constraint::{Demands, Near};
use protocol::id::Id;
use protocol::location;
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
    /// It is to get nothing new, by the will of an operator.
    pub cordoned: bool,
    /// How many active workers it has.
    pub workers: u32,
    pub vcpus: u32,
    pub vgpus: u32,
    /// MiB that are free, less what was placed there since it said so.
    pub memory: u64,
    pub virtualization: Vec<String>,
    pub drivers: Vec<String>,
    pub addons: Vec<String>,
    /// What it has for a single instance at most; Oakestra's clusters do not say.
    pub largest: Option<Largest>,
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
    let demands = Demands::of(sla);
    if let Some(name) = &demands.cluster {
        let refuse = |status, detail| Err(Refusal { status, detail });
        let Some(cluster) = clusters.iter().find(|cluster| cluster.name == *name) else {
            return refuse(Status::TargetClusterNotFound, format!("No cluster is named {name:?}."));
        };
        if !cluster.active {
            return refuse(
                Status::TargetClusterNotActive,
                format!("Cluster {name} has not been heard of lately."),
            );
        }
        return match lack(sla, &demands, cluster) {
            None => Ok(cluster),
            Some(lack) => {
                refuse(Status::TargetClusterNoCapacity, format!("Cluster {name} does not fit: {lack}."))
            }
        };
    }
    let mut lacks = Vec::new();
    let mut best: Option<&Candidate> = None;
    for cluster in clusters.iter().filter(|cluster| cluster.active) {
        match lack(sla, &demands, cluster) {
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

/// What keeps a cluster from taking one more instance now. `None`: nothing that is known here.
#[must_use]
pub fn verdict(sla: &Microservice, cluster: &Candidate) -> Option<String> {
    let demands = Demands::of(sla);
    if !cluster.active {
        return Some("it has not been heard of lately".to_owned());
    }
    if let Some(name) = demands.cluster.as_ref().filter(|name| **name != cluster.name) {
        return Some(format!("the service asks for cluster {name}"));
    }
    lack(sla, &demands, cluster)
}

fn lack(sla: &Microservice, demands: &Demands, cluster: &Candidate) -> Option<String> {
    let wanted = if sla.virtualization == "container" { CONTAINER } else { sla.virtualization.as_str() };
    let without = |wanted: &[String], has: &[String]| wanted.iter().find(|one| !has.contains(one)).cloned();
    let largest = cluster.largest.as_ref();
    if let Some(allowed) = demands.allowed.iter().find(|allowed| !allowed.contains(&cluster.name)) {
        return Some(format!("allowed are only {}", allowed.join(", ")));
    }
    if cluster.cordoned {
        return Some("it is cordoned".to_owned());
    }
    if cluster.workers == 0 {
        return Some("no worker is active".to_owned());
    }
    if !cluster.virtualization.iter().any(|offered| offered == wanted) {
        return Some(format!("no worker runs {wanted}"));
    }
    if let Some(driver) = without(&demands.csi_drivers, &cluster.drivers) {
        return Some(format!("no worker has the driver {driver}"));
    }
    if let Some(addon) = without(&demands.addons, &cluster.addons) {
        return Some(format!("no worker has the addon {addon}"));
    }
    let architectures = largest.map(|largest| &largest.architectures).filter(|all| !all.is_empty());
    if let Some(there) = architectures
        && !demands.architectures.is_empty()
        && !demands.architectures.iter().any(|one| there.contains(one))
    {
        let wanted = demands.architectures.join(" or ");
        return Some(format!("needs {wanted}, there is {}", there.join(", ")));
    }
    for (what, wanted, has) in [
        ("CPUs", sla.vcpus, largest.map_or(cluster.vcpus, |largest| largest.vcpus)),
        ("GPUs", sla.vgpus, largest.map_or(cluster.vgpus, |largest| largest.vgpus)),
    ] {
        if wanted > has {
            let whose = if largest.is_some() { "no worker has more than" } else { "it has" };
            return Some(format!("needs {wanted} {what}, {whose} {has}"));
        }
    }
    if let Some(too_far) = demands.near.iter().find_map(|near| too_far(near, cluster)) {
        return Some(too_far);
    }
    if let Some(most) = largest.and_then(|largest| largest.disk).filter(|most| sla.storage > *most) {
        return Some(format!("needs {} MB on disk, no worker has more than {most} MB free", sla.storage));
    }
    if sla.memory > cluster.memory {
        return Some(format!("needs {} MB of memory, {} MB are free", sla.memory, cluster.memory));
    }
    let largest = largest.map(|largest| largest.memory).filter(|most| sla.memory > *most);
    largest.map(|most| format!("needs {} MB of memory, no worker has more than {most} MB free", sla.memory))
}

/// Only what is certain: of a cluster whose workers are at places that are not known, nothing is.
fn too_far(near: &Near, cluster: &Candidate) -> Option<String> {
    let places = match &cluster.largest {
        Some(largest) => largest.locations.clone()?,
        None => vec![location::of_cluster(&cluster.location)?],
    };
    let nearest = places.iter().map(|place| place.kilometres_to(near.location)).min_by(f64::total_cmp)?;
    (nearest > near.kilometres)
        .then(|| format!("needs to be within {near}, its nearest worker is {nearest:.0} km away"))
}

#[cfg(test)]
mod tests {
    use protocol::cluster::Largest;
    use protocol::sla::Microservice;
    use protocol::status::Status;
    use serde_json::{Value, json};

    use super::{Candidate, choose, verdict};
    use crate::object_id;

    fn cluster(name: &str, memory: u64) -> Candidate {
        Candidate {
            id: object_id::new(),
            name: name.to_owned(),
            location: "here".to_owned(),
            active: true,
            cordoned: false,
            workers: 2,
            vcpus: 4,
            vgpus: 0,
            memory,
            virtualization: vec!["docker".to_owned()],
            drivers: Vec::new(),
            addons: Vec::new(),
            largest: None,
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
    fn a_cordoned_cluster_gets_nothing_new() {
        let held = Candidate { cordoned: true, ..cluster("held", 9000) };
        assert_eq!(outcome(&service(100), &[held.clone(), cluster("free", 500)]).as_deref(), Ok("free"));
        assert_eq!(
            outcome(&pinned("held"), std::slice::from_ref(&held)),
            Err(Status::TargetClusterNoCapacity)
        );
        assert_eq!(verdict(&service(100), &held).as_deref(), Some("it is cordoned"));
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

    #[test]
    fn what_a_service_asks_of_its_place_is_asked_of_each_cluster() {
        let asking = |value: Value| -> Microservice {
            serde_json::from_value(json!({
                "microservice_name": "s", "microservice_namespace": "n", "virtualization": "docker", "code": "c",
                "vgpus": value["vgpus"], "storage": value["storage"], "arch": value["arch"], "volumes": value["volumes"],
                "constraints": value["constraints"],
            }))
            .unwrap()
        };
        let able = Candidate {
            location: "48.1,11.5,1000".to_owned(),
            vgpus: 1,
            drivers: vec!["nfs".to_owned()],
            addons: vec!["FLOps".to_owned()],
            largest: Some(Largest {
                memory: 600,
                disk: Some(1000),
                vcpus: 2,
                vgpus: 1,
                architectures: vec!["arm64".to_owned()],
                locations: Some(vec!["48.1,11.5".parse().unwrap()]),
            }),
            ..cluster("able", 500)
        };
        let clusters = [cluster("large", 2000), able];
        for (wish, lack_of_large) in [
            (json!({ "vgpus": 1 }), "needs 1 GPUs, it has 0"),
            (json!({ "volumes": [{ "csi_driver": "nfs" }] }), "no worker has the driver nfs"),
            (
                json!({ "constraints": [{ "type": "addons", "needs": ["FLOps"] }] }),
                "no worker has the addon FLOps",
            ),
            (
                json!({ "constraints": [{ "type": "clusters", "allowed": ["able", "x"] }] }),
                "allowed are only able, x",
            ),
        ] {
            let sla = asking(wish);
            assert_eq!(outcome(&sla, &clusters).as_deref(), Ok("able"), "{lack_of_large}");
            assert_eq!(verdict(&sla, &clusters[0]).as_deref(), Some(lack_of_large));
            assert_eq!(verdict(&sla, &clusters[1]), None);
        }
        for (wish, lack_of_able) in [
            (json!({ "arch": ["amd64"] }), "needs amd64, there is arm64"),
            (json!({ "storage": 1001 }), "needs 1001 MB on disk, no worker has more than 1000 MB free"),
            (
                json!({ "constraints": [{ "type": "geo", "location": "52.5,13.4", "threshold": 20 }] }),
                "needs to be within 20 km of 52.5,13.4, its nearest worker is 507 km away",
            ),
            (
                json!({ "constraints": [{ "type": "latency", "area": "52.5,13.4", "threshold": 3 }] }),
                "needs to be within 3 ms of 52.5,13.4, its nearest worker is 507 km away",
            ),
        ] {
            let sla = asking(wish);
            assert_eq!(verdict(&sla, &clusters[1]).as_deref(), Some(lack_of_able));
            assert_eq!(verdict(&sla, &clusters[0]), None, "of that one nothing is known");
        }
    }

    #[test]
    fn what_fits_on_no_single_worker_does_not_fit() {
        let largest = Some(Largest { memory: 600, vcpus: 2, ..Largest::default() });
        let sum = [Candidate { largest, ..cluster("many", 2000) }];
        assert_eq!(outcome(&service(600), &sum).as_deref(), Ok("many"));
        for (sla, lack) in [
            (service(601), "needs 601 MB of memory, no worker has more than 600 MB free"),
            (Microservice { vcpus: 3, ..service(1) }, "needs 3 CPUs, no worker has more than 2"),
        ] {
            let refusal = choose(&sla, &sum).unwrap_err();
            assert_eq!(refusal.detail, format!("No cluster fits (many: {lack})."));
        }
    }
}
