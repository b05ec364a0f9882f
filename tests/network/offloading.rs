//! NICs that lose what kernels leave to them: containers then finish packets themselves. The node's uplink is a pair of links,
//! which leaves packets as they are, so that at its other end rules can lose those that are unfinished.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use integration::{Netns, eventually};
use serde_json::{Value, json};

use crate::bed::{Bed, Container, config, ip_json};
use crate::neighbour::Neighbour;
use integration::cluster::WEB_ADDRESS;

/// Longer than it takes to ask often enough, and to ask again.
const SOON: Duration = Duration::from_secs(60);
const PORT: u16 = 80;
/// Packets that are to be cut: no single frame is so long.
const UNCUT: &str = "meta length > 1600 counter drop";
/// As the server sees the client: its instance address.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 0);
/// As the neighbour gives it to its first container.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 18, 0, 130);
/// Segments that a link carries in one packet: all that Linux has, and one.
const WHOLE: u64 = 65_535;
const SINGLE: u64 = 1;

/// From now on what the node sends is lost if it matches one of these.
fn break_nic(bed: &Bed, rules: &[&str]) -> Result<()> {
    let wire = &bed.cluster.netns;
    wire.output("nft", &["add table netdev nic"])?;
    wire.output("nft", &["add chain netdev nic sent { type filter hook ingress device port1 priority 0; }"])?;
    for rule in rules {
        wire.output("nft", &[&format!("add rule netdev nic sent {rule}")])?;
    }
    Ok(())
}

fn mend_nic(bed: &Bed) -> Result<()> {
    bed.cluster.netns.output("nft", &["delete table netdev nic"]).map(drop)
}

/// How many segments one packet may have on a link.
fn segments(netns: &Netns, link: &str) -> Result<u64> {
    let shown = ip_json(netns, &["-d", "link", "show", link])?;
    shown[0]["gso_max_segs"].as_u64().with_context(|| format!("gso_max_segs of {link}: {shown:?}"))
}

fn leaves_checksums(netns: &Netns, link: &str) -> Result<bool> {
    let features = netns.output("ethtool", &["-k", link])?;
    let line = features.lines().find_map(|line| line.strip_prefix("tx-checksumming: "));
    Ok(line.with_context(|| format!("tx-checksumming in {features}"))? == "on")
}

fn wait_until_left(bed: &Bed, left: &str) -> Result<()> {
    eventually(SOON, "what is left to the NIC to be known", || {
        let daemon = bed.status()?["daemon"].clone();
        ensure!(daemon["left_to_nic"] == left, "{daemon}");
        Ok(())
    })
}

/// So much that the client's kernel makes super-packets of it, where it may.
fn upload(client: &Netns, listener: &TcpListener) -> Result<()> {
    const LENGTH: usize = 1 << 20;
    let mut sender = client.run(|| TcpStream::connect((WEB_ADDRESS, PORT)))?.context("connect")?;
    let (mut receiver, _) = listener.accept()?;
    receiver.set_read_timeout(Some(Duration::from_secs(20)))?;
    let sent = thread::spawn(move || sender.write_all(&vec![7; LENGTH]));
    let mut received = vec![0; LENGTH];
    receiver.read_exact(&mut received).context("what is uploaded")?;
    sent.join().map_err(|_panic| anyhow!("the sender"))??;
    Ok(())
}

