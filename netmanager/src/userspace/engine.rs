//! A packet's way through this process, from the bytes that came in to the messages that go out; and what of it is
//! shared between threads.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use netmanager_common::event::DropReason;
use netmanager_common::wire::{ETHERNET_LEN, Ip};

use super::forward::{Forward, Memory, Verdict};
use super::frame::Frame;
use super::merge::Run;
use super::mmsg::{self, Envelope, Inbox};
use super::moment::now;
use super::outgoing::{Message, Outgoing, Part, To};
use super::punt::Punts;
use super::segment;
use super::socket::{ContainerSocket, TunnelSockets};
use super::tables::Tables;
use super::unfinished;
use super::virtio::{self, Offload};
use crate::datapath::{from_ip, ip};

/// What all threads share.
#[derive(Debug)]
pub(super) struct Engine {
    tables: RwLock<Tables>,
    sockets: RwLock<Sockets>,
    pub(super) memory: Memory,
    pub(super) punts: Punts,
    /// The uplink's kernel or NIC does not cut datagrams.
    no_segmentation: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) containers: HashMap<u32, Arc<ContainerSocket>>,
    pub(super) tunnels: [Option<Arc<TunnelSockets>>; 2],
}

impl Sockets {
    /// Those towards nodes of a family.
    pub(super) fn tunnel(&self, is_v4: bool) -> Option<Arc<TunnelSockets>> {
        self.tunnels[usize::from(!is_v4)].clone()
    }
}

impl Engine {
    pub(super) fn new(memory: Memory) -> Self {
        Self {
            tables: RwLock::default(),
            sockets: RwLock::default(),
            memory,
            punts: Punts::default(),
            no_segmentation: AtomicBool::new(false),
        }
    }

    // What a thread that panicked has left are whole rows.
    pub(super) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sockets(&self) -> RwLockReadGuard<'_, Sockets> {
        self.sockets.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sockets_mut(&self) -> RwLockWriteGuard<'_, Sockets> {
        self.sockets.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames that a container has sent, each behind the kernel's header.
    pub(super) fn sent(&self, inbox: &mut Inbox, ifindex: u32, out: &mut Outgoing) {
        let tables = self.tables();
        let way = Way { engine: self, forward: self.forward(&tables), out };
        way.container(inbox, ifindex);
    }

    /// Datagrams that have arrived from other nodes.
    pub(super) fn arrived(&self, inbox: &mut Inbox, out: &mut Outgoing) {
        let tables = self.tables();
        let mut way = Way { engine: self, forward: self.forward(&tables), out };
        way.tunnel(inbox);
    }

    /// A whole frame that a container has sent and that has waited, or one for the container or node that it names.
    pub(super) fn again(&self, bytes: &mut [u8], origin: Again, out: &mut Outgoing) {
        let tables = self.tables();
        let way = Way { engine: self, forward: self.forward(&tables), out };
        way.again(bytes, origin);
    }

    /// A packet that has arrived from another node and has waited.
    pub(super) fn arrived_again(&self, packet: &[u8], peer: Ip, out: &mut Outgoing) {
        let tables = self.tables();
        let mut way = Way { engine: self, forward: self.forward(&tables), out };
        way.single(packet, peer);
    }

    fn forward<'a>(&'a self, tables: &'a Tables) -> Forward<'a> {
        Forward { tables, memory: &self.memory, now: now() }
    }

    /// Sends everything. `inputs`: the buffers that the parts are of. `number`: the thread's.
    pub(super) fn flush(&self, out: &Outgoing, inputs: Option<&Inbox>, number: usize) {
        let mut rest = out.messages.as_slice();
        while let Some(first) = rest.first() {
            let together = rest.iter().take_while(|message| may_go_together(message, first)).count();
            let (messages, later) = rest.split_at(together);
            rest = later;
            match first.to {
                To::Container(ifindex) => {
                    // Gone meanwhile: so is who would have got it.
                    let Some(socket) = self.sockets().containers.get(&ifindex).cloned() else { continue };
                    self.send(socket.as_fd(), messages, out, inputs);
                }
                To::Node(node, _) => {
                    let Some(sockets) = self.sockets().tunnel(node.is_v4()) else { continue };
                    sockets.send(number, first.bare, |socket| self.send(socket, messages, out, inputs));
                }
            }
        }
    }

