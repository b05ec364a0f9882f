//! What the programs cannot finish alone, with the real slow path on each node.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use integration::{eventually, retransmission};
use netmanager::datapath::{Backend, Policy};

use crate::nodes::{Container, Underlay, publish_instances};
use crate::running::run;
use crate::talk::{Answer, PORT, ask, ask_by_datagram, connect, echo, exchange, ping, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);
const EHOSTUNREACH: i32 = 113;

fn client_and_server(underlay: &mut Underlay) -> (Container, Container) {
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    (client, server)
}

/// What the cluster knows: the service's instances, and each container's own address.
fn knowing(
    service: &[&Container],
    all: &[&Container],
) -> impl Fn(IpAddr) -> Option<(Policy, Vec<Backend>)> + use<> {
    let service: Vec<_> = service.iter().map(|container| container.backend).collect();
    let all: Vec<_> = all.iter().map(|container| container.backend).collect();
    move |address| {
        if address == IpAddr::V4(SERVICE) {
            return Some((Policy::RoundRobin, service.clone()));
        }
        let instance = all.iter().find(|backend| IpAddr::V4(backend.instance_ip) == address);
        Some((Policy::Instance, instance.copied().into_iter().collect()))
    }
}

fn retransmitted(container: &Container) -> u64 {
    retransmission::read(&container.netns.output("cat", &["/proc/net/snmp"]).unwrap()).unwrap()
}

fn try_connect(client: &Container, address: Ipv4Addr) -> std::io::Result<TcpStream> {
    let target = SocketAddr::from((address, PORT));
    // The kernel's own time limit: one of ours would be kept by polling, which has seen an end of which it could not say why.
    client.netns.run(|| TcpStream::connect(target)).unwrap()
}

#[test]
fn between_nodes_that_know_nothing_of_each_other_no_packet_is_lost() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    serve(&server);
    run(&mut underlay.nodes, knowing(&[&server], &[&client, &server]), |nodes| {
        assert_eq!(ask(&client, SERVICE), Answer::of(&server, &client));
        assert_eq!(retransmitted(&client) + retransmitted(&server), 0);
        assert_eq!(nodes.counts(0).released, 1, "the client's SYN has waited");
        assert!(nodes.counts(1).released >= 1, "the server's node had to ask who the client is");
        assert_eq!(
            ask_by_datagram(&client, server.backend.instance_ip).unwrap(),
            Answer::of(&server, &client)
        );
        ping(&client, SERVICE);
    });
}

#[test]
fn packets_that_wait_for_one_address_cost_one_question_and_arrive_in_order() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    let bind = || UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    let (sender, receiver) = (client.netns.run(bind).unwrap(), server.netns.run(bind).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The cluster does not answer before the test says so.
    run(
        &mut underlay.nodes,
        |_| None,
        |nodes| {
            for number in 0..20 {
                sender.send_to(&[number], (SERVICE, PORT)).unwrap();
            }
            eventually(Duration::from_secs(2), "all packets to wait", || match nodes.counts(0).held {
                20 => Ok(()),
                held => Err(held),
            })
            .unwrap();
            let backend = server.backend;
            nodes.within(0, move |datapath, slow_path| {
                datapath.publish_service(SERVICE, Policy::RoundRobin, &[backend]).unwrap();
                slow_path.settled(SERVICE.into());
            });
            let mut buffer = [0; 16];
            let received: Vec<_> = (0..20)
                .map(|_| {
                    receiver.recv(&mut buffer).unwrap();
                    buffer[0]
                })
                .collect();
            assert_eq!(received, (0..20).collect::<Vec<_>>());
            assert_eq!(nodes.counts(0).released, 20);
        },
    );
}

