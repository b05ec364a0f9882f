//! What is measured of each variant, and how.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use netmanager::bench::{
    Awake, Distribution, QUANTILES, Transport, bulk, connections, datagrams, round_trips,
};
use serde::{Deserialize, Serialize};

use crate::cell::{Cell, Places};
use crate::daemon;
use crate::iperf;
use crate::programs;
use crate::scale;
use crate::subject::{Underlay, Variant};

/// Bytes of a question and of its answer.
pub(crate) const QUESTION: u32 = 64;
/// Of a UDP packet in an Ethernet frame: Ethernet with its checksum, IPv4, UDP.
const FRAME_OVERHEAD: usize = 18 + 20 + 8;

/// One thing to do; it may give several numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Bulk by TCP.
    Tcp { streams: usize },
    /// The same by iperf3.
    Iperf3 { streams: usize },
    /// Question and answer, one at a time.
    RoundTrip { transport: Transport, beside_bulk: bool },
    /// Connect, ask, hear, close, one at a time.
    Connections,
    /// UDP packets that fill Ethernet frames of this size.
    Datagrams { frame: usize },
    /// [`Self::Connections`] to one of so many services.
    Services { count: u32 },
    /// [`Self::Connections`] to a service of so many instances.
    Instances { count: u8 },
    /// [`Self::Connections`] beside so many flows that the nodes remember.
    Flows { count: usize },
    /// Connecting to services that the node does not know yet.
    FirstPacket,
    /// Time in the programs in the kernel.
    Programs,
    /// Of the tables in the kernel.
    Memory,
    /// Of netmanager that knows so many services.
    DaemonMemory { services: u32 },
}

/// A number that a measure gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Quantity {
    Throughput,
    CpuPerGigabyte,
    P50,
    P90,
    P99,
    P999,
    ConnectionRate,
    PacketRate,
    FromContainer,
    FromUplink,
    Memory,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Taken {
    pub(crate) numbers: Vec<(Quantity, f64)>,
    /// Microseconds at each of [`QUANTILES`], of a measure of times.
    pub(crate) distribution: Option<Vec<f64>>,
}

impl Measure {
    /// In the order in which they are taken and shown.
    pub(crate) const ALL: [Self; 29] = [
        Self::Tcp { streams: 1 },
        Self::Tcp { streams: 4 },
        Self::Tcp { streams: 16 },
        Self::Iperf3 { streams: 1 },
        Self::Iperf3 { streams: 4 },
        Self::RoundTrip { transport: Transport::Tcp, beside_bulk: false },
        Self::RoundTrip { transport: Transport::Udp, beside_bulk: false },
        Self::RoundTrip { transport: Transport::Tcp, beside_bulk: true },
        Self::RoundTrip { transport: Transport::Udp, beside_bulk: true },
        Self::Connections,
        Self::Datagrams { frame: 64 },
        Self::Datagrams { frame: 128 },
        Self::Datagrams { frame: 256 },
        Self::Datagrams { frame: 512 },
        Self::Datagrams { frame: 1024 },
        Self::Datagrams { frame: 1280 },
        Self::Services { count: 1 },
        Self::Services { count: 100 },
        Self::Services { count: 10_000 },
        Self::Instances { count: 1 },
        Self::Instances { count: 64 },
        Self::Flows { count: 1 },
        Self::Flows { count: 1000 },
        Self::Flows { count: 100_000 },
        Self::FirstPacket,
        Self::Programs,
        Self::Memory,
        Self::DaemonMemory { services: 0 },
        Self::DaemonMemory { services: 5000 },
    ];

    /// Of [`Self::ALL`], what a quick run takes.
    pub(crate) fn is_quick(self) -> bool {
        matches!(
            self,
            Self::Tcp { streams: 1 | 4 }
                | Self::RoundTrip { beside_bulk: false, .. }
                | Self::Connections
                | Self::Datagrams { frame: 64 }
        )
    }

    /// However short the measuring itself is.
    pub(crate) fn is_slow_to_set_up(self) -> bool {
        match self {
            Self::Flows { count } => count > 1000,
            Self::DaemonMemory { services } => services > 0,
            Self::Iperf3 { .. } => true,
            _ => false,
        }
    }

    /// Whether it says anything of the variant on this underlay.
    pub(crate) fn applies_to(self, variant: &Variant, underlay: Underlay) -> bool {
        match self {
            Self::Services { .. }
            | Self::Instances { .. }
            | Self::Flows { .. }
            | Self::FirstPacket
            | Self::Memory
            | Self::DaemonMemory { .. } => {
                *variant == Variant::ServiceIp && underlay == Underlay::Superpacket
            }
            Self::Programs => matches!(variant, Variant::NsIp | Variant::ServiceIp | Variant::Vx),
            _ => true,
        }
    }

    pub(crate) fn id(self) -> String {
        match self {
            Self::Tcp { streams } => format!("tcp-{streams}"),
            Self::Iperf3 { streams } => format!("iperf3-{streams}"),
            Self::RoundTrip { transport, beside_bulk } => {
                let transport = if transport == Transport::Tcp { "tcp" } else { "udp" };
                format!("rr-{transport}{}", if beside_bulk { "-loaded" } else { "" })
            }
            Self::Connections => "crr".to_owned(),
            Self::Datagrams { frame } => format!("udp-{frame}"),
            Self::Services { count } => format!("services-{count}"),
            Self::Instances { count } => format!("instances-{count}"),
            Self::Flows { count } => format!("flows-{count}"),
            Self::FirstPacket => "first-packet".to_owned(),
            Self::Programs => "programs".to_owned(),
            Self::Memory => "memory".to_owned(),
            Self::DaemonMemory { services } => format!("netmanager-memory-{services}"),
        }
    }

