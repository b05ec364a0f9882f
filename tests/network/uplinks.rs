//! Nodes with several uplinks, without a default route, and with one that moves.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use integration::netns::connect;
use integration::{Netns, eventually};
use serde_json::{Value, json};

use crate::bed::{Bed, Container, NODE, NODE_ADDRESS, NODE_ADDRESS6, config, ip_json, write_config};
use crate::neighbour::{FAR, FAR6, Neighbour};
use crate::stream::{Bulk, Numbered};
use crate::talk::{ask_by_tcp, ask_by_udp, ping, serve};
use integration::cluster::{self, WEB_ADDRESS};

const SOON: Duration = Duration::from_secs(30);
const SERVICE: &str = crate::bed::SERVICE;

fn instance(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 30, 0, number).into()
}

/// The network of the cluster's machine, which routes between all others.
fn control(bed: &Bed) -> Arc<Netns> {
    Arc::clone(&bed.cluster.broker.recipe().netns)
}

fn sent(netns: &Netns, link: &str) -> Result<u64> {
    let shown = ip_json(netns, &["-s", "link", "show", "dev", link])?;
    shown[0]["stats64"]["tx"]["packets"].as_u64().with_context(|| format!("no count in {shown:?}"))
}

/// Waits until more packets leave through this link.
fn wait_until_used(netns: &Netns, link: &str) -> Result<()> {
    let before = sent(netns, link)?;
    eventually(SOON, &format!("packets to leave through {link}"), || {
        let now = sent(netns, link)?;
        if now > before + 200 { Ok(()) } else { Err(anyhow!("{before}, now {now}")) }
    })
}

fn uplink(bed: &Bed) -> Result<Value> {
    Ok(bed.status()?["uplink"].clone())
}

#[test]
fn a_node_reaches_some_nodes_through_one_interface_and_others_through_another() -> Result<()> {
    reach_nodes_through_two_interfaces("ebpf")
}

#[test]
fn a_node_reaches_nodes_through_several_interfaces_without_bpf_too() -> Result<()> {
    reach_nodes_through_two_interfaces("userspace")
}

