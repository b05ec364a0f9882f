//! Nodes with several uplinks, without a default route, and with one that moves.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use integration::netns::connect;
use integration::{Netns, eventually};
use serde_json::{Value, json};

use crate::bed::{Bed, Container, NODE, NODE_ADDRESS, config, ip_json, write_config};
use crate::cluster::{self, WEB_ADDRESS};
use crate::neighbour::{FAR, Neighbour};
use crate::stream::{Bulk, Numbered};
use crate::talk::{ask_by_tcp, ask_by_udp, ping, serve};

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
    let bed = Bed::registered()?;
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
    let hooks = bed.status()?["hooks"].clone();
    let at =
        |name: &str| hooks.as_array().is_some_and(|hooks| hooks.iter().any(|hook| hook["interface"] == name));
    ensure!(at("up0") && at("far0"), "{hooks}");
    Ok(())
}

/// No interface of the node is known to lead to nodes but by a route, and nobody on it is known when its packet comes.
#[test]
fn a_stranger_is_heard_at_any_interface_that_leads_on() -> Result<()> {
    let bed = Bed::registered()?;
    control(&bed).ip(&format!("route add 203.0.113.0/24 via {NODE_ADDRESS}"))?;
    let far = Neighbour::behind(&bed, &bed.node)?;
    bed.node.ip(&format!("route add 198.51.100.0/24 via {FAR}"))?;
    let (here, at_far) = (Container::new("here")?, Container::new("far")?);
    bed.attached(&here, 3)?;
    far.serve_as(&bed, &at_far, SERVICE, 5)?;
    serve(&here.netns)?;
    eventually(SOON, "the interface to be an uplink", || {
        let hooks = bed.status()?["hooks"].clone();
        let is = hooks.as_array().is_some_and(|hooks| hooks.iter().any(|hook| hook["interface"] == "far0"));
        if is { Ok(()) } else { Err(anyhow!("{hooks}")) }
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

impl TwoWays {
    fn start(public: &str) -> Result<Self> {
        let mut settings = config();
        settings["NodePublicAddress"] = json!(public);
        let bed = Bed::start_with(&settings, 1500)?;
        let (status, said) = bed.register(NODE)?;
        ensure!(status == 200, "register: {status} {said}");
        let control = control(&bed);
        let far = Neighbour::behind(&bed, &control)?;
        connect((&bed.node, "up1"), (&control, "second0"))?;
        control.ip("addr add 198.51.100.20/24 dev second0")?;
        bed.node.ip("addr add 198.51.100.31/24 dev up1")?;
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
    let TwoWays { bed, far, client, server } = TwoWays::start(&NODE_ADDRESS.to_string())?;
    let datagrams = Numbered::start(&client.netns, &server.netns)?;
    let mut bulk = Bulk::start(&client.netns, &server.netns)?;
    wait_until_used(&bed.node, "up0")?;
    // A better one comes, and then the first one goes.
    bed.node.ip("route add default via 198.51.100.20 dev up1 metric 5")?;
    bed.node.ip(&format!("route add default via {} dev up0 metric 10", cluster::ADDRESS))?;
    bed.node.ip(&format!("route del default via {} dev up0 metric 0", cluster::ADDRESS))?;
    wait_until_used(&bed.node, "up1")?;
    datagrams.expect_none_lost()?;
    bed.node.ip("route del default dev up0")?;
    wait_until_used(&bed.node, "up1")?;
    datagrams.expect_none_lost()?;
    // And back.
    bed.node.ip(&format!("route add default via {} dev up0", cluster::ADDRESS))?;
    wait_until_used(&bed.node, "up0")?;
    datagrams.expect_none_lost()?;
    bulk.expect_running()?;
    bulk.finish()?;
    datagrams.finish()?;
    assert_eq!(uplink(&bed)?["address"], NODE_ADDRESS.to_string(), "what others are told stays");
    for status in [bed.status()?, far.status()?] {
        assert_eq!(status["drops"], json!([]));
    }
    Ok(())
}

#[test]
fn connections_outlive_a_default_route_that_gives_the_node_another_address() -> Result<()> {
    let TwoWays { bed, far, client, server } = TwoWays::start("0.0.0.0")?;
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
