//! What bad input gets: an answer that names the fault, or nothing at all; and the system lives on.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::application::{Application, document};
use integration::{Lab, eventually};
use protocol::topic::NodeTopic;
use reqwest::Method;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use crate::Claim;

pub(crate) const CLAIMS: &[Claim] = &[
    (
        "a_wrong_sla_is_refused_with_the_path_of_each_wrong_field",
        a_wrong_sla_is_refused_with_the_path_of_each_wrong_field,
    ),
    (
        "unknown_ids_are_not_found_and_strangers_are_not_let_in",
        unknown_ids_are_not_found_and_strangers_are_not_let_in,
    ),
    (
        "foreign_datagrams_on_the_tunnels_port_are_dropped_and_counted",
        foreign_datagrams_on_the_tunnels_port_are_dropped_and_counted,
    ),
    ("malformed_messages_of_a_node_are_ignored", malformed_messages_of_a_node_are_ignored),
    (
        "a_second_daemon_says_why_it_cannot_run_and_harms_nobody",
        a_second_daemon_says_why_it_cannot_run_and_harms_nobody,
    ),
];

fn a_wrong_sla_is_refused_with_the_path_of_each_wrong_field(lab: &mut Lab) -> Result<()> {
    let api = lab.control.admin()?;
    let applications = || api.get("/api/applications/").and_then(integration::api::Answer::ok);
    let before = applications()?;
    let mut sla = document("wrong", 1)?;
    let services = &mut sla["applications"][0]["microservices"];
    services[0]["microservice_name"] = json!("no-dashes-allowed");
    services[1]["addresses"] = json!({ "rr_ip": "192.168.0.1" });
    services[1]["port"] = json!("80000:80");
    let answer = api.post("/api/application/", &sla)?;
    ensure!(answer.status == 422, "{} {}", answer.status, answer.body);
    let text = answer.body.to_string();
    for path in
        ["/microservices/0/microservice_name", "/microservices/1/addresses/rr_ip", "/microservices/1/port"]
    {
        let dotted =
            path.trim_start_matches('/').replace("/0/", "[0].").replace("/1/", "[1].").replace('/', ".");
        ensure!(
            text.contains(path) || text.contains(&dotted),
            "neither {path} nor {dotted} is named in {text}"
        );
    }
    for (status, body) in [
        (400, ""),
        (400, "{"),
        (400, "[]"),
        (422, r#"{"sla_version":"v2.0"}"#),
        (422, r#"{"sla_version":"v9","customerID":"Admin","applications":[]}"#),
    ] {
        let answer = api.send(Method::POST, "/api/application/", Some(body.to_owned()))?;
        ensure!(answer.status == status, "{body:?} got {} {}", answer.status, answer.body);
    }
    ensure!(applications()? == before, "something was stored");
    Ok(())
}

fn unknown_ids_are_not_found_and_strangers_are_not_let_in(lab: &mut Lab) -> Result<()> {
    let (stranger, admin) = (lab.control.api(), lab.control.admin()?);
    let unknown = "/api/service/0123456789abcdef01234567";
    for path in
        [unknown, "/api/service/nonsense", "/api/application/0123456789abcdef01234567", "/api/nowhere"]
    {
        let answer = admin.get(path)?;
        ensure!(answer.status == 404, "{path}: {} {}", answer.status, answer.body);
    }
    for api in [stranger.clone(), stranger.with_token("a.b.c"), stranger.with_token("")] {
        for path in [unknown, "/api/applications/", "/api/services/"] {
            let answer = api.get(path)?;
            ensure!(answer.status == 401, "{path}: {} {}", answer.status, answer.body);
        }
    }
    let wrong = json!({ "username": "Admin", "password": "guess" });
    let answer = stranger.post("/api/auth/login", &wrong)?;
    ensure!(answer.status == 401, "a wrong password: {} {}", answer.status, answer.body);
    Ok(())
}

fn foreign_datagrams_on_the_tunnels_port_are_dropped_and_counted(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "foreign", 3)?;
    let system = application.system(lab, 3)?;
    system.wait_for_all_answers()?;
    let worker = &lab.workers[system.remote_server()?.worker];
    let before = dropped(&worker.network_status()?)?;
    let to = SocketAddr::from((worker.address, protocol::port::TUNNEL));
    let header =
        [[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0].as_slice(), &[198, 51, 100, 9], &[10, 18, 0, 2]].concat();
    let datagrams: [&[u8]; 6] = [&[], &[0x45], &header[..19], &[0xff; 100], &[0x60; 60], &header];
    let socket = lab.underlay.netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.context("bind")?;
    for datagram in datagrams {
        socket.send_to(datagram, to).context("send a datagram")?;
    }
    let expected = before + datagrams.len() as u64;
    eventually(Duration::from_secs(5), &format!("{expected} dropped packets"), || {
        match worker.network_status().and_then(|status| dropped(&status)) {
            Ok(count) if count >= expected => Ok(()),
            Ok(count) => Err(format!("{count}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })?;
    system.wait_for_all_answers()?;
    application.remove(lab)
}

/// The sum of all drop reasons in what `netmanager status` says.
fn dropped(status: &Value) -> Result<u64> {
    let reasons = status["drops"].as_array().with_context(|| format!("drops in {status}"))?;
    Ok(reasons.iter().filter_map(|reason| reason["packets"].as_u64()).sum())
}

fn malformed_messages_of_a_node_are_ignored(lab: &mut Lab) -> Result<()> {
    let cluster = integration::api::Api::new(
        lab.control.netns.clone(),
        format!("http://{}:{}", lab.control.cluster_address(), protocol::port::CLUSTER_API),
    );
    let node =
        json!({ "host": "stranger", "ip": "192.0.2.99", "virtualization": [], "vcpus": 1, "memory": 1 });
    let registered = cluster.post("/api/node/register", &node)?.ok()?;
    let id = registered["id"].as_str().context("an id for a node that registers")?.to_owned();
    let topics = [
        NodeTopic::Information,
        NodeTopic::Job,
        NodeTopic::Resources,
        NodeTopic::TableQuery,
        NodeTopic::ServiceDeployed,
    ];
    let topics = topics.map(|topic| format!("nodes/{id}/{}", topic.suffix()));
    let address = lab.control.cluster_address().to_string();
    lab.control.netns.run(|| {
        let payloads: [&[u8]; 6] =
            [b"", b"{", b"[]", b"null", &[0xff, 0xfe], br#"{"sname":7,"instance":"x"}"#];
        publish(&address, &id, &topics, &payloads)
    })??;
    lab.expect_running()?;
    // Each topic's fault is told once.
    let daemon = lab.control.cluster.as_ref().unwrap_or(&lab.control.root);
    let log = &daemon.recipe().log;
    for topic in &topics {
        let told = || -> Result<usize> {
            let log = std::fs::read_to_string(log).context("read the cluster's log")?;
            let told = |line: &&str| line.contains(&format!("topic={topic} ")) && line.contains("WARN");
            Ok(log.lines().filter(told).count())
        };
        // The broker has taken the messages; the cluster reads them in its own time.
        eventually(Duration::from_secs(10), &format!("a warning about {topic}"), || match told() {
            Ok(0) => Err("none yet".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        })?;
        ensure!(told()? == 1, "{topic} is told of {} times in {}", told()?, log.display());
    }
    let application = Application::deploy(lab, "malformed", 1)?;
    application.system(lab, 1)?.wait_for_all_answers()?;
    application.remove(lab)
}

/// Publishes each payload on each topic as the netmanager of `node`, and waits until the broker has taken all.
fn publish(broker: &str, node: &str, topics: &[String], payloads: &[&[u8]]) -> Result<()> {
    let mut options = MqttOptions::new(node, broker, protocol::port::CLUSTER_MQTT);
    options.set_keep_alive(Duration::from_secs(5));
    let count = topics.len() * payloads.len();
    let (client, mut connection) = Client::new(options, count + 1);
    for (topic, payload) in
        topics.iter().flat_map(|topic| payloads.iter().map(move |payload| (topic, payload)))
    {
        client
            .publish(topic, QoS::AtLeastOnce, false, *payload)
            .with_context(|| format!("publish on {topic}"))?;
    }
    let mut taken = 0;
    while taken < count {
        match connection.recv_timeout(Duration::from_secs(5)) {
            Ok(Ok(Event::Incoming(Packet::PubAck(_)))) => taken += 1,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => bail!("the broker ended the connection: {error}"),
            Err(error) => bail!("the broker took {taken} of {count} messages: {error:?}"),
        }
    }
    Ok(())
}

fn a_second_daemon_says_why_it_cannot_run_and_harms_nobody(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "second", 2)?;
    let system = application.system(lab, 2)?;
    let worker = &lab.workers[0];
    let daemons = [
        Some(&lab.control.root),
        lab.control.cluster.as_ref(),
        Some(&worker.netmanager),
        Some(&worker.node_engine),
    ];
    for daemon in daemons.into_iter().flatten() {
        let (status, said) = daemon.start_second()?;
        ensure!(
            status.code().is_some_and(|code| code == 1 || code == 2),
            "{}: {status}\n{said}",
            daemon.name()
        );
        ensure!(!said.contains("panicked"), "{} panics: {said}", daemon.name());
        let reason = ["in use", "already", "another", "lock"];
        ensure!(reason.iter().any(|word| said.contains(word)), "{} does not say why: {said}", daemon.name());
    }
    lab.expect_running()?;
    system.wait_for_all_answers()?;
    application.scale(lab, 3)?;
    application.system(lab, 3)?.wait_for_all_answers()?;
    application.remove(lab)
}
