//! What workers ask about: a service, by name or address, or a node itself.

use std::fmt;
use std::net::IpAddr;

use protocol::name::ServiceName;
use protocol::plan::Plan;

/// What a table can be asked by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Subject {
    Name(ServiceName),
    Address(IpAddr),
}

impl Subject {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.parse().map(Self::Address).or_else(|_no_address| text.parse().map(Self::Name)).ok()
    }

    /// The NsIP that this is: no service is behind it.
    pub(crate) fn ns_ip(&self, plan: &Plan) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address).filter(|address| plan.is_container(*address)),
            Self::Name(_) => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}
