//! What the root tells those who listen.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::bed::{Bed, eventually, web};
use crate::cluster::Cluster;
use crate::people::GOOD_PASSWORD;
use crate::workers::{PI, told};

const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who listens.
struct Listening {
    response: Response,
    text: String,
}

#[derive(Debug)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

impl Listening {
    async fn to(bed: &Bed, token: &str, topics: &str, known: Option<&str>) -> Self {
        let mut request = bed.request(Method::GET, &format!("/v1/stream?topics={topics}")).bearer_auth(token);
        if let Some(known) = known {
            request = request.header("Last-Event-ID", known);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut listening = Self { response, text: String::new() };
        assert_eq!(listening.next().await.unwrap().name, "hello");
        listening
    }

    /// Nothing: it has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
                };
                let found = field("event").map(|name| Event {
                    name,
                    id: field("id"),
                    data: serde_json::from_str(&field("data").unwrap()).unwrap(),
                });
                self.text = rest.to_owned();
                match found {
                    Some(event) => return Some(event),
                    // A comment, which only shows that it is alive.
                    None => continue,
                }
            }
            let chunk =
                tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("an event in time");
            self.text += std::str::from_utf8(&chunk.unwrap()?).unwrap();
        }
    }

    async fn expect(&mut self, name: &str, topic: &str) -> Event {
        let event = self.next().await.expect("an event");
        assert_eq!((event.name.as_str(), &event.data["topic"]), (name, &json!(topic)), "{event:?}");
        event
    }
}

#[tokio::test]
async fn who_listens_is_told_everything_once_and_then_what_changes() {
    let bed = Bed::start().await;
    let _home = Cluster::join(&bed, "home").await;
    let mut listening = Listening::to(&bed, &bed.token, "clusters,services,status", None).await;
    let clusters = listening.expect("snapshot", "clusters").await;
    assert_eq!(clusters.data["data"][0]["cluster_name"], "home");
    assert_eq!(clusters.data["data"][0]["cpu_history"], json!([]), "histories are for who asks for them");
    assert_eq!(clusters.id, None, "there is more of the same moment");
    listening.expect("snapshot", "services").await;
    let status = listening.expect("snapshot", "status").await;
    assert_eq!(status.data["data"][0]["clusters"]["active"], 1);
    assert!(status.id.is_some());

    let service = bed.service("shop", web()).await;
    let told = listening.expect("delta", "services").await;
    assert_eq!(told.data["upsert"][0]["microserviceID"], service);
    let status = listening.expect("snapshot", "status").await;
    assert_eq!(status.data["data"][0]["services"], 1);
    bed.delete(&format!("/api/service/{service}")).await.ok();
    let told = listening.expect("delta", "services").await;
    assert_eq!((&told.data["upsert"], &told.data["remove"]), (&json!([]), &json!([service])));
}

#[tokio::test]
async fn who_comes_back_is_told_what_he_has_missed_or_all_if_that_is_not_known() {
    let bed = Bed::start().await;
    let first = bed.service("shop", web()).await;
    let mut listening = Listening::to(&bed, &bed.token, "services", None).await;
    let known = listening.expect("snapshot", "services").await.id.unwrap();
    drop(listening);
    let mut second = web();
    second["microservice_name"] = json!("db");
    let second = bed.service("store", second).await;
    bed.delete(&format!("/api/service/{first}")).await.ok();
    // The last look may have been a moment ago.
    let mut listening = Listening::to(&bed, &bed.token, "services", Some(&known)).await;
    let (mut upsert, mut remove) = (Vec::new(), Vec::new());
    while upsert.is_empty() || remove.is_empty() {
        let told = listening.expect("delta", "services").await.data;
        let ids = told["upsert"].as_array().unwrap().iter().map(|service| service["microserviceID"].clone());
        upsert.extend(ids);
        remove.extend(told["remove"].as_array().unwrap().clone());
    }
    assert_eq!((upsert, remove), (vec![json!(second)], vec![json!(first)]));
    drop(listening);

    let bed = bed.restart().await;
    let mut listening = Listening::to(&bed, &bed.token, "services", Some(&known)).await;
    let all = listening.expect("snapshot", "services").await.data["data"].clone();
    assert_eq!(all.as_array().unwrap().len(), 1, "another root counts otherwise: {all}");
}

