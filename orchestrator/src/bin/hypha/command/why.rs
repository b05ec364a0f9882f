//! `why`: why an instance is where and as it is, in full: what tables have to cut, what it wants, what there is, and how its
//! cluster decided.

mod show;

use std::collections::BTreeMap;

use futures::future::try_join_all;
use protocol::cluster::Cluster;
use protocol::connectivity::Connectivity;
use protocol::constraint::Demands;
use protocol::decision::{self, Decision};
use protocol::id::Id;
use protocol::service::{Instance, Service};
use protocol::status::Status;
use serde_json::Value;

use self::show::{document, text};
use crate::args::{Kind, Why};
use crate::context::Context;
use crate::failure::Failure;
use crate::fleet::{Clusters, Fleet};
use crate::name::Target;
use crate::output::Format;
use crate::terminal::Terminal;
use crate::view::{age, count, megabytes};
use crate::yaml;
use orchestrator::standing::{cause, counts, is_ready, word};

/// What can be said of one instance, or of a service that has none.
#[derive(Debug, PartialEq)]
struct Reason {
    name: String,
    state: &'static str,
    /// Where it is; empty while it is nowhere.
    place: String,
    /// Empty when all is as it should be.
    cause: String,
    /// It has no place: what it wants, and what each cluster has.
    lacking: Option<Lacking>,
    /// The last attempts of its cluster to place it, the newest first.
    decisions: Vec<Decision>,
    /// Why these are not known.
    unknown: String,
}

#[derive(Debug, PartialEq)]
struct Lacking {
    wants: Vec<String>,
    clusters: Vec<Offer>,
}

#[derive(Debug, PartialEq)]
struct Offer {
    cluster: String,
    /// What keeps it from taking the instance; empty: nothing that the root knows of.
    lacks: String,
    /// What it has.
    has: String,
}

/// What the root says of services.
type Answers = BTreeMap<Id, decision::Why>;

pub(crate) async fn why(context: &Context, arguments: &Why) -> Result<(), Failure> {
    let client = context.client()?;
    let (fleet, clusters) = futures::try_join!(Fleet::fetch(&client), Clusters::fetch(&client))?;
    let kinds = [Kind::Service, Kind::App, Kind::Instance];
    let target = fleet.names().find(&arguments.name, &kinds)?;
    let meant = fleet.services.iter().filter(|service| match target {
        Target::App(app) => service.application_id == app,
        Target::Service(id) | Target::Instance(id, _) => service.id == id,
    });
    let ask = async |service: &Service| client.why(service.id).await.map(|answer| (service.id, answer));
    let answers: Answers = try_join_all(meant.map(ask)).await?.into_iter().collect();
    let now = super::get::now();
    let reasons = reasons(&fleet, &clusters, &answers, target, now);
    let text = match context.global.output {
        Format::Json => format!("{:#}", reasons.iter().map(document).collect::<Value>()),
        Format::Jsonl => lines(reasons.iter().map(|reason| document(reason).to_string())),
        Format::Yaml => yaml::write(&reasons.iter().map(document).collect::<Value>()),
        Format::Name => lines(reasons.iter().map(|reason| reason.name.clone())),
        Format::Table | Format::Wide => lines(reasons.iter().map(|reason| text(reason, now))),
    };
    Terminal::answer(&text)
}

fn lines(each: impl Iterator<Item = String>) -> String {
    each.collect::<Vec<_>>().join("\n")
}

fn reasons(fleet: &Fleet, clusters: &Clusters, answers: &Answers, target: Target, now: f64) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for service in &fleet.services {
        let own = [Target::App(service.application_id), Target::Service(service.id)];
        let instances = service.instance_list.iter().filter(|instance| counts(instance));
        let before = reasons.len();
        for instance in instances {
            let of = Target::Instance(service.id, instance.instance_number);
            if own.contains(&target) || target == of {
                let name = fleet.names().label(of);
                reasons.push(of_instance(service, instance, name, clusters, answers.get(&service.id), now));
            }
        }
        if reasons.len() == before && own.contains(&target) {
            reasons.push(Reason {
                name: fleet.names().label(own[1]),
                state: "stopped",
                place: String::new(),
                cause: "nobody asked for an instance: hypha scale".to_owned(),
                lacking: None,
                decisions: Vec::new(),
                unknown: String::new(),
            });
        }
    }
    reasons
}

