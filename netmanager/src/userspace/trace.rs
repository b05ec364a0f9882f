//! Telling a person who watches what becomes of packets, as `netmanager-ebpf`'s `trace.rs`: at the end of their way, of
//! those that are wanted, at most as many as one can read. While nobody watches, it is one look at a word.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use netmanager_common::budget;
use netmanager_common::event::DropReason;
use netmanager_common::trace::{Program, Record, Switch, Told, Verdict};
use netmanager_common::wire::{Be16, Ip};
use tokio::sync::mpsc;

use super::engine::Engine;
use super::flows::lock;
use super::moment::Moment;
use crate::datapath::{TraceFilter, Traced, ip, traced};

/// Records that nobody has read yet.
const QUEUE: usize = 1024;

/// Where it is told.
#[derive(Debug, Default)]
pub(super) struct Trace {
    is_on: AtomicBool,
    watcher: Mutex<Option<Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    switch: Switch,
    told: Told,
    queue: mpsc::Sender<Record>,
}

/// What has become of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Delivered,
    Sent(Ip),
    Host,
    Given(DropReason),
    Dropped(DropReason),
}

/// What a person is told, until this is dropped. There is one at a time.
#[derive(Debug)]
pub struct Watch {
    records: mpsc::Receiver<Record>,
    engine: Arc<Engine>,
}

impl Watch {
    /// Nothing if somebody else watches.
    pub(super) fn open(engine: &Arc<Engine>, filter: &TraceFilter) -> Option<Self> {
        let mut watcher = lock(&engine.trace.watcher);
        if watcher.is_some() {
            return None;
        }
        let (queue, records) = mpsc::channel(QUEUE);
        *watcher = Some(Watcher { switch: filter.switch(), told: Told::default(), queue });
        engine.trace.is_on.store(true, Ordering::Relaxed);
        Some(Self { records, engine: Arc::clone(engine) })
    }

    /// The next packet. Cancel safe.
    pub async fn next(&mut self) -> Traced {
        loop {
            match self.records.recv().await {
                Some(record) => {
                    if let Some(traced) = traced(&record) {
                        return traced;
                    }
                }
                // The sender is here as long as this is.
                None => std::future::pending().await,
            }
        }
    }

    /// Packets that were wanted and are not told of, since there were too many at once.
    #[must_use]
    pub fn untold(&self) -> u64 {
        lock(&self.engine.trace.watcher).as_ref().map_or(0, |watcher| watcher.told.untold)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.engine.trace.is_on.store(false, Ordering::Relaxed);
        *lock(&self.engine.trace.watcher) = None;
    }
}

impl Trace {
    /// Notes an IP packet as it came, from `node` if it is another one's; nothing while nobody watches.
    pub(super) fn note(&self, program: Program, ifindex: u32, node: Ip, packet: &[u8]) -> Option<Record> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        let mut record = Record { program: program as u8, ifindex, node, ..Record::default() };
        read(packet, &mut record);
        Some(record)
    }

    /// Tells of a packet that was noted, if it is wanted; `packet`: as it goes on, if it does.
    pub(super) fn tell(&self, noted: Option<Record>, fate: Fate, packet: &[u8], now: Moment) {
        let Some(mut record) = noted else { return };
        record.time_ns = now.0;
        let (verdict, reason) = match fate {
            Fate::Delivered => (Verdict::Delivered, None),
            Fate::Sent(node) => {
                record.node = node;
                (Verdict::Sent, None)
            }
            Fate::Host => (Verdict::Host, None),
            Fate::Given(reason) => (Verdict::Given, Some(reason)),
            Fate::Dropped(reason) => (Verdict::Dropped, Some(reason)),
        };
        record.verdict = verdict as u8;
        record.reason = reason.and_then(|it| u8::try_from(it as u32).ok()).unwrap_or(Record::NO_REASON);
        if reason.is_none() {
            let mut onward = Record::default();
            read(packet, &mut onward);
            (record.onward_source, record.onward_destination) = (onward.source, onward.destination);
        }
        let mut watcher = lock(&self.watcher);
        let Some(Watcher { switch, told, queue }) = watcher.as_mut() else { return };
        if switch.wants(&record)
            && (!told.budget.take(budget::TRACE, now.0) || queue.try_send(record).is_err())
        {
            told.untold += 1;
        }
    }
}

/// Notes the ends of an IP packet; of anything else nothing.
fn read(packet: &[u8], record: &mut Record) {
    let Ok(LaxSlicedPacket { net: Some(net), transport, .. }) = LaxSlicedPacket::from_ip(packet) else {
        return;
    };
    let (source, destination, length) = match &net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.total_len().into())
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let length =
                u32::from(header.payload_length()) + u32::try_from(header.slice().len()).unwrap_or(0);
            (header.source_addr().into(), header.destination_addr().into(), length)
        }
        LaxNetSlice::Arp(_) => return,
    };
    (record.source, record.destination, record.length) = (ip(source), ip(destination), length);
    record.protocol = net.ip_payload_ref().map_or(0, |payload| payload.ip_number.0);
    let ports = match transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => return,
    };
    (record.source_port, record.destination_port) = (Be16::new(ports.0), Be16::new(ports.1));
}
