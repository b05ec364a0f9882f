//! Questions to a backend, as one of this node's containers would ask them. They take the whole way that the container's
//! packets take, and so does the answer: the kernel side notes it like any other, and the container, which has not asked,
//! ignores it (RFC 9293, 3.10.7.1: a reset ends the half-open connection before anybody has accepted it).

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use netmanager_common::punt::{Origin, TAG_LEN, Tag};
use netmanager_common::wire::ETHERNET_LEN;

use crate::datapath::Endpoint;

const TTL: u8 = 64;
const WINDOW: u16 = 1024;
/// Clients have higher ports (RFC 6335, 6): no connection of the container's is disturbed.
const PORTS: u16 = 1023;

/// An ICMP echo request. Of two that follow each other the numbers differ, so that each is a flow of its own.
pub fn echo(from: &Endpoint, to: Ipv4Addr, number: u16) -> Vec<u8> {
    let ip = PacketBuilder::ipv4(from.ns_ip.octets(), to.octets(), TTL);
    let builder = ip.icmpv4_echo_request(number, 1);
    framed(from, builder.size(0), |bytes| builder.write(bytes, &[]))
}

/// A TCP SYN to this port. Numbers as in [`echo`].
pub fn connect(from: &Endpoint, to: Ipv4Addr, port: u16, number: u16) -> Vec<u8> {
    let ip = PacketBuilder::ipv4(from.ns_ip.octets(), to.octets(), TTL);
    let builder = ip.tcp(1 + number % PORTS, port, u32::from(number) << 16, WINDOW).syn();
    framed(from, builder.size(0), |bytes| builder.write(bytes, &[]))
}

/// As it is to be written, to begin where the container's frames do.
fn framed<E: std::fmt::Debug>(
    from: &Endpoint,
    size: usize,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usize::from(ETHERNET_LEN) + size);
    bytes.extend(Tag { origin: Origin::Container, reason: 0, ifindex: from.ifindex }.bytes());
    const { assert!(TAG_LEN == 6) };
    bytes.extend(from.mac);
    bytes.extend([0x08, 0x00]);
    write(&mut bytes).expect("a packet without payload fits, and memory does not fail");
    bytes
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    const FROM: Endpoint = Endpoint {
        ns_ip: Ipv4Addr::new(10, 18, 0, 2),
        ns_ip6: None,
        instance_ip: Some(Ipv4Addr::new(10, 30, 0, 7)),
        instance_ip6: None,
        ifindex: 9,
        mac: [2, 0, 0, 0, 0, 9],
        gateway_mac: [2, 0, 0, 0, 0, 1],
    };
    const TO: Ipv4Addr = Ipv4Addr::new(10, 30, 0, 9);

    #[test]
    fn a_probe_is_a_frame_of_the_container() {
        for (number, frame) in [(3, echo(&FROM, TO, 3)), (u16::MAX, connect(&FROM, TO, 80, u16::MAX))] {
            let tag = Tag::read(*frame.first_chunk().unwrap()).unwrap();
            assert_eq!((tag.origin, tag.ifindex), (Origin::Container, 9), "{number}");
            let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { panic!("IPv4") };
            assert_eq!((ip.header().source_addr(), ip.header().destination_addr()), (FROM.ns_ip, TO));
            assert_eq!(&frame[6..12], &FROM.mac);
            match sliced.transport {
                Some(TransportSlice::Tcp(tcp)) => {
                    assert!(tcp.syn() && !tcp.ack() && (1..1024).contains(&tcp.source_port()));
                    assert_eq!(tcp.destination_port(), 80);
                }
                Some(TransportSlice::Icmpv4(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
