//! Host ports: who reaches them, as whom the container sees them, and who may not have one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::Netns;

use crate::bed::{Bed, Container, NODE_ADDRESS, NODE_ADDRESS6};
use integration::cluster;

const PATIENCE: Duration = Duration::from_secs(5);
/// As what the container sees those whose own address it cannot see.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 18, 0, 65);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A server of TCP on port 80 and of UDP on port 5353 in a container.
struct Server {
    listener: TcpListener,
    socket: UdpSocket,
}

impl Server {
    fn start(container: &Container) -> Result<Self> {
        let (listener, socket) = container.netns.run(|| {
            Ok::<_, std::io::Error>((TcpListener::bind("[::]:80")?, UdpSocket::bind("[::]:5353")?))
        })??;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { listener, socket })
    }

    /// Who comes when `client` dials these host ports of `address`, by TCP and by UDP: both must see the same.
    fn seen(&self, client: &Netns, address: IpAddr, tcp: u16, udp: u16) -> Result<IpAddr> {
        let target = SocketAddr::from((address, tcp));
        let _stream = client
            .run(|| TcpStream::connect_timeout(&target, PATIENCE))?
            .with_context(|| format!("connect to {target}"))?;
        let by_tcp = self.listener.accept()?.1.ip().to_canonical();

        let asking = client.run(|| UdpSocket::bind("[::]:0"))??;
        asking.set_read_timeout(Some(PATIENCE))?;
        let mapped = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        asking.connect((mapped, udp))?;
        asking.send(b"who?")?;
        let (_, peer) = self.socket.recv_from(&mut [0; 64]).context("hear a datagram")?;
        self.socket.send_to(b"you", peer)?;
        asking.recv(&mut [0; 64]).context("hear the answer")?;
        let peer = peer.ip().to_canonical();
        ensure!(peer == by_tcp, "{by_tcp} by TCP, {peer} by UDP");
        Ok(by_tcp)
    }
}

#[test]
fn a_host_port_is_reached_from_everywhere_and_the_container_sees_by_whom() -> Result<()> {
    let bed = Bed::registered()?;
    let (web, other) = (Container::new("web")?, Container::new("other")?);
    let (status, said) = bed.attach(&web, 0, "8080:80/tcp;5353/udp")?;
    ensure!(status == 200, "{said}");
    bed.attached(&other, 1)?;
    let server = Server::start(&web)?;
    let seen = |client: &Netns, address: Ipv4Addr| server.seen(client, address.into(), 8080, 5353);

    let lan = &bed.cluster.broker.recipe().netns;
    assert_eq!(seen(lan, NODE_ADDRESS)?, cluster::ADDRESS, "from the LAN");
    assert_eq!(seen(&bed.node, NODE_ADDRESS)?, NODE_ADDRESS, "from the node");
    assert_eq!(seen(&bed.node, LOOPBACK)?, GATEWAY, "from the node, by its loopback");
    assert_eq!(seen(&other.netns, NODE_ADDRESS)?, GATEWAY, "from another container");
    assert_eq!(seen(&web.netns, NODE_ADDRESS)?, GATEWAY, "from the container itself");

    assert_eq!(bed.status()?["drops"], serde_json::json!([]));
    Ok(())
}

#[test]
fn a_host_port_is_reached_by_ipv6_and_containers_reach_the_world_by_it() -> Result<()> {
    let bed = Bed::registered()?;
    let lan = &bed.cluster.broker.recipe().netns;
    let (node, other_host) = (NODE_ADDRESS6, cluster::ADDRESS6);
    let gateway: IpAddr = "fc00::101".parse()?;
    let (web, other) = (Container::new("web")?, Container::new("other")?);
    let (status, said) = bed.attach(&web, 0, "8080:80/tcp;5353/udp")?;
    ensure!(status == 200, "{said}");
    bed.attached(&other, 1)?;
    let server = Server::start(&web)?;
    let seen = |client: &Netns| server.seen(client, node.into(), 8080, 5353);

    assert_eq!(seen(lan)?, other_host, "from the LAN");
    assert_eq!(seen(&bed.node)?, node, "from the node");
    assert_eq!(seen(&other.netns)?, gateway, "from another container");
    assert_eq!(seen(&web.netns)?, gateway, "from the container itself");
    // The LAN has no route to the overlay: only masqueraded packets are answered.
    other.netns.output("ping", &["-6", "-c", "1", "-W", "2", &other_host.to_string()])?;
    assert_eq!(bed.status()?["drops"], serde_json::json!([]));
    Ok(())
}

