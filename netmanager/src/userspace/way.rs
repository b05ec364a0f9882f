//! A packet's way through this process, from the bytes that came in to the messages that go out.

use netmanager_common::event::DropReason;
use netmanager_common::trace::Program;
use netmanager_common::wire::{ETHERNET_LEN, Ip};

use super::engine::Engine;
use super::forward::{Forward, Verdict};
use super::frame::Frame;
use super::merge::Run;
use super::mmsg::Inbox;
use super::outgoing::{Outgoing, Part};
use super::segment;
use super::trace::Fate;
use super::unfinished;
use super::virtio::{self, Offload};
use crate::datapath::ip;

/// Which way a whole frame is on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Again {
    /// A container at this interface has sent it.
    Container(u32),
    /// Netmanager has made it.
    Netmanager,
}

/// A batch on its way, with the tables as they are.
pub(super) struct Way<'a> {
    engine: &'a Engine,
    forward: Forward<'a>,
    /// Who watches is told that it was this one's.
    program: Program,
    out: &'a mut Outgoing,
}

impl<'a> Way<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        forward: Forward<'a>,
        program: Program,
        out: &'a mut Outgoing,
    ) -> Self {
        Self { engine, forward, program, out }
    }

    /// Frames that a container has sent, each behind the kernel's header.
    pub(super) fn container(self, inbox: &mut Inbox, ifindex: u32) {
        let Self { engine, forward, program, out } = self;
        for (number, (_, message)) in inbox.messages().enumerate() {
            let Some((header, bytes)) = message.split_first_chunk_mut::<{ virtio::LEN }>() else { continue };
            let Some(offload) = Offload::read(*header) else {
                engine.memory.counts.dropped(DropReason::UnsupportedProtocol);
                continue;
            };
            let seen = engine.trace.note(program, ifindex, Ip::NONE, inner(bytes));
            let mut frame = whole(&forward, bytes, ifindex, &offload);
            let result = match forward.from_container(&mut frame) {
                Ok(Verdict::Host) => Ok(Fate::Host),
                Ok(Verdict::Deliver(veth)) => {
                    // With the kernel's header, which says of the frame what it has said before.
                    let length = virtio::LEN + bytes.len();
                    out.deliver(veth.ifindex, [Part { input: Some(number), start: 0, length }]);
                    Ok(Fate::Delivered)
                }
                Ok(Verdict::Send { node, port }) => {
                    let join = engine.may_join(&forward, node);
                    let place = Part { input: Some(number), start: virtio::LEN, length: bytes.len() };
                    let left = leave(bytes, place, &offload, out, |out, parts| {
                        out.send((node, port), parts.iter().copied(), join);
                    });
                    left.map(|()| Fate::Sent(node))
                }
                Err(reason) => Err(reason),
            };
            let fate = result
                .unwrap_or_else(|reason| engine.refuse_sent(&forward, reason, bytes, ifindex, &offload));
            engine.trace.tell(seen, fate, inner(bytes), forward.now);
        }
    }

    /// Datagrams that have arrived from other nodes.
    pub(super) fn tunnel(&mut self, inbox: &mut Inbox) {
        let mut run: Option<(Ip, Run)> = None;
        // Immutable from here on: what is rewritten are copies of headers.
        let messages: Vec<_> = inbox.messages().map(|(arrived, _)| arrived).collect();
        for (number, arrived) in messages.iter().enumerate() {
            let Some(from) = arrived.from else { continue };
            let peer = ip(from.ip().to_canonical());
            let bytes = &inbox.buffer(number)[..arrived.length];
            if bytes.is_empty() {
                self.engine.memory.counts.dropped(DropReason::Malformed);
                continue;
            }
            self.forward.tables.heard(peer, netmanager_common::wire::Be16::new(from.port()));
            let mut start = 0;
            for packet in bytes.chunks(arrived.segment.max(1)) {
                let place = Part { input: Some(number), start, length: packet.len() };
                start += packet.len();
                if let Some((of, run)) = &mut run
                    && *of == peer
                    && run.extend(packet, place)
                {
                    continue;
                }
                if let Some((peer, done)) = run.take() {
                    self.merged(done, peer, inbox);
                }
                match Run::begin(packet, place) {
                    Some(begun) => run = Some((peer, begun)),
                    None => self.single(packet, peer),
                }
            }
        }
        if let Some((peer, done)) = run {
            self.merged(done, peer, inbox);
        }
    }

    /// One packet that has arrived.
    pub(super) fn single(&mut self, packet: &[u8], peer: Ip) {
        let start = self.out.made.len();
        let offload = unfinished::offload(packet, self.forward.tables.node.inner_mtu);
        self.out.made.extend_from_slice(&offload.bytes());
        self.out.made.extend_from_slice(&[0; ETHERNET_LEN as usize]);
        self.out.made.extend_from_slice(packet);
        let (uplink, bytes) = (self.uplink(), &mut self.out.made[start + virtio::LEN..]);
        let seen = self.engine.trace.note(self.program, uplink, peer, packet);
        let mut frame = whole(&self.forward, bytes, uplink, &offload);
        let fate = match self.forward.from_uplink(&mut frame, peer) {
            Ok(Verdict::Deliver(veth)) => {
                let length = self.out.made.len() - start;
                self.out.deliver(veth.ifindex, [Part { input: None, start, length }]);
                Fate::Delivered
            }
            Ok(Verdict::Send { .. } | Verdict::Host) => return self.out.made.truncate(start),
            Err(reason) => {
                self.out.made.truncate(start);
                self.engine.refuse_arrived(&self.forward, reason, packet, peer)
            }
        };
        self.engine.trace.tell(seen, fate, self.made(start), self.forward.now);
    }

    /// The packet that was made from there on, if it was.
    fn made(&self, start: usize) -> &[u8] {
        inner(self.out.made.get(start + virtio::LEN..).unwrap_or_default())
    }

    /// Segments that have arrived one behind the other.
    fn merged(&mut self, mut run: Run, peer: Ip, inbox: &Inbox) {
        if run.count() == 1 {
            for packet in run.packets() {
                self.single(
                    &inbox.buffer(packet.input.unwrap_or_default())[packet.start..][..packet.length],
                    peer,
                );
            }
            return;
        }
        let start = self.out.made.len();
        let (headers, offload) = run.finish();
        self.out.made.extend_from_slice(&offload.bytes());
        self.out.made.extend_from_slice(&[0; ETHERNET_LEN as usize]);
        self.out.made.extend_from_slice(headers);
        let (uplink, bytes) = (self.uplink(), &mut self.out.made[start + virtio::LEN..]);
        let seen = self.engine.trace.note(self.program, uplink, peer, inner(bytes));
        let mut frame = whole(&self.forward, bytes, uplink, &offload);
        frame.length += run.payload.iter().map(|part| u32::try_from(part.length).unwrap_or(0)).sum::<u32>();
        let fate = match self.forward.from_uplink(&mut frame, peer) {
            Ok(Verdict::Deliver(veth)) => {
                let length = self.out.made.len() - start;
                let head = Part { input: None, start, length };
                self.out.deliver(veth.ifindex, std::iter::once(head).chain(run.payload.iter().copied()));
                Fate::Delivered
            }
            Ok(Verdict::Send { .. } | Verdict::Host) => return self.out.made.truncate(start),
            Err(reason) => {
                self.out.made.truncate(start);
                let mut fate = Fate::Dropped(reason);
                for packet in run.packets() {
                    let bytes =
                        &inbox.buffer(packet.input.unwrap_or_default())[packet.start..][..packet.length];
                    fate = self.engine.refuse_arrived(&self.forward, reason, bytes, peer);
                }
                fate
            }
        };
        self.engine.trace.tell(seen, fate, self.made(start), self.forward.now);
    }

    /// A whole frame once more.
    pub(super) fn again(self, bytes: &mut [u8], origin: Again) {
        let Self { engine, forward, program, out } = self;
        let plain = Offload::default();
        let ifindex = if let Again::Container(ifindex) = origin { ifindex } else { 0 };
        let seen = engine.trace.note(program, ifindex, Ip::NONE, inner(bytes));
        let mut frame = whole(&forward, bytes, ifindex, &plain);
        let verdict = match origin {
            Again::Container(_) => forward.from_container(&mut frame),
            Again::Netmanager => forward.from_netmanager(&mut frame),
        };
        let fate = match verdict {
            Ok(Verdict::Host) => Fate::Host,
            Ok(Verdict::Deliver(veth)) => {
                let header = out.make(&plain.bytes());
                let frame = out.make(bytes);
                out.deliver(veth.ifindex, [header, frame]);
                Fate::Delivered
            }
            Ok(Verdict::Send { node, port }) => {
                let packet = out.make(inner(bytes));
                out.send((node, port), [packet], false);
                Fate::Sent(node)
            }
            Err(reason) if ifindex != 0 => engine.refuse_sent(&forward, reason, bytes, ifindex, &plain),
            Err(reason) => engine.drop(reason),
        };
        engine.trace.tell(seen, fate, inner(bytes), forward.now);
    }

    /// Where what arrives has arrived, for fragments.
    fn uplink(&self) -> u32 {
        self.forward.tables.node.uplink_ifindex
    }
}

