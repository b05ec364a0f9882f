//! Several roots, or processes of a cluster, over one etcd, of which one serves.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::daemon::Daemon;
use crate::etcd::Server;
use crate::program::Person;
use crate::root::Root;

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// A root of `etcd`, once it serves. `ports`: of its API, of clusters, of service addresses.
fn root(etcd: &str, folder: &str, [api, grpc, net]: [&str; 3]) -> Daemon {
    let ports = ["--port", api, "--grpc-port", grpc, "--net-port", net];
    let place = ["root", "--bind", "127.0.0.1", "--data-dir", folder, "--store", etcd];
    Daemon::start(&[&place[..], &ports].concat())
}

fn create(person: &Person, app: &str) {
    let sla = json!({ "sla_version": "v2.0", "customerID": "Admin", "applications": [{ "application_name": app,
        "application_namespace": "demo", "microservices": [{ "microservice_name": "web",
        "microservice_namespace": "demo", "virtualization": "container", "code": "docker.io/hypha/busybox:1",
        "memory": 16, "vcpus": 1 }] }] });
    person.hypha_with(&["apply", "-f", "-", "--no-start"], &sla.to_string()).exits(0);
}

#[test]
fn a_root_that_is_killed_is_replaced_by_one_that_knows_all_it_knew() {
    let server = Server::start(&["--max-txn-ops=1024"]);
    let etcd = server.location("roots");
    let folder = tempfile::tempdir().expect("make a data directory");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let first = root(&etcd, &at("first"), ["0"; 3]);
    let url = format!("http://{}", first.field("api"));
    let admin = Person::new();
    let password =
        std::fs::read_to_string(folder.path().join("first/admin-password")).expect("read a password");
    admin.hypha_with(&["login", &url, "--password-stdin"], &password).exits(0);
    create(&admin, "hello");

    // On the same ports, as where an address moves from a machine to another one: who waits does not take them.
    let ports = ["api", "grpc", "net"].map(|name| first.port(name).to_owned());
    let second = {
        let (etcd, folder, ports) = (etcd.clone(), at("second"), ports.clone());
        std::thread::spawn(move || root(&etcd, &folder, ports.each_ref().map(String::as_str)))
    };
    create(&admin, "shop");
    drop(first);
    let killed = Instant::now();
    assert!(TcpStream::connect(url.trim_start_matches("http://")).is_err(), "nobody serves at once");
    let second = second.join().expect("a root that takes over");
    println!("another root served {:.1} s after the first was killed", killed.elapsed().as_secs_f64());
    // With the login from before, to a root that has no password of its own.
    assert_eq!(admin.hypha(&["get", "apps", "-o", "name"]).exits(0).answer, "app/hello\napp/shop\n");
    assert!(!folder.path().join("second/admin-password").exists());
    create(&admin, "store");
    drop(second);
}

#[test]
fn a_root_that_waits_passes_on_what_it_is_asked_also_while_nobody_leads() {
    let server = Server::start(&["--max-txn-ops=1024"]);
    let etcd = server.location("roots");
    let folder = tempfile::tempdir().expect("make a data directory");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let first = root(&etcd, &at("first"), ["0"; 3]);
    let password =
        std::fs::read_to_string(folder.path().join("first/admin-password")).expect("read a password");
    let ports = free_ports();
    let second = {
        let (etcd, folder, ports) = (etcd.clone(), at("second"), ports.clone());
        std::thread::spawn(move || root(&etcd, &folder, ports.each_ref().map(String::as_str)))
    };
    let [api, grpc, net] = ports.each_ref().map(String::as_str);
    let url = format!("http://127.0.0.1:{api}");
    until(|| TcpStream::connect(url.trim_start_matches("http://")).ok());
    let admin = Person::new();
    admin.hypha_with(&["login", &url, "--password-stdin"], &password).exits(0);
    create(&admin, "hello");

    let of_root = ["--system-manager-url", "127.0.0.1", "--system-manager-port", api];
    let of_root_too = ["--system-manager-grpc-port", grpc, "--root-net-port", net];
    let place = ["--bind", "127.0.0.1", "--data-dir", &at("cluster"), "--cluster-name", "home"];
    let own = ["--cluster-location", "attic", "--port", "0", "--net-port", "0", "--mqtt-port", "0"];
    let cluster = Daemon::start(&[&["cluster"], &place[..], &own, &of_root, &of_root_too].concat());
    let is_there = || {
        let clusters = admin.hypha(&["get", "clusters", "-o", "json"]).exits(0).json();
        (clusters[0]["cluster_name"] == "home" && clusters[0]["active"] == true).then_some(())
    };
    until(is_there);

    drop(first);
    // Asked while nobody leads: it is answered by the one that takes over.
    assert_eq!(admin.hypha(&["get", "apps", "-o", "name"]).exits(0).answer, "app/hello\n");
    let second = second.join().expect("a root that takes over");
    assert_eq!(second.port("api"), api, "on the port that it has had");
    create(&admin, "shop");
    until(is_there);
    drop((cluster, second));
}

