//! Whatever the kernel leaves to network cards, or does itself: bytes arrive as they were sent, and what crosses the link
//! between two nodes has right checksums, inside and outside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use integration::Netns;
use netmanager::datapath::Policy;

use crate::nodes::{
    Container, Family, Node, TUNNEL_PORT, Underlay, decapsulation, kernel_has_ipv6, publish_instances,
    service,
};
use crate::talk::{PORT, connect, echo, exchange};
use crate::wire::{Capture, Crossed};

const PATIENCE: Duration = Duration::from_secs(5);
/// The largest frame with a packet of the containers' MTU.
const LARGEST_FRAME: usize = 14 + 28 + 1450;

/// Features of a link, by the names that ethtool has for them.
#[derive(Debug, Clone, Copy)]
struct Setting {
    name: &'static str,
    off: &'static [&'static str],
}

impl Setting {
    const ALL: [Self; 5] = [
        Self { name: "all on", off: &[] },
        Self { name: "no segmentation", off: &["tso", "gso"] },
        Self { name: "no checksums", off: &["tx"] },
        Self { name: "no merging", off: &["gro"] },
        Self { name: "all off", off: &["gro", "tso", "gso", "tx", "rx"] },
    ];
    const FEATURES: [&str; 5] = ["rx", "tx", "gso", "tso", "gro"];

    fn is_off(self, feature: &str) -> bool {
        self.off.contains(&feature)
    }

    fn apply(self, netns: &Netns, link: &str) {
        let mut arguments = vec!["-K", link];
        for feature in Self::FEATURES {
            arguments.extend([feature, if self.is_off(feature) { "off" } else { "on" }]);
        }
        netns.output("ethtool", &arguments).unwrap();
    }

    /// What the cards of such nodes would have been given, if it is true.
    fn expect(self, crossed: &[Crossed]) {
        let name = self.name;
        if self.is_off("tx") {
            assert!(crossed.iter().all(|it| !it.is_open), "{name}: {crossed:?}");
        } else {
            assert!(crossed.iter().any(|it| it.is_open), "{name}: no checksum was left open");
        }
        // Without checksums there is no segmentation either.
        if self.is_off("tso") || self.is_off("tx") {
            let is_small = |it: &Crossed| !it.is_super && it.length <= LARGEST_FRAME;
            assert!(crossed.iter().all(is_small), "{name}: {crossed:?}");
        } else {
            assert!(crossed.iter().any(|it| it.is_super), "{name}: no packet was left to be segmented");
        }
    }
}

/// Datagrams of many lengths to the server and back.
fn exchange_datagrams(client: &Container, server: &UdpSocket, address: IpAddr) {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = client.netns.run(|| UdpSocket::bind((any, 0)).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect((address, PORT)).unwrap();
    let mut buffer = [0; 2048];
    for length in [0, 1, 2, 17, 1000, 1401, 1402] {
        let sent: Vec<_> = (0..length).map(|n| u8::try_from(n % 253).unwrap()).collect();
        socket.send(&sent).unwrap();
        let (received, from) =
            server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{length} to {address}: {error}"));
        assert!(buffer[..received] == sent, "{length} bytes to {address} arrived changed");
        server.send_to(&sent, from).unwrap();
        let received =
            socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{length} from {address}: {error}"));
        assert!(buffer[..received] == sent, "{length} bytes from {address} arrived changed");
    }
}

#[test]
fn bytes_and_checksums_are_right_whatever_is_offloaded() {
    let families: &[_] = if kernel_has_ipv6() { &[Family::V4, Family::V6] } else { &[Family::V4] };
    let mut underlay = Underlay::new(2);
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    for family in families {
        let publish = |node: &mut Node| {
            node.within(|datapath| {
                datapath.publish_service(service(*family), Policy::RoundRobin, &[server.backend])
            })
        };
        publish(&mut underlay.nodes[0]).unwrap();
    }
    echo(&server);
    let any: IpAddr =
        if kernel_has_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let datagrams = server.netns.run(|| UdpSocket::bind(SocketAddr::new(any, PORT)).unwrap()).unwrap();
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    // What each node sends, as it comes out at the other end of its cable.
    let captures = ["port1", "port2"].map(|port| Capture::of(&underlay.switch, port));
    let mut long = connect(&client, service(families[0]));
    for setting in Setting::ALL {
        println!("{}", setting.name);
        for node in &underlay.nodes {
            setting.apply(&node.netns, "up0");
            setting.apply(&node.netns, "veth2");
        }
        for container in [&client, &server] {
            setting.apply(&container.netns, "eth0");
        }
        for capture in &captures {
            capture.crossed(TUNNEL_PORT);
        }
        exchange(&mut long, 4);
        for family in families {
            let mut short = connect(&client, service(*family));
            exchange(&mut short, 4);
            exchange_datagrams(&client, &datagrams, service(*family));
        }
        for capture in &captures {
            let crossed = capture.crossed(TUNNEL_PORT);
            for family in families {
                for protocol in [6, 17] {
                    let is_this =
                        |it: &Crossed| it.protocol == protocol && it.is_v6 == (*family == Family::V6);
                    let name = setting.name;
                    assert!(crossed.iter().any(is_this), "{name}: no {protocol} of {family:?} crossed");
                }
            }
            // A program in the driver of a veth takes the offloads away that these would be left to.
            if decapsulation() == netmanager::datapath::Decapsulation::Tc {
                setting.expect(&crossed);
            }
        }
    }
    for node in &underlay.nodes {
        assert_eq!(node.datapath.counters().unwrap().drops, []);
    }
}