/// What is behind the Ethernet header.
fn inner(frame: &[u8]) -> &[u8] {
    frame.get(usize::from(ETHERNET_LEN)..).unwrap_or_default()
}

fn whole<'a>(forward: &Forward<'a>, bytes: &'a mut [u8], ifindex: u32, offload: &Offload) -> Frame<'a> {
    Frame {
        length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        bytes,
        gso_size: offload.segments.map_or(0, |segments| segments.size),
        open_checksum: offload.checksum.is_some(),
        ifindex,
        fragments: &forward.memory.fragments,
        now: forward.now,
    }
}

/// Makes packets for the wire of a frame that lies at `place`: complete, and cut if it is a super-packet.
pub(super) fn leave(
    frame: &mut [u8],
    place: Part,
    offload: &Offload,
    out: &mut Outgoing,
    mut send: impl FnMut(&mut Outgoing, &[Part]),
) -> Result<(), DropReason> {
    const ETHERNET: usize = ETHERNET_LEN as usize;
    match (offload.segments, offload.checksum) {
        (Some(segments), Some((start, _))) => {
            let transport = usize::from(start).checked_sub(ETHERNET).ok_or(DropReason::Malformed)?;
            let packet = frame.get(ETHERNET..).ok_or(DropReason::Malformed)?;
            segment::cut(packet, transport, segments.protocol(), segments.size, |headers, piece| {
                let start = place.start + ETHERNET + piece.start;
                let parts = [out.make(headers), Part { start, ..piece.of(place) }];
                send(out, &parts);
            })
        }
        (_, checksum) => {
            if let Some(checksum) = checksum {
                segment::complete(frame, checksum)?;
            }
            let length = place.length.checked_sub(ETHERNET).ok_or(DropReason::Malformed)?;
            send(out, &[Part { start: place.start + ETHERNET, length, ..place }]);
            Ok(())
        }
    }
}