fn of_instance(
    service: &Service,
    instance: &Instance,
    name: String,
    clusters: &Clusters,
    answer: Option<&decision::Why>,
    now: f64,
) -> Reason {
    let cluster = clusters.name(instance.cluster_id);
    let host = instance.host_ip.as_deref().unwrap_or_default();
    let parts = [("in cluster", cluster), ("on", host)];
    let parts = parts.into_iter().filter(|(_, place)| !place.is_empty());
    let place = parts.map(|(how, place)| format!("{how} {place}")).collect::<Vec<_>>().join(" ");
    let unplaced = !is_ready(instance) && has_no_place(instance.status);
    let told = answer.and_then(|answer| {
        let of = |told: &&decision::WhyInstance| told.instance_number == instance.instance_number;
        answer.instances.iter().find(of)
    });
    Reason {
        name,
        state: word(instance.status),
        place,
        cause: cause(instance.status, instance.status_detail.as_deref()),
        lacking: unplaced.then(|| Lacking { wants: wants(service), clusters: offers(clusters, answer, now) }),
        decisions: told.map(|told| told.decisions.clone()).unwrap_or_default(),
        unknown: told.map(|told| told.unknown.clone()).unwrap_or_default(),
    }
}

fn has_no_place(status: Status) -> bool {
    status == Status::Requested || status.is_unschedulable()
}

fn wants(service: &Service) -> Vec<String> {
    let sla = &service.sla;
    let mut wants = vec![
        format!("{} of memory", megabytes(sla.memory)),
        count(sla.vcpus.try_into().unwrap_or(usize::MAX), "CPU"),
        format!("runtime {}", sla.virtualization),
    ];
    if sla.vgpus > 0 {
        wants.push(count(sla.vgpus.try_into().unwrap_or(usize::MAX), "GPU"));
    }
    let Demands { cluster, nodes, allowed, addons, near, architectures, csi_drivers } = Demands::of(sla);
    wants.extend(cluster.map(|cluster| format!("cluster {cluster}")));
    wants.extend(allowed.iter().map(|allowed| format!("cluster {}", allowed.join(" or "))));
    for (what, any) in [("node", nodes), ("arch", architectures)] {
        if !any.is_empty() {
            wants.push(format!("{what} {}", any.join(" or ")));
        }
    }
    wants.extend(csi_drivers.iter().map(|driver| format!("driver {driver}")));
    wants.extend(addons.iter().map(|addon| format!("addon {addon}")));
    wants.extend(near.iter().map(|near| match near.milliseconds {
        None => format!("at most {} km from {}", near.kilometres, near.location),
        Some(milliseconds) => format!("at most {milliseconds} ms from {}", near.location),
    }));
    wants.extend(Connectivity::of(sla).iter().map(|Connectivity { target, bound }| {
        format!("a round trip of at most {} ms to {target}", bound.milliseconds)
    }));
    wants
}

