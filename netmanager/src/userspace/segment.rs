//! A super-packet of a container, cut into the packets that go on the wire, each with its own headers and checksum. And
//! a checksum that was left open, completed.

use netmanager_common::checksum::Difference;
use netmanager_common::event::DropReason;
use netmanager_common::wire::{Be16, IPV6_LEN, Ip, Ip4, TCP, TCP_FIN, UDP, UDP_LEN};

use super::outgoing::Part;

const V4: usize = 20;
const V6: usize = IPV6_LEN as usize;
/// The first byte of flags that only the last segment has, and the one that only the first has.
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// Completes the checksum of a frame that was left open: from `start` on, in the field at `offset` from there.
pub(super) fn complete(frame: &mut [u8], (start, offset): (u16, u16)) -> Result<(), DropReason> {
    let (start, offset) = (usize::from(start), usize::from(offset));
    // TCP, UDP, ICMPv6. Another one, SCTP's, would be another sum.
    if !matches!(offset, 2 | 6 | 16) {
        return Err(DropReason::UnsupportedProtocol);
    }
    let transport = frame.get_mut(start..).ok_or(DropReason::Malformed)?;
    let sum = Difference::NONE.and_bytes(transport).finish();
    let field = transport.get_mut(offset..offset + 2).ok_or(DropReason::Malformed)?;
    // Of UDP, zero would say that there is none.
    let is_zero_udp = offset == 6 && sum == Be16::new(0);
    field.copy_from_slice(if is_zero_udp { &[0xff; 2] } else { &sum.0 });
    Ok(())
}

/// Cuts `packet`, an IP packet whose transport header begins at `transport` and whose payload is to be cut into pieces
/// of `size` bytes. For each piece `each` is given its headers, and where in the packet the payload is.
pub(super) fn cut(
    packet: &[u8],
    transport: usize,
    protocol: u8,
    size: u16,
    mut each: impl FnMut(&[u8], Part),
) -> Result<(), DropReason> {
    let length = match protocol {
        TCP => usize::from(packet.get(transport + 12).ok_or(DropReason::Malformed)? >> 4) * 4,
        _ => UDP_LEN.into(),
    };
    let end = transport + length;
    let (headers, payload) = packet.split_at_checked(end).ok_or(DropReason::Malformed)?;
    // As long as IP headers without options and TCP headers may be; more extension headers than that nobody segments.
    let mut copy = [0; 256];
    let copy = copy.get_mut(..end).ok_or(DropReason::ExtensionHeaders)?;
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    if payload.is_empty() || transport < if is_v4 { V4 } else { V6 } || (protocol == TCP && length < 20) {
        return Err(DropReason::Malformed);
    }
    let step = usize::from(size).max(1);
    let (source, destination) = addresses(packet, is_v4);
    for (number, piece) in payload.chunks(step).enumerate() {
        let at = number * step;
        copy.copy_from_slice(headers);
        let carried = u16::try_from(length + piece.len()).ok().ok_or(DropReason::TooBig)?;
        let total = u16::try_from(end + piece.len()).ok().ok_or(DropReason::TooBig)?;
        if is_v4 {
            ipv4(copy, total, number);
        } else {
            copy[4..6].copy_from_slice(&(total - IPV6_LEN).to_be_bytes());
        }
        let header = &mut copy[transport..];
        let field = if protocol == TCP {
            tcp(header, at, at + piece.len() == payload.len());
            16
        } else {
            header[4..6].copy_from_slice(&carried.to_be_bytes());
            6
        };
        header[field..field + 2].fill(0);
        let sum = Difference::NONE.and_pseudo_header(source, destination, protocol, carried);
        let sum = sum.and_bytes(header).and_bytes(piece).finish();
        let is_zero_udp = protocol == UDP && sum == Be16::new(0);
        header[field..field + 2].copy_from_slice(if is_zero_udp { &[0xff; 2] } else { &sum.0 });
        each(copy, Part { input: None, start: end + at, length: piece.len() });
    }
    Ok(())
}

/// The header of the segment with this number.
fn ipv4(header: &mut [u8], total: u16, number: usize) {
    let first = u16::from_be_bytes([header[4], header[5]]);
    #[expect(clippy::cast_possible_truncation, reason = "numbers of datagrams begin anew")]
    let identification = first.wrapping_add(number as u16);
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[4..6].copy_from_slice(&identification.to_be_bytes());
    header[10..12].fill(0);
    let sum = Difference::NONE.and_bytes(&header[..V4]).finish();
    header[10..12].copy_from_slice(&sum.0);
}

/// The header of the segment that begins `at` bytes behind the first one.
fn tcp(header: &mut [u8], at: usize, is_last: bool) {
    let first = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    #[expect(clippy::cast_possible_truncation, reason = "less than 65,536")]
    let sequence = first.wrapping_add(at as u32);
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !is_last {
        header[13] &= !(TCP_FIN | TCP_PSH);
    }
    if at > 0 {
        header[13] &= !TCP_CWR;
    }
}