#[tokio::test]
async fn what_happens_is_told_in_order_once_and_only_to_whom_it_concerns() {
    let bed = Bed::start().await;
    let jane = bed.person("jane", &["Application_Provider"]).await;
    let home = Cluster::join(&bed, "home").await;
    home.report_workers(&bed, json!([])).await;
    home.report_workers(&bed, json!([told(PI, "pi-2")])).await;
    let service = bed.service("shop", web()).await;
    let codes = |events: &Value| {
        let events = events.as_array().unwrap().iter();
        events
            .map(|event| {
                format!("{} {}", event["subject"]["name"].as_str().unwrap(), event["code"].as_str().unwrap())
            })
            .collect::<Vec<_>>()
    };
    let mut listening = Listening::to(&bed, &bed.token, "events", None).await;
    let first = listening.expect("snapshot", "events").await;
    assert_eq!(codes(&first.data["data"]), ["home joined", "home/pi-2 joined", "shop/web created"]);
    let mut hers = Listening::to(&bed, &jane.token, "events", None).await;
    let shown = codes(&hers.expect("snapshot", "events").await.data["data"]);
    assert_eq!(shown, ["home joined", "home/pi-2 joined"], "the service is not hers");

    let mut dead = told(PI, "pi-2");
    (dead["state"], dead["silent"]) = (json!("dead"), json!(31));
    home.report_workers(&bed, json!([dead])).await;
    let change = listening.expect("delta", "events").await;
    assert_eq!(codes(&change.data["upsert"]), ["home/pi-2 dead"]);
    let event = &change.data["upsert"][0];
    assert_eq!(
        (&event["severity"], &event["subject"]["kind"]),
        (&json!("error"), &json!("worker")),
        "{event}"
    );
    assert_eq!(event["message"], "silent for 31 s; its instances go elsewhere");
    drop(listening);
    bed.delete(&format!("/api/service/{service}")).await.ok();
    let mut listening = Listening::to(&bed, &bed.token, "events", change.id.as_deref()).await;
    let missed = listening.expect("delta", "events").await;
    assert_eq!(codes(&missed.data["upsert"]), ["shop/web deleted"]);
}

#[tokio::test]
async fn nobody_hears_of_what_is_somebody_else_s_nor_after_his_token_was_revoked() {
    let bed = Bed::start().await;
    bed.service("shop", web()).await;
    let jane = bed.person("jane", &["Application_Provider"]).await;
    let mut listening = Listening::to(&bed, &jane.token, "services", None).await;
    assert_eq!(listening.expect("snapshot", "services").await.data["data"], json!([]));
    let change = json!({ "oldPassword": GOOD_PASSWORD, "newPassword": "battery staple" });
    bed.send_as(&jane.token, Method::POST, "/api/user/jane", Some(change)).await.ok();
    assert!(listening.next().await.is_none(), "it goes on after the password was changed");

    let nobody = bed.request(Method::GET, "/v1/stream").send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    for query in ["topics=weather", "topics=services&topics=clusters"] {
        bed.get(&format!("/v1/stream?{query}")).await.is(400);
    }
}

#[tokio::test]
async fn only_so_many_listen_at_a_time_and_a_root_that_stops_does_not_wait_for_them() {
    let bed = Bed::start().await;
    let mut all = Vec::new();
    for _ in 0..64 {
        all.push(Listening::to(&bed, &bed.token, "clusters", None).await);
    }
    bed.get("/v1/stream").await.is(503);
    all.pop();
    let ask = || async {
        let request = bed.request(Method::GET, "/v1/stream").bearer_auth(&bed.token);
        request.send().await.unwrap().status()
    };
    eventually("a place for another one", ask, |status| (*status == 200).then_some(())).await;
    tokio::time::timeout(Duration::from_secs(4), bed.restart()).await.expect("the root to stop at once");
}
