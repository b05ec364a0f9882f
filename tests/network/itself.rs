//! The node's own processes: they reach services, here and on another node, and are reached by nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use integration::{eventually, process};
use serde_json::json;

use crate::bed::{Bed, Container, NODE, config, ip_json};
use crate::neighbour::Neighbour;
use crate::stream::Numbered;
use crate::talk::{PORT, ask_by_tcp, ask_by_udp, ping, serve};
use integration::cluster::WEB_ADDRESS;

const PATIENCE: Duration = Duration::from_secs(10);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 18, 0, 126);
/// The instance on the node itself, by its number 5, and the service on the other node.
const HERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 30, 0, 5)), IpAddr::V6(Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 5))];
const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V4(WEB_ADDRESS), IpAddr::V6(Ipv6Addr::new(0xfdff, 0x2000, 0, 0, 0, 0, 0, 2))];

/// A node with a server, and another node with one.
struct Pair {
    bed: Bed,
    neighbour: Neighbour,
    here: Container,
    elsewhere: Container,
}

impl Pair {
    fn start() -> Result<Self> {
        Self::start_with("ebpf")
    }

    /// With this data plane on the node, and the usual one on the other.
    fn start_with(datapath: &str) -> Result<Self> {
        let mut config = config();
        config["Datapath"] = json!(datapath);
        let bed = Bed::start_with(&config, 1500)?;
        let (status, said) = bed.register(NODE)?;
        ensure!(status == 200, "register: {status} {said}");
        let neighbour = Neighbour::join(&bed)?;
        let (here, elsewhere) = (Container::new("here")?, Container::new("elsewhere")?);
        bed.attached(&here, 5)?;
        neighbour.serve(&bed, &elsewhere)?;
        serve(&here.netns)?;
        serve(&elsewhere.netns)?;
        Ok(Self { bed, neighbour, here, elsewhere })
    }
}

fn service_routes(bed: &Bed) -> Result<usize> {
    let both = [ip_json(&bed.node, &["-4", "route"])?, ip_json(&bed.node, &["-6", "route"])?].concat();
    let through = both.iter().filter(|route| route["dev"] == "hynode0");
    Ok(through.filter(|route| route["dst"] == "10.30.0.0/16" || route["dst"] == "fdff::/16").count())
}

#[test]
fn processes_of_the_node_reach_services_on_it_and_on_another_one_by_both_ip_versions() -> Result<()> {
    for datapath in ["ebpf", "userspace"] {
        reach_services(datapath).with_context(|| datapath.to_owned())?;
    }
    Ok(())
}

fn reach_services(datapath: &str) -> Result<()> {
    let Pair { bed, neighbour, here: _here, elsewhere: _elsewhere } = Pair::start_with(datapath)?;
    let own = [OWN.to_string(), "fc00::13e".to_owned()];
    for addresses in [HERE, ELSEWHERE] {
        for (address, own) in addresses.into_iter().zip(&own) {
            let seen = ask_by_tcp(&bed.node, address).with_context(|| format!("by TCP to {address}"))?;
            assert_eq!(seen, *own, "{address}");
            let seen = ask_by_udp(&bed.node, address).with_context(|| format!("by UDP to {address}"))?;
            assert_eq!(seen, *own, "{address}");
            ping(&bed.node, address)?;
        }
    }
    // The other node asked whose address that is, once, and no packet was lost meanwhile.
    let asked = bed.cluster.heard("tablequery/request", |query| query["sip"] == OWN.to_string());
    assert_eq!(asked, 1, "{:?}", bed.cluster.knows().heard);
    for status in [bed.status()?, neighbour.status()?] {
        assert_eq!(status["drops"], json!([]));
    }
    assert_eq!(bed.status()?["own_ns_ip"], OWN.to_string());
    Ok(())
}

#[test]
fn flows_of_the_node_s_processes_outlive_netmanager_and_cleanup_takes_their_way_away() -> Result<()> {
    let Pair { mut bed, neighbour: _neighbour, here: _here, elsewhere } = Pair::start()?;
    // Both nodes know of each other from then on.
    assert_eq!(ask_by_tcp(&bed.node, ELSEWHERE[0])?, OWN.to_string());
    let datagrams = Numbered::start(&bed.node, &elsewhere.netns)?;
    for _ in 0..2 {
        bed.netmanager.kill()?;
        datagrams.expect_none_lost()?;
        bed.netmanager.start_again()?;
        bed.wait_until_ready()?;
        datagrams.expect_none_lost()?;
    }
    datagrams.finish()?;
    assert_eq!(ask_by_tcp(&bed.node, HERE[1])?, "fc00::13e");
    assert_eq!(service_routes(&bed)?, 2);

    bed.netmanager.terminate()?;
    process::output(&mut bed.command("cleanup")?)?;
    assert_eq!(service_routes(&bed)?, 0);
    let links = ip_json(&bed.node, &["link"])?;
    assert!(links.iter().all(|link| !link["ifname"].to_string().contains("hynode")), "{links:?}");
    Ok(())
}