/// Nobody's, a moment ago.
fn free_ports() -> [String; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.each_ref().map(|one| one.local_addr().expect("its address").port().to_string())
}

#[test]
fn a_root_whose_etcd_was_away_serves_again_by_itself() {
    let server = Server::start(&["--max-txn-ops=1024"]);
    let etcd = server.location("roots");
    let folder = tempfile::tempdir().expect("make a data directory");
    // It takes them again.
    let ports = free_ports();
    let place = folder.path().join("only").display().to_string();
    let only = root(&etcd, &place, ports.each_ref().map(String::as_str));
    let url = format!("http://{}", only.field("api"));
    let admin = Person::new();
    let password =
        std::fs::read_to_string(folder.path().join("only/admin-password")).expect("read a password");
    admin.hypha_with(&["login", &url, "--password-stdin"], &password).exits(0);
    create(&admin, "hello");
    server.signal(Signal::SIGSTOP);
    // It may not go on as if it were the only one.
    until(|| (admin.hypha(&["get", "apps", "--request-timeout", "1s"]).exit == 7).then_some(()));
    server.signal(Signal::SIGCONT);
    until(|| {
        let run = admin.hypha(&["get", "apps", "-o", "name"]);
        (run.exit == 0).then(|| assert_eq!(run.answer, "app/hello\n"))
    });
}

#[test]
fn a_cluster_that_is_killed_is_replaced_by_one_with_the_same_identity() {
    let server = Server::start(&["--max-txn-ops=1024"]);
    let root = Root::start();
    let folder = tempfile::tempdir().expect("make a data directory");
    let cluster = |folder: &str, [api, net, mqtt]: [&str; 3]| {
        let (host, _) = root.daemon.field("api").rsplit_once(':').expect("an address");
        let port = |name| root.daemon.port(name);
        let of_root = ["--system-manager-url", host, "--system-manager-port", port("api")];
        let of_root_too = ["--system-manager-grpc-port", port("grpc"), "--root-net-port", port("net")];
        let own = ["--bind", "127.0.0.1", "--port", api, "--net-port", net, "--mqtt-port", mqtt];
        let etcd = server.location("");
        let names = ["cluster", "--cluster-name", "home", "--cluster-location", "attic", "--store", &etcd];
        Daemon::start(&[&names[..], &["--data-dir", folder], &of_root, &of_root_too, &own].concat())
    };
    let at = |name: &str| folder.path().join(name).display().to_string();
    let first = cluster(&at("first"), ["0"; 3]);
    let admin = root.admin();
    let known = || {
        let clusters = admin.hypha(&["get", "clusters", "-o", "json"]).exits(0).json();
        let cluster = clusters[0]["cluster_name"].as_str().map(|_named| clusters[0].clone())?;
        assert_eq!(clusters.as_array().map(Vec::len), Some(1), "{clusters}");
        Some((cluster["_id"].clone(), cluster["port"].clone()))
    };
    let (id, port) = until(known);
    let ports = ["api", "net", "mqtt"].map(|name| first.port(name).to_owned());
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| cluster(&at("second"), ports.each_ref().map(String::as_str)));
        drop(first);
        second.join().expect("a cluster that takes over")
    });
    assert_eq!((id, port.clone()), until(known));
    assert_eq!(second.port("api"), port.as_str().unwrap_or_default());
}

/// What there is to be had after a while.
fn until<T>(look: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "it did not come to be");
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn what_is_wrong_with_the_store_is_said_with_the_flag() {
    for (place, expected) in [
        ("file:///tmp/x", "expected etcds://"),
        ("etcd://127.0.0.1:1", "reach etcd at etcd://127.0.0.1:1 (--store)"),
    ] {
        let folder = tempfile::tempdir().expect("make a data directory");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_orchestrator"))
            .args(["root", "--bind", "127.0.0.1", "--port", "0", "--grpc-port", "0", "--net-port", "0"])
            .arg("--data-dir")
            .arg(folder.path())
            .args(["--store", place])
            .output()
            .expect("run orchestrator");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{place}: {said}");
    }
}
