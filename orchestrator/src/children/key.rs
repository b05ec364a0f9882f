//! Keys of the store under which root and branch keep their clusters, and what these have yet to be told.

use std::fmt::Display;

use protocol::id::Id;
use protocol::name::ServiceName;

pub(crate) const CLUSTERS: &str = "cluster/";
pub(crate) const COMMANDS: &str = "command/";
pub(crate) const NOTICES: &str = "notice/";

pub(crate) fn cluster(id: Id) -> String {
    format!("{CLUSTERS}{id}")
}

pub(crate) fn cluster_name(name: &str) -> String {
    format!("cluster-name/{name}")
}

pub(crate) fn command(cluster: Id, service: Id, number: impl Display) -> String {
    format!("{COMMANDS}{cluster}/{service}/{number}")
}

pub(crate) fn notice(cluster: Id, name: &ServiceName, number: i64) -> String {
    format!("{NOTICES}{cluster}/{name}/{number}")
}