fn reach_nodes_through_two_interfaces(datapath: &str) -> Result<()> {
    let bed = registered(datapath)?;
    let near = Neighbour::join(&bed)?;
    // The far one is behind the node itself, by a cable of its own, and the rest of the world by that node.
    let far = {
        control(&bed).ip(&format!("route add 203.0.113.0/24 via {NODE_ADDRESS}"))?;
        control(&bed).output("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
        Neighbour::behind(&bed, &bed.node)?
    };
    let (here, at_near, at_far) = (Container::new("here")?, Container::new("near")?, Container::new("far")?);
    bed.attached(&here, 3)?;
    near.serve_as(&bed, &at_near, SERVICE, 4)?;
    far.serve_as(&bed, &at_far, SERVICE, 5)?;
    for container in [&here, &at_near, &at_far] {
        serve(&container.netns)?;
    }
    // Whoever begins: the node knows the far one by then, or hears of it by the packet itself.
    for (from, own, to) in [(&here, 3, 4), (&here, 3, 5), (&at_near, 4, 3), (&at_far, 5, 3), (&at_far, 5, 4)]
    {
        assert_eq!(ask_by_tcp(&from.netns, instance(to))?, instance(own).to_string());
        assert_eq!(ask_by_udp(&from.netns, instance(to))?, instance(own).to_string());
        ping(&from.netns, instance(to))?;
    }
    for status in [bed.status()?, near.status()?, far.status()?] {
        assert_eq!(status["drops"], json!([]));
    }
    if datapath == "ebpf" {
        let hooks = bed.status()?["hooks"].clone();
        let at = |name: &str| {
            hooks.as_array().is_some_and(|hooks| hooks.iter().any(|hook| hook["interface"] == name))
        };
        ensure!(at("up0") && at("far0"), "{hooks}");
    }
    Ok(())
}

/// A node with this data plane.
fn registered(datapath: &str) -> Result<Bed> {
    let mut settings = config();
    settings["Datapath"] = json!(datapath);
    let bed = Bed::start_with(&settings, 1500)?;
    let (status, said) = bed.register(NODE)?;
    ensure!(status == 200, "register: {status} {said}");
    Ok(bed)
}

/// No interface of the node is known to lead to nodes but by a route, and nobody on it is known when its packet comes.
#[test]
fn a_stranger_is_heard_at_any_interface_that_leads_on() -> Result<()> {
    hear_a_stranger("ebpf")
}

#[test]
fn a_stranger_is_heard_at_any_interface_without_bpf_too() -> Result<()> {
    hear_a_stranger("userspace")
}

fn hear_a_stranger(datapath: &str) -> Result<()> {
    let bed = registered(datapath)?;
    control(&bed).ip(&format!("route add 203.0.113.0/24 via {NODE_ADDRESS}"))?;
    let far = Neighbour::behind(&bed, &bed.node)?;
    bed.node.ip(&format!("route add 198.51.100.0/24 via {FAR}"))?;
    let (here, at_far) = (Container::new("here")?, Container::new("far")?);
    bed.attached(&here, 3)?;
    far.serve_as(&bed, &at_far, SERVICE, 5)?;
    serve(&here.netns)?;
    eventually(SOON, "the interface to be an uplink", || {
        let shown = if datapath == "ebpf" {
            let hooks = bed.status()?["hooks"].clone();
            let hooks = hooks.as_array().into_iter().flatten();
            hooks.filter(|hook| hook["interface"] == "far0").count() > 0
        } else {
            let index = ip_json(&bed.node, &["link", "show", "dev", "far0"])?[0]["ifindex"].clone();
            let guard =
                bed.node.output("nft", &["-n", "list", "chain", "inet", "hypha-guard", "prerouting"])?;
            guard.contains("far0") || guard.contains(&index.to_string())
        };
        ensure!(shown, "it is none");
        Ok(())
    })?;
    assert_eq!(ask_by_tcp(&at_far.netns, instance(3))?, instance(5).to_string());
    Ok(())
}

#[test]
fn without_any_default_route_the_uplink_is_found_and_connections_go_on() -> Result<()> {
    let mut bed = Bed::registered()?;
    let neighbour = Neighbour::join(&bed)?;
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    neighbour.serve(&bed, &server)?;
    // A second interface that could be meant as well.
    bed.node.ip("link add other0 type bridge")?;
    bed.node.ip("link set other0 up")?;
    bed.node.ip("addr add 198.51.100.31/24 dev other0")?;
    let datagrams = Numbered::start(&client.netns, &server.netns)?;
    bed.node.ip("route del default")?;
    bed.node.ip("-6 route del default")?;
    datagrams.expect_none_lost()?;
    // Once by the way to the cluster, which it remembers, and once by its own address.
    for public in ["0.0.0.0".to_owned(), NODE_ADDRESS.to_string()] {
        let mut config = config();
        config["NodePublicAddress"] = json!(public);
        write_config(&bed.places, &config)?;
        bed.netmanager.terminate()?;
        bed.netmanager.start_again()?;
        bed.wait_until_ready()?;
        assert_eq!(uplink(&bed)?["name"], "up0", "{public}");
        datagrams.expect_none_lost()?;
    }
    datagrams.finish()?;
    Ok(())
}

/// The node has two ways to the far one, by two networks of the control machine; its address is of the first.
struct TwoWays {
    bed: Bed,
    far: Neighbour,
    client: Container,
    server: Container,
}

/// How nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Underlay {
    V4,
    V6,
}

impl Underlay {
    /// The ways out by the first and the second network, as `ip route` takes them.
    fn ways(self) -> [String; 2] {
        match self {
            Self::V4 => [format!("via {} dev up0", cluster::ADDRESS), "via 198.51.100.20 dev up1".to_owned()],
            Self::V6 => {
                [format!("via {} dev up0", cluster::ADDRESS6), "via 2001:db8:2::20 dev up1".to_owned()]
            }
        }
    }

    fn address(self) -> IpAddr {
        match self {
            Self::V4 => NODE_ADDRESS.into(),
            Self::V6 => NODE_ADDRESS6.into(),
        }
    }

    fn far_address(self) -> IpAddr {
        match self {
            Self::V4 => FAR.into(),
            Self::V6 => FAR6.into(),
        }
    }

    fn ip(self, node: &Netns, command: &str) -> Result<()> {
        node.ip(&if self == Self::V4 { command.to_owned() } else { format!("-6 {command}") })
    }
}

