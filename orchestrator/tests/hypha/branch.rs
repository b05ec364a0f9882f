//! Three levels as real processes, seen from the command line.

use serde_json::json;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::root::Root;

/// The flags for the ports of a branch, and under which name it says which it has.
const PORTS: [(&str, &str); 5] = [
    ("--reports-port", "reports"),
    ("--grpc-port", "grpc"),
    ("--addresses-port", "addresses"),
    ("--port", "api"),
    ("--net-port", "net"),
];

fn branch(root: &Root, data: &TempDir, ports: [&str; 5]) -> Daemon {
    let folder = data.path().join("branch").display().to_string();
    let port = |name| root.daemon.port(name);
    let names = ["branch", "--cluster-name", "north", "--cluster-location", "north", "--data-dir", &folder];
    let above = ["--system-manager-url", "127.0.0.1", "--system-manager-port", port("api")];
    let above_too = ["--system-manager-grpc-port", port("grpc"), "--root-net-port", port("net")];
    let own: Vec<_> = PORTS.iter().zip(ports).flat_map(|((flag, _), port)| [*flag, port]).collect();
    let arguments = [&names[..], &above, &above_too, &["--bind", "127.0.0.1"], &own].concat();
    Daemon::start(&arguments)
}

#[test]
fn an_application_runs_below_a_branch_that_is_killed_between_and_leaves_nothing_behind() {
    let root = Root::start();
    let data = tempfile::tempdir().expect("make a data directory");
    let north = branch(&root, &data, ["0"; 5]);
    let _cluster = Cluster::below([north.port("reports"), north.port("grpc"), north.port("addresses")], &[]);
    let admin = root.admin();
    let file = json!({ "sla_version": "v2.0", "customerID": "Admin", "applications": [{ "application_name": "hello",
        "application_namespace": "demo", "microservices": [{ "microservice_name": "web",
        "microservice_namespace": "demo", "virtualization": "container", "code": "docker.io/hypha/busybox:1",
        "memory": 16, "vcpus": 1, "instances": 1 }] }] });
    admin.hypha_with(&["apply", "-f", "-"], &file.to_string()).exits(0);
    let workers = admin.hypha(&["get", "workers", "-o", "json"]).exits(0).json();
    let of_worker = (&workers[0]["name"], &workers[0]["cluster_name"]);
    assert_eq!(of_worker, (&json!("pi-1"), &json!("north")), "{workers}");

    let ports = PORTS.map(|(_, name)| north.port(name).to_owned());
    drop(north);
    let _north = branch(&root, &data, ports.each_ref().map(String::as_str));
    let run = admin.hypha(&["scale", "web=2"]).exits(0);
    assert!(run.answer.contains("2/2"), "{run:#?}");
    let why = admin.hypha(&["why", "web"]).exits(0).answer;
    assert!(why.contains("pi-1 was chosen"), "{why}");
    admin.hypha(&["cordon", "pi-1"]).exits(0);
    admin.hypha(&["delete", "app/hello", "--yes"]).exits(0).says("1 service, 2 instances");
    assert_eq!(admin.hypha(&["get", "instances", "-o", "json"]).exits(0).json(), json!([]));
}
