//! Bare packets that the kernel merges where it has FOU: see `netmanager::bare`.

use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use etherparse::PacketBuilder;
use integration::Netns;
use integration::netns::connect as join;
use netmanager::app::Paths;
use netmanager::bare::{self, Merging, MergingError};
use netmanager::cli::Format;
use netmanager::commands::{cleanup, status};
use netmanager::config::Config;
use netmanager::net::fou::Outer;
use netmanager::node::Node;
use netmanager::plane::Choice;
use netmanager::state::Store;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::nodes::{Container, Family, TUNNEL_PORT, Underlay, kernel_has_ipv6, publish_instances, sysctl};
use crate::pins::Pins;
use crate::talk::{connect, echo, exchange};

const SOON: Duration = Duration::from_secs(60);
const TABLE: [&str; 5] = ["list", "chain", "inet", "hypha-fou", "input"];

fn within<T: Send>(netns: &Netns, work: impl AsyncFnOnce() -> T + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    };
    netns.run(run).unwrap()
}

fn keep(netns: &Netns, merging: &mut Merging, outer: Outer) -> Result<bool, MergingError> {
    within(netns, async || merging.keep(outer, TUNNEL_PORT).await)
}

fn remove(netns: &Netns) -> Vec<String> {
    within(netns, async || bare::remove(TUNNEL_PORT).await.unwrap())
}

/// Said where it has not. Then nothing is left of the attempt.
fn kernel_has_fou() -> bool {
    let netns = Netns::new("fou").unwrap();
    let has_it = keep(&netns, &mut Merging::default(), Outer::V4).unwrap();
    if !has_it {
        assert!(netns.output("nft", &TABLE).is_err());
        println!("skipped: this kernel has no FOU");
    }
    has_it
}

/// What `ip` shows, of either family.
fn listens(netns: &Netns) -> bool {
    netns.output("ip", &["fou", "show"]).unwrap().contains(&format!("port {TUNNEL_PORT} ipproto 4"))
}

fn is_closed(netns: &Netns) -> bool {
    let chain = netns.output("nft", &TABLE);
    chain.is_ok_and(|chain| chain.contains(&format!("udp dport {TUNNEL_PORT} drop")))
}

