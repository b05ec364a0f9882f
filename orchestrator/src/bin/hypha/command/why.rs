//! `why`: why an instance is where and as it is, in full: what tables have to cut, what it wants, and what there is.

use protocol::service::{Instance, Service};
use protocol::status::Status;
use serde_json::{Value, json};

use crate::args::{Kind, Why};
use crate::context::Context;
use crate::failure::Failure;
use crate::fleet::{Clusters, Fleet};
use crate::name::Target;
use crate::output::Format;
use crate::terminal::{Terminal, plain};
use crate::view::state::{cause, counts, is_ready, word};
use crate::view::{age, count, megabytes};
use crate::yaml;

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
}

#[derive(Debug, PartialEq)]
struct Lacking {
    wants: Vec<String>,
    clusters: Vec<(String, String)>,
}

pub(crate) async fn why(context: &Context, arguments: &Why) -> Result<(), Failure> {
    let client = context.client()?;
    let (fleet, clusters) = futures::try_join!(Fleet::fetch(&client), Clusters::fetch(&client))?;
    let kinds = [Kind::Service, Kind::App, Kind::Instance];
    let target = fleet.names().find(&arguments.name, &kinds)?;
    let reasons = reasons(&fleet, &clusters, target, super::get::now());
    let text = match context.global.output {
        Format::Json => format!("{:#}", reasons.iter().map(document).collect::<Value>()),
        Format::Jsonl => lines(reasons.iter().map(|reason| document(reason).to_string())),
        Format::Yaml => yaml::write(&reasons.iter().map(document).collect::<Value>()),
        Format::Name => lines(reasons.iter().map(|reason| reason.name.clone())),
        Format::Table | Format::Wide => lines(reasons.iter().map(text)),
    };
    Terminal::answer(&text)
}

fn lines(each: impl Iterator<Item = String>) -> String {
    each.collect::<Vec<_>>().join("\n")
}

fn reasons(fleet: &Fleet, clusters: &Clusters, target: Target, now: f64) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for service in &fleet.services {
        let own = [Target::App(service.application_id), Target::Service(service.id)];
        let instances = service.instance_list.iter().filter(|instance| counts(instance));
        let before = reasons.len();
        for instance in instances {
            let of = Target::Instance(service.id, instance.instance_number);
            if own.contains(&target) || target == of {
                reasons.push(of_instance(service, instance, fleet.names().label(of), clusters, now));
            }
        }
        if reasons.len() == before && own.contains(&target) {
            reasons.push(Reason {
                name: fleet.names().label(own[1]),
                state: "stopped",
                place: String::new(),
                cause: "nobody asked for an instance: hypha scale".to_owned(),
                lacking: None,
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
    now: f64,
) -> Reason {
    let cluster = clusters.name(instance.cluster_id);
    let host = instance.host_ip.as_deref().unwrap_or_default();
    let parts = [("in cluster", cluster), ("on", host)];
    let parts = parts.into_iter().filter(|(_, place)| !place.is_empty());
    let place = parts.map(|(how, place)| format!("{how} {place}")).collect::<Vec<_>>().join(" ");
    let unplaced = !is_ready(instance) && has_no_place(instance.status);
    Reason {
        name,
        state: word(instance.status),
        place,
        cause: cause(instance.status, instance.status_detail.as_deref()),
        lacking: unplaced.then(|| Lacking { wants: wants(service), clusters: offers(clusters, now) }),
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
    for constraint in sla.constraints.iter().filter(|constraint| constraint["type"] == "direct") {
        for key in ["cluster", "node"] {
            if let Some(place) = constraint[key].as_str().filter(|place| !place.is_empty()) {
                wants.push(format!("{key} {place}"));
            }
        }
    }
    wants
}

fn offers(clusters: &Clusters, now: f64) -> Vec<(String, String)> {
    let of = |cluster: &protocol::cluster::Cluster| {
        let offer = if cluster.active {
            let workers = count(cluster.active_nodes.try_into().unwrap_or(usize::MAX), "worker");
            let cpus = count(cluster.total_cpu_cores.try_into().unwrap_or(usize::MAX), "CPU");
            format!(
                "{workers}, {cpus}, {} of memory free, all taken together",
                megabytes(cluster.memory_in_mb)
            )
        } else {
            format!("lost {} ago", age(now, cluster.last_modified_timestamp))
        };
        (cluster.cluster_name.clone(), offer)
    };
    clusters.clusters.iter().map(of).collect()
}

fn text(reason: &Reason) -> String {
    let mut lines = vec![format!("{}  {} {}", reason.name, reason.state, reason.place).trim_end().to_owned()];
    if !reason.cause.is_empty() {
        lines.push(format!("  {}", plain(&reason.cause)));
    }
    if let Some(Lacking { wants, clusters }) = &reason.lacking {
        lines.push(format!("  it wants {}", plain(&wants.join(", "))));
        for (name, offer) in clusters {
            lines.push(format!("  cluster {}: {offer}", plain(name)));
        }
        lines.push("  it is placed as soon as there is room, without being asked for again".to_owned());
    }
    lines.join("\n")
}

fn document(reason: &Reason) -> Value {
    let mut document =
        json!({ "name": reason.name, "state": reason.state, "place": reason.place, "cause": reason.cause });
    if let Some(Lacking { wants, clusters }) = &reason.lacking {
        document["wants"] = json!(wants);
        document["clusters"] =
            clusters.iter().map(|(name, offer)| json!({ "name": name, "offer": offer })).collect();
    }
    document
}

#[cfg(test)]
mod tests {
    use protocol::service::Instance;
    use protocol::status::Status;
    use serde_json::json;

    use super::{Clusters, Fleet, Target, document, lines, reasons, text};
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

    #[test]
    fn every_instance_has_its_reason_in_full() {
        let reasons = reasons(&fleet(), &clusters(), Target::App(sample::id(1)), NOW);
        let expected = "\
shop/web/0  running in cluster home on 192.0.2.11
shop/web/1  failed in cluster home on 192.0.2.11
  no such image
shop/cam/0  waiting
  Cluster berlin has not been heard of lately.
  it wants 16 MB of memory, 1 CPU, runtime docker, cluster berlin
  cluster berlin: lost 4 m ago
  cluster home: 2 workers, 4 CPUs, 45.3 GB of memory free, all taken together
  it is placed as soon as there is room, without being asked for again
shop/idle  stopped
  nobody asked for an instance: hypha scale";
        let shown = lines(reasons.iter().map(text));
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn one_instance_is_asked_for_by_its_number() {
        let target = Target::Instance(sample::id(12), 0);
        let reasons = reasons(&fleet(), &clusters(), target, NOW);
        assert_eq!(reasons.len(), 1);
        let document = document(&reasons[0]);
        assert_eq!((&document["name"], &document["state"]), (&json!("shop/cam/0"), &json!("waiting")));
        assert_eq!(document["clusters"][0], json!({ "name": "berlin", "offer": "lost 4 m ago" }));
    }
}
