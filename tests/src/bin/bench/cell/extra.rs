//! Any other system, built by a script.
//!
//! The script finds two nodes with an uplink each, and a container on each node that its node knows and can be reached
//! from; what is missing is the way between the nodes. In its environment:
//!
//! | variable | is |
//! |---|---|
//! | `NODE1`, `NODE2`, `CLIENT`, `SERVER` | network namespaces, as files: `nsenter --net="$NODE1" ip route` |
//! | `UPLINK` | the name of both nodes' uplinks |
//! | `NODE1_ADDRESS`, `NODE2_ADDRESS` | of the uplinks |
//! | `CLIENT_SUBNET`, `SERVER_SUBNET` | of the containers of node 1 and of node 2 |
//! | `CLIENT_ADDRESS`, `SERVER_ADDRESS` | of the containers; the device in each is `eth0`, with an MTU of 1500 |
//! | `UNDERLAY` | `superpacket`, `wire` or `same-node` |
//! | `FOLDER` | a folder that is removed afterwards |
//!
//! It prints the address that the client is to talk to on the first line, and then stays until it gets SIGTERM (with its
//! process group). The namespaces go with everything in them.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use super::pair::UPLINK;
use super::running::Running;
use super::{Bed, Overlay, Pair, plain};
use crate::subject::Underlay;

pub(super) fn build(pair: Pair, underlay: Underlay, script: &Path) -> Result<Bed> {
    let folder = tempfile::Builder::new().prefix("hypha-extra-").tempdir().context("make a folder")?;
    let (client, server, address) = plain::containers(&pair, underlay, 1500)?;
    let mut command = std::process::Command::new(script);
    command
        .env("NODE1", pair.nodes[0].path())
        .env("NODE2", pair.nodes[1].path())
        .env("CLIENT", client.path())
        .env("SERVER", server.path())
        .env("UPLINK", UPLINK)
        .env("NODE1_ADDRESS", pair.address(0).to_string())
        .env("NODE2_ADDRESS", pair.address(1).to_string())
        .env("CLIENT_SUBNET", plain::SUBNETS[0])
        .env("SERVER_SUBNET", plain::SUBNETS[1])
        .env("CLIENT_ADDRESS", plain::CLIENT.to_string())
        .env("SERVER_ADDRESS", address.to_string())
        .env("UNDERLAY", underlay.id())
        .env("FOLDER", folder.path());
    let log = folder.path().join("script.log");
    let mut running = Running::start(command, &log, Stdio::piped())?;
    let line = running.first_line().with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    let target: Ipv4Addr =
        line.parse().with_context(|| format!("the first line of {}: {line}", script.display()))?;
    Ok(Bed {
        target,
        overlay: Overlay::Programs { programs: vec![running], _folder: folder },
        client,
        server,
        pair,
    })
}
