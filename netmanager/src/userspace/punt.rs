//! The slow path inside of this process: what [`super::forward`] cannot finish goes to it as the same frames, with the
//! same tags, as the programs would send through the TAP device; and what it writes begins anew here.

use std::sync::{Arc, PoisonError, RwLock};

use netmanager_common::event::DropReason;
use netmanager_common::map::{self, MAX_ENDPOINTS};
use netmanager_common::punt::{Origin, TAG_LEN, Tag, is_slow};
use netmanager_common::tunnel::{OVERHEAD, OVERHEAD6, Path, outer, outer6};
use netmanager_common::wire::{
    Be16, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ip, Ip4, Ipv4, Ipv6, Wire,
};
use tokio::sync::mpsc;

use super::engine::Engine;
use super::forward::Forward;
use super::frame::Frame;
use super::outgoing::{Outgoing, Part};
use super::trace::Fate;
use super::virtio::Offload;
use super::way::{Again, leave};

/// Frames that nobody has read yet. One that finds no room is dropped and counted.
const QUEUE: usize = 512;
const ETHERNET: usize = ETHERNET_LEN as usize;

/// Where frames go, while somebody listens.
#[derive(Debug, Default)]
pub(super) struct Punts(RwLock<Option<mpsc::Sender<Vec<u8>>>>);

/// The slow path's end.
#[derive(Debug)]
pub(crate) struct PuntQueue {
    frames: mpsc::Receiver<Vec<u8>>,
    engine: Arc<Engine>,
}

impl PuntQueue {
    pub(super) fn open(engine: &Arc<Engine>) -> Self {
        let (sender, frames) = mpsc::channel(QUEUE);
        engine.punts.set(Some(sender));
        Self { frames, engine: Arc::clone(engine) }
    }

    /// The next frame, its tag in front. Cancel safe.
    pub(crate) async fn read(&mut self) -> Vec<u8> {
        match self.frames.recv().await {
            Some(frame) => frame,
            // Nobody sends any more: the daemon stops.
            None => std::future::pending().await,
        }
    }

    /// Takes a frame that has such a tag, at once.
    pub(crate) fn write(&self, frame: &[u8]) {
        self.engine.write(frame);
    }
}

impl Punts {
    pub(super) fn set(&self, sender: Option<mpsc::Sender<Vec<u8>>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = sender;
    }

    /// Whether somebody listens.
    pub(super) fn is_open(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn send(&self, frame: Vec<u8>) -> bool {
        let sender = self.0.read().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().is_some_and(|sender| sender.try_send(frame).is_ok())
    }
}

impl Engine {
    /// A frame of a container that cannot go on. One that stands for several goes to the slow path as these.
    pub(super) fn refuse_sent(
        &self,
        forward: &Forward<'_>,
        reason: DropReason,
        bytes: &mut [u8],
        ifindex: u32,
        offload: &Offload,
    ) -> Fate {
        let slot = is_slow(reason as u32).then(|| self.sender(forward, bytes, ifindex)).flatten();
        let Some(slot) = slot else { return self.drop(reason) };
        let mut out = Outgoing::default();
        let tag = tag(Origin::Container, reason, ifindex);
        let mut packets: Vec<Vec<Part>> = Vec::new();
        let place = Part { input: Some(0), start: 0, length: bytes.len() };
        if leave(bytes, place, offload, &mut out, |_, parts| packets.push(parts.to_vec())).is_err() {
            return self.drop(reason);
        }
        let mut fate = Fate::Dropped(reason);
        for parts in packets {
            let mut frame = tag.bytes().to_vec();
            frame.extend_from_slice(&bytes[TAG_LEN..ETHERNET]);
            for Part { input, start, length } in parts {
                let of = if input.is_some() { &*bytes } else { &out.made };
                frame.extend_from_slice(&of[start..start + length]);
            }
            fate = self.punt(frame, slot, reason, forward);
        }
        fate
    }

    /// A packet from another node that cannot go on. To the slow path it goes with outer headers as it may have had.
    pub(super) fn refuse_arrived(
        &self,
        forward: &Forward<'_>,
        reason: DropReason,
        packet: &[u8],
        peer: Ip,
    ) -> Fate {
        let receiver = || forward.tables.veth(&destination(packet)?);
        let receiver = is_slow(reason as u32).then(receiver).flatten();
        let frame = receiver.and_then(|veth| Some((wrapped(forward, reason, packet, peer)?, veth.slot)));
        match frame {
            Some((frame, slot)) => self.punt(frame, slot + MAX_ENDPOINTS, reason, forward),
            None => self.drop(reason),
        }
    }

    fn punt(&self, frame: Vec<u8>, share: u32, reason: DropReason, forward: &Forward<'_>) -> Fate {
        let counts = &self.memory.counts;
        if !counts.take_budget(share, forward.now.0) || !self.punts.send(frame) {
            return self.drop(reason);
        }
        counts.punted(reason);
        Fate::Given(reason)
    }

