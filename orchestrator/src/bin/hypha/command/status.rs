//! `status`: one screen, what is wrong first.

use protocol::cluster::{Worker, WorkerState};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::fleet::{Clusters, Fleet, Workers};
use crate::name::Target;
use crate::output::{Format, Mood};
use crate::terminal::{Paint, Terminal, plain};
use crate::view::state::{counts, is_ready, mood, standing};
use crate::view::worker::last_heard;
use crate::view::{age, count, megabytes};
use crate::yaml;

/// Something that a person may have to act on.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    name: String,
    what: String,
    next: String,
}

/// The whole in numbers.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    clusters: usize,
    active_clusters: usize,
    workers: u32,
    /// Get nothing new, by the will of an operator.
    cordoned: usize,
    /// Of these, become empty.
    draining: usize,
    cpus: u32,
    memory: u64,
    apps: usize,
    services: usize,
    running: usize,
    waiting: usize,
    failed: usize,
    troubles: Vec<Trouble>,
}

pub(crate) async fn status(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let (fleet, clusters, workers) =
        futures::try_join!(Fleet::fetch(&client), Clusters::fetch(&client), Workers::fetch(&client))?;
    let summary = summary(&fleet, &clusters, &workers, super::get::now());
    let root = client.root().to_string();
    let text = match context.global.output {
        Format::Json => format!("{:#}", document(&summary, &root)),
        Format::Jsonl => document(&summary, &root).to_string(),
        Format::Yaml => yaml::write(&document(&summary, &root)),
        Format::Table | Format::Wide | Format::Name => text(&summary, &root, context.terminal.stdout_paint()),
    };
    Terminal::answer(&text)
}

fn summary(fleet: &Fleet, clusters: &Clusters, workers: &Workers, now: f64) -> Summary {
    let active = || clusters.clusters.iter().filter(|cluster| cluster.active);
    let mut summary = Summary {
        clusters: clusters.clusters.len(),
        active_clusters: active().count(),
        workers: active().map(|cluster| cluster.active_nodes).sum(),
        cpus: active().map(|cluster| cluster.total_cpu_cores).sum(),
        memory: active().map(|cluster| cluster.memory_in_mb).sum(),
        apps: fleet.apps.len(),
        services: fleet.services.len(),
        ..Summary::default()
    };
    for cluster in clusters.clusters.iter().filter(|cluster| !cluster.active) {
        summary.troubles.push(Trouble {
            name: format!("cluster {}", cluster.cluster_name),
            what: format!(
                "lost {} ago; its services run on as last seen",
                age(now, cluster.last_modified_timestamp)
            ),
            next: format!("hypha get clusters {}", cluster.cluster_name),
        });
    }
    // Those of a lost cluster are told of with it.
    let told = || workers.workers.iter().filter(|of| of.cluster_active);
    summary.cordoned = told().filter(|of| of.worker.cordoned).count();
    summary.draining = told().filter(|of| of.worker.draining).count();
    summary.troubles.extend(told().filter_map(|of| silent(of, now)));
    if summary.active_clusters > 0 && summary.workers == 0 {
        summary.troubles.push(Trouble {
            name: "workers".to_owned(),
            what: "no worker has joined".to_owned(),
            next: "node-engine -a CLUSTER".to_owned(),
        });
    }
    for service in &fleet.services {
        for instance in service.instance_list.iter().filter(|instance| counts(instance)) {
            match mood(instance.status) {
                _ if is_ready(instance) => summary.running += 1,
                Mood::Bad => summary.failed += 1,
                _ => summary.waiting += 1,
            }
        }
        let standing = standing(service);
        if matches!(standing.mood, Mood::Bad | Mood::Changing) {
            let label = fleet.names().label(Target::Service(service.id));
            summary.troubles.push(Trouble {
                what: format!("{} {}/{}: {}", standing.word, standing.ready, standing.total, standing.cause),
                next: if standing.ready < standing.total {
                    format!("hypha why {label}")
                } else {
                    format!("hypha get instances {label}")
                },
                name: label,
            });
        }
    }
    summary
}

/// A worker that is not heard of.
fn silent(of: &Worker, now: f64) -> Option<Trouble> {
    let worker = &of.worker;
    let silence = age(now, last_heard(of));
    let instances = count(worker.instances.try_into().unwrap_or(usize::MAX), "instance");
    let what = match worker.state {
        WorkerState::Ready => return None,
        WorkerState::Unreachable => {
            format!("unreachable for {silence}; {instances} there as last seen, nothing is moved yet")
        }
        WorkerState::Dead => format!("dead, silent for {silence}; its instances are placed elsewhere"),
    };
    let next = format!("hypha get workers {}", worker.name);
    Some(Trouble { name: format!("worker {}", worker.name), what, next })
}

