//! What the data plane was told. It may refuse, when a table is full or the kernel has no memory; then it is told again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Action;
use crate::table::Entry;

/// How long a negative answer holds.
pub const NEGATIVE: Duration = Duration::from_secs(2);
/// When the data plane is given again what it has refused, should no packet ask for it earlier.
pub const RETRY: Duration = Duration::from_secs(5);

/// What the data plane holds for an address, or is to hold as soon as it takes it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) entry: Entry,
    /// Set while nobody is behind the address.
    pub(super) expires: Option<Instant>,
    /// Set while the data plane refuses the entry: when it is given it again.
    pub(super) retry: Option<Instant>,
}

impl Published {
    /// Gives it to the data plane once more.
    pub(super) fn again(&mut self, address: IpAddr, now: Instant) -> Action {
        self.retry = Some(now + RETRY);
        Action::Publish(address, self.entry.clone())
    }
}

/// Brings the data plane to `entry` if it holds another. The time of a negative answer starts anew.
pub(super) fn publish(
    published: &mut BTreeMap<IpAddr, Published>,
    actions: &mut Vec<Action>,
    address: IpAddr,
    entry: Entry,
    now: Instant,
) {
    let expires = entry.is_empty().then(|| now + NEGATIVE);
    let before = published.get(&address);
    let retry = before.and_then(|before| before.retry).map(|_| now + RETRY);
    if retry.is_some() || before.is_none_or(|before| before.entry != entry) {
        actions.push(Action::Publish(address, entry.clone()));
    }
    published.insert(address, Published { entry, expires, retry });
}