    pub(crate) fn title(self) -> String {
        match self {
            Self::Tcp { streams: 1 } => "TCP, 1 stream".to_owned(),
            Self::Tcp { streams } => format!("TCP, {streams} streams"),
            Self::Iperf3 { streams: 1 } => "TCP by iperf3, 1 stream".to_owned(),
            Self::Iperf3 { streams } => format!("TCP by iperf3, {streams} streams"),
            Self::RoundTrip { transport, beside_bulk } => {
                let transport = if transport == Transport::Tcp { "TCP" } else { "UDP" };
                let load = if beside_bulk { ", beside one bulk stream" } else { "" };
                format!("{transport} request-response, {QUESTION} bytes{load}")
            }
            Self::Connections => "TCP connect, request, close".to_owned(),
            Self::Datagrams { frame } => format!("UDP, frames of {frame} bytes"),
            Self::Services { count } => format!("Connect, request, close, one of {count} services"),
            Self::Instances { count } => format!("Connect, request, close, {count} instances in turn"),
            Self::Flows { count } => format!("Connect, request, close, beside {count} flows"),
            Self::FirstPacket => "Connect to a service that is not known yet".to_owned(),
            Self::Programs => "In our programs, per warm packet".to_owned(),
            Self::Memory => "Kernel memory of a node's tables".to_owned(),
            Self::DaemonMemory { services } => format!("Memory of netmanager, {services} services known"),
        }
    }

    pub(crate) fn take(self, cell: &Cell, duration: Duration, places: Places) -> Result<Taken> {
        match self {
            Self::Tcp { streams } => {
                let carried = cell.client(|peer| bulk(peer, streams, duration))??;
                Ok(Taken::numbers(&[
                    (Quantity::Throughput, carried.gigabits()),
                    (Quantity::CpuPerGigabyte, carried.cpu_per_gigabyte()),
                ]))
            }
            Self::Iperf3 { streams } => iperf::bulk(cell, streams, duration),
            Self::RoundTrip { transport, beside_bulk: false } => {
                let _awake = Awake::keep().context("keep the CPUs awake")?;
                ask(cell, transport, duration, places)
            }
            Self::RoundTrip { transport, beside_bulk: true } => {
                beside_bulk(cell, transport, duration, places)
            }
            Self::Connections => {
                let _awake = Awake::keep().context("keep the CPUs awake")?;
                let rate = cell.client(|peer| connections(peer, duration, places.client))??;
                Ok(Taken::numbers(&[(Quantity::ConnectionRate, rate)]))
            }
            Self::Datagrams { frame } => {
                let payload = frame - FRAME_OVERHEAD;
                let sent = cell.client(|peer| datagrams(peer, payload, duration, places.client))??;
                Ok(Taken::numbers(&[(Quantity::PacketRate, sent.rate() / 1e3)]))
            }
            Self::Services { count } => scale::services(cell.underlay, count, duration, places),
            Self::Instances { count } => scale::instances(cell.underlay, count, duration, places),
            Self::Flows { count } => scale::beside_flows(cell.underlay, count, duration, places),
            Self::FirstPacket => scale::first_packets(cell.underlay, places),
            Self::Programs => programs::per_packet(cell, duration, places),
            Self::Memory => scale::memory(cell),
            Self::DaemonMemory { services } => daemon::memory(services),
        }
    }
}

fn ask(cell: &Cell, transport: Transport, duration: Duration, places: Places) -> Result<Taken> {
    let times = cell.client(|peer| round_trips(peer, transport, QUESTION, duration, places.client))??;
    Ok(Taken::times(&times))
}

/// Bulk begins first and goes on until the last question.
fn beside_bulk(cell: &Cell, transport: Transport, duration: Duration, places: Places) -> Result<Taken> {
    const PIECE: Duration = Duration::from_millis(200);
    let (started, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<()> {
            cell.client(|peer| {
                while !done.load(Ordering::Relaxed) {
                    bulk(peer, 1, PIECE)?;
                    started.store(true, Ordering::Relaxed);
                }
                Ok(())
            })?
        });
        while !started.load(Ordering::Relaxed) && !load.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let taken = ask(cell, transport, duration, places);
        done.store(true, Ordering::Relaxed);
        match load.join() {
            Ok(result) => result.context("the bulk stream beside it")?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        taken
    })
}

impl Quantity {
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "Gbit/s",
            Self::CpuPerGigabyte => "CPU s/GB",
            Self::P50 | Self::P90 | Self::P99 | Self::P999 => "us",
            Self::ConnectionRate => "1/s",
            Self::PacketRate => "kpps",
            Self::FromContainer | Self::FromUplink => "ns",
            Self::Memory => "MB",
        }
    }

    /// What tells it from the other numbers of its measure, for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Throughput | Self::ConnectionRate | Self::PacketRate | Self::Memory => "",
            Self::CpuPerGigabyte => "CPU of both nodes",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::FromContainer => "from a container",
            Self::FromUplink => "from the uplink",
        }
    }

    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::Throughput | Self::ConnectionRate | Self::PacketRate)
    }
}

impl Taken {
    pub(crate) fn numbers(numbers: &[(Quantity, f64)]) -> Self {
        Self { numbers: numbers.to_vec(), distribution: None }
    }

    pub(crate) fn times(times: &Distribution) -> Self {
        let micros = |part| times.quantile(part).as_secs_f64() * 1e6;
        let numbers = [
            (Quantity::P50, micros(0.5)),
            (Quantity::P90, micros(0.9)),
            (Quantity::P99, micros(0.99)),
            (Quantity::P999, micros(0.999)),
        ];
        Self { numbers: numbers.to_vec(), distribution: Some(QUANTILES.map(micros).to_vec()) }
    }
}
