//! Packets that cannot go on at once, with the whole daemon.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::retransmission;
use serde_json::json;

use crate::bed::{Bed, Container};
use crate::neighbour::Neighbour;
use integration::cluster::WEB_ADDRESS;

const EHOSTUNREACH: i32 = 113;

#[test]
fn who_dials_an_address_without_a_service_is_told_at_once() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    let target = SocketAddr::from((Ipv4Addr::new(10, 30, 77, 77), 80));
    // Not with a timeout: the standard library then polls, and has been seen to miss the error.
    let dialled = container.netns.run(|| TcpStream::connect(target))?;
    let error = dialled.err().context("there is nobody")?;
    ensure!(error.raw_os_error() == Some(EHOSTUNREACH), "{error}");
    // Whether it has waited depends on which came first, the packet or the cluster's answer.
    let slow_path = bed.status()?["daemon"]["slow_path"].clone();
    ensure!(slow_path["answered"] == json!(1) && slow_path["expired"] == json!(0), "{slow_path}");
    Ok(())
}

#[test]
fn the_device_ends_with_the_daemon_and_is_there_again_with_the_next() -> Result<()> {
    let mut bed = Bed::registered()?;
    let present = |bed: &Bed| bed.node.ip("link show tap-hypha").is_ok();
    ensure!(present(&bed), "made at the start");
    bed.netmanager.kill()?;
    ensure!(!present(&bed), "it outlives the daemon");
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    ensure!(present(&bed), "made again");
    Ok(())
}

#[test]
fn a_first_connection_repeats_no_packet_though_the_servers_node_knows_nothing_of_the_client() -> Result<()> {
    let bed = Bed::registered()?;
    let neighbour = Neighbour::join(&bed)?;
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    neighbour.serve(&bed, &server)?;
    let listener = server.netns.run(|| TcpListener::bind("0.0.0.0:80"))??;
    let clients = |payload: &serde_json::Value| payload["sip"] == "10.30.0.0";
    ensure!(bed.cluster.heard("net/tablequery/request", clients) == 0, "known before");

    let target = SocketAddr::from((WEB_ADDRESS, 80));
    client.netns.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(10)))?.context("connect")?;
    ensure!(listener.accept()?.1.ip() == Ipv4Addr::new(10, 30, 0, 0), "the client's own address");
    ensure!(bed.cluster.heard("net/tablequery/request", clients) > 0, "the server's node has not asked");
    for end in [&client, &server] {
        let repeated = retransmission::read(&end.netns.output("cat", &["/proc/net/snmp"])?)?;
        ensure!(repeated == 0, "{repeated} segments were sent again in {}", end.netns.name());
    }
    Ok(())
}
