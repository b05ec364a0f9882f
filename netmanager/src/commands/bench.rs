//! `netmanager bench`: what the network between two machines, or two containers, carries.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{write_json, write_table};
use crate::bench::{Awake, PORT, Peer, Server, Transport, bulk, connections, datagrams, round_trips};
use crate::cli::{BenchCommand, Format, RunArgs, ServeArgs};

/// Payloads: the smallest Ethernet frame, and one that every tunnel carries whole.
const DATAGRAMS: [usize; 2] = [18, 1400];
const QUESTION: u32 = 64;

/// # Errors
/// When a measure fails, or nothing can be written.
pub fn run(command: &BenchCommand, out: &mut impl Write) -> Result<()> {
    match command {
        BenchCommand::Serve(args) => serve(args, out),
        BenchCommand::Run(args) => measure(args, out),
    }
}

fn serve(args: &ServeArgs, out: &mut impl Write) -> Result<()> {
    let server =
        Server::start(args.listen, args.cpu).with_context(|| format!("listen at {}", args.listen))?;
    writeln!(out, "listening at {} (TCP and UDP) until Ctrl-C", server.address())?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}

/// One line of the answer.
#[derive(Debug, Clone, Copy, Serialize)]
struct Row {
    measure: &'static str,
    value: f64,
    unit: &'static str,
}

fn measure(args: &RunArgs, out: &mut impl Write) -> Result<()> {
    let address = resolve(&args.peer)?;
    let peer = Peer(address);
    peer.state().with_context(|| format!("talk to `netmanager bench serve` at {address}"))?;
    let duration = Duration::from_secs_f64(args.seconds);
    let mut rows = Vec::new();
    let mut row = |measure, value, unit| rows.push(Row { measure, value, unit });
    for (streams, speed, cost) in [
        (1, "TCP, 1 stream", "TCP, 1 stream: CPU of both ends"),
        (4, "TCP, 4 streams", "TCP, 4 streams: CPU of both ends"),
        (16, "TCP, 16 streams", "TCP, 16 streams: CPU of both ends"),
    ] {
        let carried = bulk(peer, streams, duration).with_context(|| format!("measure {speed}"))?;
        row(speed, carried.gigabits(), "Gbit/s");
        row(cost, carried.cpu_per_gigabyte(), "s/GB");
    }
    for (transport, names) in [
        (Transport::Tcp, ["TCP round trip, p50", "p90", "p99", "p99.9"]),
        (Transport::Udp, ["UDP round trip, p50", "p90", "p99", "p99.9"]),
    ] {
        let awake = Awake::keep().context("keep the CPUs awake")?;
        let times = round_trips(peer, transport, QUESTION, duration, args.cpu)
            .with_context(|| format!("measure round trips of {transport:?}"))?;
        drop(awake);
        for (name, part) in names.into_iter().zip([0.5, 0.9, 0.99, 0.999]) {
            row(name, times.quantile(part).as_secs_f64() * 1e6, "us");
        }
    }
    let rate = connections(peer, duration, args.cpu).context("measure connections")?;
    row("TCP connect, request, close", rate, "1/s");
    for (size, name) in DATAGRAMS.into_iter().zip(["UDP, 18 bytes of payload", "UDP, 1400 bytes of payload"])
    {
        let sent = datagrams(peer, size, duration, args.cpu).with_context(|| format!("measure {name}"))?;
        row(name, sent.rate() / 1e3, "kpps");
    }
    match args.format {
        Format::Json => write_json(out, &rows)?,
        Format::Table => {
            let cells =
                |row: &Row| vec![row.measure.to_owned(), format!("{:.3}", row.value), row.unit.to_owned()];
            write_table(out, &["MEASURE", "VALUE", "UNIT"], &rows.iter().map(cells).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// With the usual port, unless the peer is given with one.
fn resolve(peer: &str) -> Result<SocketAddr> {
    let with_port = peer.to_socket_addrs();
    let mut found =
        with_port.or_else(|_none| (peer, PORT).to_socket_addrs()).with_context(|| format!("find {peer}"))?;
    found.next().with_context(|| format!("{peer} has no address"))
}
