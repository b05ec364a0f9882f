//! The root without its doors, over a long time.

mod large;

use std::net::SocketAddr;
use std::sync::Arc;

use protocol::id::Id;
use protocol::plan::Plan;
use protocol::sla::Microservice;
use serde_json::{Value, json};

use super::access::Caller;
use super::application::Application;
use super::failure::Failure;
use super::plan::PlanError;
use super::role::{Role, Roles};
use super::user::UserName;
use super::{Bound, Config, Root, RootError, key};
use crate::store::tests::etcd::Server;

/// What is left of the pool.
const FREE: usize = 9;
/// In the kernel's memory: the disk would be most of the time.
const MEMORY: &str = "/dev/shm";

async fn root(data: &tempfile::TempDir) -> Arc<Root> {
    open(data, Plan::default()).await.unwrap()
}

pub(super) async fn open(data: &tempfile::TempDir, plan: Plan) -> Result<Arc<Root>, RootError> {
    Ok(Bound::open(config(data, plan)).await?.root)
}

fn config(data: &tempfile::TempDir, plan: Plan) -> Config {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        data_dir: data.path().to_owned(),
        store: None,
        api: free,
        net: free,
        grpc: free,
        insecure_admin_password: Some("Admin".to_owned()),
        cluster_timeout: std::time::Duration::from_secs(300),
        mail: None,
        reusable_refresh_tokens: false,
        plan,
    }
}

/// Makes an application with one service; gives both ids.
pub(super) async fn create(root: &Arc<Root>, number: usize) -> Result<(Id, Id), Failure> {
    let name = format!("app{number}");
    let own = create_of(root, &name, [described("web")]).await?;
    Ok((own.id, own.services[0]))
}

fn described(service: &str) -> Value {
    json!({
        "microservice_name": service, "microservice_namespace": "test", "virtualization": "docker", "code": "c",
    })
}

/// Makes an application with these services.
async fn create_of(
    root: &Arc<Root>,
    name: &str,
    services: impl IntoIterator<Item = Value>,
) -> Result<Application, Failure> {
    let caller = Caller {
        name: UserName::try_from("Admin").unwrap(),
        id: Id::from_bytes([9; 12]),
        organization: root.root_organization,
        roles: Roles::from([Role::Admin]),
    };
    let services: Vec<_> = services.into_iter().collect();
    let document = json!({
        "sla_version": "v2.0", "customerID": "Admin",
        "applications": [{
            "application_name": name, "application_namespace": "test", "microservices": services,
        }],
    });
    root.create_applications(&caller, serde_json::from_value(document).unwrap()).await?;
    let applications = root.applications().await.unwrap();
    Ok(applications.into_iter().find(|application| application.name == name).unwrap())
}

