//! Which links between nodes this one offers the others, beside the bare one that all understand. Pure.
//!
//! Who receives decides: it knows whether its kernel merges what arrives, and the tables tell the senders.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use netmanager_common::link::OVERHEAD_VX;
use netmanager_common::tunnel::INNER_MTU;

use crate::datapath::Place;

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Whatever is best for the uplink.
    #[default]
    Auto,
    /// Neither offer nor use any other link than that of all nodes.
    Bare,
    /// Offer the one in VXLAN's format wherever it works.
    Vx,
}

/// Not one of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected auto, bare or vx, got {0:?}")]
pub struct UnknownLink(String);

impl FromStr for Wanted {
    type Err = UnknownLink;

    fn from_str(text: &str) -> Result<Self, UnknownLink> {
        match text {
            "auto" => Ok(Self::Auto),
            "bare" => Ok(Self::Bare),
            "vx" => Ok(Self::Vx),
            _ => Err(UnknownLink(text.to_owned())),
        }
    }
}

/// What matters of this node.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// Whether packets are forwarded by programs in the kernel.
    pub is_in_kernel: bool,
    /// Under which the other nodes reach this one.
    pub advertised: IpAddr,
    /// Of the uplink: bytes of IP.
    pub mtu: u32,
    /// Where the uplink's packets are unwrapped, if that is known.
    pub place: Option<Place>,
}

/// Why the link in VXLAN's format is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Configured,
    /// The data plane in user space does not know it.
    InUserSpace,
    /// It exists over IPv4 only.
    OverIpv6,
    /// Its headers would have to be taken from what containers send.
    NarrowUplink,
    /// Before the kernel merges packets, which it then does with bare ones too.
    UnwrappedInDriver,
    /// The kernel has no VXLAN, or somebody has the port.
    Refused,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "as configured",
            Self::InUserSpace => "packets are forwarded in user space",
            Self::OverIpv6 => "the underlay is IPv6",
            Self::NarrowUplink => "the uplink has no room for its headers",
            Self::UnwrappedInDriver => {
                "packets are unwrapped in the driver, so that the kernel merges bare ones too"
            }
            Self::Refused => "the kernel does not listen for it",
        })
    }
}

/// Whether the other nodes are to be told that they may send this one packets in VXLAN's format.
///
/// # Errors
/// Why not.
pub fn offer(wanted: Wanted, situation: &Situation) -> Result<(), Why> {
    let Situation { is_in_kernel, advertised, mtu, place } = *situation;
    if !is_in_kernel {
        return Err(Why::InUserSpace);
    }
    if wanted == Wanted::Bare {
        return Err(Why::Configured);
    }
    if advertised.is_ipv6() {
        return Err(Why::OverIpv6);
    }
    if mtu < u32::from(INNER_MTU + OVERHEAD_VX) {
        return Err(Why::NarrowUplink);
    }
    if wanted == Wanted::Auto && place == Some(Place::Xdp) {
        return Err(Why::UnwrappedInDriver);
    }
    Ok(())
}

/// Whether the kernel is to merge bare packets, if it can and the port is not needed for the link in VXLAN's format. What is
/// unwrapped in the driver it merges anyway.
#[must_use]
pub fn merges_bare(situation: &Situation) -> bool {
    situation.is_in_kernel && situation.place != Some(Place::Xdp)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::{Situation, Wanted, Why, merges_bare, offer};
    use crate::datapath::Place;

    const USUAL: Situation = Situation {
        is_in_kernel: true,
        advertised: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        mtu: 1500,
        place: Some(Place::Tc),
    };

    #[test]
    fn it_is_offered_where_the_kernel_would_not_merge_bare_packets() {
        assert_eq!(offer(Wanted::Auto, &USUAL), Ok(()));
        assert_eq!(offer(Wanted::Auto, &Situation { place: None, ..USUAL }), Ok(()));
        let in_driver = Situation { place: Some(Place::Xdp), ..USUAL };
        assert_eq!(offer(Wanted::Auto, &in_driver), Err(Why::UnwrappedInDriver));
        assert_eq!(offer(Wanted::Vx, &in_driver), Ok(()), "forced");
        assert_eq!(offer(Wanted::Bare, &USUAL), Err(Why::Configured));
    }

    #[test]
    fn bare_packets_are_merged_for_programs_that_unwrap_them_later() {
        let advertised = Ipv6Addr::LOCALHOST.into();
        for situation in [USUAL, Situation { place: None, advertised, mtu: 1280, ..USUAL }] {
            assert!(merges_bare(&situation), "{situation:?}");
        }
        assert!(!merges_bare(&Situation { place: Some(Place::Xdp), ..USUAL }));
        assert!(!merges_bare(&Situation { is_in_kernel: false, place: None, ..USUAL }));
    }

    #[test]
    fn it_is_never_offered_where_it_cannot_work() {
        for wanted in [Wanted::Auto, Wanted::Vx] {
            let user_space = Situation { is_in_kernel: false, ..USUAL };
            assert_eq!(offer(wanted, &user_space), Err(Why::InUserSpace));
            assert_eq!(offer(wanted, &Situation { mtu: 1499, ..USUAL }), Err(Why::NarrowUplink));
            let advertised = Ipv6Addr::LOCALHOST.into();
            assert_eq!(offer(wanted, &Situation { advertised, ..USUAL }), Err(Why::OverIpv6));
        }
    }
}
