//! What is to be sent after a batch was looked at: messages, put together from parts of what came in and of headers that
//! were made for them, so that no payload is copied here.

use netmanager_common::wire::{Be16, Ip};

/// Segments that the kernel takes in one (`UDP_MAX_SEGMENTS` was 64 before Linux 6.9).
const MOST_SEGMENTS: usize = 64;
/// Bytes of payload that it takes in one: what fits into an IP packet with its headers.
const MOST_BYTES: usize = 65_535 - 48;

/// Bytes that go along, without being copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The number of the buffer that they came in, or nothing for what was made here.
    pub(super) input: Option<usize>,
    pub(super) start: usize,
    pub(super) length: usize,
}

impl Part {
    /// The same place in the buffer of `other`.
    pub(super) fn of(self, other: Self) -> Self {
        Self { input: other.input, ..self }
    }
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// A container, by the host side of its veth: a frame with the kernel's header before it.
    Container(u32),
    /// A node: one or more packets for the tunnel.
    Node(Ip, Be16),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) to: To,
    /// Of [`Outgoing::parts`].
    pub(super) parts: std::ops::Range<usize>,
    /// Bytes of each of its packets; the last one may have less.
    pub(super) segment: usize,
    /// How many packets.
    pub(super) count: usize,
    /// Without outer checksums.
    pub(super) bare: bool,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) made: Vec<u8>,
    pub(super) parts: Vec<Part>,
    pub(super) messages: Vec<Message>,
}

impl Outgoing {
    pub(super) fn clear(&mut self) {
        self.made.clear();
        self.parts.clear();
        self.messages.clear();
    }

    /// Keeps bytes that were made here.
    pub(super) fn make(&mut self, bytes: &[u8]) -> Part {
        let start = self.made.len();
        self.made.extend_from_slice(bytes);
        Part { input: None, start, length: bytes.len() }
    }

    /// A frame for a container.
    pub(super) fn deliver(&mut self, ifindex: u32, parts: impl IntoIterator<Item = Part>) {
        self.begin(To::Container(ifindex), parts);
    }

    /// A packet for another node. `join`: it may go together with others of its size, and then has an outer checksum.
    pub(super) fn send(
        &mut self,
        (node, port): (Ip, Be16),
        parts: impl IntoIterator<Item = Part>,
        join: bool,
    ) {
        let to = To::Node(node, port);
        let start = self.parts.len();
        self.parts.extend(parts);
        let size: usize = self.parts[start..].iter().map(|part| part.length).sum();
        if join
            && let Some(last) = self.messages.last_mut()
            && last.to == to
            && !last.bare
            // Only the last one of a message may be shorter.
            && last.bytes == last.segment * last.count
            && size <= last.segment
            && last.count < MOST_SEGMENTS
            && last.bytes + size <= MOST_BYTES
        {
            last.parts.end = self.parts.len();
            last.count += 1;
            last.bytes += size;
            return;
        }
        let parts = start..self.parts.len();
        self.messages.push(Message { to, parts, segment: size, count: 1, bare: !join, bytes: size });
    }

    fn begin(&mut self, to: To, parts: impl IntoIterator<Item = Part>) {
        let start = self.parts.len();
        self.parts.extend(parts);
        let bytes = self.parts[start..].iter().map(|part| part.length).sum();
        let parts = start..self.parts.len();
        self.messages.push(Message { to, parts, segment: bytes, count: 1, bare: false, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::{Outgoing, Part};
    use crate::datapath::ip;
    use netmanager_common::wire::{Be16, Ip};

    fn node(last: u8) -> (Ip, Be16) {
        (ip([192, 0, 2, last].into()), Be16::new(50103))
    }

    fn sizes(packets: &[(u8, usize, bool)]) -> Vec<(usize, usize)> {
        let mut out = Outgoing::default();
        for (last, size, join) in packets {
            out.send(node(*last), [Part { input: Some(0), start: 0, length: *size }], *join);
        }
        out.messages.iter().map(|message| (message.segment, message.count)).collect()
    }

    #[test]
    fn packets_of_one_size_to_one_node_go_together_and_a_shorter_one_is_the_last() {
        assert_eq!(
            sizes(&[(2, 1450, true), (2, 1450, true), (2, 100, true), (2, 100, true)]),
            [(1450, 3), (100, 1)]
        );
        assert_eq!(sizes(&[(2, 100, true), (2, 1450, true)]), [(100, 1), (1450, 1)]);
        assert_eq!(sizes(&[(2, 100, true), (3, 100, true)]), [(100, 1), (100, 1)]);
        assert_eq!(sizes(&[(2, 100, false), (2, 100, false)]), [(100, 1), (100, 1)]);
    }

    #[test]
    fn a_message_is_no_longer_than_the_kernel_takes() {
        assert_eq!(sizes(&[(2, 64, true); 100]), [(64, 64), (64, 36)]);
        assert_eq!(sizes(&[(2, 1450, true); 50]), [(1450, 45), (1450, 5)]);
    }
}