    /// It goes nowhere, and is counted.
    pub(super) fn drop(&self, reason: DropReason) -> Fate {
        self.memory.counts.dropped(reason);
        Fate::Dropped(reason)
    }

    /// The slot of the container that has truly sent the frame.
    fn sender(&self, forward: &Forward<'_>, bytes: &mut [u8], ifindex: u32) -> Option<u32> {
        let frame = Frame {
            length: 0,
            bytes,
            gso_size: 0,
            open_checksum: false,
            ifindex,
            fragments: &self.memory.fragments,
            now: forward.now,
        };
        let ethernet: Ethernet = frame.load(0)?;
        let sender = match ethernet.ethertype {
            ETHERTYPE_IPV4 => forward.check_sender(&frame, &frame.load::<Ipv4>(ETHERNET_LEN)?, &ethernet),
            ETHERTYPE_IPV6 => forward.check_sender(&frame, &frame.load::<Ipv6>(ETHERNET_LEN)?, &ethernet),
            _ => return None,
        };
        sender.ok().map(|sender| sender.slot)
    }

    /// What the slow path has held, made or translated.
    fn write(&self, frame: &[u8]) {
        let Some(tag) = frame.first_chunk().and_then(|bytes| Tag::read(*bytes)) else { return };
        let (mut out, mut bytes) = (Outgoing::default(), frame.to_vec());
        match tag.origin {
            Origin::Container => self.again(&mut bytes, Again::Container(tag.ifindex), &mut out),
            Origin::Netmanager => self.again(&mut bytes, Again::Netmanager, &mut out),
            Origin::Uplink => {
                if let Some((peer, packet)) = unwrapped(frame) {
                    self.arrived_again(packet, peer, &mut out);
                }
            }
        }
        self.flush(&out, None, 0);
    }
}

fn tag(origin: Origin, reason: DropReason, ifindex: u32) -> Tag {
    let reason = u8::try_from(reason as u32).unwrap_or(u8::MAX);
    Tag { origin, reason, ifindex }
}

fn destination(packet: &[u8]) -> Option<Ip> {
    match packet.first()? >> 4 {
        4 => packet.get(16..)?.first_chunk().map(|octets| Ip::from_v4(Ip4(*octets))),
        6 => packet.get(24..)?.first_chunk().map(|octets| Ip::from_octets(*octets)),
        _ => None,
    }
}

/// The packet in a frame as the uplink would have received it.
fn wrapped(forward: &Forward<'_>, reason: DropReason, packet: &[u8], peer: Ip) -> Option<Vec<u8>> {
    let node = &forward.tables.node;
    let path = Path {
        source: peer,
        destination: node.address_towards(peer),
        source_port: node.tunnel_port,
        destination_port: node.tunnel_port,
    };
    let mut frame = tag(Origin::Uplink, reason, node.uplink_ifindex).bytes().to_vec();
    frame.extend_from_slice(&[0; 6]);
    wrap(&path, packet, &mut frame)?;
    Some(frame)
}

/// A container's frame as the uplink would send it to another node.
pub(super) fn towards(node: &map::Node, to: Ip, port: Be16, sent: &[u8]) -> Option<Vec<u8>> {
    let path = Path {
        source: node.address_towards(to),
        destination: to,
        source_port: node.tunnel_port,
        destination_port: port,
    };
    let mut frame = vec![0; ETHERNET - 2];
    wrap(&path, sent.get(ETHERNET..)?, &mut frame)?;
    Some(frame)
}

/// Appends from the type of an Ethernet frame on: outer headers, and the packet.
fn wrap(path: &Path, packet: &[u8], frame: &mut Vec<u8>) -> Option<()> {
    let length = u16::try_from(packet.len()).ok()?;
    if path.destination.is_v4() {
        frame.extend_from_slice(&ETHERTYPE_IPV4.0);
        frame.extend_from_slice(bytes(&outer(path, length)?));
    } else {
        frame.extend_from_slice(&ETHERTYPE_IPV6.0);
        frame.extend_from_slice(bytes(&outer6(path, length)?));
    }
    frame.extend_from_slice(packet);
    Some(())
}

/// The node and the packet of a frame of the tunnel, as the uplink would receive it.
pub(super) fn unwrapped(frame: &[u8]) -> Option<(Ip, &[u8])> {
    let ethertype = Be16(*frame.get(ETHERNET - 2..)?.first_chunk()?);
    let outer = frame.get(ETHERNET..)?;
    if ethertype == ETHERTYPE_IPV4 {
        let source = Ip::from_v4(Ip4(*outer.get(12..)?.first_chunk()?));
        Some((source, outer.get(OVERHEAD.into()..)?))
    } else {
        let source = Ip::from_octets(*outer.get(8..)?.first_chunk()?);
        Some((source, outer.get(OVERHEAD6.into()..)?))
    }
}

fn bytes<T: Wire>(value: &T) -> &[u8] {
    // SAFETY: as many bytes as the value has, all of them initialised (`Wire`).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