    fn send(&self, socket: BorrowedFd<'_>, messages: &[Message], out: &Outgoing, inputs: Option<&Inbox>) {
        let slice = |part: &Part| {
            let bytes = match (part.input, inputs) {
                (Some(number), Some(inputs)) => inputs.buffer(number),
                _ => &out.made,
            };
            IoSlice::new(bytes.get(part.start..part.start + part.length).unwrap_or_default())
        };
        let slices: Vec<Vec<IoSlice<'_>>> = messages
            .iter()
            .map(|message| out.parts[message.parts.clone()].iter().map(slice).collect())
            .collect();
        let to = |message: &Message| match message.to {
            To::Container(_) => None,
            To::Node(node, port) => Some(SocketAddr::new(from_ip(node), port.get())),
        };
        let envelopes: Vec<_> = messages
            .iter()
            .zip(&slices)
            .map(|(message, parts)| Envelope {
                to: to(message),
                parts,
                segment: (message.count > 1).then(|| u16::try_from(message.segment).unwrap_or(u16::MAX)),
            })
            .collect();
        mmsg::send(socket, &envelopes, |number, error| {
            let (message, envelope) = (&messages[number], &envelopes[number]);
            if message.count > 1 && is_about_segments(&error) {
                if !self.no_segmentation.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "this uplink cuts no datagrams; they are sent one by one, which costs throughput");
                }
                self.send_pieces(socket, message, envelope);
            } else {
                self.memory.counts.dropped(DropReason::KernelRefused);
                tracing::debug!(%error, to = ?message.to, "the kernel does not take a packet");
            }
        });
    }

    /// One by one, what the kernel does not cut.
    fn send_pieces(&self, socket: BorrowedFd<'_>, message: &Message, envelope: &Envelope<'_>) {
        let mut pieces = Vec::new();
        let (mut begin, mut bytes) = (0, 0);
        for (number, part) in envelope.parts.iter().enumerate() {
            bytes += part.len();
            if bytes >= message.segment || number + 1 == envelope.parts.len() {
                let parts = &envelope.parts[begin..=number];
                pieces.push(Envelope { to: envelope.to, parts, segment: None });
                (begin, bytes) = (number + 1, 0);
            }
        }
        mmsg::send(socket, &pieces, |_, _| self.memory.counts.dropped(DropReason::KernelRefused));
    }
}

/// Which way a whole frame is on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Again {
    /// A container at this interface has sent it.
    Container(u32),
    /// Netmanager has made it.
    Netmanager,
}

/// A batch on its way, with the tables as they are.
struct Way<'a> {
    engine: &'a Engine,
    forward: Forward<'a>,
    out: &'a mut Outgoing,
}

