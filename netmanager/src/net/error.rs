//! What can go wrong with links: what was being done, and what the kernel said.

use std::io;

/// A refused step: "add route 10.18.0.2/32 dev hy01", and why.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct NetError {
    pub doing: String,
    #[source]
    pub reason: Reason,
}

impl NetError {
    pub(super) fn new(doing: impl Into<String>, reason: Reason) -> Self {
        Self { doing: doing.into(), reason }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error(transparent)]
    Kernel(#[from] io::Error),
    /// Netlink answered with something that is neither success nor an error number.
    #[error("unexpected answer over netlink: {0}")]
    Netlink(Box<rtnetlink::Error>),
    #[error("there is no such process (it has ended, or the pid is wrong)")]
    NoProcess,
    #[error("it shares the node's own network namespace; a container must have one of its own")]
    SharedNamespace,
    #[error(
        "there is no default route of the IP version by which nodes reach each other, no interface has NodePublicAddress, and several or none could be meant; name the uplink as DefaultInterface in netcfg.json"
    )]
    NoDefaultRoute,
    #[error("default routes of equal metric lead to {0}; name one as DefaultInterface in netcfg.json")]
    SeveralDefaultRoutes(String),
    #[error("there is no such interface")]
    NoInterface,
    #[error(
        "it has no lasting address of the IP version by which nodes reach each other (that of NodePublicAddress)"
    )]
    NoAddress,
    #[error("it has no Ethernet address, so tunnel packets cannot be sent there")]
    NotEthernet,
}

impl Reason {
    fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel(error) => error.raw_os_error(),
            _ => None,
        }
    }

    /// Whether what was addressed is not there (any more).
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH))
    }

    /// Whether the kernel sees no sense in the question, for one because the object has nothing of the kind.
    pub(super) fn is_invalid(&self) -> bool {
        matches!(self.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP))
    }

    /// Whether this kernel, this namespace or this link knows no IPv6: it has no such address family, nobody who answers
    /// requests about it, or it is disabled by `disable_ipv6`.
    pub(super) fn is_without_ipv6(&self) -> bool {
        matches!(self.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EACCES))
    }
}

impl From<rtnetlink::Error> for Reason {
    fn from(error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => Self::Kernel(message.to_io()),
            other => Self::Netlink(Box::new(other)),
        }
    }
}
