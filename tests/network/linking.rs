//! How nodes wrap packets to each other: as the receiver has asked for.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use etherparse::PacketBuilder;
use integration::capture::{Capture, TunnelPacket};
use integration::{Netns, eventually};
use protocol::port::TUNNEL;
use serde_json::json;

use crate::bed::{Bed, Container, config, ip_json, write_config};
use crate::neighbour::Neighbour;
use crate::stream::Numbered;

const SOON: Duration = Duration::from_secs(20);
const DEVICE: &str = "hymerge";

/// That the kernel listens there makes it merge packets.
fn listens(node: &Netns) -> Result<bool> {
    Ok(node.output("ip", &["-d", "link", "show"])?.contains(&format!("dstport {TUNNEL}")))
}

/// From now on the node's link carries packets of the wire's size, as most NICs do.
fn cut_packets(node: &Netns) -> Result<()> {
    node.output("ethtool", &["-K", "up0", "tso", "off", "gso", "off"]).map(drop)
}

/// Waits until both nodes send each other packets wrapped like that, and looks at some.
fn wait_for(bed: &Bed, neighbour: &Neighbour, is_vx: bool) -> Result<()> {
    eventually(SOON, "the nodes to agree", || {
        let vx = [bed.status()?, neighbour.status()?].map(|status| status["peers"][0]["vx"].clone());
        if vx == [json!(is_vx), json!(is_vx)] { Ok(()) } else { Err(anyhow!("{vx:?}")) }
    })?;
    let file = bed.places.folder().join(format!("{is_vx}.pcap"));
    let capture = Capture::start(&bed.node, "up0", &format!("udp port {TUNNEL}"), file)?;
    let to_server = |packets: &[TunnelPacket]| {
        packets.iter().filter(|packet| packet.inner_transport.ends_with("> 9000")).count()
    };
    let packets =
        capture.finish(|packets| to_server(packets) > 10 && packets.len() - to_server(packets) > 10)?;
    assert!(packets.iter().all(|packet| packet.is_vx == is_vx), "{packets:#?}");
    Ok(())
}

#[test]
fn two_nodes_agree_on_packets_that_the_kernel_merges_and_change_without_loss() -> Result<()> {
    let bed = Bed::registered()?;
    let mut neighbour = Neighbour::join(&bed)?;
    for node in [&bed.node, &neighbour.node] {
        cut_packets(node)?;
    }
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    neighbour.serve(&bed, &server)?;
    bed.cluster.wait_to_hear("net/service/deployed", 1, |payload| payload["links"] == json!(["vx"]))?;
    let numbered = Numbered::start(&client.netns, &server.netns)?;
    wait_for(&bed, &neighbour, true)?;
    assert!(listens(&bed.node)? && listens(&neighbour.node)?);
    assert_eq!(bed.status()?["unwrapping"][0]["merges"], json!(["vx"]));

    // The neighbour's operator wants bare packets; it wants to get them and sends none else.
    let mut wanted = config();
    for (link, is_vx) in [("bare", false), ("auto", true)] {
        wanted["Link"] = json!(link);
        write_config(&neighbour.places, &wanted)?;
        neighbour.netmanager.terminate()?;
        neighbour.netmanager.start_again()?;
        neighbour.wait_until_ready()?;
        wait_for(&bed, &neighbour, is_vx)?;
        assert_eq!((listens(&bed.node)?, listens(&neighbour.node)?), (true, is_vx));
    }
    numbered.finish()?;
    for status in [bed.status()?, neighbour.status()?] {
        assert_eq!(status["drops"], json!([]));
    }
    Ok(())
}

#[test]
fn packets_go_bare_where_they_cross_whole_and_in_vxlans_format_where_they_are_cut() -> Result<()> {
    let bed = Bed::registered()?;
    let neighbour = Neighbour::join(&bed)?;
    cut_packets(&neighbour.node)?;
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    neighbour.serve(&bed, &server)?;
    for node in [&bed.places, &neighbour.places] {
        let offer = || fs::read_to_string(node.folder().join("netmanager.log"));
        assert!(offer()?.contains("other nodes may send packets in VXLAN's format"));
    }
    let numbered = Numbered::start(&client.netns, &server.netns)?;
    // Each has asked the other by then.
    eventually(SOON, "both ways to be known", || {
        for (places, crossing) in [(&bed.places, "Whole"), (&neighbour.places, "Cut")] {
            let log = fs::read_to_string(places.folder().join("netmanager.log"))?;
            ensure!(log.contains(&format!("verdict=Takes({crossing})")), "no {crossing}: {log}");
        }
        let vx = [bed.status()?, neighbour.status()?].map(|status| status["peers"][0]["vx"].clone());
        ensure!(vx == [json!(false), json!(true)], "{vx:?}");
        Ok(())
    })?;
    numbered.finish()?;
    // And that is all: each trial, and one that is not about the link.
    for places in [&bed.places, &neighbour.places] {
        let log = fs::read_to_string(places.folder().join("netmanager.log"))?;
        let asked = log.matches("a node was asked about the NIC").count();
        ensure!((1..=4).contains(&asked), "{asked} times: {log}");
    }
    Ok(())
}

/// Else whoever can send to the port, also a process of the node, would speak to the node past its firewall.
#[test]
fn what_the_device_that_listens_gets_goes_nowhere() -> Result<()> {
    let bed = Bed::registered()?;
    let device = ip_json(&bed.node, &["-s", "link", "show", DEVICE])?;
    let mac = device[0]["address"].as_str().unwrap_or_default().to_owned();
    let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    let (listener, sender) = bed.node.run(|| {
        let listener = UdpSocket::bind(("192.0.2.31", 7777))?;
        listener.set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok::<_, std::io::Error>((listener, UdpSocket::bind(("127.0.0.1", 0))?))
    })??;
    // VXLAN's header with the device's network.
    let mut packet = vec![8, 0, 0, 0, 0xff, 0xff, 0xff, 0];
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 7], mac.as_slice().try_into()?)
        .ipv4([198, 51, 100, 7], [192, 0, 2, 31], 64)
        .udp(7777, 7777)
        .write(&mut packet, b"past the firewall")?;
    let received = || {
        Ok::<_, anyhow::Error>(
            ip_json(&bed.node, &["-s", "link", "show", DEVICE])?[0]["stats64"]["rx"]["packets"].clone(),
        )
    };
    let before = received()?;
    sender.send_to(&packet, ("127.0.0.1", TUNNEL))?;
    eventually(SOON, "the device to get it", || {
        let now = received()?;
        if now == before { Err(anyhow!("{now}")) } else { Ok(()) }
    })?;
    let mut buffer = [0; 64];
    assert!(listener.recv(&mut buffer).is_err());

    // It is the rule that keeps it away.
    bed.node.output("nft", &["flush", "chain", "ip", "hypha", "guard"])?;
    bed.node.output(
        "sysctl",
        &["-qw", &format!("net.ipv4.conf.{DEVICE}.rp_filter=0"), "net.ipv4.conf.all.rp_filter=0"],
    )?;
    sender.send_to(&packet, ("127.0.0.1", TUNNEL))?;
    assert!(listener.recv(&mut buffer).is_ok());
    Ok(())
}
