use std::net::IpAddr;

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::icmpv6::DestUnreachableCode;
use etherparse::{Icmpv4Type, Icmpv6Type, LaxSlicedPacket, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::IcmpError;
use crate::datapath::Arrival;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A UDP packet of the first address to the second one.
fn datagram(from: IpAddr, to: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64).udp(ports.0, ports.1);
            builder.write(&mut bytes, payload).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let builder = PacketBuilder::ipv6(from.octets(), to.octets(), 64).udp(ports.0, ports.1);
            builder.write(&mut bytes, payload).unwrap();
        }
        _ => panic!("two families"),
    }
    bytes
}

/// What the receiver of `packet` says when nobody listens.
fn port_unreachable(packet: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
            let header = ip.header();
            let builder = PacketBuilder::ipv4(header.destination(), header.source(), 64).icmpv4(kind);
            builder.write(&mut bytes, packet).unwrap();
        }
        etherparse::NetSlice::Ipv6(ip) => {
            let kind = Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port);
            let header = ip.header();
            let builder = PacketBuilder::ipv6(header.destination(), header.source(), 64).icmpv6(kind);
            builder.write(&mut bytes, packet).unwrap();
        }
        etherparse::NetSlice::Arp(_) => unreachable!(),
    }
    bytes
}

/// Checks every checksum, the quoted packet's too, by another implementation, which computes them anew.
fn assert_is_error_about(error: &[u8], quoted: &[u8]) {
    let sliced = SlicedPacket::from_ip(error).unwrap();
    let payload = match sliced.transport.as_ref().unwrap() {
        TransportSlice::Icmpv4(icmp) => icmp.payload(),
        TransportSlice::Icmpv6(icmp) => icmp.payload(),
        other => panic!("{other:?}"),
    };
    assert_eq!(payload, quoted, "the quoted packet is as it was sent");
    let mut anew = error.to_vec();
    let header = if error[0] >> 4 == 4 { 20 } else { 40 };
    anew[header + 2..header + 4].fill(0);
    if header == 20 {
        let ip = etherparse::Ipv4Header::from_slice(error).unwrap().0;
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    }
    match sliced.transport.unwrap() {
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
        }
        TransportSlice::Icmpv6(icmp) => {
            let ip = etherparse::Ipv6Header::from_slice(error).unwrap().0;
            assert!(icmp.is_checksum_valid(ip.source, ip.destination));
        }
        _ => unreachable!(),
    }
}

#[test]
fn an_error_says_which_answer_its_receiver_waits_for() {
    let (client, server) = (ip("10.18.0.2"), ip("10.30.0.9"));
    let error = IcmpError::read(&port_unreachable(&datagram(client, server, (5000, 53), b"?"))).unwrap();
    assert_eq!((error.source(), error.destination()), (server, client));
    let answer = Arrival {
        source: server,
        destination: client,
        source_port: 53,
        destination_port: 5000,
        protocol: 17,
    };
    assert_eq!(error.answer(), answer);
}

#[test]
fn a_translated_error_quotes_what_its_receiver_has_sent() {
    for [client, server, instance, service] in [
        ["10.18.0.2", "10.18.0.66", "10.30.0.7", "10.30.30.30"].map(ip),
        ["fc00::2", "fc00::102", "fdff::7", "fdff::3030"].map(ip),
    ] {
        // As the client sent it, and as it came to the server.
        let sent = datagram(client, service, (5000, 53), b"odd");
        let arrived = datagram(instance, server, (5000, 53), b"odd");
        let mut error = IcmpError::read(&port_unreachable(&arrived)).unwrap();
        error.readdress(service, client, service);
        assert_is_error_about(&error.into_bytes(), &sent);
    }
}

#[test]
fn a_quoted_datagram_without_checksum_keeps_none() {
    let [client, server, instance, service] = ["10.18.0.2", "10.18.0.66", "10.30.0.7", "10.30.30.30"].map(ip);
    let without = |from, to| {
        let mut bytes = datagram(from, to, (1, 2), b"");
        bytes[26..28].fill(0);
        bytes
    };
    let mut error = IcmpError::read(&port_unreachable(&without(instance, server))).unwrap();
    error.readdress(service, client, service);
    assert_is_error_about(&error.into_bytes(), &without(client, service));
}

#[test]
fn queries_and_strangers_are_no_errors() {
    let mut echo = Vec::new();
    let builder = PacketBuilder::ipv4([10, 18, 0, 2], [10, 30, 0, 9], 64).icmpv4_echo_request(1, 1);
    builder.write(&mut echo, b"12345678901234567890123456789012").unwrap();
    assert_eq!(IcmpError::read(&echo), None);
    assert_eq!(IcmpError::read(&datagram(ip("10.18.0.2"), ip("10.30.0.9"), (1, 2), &[0; 64])), None);
}

proptest! {
    #[test]
    fn no_bytes_make_it_fail(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool) {
        if let Some(first) = bytes.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        if let Some(mut error) = IcmpError::read(&bytes) {
            let address = if v6 { ip("fdff::1") } else { ip("10.30.0.1") };
            error.readdress(address, address, address);
            prop_assert_eq!(error.into_bytes().len(), bytes.len());
        }
    }

    #[test]
    fn a_cut_off_error_is_refused_or_stays_as_long(length in 0usize..80, v6: bool) {
        let (from, to) = if v6 { (ip("fdff::7"), ip("fc00::2")) } else { (ip("10.30.0.7"), ip("10.18.0.2")) };
        let whole = port_unreachable(&datagram(from, to, (1, 2), b"payload"));
        let cut = &whole[..length.min(whole.len())];
        if let Some(mut error) = IcmpError::read(cut) {
            error.readdress(to, from, to);
            prop_assert_eq!(error.into_bytes().len(), cut.len());
        }
        prop_assert!(LaxSlicedPacket::from_ip(&whole).is_ok());
    }
}
