//! Workers: `get workers`, `cordon`, `drain`, `uncordon`; clusters as a whole are cordoned, too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::cluster::Worker;

use crate::api::{Client, Word};
use crate::args::Drain;
use crate::command::get::now;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::fleet::{Clusters, Fleet, Workers};
use crate::name::Target;
use crate::output::Listing;
use crate::view::{count, worker};

/// The workers of these names; no names want all.
pub(crate) fn listing(workers: &Workers, names: &[String], now: f64) -> Result<Listing, Failure> {
    let named = find_all(workers, names)?;
    let shown = workers.workers.iter().zip(&workers.documents);
    let shown = shown
        .filter(|(worker, _)| named.is_empty() || named.iter().any(|named| std::ptr::eq(*named, *worker)));
    let rows = shown.map(|(of, document)| worker::row(of, document, now)).collect();
    Ok(Listing { columns: worker::COLUMNS, rows })
}

/// What is missing in a list of all workers.
pub(crate) fn say_what_is_untold(context: &Context, workers: &Workers) {
    for cluster in &workers.untold {
        let (name, count) = (&cluster.cluster_name, count(cluster.count as usize, "worker"));
        context.terminal.warn(&format!("cluster {name} has {count} and says nothing of each"));
    }
}

/// `pi-7`, or `berlin/pi-7` where two clusters have one of that name.
pub(crate) fn find<'a>(workers: &'a Workers, name: &str) -> Result<&'a Worker, Failure> {
    let full = |of: &Worker| format!("{}/{}", of.cluster_name, of.worker.name);
    let mut meant = workers.workers.iter().filter(|of| of.worker.name == name || full(of) == name);
    match (meant.next(), meant.next()) {
        (Some(worker), None) => Ok(worker),
        (Some(one), Some(other)) => {
            let title = format!("'{name}' is several workers: {}, {}", full(one), full(other));
            Err(Failure::new(Exit::Usage, title).hint("write CLUSTER/WORKER"))
        }
        (None, _) => {
            let nearest = workers.workers.iter().map(|of| of.worker.name.clone()).take(3).collect();
            let failure =
                Failure::new(Exit::NotFound, format!("no worker '{name}'")).hint("hypha get workers");
            Err(Failure { nearest, ..failure })
        }
    }
}

fn find_all<'a>(workers: &'a Workers, names: &[String]) -> Result<Vec<&'a Worker>, Failure> {
    names.iter().map(|name| find(workers, name)).collect()
}

/// What begins the name of a cluster among those of workers.
const CLUSTER: &str = "cluster/";

/// Cordons or uncordons workers and clusters. All names are looked up before anything is changed.
pub(crate) async fn hold(context: &Context, names: &[String], word: Word) -> Result<(), Failure> {
    let (mut of_clusters, mut of_workers) = (Vec::new(), Vec::new());
    for name in names {
        match name.strip_prefix(CLUSTER) {
            Some(cluster) => of_clusters.push(cluster.to_owned()),
            None => of_workers.push(name.clone()),
        }
    }
    let client = context.client()?;
    let (known, workers) = futures::try_join!(Clusters::fetch(&client), Workers::fetch(&client))?;
    super::get::clusters(&known, &of_clusters)?;
    find_all(&workers, &of_workers)?;
    for cluster in known.clusters.iter().filter(|cluster| of_clusters.contains(&cluster.cluster_name)) {
        client.hold_cluster(cluster.id, word == Word::Cordon).await?;
    }
    if !of_clusters.is_empty() {
        context.list(&super::get::clusters(&Clusters::fetch(&client).await?, &of_clusters)?, "")?;
    }
    if of_workers.is_empty() { Ok(()) } else { say(context, &client, &workers, &of_workers, word).await }
}

/// Says something of workers, which are shown then. All names are looked up before anything is changed.
async fn say(
    context: &Context,
    client: &Client,
    workers: &Workers,
    names: &[String],
    word: Word,
) -> Result<(), Failure> {
    for worker in find_all(workers, names)? {
        client.say(worker.worker.id, word).await?;
    }
    let after = Workers::fetch(client).await?;
    context.list(&listing(&after, names, now())?, "")
}

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);

