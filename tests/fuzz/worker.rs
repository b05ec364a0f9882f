//! What the cluster and node-engine say to a worker's daemons.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use integration::fuzz::campaign;
use netmanager::resolver::{Action, Resolver};
use netmanager::table::Table;
use netmanager::{ports, table};
use node_engine::assignment::{Assignment, InvalidOrder};
use protocol::net::TableResult;
use protocol::plan::Plan;

use crate::payload::{captured, spoilt};

const ROUNDS: u64 = 4000;

#[test]
fn a_spoilt_table_never_steers_packets_out_of_the_overlay() {
    let seeds = captured("net/tablequery/result");
    let mut read = 0_u64;
    let rounds = campaign(ROUNDS, |chance| {
        let Ok(result) = serde_json::from_slice::<TableResult>(&spoilt(chance, &seeds)) else { return };
        read += 1;
        let table = Table::read(&result, &Plan::default());
        for (address, entry) in &table.addresses {
            check(*address, entry);
        }
        let start = Instant::now();
        let mut resolver = Resolver::default();
        let mut actions = resolver.connected(start);
        actions.extend(resolver.changed("smp.bed.srv.bed", start));
        actions.extend(resolver.answered(result, start));
        actions.extend(resolver.tick(start + Duration::from_secs(60)));
        for action in &actions {
            if let Action::Publish(address, entry) = action {
                check(*address, entry);
            }
        }
    });
    assert!(read > rounds / 4, "{read} of {rounds} tables could be read");
}

fn check(address: impl Into<IpAddr>, entry: &table::Entry) {
    let address = address.into();
    let is_service = is_within(address, 10 << 8 | 30, 10 << 8 | 30, 0xfdff);
    let is_container = is_within(address, 10 << 8 | 18, 10 << 8 | 29, 0xfc00);
    assert!(is_service || is_container, "{address} is no address of the overlay");
    for backend in &entry.backends {
        let ns_ip = IpAddr::from(backend.ns_ip);
        assert!(is_within(ns_ip, 10 << 8 | 18, 10 << 8 | 29, 0xfc00), "NsIP of {backend:?}");
        // A node itself is known by its own NsIPs, and by nobody else's.
        let own = [Some(ns_ip), backend.ns_ip6.map(IpAddr::from)];
        assert!(is_service || own.contains(&Some(address)), "{address} leads to {backend:?}");
        assert_ne!(backend.node.port(), 0, "{backend:?}");
        assert!(!backend.node.ip().is_unspecified() && !backend.node.ip().is_multicast(), "{backend:?}");
    }
}

/// Whether the first 16 bits of an address are within these.
fn is_within(address: IpAddr, first4: u16, last4: u16, first6: u16) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            (first4..=last4).contains(&u16::from_be_bytes([a, b]))
        }
        IpAddr::V6(address) => address.segments()[0] == first6,
    }
}

#[test]
fn spoilt_orders_are_carried_out_or_refused_for_the_instance_they_name() {
    let seeds = captured("control/deploy");
    let mut read = 0_u64;
    let rounds = campaign(ROUNDS, |chance| {
        match Assignment::parse(&spoilt(chance, &seeds)) {
            Ok(assignment) => {
                read += 1;
                assert!(!assignment.image.trim().is_empty());
                assert!(assignment.command.iter().all(|argument| !argument.contains('\0')));
                assert!(
                    assignment.environment.iter().all(|entry| entry.contains('=') && !entry.contains('\0'))
                );
                // It is kept in the state directory, and must be found there again.
                let kept = serde_json::to_vec(&assignment).unwrap();
                assert_eq!(serde_json::from_slice::<Assignment>(&kept).unwrap(), assignment);
            }
            Err(InvalidOrder::Refused { reason, .. }) => assert!(!reason.is_empty()),
            Err(InvalidOrder::Anonymous(_)) => {}
        }
    });
    assert!(read > rounds / 8, "{read} of {rounds} orders could be carried out");
}

#[test]
fn port_mappings_lead_from_a_port_to_a_port_whatever_is_written() {
    const SEEDS: [&str; 4] = ["80", "8080:80/tcp;5353:53/udp", "1:2;3:4/udp;", " 80 : 80 / tcp ; "];
    campaign(ROUNDS, |chance| {
        let mut text = chance.of(&SEEDS).as_bytes().to_vec();
        chance.spoil(&mut text, 0);
        let Ok(mappings) = ports::parse(&String::from_utf8_lossy(&text)) else { return };
        assert!(mappings.iter().all(|mapping| mapping.host != 0 && mapping.container != 0), "{mappings:?}");
    });
}
