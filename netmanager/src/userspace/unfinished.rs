//! Packets that a kernel has left unfinished. Where nodes are joined by virtual links, of machines or namespaces on one
//! host, nothing on the way is a NIC: what the programs of another node hand to such a link still has the checksum of the
//! inner packet left open, and may be a whole super-packet. A program at this end would take both for granted; here
//! they must be recognised, so that the container's kernel is told.

use netmanager_common::checksum::Difference;
use netmanager_common::header::checksum_offset;
use netmanager_common::wire::{
    Be16, ETHERNET_LEN, FRAGMENT_OFFSET, ICMPV6, IPV4_WITHOUT_OPTIONS, MORE_FRAGMENTS, TCP, UDP,
};

use super::segment::addresses;
use super::virtio::{Offload, Segments};

/// What is to be said of a packet that has arrived. One whose complete checksum happens to be the open one is taken for
/// unfinished, and its receiver spared the check.
pub(super) fn offload(packet: &[u8], inner_mtu: u16) -> Offload {
    open(packet, inner_mtu).unwrap_or_default()
}

fn open(packet: &[u8], inner_mtu: u16) -> Option<Offload> {
    let is_v4 = packet.first()? >> 4 == 4;
    let (ip, protocol) = if is_v4 {
        let header: &[u8; 20] = packet.first_chunk()?;
        let part = u16::from_be_bytes([header[6], header[7]]) & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
        (header[0] == IPV4_WITHOUT_OPTIONS && part == 0).then_some((20, header[9]))?
    } else {
        (40, packet.first_chunk::<40>()?[6])
    };
    if !matches!(protocol, TCP | UDP | ICMPV6) {
        return None;
    }
    let field = checksum_offset(protocol)?;
    let carried = u16::try_from(packet.len() - usize::from(ip)).ok()?;
    let (source, destination) = addresses(packet, is_v4);
    let sum = Difference::NONE.and_pseudo_header(source, destination, protocol, carried).leave_open();
    if Be16(*packet.get(usize::from(ip + field)..)?.first_chunk()?) != sum {
        return None;
    }
    let checksum = Some((ETHERNET_LEN + ip, field));
    let is_super = packet.len() > usize::from(inner_mtu) && protocol == TCP;
    let segments = is_super.then(|| {
        let length = packet.get(usize::from(ip) + 12).map_or(20, |byte| u16::from(byte >> 4) * 4);
        Segments::of_tcp(is_v4, inner_mtu.saturating_sub(ip + length).max(1), ETHERNET_LEN + ip + length)
    });
    Some(Offload { checksum, segments })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use netmanager_common::checksum::Difference;
    use netmanager_common::wire::TCP;

    use super::offload;
    use crate::userspace::segment::addresses;
    use crate::userspace::virtio::Offload;

    fn packet(payload: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4([10, 30, 0, 9], [10, 18, 0, 2], 64).tcp(80, 4000, 1, 1000);
        builder.write(&mut bytes, &vec![7; payload]).unwrap();
        bytes
    }

    fn left_open(mut packet: Vec<u8>) -> Vec<u8> {
        let (source, destination) = addresses(&packet, true);
        let carried = u16::try_from(packet.len() - 20).unwrap();
        let open = Difference::NONE.and_pseudo_header(source, destination, TCP, carried).leave_open();
        packet[36..38].copy_from_slice(&open.0);
        packet
    }

    #[test]
    fn a_complete_packet_is_as_it_is_and_an_open_one_is_to_be_completed() {
        assert_eq!(offload(&packet(100), 1450), Offload::default());
        let open = offload(&left_open(packet(100)), 1450);
        assert_eq!((open.checksum, open.segments), (Some((34, 16)), None));
    }

    #[test]
    fn an_open_packet_of_many_segments_is_a_super_packet() {
        let open = offload(&left_open(packet(9000)), 1450);
        assert_eq!(open.segments.map(|segments| segments.size), Some(1410));
    }
}