fn offers(clusters: &Clusters, answer: Option<&decision::Why>, now: f64) -> Vec<Offer> {
    let of = |cluster: &Cluster| {
        let has = if cluster.active {
            let workers = count(cluster.active_nodes.try_into().unwrap_or(usize::MAX), "worker");
            let cpus = count(cluster.total_cpu_cores.try_into().unwrap_or(usize::MAX), "CPU");
            format!(
                "{workers}, {cpus}, {} of memory free, all taken together",
                megabytes(cluster.memory_in_mb)
            )
        } else {
            format!("lost {} ago", age(now, cluster.last_modified_timestamp))
        };
        let verdict = answer.and_then(|answer| {
            answer.clusters.iter().find(|verdict| verdict.cluster == cluster.cluster_name)
        });
        // That it was lost is said already.
        let lacks = verdict.filter(|_| cluster.active).map(|verdict| verdict.lacks.clone());
        Offer { cluster: cluster.cluster_name.clone(), lacks: lacks.unwrap_or_default(), has }
    };
    clusters.clusters.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use protocol::decision::{ClusterVerdict, Decision, Part, Rejection, Score, Why, WhyInstance};
    use protocol::service::Instance;
    use protocol::status::Status;
    use serde_json::json;

    use super::{Answers, Clusters, Fleet, Target, document, lines, reasons, text};
    use crate::sample;

    const NOW: f64 = 1_795_374_561.67 + 240.0;

    fn fleet() -> Fleet {
        let apps = vec![sample::app(1, "shop", "prod")];
        let mut web = sample::service(&apps[0], 11, "web");
        let placed = |number, status| Instance {
            host_ip: Some("192.0.2.11".into()),
            cluster_id: Some(sample::id(4)),
            ..Instance::new(number, status)
        };
        let failed = Instance { status_detail: Some("no such image".into()), ..placed(1, Status::Failed) };
        web.instance_list = vec![placed(0, Status::Running), failed];
        let mut cam = sample::service(&apps[0], 12, "cam");
        cam.sla.constraints = vec![json!({ "type": "direct", "cluster": "berlin", "node": "" })];
        cam.instance_list = vec![Instance {
            status_detail: Some("Cluster berlin has not been heard of lately.".into()),
            ..Instance::new(0, Status::TargetClusterNotActive)
        }];
        let idle = sample::service(&apps[0], 13, "idle");
        Fleet { apps, services: vec![web, cam, idle], ..Fleet::default() }
    }

    fn clusters() -> Clusters {
        let mut lost = sample::cluster(3, "berlin");
        lost.active = false;
        Clusters { clusters: vec![lost, sample::cluster(4, "home")], documents: Vec::new() }
    }

    fn answers() -> Answers {
        let score = |worker: &str, siblings| Score {
            worker: worker.to_owned(),
            parts: [("siblings", siblings), ("permille full", 120)]
                .map(|(name, value)| Part { name: name.into(), value })
                .into(),
        };
        let placed = Decision {
            at: NOW - 180.0,
            times: 1,
            algorithm: "spread".into(),
            candidates: 3,
            chosen: Some("pi-1".to_owned()),
            rejections: vec![rejection("memory", 1, "wants 16 MB free; most is 8 on pi-3")],
            scores: vec![score("pi-1", 0), score("nuc-2", 1)],
            would_help: Vec::new(),
        };
        let instance =
            |instance_number, decisions| WhyInstance { instance_number, decisions, unknown: String::new() };
        let web = Why { instances: vec![instance(0, vec![placed])], clusters: Vec::new() };
        let verdict = |cluster: &str, lacks: &str| ClusterVerdict {
            cluster: cluster.to_owned(),
            lacks: lacks.to_owned(),
        };
        let cam = Why {
            instances: Vec::new(),
            clusters: vec![
                verdict("berlin", "it has not been heard of lately"),
                verdict("home", "the service asks for cluster berlin"),
            ],
        };
        Answers::from([(sample::id(11), web), (sample::id(12), cam)])
    }

    fn rejection(filter: &'static str, count: u32, detail: &str) -> Rejection {
        Rejection { filter: filter.into(), count, detail: detail.to_owned() }
    }

    #[test]
    fn what_would_help_is_told_of_what_finds_no_worker() {
        let mut fleet = fleet();
        fleet.services[1].instance_list[0] = Instance {
            cluster_id: Some(sample::id(4)),
            status_detail: Some("no worker fits (11 known)".into()),
            ..Instance::new(0, Status::NoWorkerCapacity)
        };
        let waits = Decision {
            at: NOW - 2.0,
            times: 4,
            candidates: 11,
            rejections: vec![
                rejection("memory", 8, "wants 2048 MB free; most is 1536 on nuc-3"),
                rejection("arch", 3, "wants amd64; there is arm64"),
            ],
            would_help: vec!["memory <= 1536: nuc-3".to_owned(), "another arch: pi-1".to_owned()],
            ..Decision::default()
        };
        let told = WhyInstance { instance_number: 0, decisions: vec![waits], unknown: String::new() };
        let answers = Answers::from([(sample::id(12), Why { instances: vec![told], clusters: Vec::new() })]);
        let reasons = reasons(&fleet, &clusters(), &answers, Target::Instance(sample::id(12), 0), NOW);
        let shown = text(&reasons[0], NOW);
        let expected = "
  looked for a worker 4 times, last 2 s ago: 0 of 11 fit
     8  memory  wants 2048 MB free; most is 1536 on nuc-3
     3  arch    wants amd64; there is arm64
  any one of these would do:  memory <= 1536: nuc-3  |  another arch: pi-1
  it is placed as soon as there is room, without being asked for again";
        assert!(shown.ends_with(expected), "{shown}");
    }

    #[test]
    fn every_instance_has_its_reason_in_full() {
        let reasons = reasons(&fleet(), &clusters(), &answers(), Target::App(sample::id(1)), NOW);
        let expected = "\
shop/web/0  running in cluster home on 192.0.2.11
  pi-1 was chosen 3 m ago by spread: 2 of 3 workers fit
               siblings  permille full
        pi-1          0            120
        nuc-2         1            120
     1  memory  wants 16 MB free; most is 8 on pi-3
shop/web/1  failed in cluster home on 192.0.2.11
  no such image
shop/cam/0  waiting
  Cluster berlin has not been heard of lately.
  it wants 16 MB of memory, 1 CPU, runtime docker, cluster berlin
  cluster berlin: lost 4 m ago
  cluster home: the service asks for cluster berlin (2 workers, 4 CPUs, 45.3 GB of memory free, all taken together)
  it is placed as soon as there is room, without being asked for again
shop/idle  stopped
  nobody asked for an instance: hypha scale";
        let shown = lines(reasons.iter().map(|reason| text(reason, NOW)));
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn one_instance_is_asked_for_by_its_number() {
        let target = Target::Instance(sample::id(12), 0);
        let reasons = reasons(&fleet(), &clusters(), &answers(), target, NOW);
        assert_eq!(reasons.len(), 1);
        let document = document(&reasons[0]);
        assert_eq!((&document["name"], &document["state"]), (&json!("shop/cam/0"), &json!("waiting")));
        assert_eq!(
            document["clusters"][0],
            json!({ "name": "berlin", "lacks": "", "offer": "lost 4 m ago" })
        );
    }
}
