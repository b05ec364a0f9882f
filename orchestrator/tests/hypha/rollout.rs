//! Watching what is deployed become true, at a root with a cluster and a worker.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::program::{Person, Run};
use crate::root::Root;

/// Dropped in this order: who asks, what is below, what is above.
struct Fleet {
    admin: Person,
    cluster: Cluster,
    _root: Root,
}

fn fleet() -> Fleet {
    let root = Root::start();
    let cluster = Cluster::join(&root);
    Fleet { admin: root.admin(), cluster, _root: root }
}

fn sla(service: &Value) -> String {
    let defaults = json!({ "microservice_name": "web", "microservice_namespace": "demo", "virtualization": "container",
        "code": "docker.io/hypha/busybox:1", "memory": 16, "vcpus": 1 });
    let Value::Object(mut members) = defaults else { panic!("an object") };
    members.extend(service.as_object().expect("an object").clone());
    json!({ "sla_version": "v2.0", "customerID": "Admin", "applications": [{ "application_name": "hello",
        "application_namespace": "demo", "microservices": [members] }] })
    .to_string()
}

fn apply(person: &Person, service: &Value, more: &[&str]) -> Run {
    person.hypha_with(&[&["apply", "-f", "-"], more].concat(), &sla(service))
}

#[test]
fn a_cordoned_worker_is_shown_as_such_and_gets_nothing_new() {
    let Fleet { admin, .. } = &fleet();
    apply(admin, &json!({ "instances": 1 }), &[]).exits(0);
    for _ in 0..2 {
        admin.hypha(&["cordon", "pi-1"]).exits(0);
    }
    let workers = admin.hypha(&["get", "nodes", "-o", "json"]).exits(0).json();
    assert_eq!(
        (&workers[0]["name"], &workers[0]["cluster_name"]),
        (&json!("pi-1"), &json!("home")),
        "{workers}"
    );
    let run = admin.hypha(&["scale", "web=2", "--timeout", "3s"]).exits(5);
    run.says("1 cordoned");
    let shown = admin.hypha(&["get", "workers"]).exits(0).answer;
    assert!(shown.lines().nth(1).is_some_and(|row| row.starts_with("pi-1    cordoned  home")), "{shown}");
    admin.hypha(&["uncordon", "home/pi-1"]).exits(0);
    let run = admin.hypha(&["scale", "web=2"]).exits(0);
    assert!(run.answer.contains("2/2"), "{run:#?}");
    // There is nobody else to take them.
    let run = admin.hypha(&["drain", "pi-1", "--timeout", "2s"]).exits(6);
    run.says("not empty after 2 s").says("hello/web/0: Stays on pi-1, which is drained");
    admin.hypha(&["uncordon", "pi-1"]).exits(0);
    admin.hypha(&["cordon", "pi-1", "pi-9"]).exits(3).says("no worker 'pi-9'");
    assert_eq!(admin.hypha(&["get", "workers", "pi-1", "-o", "name"]).exits(0).answer, "worker/pi-1\n");
}

#[test]
fn a_worker_that_is_gone_is_deleted_and_one_that_is_there_is_not() {
    let mut fleet = fleet();
    apply(&fleet.admin, &json!({ "instances": 1 }), &[]).exits(0);
    let run = fleet.admin.hypha(&["delete", "node/pi-1", "--yes"]).exits(8);
    run.says("deleting worker/pi-1: 1 worker, 1 instance to go elsewhere")
        .says("Cluster home: worker pi-1 is heard from")
        .says("stop its node-engine");
    fleet.cluster.silence();
    let start = Instant::now();
    while !fleet.admin.hypha(&["get", "workers"]).exits(0).answer.contains("unreachable") {
        assert!(start.elapsed() < Duration::from_secs(30), "it is not missed");
    }
    fleet.admin.hypha(&["rm", "worker/pi-1", "-y"]).exits(0).says("worker/pi-1  gone");
    assert_eq!(fleet.admin.hypha(&["get", "workers", "-o", "json"]).exits(0).json(), json!([]));
    fleet.admin.hypha(&["delete", "worker/pi-1", "-y"]).exits(3).says("no worker 'pi-1'");
}

