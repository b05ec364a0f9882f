//! What the programs tell of packets while somebody watches, and that they tell nothing once nobody does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use netmanager::app::Paths;
use netmanager::cli::Format;
use netmanager::commands::trace::{self, Wanted};
use netmanager::datapath::{
    DropReason, Ends, FROM_CONTAINER, FROM_UPLINK, Link, TraceFilter, TraceVerdict, Traced, Tracer,
};
use netmanager_common::map::TRACE;
use netmanager_common::trace::Switch;
use serde_json::Value;

use crate::bed::{Bed, CLIENT, NEIGHBOUR, PEER, SERVER, SERVICE};
use crate::packet::Transport::{TcpSyn, TcpSynAck, Udp};
use crate::packet::{PAYLOAD, Packet, SERVER_PORT, tunnelled};
use crate::six;

const PORT: u16 = 41_000;

fn within<T>(work: impl AsyncFnOnce() -> T) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
}

/// What is told of the packets that `send` sends.
fn told(bed: &mut Bed, filter: &TraceFilter, send: impl FnOnce(&mut Bed)) -> Vec<Traced> {
    let pins = bed.paths(std::path::Path::new("/nowhere")).bpffs;
    bed.load(&[FROM_CONTAINER, FROM_UPLINK]);
    within(async || {
        let mut tracer = Tracer::open(&pins, filter).unwrap();
        send(bed);
        let mut seen = Vec::new();
        while let Ok(traced) = tokio::time::timeout(Duration::from_millis(20), tracer.next()).await {
            seen.push(traced.unwrap());
        }
        seen
    })
}

fn connect(bed: &mut Bed, to: Ipv4Addr) {
    let packet = Packet { ports: (PORT, SERVER_PORT), ..Packet::new(TcpSyn, CLIENT.ns_ip, to) };
    bed.container_sends(&packet.sent_by(&CLIENT));
}

fn ends<A: Into<IpAddr>>(source: A, source_port: u16, destination: A, destination_port: u16) -> Option<Ends> {
    let end = |address: A, port| SocketAddr::new(address.into(), port);
    Some(Ends { source: end(source, source_port), destination: end(destination, destination_port) })
}

#[test]
fn a_packet_to_a_service_is_told_of_as_it_came_and_as_it_goes_on_and_so_is_its_answer() {
    let mut bed = Bed::new();
    let seen = told(&mut bed, &TraceFilter::default(), |bed| {
        connect(bed, SERVICE);
        let answer = Packet::new(TcpSynAck, SERVER.instance_ip, CLIENT.ns_ip);
        let answer = Packet { ports: (SERVER_PORT, PORT), ..answer };
        bed.uplink_receives(&tunnelled(PEER, &answer.bytes())).redirected();
    });
    let [sent, answer] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((sent.program, sent.verdict, sent.reason), (FROM_CONTAINER, TraceVerdict::Sent, None));
    assert_eq!(sent.came, ends(CLIENT.ns_ip, PORT, SERVICE, SERVER_PORT));
    assert_eq!(sent.goes, ends(CLIENT.instance_ip.unwrap(), PORT, SERVER.ns_ip, SERVER_PORT));
    assert_eq!((sent.node, sent.protocol), (Some(PEER.into()), 6));
    assert_eq!(sent.ifindex, CLIENT.ifindex);
    assert!(sent.length >= 40, "{sent:?}");

    assert_eq!((answer.program, answer.verdict, answer.reason), (FROM_UPLINK, TraceVerdict::Delivered, None));
    assert_eq!(answer.came, ends(SERVER.instance_ip, SERVER_PORT, CLIENT.ns_ip, PORT));
    assert_eq!(answer.goes, ends(SERVICE, SERVER_PORT, CLIENT.ns_ip, PORT));
}

