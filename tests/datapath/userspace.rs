//! The data plane in user space: real connections through it, among its own kind and with the programs in the kernel.

use std::net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use netmanager::datapath::{
    Addresses, Backend, Datapath, DropReason, Endpoint, Event, Hook, Policy, Service,
};
use netmanager::plane::{self, Backends, PathTable, Plane};
use netmanager::slowpath::SlowPath;
use netmanager::userspace;
use protocol::plan::Plan;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::nodes::{
    Container, Family, Node, TUNNEL_PORT, Underlay, Verbs, hook, kernel_has_ipv6, publish_instances,
};
use crate::pins::Pins;
use crate::running::Served;
use crate::talk::{Answer, PORT, ask, ask_by_datagram, connect, echo, exchange, ping, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);

/// It, with what it tells until a node reads that.
#[derive(Debug)]
pub(crate) struct Userspace {
    plane: Plane,
    events: Option<userspace::Events>,
}

impl Userspace {
    fn datapath(&mut self) -> &mut userspace::Datapath {
        match &mut self.plane {
            Plane::Userspace(datapath) => datapath,
            Plane::Ebpf(_) => panic!("in the kernel"),
        }
    }

    fn drops(&self) -> Vec<(DropReason, u64)> {
        self.plane.counters().unwrap().drops
    }
}

impl Verbs for Userspace {
    // By which the guard knows them.
    const LINK: &str = "hyveth";

    fn open(_pins: &Pins, _hook: Hook) -> Self {
        let (datapath, events) = userspace::Datapath::open(TUNNEL_PORT, Plan::default()).unwrap();
        Self { plane: Plane::Userspace(Box::new(datapath)), events: Some(events) }
    }

    fn set_node(&mut self, addresses: Addresses, uplink: u32) {
        self.datapath().set_node(addresses, uplink).unwrap();
    }

    fn attach_endpoint(&mut self, endpoint: &Endpoint) {
        self.datapath().attach_endpoint(endpoint).unwrap();
    }

    fn publish_service(&mut self, address: IpAddr, policy: Policy, backends: &[Backend]) {
        let (service_ip, backends) = (address, backends.to_vec());
        self.datapath().publish(&Service { service_ip, policy, backends, resting: Vec::new() }).unwrap();
    }
}

impl Served for Userspace {
    fn plane(&mut self) -> &mut (impl Backends + PathTable) {
        &mut self.plane
    }

    fn events(&mut self) -> plane::Events {
        plane::Events::Userspace(self.events.take().expect("they are asked for once"))
    }

    async fn slow_path(&mut self, tasks: &TaskTracker, stop: CancellationToken) -> SlowPath {
        SlowPath::in_process(self.datapath(), tasks, stop)
    }

    fn close_slow_path(&mut self) {
        self.datapath().close_slow_path();
    }

    fn services(&self) -> Vec<Service> {
        self.plane.services().unwrap()
    }
}

impl Node<Userspace> {
    fn drops(&self) -> Vec<(DropReason, u64)> {
        self.datapath.drops()
    }
}

fn publish<D: Verbs>(node: &mut Node<D>, servers: &[&Container]) {
    let backends: Vec<_> = servers.iter().map(|server| server.backend).collect();
    node.within(|datapath| datapath.publish_service(SERVICE.into(), Policy::RoundRobin, &backends));
}

fn underlay(count: u8) -> Underlay<Userspace> {
    Underlay::with(count, hook(), Family::V4)
}

/// A client on the first node and a server on the second, which know each other.
fn client_and_server(underlay: &mut Underlay<Userspace>) -> (Container, Container) {
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    publish(&mut underlay.nodes[0], &[&server]);
    (client, server)
}

