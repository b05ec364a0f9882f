//! The documents an OCI image is made of, and the decisions on them: which platform, which layers, which snapshot.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use protocol::lenient::null_as_default;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    #[serde(default)]
    pub platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub variant: String,
}

/// An index or a manifest: which of the two is told by the lists it has, since media types differ between Docker's
/// and OCI's form and are at times left out.
#[derive(Debug, Clone, Deserialize)]
pub struct Target {
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    #[serde(default)]
    pub config: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
}

/// The image's configuration.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub os: String,
    pub architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: Defaults,
    pub rootfs: Rootfs,
}

/// How a container of the image runs unless the service says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Defaults {
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_as_default")]
    pub stop_signal: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Rootfs {
    pub diff_ids: Vec<String>,
}

/// `os/architecture[/variant]`, with Go's names.
impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl Platform {
    /// This machine.
    #[must_use]
    pub fn host() -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: crate::probe::architecture().to_owned(),
            variant: if cfg!(target_arch = "arm") { "v7".to_owned() } else { String::new() },
        }
    }

    /// Reads `os/architecture[/variant]`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let platform = Self {
            os: parts.next().filter(|os| !os.is_empty())?.to_owned(),
            architecture: parts.next().filter(|architecture| !architecture.is_empty())?.to_owned(),
            variant: parts.next().unwrap_or_default().to_owned(),
        };
        parts.next().is_none().then_some(platform)
    }

    fn suits(&self, wanted: &Self) -> bool {
        self.os == wanted.os && self.architecture == wanted.architecture
    }
}

/// The manifest of an index that runs on `wanted`: of the same system and architecture, the same variant first. One
/// without a platform is taken when nothing else is there; the image's configuration then tells.
///
/// # Errors
/// The platforms that are offered instead.
pub fn choose<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor, String> {
    let suits = |descriptor: &&Descriptor| {
        descriptor.platform.as_ref().is_some_and(|platform| platform.suits(wanted))
    };
    let exact =
        |descriptor: &&Descriptor| descriptor.platform.as_ref().is_some_and(|platform| platform == wanted);
    manifests
        .iter()
        .find(exact)
        .or_else(|| manifests.iter().find(suits))
        .or_else(|| manifests.iter().find(|descriptor| descriptor.platform.is_none()))
        .ok_or_else(|| {
            let offered: Vec<String> = manifests
                .iter()
                .filter_map(|descriptor| descriptor.platform.as_ref())
                .filter(|platform| platform.os != "unknown")
                .map(ToString::to_string)
                .collect();
            if offered.is_empty() { "no platform at all".to_owned() } else { offered.join(", ") }
        })
}

/// The names of the snapshots of an image's layers, lowest first. Each is derived from all layers below it, so the
/// last one names the whole root file system.
#[must_use]
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    diff_ids
        .iter()
        .scan(None::<String>, |parent, diff_id| {
            let chain_id = match parent {
                None => diff_id.clone(),
                Some(parent) => sha256(&format!("{parent} {diff_id}")),
            };
            *parent = Some(chain_id.clone());
            Some(chain_id)
        })
        .collect()
}

fn sha256(text: &str) -> String {
    let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Config, Descriptor, Platform, Target, chain_ids, choose};

    fn index(platforms: &[Option<&str>]) -> Vec<Descriptor> {
        platforms
            .iter()
            .enumerate()
            .map(|(number, platform)| Descriptor {
                media_type: String::new(),
                digest: format!("sha256:{number}"),
                size: 1,
                platform: platform.map(|text| Platform::parse(text).unwrap()),
            })
            .collect()
    }

    #[test]
    fn the_manifest_of_the_own_platform_is_chosen() {
        let wanted = Platform::parse("linux/arm/v7").unwrap();
        for (offered, chosen) in [
            (vec![Some("linux/amd64"), Some("linux/arm/v7")], "sha256:1"),
            (vec![Some("linux/arm/v6"), Some("linux/arm/v7")], "sha256:1"),
            (vec![Some("linux/arm/v6"), Some("linux/amd64")], "sha256:0"),
            (vec![None], "sha256:0"),
        ] {
            assert_eq!(choose(&index(&offered), &wanted).unwrap().digest, chosen);
        }
        let refused = choose(&index(&[Some("linux/amd64"), Some("unknown/unknown")]), &wanted).unwrap_err();
        assert_eq!(refused, "linux/amd64");
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let layers = ["sha256:a".to_owned(), "sha256:b".to_owned()];
        let chain = chain_ids(&layers);
        assert_eq!(chain[0], "sha256:a");
        // printf 'sha256:a sha256:b' | sha256sum
        assert_eq!(chain[1], "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8");
        assert!(chain_ids(&[]).is_empty());
    }

    #[test]
    fn documents_of_docker_and_oci_are_read() {
        let index: Target = serde_json::from_value(json!({"schemaVersion": 2, "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:1", "size": 7}]}))
        .unwrap();
        assert!(index.config.is_none() && index.manifests.len() == 1);
        let config: Config = serde_json::from_value(json!({"architecture": "amd64", "os": "linux",
            "config": {"Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": null, "User": ""},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]}}))
        .unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.entrypoint.is_empty());
        let bare: Config = serde_json::from_value(
            json!({"architecture": "amd64", "os": "linux", "config": null, "rootfs": {"diff_ids": []}}),
        )
        .unwrap();
        assert!(bare.config.env.is_empty());
    }
}
