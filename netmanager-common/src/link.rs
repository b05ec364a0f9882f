//! The links between nodes: how an inner packet is wrapped in the tunnel's UDP.
//!
//! Oakestra's is the bare one. Between two of our own nodes there is another one, whose packets look like VXLAN's: the
//! kernel knows that format in its receive path, and there merges the inner segments of a connection (GRO) before any
//! program of ours has the packet, provided that a VXLAN device listens on the port. The device itself never gets a packet.
//!
//! Both come to the same port, so that firewalls and NATs need to know of one: the first byte tells them apart, which of an
//! IP packet is never [`FIRST`]. Bare packets go past the kernel's VXLAN unmerged, as they would without it.

use crate::tunnel::{INNER_MTU, OVERHEAD};
use crate::wire::{Be16, ETHERNET_LEN, Ethernet, Wire};

/// How packets to a node are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Link {
    /// The inner packet right behind UDP. Every node understands it.
    #[default]
    Bare = 0,
    /// A VXLAN header and an Ethernet header between them. Over IPv4 only, and only to nodes that have asked for it.
    Vx = 1,
}

/// Marks what is ours. Of 24 bits; it is not the number of the device that listens, so that the kernel gives it nothing.
const NETWORK: [u8; 3] = *b"Hyp";
/// What begins a [`Shell`]: VXLAN's only flag, that there is a network number (RFC 7348, 5).
pub const FIRST: u8 = 0x08;

/// What [`Link::Vx`] has between UDP and the inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Shell {
    /// The VXLAN header: flags, and the network's number.
    pub vxlan: [u8; 8],
    /// An Ethernet header that only says what follows. The same for all packets of a node, or they would not be merged.
    pub ethernet: Ethernet,
}

/// Bytes of a [`Shell`].
pub const SHELL_LEN: u16 = 8 + ETHERNET_LEN;
/// What [`Link::Vx`] adds to a packet over IPv4.
pub const OVERHEAD_VX: u16 = OVERHEAD + SHELL_LEN;

const _: () = assert!(size_of::<Shell>() == SHELL_LEN as usize);
// The usual uplink carries what containers send.
const _: () = assert!(INNER_MTU + OVERHEAD_VX <= 1500);

// SAFETY: bytes side by side, as the assertion on the size shows.
unsafe impl Wire for Shell {}

impl Shell {
    /// Around a packet of this Ethertype.
    #[must_use]
    #[inline(always)]
    pub const fn of(ethertype: Be16) -> Self {
        let [a, b, c] = NETWORK;
        Self {
            vxlan: [FIRST, 0, 0, 0, a, b, c, 0],
            ethernet: Ethernet { destination: [2, 0, 0, 0, 0, 2], source: [2, 0, 0, 0, 0, 1], ethertype },
        }
    }

    /// Whether a node of ours has put it around a packet of this Ethertype.
    #[must_use]
    #[inline(always)]
    pub fn is_of(&self, ethertype: Be16) -> bool {
        self.vxlan == Self::of(ethertype).vxlan && self.ethernet.ethertype == ethertype
    }
}

/// The inner packet in what came to the tunnel's port, whichever link it came by. Checks nothing.
#[must_use]
pub fn inside(payload: &[u8]) -> &[u8] {
    match payload {
        [FIRST, ..] => payload.get(usize::from(SHELL_LEN)..).unwrap_or_default(),
        _ => payload,
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, Shell, inside};
    use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};

    #[test]
    fn the_inner_packet_is_found_in_either_format() {
        let bare = [0x45, 1, 2];
        assert_eq!(inside(&bare), bare);
        assert_eq!(inside(&[&[FIRST], [0; 21].as_slice(), &bare].concat()), bare);
        assert_eq!(inside(&[FIRST; 21]), [] as [u8; 0]);
        assert_eq!(inside(&[]), [] as [u8; 0]);
    }

    #[test]
    fn a_shell_is_known_by_its_network_and_what_it_says_of_its_inside() {
        let shell = Shell::of(ETHERTYPE_IPV4);
        assert!(shell.is_of(ETHERTYPE_IPV4) && !shell.is_of(ETHERTYPE_IPV6));
        for place in [0, 4, 5, 6, 7] {
            let mut other = shell;
            other.vxlan[place] ^= 1;
            assert!(!other.is_of(ETHERTYPE_IPV4), "byte {place}");
        }
    }
}