#[test]
fn tcp_udp_and_ping_cross_nodes_by_every_address() {
    let mut underlay = underlay(2);
    let (client, server) = client_and_server(&mut underlay);
    serve(&server);
    for address in [SERVICE, server.backend.instance_ip] {
        assert_eq!(ask(&client, address), Answer::of(&server, &client));
        assert_eq!(ask_by_datagram(&client, address).unwrap(), Answer::of(&server, &client));
        ping(&client, address);
    }
    let by_ns_ip = Answer { asked_by: client.backend.ns_ip.into(), ..Answer::of(&server, &client) };
    assert_eq!(ask(&client, server.backend.ns_ip), by_ns_ip);
    assert_eq!(ask_by_datagram(&client, server.backend.ns_ip).unwrap(), by_ns_ip);
    ping(&client, server.backend.ns_ip);
    for node in &underlay.nodes {
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn instances_on_all_nodes_and_the_client_itself_answer_in_turn() {
    let mut underlay = underlay(2);
    let client = underlay.nodes[0].container(2);
    let servers = [(0, 3), (1, 2)].map(|(node, m)| underlay.nodes[node].container(m));
    let all = [&client, &servers[0], &servers[1]];
    publish_instances(&mut underlay.nodes, &all);
    publish(&mut underlay.nodes[0], &all);
    all.into_iter().for_each(serve);
    let answers: Vec<_> = (0..6).map(|_| ask(&client, SERVICE)).collect();
    assert_eq!(answers[..3], answers[3..]);
    for server in all {
        assert!(answers.contains(&Answer::of(server, &client)), "{server:?} never answered: {answers:?}");
    }
}

#[test]
fn ipv6_crosses_nodes_inside_and_outside() {
    if !kernel_has_ipv6() {
        println!("skipped: the kernel has no IPv6");
        return;
    }
    for outer in [Family::V4, Family::V6] {
        let mut underlay: Underlay<Userspace> = Underlay::with(2, hook(), outer);
        let (client, server) = client_and_server(&mut underlay);
        serve(&server);
        for family in [Family::V4, Family::V6] {
            let address = server.instance_ip(family);
            assert_eq!(ask(&client, address), Answer::over(family, &server, &client));
            assert_eq!(ask_by_datagram(&client, address).unwrap(), Answer::over(family, &server, &client));
            ping(&client, address);
        }
        for node in &underlay.nodes {
            assert_eq!(node.drops(), []);
        }
    }
}

#[test]
fn bytes_arrive_as_they_were_sent_whatever_is_offloaded() {
    let mut underlay = underlay(2);
    let (client, server) = client_and_server(&mut underlay);
    echo(&server);
    let mut stream = connect(&client, SERVICE);
    exchange(&mut stream, 16);
    for features in [&["tso", "off", "gso", "off"][..], &["tx", "off"]] {
        for node in &underlay.nodes {
            node.netns.output("ethtool", &[&["-K", "up0"], features].concat()).unwrap();
        }
        exchange(&mut stream, 16);
    }
    for features in [&["tso", "off", "gso", "off"][..], &["tx", "off"]] {
        for container in [&client, &server] {
            container.netns.output("ethtool", &[&["-K", "eth0"], features].concat()).unwrap();
        }
        exchange(&mut stream, 16);
        exchange(&mut connect(&client, SERVICE), 4);
    }
    for node in &underlay.nodes {
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn datagrams_of_all_lengths_arrive_whole_in_fragments_too() {
    let mut underlay = underlay(2);
    let (client, server) = client_and_server(&mut underlay);
    let bind = || UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    let (sender, receiver) = (client.netns.run(bind).unwrap(), server.netns.run(bind).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = vec![0; 65_536];
    for length in [0, 1, 2, 3, 17, 1000, 1421, 1422, 1423, 2900, 9000, 60_000] {
        let sent: Vec<_> = (0..length).map(|n| u8::try_from(n % 253).unwrap()).collect();
        sender.send_to(&sent, (SERVICE, PORT)).unwrap();
        let (received, from) =
            receiver.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert!(buffer[..received] == sent, "{length} bytes arrived changed");
        assert_eq!(from.ip(), client.backend.instance_ip);
    }
}

/// What a node in the kernel and one in user space say to each other, in both directions.
#[test]
fn it_and_the_programs_in_the_kernel_understand_each_other() {
    let mut kernel: Underlay<Datapath> = Underlay::with(1, hook(), Family::V4);
    let mut process = kernel.join::<Userspace>(2, hook(), Family::V4);
    // As on a wire: what leaves a node is complete, and one packet each.
    for node in [&kernel.nodes[0].netns, &process.netns] {
        node.output("ethtool", &["-K", "up0", "tso", "off", "gso", "off", "tx", "off"]).unwrap();
    }
    let one = kernel.nodes[0].container(2);
    let two = process.container(2);
    publish_instances(&mut kernel.nodes, &[&one, &two]);
    publish_instances(std::slice::from_mut(&mut process), &[&one, &two]);
    publish(&mut kernel.nodes[0], &[&two]);
    publish(&mut process, &[&one]);
    for (client, server) in [(&one, &two), (&two, &one)] {
        serve(server);
        assert_eq!(ask(client, SERVICE), Answer::of(server, client));
        assert_eq!(ask_by_datagram(client, SERVICE).unwrap(), Answer::of(server, client));
        ping(client, server.backend.ns_ip);
    }
    for (client, server) in [(&one, &two), (&two, &one)] {
        let (_, address) = (server, server.backend.instance_ip);
        let listener =
            server.netns.run(|| std::net::TcpListener::bind(("0.0.0.0", PORT + 1)).unwrap()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).ok();
            });
            let mut stream = client.netns.run(|| TcpStream::connect((address, PORT + 1)).unwrap()).unwrap();
            exchange(&mut stream, 16);
        });
    }
    assert_eq!(kernel.nodes[0].datapath.counters().unwrap().drops, []);
    assert_eq!(process.drops(), []);
}

#[test]
fn whoever_answers_is_noted_with_the_time_that_it_takes() {
    let mut underlay = underlay(2);
    let (client, server) = client_and_server(&mut underlay);
    serve(&server);
    let mut reading = || underlay.nodes[0].datapath.plane().reading(&server.backend).unwrap().unwrap();
    assert_eq!((reading().heard, reading().round_trip), (None, None));
    ask(&client, SERVICE);
    let noted = reading();
    assert_eq!((noted.accepted_port, noted.unanswered), (Some(PORT), 0));
    assert!(noted.heard.is_some() && noted.round_trip.is_some_and(|time| !time.is_zero()), "{noted:?}");
    let plane = underlay.nodes[0].datapath.plane();
    assert_eq!(plane.peers_in_use(Duration::from_secs(60)).unwrap(), [server.backend.node.ip()].into());
    // Nobody listens: it says so itself.
    client.netns.run(|| TcpStream::connect((SERVICE, PORT + 1))).unwrap().unwrap_err();
    let refused = plane.reading(&server.backend).unwrap().unwrap();
    assert_eq!((refused.refused, refused.refused_port), (1, Some(PORT + 1)));
}

#[test]
fn an_unknown_service_is_missed_once_and_found_when_it_is_there() {
    let mut underlay = underlay(2);
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    serve(&server);
    assert!(ask_by_datagram(&client, SERVICE).is_err());
    let told = underlay.nodes[0].datapath.events.as_mut().unwrap().try_next().unwrap();
    let Event::Miss(miss) = told else { panic!("{told:?}") };
    assert_eq!((miss.service_ip, miss.ns_ip), (IpAddr::V4(SERVICE), client.ns_ip(Family::V4)));
    assert_eq!(underlay.nodes[0].drops(), [(DropReason::ServiceUnknown, 1)]);
    publish(&mut underlay.nodes[0], &[&server]);
    assert_eq!(ask(&client, SERVICE), Answer::of(&server, &client));
}

#[test]
fn who_speaks_for_another_reaches_neither_the_overlay_nor_the_host() {
    let mut underlay = underlay(2);
    let (client, server) = client_and_server(&mut underlay);
    serve(&server);
    let node = underlay.nodes[0].netns.run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap()).unwrap();
    node.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let gateway = (Ipv4Addr::new(10, 18, 1, 1), PORT);
    underlay.nodes[0].netns.ip("addr add 10.18.1.1/32 dev hyveth2").unwrap();
    let send = |from: &str| {
        let socket = client.netns.run(|| UdpSocket::bind((from, 0)).unwrap()).unwrap();
        socket.send_to(b"x", gateway).unwrap();
        socket.send_to(b"x", (SERVICE, PORT)).unwrap();
    };
    let mut buffer = [0; 10];
    send("10.18.1.2");
    assert_eq!(node.recv_from(&mut buffer).unwrap().1.ip(), client.backend.ns_ip);
    // Another container's address, which this one has given itself.
    client.netns.ip("addr add 10.18.1.9/32 dev eth0").unwrap();
    send("10.18.1.9");
    assert!(node.recv_from(&mut buffer).is_err(), "the host has heard it");
    // To the gateway and to the service.
    assert!(underlay.nodes[0].drops().contains(&(DropReason::SpoofedSource, 2)));
    // And the tunnel's port is closed to all of them.
    let socket = client.netns.run(|| UdpSocket::bind(("10.18.1.2", 0)).unwrap()).unwrap();
    let received = || underlay.nodes[1].datapath.plane.counters().unwrap();
    let before = received();
    socket.send_to(&[0x45; 60], (Ipv4Addr::new(192, 0, 2, 2), TUNNEL_PORT)).unwrap();
    assert_eq!(ask(&client, SERVICE), Answer::of(&server, &client));
    assert_eq!(received().drops, before.drops);
}
