//! Nodes between which a link carries less than their uplinks, with routers that say so.

use std::io;
use std::mem::size_of_val;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use integration::{Netns, eventually};
use netmanager::datapath::{Datapath, Policy};
use netmanager::plane::PathTable as _;

use crate::nodes::{Container, Family, Routed, Verbs, any, kernel_has_ipv6, publish_instances, service};
use crate::running::{Served, run};
use crate::talk::{PORT, connect, echo, exchange};

/// As on DSL with PPPoE, in tunnels, in VPNs, and the least that IPv6 asks for.
const MTUS: [u16; 5] = [1500, 1492, 1428, 1400, 1280];
/// What IPv6 has at least: no Linux sends smaller packets, whatever it is told.
const LEAST_OF_IPV6: u16 = 1280;

fn headers(outer: Family) -> u16 {
    if outer == Family::V4 { 28 } else { 48 }
}

fn set_between(routers: &[Netns], mtu: u16) {
    routers.iter().for_each(|router| router.ip(&format!("link set mid mtu {mtu}")).unwrap());
}

/// How many fragments the routers have made.
fn fragments(routers: &[Netns]) -> u64 {
    let of = |router: &Netns| {
        let text = router.output("nstat", &["-asz", "IpFragCreates", "Ip6FragCreates"]).unwrap();
        let numbers = text
            .lines()
            .filter(|line| line.contains("Frag"))
            .filter_map(|line| line.split_whitespace().nth(1));
        numbers.map(|number| number.parse::<u64>().unwrap()).sum::<u64>()
    };
    routers.iter().map(of).sum()
}

/// Answers each datagram with itself.
fn echo_datagrams(container: &Container, family: Family) {
    let socket = container.netns.run(|| UdpSocket::bind((any(family), PORT)).unwrap()).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], peer).ok();
        }
    });
}

