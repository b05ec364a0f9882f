//! What depends on how much there is: services, instances, flows. Each is measured on nodes of its own, so that what was
//! filled for one does not meet another.

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::MapData;
use netmanager::bench::{Awake, Distribution, MAX_FLOWS, PORT, Peer, connections, flows};
use netmanager::datapath::{Backend, Policy};
use netmanager_common::ABI_VERSION;

use crate::cell::{Cell, Places, SERVICE};
use crate::measure::{Quantity, Taken};
use crate::subject::{Underlay, Variant};

/// Services that are dialled for the first time.
const UNKNOWN: u8 = 20;
/// Between them: a container may not have everything looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Connections a second to one of so many services.
pub(crate) fn services(underlay: Underlay, count: u32, duration: Duration, places: Places) -> Result<Taken> {
    let mut cell = Cell::build(&Variant::ServiceIp, underlay, places, &[])?;
    let backend = cell.backend()?;
    cell.change_node(0, |datapath| {
        // Those beside the one that is dialled.
        (1..count).try_for_each(|number| {
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 31, 0, 0).to_bits() + number);
            datapath.publish_service(address, Policy::RoundRobin, &[backend])
        })
    })?;
    connect(&cell, duration, places)
}

/// The same to a service of so many instances, which take turns.
pub(crate) fn instances(underlay: Underlay, count: u8, duration: Duration, places: Places) -> Result<Taken> {
    let mut cell = Cell::build(&Variant::ServiceIp, underlay, places, &[])?;
    let backend = cell.backend()?;
    let mut backends = vec![backend];
    for number in 1..count {
        backends.push(cell.add_instance(number)?);
    }
    cell.change_node(0, |datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &backends))?;
    connect(&cell, duration, places)
}

/// The same after so many other flows, of which the nodes remember as many as they have room for.
pub(crate) fn beside_flows(
    underlay: Underlay,
    count: usize,
    duration: Duration,
    places: Places,
) -> Result<Taken> {
    let mut cell = Cell::build(&Variant::ServiceIp, underlay, places, &[])?;
    let backend = cell.backend()?;
    let mut left = count;
    // More than there are ports go to further addresses of the server.
    for address in (1..).map(|number| Ipv4Addr::new(10, 30, 201, number)) {
        let now = left.min(MAX_FLOWS);
        cell.change_node(0, |datapath| datapath.publish_service(address, Policy::RoundRobin, &[backend]))?;
        cell.client(|peer| flows(Peer(SocketAddr::from((address, peer.0.port()))), now))?
            .context("begin flows")?;
        left -= now;
        if left == 0 {
            break;
        }
    }
    connect(&cell, duration, places)
}

fn connect(cell: &Cell, duration: Duration, places: Places) -> Result<Taken> {
    let _awake = Awake::keep().context("keep the CPUs awake")?;
    let rate = cell.client(|peer| connections(peer, duration, places.client))??;
    Ok(Taken::numbers(&[(Quantity::ConnectionRate, rate)]))
}

/// How long connecting takes to services that the client's node does not know yet, when the answer to its question comes
/// at once.
pub(crate) fn first_packets(underlay: Underlay, places: Places) -> Result<Taken> {
    let mut cell = Cell::build(&Variant::ServiceIp, underlay, places, &[])?;
    let backend = cell.backend()?;
    let known = move |_address: IpAddr| -> Vec<Backend> { vec![backend] };
    let times = cell.resolving(known, |client| {
        (1..=UNKNOWN)
            .map(|number| {
                thread::sleep(PAUSE);
                let target = SocketAddr::from((Ipv4Addr::new(10, 30, 200, number), PORT));
                client
                    .run(|| {
                        let start = Instant::now();
                        TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
                        Ok::<_, std::io::Error>(start.elapsed())
                    })?
                    .with_context(|| format!("connect to {target}, which is not known yet"))
            })
            .collect::<Result<Vec<_>>>()
    })?;
    let times = Distribution::of(times).context("no connection was made")?;
    Ok(Taken::times(&times))
}

/// Kernel memory of the tables of one node, as they are at the end of what else was measured on it.
pub(crate) fn memory(cell: &Cell) -> Result<Taken> {
    let mut bytes = 0;
    let folder = cell.pins()?;
    let below = |path: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    // What else is pinned has no capitals in its name.
    let is_table = |name: &str| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_uppercase());
    let pins = below(&folder.join(format!("abi-{ABI_VERSION}")))?;
    for pin in pins.iter().filter(|pin| pin.file_name().and_then(OsStr::to_str).is_some_and(is_table)) {
        let map = MapData::from_pin(pin).with_context(|| format!("open {}", pin.display()))?;
        bytes += locked(&map).with_context(|| format!("ask how large {} is", pin.display()))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "megabytes, shown with three digits")]
    Ok(Taken::numbers(&[(Quantity::Memory, bytes as f64 / 1e6)]))
}

fn locked(map: &MapData) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("a line with memlock")?;
    line.trim().parse().context("read a number of bytes")
}
