//! Deploying at a root that no cluster has joined: everything up to the placing, and what is said when nothing fits.

use serde_json::json;

use crate::program::Person;
use crate::root::Root;

fn service(name: &str) -> serde_json::Value {
    json!({ "microservice_name": name, "microservice_namespace": "demo", "virtualization": "container",
            "code": "docker.io/hypha/busybox:1", "memory": 16, "vcpus": 1, "instances": 2 })
}

fn sla(services: &[serde_json::Value]) -> String {
    let document = json!({ "sla_version": "v2.0", "customerID": "Admin", "applications": [{
        "application_name": "hello", "application_namespace": "demo", "microservices": services }] });
    format!("{document:#}")
}

/// Creates `hello` with `web` and `client`, and starts nothing.
fn create(person: &Person) -> String {
    let file = person.write("hello.json", &sla(&[service("web"), service("client")]));
    person.hypha(&["apply", "-f", &file, "--no-start"]).exits(0).says("hello: created with 2 services");
    file
}

#[test]
fn the_example_is_accepted_and_twice_is_once() {
    let root = Root::start();
    let admin = root.admin();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/hello.json");
    for _ in 0..2 {
        let services = admin.hypha(&["apply", "-f", example, "--no-start", "-o", "json"]).exits(0).json();
        assert_eq!(services.as_array().map(Vec::len), Some(2), "{services}");
    }
    let run = admin.hypha(&["get", "services"]).exits(0);
    assert!(run.answer.lines().any(|line| line.starts_with("hello/web     10.30.30.30")), "{run:#?}");
}