/// A socket whose datagrams are never split: the kernel says when one is too large for what it knows of the way.
fn unsplit(client: &Container, address: IpAddr) -> UdpSocket {
    let socket = client
        .netns
        .run(|| match address {
            IpAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap(),
            IpAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap(),
        })
        .unwrap();
    let (level, name) = match address {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    let always: libc::c_int = libc::IP_PMTUDISC_DO;
    let length = libc::socklen_t::try_from(size_of_val(&always)).unwrap();
    // SAFETY: the pointer is valid for the length beside it.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const always).cast(), length) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    socket.connect((address, PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

/// Sends datagrams of the largest size that the kernel lets pass, until one comes back; gives its IP packet's length.
fn largest_answered(socket: &UdpSocket, headers: usize) -> usize {
    eventually(Duration::from_secs(10), "a datagram that comes back", || {
        let mut length = 1450 - headers;
        let sent = loop {
            match socket.send(&vec![7; length]) {
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => length -= 1,
                // What has been said of an earlier one.
                Err(error) => return Err(error.to_string()),
                Ok(sent) => break sent,
            }
        };
        let mut buffer = [0; 2048];
        match socket.recv(&mut buffer) {
            Ok(received) if received == sent => Ok(sent + headers),
            other => Err(format!("{sent}: {other:?}")),
        }
    })
    .unwrap()
}

fn each_mtu_is_found<D: Served>(inner: Family, outer: Family) {
    if (inner, outer) != (Family::V4, Family::V4) && !kernel_has_ipv6() {
        println!("skipped: this kernel has no IPv6");
        return;
    }
    let mut underlay = Routed::<D>::new(outer);
    let [client, server] = [0, 1].map(|node: usize| underlay.nodes[node].container(2));
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    let (address, backend) = (service(inner), server.backend);
    underlay.nodes[0]
        .within(|datapath| Verbs::publish_service(datapath, address, Policy::RoundRobin, &[backend]));
    echo(&server);
    echo_datagrams(&server, inner);
    let Routed { nodes, routers } = &mut underlay;
    let peer = server.backend.node.ip();
    run(
        nodes,
        |_| None,
        |nodes| {
            let mut stream = connect(&client, address);
            for mtu in MTUS {
                set_between(routers, mtu);
                let carried = (mtu - headers(outer)).min(1450);
                let case = format!("{inner:?} over {outer:?}, {mtu}");
                if inner == Family::V4 || carried >= LEAST_OF_IPV6 {
                    // In the middle of a connection.
                    exchange(&mut stream, 4);
                    let (socket, headers) =
                        (unsplit(&client, address), if inner == Family::V4 { 28 } else { 48 });
                    assert_eq!(largest_answered(&socket, headers), usize::from(carried), "{case}");
                } else {
                    nodes
                        .within(0, move |datapath, _| datapath.plane().set_path_mtu(peer, Some(mtu)))
                        .unwrap();
                }
                // And one that begins now.
                exchange(&mut connect(&client, address), 4);
                if mtu < 1450 + headers(outer) {
                    let known = nodes.within(0, |datapath, _| datapath.plane().narrow_paths());
                    assert_eq!(known, [(peer, mtu)], "{case}");
                }
            }
        },
    );
    assert_eq!(fragments(&underlay.routers), 0, "no router had to split a packet");
}

/// Between routers that say nothing, and at first let no ping pass, as while a node or the network between them starts.
fn what_is_carried_is_measured(outer: Family) {
    if outer == Family::V6 && !kernel_has_ipv6() {
        println!("skipped: this kernel has no IPv6");
        return;
    }
    let mut underlay = Routed::<Datapath>::new(outer);
    for router in &underlay.routers {
        let silence = "table inet silence { chain out { type filter hook output priority 0; \
                       icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; \
                       counter pings { }; chain in { type filter hook prerouting priority 0; \
                       meta iif \"near\" icmp type echo-request counter name pings drop; \
                       meta iif \"near\" icmpv6 type echo-request counter name pings drop; }; }";
        router.output("nft", &[silence]).unwrap();
    }
    set_between(&underlay.routers, 1391);
    let [client, server] = [0, 1].map(|node: usize| underlay.nodes[node].container(2));
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    echo(&server);
    let peers = [server.backend.node.ip(), client.backend.node.ip()];
    run(
        &mut underlay.nodes,
        |_| None,
        |nodes| {
            for router in &underlay.routers {
                eventually(Duration::from_secs(20), "pings that are lost", || {
                    let lost =
                        router.output("nft", &["list", "counter", "inet", "silence", "pings"]).unwrap();
                    // The smallest and the largest size, twice.
                    if lost.contains("packets 4 ") { Ok(()) } else { Err(lost) }
                })
                .unwrap();
                router.output("nft", &["flush", "chain", "inet", "silence", "in"]).unwrap();
            }
            for (node, peer) in peers.into_iter().enumerate() {
                eventually(Duration::from_secs(20), "the path to be measured", || {
                    let known = nodes.within(node, |datapath, _| datapath.narrow_paths());
                    if known == [(peer, 1391)] { Ok(()) } else { Err(known) }
                })
                .unwrap();
            }
            exchange(&mut connect(&client, server.backend.instance_ip), 4);
        },
    );
    assert_eq!(fragments(&underlay.routers), 0, "no router had to split a packet");
}

/// Between routers that say nothing, and of which one begins to carry less in the middle of a connection.
fn a_path_that_becomes_narrower_is_noticed<D: Served>(outer: Family) {
    if outer == Family::V6 && !kernel_has_ipv6() {
        println!("skipped: this kernel has no IPv6");
        return;
    }
    let mut underlay = Routed::<D>::new(outer);
    for router in &underlay.routers {
        let silence = "table inet silence { chain out { type filter hook output priority 0; \
                       icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; \
                       counter answers { }; chain in { type filter hook prerouting priority 0; \
                       meta iif \"mid\" icmp type echo-reply counter name answers; \
                       meta iif \"mid\" icmpv6 type echo-reply counter name answers; }; }";
        router.output("nft", &[silence]).unwrap();
    }
    let [client, server] = [0, 1].map(|node: usize| underlay.nodes[node].container(2));
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    echo(&server);
    let peers = [server.backend.node.ip(), client.backend.node.ip()];
    run(
        &mut underlay.nodes,
        |_| None,
        |nodes| {
            let mut stream = connect(&client, server.backend.instance_ip);
            exchange(&mut stream, 1);
            for router in &underlay.routers {
                // What is measured at first is the whole width: the smallest and the largest size have come back.
                eventually(Duration::from_secs(20), "the paths to be measured", || {
                    let answers =
                        router.output("nft", &["list", "counter", "inet", "silence", "answers"]).unwrap();
                    if ["packets 0 ", "packets 1 "].iter().any(|few| answers.contains(few)) {
                        return Err(answers);
                    }
                    Ok(())
                })
                .unwrap();
            }
            set_between(&underlay.routers, 1391);
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
            exchange(&mut stream, 4);
            for (node, peer) in peers.into_iter().enumerate() {
                let known = nodes.within(node, |datapath, _| datapath.plane().narrow_paths());
                assert_eq!(known, [(peer, 1391)]);
            }
        },
    );
    assert_eq!(fragments(&underlay.routers), 0, "no router had to split a packet");
}

#[test]
fn a_path_that_becomes_narrower_between_silent_routers_is_noticed_in_the_middle_of_a_connection() {
    a_path_that_becomes_narrower_is_noticed::<Datapath>(Family::V4);
}

#[test]
fn a_path_over_ipv6_that_becomes_narrower_is_noticed_too() {
    a_path_that_becomes_narrower_is_noticed::<Datapath>(Family::V6);
}

#[test]
fn what_a_path_of_silent_routers_carries_is_measured() {
    what_is_carried_is_measured(Family::V4);
}

#[test]
fn what_a_path_of_silent_routers_over_ipv6_carries_is_measured() {
    what_is_carried_is_measured(Family::V6);
}

#[test]
fn what_a_path_carries_is_learned_from_its_routers() {
    each_mtu_is_found::<Datapath>(Family::V4, Family::V4);
}

#[test]
fn what_a_path_over_ipv6_carries_is_learned_from_its_routers() {
    each_mtu_is_found::<Datapath>(Family::V4, Family::V6);
}

#[test]
fn ipv6_inside_learns_what_a_path_carries() {
    each_mtu_is_found::<Datapath>(Family::V6, Family::V4);
}

#[test]
fn ipv6_inside_ipv6_learns_what_a_path_carries() {
    each_mtu_is_found::<Datapath>(Family::V6, Family::V6);
}

mod in_user_space {
    use super::{a_path_that_becomes_narrower_is_noticed, each_mtu_is_found};
    use crate::nodes::Family;
    use crate::userspace::Userspace;

    #[test]
    fn a_path_that_becomes_narrower_between_silent_routers_is_noticed_in_the_middle_of_a_connection() {
        a_path_that_becomes_narrower_is_noticed::<Userspace>(Family::V4);
    }

    #[test]
    fn what_a_path_carries_is_learned_from_its_routers() {
        each_mtu_is_found::<Userspace>(Family::V4, Family::V4);
    }

    #[test]
    fn ipv6_inside_ipv6_learns_what_a_path_carries() {
        each_mtu_is_found::<Userspace>(Family::V6, Family::V6);
    }
}
