//! What a restart needs: who this node is, its block, its containers, and the last tables.
//!
//! Two files in the state directory, each replaced as a whole (temporary file, fsync, rename), so that a crash leaves
//! the old or the new one. `node.json` is written before an operation is answered. `tables.json` only saves questions
//! after a reboot, so it is written when things have calmed down: an idle node writes nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::id::Id;
use protocol::name::InstanceName;
use protocol::net::TableResult;
use protocol::plan::Plan;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::net::Uplink;
use crate::plane::Mode;
use crate::ports::PortMapping;

/// The format of the files. Another number is not read.
const VERSION: u32 = 1;
const NODE: &str = "node.json";
const TABLES: &str = "tables.json";

/// The content of `node.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: Option<Id>,
    /// Host of the cluster's broker, as `/register` said it.
    pub cluster: Option<String>,
    /// Which addresses the overlay has, as it was said with the block.
    #[serde(default, skip_serializing_if = "Plan::is_oakestras")]
    pub plan: Plan,
    /// First address of the node's block.
    pub subnet: Option<Ipv4Addr>,
    /// First address of its IPv6 block.
    pub subnet6: Option<Ipv6Addr>,
    /// Free addresses in the order in which they will be given out.
    #[serde(default)]
    pub free: Vec<Ipv4Addr>,
    #[serde(default)]
    pub endpoints: Vec<Attachment>,
    /// Who had the free addresses last, at most one for each. An instance that comes back has its own again: after a
    /// reboot with no cluster in reach, other nodes still send there.
    #[serde(default)]
    pub former: Vec<Former>,
    /// As found last; for `status` while no daemon runs.
    pub uplink: Option<Uplink>,
    /// Which data plane it had last; for `status` while no daemon runs.
    #[serde(default)]
    pub datapath: Option<Mode>,
}

/// An instance that is not connected any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    pub instance: InstanceName,
    pub ns_ip: Ipv4Addr,
}

/// A container that is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub instance: InstanceName,
    pub pid: i32,
    /// Inode of its network namespace.
    pub netns: u64,
    /// The node's end of its link pair.
    pub link: String,
    pub ifindex: u32,
    pub ns_ip: Ipv4Addr,
    /// Nothing where the container has no IPv6.
    #[serde(default)]
    pub ns_ip6: Option<Ipv6Addr>,
    pub instance_ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub instance_ip6: Option<Ipv6Addr>,
    pub mac: [u8; 6],
    pub gateway_mac: [u8; 6],
    #[serde(default)]
    pub ports: Vec<PortMapping>,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is damaged; `netmanager cleanup` removes it together with what this node has set up")]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("{path} has format {found}, this netmanager reads {VERSION}: it was written by another version")]
    Version { path: PathBuf, found: u32 },
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

#[derive(Default, Serialize, Deserialize)]
struct Tables {
    tables: Vec<TableResult>,
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Makes the directory (0700) if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| StateError::Io {
            doing: "make the state directory",
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self::at(dir))
    }

    /// The directory as it is, or is not.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// # Errors
    /// When the file is there but cannot be read. No file is an empty state.
    pub fn node(&self) -> Result<Node, StateError> {
        read(&self.dir.join(NODE))
    }

    /// # Errors
    /// When it cannot be written: then the old file is still there.
    pub fn save_node(&self, node: &Node) -> Result<(), StateError> {
        write(&self.dir.join(NODE), node)
    }

    /// # Errors
    /// As [`Store::node`].
    pub fn tables(&self) -> Result<Vec<TableResult>, StateError> {
        read(&self.dir.join(TABLES)).map(|tables: Tables| tables.tables)
    }

    /// # Errors
    /// As [`Store::save_node`].
    pub fn save_tables(&self, tables: Vec<TableResult>) -> Result<(), StateError> {
        write(&self.dir.join(TABLES), &Tables { tables })
    }

    /// Removes our files, and the directory if nothing else is in it. Says which files there were.
    ///
    /// # Errors
    /// When a file is there and cannot be removed.
    pub fn remove(&self) -> Result<Vec<PathBuf>, StateError> {
        let mut removed = Vec::new();
        for name in [NODE, TABLES, crate::lock::FILE] {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StateError::Io { doing: "remove", path, source }),
            }
        }
        // It stays if somebody else keeps something there.
        fs::remove_dir(&self.dir).ok();
        Ok(removed)
    }
}