#[test]
fn what_has_happened_is_listed_and_told_on() {
    let Fleet { admin, .. } = &fleet();
    apply(admin, &json!({ "instances": 1 }), &[]).exits(0);
    let listed = admin.hypha(&["events", "hello", "-o", "json"]).exits(0).json();
    let events = listed.as_array().expect("a list").iter();
    let words: Vec<_> = events.map(|event| event["code"].as_str().unwrap_or_default()).collect();
    assert_eq!(words, ["created", "scheduled", "placed", "running"], "{listed}");
    let table = admin.hypha(&["ev", "web/0"]).exits(0).answer;
    let row = |line: &&str| line.contains("instance/hello/web/0  placed     on home/pi-1");
    assert!(table.lines().any(|line| row(&line)), "\n{table}");

    let mut child =
        admin.command(&["events", "-w", "hello"]).stdout(Stdio::piped()).spawn().expect("start hypha");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.next().is_some_and(|line| line.contains("Z  service/hello/web  created  docker.io")));
    admin.hypha(&["scale", "web=0"]).exits(0);
    assert!(lines.any(|line| line.ends_with("Z  instance/hello/web/0  removed")), "it has ended");
    child.kill().expect("stop hypha");
    child.wait().expect("wait for hypha");
}

#[test]
fn a_cordoned_cluster_is_shown_as_such_and_gets_nothing_new() {
    let Fleet { admin, .. } = &fleet();
    apply(admin, &json!({ "instances": 1 }), &[]).exits(0);
    let run = admin.hypha(&["cordon", "cluster/home"]).exits(0);
    assert!(run.answer.lines().any(|row| row.starts_with("home     cordoned")), "{run:#?}");
    let run = admin.hypha(&["scale", "web=2", "--timeout", "3s"]).exits(5);
    run.says("home: it is cordoned");
    let why = admin.hypha(&["why", "web/1"]).exits(0).answer;
    assert!(why.contains("  cluster home: it is cordoned ("), "{why}");
    admin.hypha(&["drain", "cluster/home"]).exits(2).says("only workers can be drained");
    admin.hypha(&["cordon", "cluster/nowhere", "pi-1"]).exits(3).says("no cluster 'nowhere'");
    admin.hypha(&["uncordon", "cluster/home", "pi-1"]).exits(0);
    let run = admin.hypha(&["scale", "web=2"]).exits(0);
    assert!(run.answer.contains("2/2"), "{run:#?}");
}

#[test]
fn apply_waits_until_it_runs_and_tells_each_step() {
    let Fleet { admin, .. } = &fleet();
    let run = apply(admin, &json!({ "instances": 2 }), &[]).exits(0);
    run.says("hello: created with 1 service").says("hello/web: starting 2 instances");
    for instance in ["hello/web/0", "hello/web/1"] {
        let told =
            |line: &&str| line.contains(instance) && line.contains("running") && line.contains("192.0.2.11");
        assert!(run.talk.lines().any(|line| told(&line)), "{instance} is not told to run: {run:#?}");
    }
    let row = run.answer.lines().nth(1).unwrap_or_default();
    assert!(
        row.starts_with("hello/web  10.30.") && row.contains("2/2") && row.contains("running"),
        "{run:#?}"
    );

    let again = apply(admin, &json!({ "instances": 2 }), &[]).exits(0);
    assert!(!again.talk.contains("starting") && !again.talk.contains("created with"), "{again:#?}");

    let status = admin.hypha(&["status"]).exits(0);
    assert!(
        status.answer.contains("clusters 1/1   workers 1") && status.answer.ends_with("all is well\n"),
        "{status:#?}"
    );
    let table = admin.hypha(&["get", "instances"]).exits(0).answer;
    let row = "hello/web/0  running  192.0.2.11  home     0.2 %  -";
    assert!(table.lines().any(|line| line == row), "\n{table}");
    let table = admin.hypha(&["get", "clusters"]).exits(0).answer;
    assert!(table.lines().any(|line| line.starts_with("home     active        1     2")), "\n{table}");
}

#[test]
fn scaling_up_and_down_is_watched_to_its_end() {
    let Fleet { admin, .. } = &fleet();
    apply(admin, &json!({}), &[]).exits(0);
    let run = admin.hypha(&["scale", "web=3"]).exits(0);
    assert!(run.answer.contains("3/3"), "{run:#?}");
    let run = admin.hypha(&["scale", "hello/web=1"]).exits(0);
    run.says("stopping instances 2, 1").says("removed");
    assert!(run.answer.contains("1/1"), "{run:#?}");
    // A file that leaves the number open leaves what somebody scaled.
    admin.hypha(&["scale", "web=2"]).exits(0);
    assert!(apply(admin, &json!({}), &[]).exits(0).answer.contains("2/2"));
    admin.hypha(&["delete", "app/hello", "--yes"]).exits(0).says("1 service, 2 instances");
    assert_eq!(admin.hypha(&["get", "instances", "-o", "json"]).exits(0).json(), json!([]));
}