#[test]
fn packets_of_ipv6_are_told_of_over_either_version_bare_and_in_a_shell() {
    for peer in [IpAddr::V4(PEER), IpAddr::V6(six::PEER6)] {
        for link in [Link::Bare, Link::Vx] {
            let mut bed = six::bed(peer);
            bed.within(|datapath| datapath.set_link(peer, link));
            let client = six::client();
            let seen = told(&mut bed, &TraceFilter::default(), |bed| {
                let request = six::tcp(six::CLIENT6, six::SERVICE6, (PORT, SERVER_PORT), true);
                bed.container_sends(&six::frame(client.gateway_mac, client.mac, &request)).redirected();
                let answer = six::tcp(six::SERVER_INSTANCE6, six::CLIENT6, (SERVER_PORT, PORT), false);
                bed.uplink_receives(&six::wrap(peer, &answer)).redirected();
            });
            let [sent, answer] = seen.as_slice() else { panic!("{peer} {link:?}: {seen:?}") };
            assert_eq!((sent.verdict, answer.verdict), (TraceVerdict::Sent, TraceVerdict::Delivered));
            assert_eq!((sent.node, sent.protocol, answer.protocol), (Some(peer), 6, 6), "{link:?}");
            assert_eq!(sent.came, ends(six::CLIENT6, PORT, six::SERVICE6, SERVER_PORT));
            assert_eq!(sent.goes, ends(six::CLIENT_INSTANCE6, PORT, six::SERVER6, SERVER_PORT));
            assert_eq!(answer.came, ends(six::SERVER_INSTANCE6, SERVER_PORT, six::CLIENT6, PORT));
            assert_eq!(answer.goes, ends(six::SERVICE6, SERVER_PORT, six::CLIENT6, PORT));
            assert_eq!(sent.length as usize, 60 + PAYLOAD.len(), "of the inner packet, over {peer} {link:?}");
        }
    }
}

#[test]
fn a_dropped_and_a_missed_packet_are_told_of_with_the_reason() {
    let mut bed = Bed::new();
    let unknown = Ipv4Addr::new(10, 30, 9, 9);
    let seen = told(&mut bed, &TraceFilter::default(), |bed| {
        bed.container_sends(&Packet::new(Udp, CLIENT.ns_ip, SERVICE).sent_by(&NEIGHBOUR));
        connect(bed, unknown);
        let stranger = Packet::new(Udp, SERVER.ns_ip, CLIENT.ns_ip);
        bed.uplink_receives(&tunnelled(Ipv4Addr::new(192, 0, 2, 77), &stranger.bytes()));
    });
    let reasons: Vec<_> = seen.iter().map(|traced| (traced.program, traced.verdict, traced.reason)).collect();
    // There is no netmanager that it could be given to.
    let dropped = |program, reason| (program, TraceVerdict::Dropped, Some(reason));
    assert_eq!(
        reasons,
        [
            dropped(FROM_CONTAINER, DropReason::SpoofedSource),
            dropped(FROM_CONTAINER, DropReason::ServiceUnknown),
            dropped(FROM_UPLINK, DropReason::ForeignSource),
        ]
    );
    assert!(seen.iter().all(|traced| traced.goes.is_none()), "{seen:?}");
    assert_eq!(seen[1].came, ends(CLIENT.ns_ip, PORT, unknown, SERVER_PORT));
    assert_eq!(seen[2].came.map(|ends| ends.source.ip()), Some(SERVER.ns_ip.into()), "the inner packet");
    assert_eq!(seen[2].node, Some(IpAddr::from([192, 0, 2, 77])));
}

#[test]
fn only_what_is_wanted_is_told_of() {
    let mut bed = Bed::new();
    let count = |bed: &mut Bed, filter: &TraceFilter| {
        let seen = told(bed, filter, |bed| {
            connect(bed, SERVICE);
            bed.container_sends(&Packet::new(Udp, NEIGHBOUR.ns_ip, SERVICE).sent_by(&CLIENT));
        });
        seen.len()
    };
    let from = |address: Ipv4Addr| TraceFilter { from: vec![address.into()], ..TraceFilter::default() };
    let to = |address: Ipv4Addr| TraceFilter { to: vec![address.into()], ..TraceFilter::default() };
    assert_eq!(count(&mut bed, &TraceFilter::default()), 2);
    assert_eq!(count(&mut bed, &from(CLIENT.ns_ip)), 1);
    assert_eq!(count(&mut bed, &from(CLIENT.instance_ip.unwrap())), 1, "as the server sees it");
    assert_eq!(count(&mut bed, &to(SERVICE)), 2);
    assert_eq!(count(&mut bed, &to(SERVER.ns_ip)), 1, "the other one has not got so far");
    assert_eq!(count(&mut bed, &to(NEIGHBOUR.ns_ip)), 0);
    assert_eq!(count(&mut bed, &TraceFilter { drops_only: true, ..TraceFilter::default() }), 1);
}

