//! "Foo over UDP" (`linux/fou.h`), which makes the kernel merge the inner IPv4 packets of
//! [`netmanager_common::link::Link::Bare`]: that it listens on the tunnel's port is all that it is for. Spoken to by generic
//! netlink.
//!
//! Whatever its socket gets goes on as a packet of this node, without its outer headers, so nothing may reach it: see
//! [`crate::bare`], through which it is to be used.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, Nla as _, NlasIterator, Parseable as _,
};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};

use super::NetError;

/// Who knows the numbers of families, and what is said to it (`linux/genetlink.h`).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// The family, and what is said to it.
const NAME: &[u8] = b"fou\0";
const ADD: u8 = 1;
const REMOVE: u8 = 2;
const GET: u8 = 3;
const PORT: u16 = 1;
const FAMILY_OF_ADDRESSES: u16 = 2;
const PROTOCOL: u16 = 3;
const KIND: u16 = 4;
/// What is inside: IPv4, without a header of its own.
const IPV4: u8 = 4;
const DIRECT: u8 = 1;

/// What the outer packets are. The kernel has sockets of either, which do not know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outer {
    V4,
    V6,
}

impl Outer {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Packets to and from this address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `AF_INET` and `AF_INET6`.
    const fn family(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// FOU of one network namespace.
#[derive(Debug)]
pub struct Fou {
    socket: Socket,
    /// The number that it has on this machine.
    family: u16,
}

impl Fou {
    /// Of the namespace of the calling thread. Nothing where the kernel has it not, or its module is not loaded: the kernel
    /// does not load this one when it is asked for it.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn open() -> Result<Option<Self>, NetError> {
        Self::find().map_err(|error| NetError::new("ask whether the kernel has FOU", error.into()))
    }

    fn find() -> io::Result<Option<Self>> {
        let socket = Socket::new(NETLINK_GENERIC)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let words = vec![DefaultNla::new(FAMILY_NAME, NAME.to_vec())];
        let question = Message { family: CONTROL, command: GET_FAMILY, words };
        match ask(&socket, question, NLM_F_REQUEST) {
            Ok(answer) => {
                let family = answer.as_ref().and_then(number_in);
                let family = family.ok_or_else(|| io::Error::other("the answer has no number"))?;
                Ok(Some(Self { socket, family }))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel merges what comes to this port, by [`Self::merge_on`], of this life or an earlier one.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn merges(&self, outer: Outer, port: u16) -> Result<bool, NetError> {
        match self.say(GET, of_port(outer, port), NLM_F_REQUEST) {
            Ok(answer) => Ok(answer.is_some_and(|answer| is_as_made(&answer))),
            // There is none.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(NetError::new(format!("ask whether FOU listens on port {port}"), error.into())),
        }
    }

    /// Lets the kernel merge what comes to this UDP port. Done twice it is done once.
    ///
    /// # Errors
    /// When the kernel refuses: somebody else listens on the port.
    pub fn merge_on(&self, outer: Outer, port: u16) -> Result<(), NetError> {
        // A second one is refused as if the port were somebody else's.
        if self.merges(outer, port)? {
            return Ok(());
        }
        let mut words = of_port(outer, port);
        words.extend([DefaultNla::new(PROTOCOL, vec![IPV4]), DefaultNla::new(KIND, vec![DIRECT])]);
        let added = self.say(ADD, words, NLM_F_REQUEST | NLM_F_ACK);
        added.map(drop).map_err(|error| {
            NetError::new(format!("have the kernel merge what comes to port {port}"), error.into())
        })
    }

    /// Ends it; none is no failure, and one that is not as [`Self::merge_on`] makes it is somebody else's. Says whether there
    /// was one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn merge_no_more(&self, outer: Outer, port: u16) -> Result<bool, NetError> {
        if !self.merges(outer, port)? {
            return Ok(false);
        }
        let removed = self.say(REMOVE, of_port(outer, port), NLM_F_REQUEST | NLM_F_ACK);
        removed.map(|_done| true).map_err(|error| {
            NetError::new(format!("have the kernel merge no more what comes to port {port}"), error.into())
        })
    }

    fn say(&self, command: u8, words: Vec<DefaultNla>, flags: u16) -> io::Result<Option<Message>> {
        ask(&self.socket, Message { family: self.family, command, words }, flags)
    }
}

fn of_port(outer: Outer, port: u16) -> Vec<DefaultNla> {
    vec![
        DefaultNla::new(PORT, port.to_be_bytes().to_vec()),
        DefaultNla::new(FAMILY_OF_ADDRESSES, vec![outer.family()]),
    ]
}

fn is_as_made(answer: &Message) -> bool {
    answer.word(PROTOCOL) == Some(vec![IPV4]) && answer.word(KIND) == Some(vec![DIRECT])
}

/// The number of a family, in an answer about it.
fn number_in(answer: &Message) -> Option<u16> {
    Some(u16::from_ne_bytes(*answer.word(FAMILY_ID)?.first_chunk()?))
}

/// Sends, and gives the answer; nothing if all it says is that it is done. Each question has one answer, which is there when
/// it has been sent.
fn ask(socket: &Socket, question: Message, flags: u16) -> io::Result<Option<Message>> {
    socket.send(&question.bytes(flags), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    read(&answer)
}

fn read(answer: &[u8]) -> io::Result<Option<Message>> {
    match NetlinkMessage::deserialize(answer).map_err(io::Error::other)?.payload {
        NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(None),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(io::Error::other(format!("unexpected answer over netlink: {other:?}"))),
    }
}

/// A message of generic netlink: `struct genlmsghdr`, and words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    family: u16,
    command: u8,
    words: Vec<DefaultNla>,
}

impl Message {
    const HEADER: usize = 4;
    const VERSION: u8 = 1;

    fn bytes(self, flags: u16) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(self));
        message.header.flags = flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn word(&self, kind: u16) -> Option<Vec<u8>> {
        let word = self.words.iter().find(|word| word.kind() == kind)?;
        let mut value = vec![0; word.value_len()];
        word.emit_value(&mut value);
        Some(value)
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        Self::HEADER + self.words.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, words) = buffer.split_at_mut(Self::HEADER);
        header.copy_from_slice(&[self.command, Self::VERSION, 0, 0]);
        self.words.as_slice().emit(words);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (Some(command), Some(words)) = (payload.first(), payload.get(Self::HEADER..)) else {
            return Err(DecodeError::buffer_too_small(payload.len(), Self::HEADER));
        };
        let words = NlasIterator::new(words).map(|word| DefaultNla::parse(&word?));
        Ok(Self {
            family: header.message_type,
            command: *command,
            words: words.collect::<Result<_, DecodeError>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(family: u16, words: &[(u16, &[u8])]) -> Message {
        let words = words.iter().map(|(kind, value)| DefaultNla::new(*kind, value.to_vec())).collect();
        Message { family, command: 1, words }
    }

    #[test]
    fn questions_are_as_the_kernels_headers_say() {
        let mut words = of_port(Outer::V6, 50103);
        words.push(DefaultNla::new(PROTOCOL, vec![IPV4]));
        let bytes = Message { family: 27, command: ADD, words }.bytes(NLM_F_REQUEST | NLM_F_ACK);
        assert_eq!(bytes.len(), 16 + 4 + 3 * 8);
        let header = [&44_u32.to_ne_bytes()[..], &27_u16.to_ne_bytes(), &5_u16.to_ne_bytes(), &[0; 8]];
        assert_eq!(bytes[..16], header.concat());
        assert_eq!(bytes[16..20], [1, 1, 0, 0]);
        // Each word is a length, a kind and a value, which is padded. The port is as in packets.
        let word = |length: u16, kind: u16, value: [u8; 4]| {
            [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &value].concat()
        };
        let words = [word(6, 1, [195, 183, 0, 0]), word(5, 2, [10, 0, 0, 0]), word(5, 3, [4, 0, 0, 0])];
        assert_eq!(bytes[20..], words.concat());
    }

    #[test]
    fn a_family_is_known_by_its_number() {
        let known = answer(CONTROL, &[(FAMILY_NAME, NAME), (FAMILY_ID, &27_u16.to_ne_bytes())]);
        let bytes = known.clone().bytes(0);
        assert_eq!(read(&bytes).unwrap(), Some(known.clone()));
        assert_eq!(number_in(&known), Some(27));
        for broken in [answer(CONTROL, &[(FAMILY_NAME, NAME)]), answer(CONTROL, &[(FAMILY_ID, &[27])])] {
            assert_eq!(number_in(&broken), None);
        }
        for length in 0..bytes.len() {
            read(&bytes[..length]).unwrap_err();
        }
    }

    #[test]
    fn only_what_is_as_we_make_it_is_ours() {
        let of = |protocol: u8, kind: u8| answer(27, &[(PROTOCOL, &[protocol]), (KIND, &[kind])]);
        assert!(is_as_made(&of(IPV4, DIRECT)));
        // Inner IPv6, another format, and an answer that does not tell.
        for foreign in [of(41, DIRECT), of(IPV4, 2), answer(27, &[(PROTOCOL, &[IPV4])])] {
            assert!(!is_as_made(&foreign), "{foreign:?}");
        }
    }

    #[test]
    fn what_went_wrong_is_read() {
        const ERROR: u16 = 2;
        let said = |number: i32| {
            let mut bytes = answer(ERROR, &[]).bytes(0);
            bytes[16..20].copy_from_slice(&number.to_ne_bytes());
            read(&bytes)
        };
        assert_eq!(said(-libc::EADDRINUSE).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        assert_eq!(said(0).unwrap(), None);
    }
}
