//! What would become of a packet: the same code that forwards all others, on a copy of the tables.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use netmanager_common::event::DropReason;
use netmanager_common::punt::is_slow;
use netmanager_common::wire::Ip;

use super::engine::Engine;
use super::events::{self, Events};
use super::forward::{Forward, Memory, Verdict};
use super::frame::Frame;
use super::moment::now;
use super::punt::{towards, unwrapped};
use super::reader::{Reader, service_of};
use super::tables::Tables;
use crate::datapath::{
    self, Arrival, Backend, DatapathError, Endpoint, Event, FlowAge, Node, Outcome, Ranges, Service, ip,
    node_of,
};
use crate::why::Trial;

/// The copy. One is used for one question: what its packets leave behind is there for the next of them.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    live: Reader,
    engine: Arc<Engine>,
    tables: Tables,
    memory: Memory,
    events: Events,
}

impl Rehearsal {
    pub(super) fn of(engine: &Arc<Engine>) -> Self {
        let (reporter, events) = events::channel();
        let (tables, memory) = (engine.tables().copy(), Memory::new(reporter));
        Self { live: Reader::new(engine), engine: Arc::clone(engine), tables, memory, events }
    }

    /// What becomes of the `bytes` of a frame by `way`.
    fn run(
        &mut self,
        ifindex: u32,
        mut bytes: Vec<u8>,
        way: impl FnOnce(&Forward<'_>, &mut Frame<'_>) -> Result<Verdict, DropReason>,
    ) -> Outcome {
        let forward = Forward { tables: &self.tables, memory: &self.memory, now: now() };
        let mut frame = Frame {
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            bytes: &mut bytes,
            gso_size: 0,
            open_checksum: false,
            ifindex,
            fragments: &self.memory.fragments,
            now: forward.now,
        };
        let gone_on = way(&forward, &mut frame);
        let (mut dropped, mut given) = (None, None);
        let verdict = match gone_on {
            Ok(Verdict::Host) => datapath::Verdict::ToHost,
            Ok(Verdict::Deliver(_)) => datapath::Verdict::Redirected,
            Ok(Verdict::Send { node, port }) => {
                // One that is too long for the tunnel was refused before.
                bytes = towards(&self.tables.node, node, port, &bytes).unwrap_or_default();
                datapath::Verdict::Redirected
            }
            Err(reason) if is_slow(reason as u32) && self.engine.punts.is_open() => {
                given = Some(reason);
                datapath::Verdict::Redirected
            }
            Err(reason) => {
                dropped = Some(reason);
                datapath::Verdict::Dropped
            }
        };
        let misses = std::iter::from_fn(|| self.events.try_next()).filter_map(|event| match event {
            Event::Miss(miss) => Some(miss),
            Event::Suspect(_) => None,
        });
        Outcome { verdict, frame: bytes, dropped, given, misses: misses.collect() }
    }
}

impl Trial for Rehearsal {
    fn prepare(&mut self, ifindex: u32, sent: &Arrival) -> Result<(), DatapathError> {
        let backends = Trial::service(self, sent.destination)?.map(|service| service.backends);
        let own = self.live.instance_ip(sent.source).flatten();
        for key in sent.kin(ifindex, own, &backends.unwrap_or_default()) {
            let Memory { flows, assured, .. } = &self.engine.memory;
            for (live, own) in [(flows, &self.memory.flows), (assured, &self.memory.assured)] {
                if let Some(flow) = live.get(&key) {
                    own.insert(key, flow);
                }
            }
        }
        Ok(())
    }

    fn sends(&mut self, ifindex: u32, frame: &[u8]) -> Result<Outcome, DatapathError> {
        Ok(self.run(ifindex, frame.to_vec(), |forward, frame| forward.from_container(frame)))
    }

    fn arrives(&mut self, uplink_ifindex: u32, frame: &[u8]) -> Result<Outcome, DatapathError> {
        let (peer, packet) = unwrapped(frame).unwrap_or((Ip::NONE, &[]));
        // In place of the Ethernet header, as where packets come out of a socket.
        let bytes = [&[0; 14], packet].concat();
        Ok(self.run(uplink_ifindex, bytes, |forward, frame| forward.from_uplink(frame, peer)))
    }

    fn program(&mut self) -> Result<Option<u64>, DatapathError> {
        Ok(None)
    }

    fn ranges(&self) -> Result<Ranges, DatapathError> {
        Ok(Ranges(self.tables.plan))
    }

    fn node(&self) -> Result<Option<Node>, DatapathError> {
        Ok(node_of(&self.tables.node))
    }

    fn peers(&self) -> Result<Vec<SocketAddr>, DatapathError> {
        Ok(self.tables.listening().collect())
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, DatapathError> {
        Ok(self.live.endpoints())
    }

    fn service(&self, address: IpAddr) -> Result<Option<Service>, DatapathError> {
        Ok(self.tables.services.get(&ip(address)).map(|service| service_of(&self.tables, address, service)))
    }

    fn host_of(&self, address: IpAddr) -> Result<Option<Backend>, DatapathError> {
        Ok(self.live.host_of(address))
    }

    fn instance_ip(&self, ns_ip: IpAddr) -> Result<Option<Option<IpAddr>>, DatapathError> {
        Ok(self.live.instance_ip(ns_ip))
    }

    fn age(&self, ifindex: u32, sent: &Arrival) -> Result<Option<FlowAge>, DatapathError> {
        Ok(self.live.age(ifindex, sent))
    }
}