#[test]
fn what_listens_on_the_nodes_loopback_is_not_reached_from_a_container() -> Result<()> {
    let bed = Bed::registered()?;
    let web = Container::new("web")?;
    // The host port is what makes the node take packets to 127.0.0.1 from this link.
    let (status, said) = bed.attach(&web, 0, "8080:80")?;
    ensure!(status == 200, "{said}");
    let secret = bed.node.run(|| UdpSocket::bind("127.0.0.1:6000"))??;
    secret.set_read_timeout(Some(Duration::from_millis(500)))?;
    // A container may have the right to write packets as it likes; here, to send to 127.0.0.1 through eth0.
    for order in
        ["route del local 127.0.0.0/8 dev lo table local", "route del local 127.0.0.1 dev lo table local"]
    {
        web.netns.ip(order)?;
    }
    web.netns.output("sysctl", &["-qw", "net.ipv4.conf.eth0.route_localnet=1"])?;
    web.netns.ip("route add 127.0.0.0/8 via 10.18.0.65 src 10.18.0.66")?;
    let socket = web.netns.run(|| UdpSocket::bind("10.18.0.66:0"))??;
    socket.send_to(b"hello", (LOOPBACK, 6000))?;
    let heard = secret.recv_from(&mut [0; 64]);
    ensure!(heard.is_err(), "{heard:?}");
    let drops = bed.status()?["drops"].to_string();
    ensure!(drops.contains("loopback-destination"), "{drops}");
    Ok(())
}

#[test]
fn a_host_port_that_somebody_has_is_refused_with_the_holders_name() -> Result<()> {
    let bed = Bed::registered()?;
    let (web, other) = (Container::new("web")?, Container::new("other")?);
    let (status, said) = bed.attach(&web, 0, "8080:80")?;
    ensure!(status == 200, "{said}");
    let (status, said) = bed.attach(&other, 1, "8080:81")?;
    ensure!(
        status == 409 && said.contains("8080") && said.contains("smp.bed.srv.bed.instance.0"),
        "{status} {said}"
    );

    let listener = bed.node.run(|| TcpListener::bind("127.0.0.1:9000"))??;
    let socket = bed.node.run(|| UdpSocket::bind("192.0.2.31:9001"))??;
    let ourselves = format!("(pid {})", std::process::id());
    for ports in ["9000", "7000;9001:1/udp"] {
        let (status, said) = bed.attach(&other, 1, ports)?;
        ensure!(status == 409 && said.contains("900") && said.contains(&ourselves), "{status} {said}");
    }
    // The other transport is free.
    let (status, said) = bed.attach(&other, 1, "9000/udp;9001/tcp")?;
    ensure!(status == 200, "{said}");
    drop((listener, socket));

    for (ports, reason) in [("9:1;9:2", "twice"), ("50103/udp", "tunnel"), ("80/sctp", "expected")] {
        let (status, said) = bed.attach(&other, 1, ports)?;
        ensure!(status == 400 && said.contains(reason), "{status} {said}");
    }
    Ok(())
}

#[test]
fn a_host_port_is_free_again_when_its_container_is_gone() -> Result<()> {
    let bed = Bed::registered()?;
    let (web, other) = (Container::new("web")?, Container::new("other")?);
    bed.attach(&web, 0, "8080:80")?;
    bed.detach(0)?;
    let rules = bed.node.output("nft", &["list", "table", "ip", "hypha"])?;
    ensure!(!rules.contains("8080"), "{rules}");
    let (status, said) = bed.attach(&other, 1, "8080:81")?;
    ensure!(status == 200, "{said}");
    Ok(())
}
