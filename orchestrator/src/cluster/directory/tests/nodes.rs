//! Whose an NsIP is.

use std::time::Instant;

use protocol::id::Id;
use protocol::net::NodeItself;

use super::super::nodes::BELIEVED_FOR;
use super::super::{Act, Directory, Subject, Unreached};
use super::{OTHER, WORKER, query};

/// WORKER's own processes, reached at this address of the underlay.
fn itself(host: &str) -> NodeItself {
    NodeItself {
        nsip: "10.18.0.62".parse().unwrap(),
        nsipv6: Some("fc00::3e".parse().unwrap()),
        host_port: 50103,
        links: protocol::link::LinkOffer { vx: true },
        host_ip: host.parse().unwrap(),
    }
}

/// What each answer has: who is told, the question, and where the node is.
fn nodes(acts: &[Act]) -> Vec<(Id, String, Option<String>)> {
    acts.iter()
        .map(|act| match act {
            Act::Answer { worker, result } => {
                assert_eq!(result.app_name, "");
                let host = result.instance_list.first().and_then(|instance| instance.host_ip.clone());
                (*worker, result.query_key.clone(), host)
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_node_itself_is_found_by_its_ns_ips_and_the_root_is_not_asked() {
    let now = Instant::now();
    let mut directory = Directory::default();
    let answer = |text: &str, host: Option<&str>| (OTHER, text.to_owned(), host.map(ToOwned::to_owned));
    directory.node_itself(WORKER, &itself("192.0.2.31"));
    assert_eq!(directory.take_acts(), [], "nobody has asked for what is known");
    for address in ["10.18.0.62", "fc00::3e"] {
        directory.query(OTHER, &query(address), now);
        assert_eq!(nodes(&directory.take_acts()), [answer(address, Some("192.0.2.31"))]);
    }
    // Once more is no news; another address is, for who has asked.
    directory.node_itself(WORKER, &itself("192.0.2.31"));
    assert_eq!(directory.take_acts(), []);
    directory.node_itself(WORKER, &itself("192.0.2.77"));
    let moved = ["10.18.0.62", "fc00::3e"].map(|address| answer(address, Some("192.0.2.77")));
    assert_eq!(nodes(&directory.take_acts()), moved);

    directory.forget_worker(WORKER);
    directory.query(OTHER, &query("10.18.0.62"), now);
    let subject = Subject::parse("10.18.0.62").unwrap();
    assert_eq!(directory.take_acts(), [Act::Ask(subject)], "it may be in another cluster");
}

#[test]
fn a_node_of_another_cluster_is_asked_for_at_the_root_and_followed_while_somebody_needs_it() {
    let now = Instant::now();
    let later = now + BELIEVED_FOR;
    let mut directory = Directory::default();
    let address: std::net::IpAddr = "10.18.0.62".parse().unwrap();
    let ask = [Act::Ask(Subject::Address(address))];
    let answer = |host: Option<&str>| (OTHER, address.to_string(), host.map(ToOwned::to_owned));
    // Nobody has it: so is the answer, and nothing is asked of by itself.
    directory.query(OTHER, &query("10.18.0.62"), now);
    assert_eq!(directory.take_acts(), ask);
    directory.node_answered(address, Ok(None), now);
    assert_eq!(nodes(&directory.take_acts()), [answer(None)]);
    directory.tick(later);
    assert_eq!(directory.take_acts(), []);

    directory.query(OTHER, &query("10.18.0.62"), now);
    directory.query(WORKER, &query("10.18.0.62"), now);
    assert_eq!(directory.take_acts(), ask, "once");
    directory.node_answered(address, Ok(Some(itself("192.0.2.31"))), now);
    assert_eq!(nodes(&directory.take_acts()).len(), 2);
    directory.query(OTHER, &query("10.18.0.62"), now);
    assert_eq!(nodes(&directory.take_acts()), [answer(Some("192.0.2.31"))], "at once");

    // It moves, and who has asked is told.
    directory.tick(later);
    assert_eq!(directory.take_acts(), ask);
    directory.node_answered(address, Err(Unreached), later);
    directory.query(OTHER, &query("10.18.0.62"), later);
    assert_eq!(nodes(&directory.take_acts()), [answer(Some("192.0.2.31"))], "what is known stays known");
    directory.tick(later + BELIEVED_FOR);
    assert_eq!(directory.take_acts(), ask);
    directory.node_answered(address, Ok(Some(itself("192.0.2.77"))), later);
    let told = nodes(&directory.take_acts());
    assert!(told.len() == 2 && told.contains(&answer(Some("192.0.2.77"))), "{told:?}");

    for worker in [OTHER, WORKER] {
        directory.forget_worker(worker);
    }
    directory.tick(later + BELIEVED_FOR * 2);
    assert!(!directory.take_acts().contains(&ask[0]), "nobody needs it");
}
