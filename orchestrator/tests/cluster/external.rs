//! The cluster at a broker that is not ours: a real Mosquitto, with the rules that are made for it.

use std::net::TcpStream;
use std::time::Duration;

use orchestrator::broker::Settings;
use orchestrator::broker::external::BrokerArgs;
use protocol::cluster::WorkerState;
use protocol::id::Id;
use protocol::topic::{NodeTopic, updates_available};
use rumqttc::{AsyncClient, ConnectionError, MqttOptions, Packet, QoS};
use serde_json::json;
use tokio::sync::mpsc;

use crate::bed::{Bed, Cluster, NAME, PATIENCE, SERVICE, config, eventually};
use crate::mosquitto::{Known, Mosquitto, PASSWORD, USER};
use crate::worker::{Worker, is_reported};

fn settings(server: &Mosquitto, flags: BrokerArgs) -> Settings {
    Settings::External(flags.settings(server.workers).expect("flags that go together").expect("a broker"))
}

async fn bed(server: &Mosquitto, known: Known) -> Bed {
    let bed = Bed::with(settings(server, server.flags(known))).await;
    is_connected(&bed.cluster, true).await;
    bed
}

/// Waits until the cluster says that it is, or is not, connected to its broker.
async fn is_connected(cluster: &Cluster, wanted: bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (_, status) = cluster.send(cluster.http.get(cluster.url("/api/cluster/status"))).await;
        if status["connected_to_broker"] == wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "connected: {wanted} did not come: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Registers and connects as one of Hypha's.
async fn join(cluster: &Cluster, host: &str) -> Worker {
    let id = cluster.register(host).await;
    let user = id.to_string();
    let worker = Worker::connect_as(cluster.addresses.mqtt_port, id, host, Some(&user)).await;
    worker.say_information().await;
    worker
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_runs_by_way_of_a_broker_that_is_not_ours() {
    let server = Mosquitto::start(Known::ByPassword, &[]);
    let bed = bed(&server, Known::ByPassword).await;
    let mut worker = join(&bed.cluster, "pi1").await;
    worker.say_net(NodeTopic::Subnet, &json!({"METHOD": "GET"})).await;
    assert_eq!(worker.net_message().await.1, json!({"address": "10.18.0.0", "addressv6": "fc00::"}));
    worker.listen_to(NAME).await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;
    assert_eq!(worker.hears_of(NAME).await["type"], "DEPLOYMENT");
    worker.sees_instances(NAME, 1).await;
    assert_eq!(bed.cluster.undeploy(SERVICE, "-1").await.0, 200);
    assert_eq!(worker.command().await.0, "delete");
    worker.say_status(NAME, 0, "UNDEPLOYED", "").await;
    is_reported(&bed.root, 0, "UNDEPLOYED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_each_end_knows_the_other_by_its_certificate() {
    let server = Mosquitto::start(Known::ByCertificate, &[]);
    let bed = bed(&server, Known::ByCertificate).await;
    let mut worker = join(&bed.cluster, "pi1").await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_certificate_nobody_trusted_has_signed_is_told_nothing() {
    let server = Mosquitto::start(Known::ByCertificate, &[]);
    let stranger = server.file("stranger.pem");
    let flags = BrokerArgs { broker_ca: Some(stranger), ..server.flags(Known::ByCertificate) };
    let bed = Bed::with(settings(&server, flags)).await;
    eventually("the broker to see that it is not trusted", || {
        let log = server.log();
        (log.contains("unknown ca"), log)
    })
    .await;
    is_connected(&bed.cluster, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_read_are_named_at_the_start() {
    let server = Mosquitto::start(Known::ByPassword, &[]);
    let missing = server.file("missing");
    let flags = BrokerArgs { broker_password_file: Some(missing.clone()), ..server.flags(Known::ByPassword) };
    let root = crate::root::Root::start().await;
    let data = tempfile::tempdir().expect("a directory");
    let config = orchestrator::cluster::Config {
        broker: settings(&server, flags),
        ..config(&root, data.path().into(), 0)
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let error =
        orchestrator::cluster::run_and_tell(config, stop, |_| panic!("it started")).await.unwrap_err();
    let error = orchestrator::error::chain(&error);
    assert!(
        error.contains(&missing.display().to_string()) && error.contains("--broker-password-file"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_nobody_is_given_up_and_afterwards_all_goes_on() {
    let mut server = Mosquitto::start(Known::ByPassword, &[]);
    let bed = bed(&server, Known::ByPassword).await;
    let mut worker = join(&bed.cluster, "pi1").await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;

    server.kill();
    is_connected(&bed.cluster, false).await;
    // Three times the silence (2 s) that would have made it dead.
    eventually("the worker unreachable at the root", || {
        let workers = bed.root.memory().report.clone().and_then(|report| report.workers).unwrap_or_default();
        let state = workers.first().map(|worker| worker.state);
        (state == Some(WorkerState::Unreachable), format!("{state:?}"))
    })
    .await;
    bed.deploy(1).await;
    is_reported(&bed.root, 1, "NO_WORKER_CAPACITY").await;
    is_reported(&bed.root, 0, "RUNNING").await;

    server.start_again();
    is_connected(&bed.cluster, true).await;
    let mut worker = join(&bed.cluster, "pi1").await;
    worker.say_resources(&[(NAME, 0)]).await;
    bed.run_on(&mut worker, 1, "10.18.0.67").await;
    worker.sees_instances(NAME, 2).await;
    is_reported(&bed.root, 0, "RUNNING").await;
    worker.no_command(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_late_is_waited_for() {
    let mut server = Mosquitto::start(Known::ByPassword, &[]);
    server.kill();
    let bed = Bed::with(settings(&server, server.flags(Known::ByPassword))).await;
    is_connected(&bed.cluster, false).await;
    let id = bed.cluster.register("pi1").await;
    server.start_again();
    is_connected(&bed.cluster, true).await;
    let mut worker = join(&bed.cluster, "pi1").await;
    assert_eq!(worker.id, id);
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_restarts_hears_what_was_said_meanwhile_and_asks_for_the_rest() {
    let server = Mosquitto::start(Known::ByPassword, &[]);
    let mut bed = bed(&server, Known::ByPassword).await;
    let mut worker = join(&bed.cluster, "pi1").await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;

    bed.cluster.shutdown.cancel();
    (&mut bed.cluster.task).await.expect("no panic").expect("a clean stop");
    worker.say_status(NAME, 0, "FAILED", "exit code 7").await;
    let again = orchestrator::cluster::Config {
        broker: settings(&server, server.flags(Known::ByPassword)),
        ..config(&bed.root, bed.data.path().into(), 0)
    };
    bed.cluster = Cluster::start(again).await;
    is_reported(&bed.root, 0, "FAILED").await;
    // Told to run it once more, before or afterwards.
    while worker.command().await.0 != "error" {}

    // It does, and is not asked again.
    let mut worker = join(&bed.cluster, "pi1").await;
    worker.say_resources(&[]).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;
    worker.no_command(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_without_a_user_name_need_other_rules() {
    for (rules, is_served) in [(&["--nameless-workers"][..], true), (&[][..], false)] {
        let server = Mosquitto::start(Known::ByPassword, rules);
        let bed = bed(&server, Known::ByPassword).await;
        let mut worker = bed.worker("pi1").await;
        bed.deploy(0).await;
        is_reported(&bed.root, 0, "NODE_SCHEDULED").await;
        if is_served {
            bed.run_on(&mut worker, 0, "10.18.0.66").await;
        } else {
            worker.no_command(Duration::from_millis(300)).await;
        }
    }
}

/// A client that knows the ids of others.
struct Hostile {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
}

impl Hostile {
    async fn connect(
        port: u16,
        client_id: &str,
        user: &str,
        password: &str,
    ) -> Result<Self, ConnectionError> {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
        options.set_credentials(user, password).set_max_packet_size(4 << 20, 4 << 20);
        let (client, mut events) = AsyncClient::new(options, 64);
        // Connected, or refused.
        events.poll().await?;
        let (sender, packets) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let rumqttc::Event::Incoming(packet) = event {
                    sender.send(packet).ok();
                }
            }
        });
        Ok(Self { client, packets })
    }

    /// Until the broker has taken it, or has said so.
    async fn say(&mut self, topic: &str, payload: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.expect("room in the queue");
        while !matches!(self.packet().await, Packet::PubAck(_)) {}
    }

    async fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.expect("room in the queue");
        while !matches!(self.packet().await, Packet::SubAck(_)) {}
    }

    async fn packet(&mut self) -> Packet {
        let packet = tokio::time::timeout(PATIENCE, self.packets.recv()).await;
        packet.expect("a packet").expect("a connection")
    }

    /// What it hears until something is said on this topic.
    async fn hears_until(&mut self, last: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|topic| topic != last) {
            if let Packet::Publish(publish) = self.packet().await {
                heard.push(publish.topic);
            }
        }
        heard
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_client_neither_speaks_as_another_nor_hears_it() {
    let server = Mosquitto::start(Known::ByPassword, &[]);
    let bed = bed(&server, Known::ByPassword).await;
    let mut worker = join(&bed.cluster, "pi1").await;
    let victim = worker.id;
    let own = bed.cluster.register("pi2").await;
    bed.cluster.wish(own, "cordon").await;

    for user in [own.to_string(), USER.to_owned()] {
        let client_id = format!("hostile-{user}");
        let mut hostile =
            Hostile::connect(server.workers, &client_id, &user, "").await.expect("anybody is let in");
        for filter in ["#".to_owned(), "nodes/#".to_owned(), format!("nodes/{victim}/control/#")] {
            hostile.subscribe(&filter).await;
        }
        hostile.say(&NodeTopic::ControlDelete.of(&victim), "{}").await;
        let forged =
            json!({"sname":NAME,"status":"FAILED","status_detail":"forged","instance":0,"publicip":""});
        hostile.say(&NodeTopic::Job.of(&victim), &forged.to_string()).await;
        hostile.say(&updates_available(NAME), "{}").await;
        if user == USER {
            continue;
        }

        // All of this has gone through the broker before what is allowed.
        bed.deploy(0).await;
        bed.run_on(&mut worker, 0, "10.18.0.66").await;
        hostile.say(&NodeTopic::Subnet.of(&own), &json!({"METHOD": "GET"}).to_string()).await;
        let result = NodeTopic::SubnetResult.of(&own);
        let mut heard = hostile.hears_until(&result).await;
        heard.retain(|topic| *topic != updates_available(NAME));
        assert_eq!(heard, [result]);
    }
    // By now the cluster has heard all that it was to hear.
    worker.sees_instances(NAME, 1).await;
    is_reported(&bed.root, 0, "RUNNING").await;
    worker.no_command(Duration::from_millis(300)).await;
    let detail = bed.root.reported(0).and_then(|instance| instance.status_detail).unwrap_or_default();
    assert!(!detail.contains("forged"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_s_listener_is_for_the_cluster() {
    let server = Mosquitto::start(Known::ByPassword, &[]);
    for (user, password) in [(USER, ""), (USER, "guessed"), ("somebody", PASSWORD), ("", "")] {
        let refused = Hostile::connect(server.cluster, "hostile", user, password).await.map(|_client| ());
        assert!(refused.is_err(), "{user:?} {password:?} was let in");
    }
    Hostile::connect(server.cluster, "hostile", USER, PASSWORD).await.expect("the cluster itself");
    let server = Mosquitto::start(Known::ByCertificate, &[]);
    TcpStream::connect(("127.0.0.1", server.cluster)).expect("somebody listens");
    let refused = Hostile::connect(server.cluster, "hostile", USER, "").await.map(|_client| ());
    assert!(refused.is_err(), "let in without a certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_not_registered_is_told_so_and_not_listened_to() {
    let server = Mosquitto::start(Known::ByPassword, &[]);
    let bed = bed(&server, Known::ByPassword).await;
    let stranger: Id = "6b033dc62c1f07cbdcd88440".parse().expect("an id");
    let user = stranger.to_string();
    let mut worker = Worker::connect_as(server.workers, stranger, "pi9", Some(&user)).await;
    worker.say_net(NodeTopic::Subnet, &json!({"METHOD": "GET"})).await;
    worker.say_information().await;
    assert_eq!(worker.command().await.0, "error");
    assert_eq!(bed.root.memory().subnets, 0, "it was given addresses");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_long_is_ignored_and_one_that_breaks_the_connection_breaks_it_once() {
    let server = Mosquitto::start_with(Known::ByPassword, &[], "");
    let bed = bed(&server, Known::ByPassword).await;
    let own = bed.cluster.register("pi2").await.to_string();
    let mut worker = join(&bed.cluster, "pi1").await;
    let mut hostile = Hostile::connect(server.workers, "hostile", &own, "").await.expect("anybody is let in");
    let topic = format!("nodes/{own}/job");
    hostile.say(&topic, &" ".repeat(300 * 1024)).await;
    bed.cluster.wish(own.parse().expect("an id"), "cordon").await;
    bed.deploy(0).await;
    bed.run_on(&mut worker, 0, "10.18.0.66").await;
    worker.no_command(Duration::from_millis(300)).await;

    let keep_alive = worker.keep_alive();
    hostile.say(&topic, &" ".repeat(2 << 20)).await;
    // It was connected anew: so it asks whoever speaks.
    let asked = async { assert_eq!(worker.command().await.0, "error") };
    tokio::select! { () = asked => {}, () = keep_alive.run() => {} }
    let mut worker = join(&bed.cluster, "pi1").await;
    worker.say_resources(&[(NAME, 0)]).await;
    bed.deploy(1).await;
    bed.run_on(&mut worker, 1, "10.18.0.67").await;
}