fn read<T: Default + DeserializeOwned>(path: &Path) -> Result<T, StateError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(source) => return Err(StateError::Io { doing: "read", path: path.to_owned(), source }),
    };
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let damaged = |source| StateError::Damaged { path: path.to_owned(), source };
    let Head { version } = serde_json::from_slice(&text).map_err(damaged)?;
    if version != VERSION {
        return Err(StateError::Version { path: path.to_owned(), found: version });
    }
    let Versioned { content, .. } = serde_json::from_slice(&text).map_err(damaged)?;
    Ok(content)
}

fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), StateError> {
    let temporary = path.with_extension("new");
    let fail = |doing| {
        let path = path.to_owned();
        move |source| StateError::Io { doing, path, source }
    };
    let text = serde_json::to_vec_pretty(&Versioned { version: VERSION, content })
        .map_err(|error| fail("write")(error.into()))?;
    let replace = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself is durable once the directory is.
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    replace().map_err(fail("write"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use protocol::plan::Plan;

    use super::{Attachment, Former, Node, StateError, Store};

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("netmanager")).unwrap();
        (dir, store)
    }

    fn node() -> Node {
        let attachment = Attachment {
            instance: "smp.bed.srv.bed.instance.0".parse().unwrap(),
            pid: 4711,
            netns: 4_026_531_840,
            link: "hy0123456789ab".to_owned(),
            ifindex: 7,
            ns_ip: "10.18.0.66".parse().unwrap(),
            ns_ip6: Some("fc00::102".parse().unwrap()),
            instance_ip: Some("10.30.0.0".parse().unwrap()),
            instance_ip6: Some("fdff::".parse().unwrap()),
            mac: [2; 6],
            gateway_mac: [6; 6],
            ports: crate::ports::parse("8080:80").unwrap(),
        };
        Node {
            id: Some("6b033dc62c1f07cbdcd88440".parse().unwrap()),
            cluster: Some("192.0.2.20".to_owned()),
            plan: Plan::new("10.18.0.0/16".parse().unwrap(), "10.20.0.0/20".parse().unwrap()).unwrap(),
            subnet: Some("10.18.0.64".parse().unwrap()),
            subnet6: Some("fc00::100".parse().unwrap()),
            free: vec!["10.18.0.67".parse().unwrap()],
            endpoints: vec![attachment],
            former: vec![Former {
                instance: "a.b.c.d.instance.1".parse().unwrap(),
                ns_ip: "10.18.0.67".parse().unwrap(),
            }],
            uplink: None,
            datapath: None,
        }
    }

    #[test]
    fn a_state_is_read_as_it_was_saved() {
        let (_dir, store) = store();
        assert_eq!(store.node().unwrap(), Node::default());
        store.save_node(&node()).unwrap();
        store.save_node(&node()).unwrap();
        assert_eq!(store.node().unwrap(), node());
    }

    #[test]
    fn only_the_owner_reads_the_state() {
        let (_dir, store) = store();
        store.save_node(&node()).unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.dir().join("node.json")), 0o600);
        assert_eq!(mode(store.dir()), 0o700);
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_an_empty_state() {
        let (_dir, store) = store();
        for text in ["", "{", "[]", "{\"version\": 1, \"endpoints\": 3}"] {
            std::fs::write(store.dir().join("node.json"), text).unwrap();
            assert!(matches!(store.node(), Err(StateError::Damaged { .. })), "{text:?}");
        }
        std::fs::write(store.dir().join("node.json"), "{\"version\": 99}").unwrap();
        assert!(matches!(store.node(), Err(StateError::Version { found: 99, .. })));
    }

    #[test]
    fn removing_says_what_there_was() {
        let (_dir, store) = store();
        store.save_node(&node()).unwrap();
        assert_eq!(store.remove().unwrap().len(), 1);
        assert!(!store.dir().exists());
        assert_eq!(store.remove().unwrap().len(), 0);
    }
}