#[test]
fn containers_cut_segments_themselves_where_the_nic_loses_what_it_should_cut() -> Result<()> {
    let mut bed = Bed::registered()?;
    let neighbour = Neighbour::join(&bed)?;
    break_nic(&bed, &[UNCUT])?;
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    neighbour.serve(&bed, &server)?;
    let listener = server.netns.run(|| TcpListener::bind(("0.0.0.0", PORT)))?.context("listen")?;
    assert_eq!(segments(&client.netns, "eth0")?, WHOLE);
    // Who makes the other node known, as all that is small gets there.
    drop(client.netns.run(|| TcpStream::connect((WEB_ADDRESS, PORT)))?.context("connect")?);
    drop(listener.accept()?);

    wait_until_left(&bed, "checksums")?;
    let late = Container::new("late")?;
    bed.attached(&late, 2)?;
    for (netns, link) in [(&client.netns, "eth0"), (&late.netns, "eth0"), (&*bed.node, "hynode0")] {
        assert_eq!((segments(netns, link)?, leaves_checksums(netns, link)?), (SINGLE, true), "{link}");
    }
    for container in [&client, &late] {
        upload(&container.netns, &listener)?;
    }
    let shown = integration::process::output(&mut bed.command("status")?)?;
    assert!(shown.contains("cut large packets into segments themselves"), "{shown}");
    // The questions are nobody's connections.
    let flows = integration::process::output(bed.command("flows")?.args(["-o", "json"]))?;
    let flows: Vec<Value> = serde_json::from_str(&flows)?;
    let is_question = |flow: &Value| flow["transport"] == "tcp" && flow["service"] == "10.30.0.1:1";
    assert!(!flows.is_empty() && !flows.iter().any(is_question), "{flows:?}");
    // The other node's NIC is a good one.
    let neighbours_log = fs::read_to_string(&neighbour.netmanager.recipe().log)?;
    assert!(neighbours_log.contains("verdict=Takes("), "{neighbours_log}");
    assert_eq!(neighbour.status()?["daemon"]["left_to_nic"], "all");
    assert_eq!(segments(&server.netns, "eth0")?, WHOLE);

    bed.netmanager.terminate()?;
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    assert_eq!(bed.status()?["daemon"]["left_to_nic"], "checksums");

    mend_nic(&bed)?;
    bed.node.ip("link delete hynode0")?;
    wait_until_left(&bed, "all")?;
    eventually(SOON, "the containers to leave it to the NIC again", || {
        let left = [segments(&client.netns, "eth0")?, segments(&late.netns, "eth0")?];
        ensure!(left == [WHOLE; 2], "{left:?}");
        Ok(())
    })?;
    upload(&client.netns, &listener)
}

#[test]
fn containers_compute_checksums_themselves_where_the_nic_does_not() -> Result<()> {
    let mut bed = Bed::registered()?;
    let neighbour = Neighbour::join_with(&bed, &bare())?;
    let own = bed.status()?["own_ns_ip"].as_str().context("own_ns_ip")?.parse()?;
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    // Behind Ethernet: IPv4, UDP, IPv4, and in the TCP header the checksum.
    let at = 8 * (20 + 8 + 20 + 16);
    // Of a segment of a question, and of a SYN with what Linux says in it.
    let unfinished = [open_checksum(own, SERVER, 20 + 400), open_checksum(CLIENT, SERVER, 40)];
    let [question, syn] = unfinished.map(|sum| format!("@nh,{at},16 {sum} counter drop"));
    break_nic(&bed, &[UNCUT, &question, &syn])?;
    neighbour.serve(&bed, &server)?;
    let listener = server.netns.run(|| TcpListener::bind(("0.0.0.0", PORT)))?.context("listen")?;
    assert!(leaves_checksums(&client.netns, "eth0")?);
    // The first SYN waits in this node until the service is known, which completes it. Of the second connection some are lost.
    for _ in 0..2 {
        drop(client.netns.run(|| TcpStream::connect((WEB_ADDRESS, PORT)))?.context("connect")?);
        drop(listener.accept()?);
    }
    wait_until_left(&bed, "nothing")?;
    for (netns, link) in [(&client.netns, "eth0"), (&*bed.node, "hynode0")] {
        assert_eq!((segments(netns, link)?, leaves_checksums(netns, link)?), (SINGLE, false), "{link}");
    }
    upload(&client.netns, &listener)?;
    let drops = [bed.status()?["drops"].clone(), neighbour.status()?["drops"].clone()];
    assert_eq!(drops, [json!([]), json!([])]);

    let lost = bed.cluster.netns.output("nft", &["list", "table", "netdev", "nic"])?;
    assert!(lost.contains("packets") && !lost.contains("packets 0 "), "{lost}");

    // While nobody looks, too.
    bed.netmanager.terminate()?;
    mend_nic(&bed)?;
    bed.node.ip("link delete hynode0")?;
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    wait_until_left(&bed, "all")?;
    assert_eq!((segments(&client.netns, "eth0")?, leaves_checksums(&client.netns, "eth0")?), (WHOLE, true));
    Ok(())
}

/// Of a node that is sent bare packets.
fn bare() -> Value {
    let mut config = config();
    config["Link"] = json!("bare");
    config
}

/// What a kernel writes in the place of a checksum that is to be completed on the way: that of the pseudo header of so many
/// bytes of TCP (RFC 9293, 3.1).
fn open_checksum(source: Ipv4Addr, destination: Ipv4Addr, length: u32) -> u32 {
    const TCP: u32 = 6;
    let halves =
        [source, destination].map(|address| (address.to_bits() >> 16) + (address.to_bits() & 0xffff));
    let sum = halves[0] + halves[1] + TCP + length;
    (sum & 0xffff) + (sum >> 16)
}