/// Source and destination of a packet that is long enough for them.
pub(super) fn addresses(packet: &[u8], is_v4: bool) -> (Ip, Ip) {
    let v4 = |at: usize| packet[at..].first_chunk().map_or(Ip::NONE, |octets| Ip::from_v4(Ip4(*octets)));
    let v6 = |at: usize| packet[at..].first_chunk().map_or(Ip::NONE, |octets| Ip::from_octets(*octets));
    if is_v4 { (v4(12), v4(16)) } else { (v6(8), v6(24)) }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    use netmanager_common::wire::{TCP, UDP};
    use proptest::prelude::*;

    use super::{complete, cut};

    fn pieces(packet: &[u8], transport: usize, protocol: u8, size: u16) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        cut(packet, transport, protocol, size, |headers, part| {
            pieces.push([headers, &packet[part.start..part.start + part.length]].concat());
        })
        .unwrap();
        pieces
    }

    /// Another parser's opinion on lengths and checksums; gives the payload.
    fn payload(packet: &[u8]) -> Vec<u8> {
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let ip = sliced.net.as_ref().unwrap();
        match (&sliced.transport, ip) {
            (Some(TransportSlice::Tcp(tcp)), etherparse::NetSlice::Ipv4(ip)) => {
                let header = ip.header().to_header();
                assert_eq!(header.calc_header_checksum(), header.header_checksum);
                let sum = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination());
                assert_eq!(sum.unwrap(), tcp.checksum());
                tcp.payload().to_vec()
            }
            (Some(TransportSlice::Tcp(tcp)), etherparse::NetSlice::Ipv6(ip)) => {
                let sum = tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination());
                assert_eq!(sum.unwrap(), tcp.checksum());
                tcp.payload().to_vec()
            }
            (Some(TransportSlice::Udp(udp)), etherparse::NetSlice::Ipv4(ip)) => {
                let sum = udp.to_header().calc_checksum_ipv4_raw(
                    ip.header().source(),
                    ip.header().destination(),
                    udp.payload(),
                );
                assert_eq!(sum.unwrap(), udp.checksum());
                udp.payload().to_vec()
            }
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn pieces_are_packets_of_their_own_and_carry_what_the_whole_carried(
            bytes in proptest::collection::vec(any::<u8>(), 1..20_000), size in 100u16..2000, sequence: u32, v6: bool
        ) {
            let builder = if v6 {
                PacketBuilder::ipv6([1; 16], [2; 16], 64)
            } else {
                PacketBuilder::ipv4([10, 30, 0, 7], [10, 18, 0, 66], 64)
            };
            let mut packet = Vec::new();
            builder.tcp(4000, 80, sequence, 1000).ack(7).psh().fin().write(&mut packet, &bytes).unwrap();
            let pieces = pieces(&packet, if v6 { 40 } else { 20 }, TCP, size);
            let mut next = sequence;
            for (number, piece) in pieces.iter().enumerate() {
                let sliced = SlicedPacket::from_ip(piece).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!() };
                prop_assert_eq!(tcp.sequence_number(), next);
                let is_last = number + 1 == pieces.len();
                prop_assert_eq!((tcp.fin(), tcp.psh(), tcp.ack()), (is_last, is_last, true));
                next = next.wrapping_add(u32::try_from(tcp.payload().len()).unwrap());
            }
            prop_assert_eq!(pieces.iter().flat_map(|piece| payload(piece)).collect::<Vec<_>>(), bytes);
        }

        #[test]
        fn datagrams_of_a_super_packet_are_datagrams(
            bytes in proptest::collection::vec(any::<u8>(), 1..9000), size in 1u16..1400
        ) {
            let mut packet = Vec::new();
            PacketBuilder::ipv4([10, 30, 0, 7], [10, 18, 0, 66], 64).udp(4000, 53).write(&mut packet, &bytes).unwrap();
            let pieces = pieces(&packet, 20, UDP, size);
            prop_assert!(pieces.iter().all(|piece| piece.len() <= 28 + usize::from(size)));
            prop_assert_eq!(pieces.iter().flat_map(|piece| payload(piece)).collect::<Vec<_>>(), bytes);
        }

        #[test]
        fn an_open_checksum_is_completed(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let mut packet = Vec::new();
            PacketBuilder::ipv4([10, 30, 0, 7], [10, 18, 0, 66], 64).tcp(1, 2, 3, 4).write(&mut packet, &bytes).unwrap();
            let right = packet.clone();
            let length = u16::try_from(packet.len() - 20).unwrap();
            let (source, destination) = super::addresses(&packet, true);
            let open = netmanager_common::checksum::Difference::NONE
                .and_pseudo_header(source, destination, TCP, length)
                .leave_open();
            packet[36..38].copy_from_slice(&open.0);
            complete(&mut packet, (20, 16)).unwrap();
            prop_assert_eq!(payload(&packet), bytes);
            prop_assert_eq!(packet, right);
        }
    }
}