#[test]
fn a_dry_run_tells_what_would_be_done_and_does_nothing() {
    let Fleet { admin, .. } = &fleet();
    let run = apply(admin, &json!({ "instances": 2 }), &["--dry-run"]).exits(0);
    let row = run.answer.lines().nth(1).unwrap_or_default();
    assert_eq!(row, "hello/web  create         +2  home     -", "{run:#?}");
    run.says("nothing was done");
    assert_eq!(admin.hypha(&["get", "services", "-o", "json"]).exits(0).json(), json!([]));
    let run = apply(admin, &json!({ "memory": 4000 }), &["--dry-run", "-o", "json"]).exits(5);
    assert_eq!(run.json()[0]["name"], "hello/web");
    assert_eq!(run.error()["code"], "E-NOT-PLACED", "{run:#?}");
    apply(admin, &json!({}), &[]).exits(0);
    let run = apply(admin, &json!({}), &["--dry-run"]).exits(0);
    assert!(run.answer.contains("keep"), "{run:#?}");
    let run = apply(admin, &json!({ "addresses": { "rr_ip": "192.0.2" } }), &["--dry-run"]).exits(2);
    run.says("addresses.rr_ip");
}

#[test]
fn what_fails_is_told_with_its_reason_and_exit_1() {
    let Fleet { admin, .. } = &fleet();
    let run = apply(admin, &json!({ "code": "docker.io/hypha/missing:1" }), &["--timeout", "3s"]).exits(1);
    run.says("is not known to the registry").says("not everything runs");
    assert!(run.answer.contains("0/1"), "{run:#?}");
    let status = admin.hypha(&["status"]).exits(0);
    assert!(status.answer.starts_with("! hello/web"), "what is wrong comes first: {status:#?}");
}

#[test]
fn what_is_too_large_for_every_worker_is_not_placed() {
    let Fleet { admin, .. } = &fleet();
    let run = apply(admin, &json!({ "memory": 4000 }), &["--timeout", "2s"]).exits(5);
    run.says("waiting").says("4000 MB");
}

#[test]
fn no_wait_leaves_at_once() {
    let Fleet { admin, .. } = &fleet();
    let run = apply(admin, &json!({ "memory": 4000 }), &["--no-wait"]).exits(0);
    assert!(run.answer.contains("0/1"), "{run:#?}");
}

#[test]
fn logs_are_shown_once_each_while_they_are_followed() {
    let Fleet { admin, .. } = &fleet();
    apply(admin, &json!({ "instances": 2 }), &[]).exits(0);
    let mut follow =
        admin.command(&["logs", "web/0", "-f"]).stdout(Stdio::piped()).spawn().expect("start hypha");
    let lines = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
    let seen: Vec<String> = lines.map_while(Result::ok).take(8).collect();
    // The reader is gone now, so the program ends at its next line.
    assert_eq!(follow.wait().expect("wait for hypha").code(), Some(0));
    let first: u32 = seen[0].split(' ').nth(1).and_then(|number| number.parse().ok()).expect("line N of 0");
    let expected: Vec<_> = (first..).take(seen.len()).map(|line| format!("line {line} of 0")).collect();
    assert_eq!(seen, expected, "in order, each once, without a name where there is only one instance");
    let both = admin.hypha(&["logs", "web"]).exits(0).answer;
    assert!(both.contains("hello/web/0  line") && both.contains("hello/web/1  line"), "\n{both}");
    let entries = admin.hypha(&["logs", "web/1", "-o", "json"]).exits(0).json();
    assert_eq!(entries[0]["instance"], "hello/web/1");
}

#[test]
fn ctrl_c_stops_watching_and_not_the_work() {
    let Fleet { admin, .. } = &fleet();
    let file = admin.write("large.json", &sla(&json!({ "memory": 4000 })));
    let mut command = admin.command(&["apply", "-f", &file]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("start hypha");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("waiting")), "it tells that it waits");
    let id = nix::unistd::Pid::from_raw(child.id().try_into().expect("a process id"));
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).expect("send SIGINT");
    assert_eq!(child.wait().expect("wait for hypha").code(), Some(130));
    let farewell: Vec<_> = lines.collect();
    assert!(farewell.iter().any(|line| line.contains("the work goes on")), "{farewell:?}");
    assert_eq!(admin.hypha(&["get", "instances", "-o", "name"]).answer, "instance/hello/web/0\n");
}