#[test]
fn lists_are_empty_arrays_and_say_what_to_do() {
    let root = Root::start();
    let admin = root.admin();
    for kind in ["apps", "services", "instances", "clusters", "workers"] {
        assert_eq!(admin.hypha(&["get", kind, "-o", "json"]).exits(0).answer, "[]\n");
        let run = admin.hypha(&["get", kind]).exits(0);
        assert_eq!(run.answer, "");
        assert!(!run.talk.is_empty());
    }
    let status = admin.hypha(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(status["clusters"], json!({ "active": 0, "total": 0 }));
}

#[test]
fn what_finds_no_place_is_exit_5_with_the_reason() {
    let root = Root::start();
    let admin = root.admin();
    create(&admin);
    let run = admin.hypha(&["scale", "web=2", "--timeout", "2s"]).exits(5);
    run.says("hello/web: starting 2 instances").says("accepted, but not everything found a place");
    assert!(run.answer.contains("hello/web") && run.answer.contains("0/2"), "{run:#?}");
    let why = admin.hypha(&["why", "web/1"]).exits(0).answer;
    assert!(why.starts_with("hello/web/1  waiting\n  No cluster has registered yet.\n"), "{why}");
    let instances = admin.hypha(&["get", "instances", "-o", "name"]).exits(0).answer;
    assert_eq!(instances, "instance/hello/web/0\ninstance/hello/web/1\n");
    // Twice is once: the two that wait are the two that are wanted.
    admin.hypha(&["scale", "web=2", "--no-wait"]).exits(0);
    assert_eq!(admin.hypha(&["get", "i", "-o", "name"]).answer.lines().count(), 2);
    admin.hypha(&["scale", "hello/web=0"]).exits(0).says("stopping instances 1, 0");
    assert_eq!(admin.hypha(&["get", "instances", "-o", "json"]).json(), json!([]));
}

#[test]
fn a_new_service_of_a_known_application_is_added() {
    let root = Root::start();
    let admin = root.admin();
    create(&admin);
    let more = admin.write("more.json", &sla(&[service("web"), service("cache")]));
    let run = admin.hypha(&["apply", "-f", &more, "--no-start"]).exits(0);
    run.says("hello/client is not in").says("hello: 1 service added");
    let names = admin.hypha(&["get", "services", "-a", "hello", "-o", "name"]).answer;
    assert_eq!(names, "service/hello/cache\nservice/hello/client\nservice/hello/web\n");
}

#[test]
fn a_changed_definition_is_a_conflict_and_nothing_is_done() {
    let root = Root::start();
    let admin = root.admin();
    create(&admin);
    let mut web = service("web");
    web["code"] = json!("docker.io/hypha/busybox:2");
    let changed = admin.write("changed.json", &sla(&[web, service("cache")]));
    let run = admin.hypha(&["apply", "-f", &changed]).exits(8);
    run.says(r#"code "docker.io/hypha/busybox:1" -> "docker.io/hypha/busybox:2""#);
    assert_eq!(admin.hypha(&["get", "services", "-o", "name"]).answer.lines().count(), 2);
}

#[test]
fn what_is_wrong_in_a_file_is_told_by_line_and_path() {
    let root = Root::start();
    let admin = root.admin();
    let mut web = service("we-b");
    web["addresses"] = json!({ "rr_ip": "10.30.0" });
    let file = admin.write("wrong.json", &sla(&[web]));
    let run = admin.hypha(&["apply", "-f", &file]).exits(2);
    run.says("applications[0].microservices[0].microservice_name")
        .says("applications[0].microservices[0].addresses.rr_ip");
    let lines = run.talk.lines().filter(|line| line.contains("wrong.json:")).count();
    assert!(lines >= 2, "each problem has its place: {run:#?}");
    // Which addresses there are only the root knows.
    let mut web = service("web");
    web["addresses"] = json!({ "rr_ip": "10.31.0.1" });
    let file = admin.write("foreign.json", &sla(&[web]));
    let run = admin.hypha(&["apply", "-f", &file]).exits(2);
    run.says("applications[0].microservices[0].addresses.rr_ip").says("foreign.json:").says("10.30.253.253");
    assert_eq!(admin.hypha(&["get", "apps", "-o", "json"]).json(), json!([]), "nothing was stored");
}

#[test]
fn an_address_that_somebody_has_is_refused_at_its_place_in_the_file() {
    let root = Root::start();
    let admin = root.admin();
    let with_address = |name: &str| {
        let mut service = service(name);
        service["addresses"] = json!({ "rr_ip": "10.30.30.30" });
        service
    };
    let first = admin.write("first.json", &sla(&[with_address("web")]));
    admin.hypha(&["apply", "-f", &first, "--no-start"]).exits(0);
    let second = admin.write("second.json", &sla(&[with_address("web"), service("a"), with_address("b")]));
    let run = admin.hypha(&["apply", "-f", &second]).exits(2);
    run.says("applications[0].microservices[2].addresses.rr_ip").says("second.json:");
}

#[test]
fn deleting_needs_a_yes_and_counts_what_goes() {
    let root = Root::start();
    let admin = root.admin();
    create(&admin);
    admin.hypha(&["scale", "web=1", "--no-wait"]).exits(0);
    admin.hypha(&["delete", "app/hello"]).exits(2).says("app/hello: 2 services, 1 instance").says("--yes");
    admin.hypha(&["delete", "instance/web/0", "--yes"]).exits(0).says("instance/hello/web/0  gone");
    admin.hypha(&["delete", "svc/client", "-y"]).exits(0);
    admin.hypha(&["delete", "app/hello", "--yes"]).exits(0).says("app/hello  gone");
    assert_eq!(admin.hypha(&["get", "services", "-o", "json"]).json(), json!([]));
    admin.hypha(&["delete", "app/hello", "--yes"]).exits(3).says("no app 'hello'");
}

#[test]
fn names_are_found_by_short_forms_and_slips_get_the_nearest() {
    let root = Root::start();
    let admin = root.admin();
    create(&admin);
    for name in ["web", "hello/web", "hello.demo/web.demo", "hello.demo.web.demo"] {
        assert_eq!(
            admin.hypha(&["get", "services", name, "-o", "name"]).exits(0).answer,
            "service/hello/web\n"
        );
    }
    let run = admin.hypha(&["get", "services", "wbe"]).exits(3);
    run.says("no app or service 'wbe'").says("nearest: hello/web");
    let error = admin.hypha(&["scale", "clint=2", "-o", "json"]).exits(3).error();
    assert_eq!(error["nearest"], json!(["hello/client"]));
}

#[test]
fn a_root_that_goes_away_is_out_of_reach() {
    let root = Root::start();
    let admin = root.admin();
    drop(root);
    admin.hypha(&["get", "apps"]).exits(7).says("nothing listens there");
    admin.hypha(&["status"]).exits(7);
}
