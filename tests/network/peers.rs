//! What a node says of the others: how far away they are, and what gets there.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::eventually;
use integration::process::output;

use crate::bed::{Bed, Container};
use crate::neighbour::{self, Neighbour};
use integration::cluster::WEB_ADDRESS;

const PORT: u16 = 80;

#[test]
fn status_and_metrics_tell_how_far_a_node_is_and_what_gets_there() -> Result<()> {
    let bed = Bed::registered()?;
    let neighbour = Neighbour::join(&bed)?;
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    neighbour.serve(&bed, &server)?;
    let _listener = server.netns.run(|| TcpListener::bind(("0.0.0.0", PORT)))?.context("listen")?;
    client.netns.run(|| TcpStream::connect((WEB_ADDRESS, PORT)))?.context("connect")?;

    // An answer is noted when it passes, which the client may be faster than.
    let peer = eventually(Duration::from_secs(10), "the peer's distance", || {
        let peer = bed.status()?["peers"][0].clone();
        if peer["round_trip_us"].is_u64() { Ok(peer) } else { Err(anyhow::anyhow!("{peer}")) }
    })?;
    assert_eq!(peer["node"], format!("{}:50103", neighbour::ADDRESS));
    assert_eq!((&peer["mtu"], &peer["path_mtu"]), (&1450.into(), &serde_json::Value::Null));
    let unwrapping = &bed.status()?["unwrapping"][0];
    assert_eq!((&unwrapping["interface"], &unwrapping["place"]), (&"up0".into(), &"tc".into()));
    assert!(unwrapping["why"].as_str().is_some_and(|why| why.contains("copies each frame")), "{unwrapping}");

    let (status, metrics) = crate::bed::request(&bed.places.socket(), "GET /metrics", "")?;
    ensure!(status == 200, "{status} {metrics}");
    for metric in ["peer_mtu_bytes", "peer_round_trip_seconds"] {
        let line = format!("hypha_netmanager_{metric}{{node=\"{}:50103\"}}", neighbour::ADDRESS);
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let shown = output(&mut bed.command("status")?)?;
    assert!(shown.lines().any(|line| line.contains("RTT") && line.contains("MTU")), "{shown}");
    Ok(())
}