/// Waits until the workers are empty, and says what moves meanwhile; what cannot move is named with its reason.
pub(crate) async fn drain(context: &Context, arguments: &Drain) -> Result<(), Failure> {
    let Drain { workers: names, patience } = arguments;
    if let Some(cluster) = names.iter().find(|name| name.starts_with(CLUSTER)) {
        let title = format!("'{cluster}': only workers can be drained");
        let hint = format!("hypha cordon {cluster}, and hypha drain each of its workers");
        return Err(Failure::new(Exit::Usage, title).hint(hint));
    }
    let client = context.client()?;
    say(context, &client, &Workers::fetch(&client).await?, names, Word::Drain).await?;
    if patience.no_wait {
        return Ok(());
    }
    context.terminal.on_interrupt("draining goes on; see hypha get workers, and hypha uncordon to end it");
    let deadline = Instant::now() + patience.timeout;
    let mut told = BTreeMap::new();
    loop {
        let (fleet, workers) = futures::try_join!(Fleet::fetch(&client), Workers::fetch(&client))?;
        let named = find_all(&workers, names)?;
        let ids: Vec<_> = named.iter().map(|of| of.worker.id).collect();
        let left: BTreeMap<_, _> = fleet
            .services
            .iter()
            .flat_map(|service| service.instance_list.iter().map(move |instance| (service, instance)))
            .filter(|(_, instance)| instance.worker_id.is_some_and(|id| ids.contains(&id)))
            .map(|(service, instance)| {
                let label = fleet.names().label(Target::Instance(service.id, instance.instance_number));
                (label, instance.status_detail.clone().unwrap_or_default())
            })
            .collect();
        for label in told.keys().filter(|label| !left.contains_key(*label)) {
            context.terminal.say(&format!("{label}: moved"));
        }
        let instances: u32 = named.iter().map(|of| of.worker.instances).sum();
        if left.is_empty() && instances == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let title = format!("not empty after {} s", patience.timeout.as_secs());
            let mut failure = Failure::new(Exit::TimedOut, title).hint("hypha why INSTANCE");
            for (label, why) in left {
                failure = failure.detail(format!("{label}: {why}"));
            }
            return Err(failure);
        }
        told = left;
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use protocol::cluster::{UntoldWorkers, WorkerState};
    use serde_json::json;

    use super::{Workers, listing};
    use crate::exit::Exit;
    use crate::output::{Format, Frame, render};
    use crate::sample::{TOLD, worker};

    const NOW: f64 = TOLD + 3.0;

    fn workers() -> Workers {
        let workers = vec![
            worker("berlin", "pi-1", |it| it.cluster_active = false),
            worker("home", "pi-1", |_| {}),
            worker("home", "pi-2", |it| it.worker.cordoned = true),
            worker("home", "pi-3", |it| (it.worker.state, it.worker.silent) = (WorkerState::Unreachable, 9)),
            worker("home", "pi-4", |it| (it.worker.state, it.worker.silent) = (WorkerState::Dead, 600)),
        ];
        let untold = vec![UntoldWorkers { cluster_name: "oak".to_owned(), count: 2 }];
        Workers { documents: vec![json!({}); workers.len()], workers, untold }
    }

    #[test]
    fn workers_are_listed_with_what_hinders_them() {
        let expected = "\
WORKER  STATE         CLUSTER  INSTANCES  CPUS  CPU     FREE  ARCH   SEEN
pi-1    cluster lost  berlin           3     4  8 %  3200 MB  arm64   4 s
pi-1    ready         home             3     4  8 %  3200 MB  arm64   4 s
pi-2    cordoned      home             3     4  8 %  3200 MB  arm64   4 s
pi-3    unreachable   home             3     4  8 %  3200 MB  arm64  12 s
pi-4    dead          home             3     4  8 %  3200 MB  arm64  10 m";
        let frame = Frame { width: Some(80), colours: false, headers: true };
        let text = render(&listing(&workers(), &[], NOW).unwrap(), Format::Table, frame);
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_worker_is_named_with_its_cluster_where_that_is_needed() {
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let listing = listing(&workers(), &names, NOW).map_err(|failure| failure.exit)?;
            Ok(listing.rows.into_iter().map(|row| row.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["pi-2"]), Ok(vec!["worker/pi-2".to_owned()]));
        assert_eq!(names(&["berlin/pi-1"]).unwrap().len(), 1);
        assert_eq!(names(&["pi-1"]), Err(Exit::Usage));
        assert_eq!(names(&["pi-2", "pi-9"]), Err(Exit::NotFound));
    }
}
