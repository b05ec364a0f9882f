//! What the API says to those who ask wrongly, and that it goes on.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::bed::{Answer, Bed, sla, web, web_at};

const UNKNOWN: &str = "6b033dd4d683569b0801fa18";

#[tokio::test]
async fn a_cluster_is_moved_to_an_address_and_nowhere_else() {
    let bed = Bed::start().await;
    let to = |address: &str| json!({ "cluster_id": "6b033dc3d683569b0801fa16", "cluster_address": address, "cluster_port": 10110 });
    for address in ["192.0.2.1/../x?", "", "evil.example", "192.0.2.1:80"] {
        let answer = bed.net(Method::POST, "/api/net/cluster", Some(to(address))).await;
        answer.is(400);
    }
    bed.net(Method::POST, "/api/net/cluster", Some(to("192.0.2.1"))).await.is(404);
}

#[tokio::test]
async fn without_a_good_token_nothing_is_told() {
    let bed = Bed::start().await;
    for (method, path) in [
        (Method::GET, "/api/applications/"),
        (Method::POST, "/api/application"),
        (Method::GET, "/api/services"),
        (Method::DELETE, "/api/service/6b033dd4d683569b0801fa18"),
        (Method::POST, "/api/service/6b033dd4d683569b0801fa18/instance"),
    ] {
        let bare = Answer::of(bed.request(method.clone(), path)).await.is(401);
        assert!(bare["message"].as_str().unwrap().contains("log in"), "{bare}");
        let wrong = format!("{}x", bed.token);
        Answer::of(bed.request(method, path).bearer_auth(wrong)).await.is(401);
    }
    let wrong = json!({ "username": "Admin", "password": "wrong" });
    assert_eq!(
        bed.post("/api/auth/login", wrong).await.is(401)["message"],
        "User name or password is wrong."
    );
    bed.post("/api/auth/login", json!({ "username": "Nobody", "password": "Admin" })).await.is(401);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let bed = Bed::start().await;
    let service = bed.service("shop", web()).await;
    for path in [
        format!("/api/application/{UNKNOWN}"),
        format!("/api/service/{UNKNOWN}"),
        "/api/service/nonsense".to_owned(),
        format!("/api/services/{UNKNOWN}"),
        "/api/nothing".to_owned(),
    ] {
        let answer = bed.get(&path).await.is(404);
        assert_eq!((&answer["code"], &answer["status"]), (&json!(404), &json!("Not Found")), "{answer}");
    }
    bed.post(&format!("/api/service/{UNKNOWN}/instance"), json!({})).await.is(404);
    for number in ["7", "-2", "x"] {
        bed.delete(&format!("/api/service/{service}/instance/{number}")).await.is(404);
    }
    bed.delete(&format!("/api/service/{service}/instance/-1")).await.ok();
    bed.delete(&format!("/api/application/{UNKNOWN}")).await.is(404);
    bed.delete("/api/clusters/").await.is(405);
}

#[tokio::test]
async fn malformed_json_is_answered_with_its_position() {
    let bed = Bed::start().await;
    let send = |body: &str| {
        let request = bed.request(Method::POST, "/api/application").bearer_auth(&bed.token);
        Answer::of(request.body(body.to_owned()))
    };
    let answer = send("{\n  \"sla_version\": }").await.is(400);
    assert_eq!(answer["message"], "The body is not valid JSON: expected value at line 2 column 18.");
    send("").await.is(400);
    send(" [null, null]").await.is(400);
    send(&format!("\"{}\"", "x".repeat(2 << 20))).await.is(413);
}

#[tokio::test]
async fn a_wrong_sla_is_refused_with_every_wrong_field_and_nothing_is_stored() {
    let bed = Bed::start().await;
    let mut document = sla("shop", web_at("10.31.0.1"));
    document["applications"][0]["microservices"].as_array_mut().unwrap().push(json!({
        "microservice_name": "db", "microservice_namespace": "test", "virtualization": "container", "port": "99999",
    }));
    let answer = bed.post("/api/application/", document).await.is(422);
    let errors = answer["errors"].as_array().unwrap();
    let paths: Vec<_> = errors.iter().map(|error| error["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "applications[0].microservices[0].addresses.rr_ip",
            "applications[0].microservices[1].code",
            "applications[0].microservices[1].port",
        ]
    );
    assert!(errors.iter().all(|error| error["message"].is_string()));
    assert_eq!(bed.get("/api/applications/").await.ok(), json!([]));
    assert_eq!(bed.get("/api/services/").await.ok(), json!([]));
}

#[tokio::test]
async fn names_and_addresses_are_not_given_twice() {
    let bed = Bed::start().await;
    let document = sla("shop", web_at("10.30.0.0"));
    bed.post("/api/application/", document.clone()).await.ok();
    let again = bed.post("/api/application/", document).await.is(409);
    assert_eq!(again["message"], "An application named shop.test exists already.");
    let same_address = bed.post("/api/application/", sla("other", web_at("10.30.0.0"))).await.is(422);
    assert_eq!(same_address["errors"][0]["path"], "applications[0].microservices[0].addresses.rr_ip");
    let free = bed.service("third", web()).await;
    let free = bed.get(&format!("/api/service/{free}")).await.ok();
    assert_eq!(free["RR_ip"], "10.30.0.1", "the pool leaves out what somebody chose");
}

#[tokio::test]
async fn silent_connections_keep_nobody_waiting() {
    let bed = Bed::start().await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut half = TcpStream::connect(bed.at.api).await.unwrap();
        half.write_all(b"POST /api/application HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        held.push(half);
        held.push(TcpStream::connect(bed.at.api).await.unwrap());
    }
    let asked = Instant::now();
    bed.get("/api/clusters").await.ok();
    assert!(asked.elapsed() < Duration::from_secs(2), "the answer took {:?}", asked.elapsed());
    drop(held);
}

#[tokio::test]
async fn a_report_of_a_cluster_that_never_registered_is_refused() {
    let bed = Bed::start().await;
    bed.post(&format!("/api/information/{UNKNOWN}"), json!({ "jobs": [] })).await.is(404);
    assert_eq!(bed.get("/api/clusters/").await.ok(), Value::Array(Vec::new()));
}
