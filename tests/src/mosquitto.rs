//! A broker that is not ours.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result};

use crate::daemon::{Daemon, Recipe};
use crate::netns::Netns;
use crate::wait::eventually;

/// Starts Mosquitto with these settings, and waits until it listens there.
pub fn start(
    netns: &Arc<Netns>,
    config: PathBuf,
    log: PathBuf,
    at: (impl Into<IpAddr>, u16),
) -> Result<Daemon> {
    let at = SocketAddr::from((at.0.into(), at.1));
    let mut broker = Recipe {
        name: "mosquitto".to_owned(),
        netns: Arc::clone(netns),
        program: "/usr/sbin/mosquitto".into(),
        arguments: vec!["-c".into(), config.into()],
        environment: Vec::new(),
        log,
    }
    .start()?;
    eventually(Duration::from_secs(10), "the broker to listen", || {
        let mut listens = || {
            broker.expect_running()?;
            netns.run(|| TcpStream::connect(at).map(drop))?.map_err(Error::from)
        };
        listens().map_err(|error| format!("{error:#}"))
    })?;
    Ok(broker)
}
