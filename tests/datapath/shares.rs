//! That turns are exact over many connections, begun on several CPUs at once.

use std::collections::BTreeMap;
use std::thread;

use netmanager::datapath::{Backend, Policy};

use crate::bed::{Bed, CLIENT, REDIRECT, SERVICE};
use crate::container::servers;
use crate::packet::Transport::{TcpSyn, TcpSynAck};
use crate::packet::{Packet, SERVER_PORT};

const CONNECTIONS: u16 = 10_000;
/// Begun before the next ones are answered: a container may not have more that nobody answers.
const AT_ONCE: u16 = 2000;
const CPUS: usize = 4;

fn syn(port: u16) -> Vec<u8> {
    let syn = Packet::new(TcpSyn, CLIENT.ns_ip, SERVICE);
    Packet { ports: (port, SERVER_PORT), ..syn }.sent_by(&CLIENT)
}

fn answer(server: &Backend, port: u16) -> Vec<u8> {
    let answer = Packet::new(TcpSynAck, server.instance_ip, CLIENT.ns_ip);
    Packet { ports: (SERVER_PORT, port), ..answer }.tunnelled()
}

#[test]
fn ten_thousand_connections_from_several_cpus_are_shared_to_within_one() {
    let mut bed = Bed::new();
    let servers = servers(3);
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &servers));
    for first in (0..CONNECTIONS).step_by(AT_ONCE.into()) {
        let ports: Vec<_> = (first..first + AT_ONCE).map(|n| 20_000 + n).collect();
        thread::scope(|scope| {
            for part in ports.chunks(ports.len() / CPUS) {
                let bed = &bed;
                scope.spawn(move || {
                    let verdicts = bed.container_sends_all(part.iter().map(|port| syn(*port)));
                    assert!(verdicts.iter().all(|verdict| *verdict == REDIRECT));
                });
            }
        });
        for server in &servers {
            bed.uplink_receives_all(ports.iter().map(|port| answer(server, *port)));
        }
    }
    let mut shares = BTreeMap::new();
    for flow in bed.datapath.flows().unwrap() {
        *shares.entry(flow.backend.map(|backend| backend.ns_ip)).or_insert(0) += 1;
    }
    let shares: Vec<_> = shares.into_values().collect();
    assert_eq!((shares.len(), shares.iter().sum::<u16>()), (servers.len(), CONNECTIONS), "{shares:?}");
    assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
}
