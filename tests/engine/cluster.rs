//! As much of a cluster as node-engine talks to: a real broker, the handshake, and an ear for what the node says.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use integration::daemon::Daemon;
use integration::{Netns, mosquitto};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
const BROKER_PORT: u16 = protocol::port::CLUSTER_MQTT;
const API_PORT: u16 = protocol::port::CLUSTER_API;
const NODE: &str = "6b033dc62c1f07cbdcd88440";

/// What was heard, in order.
#[derive(Debug, Default)]
struct Heard {
    /// The worker's descriptions of itself in the handshakes.
    handshakes: Vec<Value>,
    /// Topic after the node's id, and payload.
    messages: Vec<(String, Value)>,
}

pub(crate) struct Cluster {
    pub(crate) broker: Daemon,
    netns: Arc<Netns>,
    heard: Arc<Mutex<Heard>>,
    client: AsyncClient,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<()>>>,
    api: Option<Api>,
}

impl Cluster {
    pub(crate) fn start(netns: &Arc<Netns>, folder: &Path) -> Result<Self> {
        let config = folder.join("mosquitto.conf");
        let text = format!(
            "listener {BROKER_PORT} {ADDRESS}\nallow_anonymous true\nset_tcp_nodelay true\nuser root\nlog_type all\n"
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let broker = mosquitto::start(netns, config, folder.join("mosquitto.log"), (ADDRESS, BROKER_PORT))?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut options = MqttOptions::new("cluster", ADDRESS.to_string(), BROKER_PORT);
        options.set_keep_alive(Duration::from_secs(5));
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, eventloop) = AsyncClient::new(options, 256);
        let stop = CancellationToken::new();
        let thread = std::thread::spawn({
            let (netns, client) = (Arc::clone(netns), client.clone());
            let (heard, stop) = (Arc::clone(&heard), stop.clone());
            move || netns.run(|| listen(&client, eventloop, &heard, &stop))?
        });
        let api = Some(Api::start(netns, &heard)?);
        Ok(Self { broker, netns: Arc::clone(netns), heard, client, stop, thread: Some(thread), api })
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        ADDRESS
    }

    pub(crate) fn api_port(&self) -> u16 {
        API_PORT
    }

    /// Ends the API: a handshake finds nobody.
    pub(crate) fn close_api(&mut self) {
        self.api = None;
    }

    pub(crate) fn open_api(&mut self) -> Result<()> {
        self.api = Some(Api::start(&self.netns, &self.heard)?);
        Ok(())
    }

    /// Says something to the node.
    pub(crate) fn say(&self, topic: &str, payload: &str) -> Result<()> {
        let topic = format!("nodes/{NODE}/{topic}");
        self.client.try_publish(topic, QoS::AtLeastOnce, false, payload).context("publish")
    }

    /// Whether the broker has heard of the node's subscription to commands since it was last started.
    pub(crate) fn has_listener(&self) -> bool {
        let log = fs::read_to_string(&self.broker.recipe().log).unwrap_or_default();
        let latest = log.rsplit_once("version 2").map_or("", |(_, latest)| latest);
        latest.contains(&format!("nodes/{NODE}/control/error"))
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn handshakes(&self) -> Vec<Value> {
        self.heard().handshakes.clone()
    }

    /// Every report on the state of an instance.
    pub(crate) fn reports(&self, service: &str, number: u32) -> Vec<Value> {
        let is_of = |report: &Value| report["sname"] == service && report["instance"] == number;
        let heard = self.heard();
        let reports = heard.messages.iter().filter(|(topic, _)| topic == "job").map(|(_, report)| report);
        reports.filter(|report| is_of(report)).cloned().collect()
    }

    pub(crate) fn last_report(&self, service: &str, number: u32) -> Option<Value> {
        self.reports(service, number).pop()
    }

    /// The latest message on this topic.
    pub(crate) fn latest(&self, topic: &str) -> Option<Value> {
        let heard = self.heard();
        heard.messages.iter().rev().find(|(heard, _)| heard == topic).map(|(_, message)| message.clone())
    }

    /// The instance in the latest report of resources.
    pub(crate) fn resources(&self, number: u32) -> Option<Value> {
        let report = self.latest("jobs/resources")?;
        report["services"].as_array()?.iter().find(|service| service["instance"] == number).cloned()
    }

    /// Forgets what was heard so far.
    pub(crate) fn clear(&self) {
        *self.heard() = Heard::default();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn listen(
    client: &AsyncClient,
    mut eventloop: EventLoop,
    heard: &Mutex<Heard>,
    stop: &CancellationToken,
) -> Result<()> {
    let listen = async {
        loop {
            match eventloop.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    client.try_subscribe(format!("nodes/{NODE}/#"), QoS::AtLeastOnce).ok();
                }
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    let topic = message.topic.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
                    let payload = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
                    heard.lock().unwrap_or_else(PoisonError::into_inner).messages.push((topic, payload));
                }
                Ok(_) => {}
                // A test has stopped the broker.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = listen => {}
        }
    });
    Ok(())
}

/// `POST /api/node/register`, answered one request after the other.
struct Api {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    fn start(netns: &Arc<Netns>, heard: &Arc<Mutex<Heard>>) -> Result<Self> {
        let listener =
            netns.run(|| TcpListener::bind((ADDRESS, API_PORT)))?.context("bind the cluster's API")?;
        listener.set_nonblocking(true).context("make the API's socket non-blocking")?;
        let stop = CancellationToken::new();
        let (heard, stopped) = (Arc::clone(heard), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.is_cancelled() {
                match listener.accept() {
                    Ok((stream, _)) => drop(answer(stream, &heard)),
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn answer(stream: TcpStream, heard: &Mutex<Heard>) -> Result<()> {
    stream.set_nonblocking(false)?;
    let (head, body) = read_request(&stream)?;
    let is_handshake = head.starts_with("POST /api/node/register ");
    if is_handshake {
        heard.lock().unwrap_or_else(PoisonError::into_inner).handshakes.push(serde_json::from_slice(&body)?);
    }
    let answer = json!({"id": NODE, "MQTT_BROKER_PORT": BROKER_PORT.to_string()}).to_string();
    write_answer(&stream, if is_handshake { "200 OK" } else { "404 Not Found" }, &answer)
}

/// The head of an HTTP request, and its body.
pub(crate) fn read_request(stream: impl Read) -> Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        anyhow::ensure!(reader.read_line(&mut head)? > 0, "the request ends in its head");
    }
    let lower = head.to_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("no Content-Length")?.trim().parse()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((head, body))
}

pub(crate) fn write_answer(mut stream: impl Write, status: &str, body: &str) -> Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")?;
    Ok(())
}
