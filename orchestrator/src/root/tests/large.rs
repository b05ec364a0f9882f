//! Applications of more services than etcd takes in one transaction, in either store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::plan::Plan;
use protocol::sla::Microservice;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{MEMORY, add_together, config, create_of, described, nothing_is_left};
use crate::root::failure::Failure;
use crate::root::stream::Topic;
use crate::root::{Bound, Config, Root, key, unfinished};
use crate::store::tests::etcd::Server;

const SERVICES: usize = 300;
const PATIENCE: Duration = Duration::from_secs(60);

/// A root that can be started again.
struct Bed {
    data: TempDir,
    server: Option<Server>,
}

impl Bed {
    fn both() -> [Self; 2] {
        let server = Server::start(&["--max-txn-ops=1024"]);
        [None, Some(server)].map(|server| Self { data: tempfile::tempdir_in(MEMORY).unwrap(), server })
    }

    async fn open(&self) -> (Bound, Arc<Root>) {
        let store = self.server.as_ref().map(|server| server.location("large").parse().unwrap());
        let bound = Bound::open(Config { store, ..config(&self.data, Plan::default()) }).await.unwrap();
        let root = Arc::clone(&bound.root);
        (bound, root)
    }
}

/// Ends a root, whatever it was about to do.
async fn close((bound, root): (Bound, Arc<Root>)) {
    drop(root);
    if let Some(leadership) = bound.leadership {
        leadership.give_up().await;
    }
}

fn names(prefix: &str) -> impl Iterator<Item = String> {
    (0..SERVICES).map(move |number| format!("{prefix}{number:03}"))
}

fn sla(prefix: &str) -> Vec<Microservice> {
    names(prefix).map(|name| serde_json::from_value(described(&name)).unwrap()).collect()
}

