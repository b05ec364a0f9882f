//! Addresses that more than one service is said to have. None should be, but a control plane that lets people choose
//! addresses unchecked makes it possible, and while an address moves from one service to another both may name it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use protocol::name::ServiceName;

/// Who has lost an address to the service that has it now. One that loses it may not take it back while the other one
/// names it, too: they would take it from each other for ever, with a question to the cluster and other instances
/// behind the address each time.
#[derive(Debug, Default)]
pub(super) struct Rivals(BTreeMap<IpAddr, BTreeMap<ServiceName, Standing>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Asked whether it is still its own.
    Asked,
    /// It says so.
    Insists,
}

/// What becomes of a service's claim to an address that another one has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has the address from now on.
    Taken,
    /// It is one too many.
    Refused { news: bool },
}

impl Rivals {
    /// `service` names an address that `holder` has.
    pub(super) fn claim(&mut self, address: IpAddr, service: &ServiceName, holder: ServiceName) -> Claim {
        let rivals = self.0.entry(address).or_default();
        if let Some(standing) = rivals.get_mut(service) {
            let before = std::mem::replace(standing, Standing::Insists);
            return Claim::Refused { news: before != Standing::Insists };
        }
        rivals.insert(holder, Standing::Asked);
        Claim::Taken
    }

    /// A service no longer has the address, and who would have it now is to be asked.
    pub(super) fn released(&mut self, address: IpAddr) -> impl Iterator<Item = ServiceName> + use<> {
        self.0.remove(&address).unwrap_or_default().into_keys()
    }

    /// All that `service` is said to have.
    pub(super) fn named(&mut self, service: &ServiceName, addresses: &BTreeSet<IpAddr>) {
        self.0.retain(|address, rivals| {
            if !addresses.contains(address) {
                rivals.remove(service);
            }
            !rivals.is_empty()
        });
    }
}