/// How many instances come and go: more by hand, with HYPHA_TEST_DEPLOYS.
fn deploys() -> usize {
    std::env::var("HYPHA_TEST_DEPLOYS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000)
}

#[tokio::test]
async fn however_often_services_and_instances_come_and_go_no_address_is_lost_or_given_twice() {
    let data = tempfile::tempdir_in(MEMORY).or_else(|_no_memory| tempfile::tempdir()).unwrap();
    let root = root(&data).await;
    while root.pool().free() > FREE {
        root.pool().take().unwrap();
    }
    let (mut deployed, mut refused, mut round) = (0, 0, 0);
    while deployed < deploys() {
        round += 1;
        let (application, service) = create(&root, round).await.unwrap();
        // Sometimes more than there are addresses for.
        for _ in 0..round % (FREE + 3) {
            match root.add_instance(service).await {
                Ok(_) => deployed += 1,
                Err(_) => refused += 1,
            }
        }
        let record = root.service(service).await.unwrap().unwrap();
        let addresses: Vec<_> =
            record.instances().filter_map(|instance| instance.place.instance_ip).collect();
        assert_eq!(root.pool().free() + addresses.len() + 1, FREE, "round {round}");
        let stored = root.store.list::<Id>(key::ADDRESSES).await.unwrap();
        assert_eq!(stored.len(), addresses.len() + 1, "round {round}: each is stored once");
        match round % 4 {
            0 => drop(root.remove_instances(service, None).await),
            1 => {
                for number in record.instances().map(|instance| instance.number) {
                    root.remove_instances(service, Some(number)).await.unwrap();
                }
            }
            2 => root.delete_service(service).await.unwrap(),
            _ => {}
        }
        root.delete_application(application).await.unwrap();
        assert_eq!(root.pool().free(), FREE, "round {round}");
    }
    assert!(refused > 0, "the pool was never empty");
    nothing_is_left(&root).await;
}

async fn nothing_is_left(root: &Root) {
    for prefix in [
        "application-name/",
        "service-name/",
        key::UNFINISHED,
        key::ADDRESSES,
        key::UNPLACED,
        key::COMMANDS,
        crate::children::key::NOTICES,
        key::SERVICES,
        key::INSTANCES,
        key::NEXT_INSTANCES,
        key::APPLICATIONS,
    ] {
        let left = root.store.list::<Value>(prefix).await.unwrap();
        assert!(left.is_empty(), "{prefix}: {left:?}");
    }
    assert!(root.services().await.unwrap().is_empty());
}

/// Asks for so many instances at the same time, and gives their numbers.
async fn add_together(root: &Arc<Root>, service: Id, count: usize) -> Vec<u32> {
    let all = futures::future::try_join_all((0..count).map(|_| root.add_instance(service))).await;
    let mut numbers = all.unwrap();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn what_is_asked_for_at_once_is_all_there_and_numbered_in_turn_after_a_restart() {
    let data = tempfile::tempdir_in(MEMORY).unwrap();
    let bound = Bound::open(config(&data, Plan::default())).await.unwrap();
    let root = Arc::clone(&bound.root);
    let (application, service) = create(&root, 1).await.unwrap();
    assert_eq!(add_together(&root, service, 100).await, (0..100).collect::<Vec<_>>());
    let before = root.service(service).await.unwrap().unwrap();
    assert!(matches!(root.add_instance(application).await, Err(Failure::NotFound { .. })));
    root.remove_instances(service, Some(99)).await.unwrap();
    drop((bound, root));

    let root = open(&data, Plan::default()).await.unwrap();
    let after = root.service(service).await.unwrap().unwrap();
    let known = |number| (before.instance(number).cloned(), after.instance(number).cloned());
    assert!((0..99).map(known).all(|(before, after)| before.is_some() && before == after), "{after:?}");
    assert_eq!(after.instances().count(), 99);
    assert_eq!(root.add_instance(service).await.unwrap(), 100, "no number is given twice");
}

#[tokio::test]
async fn services_that_are_added_while_their_application_is_deleted_go_with_it_or_never_come() {
    let data = tempfile::tempdir_in(MEMORY).unwrap();
    let root = root(&data).await;
    let more = |name: String| serde_json::from_value::<Microservice>(described(&name)).unwrap();
    for round in 0..100 {
        let (application, _) = create(&root, round).await.unwrap();
        let services = (0..10).map(|number| more(format!("more{number}"))).collect();
        let (added, deleted) =
            tokio::join!(root.add_services(application, services), root.delete_application(application));
        deleted.unwrap();
        assert!(
            matches!(added, Ok(_) | Err(Failure::Conflict(_) | Failure::NotFound { .. })),
            "round {round}: {added:?}"
        );
        nothing_is_left(&root).await;
    }
}

#[tokio::test]
async fn hundreds_of_instances_come_and_go_in_transactions_that_etcd_takes() {
    let server = Server::start(&["--max-txn-ops=1024"]);
    let data = tempfile::tempdir_in(MEMORY).unwrap();
    let store = Some(server.location("many").parse().unwrap());
    // The lead is lost with it.
    let bound = Bound::open(Config { store, ..config(&data, Plan::default()) }).await.unwrap();
    let root = Arc::clone(&bound.root);
    let ((first, service), (second, other)) =
        (create(&root, 1).await.unwrap(), create(&root, 2).await.unwrap());
    assert_eq!(add_together(&root, service, 400).await.len(), 400);
    assert_eq!(add_together(&root, other, 400).await.len(), 400);
    assert_eq!(root.remove_instances(service, None).await.unwrap(), 400);
    assert_eq!(add_together(&root, service, 400).await, (400..800).collect::<Vec<_>>());
    root.delete_service(service).await.unwrap();
    root.delete_application(second).await.unwrap();
    root.delete_application(first).await.unwrap();
    nothing_is_left(&root).await;
}

#[tokio::test]
async fn when_all_blocks_are_given_those_that_came_back_are_given_again_the_oldest_first() {
    let data = tempfile::tempdir_in(MEMORY).unwrap();
    let root = root(&data).await;
    let cluster = Id::from_bytes([4; 12]);
    let mut given = Vec::new();
    for _ in 0..3 {
        given.push(root.give_subnet(Some(cluster)).await.unwrap());
    }
    for block in [&given[2], &given[0]] {
        root.take_subnet_back(block.subnet_addr, &[cluster]).await.unwrap();
    }
    root.store.put(key::NEXT_SUBNET, &(super::subnet::count(&root.plan) - 1)).await.unwrap();
    assert_eq!(root.give_subnet(None).await.unwrap().subnet_addr.to_string(), "10.29.255.192");
    assert_eq!(root.give_subnet(Some(cluster)).await.unwrap(), given[2]);
    assert_eq!(root.give_subnet(Some(cluster)).await.unwrap(), given[0]);
    assert!(matches!(root.give_subnet(None).await, Err(Failure::NoSubnet)));
    root.take_subnet_back(given[0].subnet_addr, &[cluster]).await.unwrap();
    assert_eq!(root.give_subnet(None).await.unwrap(), given[0]);
}

fn plan(containers: &str, services: &str) -> Plan {
    Plan::new(containers.parse().unwrap(), services.parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_range_changes_only_while_nobody_has_an_address_of_it() {
    let data = tempfile::tempdir_in(MEMORY).unwrap();
    let cluster = Id::from_bytes([4; 12]);
    let first = plan("172.20.0.0/14", "172.24.0.0/20");
    let root = open(&data, first).await.unwrap();
    let block = root.give_subnet(Some(cluster)).await.unwrap();
    assert_eq!((block.subnet_addr.to_string(), block.plan), ("172.20.0.0".to_owned(), first));
    let (application, service) = create(&root, 1).await.unwrap();
    let record = root.service(service).await.unwrap().unwrap();
    assert!(record.owned().all(|address| address.is_ipv6() || first.is_service(address)), "{record:?}");
    for address in [&record.address.address, &record.address.address_v6] {
        assert_eq!(root.owner_of(address.parse().unwrap()).await.unwrap(), Some(service), "{address}");
    }
    drop(root);

    let other = plan("172.20.0.0/14", "10.30.0.0/16");
    assert!(matches!(open(&data, other).await.err(), Some(RootError::Plan(PlanError::Services { .. }))));
    let root = open(&data, first).await.unwrap();
    root.delete_application(application).await.unwrap();
    drop(root);
    for other in [other, plan("10.18.0.0/16", "172.24.0.0/20")] {
        let refused = open(&data, other).await.err();
        assert!(
            matches!(refused, Some(RootError::Plan(PlanError::Workers { .. }))),
            "workers know the old {other}"
        );
    }
    let root = open(&data, first).await.unwrap();
    root.take_subnet_back(block.subnet_addr, &[cluster]).await.unwrap();
    drop(root);

    let second = plan("10.18.0.0/16", "10.30.0.0/16");
    let root = open(&data, second).await.unwrap();
    let given = root.give_subnet(Some(cluster)).await.unwrap();
    assert!(second.is_container(given.subnet_addr.into()) && given.plan == second, "{given:?}");
    let (_, service) = create(&root, 2).await.unwrap();
    let record = root.service(service).await.unwrap().unwrap();
    assert!(record.owned().all(|address| address.is_ipv6() || second.is_service(address)), "{record:?}");
}
