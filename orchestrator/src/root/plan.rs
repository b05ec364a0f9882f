//! Which addresses the overlay has: as the root is told at its start, and as the store has it.

use std::net::IpAddr;

use protocol::id::Id;
use protocol::plan::{Plan, Range};

use super::key;
use crate::store::{Store, StoreError, Transaction};

/// Why the root cannot go on with these addresses.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("read or write the plan of addresses")]
    Store(#[from] StoreError),
    #[error(
        "services have addresses of {before}, so --service-range cannot become {wanted}: delete the services first, or \
         start with the range as it was"
    )]
    Services { before: Range, wanted: Range },
    #[error(
        "workers have joined with {before}, and would not hear of {wanted}: start with --container-range and \
         --service-range as they were. A block of addresses comes back when its cluster forgets the worker (the cluster's \
         --forget-workers), to a cluster of Oakestra's it is given for ever; to begin anew, use another --data-dir or store"
    )]
    Workers { before: Plan, wanted: Plan },
}

/// Makes `wanted` the plan of this store. It changes only while no service has an address of a range that changes, and no
/// worker has a block: workers learn the plan together with that.
///
/// Blocks are stored by their number. Those that came back have the same ones in another range.
pub(super) async fn ensure(store: &Store, wanted: &Plan) -> Result<(), PlanError> {
    let stored = store.get::<Plan>(key::PLAN).await?;
    let before = stored.as_ref().map(|stored| stored.value).unwrap_or_default();
    if before != *wanted {
        if before.services() != wanted.services() && has_services(store).await? {
            return Err(PlanError::Services { before: before.services(), wanted: wanted.services() });
        }
        let given = store.get::<u32>(key::NEXT_SUBNET).await?.map_or(0, |next| next.value);
        let back = store.list::<serde_json::Value>(key::FREE_SUBNETS).await?.len();
        if usize::try_from(given).is_ok_and(|given| given > back) {
            return Err(PlanError::Workers { before, wanted: *wanted });
        }
        tracing::info!(%before, %wanted, "the overlay has other addresses from now on");
    } else if stored.is_some() {
        return Ok(());
    }
    let revision = stored.map(|stored| stored.revision);
    store.commit(Transaction::new().expect(key::PLAN, revision).put(key::PLAN, wanted)).await?;
    Ok(())
}

/// Whether anybody has a ServiceIP of IPv4. Those of IPv6 are of no plan.
async fn has_services(store: &Store) -> Result<bool, StoreError> {
    let taken = store.list::<Id>(key::ADDRESSES).await?;
    let is_v4 = |path: &str| path.strip_prefix(key::ADDRESSES).and_then(|text| text.parse::<IpAddr>().ok());
    Ok(taken.iter().any(|(path, _)| is_v4(path).is_some_and(|address| address.is_ipv4())))
}
