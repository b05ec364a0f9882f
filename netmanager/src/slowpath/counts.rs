//! What has become of the packets of the slow path.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Packets since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Waited, for an answer of the cluster or for the first fragment of their datagram.
    pub held: u64,
    /// Of those, went on when it came.
    pub released: u64,
    /// Of those, waited in vain; of the cluster, so that their senders were told.
    pub expired: u64,
    /// Were to wait and found no room.
    pub refused: u64,
    /// Were answered by ICMP or a reset.
    pub answered: u64,
    /// ICMP errors that went on.
    pub translated: u64,
    /// Were dropped here.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    held: AtomicU64,
    released: AtomicU64,
    expired: AtomicU64,
    refused: AtomicU64,
    answered: AtomicU64,
    translated: AtomicU64,
    dropped: AtomicU64,
}

macro_rules! count {
    ($($name:ident),+) => {
        impl Counters {
            $(pub(super) fn $name(&self) {
                self.$name.fetch_add(1, Ordering::Relaxed);
            })+

            pub(super) fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed)),+ }
            }
        }
    };
}

count!(held, released, expired, refused, answered, translated, dropped);