/// Packets that have come into a container; a merged one is one.
fn received(container: &Container) -> u64 {
    let shown = container.netns.output("ip", &["-json", "-s", "link", "show", "eth0"]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

#[test]
fn bare_packets_are_merged_where_the_kernel_has_fou() {
    if !kernel_has_fou() {
        return;
    }
    let families = [(Family::V4, Outer::V4), (Family::V6, Outer::V6)];
    for (family, outer) in families.into_iter().take(if kernel_has_ipv6() { 2 } else { 1 }) {
        let mut underlay = Underlay::of(family, 2);
        let client = underlay.nodes[0].container(2);
        let server = underlay.nodes[1].container(2);
        publish_instances(&mut underlay.nodes, &[&client, &server]);
        echo(&server);
        // As NICs without tunnel offload. A veth merges only what comes from a peer that cuts.
        for node in &underlay.nodes {
            node.netns.output("ethtool", &["-K", "up0", "gro", "on", "tso", "off", "gso", "off"]).unwrap();
            let port = format!("port{}", node.number);
            underlay.switch.output("ethtool", &["-K", &port, "tso", "off"]).unwrap();
        }
        let mut stream = connect(&client, server.backend.instance_ip);
        let mut packets = || {
            let before = received(&server);
            exchange(&mut stream, 64);
            received(&server) - before
        };
        let single = packets();
        let mut lives: Vec<_> = underlay.nodes.iter().map(|_| Merging::default()).collect();
        for (node, life) in underlay.nodes.iter().zip(&mut lives) {
            assert!(keep(&node.netns, life, outer).unwrap());
        }
        let merged = packets();
        assert!(merged * 2 < single, "{merged} packets instead of {single}, {outer:?}");
        for node in &underlay.nodes {
            assert_eq!(node.datapath.counters().unwrap().drops, []);
        }
        for (node, life) in underlay.nodes.iter().zip(&mut lives) {
            within(&node.netns, async || life.end(TUNNEL_PORT).await).unwrap();
            assert!(!life.is_on() && !listens(&node.netns) && !is_closed(&node.netns));
        }
        assert!(packets() > merged * 2);
    }
}

#[test]
fn a_later_life_takes_the_port_over_and_another_family_and_leaves_others_alone() {
    if !kernel_has_fou() {
        return;
    }
    let netns = Netns::new("lives").unwrap();
    let is_there = || (listens(&netns), is_closed(&netns));
    // What crashes takes nothing away.
    for _ in 0..2 {
        assert!(keep(&netns, &mut Merging::default(), Outer::V4).unwrap());
        assert_eq!(is_there(), (true, true));
    }
    let mut life = Merging::default();
    assert!(keep(&netns, &mut life, Outer::V4).unwrap());
    netns.output("nft", &["flush", "ruleset"]).unwrap();
    netns.output("ip", &["fou", "del", "port", &TUNNEL_PORT.to_string()]).unwrap();
    assert!(keep(&netns, &mut life, Outer::V4).unwrap());
    assert_eq!(is_there(), (true, true), "it is mended");
    if kernel_has_ipv6() {
        assert!(keep(&netns, &mut life, Outer::V6).unwrap());
        assert_eq!(is_there(), (true, true));
        netns.run(|| UdpSocket::bind(("0.0.0.0", TUNNEL_PORT))).unwrap().expect("that of IPv4 is gone");
    }
    assert_eq!(remove(&netns).len(), 2);
    assert_eq!(is_there(), (false, false));
    assert_eq!(remove(&netns), [""; 0]);

    // Somebody's own, which has another protocol inside, and a process that listens.
    let theirs = format!("fou add port {TUNNEL_PORT} ipproto 47");
    netns.ip(&theirs).unwrap();
    let refused = |life: &mut Merging| {
        let error = keep(&netns, life, Outer::V4).unwrap_err();
        assert!(netmanager::error::chain(&error).contains("in use"), "{error:?}");
        assert!(!life.is_on() && !is_closed(&netns));
    };
    refused(&mut Merging::default());
    assert_eq!(remove(&netns), [""; 0]);
    netns.ip(&theirs.replace("add", "del")).unwrap();
    let _theirs = netns.run(|| UdpSocket::bind(("0.0.0.0", TUNNEL_PORT))).unwrap().unwrap();
    refused(&mut Merging::default());
}

/// A node with FOU on the tunnel's port, between two strangers.
#[derive(Debug)]
struct Strangers {
    node: Netns,
    left: Netns,
    right: Netns,
    merging: Merging,
}

impl Strangers {
    fn new() -> Self {
        let [node, left, right] = ["node", "left", "right"].map(|label| Netns::new(label).unwrap());
        for (stranger, number) in [(&left, 1), (&right, 2)] {
            let link = format!("to{number}");
            join((stranger, "up0"), (&node, &link)).unwrap();
            stranger.ip(&format!("addr add 192.0.{number}.7/24 dev up0")).unwrap();
            stranger.ip(&format!("route add default via 192.0.{number}.1")).unwrap();
            node.ip(&format!("addr add 192.0.{number}.1/24 dev {link}")).unwrap();
        }
        sysctl(&node, "net.ipv4.ip_forward=1");
        let mut merging = Merging::default();
        assert!(keep(&node, &mut merging, Outer::V4).unwrap());
        Self { node, left, right, merging }
    }
}

/// What FOU unwraps is taken by a tunnel device that somebody has made for something else, and goes on from there past the
/// firewall, with any address that its sender likes.
#[test]
fn what_strangers_send_to_the_socket_of_fou_goes_nowhere() {
    if !kernel_has_fou() {
        return;
    }
    let mut bed = Strangers::new();
    bed.node.ip("link add theirs type ipip external").unwrap();
    bed.node.ip("link set theirs up").unwrap();
    for device in ["all", "theirs"] {
        sysctl(&bed.node, &format!("net.ipv4.conf.{device}.rp_filter=0"));
    }
    let listener = bed.node.run(|| UdpSocket::bind(("192.0.1.1", 7777))).unwrap().unwrap();
    listener.set_read_timeout(Some(SOON)).unwrap();
    let mut smuggled = Vec::new();
    let inner = PacketBuilder::ipv4([198, 51, 100, 7], [192, 0, 1, 1], 64).udp(7777, 7777);
    inner.write(&mut smuggled, b"past the firewall").unwrap();
    // A process of the node, and somebody on its network.
    let senders = [(&bed.node, "127.0.0.1"), (&bed.left, "192.0.1.1")]
        .map(|(netns, to)| (netns.run(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap().unwrap(), to));
    let arrives = |(sender, to): &(UdpSocket, &str)| {
        sender.send_to(&smuggled, (*to, TUNNEL_PORT)).unwrap();
        // Overtaken by nothing.
        sender.send_to(b"by the front door", ("192.0.1.1", 7777)).unwrap();
        let mut buffer = [0; 64];
        let mut next = || {
            let length = listener.recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        };
        let first = next();
        if first == b"by the front door" {
            return false;
        }
        assert_eq!((first, next()), (b"past the firewall".to_vec(), b"by the front door".to_vec()));
        true
    };
    assert_eq!(senders.each_ref().map(arrives), [false; 2]);
    // It is the rule that keeps them away.
    bed.node.output("nft", &["flush", "chain", "inet", "hypha-fou", "input"]).unwrap();
    assert_eq!(senders.each_ref().map(arrives), [true; 2]);
    assert!(keep(&bed.node, &mut bed.merging, Outer::V4).unwrap());
    assert_eq!(senders.each_ref().map(arrives), [false; 2]);
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn what_the_node_forwards_between_others_is_let_by() {
    if !kernel_has_fou() {
        return;
    }
    let bed = Strangers::new();
    assert!(listens(&bed.node) && is_closed(&bed.node));
    let receiver = bed.right.run(|| UdpSocket::bind(("192.0.2.7", TUNNEL_PORT))).unwrap().unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let sender = bed.left.run(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap().unwrap();
    let mut bare = Vec::new();
    let inner = PacketBuilder::ipv4([10, 18, 1, 2], [10, 18, 2, 2], 64).udp(7777, 7777);
    inner.write(&mut bare, b"from one node to another").unwrap();
    for payload in [&bare[..], b"no packet at all"] {
        sender.send_to(payload, ("192.0.2.7", TUNNEL_PORT)).unwrap();
        let mut buffer = [0; 100];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], payload);
    }
}

/// A node whose daemon lives several times.
#[derive(Debug)]
struct Lives {
    netns: Netns,
    folder: tempfile::TempDir,
    pins: Pins,
}

impl Lives {
    fn paths(&self) -> Paths {
        let folder = self.folder.path();
        Paths {
            socket: folder.join("socket"),
            state_dir: folder.join("state"),
            bpffs: self.pins.path().to_owned(),
        }
    }

    fn config(&self, link: &str) -> Config {
        let file = self.folder.path().join("netcfg.json");
        let text = json!({
            "NodePublicAddress": "0.0.0.0", "NodePublicPort": TUNNEL_PORT.to_string(), "ClusterUrl": "0.0.0.0",
            "ClusterMqttPort": "10003", "DefaultInterface": "up0", "Link": link,
        });
        fs::write(&file, text.to_string()).unwrap();
        Config::read(&file).unwrap()
    }

    /// Lives, does `work` and crashes.
    fn live(&self, link: &str, choice: Choice, work: impl AsyncFnOnce(Node) + Send) {
        let (config, paths) = (self.config(link), self.paths());
        within(&self.netns, async || {
            let store = Store::open(&paths.state_dir).unwrap();
            let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
            let node = Node::open(config, store, &paths.bpffs, choice, tasks, stop).await.unwrap();
            work(node).await;
        });
    }

    /// What `netmanager status` says that the kernel merges.
    fn merges(&self) -> serde_json::Value {
        let (paths, mut said) = (self.paths(), Vec::new());
        within(&self.netns, async || status::run(&paths, Format::Json, &mut said).await).unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
        said["unwrapping"][0]["merges"].clone()
    }

    fn has_vxlan(&self) -> bool {
        self.netns.output("ip", &["link", "show", "hymerge"]).is_ok()
    }

    /// Whether FOU listens, whether the port is closed to others, and whether VXLAN has it.
    fn state(&self) -> (bool, bool, bool) {
        (listens(&self.netns), is_closed(&self.netns), self.has_vxlan())
    }
}

#[test]
fn a_node_lends_the_port_to_fou_where_it_offers_no_vxlan() {
    const FOU: (bool, bool, bool) = (true, true, false);
    if !kernel_has_fou() {
        return;
    }
    let (netns, switch) = (Netns::new("node").unwrap(), Netns::new("switch").unwrap());
    join((&netns, "up0"), (&switch, "port1")).unwrap();
    netns.ip("addr add 192.0.2.1/24 dev up0").unwrap();
    let lives = Lives { netns, folder: tempfile::tempdir().unwrap(), pins: Pins::new() };
    let ends = async |_node: Node| {};
    for _ in 0..2 {
        lives.live("bare", Choice::Ebpf, ends);
        assert_eq!(lives.state(), FOU);
    }
    assert_eq!(lives.merges(), json!(["bare"]));
    lives.live("auto", Choice::Ebpf, ends);
    assert_eq!(lives.state(), (false, false, true));
    assert_eq!(lives.merges(), json!(["vx"]));
    lives.live("bare", Choice::Ebpf, async |node| {
        assert_eq!(lives.state(), FOU);
        let (_commands, queue) = mpsc::channel(1);
        let running = tokio::spawn(node.run(queue));
        lives.netns.output("nft", &["flush", "ruleset"]).unwrap();
        tokio::time::timeout(SOON, async {
            while lives.state() != FOU {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await
        .expect("the rule is put back");
        running.abort();
    });
    // It needs the port for sockets of its own.
    lives.live("bare", Choice::Userspace, ends);
    assert_eq!(lives.state(), (false, false, false));
    lives.live("bare", Choice::Ebpf, ends);
    assert_eq!(lives.state(), FOU);
    let paths = lives.paths();
    let mut said = Vec::new();
    within(&lives.netns, async || cleanup::run(&paths, &mut said).await).unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("FOU listened on port 50103") && said.contains("table inet hypha-fou"), "{said}");
    assert_eq!(lives.state(), (false, false, false));
    assert!(!Path::new(&paths.state_dir).exists());
}
