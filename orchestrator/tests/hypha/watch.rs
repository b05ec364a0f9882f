//! Lists that go on.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::program::Person;
use crate::root::Root;

/// `hypha get … -w`, whose lines are read as they come. Killed when it goes out of scope.
struct Watching {
    child: Child,
    lines: Option<std::io::Lines<BufReader<ChildStdout>>>,
}

impl Watching {
    fn start(person: &Person, arguments: &[&str]) -> Self {
        let mut child = person.command(arguments).stdout(Stdio::piped()).spawn().expect("start hypha");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines: Some(lines) }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.as_mut().and_then(Iterator::next).expect("another line").expect("read a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.child.kill().expect("stop hypha");
        self.child.wait().expect("wait for hypha");
    }
}

fn sla(app: &str, service: &str) -> String {
    json!({ "sla_version": "v2.0", "customerID": "Admin", "applications": [{ "application_name": app,
        "application_namespace": "demo", "microservices": [{ "microservice_name": service,
        "microservice_namespace": "demo", "virtualization": "container", "code": "docker.io/hypha/busybox:1",
        "memory": 16, "vcpus": 1 }] }] })
    .to_string()
}

fn create(person: &Person, app: &str, service: &str) {
    person.hypha_with(&["apply", "-f", "-", "--no-start"], &sla(app, service)).exits(0);
}

#[test]
fn what_is_watched_is_told_first_and_then_what_changes() {
    let root = Root::start();
    let admin = root.admin();
    create(&admin, "hello", "web");
    let mut all = Watching::start(&admin, &["get", "services", "-w"]);
    let told = all.next();
    assert_eq!((&told["change"], &told["name"]), (&json!("set"), &json!("service/hello/web")), "{told}");
    assert_eq!(told["document"]["service_name"], "web");
    let mut named = Watching::start(&admin, &["get", "apps", "hello", "--watch"]);
    assert_eq!(named.next()["name"], "app/hello");

    create(&admin, "shop", "cam");
    let told = all.next();
    assert_eq!((&told["change"], &told["name"]), (&json!("set"), &json!("service/shop/cam")), "{told}");
    admin.hypha(&["delete", "app/shop", "app/hello", "--yes"]).exits(0);
    let mut gone = [all.next(), all.next()].map(|told| {
        assert_eq!(told["change"], "gone", "{told}");
        told["name"].to_string()
    });
    gone.sort();
    assert_eq!(gone, [r#""service/hello/web""#, r#""service/shop/cam""#]);
    let told = named.next();
    assert_eq!((&told["change"], &told["name"]), (&json!("gone"), &json!("app/hello")), "{told}");
    // It comes to be again under the same name.
    create(&admin, "hello", "web");
    let told = named.next();
    assert_eq!((&told["change"], &told["name"]), (&json!("set"), &json!("app/hello")), "{told}");
}

#[test]
fn who_watches_hears_on_when_the_root_was_away() {
    let root = Root::start();
    let admin = root.admin();
    create(&admin, "hello", "web");
    let mut all = Watching::start(&admin, &["get", "apps", "-w"]);
    assert_eq!(all.next()["name"], "app/hello");
    let root = root.restart();
    create(&admin, "shop", "cam");
    let told = all.next();
    assert_eq!((&told["change"], &told["name"]), (&json!("set"), &json!("app/shop")), "{told}");
    drop(root);
}

#[test]
fn a_name_that_names_nothing_is_told_at_once_and_a_pipe_that_nobody_reads_ends_it() {
    let root = Root::start();
    let admin = root.admin();
    admin.hypha(&["get", "services", "web", "-w"]).exits(3).says("web");
    create(&admin, "hello", "web");
    let mut all = Watching::start(&admin, &["get", "services", "-w"]);
    all.next();
    all.lines = None;
    create(&admin, "shop", "cam");
    assert_eq!(all.child.wait().expect("wait for hypha").code(), Some(0));
}