fn text(summary: &Summary, root: &str, paint: Paint) -> String {
    let mut lines = Vec::new();
    let width = summary.troubles.iter().map(|trouble| trouble.name.len()).max().unwrap_or_default();
    for Trouble { name, what, next } in &summary.troubles {
        lines.push(format!("{} {name:<width$}  {}  {}", paint.error("!"), plain(what), paint.faint(next)));
    }
    let held = match (summary.cordoned, summary.draining) {
        (0, _) => String::new(),
        (cordoned, 0) => format!(" ({cordoned} cordoned)"),
        (cordoned, draining) => format!(" ({cordoned} cordoned, {draining} of them draining)"),
    };
    lines.push(format!(
        "  root {root}   clusters {}/{}   workers {}{held}   {}, {} of memory free",
        summary.active_clusters,
        summary.clusters,
        summary.workers,
        count(summary.cpus.try_into().unwrap_or(usize::MAX), "CPU"),
        megabytes(summary.memory),
    ));
    lines.push(format!(
        "  {}, {}   instances {} running, {} waiting, {} failed",
        count(summary.apps, "app"),
        count(summary.services, "service"),
        summary.running,
        summary.waiting,
        summary.failed,
    ));
    if summary.troubles.is_empty() {
        lines.push(format!("  {}", paint.good("all is well")));
    }
    lines.join("\n")
}

fn document(summary: &Summary, root: &str) -> Value {
    let troubles = summary.troubles.iter();
    let troubles: Value = troubles
        .map(|trouble| json!({ "name": trouble.name, "what": trouble.what, "next": trouble.next }))
        .collect();
    json!({
        "root": root,
        "clusters": { "active": summary.active_clusters, "total": summary.clusters },
        "workers": {
            "active": summary.workers,
            "cordoned": summary.cordoned,
            "draining": summary.draining,
            "cpus": summary.cpus,
            "memory_free_mb": summary.memory,
        },
        "apps": summary.apps,
        "services": summary.services,
        "instances": { "running": summary.running, "waiting": summary.waiting, "failed": summary.failed },
        "troubles": troubles,
    })
}

#[cfg(test)]
mod tests {
    use protocol::cluster::WorkerState;
    use protocol::service::Instance;
    use protocol::status::Status;

    use super::{Clusters, Fleet, Paint, Worker, Workers, document, summary, text};
    use crate::sample::{self, TOLD, worker};

    const NOW: f64 = 1_795_374_561.67 + 240.0;

    #[test]
    fn what_is_wrong_comes_first() {
        let apps = vec![sample::app(1, "hello", "demo")];
        let mut web = sample::service(&apps[0], 11, "web");
        let failed =
            Instance { status_detail: Some("no such image".into()), ..Instance::new(1, Status::Failed) };
        web.instance_list = vec![Instance::new(0, Status::Running), failed];
        let fleet = Fleet { apps, services: vec![web], ..Fleet::default() };
        let mut lost = sample::cluster(3, "berlin");
        lost.active = false;
        let clusters = Clusters { clusters: vec![lost, sample::cluster(4, "home")], documents: Vec::new() };
        let summary = summary(&fleet, &clusters, &Workers::default(), NOW);
        let expected = "\
! cluster berlin  lost 4 m ago; its services run on as last seen  hypha get clusters berlin
! hello/web       failed 1/2: /1: no such image  hypha why hello/web
  root http://r:1   clusters 1/2   workers 2   4 CPUs, 45.3 GB of memory free
  1 app, 1 service   instances 1 running, 0 waiting, 1 failed";
        assert_eq!(text(&summary, "http://r:1", Paint::never()), expected);
        assert_eq!(document(&summary, "http://r:1")["troubles"][1]["name"], "hello/web");
    }

    #[test]
    fn workers_that_are_silent_are_among_it_and_those_that_are_held_are_counted() {
        let silent =
            |state, silent| move |of: &mut Worker| (of.worker.state, of.worker.silent) = (state, silent);
        let held =
            |draining| move |of: &mut Worker| (of.worker.cordoned, of.worker.draining) = (true, draining);
        let workers = vec![
            worker("home", "pi-1", |_| {}),
            worker("home", "pi-2", silent(WorkerState::Unreachable, 9)),
            worker("home", "pi-3", silent(WorkerState::Dead, 600)),
            worker("home", "pi-4", held(false)),
            worker("home", "pi-5", held(true)),
            worker("berlin", "pi-6", |of| {
                silent(WorkerState::Dead, 600)(of);
                of.cluster_active = false;
            }),
        ];
        let workers = Workers { workers, ..Workers::default() };
        let clusters = Clusters { clusters: vec![sample::cluster(4, "home")], documents: Vec::new() };
        let summary = summary(&Fleet::default(), &clusters, &workers, TOLD);
        let expected = "\
! worker pi-2  unreachable for 9 s; 3 instances there as last seen, nothing is moved yet  hypha get workers pi-2
! worker pi-3  dead, silent for 10 m; its instances are placed elsewhere  hypha get workers pi-3
  root http://r:1   clusters 1/1   workers 2 (2 cordoned, 1 of them draining)   4 CPUs, 45.3 GB of memory free
  0 apps, 0 services   instances 0 running, 0 waiting, 0 failed";
        assert_eq!(text(&summary, "http://r:1", Paint::never()), expected);
        assert_eq!(document(&summary, "http://r:1")["workers"]["cordoned"], 2);
    }

    #[test]
    fn nothing_wrong_is_said_too() {
        let clusters = Clusters { clusters: vec![sample::cluster(4, "home")], documents: Vec::new() };
        let summary = summary(&Fleet::default(), &clusters, &Workers::default(), NOW);
        assert!(text(&summary, "http://r:1", Paint::never()).ends_with("all is well"));
    }
}