/// What the root does in the background about what was left.
async fn clear_away(root: &Arc<Root>) {
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(unfinished::run(Arc::clone(root), shutdown.clone()));
    let start = Instant::now();
    while !root.store.branches(key::UNFINISHED).await.unwrap().is_empty() {
        assert!(start.elapsed() < PATIENCE, "something is left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shutdown.cancel();
    running.await.unwrap();
}

/// What people are shown.
async fn shown(root: &Root) -> usize {
    let things = root.things().await.unwrap();
    things.iter().filter(|thing| thing.topic != Topic::Events).count()
}

async fn count(root: &Root, prefix: &str) -> usize {
    root.store.list::<serde_json::Value>(prefix).await.unwrap().len()
}

#[tokio::test]
async fn an_application_of_hundreds_of_services_comes_and_goes_as_a_whole() {
    for bed in Bed::both() {
        let (_bound, root) = bed.open().await;
        let free = root.pool().free();
        let application = create_of(&root, "large", names("s").map(|name| described(&name))).await.unwrap();
        assert_eq!(application.services.len(), SERVICES);
        let more = root.add_services(application.id, sla("t")).await.unwrap();
        let listed = root.application(application.id).await.unwrap().unwrap().services;
        assert_eq!(listed.len(), 2 * SERVICES);
        assert!(more.iter().all(|record| listed.contains(&record.service.id)));
        assert_eq!(root.services().await.unwrap().len(), 2 * SERVICES);
        assert_eq!(count(&root, key::UNFINISHED).await, 0);
        // A service that has more instances than go with it in one transaction, and many that have some.
        add_together(&root, listed[0], 400).await;
        for service in &listed[1..40] {
            add_together(&root, *service, 3).await;
        }
        root.delete_application(application.id).await.unwrap();
        nothing_is_left(&root).await;
        assert_eq!(root.pool().free(), free);
        assert!(matches!(root.delete_application(application.id).await, Err(Failure::NotFound { .. })));
    }
}

#[tokio::test]
async fn however_many_clusters_are_to_hear_of_it_instances_and_their_service_go() {
    for bed in Bed::both() {
        let (_bound, root) = bed.open().await;
        let application = create_of(&root, "known", [described("web"), described("db")]).await.unwrap();
        for service in &application.services {
            let clusters = (0..60).map(|number| Id::from_bytes([number; 12]));
            let interested = root.change_service(*service, |record, transaction| {
                record.interested.extend(clusters.clone());
                (transaction, ())
            });
            interested.await.unwrap();
            add_together(&root, *service, 40).await;
        }
        assert_eq!(root.remove_instances(application.services[0], None).await.unwrap(), 40);
        assert_eq!(root.service(application.services[0]).await.unwrap().unwrap().instances().count(), 0);
        root.delete_application(application.id).await.unwrap();
        assert_eq!(
            count(&root, crate::children::key::NOTICES).await,
            2 * 60 * 41,
            "each is to be told of each, and of the service"
        );
        assert_eq!(count(&root, key::INSTANCES).await + count(&root, key::SERVICES).await, 0);
    }
}

#[tokio::test]
async fn a_deletion_that_was_begun_is_not_seen_half_done_and_ends_after_a_restart() {
    for bed in Bed::both() {
        let opened = bed.open().await;
        let root = &opened.1;
        let application = create_of(root, "large", names("s").map(|name| described(&name))).await.unwrap();
        root.begin_deletion(application.id).await.unwrap();
        for service in &application.services[..50] {
            root.delete_service(*service).await.unwrap();
        }
        close(opened).await;

        let (_bound, root) = bed.open().await;
        assert!(root.applications().await.unwrap().is_empty());
        assert_eq!(shown(&root).await, 0, "nobody is told of its services");
        assert_eq!(root.services().await.unwrap().len(), SERVICES - 50);
        let taken = create_of(&root, "large", [described("web")]).await;
        assert!(matches!(taken, Err(Failure::Conflict(_))), "its services have their names still: {taken:?}");
        clear_away(&root).await;
        nothing_is_left(&root).await;
        create_of(&root, "large", [described("web")]).await.unwrap();
    }
}

/// The last of the services cannot have its name.
async fn obstruct(root: &Root, application: &str, prefix: &str) -> String {
    let last = names(prefix).last().unwrap();
    let name = format!("service-name/{application}.test.{last}.test");
    root.store.put(&name, &Id::from_bytes([1; 12])).await.unwrap();
    name
}

#[tokio::test]
async fn what_cannot_be_made_as_a_whole_is_not_seen_and_goes_also_after_a_restart() {
    for bed in Bed::both() {
        let opened = bed.open().await;
        let root = &opened.1;
        let free = root.pool().free();
        let other = create_of(root, "other", [described("web")]).await.unwrap();
        let mut obstacles = vec![obstruct(root, "large", "s").await];
        let refused = create_of(root, "large", names("s").map(|name| described(&name))).await;
        assert!(
            matches!(&refused, Err(Failure::Conflict(why)) if why.contains("large.test.s299.test exists already")),
            "{refused:?}"
        );
        obstacles.push(obstruct(root, "other", "t").await);
        let refused = root.add_services(other.id, sla("t")).await;
        assert!(matches!(refused, Err(Failure::Conflict(_))), "{refused:?}");
        assert!(root.services().await.unwrap().len() > 1, "some of it was made");
        assert_eq!(shown(root).await, 2, "the other application, and its service");
        for name in obstacles {
            root.store.delete(&name).await.unwrap();
        }
        close(opened).await;

        let (_bound, root) = bed.open().await;
        assert_eq!(shown(&root).await, 2);
        clear_away(&root).await;
        assert_eq!(root.services().await.unwrap().len(), 1);
        assert_eq!(root.application(other.id).await.unwrap().unwrap().services, other.services);
        root.delete_application(other.id).await.unwrap();
        nothing_is_left(&root).await;
        assert_eq!(root.pool().free(), free);
        create_of(&root, "large", names("s").map(|name| described(&name))).await.unwrap();
    }
}
