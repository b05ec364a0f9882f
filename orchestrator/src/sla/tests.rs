use std::net::IpAddr;

use proptest::prelude::*;
use protocol::plan::Plan;
use serde_json::{Value, json};

use super::{Violation, check};
use crate::root::pool::Given;

fn given() -> Given {
    Given::of(Plan::default().services())
}

fn document() -> Value {
    json!({
        "sla_version": "v2.0",
        "customerID": "Admin",
        "applications": [{
            "application_name": "shop",
            "application_namespace": "prod",
            "microservices": [{
                "microservice_name": "web",
                "microservice_namespace": "prod",
                "virtualization": "container",
                "code": "docker.io/library/nginx:latest",
                "memory": 100,
                "vcpus": 1,
                "port": "6080:80/tcp",
                "addresses": { "rr_ip": "10.30.30.30" },
                "colour": "green",
            }],
        }],
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut document = document();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[key] = value;
    document
}

fn violations(document: Value) -> Vec<Violation> {
    let taken: [IpAddr; 2] = [[10, 30, 7, 7].into(), "fdff:1000::7:7".parse().unwrap()];
    check(&document, Some(given()), &|address| taken.contains(&address)).err().unwrap_or_default()
}

const SERVICE: &str = "/applications/0/microservices/0";

#[test]
fn a_good_document_is_read_and_keeps_unknown_keys() {
    let read = check(&document(), Some(given()), &|_| false).unwrap();
    assert_eq!(read.applications[0].microservices[0].extra["colour"], "green");
}

#[test]
fn each_wrong_field_is_named_by_its_path() {
    for (key, value) in [
        ("microservice_name", json!("web-1")),
        ("microservice_name", json!("")),
        ("microservice_name", json!("a".repeat(31))),
        ("microservice_namespace", Value::Null),
        ("microserviceID", json!("mine")),
        ("virtualization", json!("")),
        ("virtualization", json!(7)),
        ("code", json!("")),
        ("code", json!("nginx latest")),
        ("code", Value::Null),
        ("memory", json!(-1)),
        ("memory", json!("100")),
        ("memory", json!(0.5)),
        ("vcpus", json!(1_000_000)),
        ("instances", json!(1001)),
        ("port", json!("80:x")),
        ("port", json!(80)),
        ("one_shot", json!("yes")),
        ("cmd", json!("sh")),
        ("environment[0]", json!("NOVALUE")),
        ("cmd[1]", json!(3)),
        ("addresses", json!([])),
        ("addresses.rr_ip", json!("10.31.0.1")),
        ("addresses.rr_ip", json!("10.30.254.1")),
        ("addresses.rr_ip", json!("10.30.7.7")),
        ("addresses.rr_ip", json!("nowhere")),
        ("addresses.rr_ip_v6", json!("fdff:1000::1")),
        ("addresses.rr_ip_v6", json!("fdff:2000::1")),
        ("addresses.closest_ip", json!("10.30.0.255")),
        ("addresses.closest_ip", json!("10.30.7.7")),
        ("addresses.closest_ip_v6", json!("fdff:2000::1:1")),
        ("addresses.closest_ip_v6", json!("fdff:1000::1")),
        ("addresses.closest_ip_v6", json!("fdff:1800::1")),
        ("addresses.closest_ip_v6", json!("fdff:1000::7:7")),
        ("constraints", json!({})),
        ("connectivity", json!({})),
        ("volumes", json!(1)),
    ] {
        let document = match key {
            "environment[0]" => with(&format!("{SERVICE}/environment"), json!([value])),
            "cmd[1]" => with(&format!("{SERVICE}/cmd"), json!(["a", value])),
            key => with(&format!("{SERVICE}/{}", key.replace('.', "/")), value.clone()),
        };
        let found = violations(document);
        let paths: Vec<_> = found.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, [format!("applications[0].microservices[0].{key}")], "{key}: {value}");
    }
}

#[test]
fn what_is_wrong_with_connectivity_is_named_by_its_path() {
    let latency = |keys: &[(&str, Value)]| {
        let mut constraint =
            json!({ "type": "latency", "threshold": 20, "rigidness": 0.9, "convergence_time": 60 });
        keys.iter().for_each(|(key, value)| constraint[*key] = value.clone());
        constraint
    };
    let element = |target: &str, constraints: Value| json!({ "target_microservice_id": target, "con_constraints": constraints });
    for (element, key) in [
        (json!(3), ""),
        (element("d b", json!([])), ".target_microservice_id"),
        (element("db", json!({})), ".con_constraints"),
        (
            element("db", json!([latency(&[]), latency(&[("threshold", json!(0))])])),
            ".con_constraints[1].threshold",
        ),
        (element("db", json!([latency(&[("rigidness", json!(2))])])), ".con_constraints[0].rigidness"),
        (
            element("db", json!([latency(&[("convergence_time", json!("1m"))])])),
            ".con_constraints[0].convergence_time",
        ),
    ] {
        let found = violations(with(&format!("{SERVICE}/connectivity"), json!([element])));
        let paths: Vec<_> = found.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, [format!("applications[0].microservices[0].connectivity[0]{key}")], "{element}");
    }
    let fine = json!([element("db", json!([latency(&[])])), element("6b033dd4d683569b0801fa17", json!([]))]);
    assert!(violations(with(&format!("{SERVICE}/connectivity"), fine)).is_empty());
}

