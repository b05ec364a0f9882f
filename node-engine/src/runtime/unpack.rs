//! Unpacking an image's layers into snapshots, where the one who brought the image did not (an import without
//! unpacking, or for another snapshotter).

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use containerd_client::services::v1::{ApplyRequest, CreateRequest, DeleteRequest, Info, UpdateRequest};
use containerd_client::types;
use prost_types::FieldMask;

use super::client::Client;
use super::error::{RuntimeError, or_absent};
use super::image::{Parts, has_snapshot};

/// A layer of a gigabyte on a slow card.
const LAYER_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Unpacks those of the image's layers that have no snapshot yet. Two at the same time do no harm: the second finds
/// the first one's snapshots.
pub(super) async fn unpack(
    client: &Client,
    snapshotter: &str,
    parts: &Parts,
    chain: &[String],
) -> Result<(), RuntimeError> {
    // Until the image's configuration refers to them, only a lease keeps new snapshots from garbage collection.
    let lease = format!("hypha-unpack-{}-{}", std::process::id(), unique());
    let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expiry())]);
    let create = CreateRequest { id: lease.clone(), labels };
    client.call("make a lease", client.leases().create(create)).await?;
    let result = unpack_layers(&client.under_lease(lease.clone()), snapshotter, parts, chain).await;
    let delete = DeleteRequest { id: lease, sync: false };
    if let Err(error) = client.call("end a lease", client.leases().delete(delete)).await {
        tracing::debug!(%error, "lease is left to expire");
    }
    result
}

async fn unpack_layers(
    client: &Client,
    snapshotter: &str,
    parts: &Parts,
    chain: &[String],
) -> Result<(), RuntimeError> {
    let mut parent = String::new();
    for (layer, chain_id) in parts.layers.iter().zip(chain) {
        if !has_snapshot(client, snapshotter, chain_id).await? {
            unpack_layer(client, snapshotter, parts, layer, &parent, chain_id).await?;
        }
        parent.clone_from(chain_id);
    }
    // From here on the image holds its snapshots.
    let label = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
    let request = UpdateRequest {
        info: Some(Info {
            digest: parts.config_digest.clone(),
            labels: HashMap::from([(label.clone(), parent)]),
            ..Info::default()
        }),
        update_mask: Some(FieldMask { paths: vec![format!("labels.{label}")] }),
    };
    let doing = format!("label the configuration of image {}", parts.name);
    client.call(doing, client.content().update(request)).await?;
    Ok(())
}

async fn unpack_layer(
    client: &Client,
    snapshotter: &str,
    parts: &Parts,
    layer: &super::manifest::Descriptor,
    parent: &str,
    chain_id: &str,
) -> Result<(), RuntimeError> {
    let doing = || format!("unpack layer {} of image {}", layer.digest, parts.name);
    let key = format!("extract-{}-{} {chain_id}", std::process::id(), unique());
    let prepare = PrepareSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: key.clone(),
        parent: parent.to_owned(),
        labels: HashMap::new(),
    };
    let mounts = client.call(doing(), client.snapshots().prepare(prepare)).await?.mounts;
    let apply = ApplyRequest {
        diff: Some(types::Descriptor {
            media_type: layer.media_type.clone(),
            digest: layer.digest.clone(),
            size: layer.size,
            ..types::Descriptor::default()
        }),
        mounts,
        ..ApplyRequest::default()
    };
    let applied = client.call_within(LAYER_DEADLINE, doing(), client.diff().apply(apply)).await;
    let commit = CommitSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        name: chain_id.to_owned(),
        key: key.clone(),
        ..CommitSnapshotRequest::default()
    };
    let committed = match applied {
        Ok(_) => client.call(doing(), client.snapshots().commit(commit)).await.map(|_| ()),
        Err(error) => Err(error),
    };
    let Err(error) = committed else { return Ok(()) };
    let remove = RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key };
    let removed = client.call("remove a half-made snapshot", client.snapshots().remove(remove)).await;
    if let Err(error) = or_absent(removed.map(|_| ())) {
        tracing::debug!(%error, "half-made snapshot is left to garbage collection");
    }
    if error.is_already_exists() { Ok(()) } else { Err(error) }
}

fn unique() -> String {
    format!("{:08x}", rand::random::<u32>())
}

/// A day from now, in the form that containerd reads.
fn expiry() -> String {
    super::time::rfc3339(SystemTime::now() + Duration::from_secs(24 * 3600))
}
