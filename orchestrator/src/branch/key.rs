//! The keys of a branch's store, in one place. Clusters, and what they have yet to be told, are under those of
//! [`crate::children::key`], as a root has them.
//!
//! | key | value |
//! |---|---|
//! | `branch` | the id that the one above gave |
//! | `instance/<service>/<n>` | [`Kept`](super::instance::Kept): an instance that was given from above, and which cluster has it |
//! | `interest/<app.ns.service.ns>/<cluster>` | this cluster is told when the table of the service changes |
//! | `subnet/<first address>` | the cluster that got this block for one of its workers |

use std::net::Ipv4Addr;

use protocol::id::Id;
use protocol::name::ServiceName;

pub(super) const OWN_ID: &str = "branch";
pub(super) const INSTANCES: &str = "instance/";
pub(super) const INTERESTS: &str = "interest/";

pub(super) fn instance(service: Id, number: u32) -> String {
    format!("{INSTANCES}{service}/{number}")
}

pub(super) fn interest(name: &ServiceName, cluster: Id) -> String {
    format!("{INTERESTS}{name}/{cluster}")
}

pub(super) fn subnet(first: Ipv4Addr) -> String {
    format!("subnet/{first}")
}
