//! A cluster in this process, on ports of its own, between a stand-in for the root and workers that speak as Oakestra's.

mod bed;
mod external;
mod mosquitto;
mod root;
mod worker;

use std::time::{Duration, Instant};

use orchestrator::cluster::run_and_tell;
use protocol::topic::NodeTopic;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, NAME, PATIENCE, SERVICE, captured_deploy, config, eventually, job};
use crate::root::CLUSTER;
use crate::worker::{Worker, is_reported};

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_goes_from_the_root_to_a_worker_and_its_state_back_up() {
    let bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    bed.deploy(0).await;

    let (kind, deploy) = worker.command().await;
    assert_eq!(kind, "deploy");
    for (key, captured) in captured_deploy().as_object().expect("an object") {
        let ours = deploy.get(key).unwrap_or_else(|| panic!("{key} is missing"));
        let same_kind = std::mem::discriminant(ours) == std::mem::discriminant(captured);
        assert!(same_kind, "{key}: {ours} instead of the like of {captured}");
    }
    assert_eq!(deploy["status"], "NODE_SCHEDULED");
    assert_eq!(deploy["instance_list"][0]["worker_id"], worker.id.to_string());
    is_reported(&bed.root, 0, "NODE_SCHEDULED").await;

    worker.listen_to(NAME).await;
    worker.say_address(NAME, 0, "10.18.0.66").await;
    let update = worker.hears_of(NAME).await;
    assert_eq!(update["type"], "DEPLOYMENT");
    let table = worker.query(NAME, "").await;
    assert_eq!(update["table"], table, "who knows this key need not ask");
    assert_eq!(
        table,
        json!({"app_name": NAME, "instance_list": [{"instance_number": 0, "instance_ip": "10.30.0.0",
            "instance_ip_v6": "fdff::", "cluster_id": CLUSTER, "worker_id": worker.id.to_string(),
            "namespace_ip": "10.18.0.66", "namespace_ip_v6": "fc00::102", "host_ip": "192.0.2.32",
            "host_port": 50103, "service_ip": [
                {"IpType": "RR", "Address": "10.30.109.1", "Address_v6": "fdff:2000::"},
                {"IpType": "instance_ip", "Address": "10.30.0.0", "Address_v6": "fdff::"}]}], "query_key": NAME})
    );
    assert_eq!(worker.query("", "10.30.109.1").await["query_key"], "10.30.109.1");

    worker.say_status(NAME, 0, "CREATED", "Waiting for scheduling decision").await;
    is_reported(&bed.root, 0, "CREATED").await;
    worker.say_resources(&[(NAME, 0)]).await;
    is_reported(&bed.root, 0, "RUNNING").await;
    let instance = bed.root.reported(0).expect("reported");
    assert_eq!((instance.memory_percent.as_deref(), instance.logs.as_str()), (Some("0.000031"), "hello"));
    assert_eq!((instance.worker_id, instance.host_ip.as_deref()), (Some(worker.id), Some("192.0.2.32")));
    eventually("the root knows where it is", || {
        let told = bed.root.memory().deploy_status.clone();
        let place = told.first().map(|status| status["instances"][0].clone()).unwrap_or_default();
        let right = place["namespace_ip"] == "10.18.0.66" && place["host_port"] == 50103;
        (right, format!("{told:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_is_one_worker_and_a_blank_one_is_refused() {
    let bed = Bed::new().await;
    let first = bed.cluster.register("pi1").await;
    assert_eq!(bed.cluster.register("pi1").await, first);
    assert_ne!(bed.cluster.register("pi2").await, first);
    let url = bed.cluster.url("/api/node/register");
    let (status, body) = bed.cluster.send(bed.cluster.http.post(&url).json(&json!({"host": " "}))).await;
    assert_eq!((status, &body["field"]), (400, &json!("host")), "{body}");
    for host in ["x".repeat(256), "pi1\n2026 ERROR".to_owned()] {
        let (status, body) = bed.cluster.send(bed.cluster.http.post(&url).json(&json!({"host": host}))).await;
        assert_eq!((status, &body["field"]), (400, &json!("host")), "{body}");
    }
    let (status, body) = bed.cluster.send(bed.cluster.http.post(&url).body("{")).await;
    assert_eq!((status, &body["code"]), (400, &json!(400)), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeployed_instance_is_removed_and_forgotten() {
    let bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;
    // The root's addresses may come after all that; who listens before would be told of them.
    worker.sees_instances(NAME, 1).await;
    worker.listen_to(NAME).await;
    assert_eq!(bed.cluster.undeploy(SERVICE, "-1").await, (200, json!({"status": "ok"})));
    let (kind, delete) = worker.command().await;
    assert_eq!(kind, "delete");
    assert_eq!(delete, json!({"job_name": NAME, "virtualization": "docker", "instance_number": 0}));
    assert_eq!(worker.hears_of(NAME).await["type"], "UNDEPLOYMENT");
    assert_eq!(worker.query(NAME, "").await["instance_list"], json!([]));
    worker.say_status(NAME, 0, "UNDEPLOYED", "").await;
    worker.say_status(NAME, 0, "DEAD", "Container is starting up").await;
    is_reported(&bed.root, 0, "UNDEPLOYED").await;
    bed.deploy(1).await;
    bed.run_on(&mut worker, 1, "10.18.0.66").await;
    assert!(bed.root.reported(0).is_none(), "told again: {:?}", bed.root.memory());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let bed = Bed::new().await;
    for (service, number) in [(SERVICE, "0"), (SERVICE, "-1"), ("nonsense", "0")] {
        let (status, body) = bed.cluster.undeploy(service, number).await;
        assert_eq!((status, &body["code"]), (404, &json!(404)), "{service}/{number}: {body}");
    }
    bed.deploy(0).await;
    assert_eq!(bed.cluster.undeploy(SERVICE, "7").await.0, 404);
    assert_eq!(bed.cluster.undeploy(SERVICE, "x").await.0, 404);
    let (status, body) = bed.cluster.deploy(&job(0), 3).await;
    assert_eq!((status, &body["field"]), (400, &json!("instance_list")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_worker_s_instance_moves_and_only_one_survives_its_return() {
    let bed = Bed::new().await;
    let mut first = bed.worker("pi1").await;
    bed.deploy(0).await;
    bed.run_on(&mut first, 0, "10.18.0.2").await;
    let mut second = bed.worker("pi2").await;
    second.listen_to(NAME).await;
    let keep_alive = second.keep_alive();
    let first_id = first.id;
    drop(first);

    let start = Instant::now();
    let deployed = async {
        let (kind, deploy) = second.command().await;
        assert_eq!((kind.as_str(), &deploy["instance_number"]), ("deploy", &json!(0)), "same number");
    };
    let keep_talking = keep_alive.run();
    tokio::select! { () = deployed => {}, () = keep_talking => {} }
    println!("placed elsewhere {:?} after the last word (timeout 2 s)", start.elapsed());
    assert_eq!(second.query(NAME, "").await["instance_list"], json!([]), "withdrawn");
    second.say_address(NAME, 0, "10.18.0.66").await;
    let table = second.sees_instances(NAME, 1).await;
    assert_eq!(table["instance_list"][0]["instance_ip"], "10.30.0.0", "same address");
    assert_eq!(table["instance_list"][0]["namespace_ip"], "10.18.0.66");
    second.say_status(NAME, 0, "CREATED", "").await;

    let mut first = Worker::connect(bed.cluster.addresses.mqtt_port, first_id, "pi1").await;
    first.say_resources(&[(NAME, 0)]).await;
    let (kind, delete) = first.command().await;
    assert_eq!((kind.as_str(), &delete["instance_number"]), ("delete", &json!(0)));
    first.say_status(NAME, 0, "UNDEPLOYED", "").await;
    second.say_resources(&[(NAME, 0)]).await;
    second.no_command(Duration::from_millis(300)).await;
    is_reported(&bed.root, 0, "RUNNING").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_returns_keeps_what_nobody_else_could_take() {
    let bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.2").await;
    let id = worker.id;
    drop(worker);
    is_reported(&bed.root, 0, "NO_WORKER_CAPACITY").await;
    let detail = bed.root.reported(0).and_then(|instance| instance.status_detail).unwrap_or_default();
    assert_eq!(detail, "no worker fits (1 known): 1 silent (pi1)");

    let mut worker = Worker::connect(bed.cluster.addresses.mqtt_port, id, "pi1").await;
    worker.say_resources(&[(NAME, 0)]).await;
    is_reported(&bed.root, 0, "RUNNING").await;
    worker.sees_instances(NAME, 1).await;
    worker.say_resources(&[(NAME, 0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_too_early_is_told_when_there_is_an_instance() {
    let bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    let early = worker.query("", "10.30.109.1").await;
    assert_eq!(early, json!({"app_name": "", "instance_list": [], "query_key": "10.30.109.1"}));
    worker.listen_to("10.30.109.1").await;
    bed.deploy(0).await;
    let (_, _deploy) = worker.command().await;
    let start = Instant::now();
    worker.say_address(NAME, 0, "10.18.0.66").await;
    assert_eq!(worker.hears_of("10.30.109.1").await["type"], "DEPLOYMENT");
    println!("told {:?} after the address was known", start.elapsed());
    assert_eq!(worker.query("", "10.30.109.1").await["app_name"], NAME);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_another_cluster_is_asked_for_once_and_followed() {
    let bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    bed.root.allocate("6b033dd4d683569b0801fa19", "far.a.away.b", &[0]);
    assert_eq!(worker.query("far.a.away.b", "").await["instance_list"], json!([]));
    worker.listen_to("far.a.away.b").await;
    for _ in 0..5 {
        worker.query("far.a.away.b", "").await;
    }
    assert_eq!(bed.root.memory().table_queries.len(), 1, "answered from here");
    if let Some(table) = bed.root.memory().tables.get_mut("far.a.away.b") {
        table["instance_list"][0]["namespace_ip"] = json!("10.18.9.2");
        table["instance_list"][0]["host_ip"] = json!("198.51.100.7");
        table["instance_list"][0]["host_port"] = json!(50103);
    }
    bed.cluster
        .notify(&json!({"job_name": "far.a.away.b", "instance_number": 0, "type": "DEPLOYMENT"}))
        .await;
    assert_eq!(worker.hears_of("far.a.away.b").await["type"], "DEPLOYMENT");
    let table = worker.query("far.a.away.b", "").await;
    assert_eq!(table["instance_list"][0]["host_ip"], "198.51.100.7");
    assert_eq!(table["instance_list"][0]["namespace_ip_v6"], "::ffff:10.18.9.2", "always parsable");
    bed.cluster
        .notify(&json!({"job_name": "far.a.away.b", "instance_number": 0, "type": "UNDEPLOYMENT"}))
        .await;
    assert_eq!(worker.hears_of("far.a.away.b").await["type"], "UNDEPLOYMENT");

    worker.say_net(NodeTopic::InterestRemove, &json!({"appname": "far.a.away.b"})).await;
    eventually("the root is told that nobody is interested", || {
        let dropped = bed.root.memory().dropped_interests.clone();
        (dropped == ["far.a.away.b"], format!("{dropped:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_cluster_loses_nothing_and_repeats_nothing() {
    let mut bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    worker.say_net(NodeTopic::Subnet, &json!({"METHOD": "GET"})).await;
    let subnet = worker.net_message().await;
    assert_eq!(subnet.1, json!({"address": "10.18.0.0", "addressv6": "fc00::"}));
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;
    let id = worker.id;
    drop(worker);
    bed.root.memory().report = None;
    bed.root.memory().tables.clear();

    bed.restart().await;
    is_reported(&bed.root, 0, "RUNNING").await;
    assert_eq!(bed.cluster.register("pi1").await, id);
    let mut worker = Worker::connect(bed.cluster.addresses.mqtt_port, id, "pi1").await;
    worker.say_net(NodeTopic::Subnet, &json!({"METHOD": "GET"})).await;
    assert_eq!(worker.net_message().await, subnet);
    worker.say_resources(&[(NAME, 0)]).await;
    let table = worker.query(NAME, "").await;
    assert_eq!(table["instance_list"][0]["namespace_ip"], "10.18.0.66", "known without the root");
    worker.no_command(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_deleted_once_it_is_silent_and_what_it_kept_goes_elsewhere() {
    let bed = Bed::new().await;
    let mut first = bed.worker("pi1").await;
    first.say_net(NodeTopic::Subnet, &json!({"METHOD": "GET"})).await;
    assert_eq!(first.net_message().await.1["address"], "10.18.0.0");
    bed.root.allocate(SERVICE, NAME, &[0]);
    let mut job = job(0);
    job["on_disconnect"] = json!("keep");
    assert_eq!(bed.cluster.deploy(&job, 0).await.0, 200);
    bed.run_on(&mut first, 0, "10.18.0.2").await;
    let url = bed.cluster.url(&format!("/api/worker/{}", first.id));
    let delete = || bed.cluster.send(bed.cluster.http.delete(&url));
    let (status, refused) = delete().await;
    let said = refused["message"].as_str().unwrap_or_default();
    assert!(status == 409 && said.starts_with("worker pi1 is heard from"), "{refused}");

    let mut second = bed.worker("pi2").await;
    let keep_alive = second.keep_alive();
    drop(first);
    let deleted = async {
        let start = Instant::now();
        while delete().await.0 != 200 {
            assert!(start.elapsed() < PATIENCE, "it is heard for ever");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let (kind, deploy) = second.command().await;
        assert_eq!((kind.as_str(), &deploy["instance_number"]), ("deploy", &json!(0)));
        eventually("the block at the root", || {
            let returned = bed.root.memory().returned.clone();
            (returned == ["10_18_0_0"], format!("{returned:?}"))
        })
        .await;
        eventually("a report without it", || {
            let workers = bed.root.memory().report.clone().and_then(|report| report.workers);
            let names: Vec<_> = workers.iter().flatten().map(|worker| worker.name.as_str()).collect();
            (names == ["pi2"], format!("{names:?}"))
        })
        .await;
    };
    let keep_talking = keep_alive.run();
    tokio::select! { () = deleted => {}, () = keep_talking => {} }
    assert_eq!(delete().await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_missed_a_deployment_gets_it_when_it_listens() {
    let bed = Bed::new().await;
    let id = bed.cluster.register("pi1").await;
    bed.deploy(0).await;
    is_reported(&bed.root, 0, "NODE_SCHEDULED").await;
    let mut worker = Worker::connect(bed.cluster.addresses.mqtt_port, id, "pi1").await;
    bed.run_on(&mut worker, 0, "10.18.0.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_instance_is_tried_again_with_its_reason() {
    let bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    bed.deploy(0).await;
    worker.command().await;
    worker.say_status(NAME, 0, "FAILED", "image docker.io/library/bed:1 not found").await;
    is_reported(&bed.root, 0, "FAILED").await;
    let detail = bed.root.reported(0).and_then(|instance| instance.status_detail).unwrap_or_default();
    assert!(detail.starts_with("image docker.io/library/bed:1 not found; next attempt in"), "{detail}");
    bed.run_on(&mut worker, 0, "10.18.0.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_keeps_reports_is_told_what_has_changed_and_everything_when_it_has_forgotten() {
    let bed = Bed::new().await;
    bed.root.memory().keeps_as = Some(7);
    let mut worker = bed.worker("pi1").await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;
    let told = || {
        let report = bed.root.memory().report.clone().expect("a report");
        (report.since, report.jobs.len(), report.workers.map_or(0, |workers| workers.len()))
    };
    // Of the service there is nothing new; its worker is another one than was told before.
    bed.cluster.wish(worker.id, "cordon").await;
    told_so(&told, (Some(7), 0, 1)).await;
    bed.root.memory().keeps_as = Some(8);
    bed.cluster.wish(worker.id, "uncordon").await;
    told_so(&told, (None, 1, 1)).await;
    bed.cluster.wish(worker.id, "cordon").await;
    told_so(&told, (Some(8), 0, 1)).await;
}

async fn told_so(told: &impl Fn() -> (Option<u32>, usize, usize), wanted: (Option<u32>, usize, usize)) {
    eventually(&format!("a report of {wanted:?}"), || {
        let told = told();
        (told == wanted, format!("{told:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_an_instance_was_placed_is_said_to_who_asks() {
    let bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;
    let ask = |service: &str| {
        bed.cluster.send(bed.cluster.http.get(bed.cluster.url(&format!("/v1/why/{service}"))))
    };
    let (status, told) = ask(SERVICE).await;
    let last = &told["instances"]["0"][0];
    assert_eq!((status, &last["chosen"], &last["candidates"]), (200, &json!("pi1"), &json!(1)), "{told}");
    for unknown in ["6b033dc62c1f07cbdcd88440", "nonsense"] {
        assert_eq!(ask(unknown).await.0, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_an_instance_waits_for_a_worker() {
    let bed = Bed::new().await;
    bed.deploy(0).await;
    is_reported(&bed.root, 0, "NO_WORKER_CAPACITY").await;
    let mut worker = bed.worker("pi1").await;
    bed.run_on(&mut worker, 0, "10.18.0.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_forgot_the_cluster_is_told_again() {
    let bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.2").await;
    let status = bed.cluster.url("/api/cluster/status");
    let (_, body) = bed.cluster.send(bed.cluster.http.get(&status)).await;
    assert_eq!(body, json!({"cluster_name": "bed", "cluster_id": CLUSTER, "connected_to_root": true}));
    {
        let mut memory = bed.root.memory();
        memory.amnesia = true;
        memory.report = None;
        memory.deploy_status.clear();
    }
    worker.say_status(NAME, 0, "DEAD", "exit code 1").await;
    is_reported(&bed.root, 0, "DEAD").await;
    assert_eq!(bed.root.memory().registrations.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_ignored() {
    let bed = Bed::new().await;
    let mut worker = bed.worker("pi1").await;
    for topic in [NodeTopic::Information, NodeTopic::Job, NodeTopic::Resources, NodeTopic::TableQuery] {
        worker.say_rubbish(topic).await;
        worker.say_engine(topic, &json!([])).await;
        worker.say_engine(topic, &json!({"services": 1, "sname": 2, "cpu_percent": "x"})).await;
    }
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_cluster_on_the_same_directory_is_named() {
    let bed = Bed::new().await;
    let second =
        run_and_tell(config(&bed.root, bed.data.path().into(), 0), CancellationToken::new(), |_addresses| {
            panic!("it started")
        });
    let error = second.await.unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains(&bed.data.path().display().to_string()), "{error}: {cause}");
}