#[test]
fn all_violations_are_found_at_once() {
    let mut document = with(&format!("{SERVICE}/port"), json!("x"));
    document["sla_version"] = json!("v1.0");
    document["applications"][0]["application_name"] = json!("a b");
    let found: Vec<_> = violations(document).into_iter().map(|violation| violation.path).collect();
    assert_eq!(
        found,
        ["sla_version", "applications[0].application_name", "applications[0].microservices[0].port"]
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    let mut document = document();
    let application = document["applications"][0].clone();
    let mut service = application["microservices"][0].clone();
    document["applications"].as_array_mut().unwrap().push(application);
    let messages: Vec<_> =
        violations(document.clone()).into_iter().map(|violation| violation.message).collect();
    assert_eq!(
        messages,
        ["a second application named shop.prod", "10.30.30.30 is asked for twice in this document"]
    );
    service["addresses"] = json!({});
    document["applications"].as_array_mut().unwrap().pop();
    document["applications"][0]["microservices"].as_array_mut().unwrap().push(service);
    let messages: Vec<_> = violations(document).into_iter().map(|violation| violation.message).collect();
    assert_eq!(messages, ["a second service named web.prod"]);
}

#[test]
fn what_is_no_document_at_all_is_refused() {
    for nonsense in [Value::Null, json!([]), json!("text"), json!({}), json!({ "applications": {} })] {
        assert!(!violations(nonsense.clone()).is_empty(), "{nonsense}");
    }
    assert_eq!(violations(with("/applications", json!([])))[0].path, "applications");
}

#[test]
fn documents_of_oakestras_own_examples_are_taken() {
    let sla = json!({
        "sla_version": "v2.0",
        "customerID": "Admin",
        "applications": [{
            "applicationID": "",
            "application_name": "clientsrvr",
            "application_namespace": "test",
            "application_desc": "Simple demo",
            "microservices": [{
                "microserviceID": "",
                "microservice_name": "curl",
                "microservice_namespace": "test",
                "virtualization": "container",
                "cmd": ["sh", "-c", "tail -f /dev/null"],
                "memory": 100, "vcpus": 1, "vgpus": 0, "vtpus": 0, "bandwidth_in": 0, "bandwidth_out": 0, "storage": 0,
                "code": "docker.io/curlimages/curl:7.82.0",
                "state": "", "port": "9080", "added_files": [], "constraints": [],
            }],
        }],
    });
    assert_eq!(violations(sla), []);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,8}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The types read whatever passes the check: a value put in any place is refused by the check, or read.
    #[test]
    fn what_passes_can_be_read(
        key in prop::sample::select(vec![
            "memory", "vcpus", "cmd", "environment", "port", "state", "balancing", "added_files", "one_shot", "privileged",
            "addresses", "constraints", "volumes", "microserviceID", "code", "virtualization", "instances", "args",
        ]),
        value in any_json(),
    ) {
        let outcome = check(&with(&format!("{SERVICE}/{key}"), value), Some(given()), &|_| false);
        if let Err(violations) = outcome {
            prop_assert!(violations.iter().all(|violation| !violation.path.is_empty()), "{violations:?}");
        }
    }
}

#[test]
fn addresses_of_instances_are_checked_one_by_one_and_against_all_others() {
    let instances = |ranges: Value| {
        let document =
            with(&format!("{SERVICE}/addresses"), json!({"rr_ip": "10.30.9.5", "instances": ranges}));
        violations(document)
            .into_iter()
            .map(|wrong| wrong.path.split_once("addresses.").unwrap().1.to_owned())
    };
    let range = |from: u32, to: u32, start: &str| json!({"from": from, "to": to, "start": start});
    assert_eq!(instances(json!([range(0, 8, "10.30.8.250"), range(9, 9, "10.30.9.6")])).count(), 0);
    for (ranges, path) in [
        (json!([range(3, 2, "10.30.8.0")]), "instances[0].to"),
        (json!([range(0, 1000, "10.30.8.0")]), "instances[0].to"),
        (json!([range(0, u32::MAX, "10.30.8.0")]), "instances[0].to"),
        (json!([range(0, 499, "10.30.12.0"), range(500, 1000, "10.30.15.0")]), "instances[1].to"),
        (json!([range(0, 1, "10.30.253.253")]), "instances[0].start"),
        (json!([range(0, 1, "10.31.0.0")]), "instances[0].start"),
        (json!([range(0, 7, "10.30.7.0")]), "instances[0].start"),
        (json!([range(0, 5, "10.30.9.0")]), "instances[0].start"),
        (json!([range(0, 5, "10.30.8.0"), range(5, 6, "10.30.8.9")]), "instances[1].from"),
        (json!([range(0, 5, "10.30.8.0"), range(6, 7, "10.30.8.5")]), "instances[1].start"),
        (json!([{"from": 0}]), "instances[0]"),
        (json!([range(0, 1, "fdff::1")]), "instances[0]"),
        (json!({"from": 0}), "instances"),
    ] {
        assert_eq!(instances(ranges.clone()).collect::<Vec<_>>(), [path], "{ranges}");
    }
}

#[test]
fn addresses_may_be_chosen_of_the_roots_range_and_where_that_is_not_known_of_any() {
    let elsewhere = Given::of("172.24.0.0/20".parse().unwrap());
    let document = with(
        &format!("{SERVICE}/addresses"),
        json!({
            "rr_ip": "172.24.15.7", "instances": [{ "from": 0, "to": 9, "start": "172.24.3.0" }],
        }),
    );
    let none = |_: IpAddr| false;
    assert!(check(&document, Some(elsewhere), &none).is_ok());
    assert!(check(&document, None, &none).is_ok());
    let violations = check(&document, Some(given()), &none).unwrap_err();
    let paths: Vec<_> =
        violations.iter().map(|violation| violation.path.rsplit('.').next().unwrap()).collect();
    assert_eq!(paths, ["rr_ip", "start"], "{violations:?}");
}