#[test]
fn who_dials_a_service_without_instances_is_told_at_once_and_gets_through_when_there_is_one() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    serve(&server);
    run(
        &mut underlay.nodes,
        |_| Some((Policy::RoundRobin, Vec::new())),
        |nodes| {
            let error = try_connect(&client, SERVICE).expect_err("there is nobody");
            assert_eq!(error.raw_os_error(), Some(EHOSTUNREACH), "{error}");
            let backend = server.backend;
            nodes.within(0, move |datapath, _| {
                datapath.publish_service(SERVICE, Policy::RoundRobin, &[backend]).unwrap();
            });
            assert_eq!(ask(&client, SERVICE), Answer::of(&server, &client));
        },
    );
}

#[test]
fn who_waits_in_vain_for_the_cluster_is_told() {
    let mut underlay = Underlay::new(1);
    let client = underlay.nodes[0].container(2);
    run(
        &mut underlay.nodes,
        |_| None,
        |nodes| {
            let error = try_connect(&client, SERVICE).expect_err("nobody answers");
            assert_eq!(error.raw_os_error(), Some(EHOSTUNREACH), "{error}");
            assert!(nodes.counts(0).expired > 0);
        },
    );
}

#[test]
fn an_established_connection_is_reset_at_once_when_its_instance_is_gone() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    is_reset_when_its_instance_goes(&mut underlay, &client, &server);
}

#[test]
fn an_established_connection_to_an_instance_of_this_node_is_reset_likewise() {
    let mut underlay = Underlay::new(1);
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[0].container(3);
    is_reset_when_its_instance_goes(&mut underlay, &client, &server);
}

fn is_reset_when_its_instance_goes(underlay: &mut Underlay, client: &Container, server: &Container) {
    echo(server);
    run(&mut underlay.nodes, knowing(&[server], &[client, server]), |nodes| {
        let mut stream = connect(client, SERVICE);
        exchange(&mut stream, 1);
        let instance_ip = server.backend.instance_ip;
        nodes.within(0, move |datapath, _| {
            datapath.publish_service(SERVICE, Policy::RoundRobin, &[]).unwrap();
            datapath.publish_service(instance_ip, Policy::Instance, &[]).unwrap();
        });
        stream.write_all(b"are you there?").unwrap();
        let error = stream.read(&mut [0; 16]).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    });
}

#[test]
fn a_client_that_is_gone_says_so_to_the_server() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    let socket = server.netns.run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    run(&mut underlay.nodes, knowing(&[&server], &[&client, &server]), |_| {
        let asking = client.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
        asking.send_to(b"who?", (SERVICE, PORT)).unwrap();
        let mut buffer = [0; 16];
        let (_, from) = socket.recv_from(&mut buffer).unwrap();
        socket.connect(from).unwrap();
        drop(asking);
        socket.send(b"me").unwrap();
        let error = socket.recv(&mut buffer).expect_err("the client has closed its port");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    });
}

#[test]
fn a_packet_that_the_uplink_no_longer_carries_is_answered_with_what_it_does_carry() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    echo(&server);
    run(&mut underlay.nodes, knowing(&[&server], &[&client, &server]), |nodes| {
        let mut stream = connect(&client, SERVICE);
        exchange(&mut stream, 1);
        for node in 0..2 {
            nodes.within(node, |datapath, _| {
                let known = datapath.tables().node().unwrap().unwrap();
                let name = nix::net::if_::if_indextoname(known.uplink_ifindex).unwrap();
                let link = ["link", "set", name.to_str().unwrap(), "mtu", "1300"];
                assert!(std::process::Command::new("ip").args(link).status().unwrap().success());
                datapath.set_node(known.addresses.v4.unwrap(), known.uplink_ifindex).unwrap();
            });
        }
        let arguments = ["-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1400", &SERVICE.to_string()];
        let output = client.netns.command("ping").unwrap().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("Frag needed") && said.contains("mtu = 1272"), "{said}");
        // TCP learns it in the same way, in the middle of a connection.
        exchange(&mut stream, 4);
        exchange(&mut connect(&client, SERVICE), 4);
    });
}
