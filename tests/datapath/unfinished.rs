//! A node whose tunnel is a UDP socket, as Oakestra's is, on a link where nobody completes the checksums that the kernel
//! leaves to network cards: so it is between virtual machines and namespaces of one host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use etherparse::{IpHeaders, NetHeaders, PacketBuilder, PacketBuilderStep, PacketHeaders, TransportHeader};
use integration::Netns;
use netmanager::datapath::{Backend, Policy};

use crate::nodes::{Family, TUNNEL_PORT, Underlay, any, kernel_has_ipv6, service};
use crate::talk::{PORT, connect};
use crate::wire::set;

/// `linux/udp.h`
const UDP_NO_CHECK6_RX: i32 = 102;
const PATIENCE: Duration = Duration::from_secs(5);

fn peer(outer: Family) -> IpAddr {
    match outer {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 99).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99).into(),
    }
}

/// The instance there.
fn server(outer: Family) -> Backend {
    Backend {
        ns_ip: Ipv4Addr::new(10, 18, 99, 2),
        ns_ip6: Some(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0x6302)),
        instance_ip: Ipv4Addr::new(10, 30, 99, 2),
        instance_ip6: Some(Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0x6302)),
        node: SocketAddr::new(peer(outer), TUNNEL_PORT),
    }
}

/// What the instance says to the client's packet, as its node sends it: SYN-ACK, or the payload again.
fn answer(packet: &[u8], server: &Backend, client: &Backend) -> Option<Vec<u8>> {
    let headers = PacketHeaders::from_ip_slice(packet).ok()?;
    let ip: PacketBuilderStep<IpHeaders> = match headers.net? {
        NetHeaders::Ipv4(..) => PacketBuilder::ipv4(server.instance_ip.octets(), client.ns_ip.octets(), 64),
        NetHeaders::Ipv6(..) => {
            PacketBuilder::ipv6(server.instance_ip6?.octets(), client.ns_ip6?.octets(), 64)
        }
        NetHeaders::Arp(_) => return None,
    };
    let mut bytes = Vec::new();
    match headers.transport? {
        TransportHeader::Tcp(tcp) if tcp.syn => {
            let answer = ip
                .tcp(tcp.destination_port, tcp.source_port, 1000, 500)
                .syn()
                .ack(tcp.sequence_number.wrapping_add(1))
                .options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)])
                .ok()?;
            answer.write(&mut bytes, &[]).ok()?;
        }
        TransportHeader::Udp(udp) => {
            ip.udp(udp.destination_port, udp.source_port).write(&mut bytes, headers.payload.slice()).ok()?;
        }
        _ => return None,
    }
    Some(bytes)
}

/// Joins the node, whose socket answers.
fn join(underlay: &Underlay, outer: Family, client: Backend) -> Netns {
    let netns = Netns::new("peer").unwrap();
    integration::netns::connect((&netns, "up0"), (&underlay.switch, "port99")).unwrap();
    underlay.switch.ip("link set port99 master br0").unwrap();
    let (prefix, nodad) = if outer == Family::V4 { (24, "") } else { (64, "nodad") };
    netns.ip(&format!("addr add {}/{prefix} dev up0 {nodad}", peer(outer))).unwrap();
    let socket = netns.run(|| UdpSocket::bind((peer(outer), TUNNEL_PORT)).unwrap()).unwrap();
    // The kernel refuses a datagram over IPv6 without a checksum, unless it is told that this is a tunnel.
    if outer == Family::V6 {
        set(&socket, libc::IPPROTO_UDP, UDP_NO_CHECK6_RX, 1).unwrap();
    }
    let server = server(outer);
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length], &server, &client) {
                // To the tunnel port, wherever it was sent from.
                socket.send_to(&answer, (from.ip(), TUNNEL_PORT)).ok();
            }
        }
    });
    netns
}

fn expect_answers(inner: Family, outer: Family) {
    let mut underlay = Underlay::of(outer, 1);
    let client = underlay.nodes[0].container(2);
    let server = server(outer);
    underlay.nodes[0]
        .within(|datapath| {
            for address in [IpAddr::V4(server.instance_ip), server.instance_ip6.expect("it has one").into()] {
                datapath.publish_service(address, Policy::Instance, &[server])?;
            }
            datapath.publish_service(service(inner), Policy::RoundRobin, &[server])
        })
        .unwrap();
    let _peer = join(&underlay, outer, client.backend);
    let socket = client.netns.run(|| UdpSocket::bind((any(inner), 0)).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect((service(inner), PORT)).unwrap();
    let mut buffer = [0; 2048];
    for length in [0, 1, 2, 17, 1000, 1400] {
        let sent = vec![7; length];
        socket.send(&sent).unwrap();
        let received = socket
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("{inner:?} over {outer:?}, {length}: {error}"));
        assert_eq!(buffer[..received], sent);
    }
    connect(&client, service(inner));
    assert_eq!(underlay.nodes[0].datapath.counters().unwrap().drops, []);
}

#[test]
fn answers_of_a_node_whose_outer_checksums_nobody_completes_arrive() {
    expect_answers(Family::V4, Family::V4);
}

#[test]
fn answers_of_such_a_node_arrive_in_all_combinations_of_ip_versions() {
    if !kernel_has_ipv6() {
        println!("skipped: this kernel has no IPv6");
        return;
    }
    for (inner, outer) in [(Family::V6, Family::V4), (Family::V4, Family::V6), (Family::V6, Family::V6)] {
        expect_answers(inner, outer);
    }
}