#[test]
fn the_node_s_own_link_is_made_again_when_somebody_has_changed_it() -> Result<()> {
    let Pair { bed, neighbour: _neighbour, here: _here, elsewhere: _elsewhere } = Pair::start()?;
    for change in [
        "link delete hynode0",
        "route delete 10.30.0.0/16",
        "addr flush dev hynode0",
        "link set hynode1 down",
    ] {
        bed.node.ip(change)?;
        eventually(Duration::from_secs(30), &format!("services to be reached after {change}"), || {
            ensure!(service_routes(&bed)? == 2, "no routes");
            ping(&bed.node, ELSEWHERE[0])?;
            ping(&bed.node, HERE[1])
        })?;
    }
    Ok(())
}

#[test]
fn nobody_reaches_the_node_s_listening_ports_by_its_ns_ip() -> Result<()> {
    for datapath in ["ebpf", "userspace"] {
        is_reached_by_nobody(datapath).with_context(|| datapath.to_owned())?;
    }
    Ok(())
}

fn is_reached_by_nobody(datapath: &str) -> Result<()> {
    let Pair { bed, neighbour, here, elsewhere } = Pair::start_with(datapath)?;
    serve(&bed.node)?;
    // Its answers find the node by now, so that nothing but the rule is in the way.
    assert_eq!(ask_by_tcp(&bed.node, ELSEWHERE[0])?, OWN.to_string());
    assert_eq!(ask_by_tcp(&bed.node, HERE[0])?, OWN.to_string());
    for from in [&here.netns, &elsewhere.netns, &neighbour.node] {
        for own in [IpAddr::V4(OWN), IpAddr::V6("fc00::13e".parse()?)] {
            let target = SocketAddr::new(own, PORT);
            let dialled = from.run(|| TcpStream::connect_timeout(&target, Duration::from_millis(500)))?;
            ensure!(dialled.is_err(), "{own} was reached from {}", from.name());
        }
    }
    // But the node itself, to which it is an address as any other.
    assert_eq!(ask_by_tcp(&bed.node, OWN.into())?, OWN.to_string());
    Ok(())
}

#[test]
fn a_node_that_moves_tells_those_who_answer_its_processes() -> Result<()> {
    let Pair { bed, neighbour, here: _here, elsewhere: _elsewhere } = Pair::start()?;
    assert_eq!(ask_by_tcp(&bed.node, ELSEWHERE[0])?, OWN.to_string());
    bed.node.ip("-4 addr flush dev up0")?;
    bed.node.ip("addr add 192.0.2.41/24 dev up0")?;
    bed.node.ip(&format!("route add default via {}", integration::cluster::ADDRESS))?;
    // The session was from the old address, and ends first.
    eventually(Duration::from_secs(60), "the node to tell its new address", || {
        let moved = bed.cluster.heard("net/host", |itself| itself["host_ip"] == "192.0.2.41");
        ensure!(moved > 0, "not yet");
        Ok(())
    })?;
    // As the cluster does for those who have asked.
    let answer = json!({"app_name": "", "query_key": OWN, "instance_list": [{"instance_number": 0,
        "namespace_ip": OWN, "namespace_ip_v6": "fc00::13e", "host_ip": "192.0.2.41", "host_port": 50103}]});
    bed.cluster.say("nodes/6b033dc62c1f07cbdcd88441/net/tablequery/result", answer.to_string())?;
    eventually(PATIENCE, "the server's node to answer the new address", || {
        let peers = neighbour.status()?["peers"].clone();
        let is_new =
            peers.as_array().is_some_and(|peers| peers.iter().any(|peer| peer["node"] == "192.0.2.41:50103"));
        if is_new { Ok(()) } else { Err(anyhow!("{peers}")) }
    })?;
    assert_eq!(ask_by_tcp(&bed.node, ELSEWHERE[0])?, OWN.to_string());
    Ok(())
}