impl Way<'_> {
    fn container(self, inbox: &mut Inbox, ifindex: u32) {
        let Self { engine, forward, out } = self;
        for (number, (_, message)) in inbox.messages().enumerate() {
            let Some((header, bytes)) = message.split_first_chunk_mut::<{ virtio::LEN }>() else { continue };
            let Some(offload) = Offload::read(*header) else {
                engine.memory.counts.dropped(DropReason::UnsupportedProtocol);
                continue;
            };
            let mut frame = whole(&forward, bytes, ifindex, &offload);
            let result = match forward.from_container(&mut frame) {
                Ok(Verdict::Host) => Ok(()),
                Ok(Verdict::Deliver(veth)) => {
                    // With the kernel's header, which says of the frame what it has said before.
                    let length = virtio::LEN + bytes.len();
                    out.deliver(veth.ifindex, [Part { input: Some(number), start: 0, length }]);
                    Ok(())
                }
                Ok(Verdict::Send { node, port }) => {
                    let join = engine.may_join(&forward, node);
                    let place = Part { input: Some(number), start: virtio::LEN, length: bytes.len() };
                    leave(bytes, place, &offload, out, |out, parts| {
                        out.send((node, port), parts.iter().copied(), join);
                    })
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = result {
                engine.refuse_sent(&forward, reason, bytes, ifindex, &offload);
            }
        }
    }

    fn tunnel(&mut self, inbox: &mut Inbox) {
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
    fn single(&mut self, packet: &[u8], peer: Ip) {
        let start = self.out.made.len();
        let offload = unfinished::offload(packet, self.forward.tables.node.inner_mtu);
        self.out.made.extend_from_slice(&offload.bytes());
        self.out.made.extend_from_slice(&[0; ETHERNET_LEN as usize]);
        self.out.made.extend_from_slice(packet);
        let (uplink, bytes) = (self.uplink(), &mut self.out.made[start + virtio::LEN..]);
        let mut frame = whole(&self.forward, bytes, uplink, &offload);
        match self.forward.from_uplink(&mut frame, peer) {
            Ok(Verdict::Deliver(veth)) => {
                let length = self.out.made.len() - start;
                self.out.deliver(veth.ifindex, [Part { input: None, start, length }]);
            }
            Ok(Verdict::Send { .. } | Verdict::Host) => self.out.made.truncate(start),
            Err(reason) => {
                self.out.made.truncate(start);
                self.engine.refuse_arrived(&self.forward, reason, packet, peer);
            }
        }
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
        let mut frame = whole(&self.forward, bytes, uplink, &offload);
        frame.length += run.payload.iter().map(|part| u32::try_from(part.length).unwrap_or(0)).sum::<u32>();
        match self.forward.from_uplink(&mut frame, peer) {
            Ok(Verdict::Deliver(veth)) => {
                let length = self.out.made.len() - start;
                let head = Part { input: None, start, length };
                self.out.deliver(veth.ifindex, std::iter::once(head).chain(run.payload.iter().copied()));
            }
            Ok(Verdict::Send { .. } | Verdict::Host) => self.out.made.truncate(start),
            Err(reason) => {
                self.out.made.truncate(start);
                for packet in run.packets() {
                    let bytes =
                        &inbox.buffer(packet.input.unwrap_or_default())[packet.start..][..packet.length];
                    self.engine.refuse_arrived(&self.forward, reason, bytes, peer);
                }
            }
        }
    }

    fn again(self, bytes: &mut [u8], origin: Again) {
        let Self { engine, forward, out } = self;
        let plain = Offload::default();
        let ifindex = if let Again::Container(ifindex) = origin { ifindex } else { 0 };
        let mut frame = whole(&forward, bytes, ifindex, &plain);
        let verdict = match origin {
            Again::Container(_) => forward.from_container(&mut frame),
            Again::Netmanager => forward.from_netmanager(&mut frame),
        };
        match verdict {
            Ok(Verdict::Host) => {}
            Ok(Verdict::Deliver(veth)) => {
                let header = out.make(&plain.bytes());
                let frame = out.make(bytes);
                out.deliver(veth.ifindex, [header, frame]);
            }
            Ok(Verdict::Send { node, port }) => {
                let packet = out.make(&bytes[usize::from(ETHERNET_LEN)..]);
                out.send((node, port), [packet], false);
            }
            Err(reason) if ifindex != 0 => engine.refuse_sent(&forward, reason, bytes, ifindex, &plain),
            Err(reason) => engine.memory.counts.dropped(reason),
        }
    }

    /// Where what arrives has arrived, for fragments.
    fn uplink(&self) -> u32 {
        self.forward.tables.node.uplink_ifindex
    }
}

impl Engine {
    fn may_join(&self, forward: &Forward<'_>, node: Ip) -> bool {
        !self.no_segmentation.load(Ordering::Relaxed) && forward.tables.takes_segments(node)
    }
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

/// Messages that go out at one socket in one way, one behind the other.
fn may_go_together(one: &Message, other: &Message) -> bool {
    one.bare == other.bare
        && match (one.to, other.to) {
            (To::Container(one), To::Container(other)) => one == other,
            (To::Node(one, _), To::Node(other, _)) => one.is_v4() == other.is_v4(),
            _ => false,
        }
}

/// `EIO`: the device has no checksum offload. `EINVAL`, `EOPNOTSUPP`: the kernel cuts nothing.
fn is_about_segments(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP))
}
