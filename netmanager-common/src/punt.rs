//! The slow path: what a program cannot finish alone goes to netmanager as a whole frame, through a TAP device, and may
//! come back the same way. In both directions a [`Tag`] stands where the frame had its destination MAC, which nobody
//! needs any more: it was the gateway's or the uplink's.

use crate::event::DropReason;

/// Which way a frame was on, or is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Origin {
    /// A container has sent it. Coming back, it begins anew as if the container sent it now.
    Container = 1,
    /// It has arrived at the uplink, outer headers and all. Coming back, it begins anew there.
    Uplink = 2,
    /// Made, or translated, by netmanager: to be delivered by its destination, a container's NsIP, as it is.
    Netmanager = 3,
}

/// What is known of a frame at the TAP device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Which way it is on.
    pub origin: Origin,
    /// Index of the [`DropReason`] for which it could not go on; of no meaning on the way back.
    pub reason: u8,
    /// The interface where it had arrived first.
    pub ifindex: u32,
}

/// Bytes of a tag: those of a MAC.
pub const TAG_LEN: usize = 6;

/// Of a MAC that nobody has been sold.
const LOCALLY_ADMINISTERED: u8 = 0x02;

impl Tag {
    /// The tag as it stands in a frame: a unicast MAC, so that no device on the way takes it for a broadcast.
    #[must_use]
    #[inline(always)]
    pub const fn bytes(self) -> [u8; TAG_LEN] {
        let [a, b, c, d] = self.ifindex.to_be_bytes();
        [(self.origin as u8) << 2 | LOCALLY_ADMINISTERED, self.reason, a, b, c, d]
    }

    /// The tag that stands in a frame; nothing if it is none.
    #[must_use]
    #[inline(always)]
    pub const fn read(bytes: [u8; TAG_LEN]) -> Option<Self> {
        let [origin, reason, a, b, c, d] = bytes;
        let origin = match origin ^ LOCALLY_ADMINISTERED {
            0x04 => Origin::Container,
            0x08 => Origin::Uplink,
            0x0c => Origin::Netmanager,
            _ => return None,
        };
        Some(Self { origin, reason, ifindex: u32::from_be_bytes([a, b, c, d]) })
    }
}

/// The reasons for which there is something that netmanager can do: hold the packet until its service is known, or the
/// first fragment of its datagram has come, say in the network's own words why it goes no further, translate what is too
/// rare to be translated in the kernel.
const SLOW: u64 = bit(DropReason::ServiceUnknown)
    | bit(DropReason::NoBackend)
    | bit(DropReason::BackendGone)
    | bit(DropReason::NoInstanceAddress)
    | bit(DropReason::NoEndpoint)
    | bit(DropReason::TooBig)
    | bit(DropReason::TtlExpired)
    | bit(DropReason::UnsupportedProtocol)
    | bit(DropReason::Fragment)
    | bit(DropReason::UnknownPeer);

const fn bit(reason: DropReason) -> u64 {
    1 << reason as u32
}

/// Whether packets that cannot go on for the reason with this index are for the slow path.
#[must_use]
#[inline(always)]
pub const fn is_slow(reason: u32) -> bool {
    SLOW >> (reason & 63) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::{Origin, Tag, is_slow};
    use crate::event::{DROP_REASONS, DropReason};
    use proptest::prelude::*;

    #[test]
    fn spoofed_and_malformed_packets_stay_in_the_kernel() {
        for reason in [DropReason::SpoofedSource, DropReason::Malformed, DropReason::OuterFragment] {
            assert!(!is_slow(reason as u32), "{reason}");
        }
        assert!(is_slow(DropReason::ServiceUnknown as u32));
        const { assert!(DROP_REASONS <= 64, "a reason is one bit") };
    }

    proptest! {
        #[test]
        fn a_tag_is_read_as_it_was_written(reason: u8, ifindex: u32, origin in 0usize..3) {
            let origin = [Origin::Container, Origin::Uplink, Origin::Netmanager][origin];
            let tag = Tag { origin, reason, ifindex };
            prop_assert_eq!(Tag::read(tag.bytes()), Some(tag));
            prop_assert_eq!(tag.bytes()[0] & 1, 0, "a unicast MAC");
        }
    }
}
