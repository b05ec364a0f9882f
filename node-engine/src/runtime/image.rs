//! From an image's name to a root file system: find the image, read its documents, see that its layers are unpacked.

use containerd_client::services::v1::snapshots::StatSnapshotRequest;
use containerd_client::services::v1::{GetImageRequest, ReadContentRequest};
use serde::de::DeserializeOwned;
use tonic::Code;

use super::client::Client;
use super::error::RuntimeError;
use super::manifest::{Config, Defaults, Descriptor, Platform, Target, chain_ids, choose};
use super::reference::normalise;
use super::unpack::unpack;

/// Longer than any honest manifest or configuration.
const DOCUMENT_MAX: usize = 8 << 20;

/// An image that is here, unpacked, and made for this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// As containerd stores it.
    pub name: String,
    pub defaults: Defaults,
    /// The snapshot of the whole root file system; empty when the image has no layers.
    pub chain_id: String,
}

/// What an image is made of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) config_digest: String,
    pub(super) config: Config,
    pub(super) layers: Vec<Descriptor>,
}

/// Finds image `reference` in containerd's store, as it is written or in its full form.
///
/// # Errors
/// A reference that is none; [`RuntimeError::is_not_found`] when no such image is stored.
pub(super) async fn find(client: &Client, reference: &str) -> Result<(String, Descriptor), RuntimeError> {
    let full = normalise(reference)?;
    let mut result = get(client, &full).await;
    if result.as_ref().is_err_and(RuntimeError::is_not_found) && full != reference {
        // An image may be stored under a name that nobody completed.
        if let Ok(found) = get(client, reference).await {
            result = Ok(found);
        }
    }
    result
}

async fn get(client: &Client, name: &str) -> Result<(String, Descriptor), RuntimeError> {
    let request = GetImageRequest { name: name.to_owned() };
    let answer = client.call(format!("look up image {name}"), client.images().get(request)).await?;
    let target = answer.image.and_then(|image| image.target).ok_or_else(|| RuntimeError::BadImage {
        image: name.to_owned(),
        what: "it is stored without a target".to_owned(),
    })?;
    let descriptor = Descriptor {
        media_type: target.media_type,
        digest: target.digest,
        size: target.size,
        platform: None,
    };
    Ok((name.to_owned(), descriptor))
}

/// Makes image `name` ready to run on `platform`.
///
/// # Errors
/// An image for other platforms, with missing content, or one that cannot be unpacked.
pub(super) async fn prepare(
    client: &Client,
    snapshotter: &str,
    name: String,
    target: &Descriptor,
    platform: &Platform,
) -> Result<Image, RuntimeError> {
    let parts = read_parts(client, name, target, platform).await?;
    let chain = chain_ids(&parts.config.rootfs.diff_ids);
    if chain.len() != parts.layers.len() {
        let what =
            format!("its configuration names {} layers, its manifest {}", chain.len(), parts.layers.len());
        return Err(RuntimeError::BadImage { image: parts.name, what });
    }
    let chain_id = chain.last().cloned().unwrap_or_default();
    if !chain_id.is_empty() && !has_snapshot(client, snapshotter, &chain_id).await? {
        unpack(client, snapshotter, &parts, &chain).await?;
    }
    Ok(Image { name: parts.name, defaults: parts.config.config, chain_id })
}

async fn read_parts(
    client: &Client,
    name: String,
    target: &Descriptor,
    wanted: &Platform,
) -> Result<Parts, RuntimeError> {
    let wrong_platform = |offered: String| RuntimeError::WrongPlatform {
        image: name.clone(),
        wanted: wanted.to_string(),
        offered,
    };
    let mut document: Target = read(client, &name, &target.digest).await?;
    // An index may hold an index; deeper than that nobody goes.
    for _ in 0..2 {
        if document.manifests.is_empty() {
            break;
        }
        let chosen = choose(&document.manifests, wanted).map_err(wrong_platform)?;
        document = read(client, &name, &chosen.digest).await?;
    }
    let Some(config_descriptor) = document.config else {
        return Err(RuntimeError::BadImage {
            image: name,
            what: "its manifest names no configuration".to_owned(),
        });
    };
    let config: Config = read(client, &name, &config_descriptor.digest).await?;
    if config.os != wanted.os || config.architecture != wanted.architecture {
        return Err(wrong_platform(format!("{}/{}", config.os, config.architecture)));
    }
    Ok(Parts { name, config_digest: config_descriptor.digest, config, layers: document.layers })
}

async fn read<T: DeserializeOwned>(client: &Client, image: &str, digest: &str) -> Result<T, RuntimeError> {
    let bad = |what: String| RuntimeError::BadImage { image: image.to_owned(), what };
    let doing = || format!("read {digest} of image {image}");
    let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
    let mut stream = match client.call(doing(), client.content().read(request)).await {
        Err(error) if error.is_not_found() => {
            return Err(bad(format!("its part {digest} is not stored here; import or pull it again")));
        }
        other => other?,
    };
    let mut document = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(chunk)) => document.extend_from_slice(&chunk.data),
            Ok(None) => break,
            Err(status) if status.code() == Code::NotFound => {
                return Err(bad(format!("its part {digest} is not stored here; import or pull it again")));
            }
            Err(status) => return Err(client.error(doing(), status)),
        }
        if document.len() > DOCUMENT_MAX {
            return Err(bad(format!("its part {digest} is longer than {DOCUMENT_MAX} bytes")));
        }
    }
    serde_json::from_slice(&document)
        .map_err(|error| bad(format!("its part {digest} cannot be read: {error}")))
}

pub(super) async fn has_snapshot(
    client: &Client,
    snapshotter: &str,
    key: &str,
) -> Result<bool, RuntimeError> {
    let request = StatSnapshotRequest { snapshotter: snapshotter.to_owned(), key: key.to_owned() };
    match client.call(format!("look up snapshot {key}"), client.snapshots().stat(request)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
