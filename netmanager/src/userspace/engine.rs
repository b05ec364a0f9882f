//! What all threads share, and the sending of what comes of a batch. The way of its packets is in [`super::way`].

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use netmanager_common::event::DropReason;
use netmanager_common::trace::Program;
use netmanager_common::wire::Ip;

use super::forward::{Forward, Memory};
use super::mmsg::{self, Envelope, Inbox};
use super::moment::now;
use super::outgoing::{Message, Outgoing, Part, To};
use super::punt::Punts;
use super::socket::{ContainerSocket, TunnelSockets};
use super::tables::Tables;
use super::trace::Trace;
use super::way::{Again, Way};
use crate::datapath::from_ip;

/// What all threads share.
#[derive(Debug)]
pub(super) struct Engine {
    tables: RwLock<Tables>,
    sockets: RwLock<Sockets>,
    pub(super) memory: Memory,
    pub(super) punts: Punts,
    pub(super) trace: Trace,
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
            trace: Trace::default(),
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
        let way = Way::new(self, self.forward(&tables), Program::Container, out);
        way.container(inbox, ifindex);
    }

    /// Datagrams that have arrived from other nodes.
    pub(super) fn arrived(&self, inbox: &mut Inbox, out: &mut Outgoing) {
        let tables = self.tables();
        let mut way = Way::new(self, self.forward(&tables), Program::Uplink, out);
        way.tunnel(inbox);
    }

    /// A whole frame that a container has sent and that has waited, or one for the container or node that it names.
    pub(super) fn again(&self, bytes: &mut [u8], origin: Again, out: &mut Outgoing) {
        let tables = self.tables();
        let way = Way::new(self, self.forward(&tables), Program::SlowPath, out);
        way.again(bytes, origin);
    }

    /// A packet that has arrived from another node and has waited.
    pub(super) fn arrived_again(&self, packet: &[u8], peer: Ip, out: &mut Outgoing) {
        let tables = self.tables();
        let mut way = Way::new(self, self.forward(&tables), Program::SlowPath, out);
        way.single(packet, peer);
    }

    fn forward<'a>(&'a self, tables: &'a Tables) -> Forward<'a> {
        Forward { tables, memory: &self.memory, now: now() }
    }

    /// Whether packets to a node may go together.
    pub(super) fn may_join(&self, forward: &Forward<'_>, node: Ip) -> bool {
        !self.no_segmentation.load(Ordering::Relaxed) && forward.tables.takes_segments(node)
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
