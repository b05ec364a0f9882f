//! The packets: TCP segments without flags to a port on which nobody listens. Any kernel answers with resets that say which
//! they answer (RFC 9293, 3.10.7.1), whoever made its node's data plane. Pure.

use std::net::Ipv4Addr;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use netmanager_common::health::QUESTION_PORT;

use crate::userspace::{Offload, leave_open};

/// Payload bytes of a segment: outer headers included it fits every path.
const SEGMENT: u16 = 400;
/// Segments of a question. In one packet they are more than a jumbo frame holds, which would need no cutting.
const SEGMENTS: u16 = 24;
/// Before the payload: Ethernet, IPv4 and TCP.
const HEADERS: u16 = 14 + 20 + 20;

/// What of the segments is left to do on the way. All forms are the same on a wire, so that whoever loses one for another
/// reason loses them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One packet: to cut it, and to complete the checksums.
    Segments,
    /// A packet each: to complete their checksums.
    Checksums,
    /// A packet each: nothing.
    Finished,
}

/// One that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment {
    Last,
    Other,
}

/// The node itself, as it asks: where its own processes' packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    pub ns_ip: Ipv4Addr,
    pub mac: [u8; 6],
    pub gateway_mac: [u8; 6],
}

/// One question, which can be told from all others that are under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) form: Form,
    pub(super) from: Asker,
    pub(super) instance: Ipv4Addr,
    pub(super) port: u16,
    /// The number of its first byte.
    pub(super) first: u32,
}

impl Question {
    /// As they are given to a packet socket, one after the other: the kernel's header, which says what is to be done, and the
    /// frame.
    pub(super) fn packets(&self) -> Vec<Vec<u8>> {
        match self.form {
            Form::Segments => vec![self.packet(0, SEGMENTS)],
            Form::Checksums | Form::Finished => (0..SEGMENTS).map(|number| self.packet(number, 1)).collect(),
        }
    }

    /// Of `count` segments from this one on.
    fn packet(&self, number: u16, count: u16) -> Vec<u8> {
        let Self { form, from, instance, port, .. } = *self;
        let (first, length) = (self.first.wrapping_add((number * SEGMENT).into()), count * SEGMENT);
        let builder = PacketBuilder::ethernet2(from.mac, from.gateway_mac)
            .ipv4(from.ns_ip.octets(), instance.octets(), 64)
            .tcp(port, QUESTION_PORT, first, 0);
        let mut frame = Vec::new();
        // Writing to a vector fails only if the lengths do not fit the headers.
        let _ok = builder.write(&mut frame, &vec![0; usize::from(length)]);
        if form != Form::Finished {
            leave_open(&mut frame);
        }
        let left = match form {
            Form::Segments => Offload::of_tcp_super_packet(SEGMENT, HEADERS),
            Form::Checksums => Offload::of_tcp_checksum(),
            Form::Finished => Offload::default(),
        };
        [&left.bytes()[..], &frame].concat()
    }

    /// Which segment this frame answers, if it is an answer. Of those that come as one packet only the last is answered.
    pub(super) fn answered_by(&self, frame: &[u8]) -> Option<Segment> {
        let Ok(SlicedPacket {
            net: Some(NetSlice::Ipv4(ip)), transport: Some(TransportSlice::Tcp(tcp)), ..
        }) = SlicedPacket::from_ethernet(frame)
        else {
            return None;
        };
        let ends = (ip.header().source_addr(), ip.header().destination_addr());
        let is_answer = ends == (self.instance, self.from.ns_ip)
            && (tcp.source_port(), tcp.destination_port()) == (QUESTION_PORT, self.port)
            && tcp.rst()
            && tcp.ack();
        let (read, all) =
            (tcp.acknowledgment_number().wrapping_sub(self.first), u32::from(SEGMENT * SEGMENTS));
        match read {
            _ if !is_answer => None,
            read if read == all => Some(Segment::Last),
            read if (1..all).contains(&read) => Some(Segment::Other),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::userspace::HEADER_LEN;

    const FORMS: [Form; 3] = [Form::Segments, Form::Checksums, Form::Finished];
    const FROM: Asker = Asker {
        ns_ip: Ipv4Addr::new(10, 18, 0, 126),
        mac: [2, 0, 0, 0, 0, 1],
        gateway_mac: [6, 0, 0, 0, 0, 1],
    };
    const INSTANCE: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 9);

    fn question(form: Form) -> Question {
        Question { form, from: FROM, instance: INSTANCE, port: 77, first: u32::MAX - 100 }
    }

    /// A reset of all up to `acknowledged`.
    fn reset(question: &Question, acknowledged: u32) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(FROM.gateway_mac, FROM.mac)
            .ipv4(INSTANCE.octets(), FROM.ns_ip.octets(), 63)
            .tcp(QUESTION_PORT, question.port, 0, 0)
            .rst()
            .ack(acknowledged);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[]).unwrap();
        frame
    }

    #[test]
    fn resets_say_which_segments_they_answer() {
        for form in FORMS {
            let question = question(form);
            let end = question.first.wrapping_add(24 * 400);
            assert_eq!(question.answered_by(&reset(&question, end)), Some(Segment::Last), "{form:?}");
            let before = reset(&question, end.wrapping_sub(400));
            assert_eq!(question.answered_by(&before), Some(Segment::Other), "{form:?}");
            for other in [question.first, end.wrapping_add(1)] {
                assert_eq!(question.answered_by(&reset(&question, other)), None, "{form:?}");
            }
            let other = Question { port: 78, ..question };
            assert_eq!(question.answered_by(&reset(&other, end)), None, "{form:?}");
            assert_eq!(question.answered_by(&[]), None, "{form:?}");
        }
    }

    #[test]
    fn all_forms_are_the_same_segments_and_only_finished_ones_have_checksums() {
        for form in FORMS {
            let question = question(form);
            let mut next = question.first;
            for packet in question.packets() {
                let sliced = SlicedPacket::from_ethernet(&packet[HEADER_LEN..]).unwrap();
                let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
                    (sliced.net, sliced.transport)
                else {
                    panic!("TCP over IPv4")
                };
                let sum = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap();
                assert_eq!(tcp.checksum() == sum, form == Form::Finished, "{form:?}");
                let flags = [tcp.syn(), tcp.ack(), tcp.fin(), tcp.rst(), tcp.psh(), tcp.urg()];
                assert_eq!(flags, [false; 6], "{form:?}");
                assert_eq!(tcp.sequence_number(), next, "{form:?}");
                next = next.wrapping_add(tcp.payload().len().try_into().unwrap());
            }
            assert_eq!(next, question.first.wrapping_add(24 * 400), "{form:?}");
        }
    }
}
