//! How far other nodes are: measured of those that the cluster names, and told to it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::cluster::{ADDRESS, ADDRESS6};
use integration::eventually;
use serde_json::{Value, json};

use crate::bed::{Bed, NODE};

const PEER: &str = "6b033dc62c1f07cbdcd88441";
const PEER6: &str = "6b033dc62c1f07cbdcd88442";
const SILENT: &str = "6b033dc62c1f07cbdcd88443";

/// What the node has measured of another one, in microseconds.
fn measured(report: &Value, node: &str) -> Vec<u64> {
    let peers = report["measured"].as_array().into_iter().flatten();
    let of = peers.filter(|peer| peer["node"] == node).filter_map(|peer| peer["micros"].as_array());
    of.flatten().filter_map(Value::as_u64).collect()
}

fn name_peers(bed: &Bed) -> Result<()> {
    let peer = |node: &str, address: &str| json!({ "node": node, "address": address, "coordinate": [1.0, 2.0, 0.5, 0.3] });
    let (v4, v6) = (ADDRESS.to_string(), ADDRESS6.to_string());
    let peers =
        json!({ "peers": [peer(PEER, &v4), peer(PEER6, &v6), peer(SILENT, "192.0.2.99"), peer(NODE, &v4)] });
    bed.cluster.say(&format!("nodes/{NODE}/net/peers"), peers.to_string())
}

#[test]
fn those_that_the_cluster_names_are_measured_and_what_was_found_is_told() -> Result<()> {
    let bed = Bed::registered()?;
    bed.cluster.wait_to_hear("net/rtt", 0, |report| report["asks"] == true)?;
    ensure!(bed.cluster.heard("net/rtt", |report| report["measured"].is_array()) == 0, "nobody was named");
    name_peers(&bed)?;
    bed.cluster.wait_to_hear("net/rtt", 0, |report| {
        report["coordinate"].is_array() && [PEER, PEER6].iter().all(|peer| !measured(report, peer).is_empty())
    })?;
    let heard = bed.cluster.knows().heard.clone();
    let (_, last) = heard.iter().rfind(|(topic, _)| topic.ends_with("net/rtt")).context("a report")?;
    ensure!(
        [PEER, PEER6].iter().all(|peer| measured(last, peer).iter().all(|micros| *micros < 100_000)),
        "{last}"
    );
    ensure!([SILENT, NODE].iter().all(|peer| measured(last, peer).is_empty()), "{last}");
    Ok(())
}

#[test]
fn a_cluster_that_is_back_is_told_all_that_was_measured() -> Result<()> {
    let mut bed = Bed::registered()?;
    name_peers(&bed)?;
    bed.cluster.wait_to_hear("net/rtt", 0, |report| !measured(report, PEER).is_empty())?;
    bed.cluster.knows().heard.clear();
    bed.cluster.broker.terminate()?;
    bed.cluster.broker.start_again()?;
    eventually(Duration::from_secs(30), "the node to be back", || {
        let back = |report: &Value| report["asks"] == true && !measured(report, PEER).is_empty();
        if bed.cluster.heard("net/rtt", back) > 0 {
            Ok(())
        } else {
            Err(format!("{:?}", bed.cluster.knows().heard))
        }
    })
}
