//! Where the outer headers of arriving packets are taken off: by the tc program, as the kernel has made a packet, or by an
//! XDP program in the driver, before. Pure: what is known of the NIC in, the place and why out.
//!
//! Before is better where it is free: the kernel then merges the inner packets of a connection, as it does with those of
//! no tunnel. Where native XDP takes more than it gives, tc is better: see [`choose`]. Generic XDP, which any
//! interface has, comes after the kernel has made the packet and copied it, and is never used.

use std::fmt;
use std::str::FromStr;

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decapsulation {
    /// Whatever is best for the uplink.
    #[default]
    Auto,
    /// Always tc; no XDP program is attached.
    Tc,
    /// XDP on every driver that has it, even where tc is faster; tc where there is none.
    Xdp,
}

/// Not one of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected auto, tc or xdp, got {0:?}")]
pub struct UnknownDecapsulation(String);

impl FromStr for Decapsulation {
    type Err = UnknownDecapsulation;

    fn from_str(text: &str) -> Result<Self, UnknownDecapsulation> {
        match text {
            "auto" => Ok(Self::Auto),
            "tc" => Ok(Self::Tc),
            "xdp" => Ok(Self::Xdp),
            _ => Err(UnknownDecapsulation(text.to_owned())),
        }
    }
}

/// Where it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Tc,
    Xdp,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        })
    }
}

/// Why it is done there. What fails makes it tc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// As configured.
    Configured,
    /// The driver has native XDP, and it costs nothing else.
    Free,
    /// The driver has native XDP, but copies each frame for it.
    Copies,
    /// The driver has native XDP, but turns offloads off for it that are worth more.
    LosesOffloads,
    /// Nothing is known of this driver's native XDP.
    UnknownDriver,
    /// Somebody else's XDP program is there, and stays.
    Taken,
    /// The driver has no native XDP, or not with the interface as it is set up now.
    Refused(String),
    /// The driver runs the program, but gives it no room to leave a mark with a packet.
    NoMetadata,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "configured",
            Self::Free => "native XDP costs nothing on this driver",
            Self::Copies => "this driver copies each frame for native XDP",
            Self::LosesOffloads => "this driver turns receive offloads off for native XDP",
            Self::UnknownDriver => "nothing is known of native XDP on this driver",
            Self::Taken => "another XDP program is attached, which is left alone",
            Self::Refused(error) => return write!(f, "the driver refuses native XDP: {error}"),
            Self::NoMetadata => "this driver gives XDP programs no room for metadata",
        })
    }
}

/// Where the uplink's packets are unwrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub interface: String,
    /// The kernel's name of the driver; nothing where it has none.
    pub driver: Option<String>,
    pub place: Place,
    pub why: Why,
}

/// Drivers of NICs whose native XDP works in place, on the buffers that they receive into anyway, and with metadata.
const FREE: [&str; 14] = [
    "bnxt_en",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx5_core",
    "nfp",
    "qede",
    "sfc",
    "stmmac",
    "fsl_enetc",
];

/// What to try on an interface with this driver.
///
/// * veth copies each frame and takes its super-packets apart: half of the throughput is gone.
/// * virtio-net turns guest receive offloads off, with which super-packets would arrive whole from the host.
/// * Of a driver that is not listed it is not known, and attaching alone may reset its queues: tc, until somebody has
///   measured and says `xdp`.
pub(super) fn choose(wanted: Decapsulation, driver: Option<&str>) -> (Place, Why) {
    match (wanted, driver) {
        (Decapsulation::Tc, _) => (Place::Tc, Why::Configured),
        (Decapsulation::Xdp, _) => (Place::Xdp, Why::Configured),
        (Decapsulation::Auto, Some("veth")) => (Place::Tc, Why::Copies),
        (Decapsulation::Auto, Some("virtio_net")) => (Place::Tc, Why::LosesOffloads),
        (Decapsulation::Auto, Some(driver)) if FREE.contains(&driver) => (Place::Xdp, Why::Free),
        (Decapsulation::Auto, _) => (Place::Tc, Why::UnknownDriver),
    }
}

#[cfg(test)]
mod tests {
    use super::{Decapsulation, Place, Why, choose};

    #[test]
    fn the_place_follows_the_operator_then_the_driver() {
        use Decapsulation::{Auto, Tc, Xdp};
        for (wanted, driver, place, why) in [
            (Auto, Some("ice"), Place::Xdp, Why::Free),
            (Auto, Some("mlx5_core"), Place::Xdp, Why::Free),
            (Auto, Some("veth"), Place::Tc, Why::Copies),
            (Auto, Some("virtio_net"), Place::Tc, Why::LosesOffloads),
            (Auto, Some("r8169"), Place::Tc, Why::UnknownDriver),
            (Auto, None, Place::Tc, Why::UnknownDriver),
            (Tc, Some("ice"), Place::Tc, Why::Configured),
            (Xdp, Some("veth"), Place::Xdp, Why::Configured),
            (Xdp, None, Place::Xdp, Why::Configured),
        ] {
            assert_eq!(choose(wanted, driver), (place, why), "{wanted:?} on {driver:?}");
        }
    }

    #[test]
    fn what_is_wanted_is_read_as_it_is_documented() {
        assert_eq!("xdp".parse(), Ok(Decapsulation::Xdp));
        let error = "generic".parse::<Decapsulation>().unwrap_err();
        assert_eq!(error.to_string(), "expected auto, tc or xdp, got \"generic\"");
    }
}
