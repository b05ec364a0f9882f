//! Which addresses the overlay has: as the root is told at its start, and as the store has it.

use std::net::IpAddr;

use protocol::id::Id;
use protocol::plan::Plan;

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
    Services { before: protocol::plan::Range, wanted: protocol::plan::Range },
    #[error(
        "workers have addresses of {before}, so --container-range cannot become {wanted}: they are given back when a \
         worker has been forgotten; until then start with the range as it was"
    )]
    Containers { before: protocol::plan::Range, wanted: protocol::plan::Range },
}

/// Makes `wanted` the plan of this store. A range changes only while nobody has an address of it.
pub(super) async fn ensure(store: &Store, wanted: &Plan) -> Result<(), PlanError> {
    let stored = store.get::<Plan>(key::PLAN).await?;
    let before = stored.as_ref().map(|stored| stored.value).unwrap_or_default();
    if stored.is_some() && before == *wanted {
        return Ok(());
    }
    let mut change =
        Transaction::new().expect(key::PLAN, stored.map(|stored| stored.revision)).put(key::PLAN, wanted);
    if before.services() != wanted.services() && has_services(store).await? {
        return Err(PlanError::Services { before: before.services(), wanted: wanted.services() });
    }
    if before.containers() != wanted.containers() {
        // Blocks are known by their number in the range, so that these begin anew.
        let given = store.get::<u32>(key::NEXT_SUBNET).await?;
        let back = store.list::<serde_json::Value>(key::FREE_SUBNETS).await?;
        let count = given.as_ref().map_or(0, |given| given.value);
        if usize::try_from(count).is_ok_and(|count| count > back.len()) {
            return Err(PlanError::Containers { before: before.containers(), wanted: wanted.containers() });
        }
        change = change.expect(key::NEXT_SUBNET, given.map(|given| given.revision)).delete(key::NEXT_SUBNET);
        change = back.iter().fold(change, |change, (path, _)| change.delete(path));
    }
    if !before.eq(wanted) {
        tracing::info!(%before, %wanted, "the overlay has other addresses from now on");
    }
    store.commit(change).await?;
    Ok(())
}

/// Whether anybody has a ServiceIP of IPv4. Those of IPv6 are of no plan.
async fn has_services(store: &Store) -> Result<bool, StoreError> {
    let taken = store.list::<Id>(key::ADDRESSES).await?;
    let is_v4 = |path: &str| path.strip_prefix(key::ADDRESSES).and_then(|text| text.parse::<IpAddr>().ok());
    Ok(taken.iter().any(|(path, _)| is_v4(path).is_some_and(|address| address.is_ipv4())))
}
