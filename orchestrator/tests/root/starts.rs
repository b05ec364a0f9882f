//! What a second root on the same machine is told, and that the first one is unharmed.

use std::net::SocketAddr;

use orchestrator::error::chain;
use orchestrator::root::{Addresses, Bound};

use crate::bed::{Bed, config};

#[tokio::test]
async fn a_second_root_on_the_same_data_is_kept_out() {
    let bed = Bed::start().await;
    let error = Bound::open(config(bed.data.path(), None)).await.unwrap_err();
    assert!(chain(&error).contains("is in use by another orchestrator"), "{}", chain(&error));
    bed.get("/api/services").await.ok();
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_option() {
    let bed = Bed::start().await;
    let data = tempfile::tempdir().unwrap();
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let taken = Addresses { api: free, net: bed.at.net, grpc: free };
    let error = Bound::open(config(data.path(), Some(taken))).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains(&bed.at.net.to_string()) && text.contains("--net-port"), "{text}");
    bed.get("/api/services").await.ok();
}