#[test]
fn when_the_tracer_is_gone_the_switch_is_off_and_after_its_time_it_turns_itself_off() {
    let mut bed = Bed::new();
    let pins = bed.paths(std::path::Path::new("/nowhere")).bpffs;
    let mut switch: aya::maps::Array<_, Switch> = bed.array(TRACE);
    within(async || {
        let tracer = Tracer::open(&pins, &TraceFilter::default()).unwrap();
        assert!(switch.get(&0, 0).unwrap().until > 0);
        let another = Tracer::open(&pins, &TraceFilter::default()).unwrap_err().to_string();
        assert!(another.contains("somebody else"), "{another}");
        drop(tracer);
    });
    assert_eq!(switch.get(&0, 0).unwrap(), Switch::default());
    // As a tracer leaves it that was killed: at once, and some seconds later.
    switch.set(0, Switch { until: u64::MAX, ..Switch::default() }, 0).unwrap();
    connect(&mut bed, SERVICE);
    assert_eq!(told(&mut bed, &TraceFilter::default(), |_| {}), [], "that was for the one before");
    switch.set(0, Switch { until: 1, ..Switch::default() }, 0).unwrap();
    connect(&mut bed, SERVICE);
    assert_eq!(switch.get(&0, 0).unwrap(), Switch::default(), "the next packet has found out");
    assert_eq!(told(&mut bed, &TraceFilter::default(), |_| {}), [], "and was not told of");
}

#[test]
fn no_more_are_told_of_than_somebody_can_read_and_the_rest_is_counted() {
    let bed = Bed::new();
    let pins = bed.paths(std::path::Path::new("/nowhere")).bpffs;
    within(async || {
        let mut tracer = Tracer::open(&pins, &TraceFilter::default()).unwrap();
        let frame = Packet::new(Udp, CLIENT.ns_ip, SERVICE).sent_by(&CLIENT);
        let mut sent = 0;
        // No more of them than it takes: a switch that nobody renews goes off after a while.
        while tracer.untold().unwrap() == 0 {
            assert!(sent < 10_000, "everything finds room");
            bed.container_sends_all(std::iter::repeat_n(frame.clone(), 250));
            sent += 250;
        }
        let mut count = 0_u64;
        while let Ok(traced) = tokio::time::timeout(Duration::from_millis(20), tracer.next()).await {
            assert_eq!(traced.unwrap().verdict, TraceVerdict::Sent);
            count += 1;
        }
        assert_eq!(count + tracer.untold().unwrap(), sent);
    });
}

#[test]
fn the_command_prints_one_object_a_line_and_ends_by_itself_if_it_is_to() {
    let mut bed = Bed::new();
    let state = tempfile::tempdir().unwrap();
    let paths: Paths = bed.paths(state.path());
    let wanted = Wanted { to: Some(SERVICE.to_string()), ..Wanted::default() };
    let mut out = Vec::new();
    within(async || {
        tokio::select! {
            exit = trace::run(&paths, &wanted, Some(2), Format::Json, &mut out) => drop(exit.unwrap()),
            () = async {
                loop {
                    connect(&mut bed, SERVICE);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            } => {}
        }
    });
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["verdict"], "sent", "{text}");
    assert_eq!(lines[0]["destination"], format!("{SERVICE}:{SERVER_PORT}"), "{text}");
    assert_eq!(lines[0]["onward_destination"], format!("{}:{SERVER_PORT}", SERVER.ns_ip), "{text}");
    let unknown = Wanted { from: Some("nobody".to_owned()), ..Wanted::default() };
    let error =
        within(async || trace::run(&paths, &unknown, None, Format::Json, &mut Vec::new()).await).unwrap_err();
    assert!(error.is::<netmanager::commands::exit::NotFound>(), "{error:#}");
}
