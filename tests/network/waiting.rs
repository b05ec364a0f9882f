//! Packets that cannot go on at once, with the whole daemon.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::bed::{Bed, Container};

const EHOSTUNREACH: i32 = 113;

#[test]
fn who_dials_an_address_without_a_service_is_told_at_once() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    let target = SocketAddr::from((Ipv4Addr::new(10, 30, 77, 77), 80));
    let dialled = container.netns.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(20)))?;
    let error = dialled.err().context("there is nobody")?;
    ensure!(error.raw_os_error() == Some(EHOSTUNREACH), "{error}");
    let slow_path = bed.status()?["daemon"]["slow_path"].clone();
    ensure!(slow_path["released"] == json!(1) && slow_path["expired"] == json!(0), "{slow_path}");
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
