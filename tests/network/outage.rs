//! What the node can do with no cluster in reach: everything for services that it has known, also after a reboot.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use integration::eventually;
use serde_json::Value;

use crate::bed::{Bed, Container, NODE};

const PATIENCE: Duration = Duration::from_secs(5);
const PORT: u16 = 80;
/// The service's own address, and that of its instance 1.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 30, 109, 1), Ipv4Addr::new(10, 30, 0, 1)];

fn listen(container: &Container) -> Result<TcpListener> {
    container.netns.run(|| TcpListener::bind(("0.0.0.0", PORT)))?.context("listen")
}

fn expect_answers(client: &Container) -> Result<()> {
    for address in ADDRESSES {
        let target = SocketAddr::from((address, PORT));
        client
            .netns
            .run(|| TcpStream::connect_timeout(&target, PATIENCE))?
            .with_context(|| format!("dial {target}"))?;
    }
    Ok(())
}

fn wait_for_session(bed: &Bed, wanted: &str) -> Result<()> {
    wait_for_session_within(Duration::from_secs(30), bed, wanted)
}

fn wait_for_session_within(limit: Duration, bed: &Bed, wanted: &str) -> Result<()> {
    eventually(limit, &format!("the session to be {wanted}"), || {
        let session = bed.status()?["daemon"]["session"]["state"].clone();
        if session == wanted { Ok(()) } else { Err(anyhow!("{session}")) }
    })
}

#[test]
fn a_warm_service_is_known_at_every_moment_of_an_outage_and_after_it() -> Result<()> {
    let mut bed = Bed::registered()?;
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    bed.attached(&server, 1)?;
    let _listeners = [listen(&client)?, listen(&server)?];
    eventually(PATIENCE, "the service to be warm", || expect_answers(&client))?;
    // A packet to a service that is not known would wait there.
    let waited = |bed: &Bed| -> Result<Value> { Ok(bed.status()?["daemon"]["slow_path"]["held"].clone()) };
    let before = waited(&bed)?;

    bed.cluster.broker.kill()?;
    wait_for_session(&bed, "down")?;
    expect_answers(&client)?;
    bed.cluster.broker.start_again()?;
    eventually(Duration::from_secs(30), "the session to be up", || {
        expect_answers(&client)?;
        let session = bed.status()?["daemon"]["session"]["state"].clone();
        if session == "up" { Ok(()) } else { Err(anyhow!("{session}")) }
    })?;
    // Meanwhile everything is asked for and replaced.
    for _ in 0..20 {
        expect_answers(&client)?;
    }
    ensure!(waited(&bed)? == before, "a warm service was unknown for a moment");
    Ok(())
}

#[test]
fn a_node_that_is_asked_to_begin_anew_says_and_asks_everything_again() -> Result<()> {
    let bed = Bed::registered()?;
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    bed.attached(&client, 0)?;
    bed.attached(&server, 1)?;
    let _listeners = [listen(&client)?, listen(&server)?];
    eventually(PATIENCE, "the service to be warm", || expect_answers(&client))?;
    let topics = ["net/service/deployed", "net/tablequery/request"];
    let before = topics.map(|topic| bed.cluster.heard(topic, |_| true));
    bed.cluster.say(&format!("nodes/{NODE}/control/error"), r#"{"message":"who are you?"}"#)?;
    for (topic, before) in topics.into_iter().zip(before) {
        bed.cluster.wait_to_hear(topic, before, |_| true)?;
    }
    wait_for_session(&bed, "up")?;
    expect_answers(&client)
}

/// No packet gets through to another machine, and neither end is told.
const CUT: &str = "table inet cut {
    chain arriving { type filter hook input priority 0; iif != lo drop; }
    chain leaving { type filter hook output priority 0; oif != lo drop; }
}";

#[test]
fn a_cut_that_no_end_is_told_of_is_noticed_and_over_ten_seconds_after_its_end() -> Result<()> {
    let bed = Bed::registered()?;
    let client = Container::new("client")?;
    bed.attached(&client, 0)?;
    wait_for_session(&bed, "up")?;
    let control = Arc::clone(&bed.cluster.netns);
    control.output("nft", &[CUT])?;
    wait_for_session(&bed, "down")?;
    control.output("nft", &["delete", "table", "inet", "cut"])?;
    wait_for_session_within(Duration::from_secs(10), &bed, "up")?;
    // What it says now is heard again.
    let server = Container::new("server")?;
    bed.attached(&server, 1)?;
    let _listeners = [listen(&client)?, listen(&server)?];
    eventually(PATIENCE, "the service to be warm", || expect_answers(&client))
}

#[test]
fn after_a_reboot_without_a_cluster_containers_have_their_addresses_and_services_answer() -> Result<()> {
    let mut bed = Bed::registered()?;
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    let before = (bed.attached(&server, 1)?, bed.attached(&client, 0)?);
    let tables = bed.places.state().join("tables.json");
    eventually(Duration::from_secs(30), "the tables to be stored", || {
        let stored = fs::read_to_string(&tables)?;
        let complete = [before.0, before.1].iter().all(|ns_ip| stored.contains(&format!("\"{ns_ip}\"")));
        if complete { Ok(()) } else { Err(anyhow!(stored)) }
    })?;

    // The kernel keeps nothing, and nobody of before lives.
    bed.netmanager.kill()?;
    drop((client, server));
    for link in bed.links()? {
        bed.node.ip(&format!("link delete {link}")).ok();
    }
    fs::remove_dir_all(&bed.places.pins).context("remove the pins")?;
    bed.node.output("nft", &["delete", "table", "ip", "hypha"])?;
    bed.cluster.broker.kill()?;

    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    let (status, said) = bed.register(NODE)?;
    ensure!(status == 200, "{status} {said}");
    // In another order than before.
    let (client, server) = (Container::new("client")?, Container::new("server")?);
    let after = (bed.attached(&client, 0)?, bed.attached(&server, 1)?);
    ensure!((after.1, after.0) == before, "{after:?}, before {before:?}");
    let _listeners = [listen(&client)?, listen(&server)?];
    for _ in 0..4 {
        expect_answers(&client)?;
    }
    wait_for_session(&bed, "down")
}
