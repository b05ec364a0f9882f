//! Which blocks of worker addresses are given to which cluster, and which came back.
//!
//! A block that came back is given again only when all others have been given: until then somebody may still have packets for
//! the one who had it before.

use std::net::Ipv4Addr;

use protocol::id::Id;
use protocol::net::Subnet;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::{Root, key, subnet};
use crate::clock;
use crate::store::{StoreError, Transaction};

/// One that came back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Free {
    /// Seconds since the epoch.
    since: f64,
}

impl Root {
    /// Another block at each call. `to`: the cluster, if it is known which.
    pub(super) async fn give_subnet(&self, to: Option<Id>) -> Result<Subnet, Failure> {
        loop {
            let next = self.store.get::<u32>(key::NEXT_SUBNET).await?;
            let number = next.as_ref().map_or(0, |next| next.value);
            let count = subnet::count(&self.plan);
            let (number, taken) = if number < count {
                let taken = Transaction::new().expect(key::NEXT_SUBNET, next.map(|next| next.revision));
                (number, taken.put(key::NEXT_SUBNET, &(number + 1)))
            } else {
                let free = self.store.list::<Free>(key::FREE_SUBNETS).await?.into_iter();
                // Some may be of a time when there were more.
                let numbered = free.filter_map(|(path, entry)| {
                    let number = path.strip_prefix(key::FREE_SUBNETS)?.parse().ok()?;
                    (number < count).then_some((number, path, entry))
                });
                let oldest = numbered.min_by(|(.., a), (.., b)| a.value.since.total_cmp(&b.value.since));
                let (number, path, entry) = oldest.ok_or(Failure::NoSubnet)?;
                (number, Transaction::new().expect(&path, Some(entry.revision)).delete(&path))
            };
            let taken = match to {
                Some(cluster) => taken.put(&key::given_subnet(number), &cluster),
                None => taken,
            };
            match self.store.commit(taken).await {
                Err(StoreError::Conflict { .. }) => {}
                done => {
                    done?;
                    return subnet::block(number, &self.plan).ok_or(Failure::NoSubnet);
                }
            }
        }
    }

    /// Takes a block back from one of these clusters.
    pub(super) async fn take_subnet_back(&self, address: Ipv4Addr, from: &[Id]) -> Result<(), Failure> {
        let unknown = || Failure::NotFound { kind: "block of this cluster", id: address.to_string() };
        let number = subnet::number(address, &self.plan).ok_or_else(unknown)?;
        let given = key::given_subnet(number);
        let owner = self.store.get::<Id>(&given).await?.filter(|owner| from.contains(&owner.value));
        let owner = owner.ok_or_else(unknown)?;
        let back = Transaction::new()
            .expect(&given, Some(owner.revision))
            .delete(&given)
            .put(&key::free_subnet(number), &Free { since: clock::now() });
        match self.store.commit(back).await {
            Err(StoreError::Conflict { .. }) => Err(unknown()),
            done => Ok(done?),
        }
    }
}