impl TwoWays {
    /// Of nodes with this data plane, which are told these addresses of theirs, or find them.
    fn start(datapath: &str, addresses: Option<Underlay>) -> Result<Self> {
        let settings = |address: Option<IpAddr>| {
            let mut settings = config();
            settings["Datapath"] = json!(datapath);
            if let Some(address) = address {
                settings["NodePublicAddress"] = json!(address);
            }
            settings
        };
        let bed = Bed::start_with(&settings(addresses.map(Underlay::address)), 1500)?;
        let (status, said) = bed.register(NODE)?;
        ensure!(status == 200, "register: {status} {said}");
        let control = control(&bed);
        let far = Neighbour::behind_with(&bed, &control, &settings(addresses.map(Underlay::far_address)))?;
        // As in `Neighbour::behind`.
        bed.node.output("sysctl", &["-qw", "net.ipv6.conf.default.accept_dad=0"])?;
        connect((&bed.node, "up1"), (&control, "second0"))?;
        control.ip("addr add 198.51.100.20/24 dev second0")?;
        control.ip("addr add 2001:db8:2::20/64 dev second0 nodad")?;
        bed.node.ip("addr add 198.51.100.31/24 dev up1")?;
        bed.node.ip("addr add 2001:db8:2::31/64 dev up1 nodad")?;
        // Packets of either network come in by the cable where their answer does not go.
        control.output(
            "sysctl",
            &["-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.second0.rp_filter=0"],
        )?;
        let (client, server) = (Container::new("client")?, Container::new("server")?);
        bed.attached(&client, 0)?;
        far.serve(&bed, &server)?;
        Ok(Self { bed, far, client, server })
    }
}

#[test]
fn warm_flows_move_with_the_default_route_and_no_datagram_is_lost() -> Result<()> {
    move_the_default_route("ebpf", Underlay::V4)
}

/// Over IPv6 the kernel does not insist on the interface that the program names: until netmanager has heard of the route,
/// packets wait there for the MAC of a gateway that is elsewhere.
#[test]
fn connections_move_with_the_default_route_of_ipv6() -> Result<()> {
    move_the_default_route("ebpf", Underlay::V6)
}

#[test]
fn warm_flows_move_with_the_default_route_without_bpf_too() -> Result<()> {
    move_the_default_route("userspace", Underlay::V4)?;
    move_the_default_route("userspace", Underlay::V6)
}

fn move_the_default_route(datapath: &str, underlay: Underlay) -> Result<()> {
    let TwoWays { bed, far, client, server } = TwoWays::start(datapath, Some(underlay))?;
    let ip = |command: &str| underlay.ip(&bed.node, command);
    let [first, second] = underlay.ways();
    let datagrams = Numbered::start(&client.netns, &server.netns)?;
    let expect_no_loss = || match (datapath, underlay) {
        ("ebpf", Underlay::V6) => datagrams.expect_to_go_on(),
        _ => datagrams.expect_none_lost(),
    };
    let mut bulk = Bulk::start(&client.netns, &server.netns)?;
    wait_until_used(&bed.node, "up0")?;
    datagrams.expect_none_lost()?;
    // A better one comes, and then the first one goes.
    ip(&format!("route add default {second} metric 5"))?;
    ip(&format!("route add default {first} metric 10"))?;
    ip(&format!("route del default {first} metric {}", if underlay == Underlay::V4 { 0 } else { 1024 }))?;
    wait_until_used(&bed.node, "up1")?;
    expect_no_loss()?;
    ip("route del default dev up0")?;
    wait_until_used(&bed.node, "up1")?;
    expect_no_loss()?;
    // And back.
    ip(&format!("route add default {first} metric 1"))?;
    wait_until_used(&bed.node, "up0")?;
    expect_no_loss()?;
    bulk.expect_running()?;
    bulk.finish()?;
    assert_eq!(uplink(&bed)?["address"], underlay.address().to_string(), "what others are told stays");
    for status in [bed.status()?, far.status()?] {
        assert_eq!(status["drops"], json!([]));
        assert_eq!(status["mode"], datapath);
    }
    Ok(())
}

#[test]
fn connections_outlive_a_default_route_that_gives_the_node_another_address() -> Result<()> {
    let TwoWays { bed, far, client, server } = TwoWays::start("ebpf", None)?;
    let mut bulk = Bulk::start(&client.netns, &server.netns)?;
    wait_until_used(&bed.node, "up0")?;
    bed.node.ip("route replace default via 198.51.100.20 dev up1")?;
    eventually(SOON, "the far node to know the new address", || {
        let peers = far.status()?["peers"].clone();
        let knows = |peers: &Vec<Value>| peers.iter().any(|peer| peer["node"] == "198.51.100.31:50103");
        if peers.as_array().is_some_and(knows) { Ok(()) } else { Err(anyhow!("{peers}")) }
    })?;
    wait_until_used(&bed.node, "up1")?;
    wait_until_used(&far.node, "up0")?;
    bulk.expect_running()?;
    let bytes = bulk.finish()?;
    ensure!(bytes > 0, "nothing was sent");
    ping(&client.netns, WEB_ADDRESS.into())?;
    ping(&client.netns, instance(1))?;
    Ok(())
}
