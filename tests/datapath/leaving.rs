//! Instances that are being stopped: they get nothing new and keep what they have, until they are gone.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use netmanager::balance::Balance;
use netmanager::datapath::{Backend, Datapath, Endpoint, Policy};
use netmanager::table::Entry;

use crate::nodes::{Container, Family, Underlay, any, hook, kernel_has_ipv6, publish_instances, service};
use crate::running::Served;
use crate::talk::{PORT, ask, serve};
use crate::userspace::Userspace;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);
/// Of connections that stay open.
const ECHO_PORT: u16 = 9001;
/// A busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);

fn echo(server: &Container) {
    let any = if kernel_has_ipv6() { any(Family::V6) } else { any(Family::V4) };
    let listener = server.netns.run(|| TcpListener::bind((any, ECHO_PORT)).unwrap()).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
}

fn open(client: &Container, address: impl Into<IpAddr>) -> TcpStream {
    let address = address.into();
    let stream = client.netns.run(|| TcpStream::connect((address, ECHO_PORT)).unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn echoes(stream: &mut TcpStream) {
    let mut back = [0; 4];
    stream.write_all(b"ping").unwrap();
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
}

/// Who answers a datagram of this socket.
#[track_caller]
fn answered_by(socket: &UdpSocket) -> IpAddr {
    let mut buffer = [0; 256];
    socket.send(b"who?").unwrap();
    let length = socket.recv(&mut buffer).expect("an answer");
    let text = std::str::from_utf8(&buffer[..length]).expect("text");
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn connections_end_in_their_own_time<D: Served>(policy: Policy) {
    let mut underlay = Underlay::<D>::with(3, hook(), Family::V4);
    let client = underlay.nodes[0].container(2);
    let servers = [1, 2].map(|node: usize| underlay.nodes[node].container(2));
    publish_instances(&mut underlay.nodes, &[&client, &servers[0], &servers[1]]);
    servers.iter().for_each(serve);
    servers.iter().for_each(echo);
    let [goes, stays] = servers.each_ref().map(|server| server.backend);
    let mut balance = Balance::default();
    let mut publish = |backends: &[_], leaving: &[_]| {
        let (backends, leaving) = (backends.to_vec(), leaving.to_vec());
        underlay.nodes[0]
            .within(|datapath| {
                balance.publish(
                    datapath.plane(),
                    SERVICE.into(),
                    Entry { backends, leaving, ..Entry::empty(policy) },
                )
            })
            .unwrap();
    };
    // So that all there is goes to the one that will be stopped.
    publish(&[goes], &[]);
    let mut streams = [open(&client, SERVICE), open(&client, goes.instance_ip)];
    streams.iter_mut().for_each(echoes);
    let socket = client.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
    socket.connect((SERVICE, PORT)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(answered_by(&socket), goes.ns_ip);

    publish(&[stays], &[goes]);
    streams.iter_mut().for_each(echoes);
    for _ in 0..4 {
        assert_eq!(ask(&client, SERVICE).by, stays.ns_ip);
    }
    assert_eq!(answered_by(&socket), stays.ns_ip, "datagrams go on elsewhere");

    // Nobody takes its place: datagrams of a flow that there is may go on too.
    publish(&[], &[goes, stays]);
    streams.iter_mut().for_each(echoes);
    assert_eq!(answered_by(&socket), stays.ns_ip);

    publish(&[goes], &[]);
    streams.iter_mut().for_each(echoes);
    assert_eq!(ask(&client, SERVICE).by, goes.ns_ip, "it runs after all");
}

#[test]
fn connections_of_an_instance_that_is_being_stopped_go_on_while_new_ones_go_elsewhere() {
    connections_end_in_their_own_time::<Datapath>(Policy::RoundRobin);
}

#[test]
fn so_they_do_behind_a_closest_address() {
    connections_end_in_their_own_time::<Datapath>(Policy::Closest);
}

#[test]
fn so_they_do_in_user_space() {
    connections_end_in_their_own_time::<Userspace>(Policy::RoundRobin);
}

/// An instance that has moved keeps its addresses: for a while there are two that speak under them.
fn connections_of_an_instance_that_has_moved_go_on_where_it_was<D: Served>(family: Family) {
    let mut underlay = Underlay::<D>::with(3, hook(), Family::V4);
    let client = underlay.nodes[0].container(2);
    let [old, new] = [1, 2].map(|node: usize| underlay.nodes[node].container(2));
    publish_instances(&mut underlay.nodes, &[&client]);
    [&old, &new].into_iter().for_each(serve);
    echo(&old);
    let before = old.backend;
    let own = (before.instance_ip, before.instance_ip6);
    let after = Backend { instance_ip: own.0, instance_ip6: own.1, ..new.backend };
    let endpoint = Endpoint { instance_ip: Some(own.0), instance_ip6: own.1, ..new.endpoint };
    underlay.nodes[2].within(|datapath| datapath.attach_endpoint(&endpoint));
    let (shared, own) = (service(family), old.instance_ip(family));
    let mut balance = Balance::default();
    let mut publish = |backends: &[_], leaving: &[_]| {
        for (address, policy) in [(shared, Policy::RoundRobin), (own, Policy::Instance)] {
            let (backends, leaving) = (backends.to_vec(), leaving.to_vec());
            underlay.nodes[0]
                .within(|datapath| {
                    balance.publish(
                        datapath.plane(),
                        address,
                        Entry { backends, leaving, ..Entry::empty(policy) },
                    )
                })
                .unwrap();
        }
    };
    publish(&[before], &[]);
    let mut streams = [open(&client, shared), open(&client, own)];
    streams.iter_mut().for_each(echoes);

    publish(&[after], &[before]);
    streams.iter_mut().for_each(echoes);
    for address in [shared, own] {
        assert_eq!(ask(&client, address).by, after.ns_ip, "{address}");
    }
    streams.iter_mut().for_each(echoes);
}

#[test]
fn connections_of_an_instance_that_has_moved_go_on_where_it_was_while_new_ones_go_where_it_is() {
    connections_of_an_instance_that_has_moved_go_on_where_it_was::<Datapath>(Family::V4);
}

#[test]
fn so_they_do_over_ipv6() {
    connections_of_an_instance_that_has_moved_go_on_where_it_was::<Datapath>(Family::V6);
}

#[test]
fn connections_of_an_instance_that_has_moved_go_on_in_user_space() {
    connections_of_an_instance_that_has_moved_go_on_where_it_was::<Userspace>(Family::V4);
}
