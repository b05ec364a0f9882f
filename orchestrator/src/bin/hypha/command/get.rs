//! `get`: lists, and what changes in them.

mod mirror;
mod watch;

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::service::Service;
use serde_json::Value;

use crate::api::{ApiError, Client};
use crate::args::{Get, Kind};
use crate::command::worker;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::fleet::{Clusters, Fleet, Workers};
use crate::name::Target;
use crate::output::{Listing, Row};
use crate::view::{app, cluster, instance, service};

/// What is known of the root, as far as it takes for one kind of list.
#[derive(Debug, Default)]
struct Seen {
    fleet: Fleet,
    clusters: Clusters,
    workers: Workers,
}

impl Seen {
    async fn fetch(client: &Client, kind: Kind) -> Result<Self, ApiError> {
        Ok(match kind {
            Kind::App | Kind::Service => Self { fleet: Fleet::fetch(client).await?, ..Self::default() },
            Kind::Instance => {
                let (fleet, clusters) = futures::try_join!(Fleet::fetch(client), Clusters::fetch(client))?;
                Self { fleet, clusters, ..Self::default() }
            }
            Kind::Cluster => Self { clusters: Clusters::fetch(client).await?, ..Self::default() },
            Kind::Worker => Self { workers: Workers::fetch(client).await?, ..Self::default() },
        })
    }
}

pub(crate) async fn get(context: &Context, arguments: &Get) -> Result<(), Failure> {
    let client = context.client()?;
    let kind = arguments.kind;
    let seen = Seen::fetch(&client, kind).await?;
    let listing = listing(&seen, arguments)?;
    if kind == Kind::Worker && arguments.names.is_empty() {
        worker::say_what_is_untold(context, &seen.workers);
    }
    if arguments.watch {
        return watch::watch(context, &client, arguments).await;
    }
    context.list(&listing, nothing(kind))
}

/// What is said where there is nothing to list.
const fn nothing(kind: Kind) -> &'static str {
    match kind {
        Kind::App | Kind::Service => "nothing is deployed here  hypha apply -f FILE",
        Kind::Instance => "no instance here  hypha apply -f FILE, hypha scale SERVICE=N",
        Kind::Cluster => "no cluster has joined yet  orchestrator cluster --system-manager-url HOST",
        Kind::Worker => "no worker has joined yet  node-engine -a CLUSTER",
    }
}

fn listing(seen: &Seen, arguments: &Get) -> Result<Listing, Failure> {
    let Seen { fleet, clusters: known, workers } = seen;
    match arguments.kind {
        Kind::App => Ok(apps(fleet, &Wanted::find(fleet, arguments)?)),
        Kind::Service => Ok(services(fleet, &Wanted::find(fleet, arguments)?)),
        Kind::Instance => Ok(instances(fleet, known, &Wanted::find(fleet, arguments)?, now())),
        Kind::Cluster => clusters(known, &arguments.names),
        Kind::Worker => worker::listing(workers, &arguments.names, now()),
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_secs_f64()).unwrap_or_default()
}

/// What the names of the command line stand for. No names want everything.
#[derive(Debug)]
struct Wanted {
    app: Option<Target>,
    targets: Vec<Target>,
}

impl Wanted {
    fn find(fleet: &Fleet, arguments: &Get) -> Result<Self, Failure> {
        let names = fleet.names();
        let kinds: &[Kind] = match arguments.kind {
            Kind::App => &[Kind::App],
            Kind::Service => &[Kind::App, Kind::Service],
            Kind::Instance | Kind::Cluster | Kind::Worker => &[Kind::App, Kind::Service, Kind::Instance],
        };
        let app = arguments.app.as_deref().map(|app| names.find(app, &[Kind::App])).transpose()?;
        // The kind that is asked for goes before what contains it: `get services web` is the service.
        let exact = [arguments.kind];
        let find = |name: &String| names.find(name, &exact).or_else(|_| names.find(name, kinds));
        let targets = arguments.names.iter().map(find).collect::<Result<_, _>>()?;
        Ok(Self { app, targets })
    }

    fn has(&self, path: &[Target]) -> bool {
        self.app.is_none_or(|app| path.contains(&app))
            && (self.targets.is_empty() || self.targets.iter().any(|target| path.contains(target)))
    }
}

fn apps(fleet: &Fleet, wanted: &Wanted) -> Listing {
    let shown =
        fleet.apps.iter().zip(&fleet.app_documents).filter(|(app, _)| wanted.has(&[Target::App(app.id)]));
    Listing {
        columns: app::COLUMNS,
        rows: shown.map(|(app, document)| app::row(app, document, fleet)).collect(),
    }
}

fn path(service: &Service) -> [Target; 2] {
    [Target::App(service.application_id), Target::Service(service.id)]
}

fn services(fleet: &Fleet, wanted: &Wanted) -> Listing {
    let shown =
        fleet.services.iter().zip(&fleet.service_documents).filter(|(service, _)| wanted.has(&path(service)));
    let rows = shown.map(|(service, document)| service::row(service, document, fleet)).collect();
    Listing { columns: service::COLUMNS, rows }
}

fn instances(fleet: &Fleet, clusters: &Clusters, wanted: &Wanted, now: f64) -> Listing {
    let mut rows: Vec<Row> = Vec::new();
    for (service, document) in fleet.services.iter().zip(&fleet.service_documents) {
        let [app, of] = path(service);
        for instance in &service.instance_list {
            let number = instance.instance_number;
            if wanted.has(&[app, of, Target::Instance(service.id, number)]) {
                let document = instance_document(document, number);
                rows.push(instance::row(service, instance, &document, fleet, clusters, now));
            }
        }
    }
    Listing { columns: instance::COLUMNS, rows }
}

/// The part of a service's document that is about one instance.
fn instance_document(document: &Value, number: u32) -> Value {
    let instances = document["instance_list"].as_array();
    let instance =
        instances.and_then(|list| list.iter().find(|instance| instance["instance_number"] == number));
    instance.cloned().unwrap_or_default()
}

/// The clusters of these names; no names want all.
pub(crate) fn clusters(clusters: &Clusters, names: &[String]) -> Result<Listing, Failure> {
    let known = |name: &String| clusters.clusters.iter().any(|cluster| cluster.cluster_name == *name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let nearest = clusters.clusters.iter().map(|cluster| cluster.cluster_name.clone()).take(3).collect();
        let failure =
            Failure::new(Exit::NotFound, format!("no cluster '{unknown}'")).hint("hypha get clusters");
        return Err(Failure { nearest, ..failure });
    }
    let now = now();
    let shown = clusters.clusters.iter().zip(&clusters.documents);
    let shown = shown.filter(|(cluster, _)| names.is_empty() || names.contains(&cluster.cluster_name));
    let rows = shown.map(|(cluster, document)| cluster::row(cluster, document, now)).collect();
    Ok(Listing { columns: cluster::COLUMNS, rows })
}

/// The rows of some services, for commands that changed them.
pub(crate) fn some_services(fleet: &Fleet, ids: &[protocol::id::Id]) -> Listing {
    let targets = ids.iter().map(|id| Target::Service(*id)).collect();
    services(fleet, &Wanted { app: None, targets })
}

#[cfg(test)]
mod tests;
