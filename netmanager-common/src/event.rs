//! What the kernel side reports: why packets were dropped, and which addresses it misses.

use core::fmt;

use crate::wire::Ip;

/// A record of the event ring: a packet needed a service address that is not in the table. Written by both programs,
/// at most once per address in [`MISS_INTERVAL_NS`]; read by netmanager, which asks the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct MissRecord {
    /// The address that is not known.
    pub service_ip: Ip,
    /// The container of this node that sent the packet, or that will have to answer it.
    pub ns_ip: Ip,
}

const _: () = assert!(size_of::<MissRecord>() == 16 + 16);

/// A record of the event ring: a backend does not answer, or refuses connections. Written by both programs, at most once
/// per backend in [`crate::health::REPORT_MS`]; netmanager looks what [`crate::map::HEALTH`] says of it. It is told from
/// [`MissRecord`] by its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SuspectRecord {
    /// Index into [`crate::map::BACKENDS`].
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
}

const _: () = assert!(size_of::<SuspectRecord>() == 4 + 4);

/// How long the kernel keeps quiet about an address after a record.
pub const MISS_INTERVAL_NS: u64 = 200_000_000;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a packet was dropped: the index of its counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The one whose counter has this index.
            #[must_use]
            #[inline(always)]
            pub const fn at(index: u32) -> Option<Self> {
                match index {
                    $(index if index == Self::$name as u32 => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// A short name for metrics and scripts. It does not change.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What the reason means, for people: the documentation of its variant.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }.trim_ascii()
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its headers say, lengths that contradict each other, or IPv4 addresses in an IPv6 header.
    Malformed = "malformed",
    /// Neither IPv4, IPv6 nor ARP.
    NotIp = "not-ip",
    /// From a container, with a VLAN tag, which would go along to the uplink.
    VlanTag = "vlan-tag",
    /// IP options, which nothing in an overlay needs.
    IpOptions = "ip-options",
    /// IPv6 extension headers that are more than four, in a wrong order, behind a fragment header, or that name another
    /// last receiver than the IPv6 header.
    ExtensionHeaders = "extension-headers",
    /// A later fragment of a datagram whose first one is not known, so that its ports are not, either.
    Fragment = "fragment",
    /// Not TCP, UDP or ICMP echo.
    UnsupportedProtocol = "unsupported-protocol",
    /// The packet had no hop left.
    TtlExpired = "ttl-expired",
    /// Larger than what the tunnel carries.
    TooBig = "too-big",
    /// From a container with an address or MAC that is not its own.
    SpoofedSource = "spoofed-source",
    /// From a container, which is no router: an IPv6 router advertisement or a redirect.
    RouterAdvertisement = "router-advertisement",
    /// From a container, an answer of a DHCP server.
    DhcpServer = "dhcp-server",
    /// From a container's link-local address, and no neighbour discovery.
    LinkLocal = "link-local",
    /// From a container to the tunnel port of a node.
    TunnelFromContainer = "tunnel-from-container",
    /// To a service address that is not in the table (yet); a miss was raised.
    ServiceUnknown = "service-unknown",
    /// To a service that has no running instance.
    NoBackend = "no-backend",
    /// Of an established connection whose instance is gone.
    BackendGone = "backend-gone",
    /// From a container without an instance address of its own.
    NoInstanceAddress = "no-instance-address",
    /// Its ports belong to another live connection between the same two containers.
    PortClash = "port-clash",
    /// Of a container that has begun many flows which nobody answers.
    TooManyFlows = "too-many-flows",
    /// The table entry was replaced while it was read; the retransmission will find the new one.
    TableChanged = "table-changed",
    /// To a container that is not on this node, and none of those known on others.
    NoEndpoint = "no-endpoint",
    /// On the tunnel port, from an address where no node is known.
    UnknownPeer = "unknown-peer",
    /// On the tunnel port, from an address that has used up its budget of unknown sources, or where all strangers together
    /// have.
    OverBudget = "over-budget",
    /// On the tunnel port, neither IPv4 nor IPv6.
    ForeignTunnel = "foreign-tunnel",
    /// On the tunnel port, with an inner source that belongs to another node or to none.
    ForeignSource = "foreign-source",
    /// At the uplink outside of the tunnel, and from or to a container of this node.
    BareInner = "bare-inner",
    /// The node has no address or uplink yet.
    NotReady = "not-ready",
    /// The kernel refused to change the packet; memory was short.
    KernelRefused = "kernel-refused",
    /// From a container to a loopback address, which must not reach what listens there on the host.
    LoopbackDestination = "loopback-destination",
    /// On the tunnel port, and only a part of a datagram: no node of the overlay splits what it sends.
    OuterFragment = "outer-fragment",
}

/// How many reasons there are.
#[expect(clippy::cast_possible_truncation, reason = "a list written out by hand is short")]
pub const DROP_REASONS: u32 = DropReason::ALL.len() as u32;

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The index of no counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownDropReason(pub u32);

impl TryFrom<u32> for DropReason {
    type Error = UnknownDropReason;

    fn try_from(index: u32) -> Result<Self, UnknownDropReason> {
        Self::at(index).ok_or(UnknownDropReason(index))
    }
}

#[cfg(test)]
mod tests {
    use super::{DROP_REASONS, DropReason, UnknownDropReason};
    use std::collections::HashSet;

    #[test]
    fn every_reason_is_found_by_its_index_and_has_a_name_of_its_own() {
        for (index, reason) in (0..).zip(DropReason::ALL) {
            assert_eq!(DropReason::try_from(index), Ok(*reason));
            assert_eq!(*reason as u32, index);
        }
        assert_eq!(DropReason::try_from(DROP_REASONS), Err(UnknownDropReason(DROP_REASONS)));
        let names: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
    }

    #[test]
    fn a_meaning_is_the_text_beside_the_reason_on_one_line() {
        assert_eq!(DropReason::NotIp.meaning(), "Neither IPv4, IPv6 nor ARP.");
        for reason in DropReason::ALL {
            let meaning = reason.meaning();
            assert!(meaning.ends_with('.') && !meaning.contains(['\n', '`', '[']), "{reason}: {meaning:?}");
        }
    }
}
