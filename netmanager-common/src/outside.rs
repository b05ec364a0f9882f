//! The outer headers of a packet that arrives: whether it is for this node's tunnel, and whether its lengths agree.

use crate::checksum::Difference;
use crate::header::Header;
use crate::map::Node;
use crate::tunnel::{OVERHEAD, OVERHEAD6, Outer, Outer6};
use crate::wire::{Be16, FRAGMENT_OFFSET, IPV4_WITHOUT_OPTIONS, Ip, Ipv4, Ipv6, UDP, UDP_LEN, Udp, Wire};

/// Both outer headers.
pub trait Outside: Wire {
    /// The outer IP header.
    type Ip: Header;
    /// Bytes of both.
    const OVERHEAD: u16;

    /// The outer IP header.
    fn ip(&self) -> &Self::Ip;

    /// Whether the packet is for the tunnel of `node`. Not if it is a later fragment, or has options or extension
    /// headers: no node of the overlay sends any.
    fn is_to(&self, node: &Node) -> bool;

    /// Whether what follows is only a part of a datagram.
    fn is_fragment(&self) -> bool;

    /// Whether it looks like one that the sender's kernel has left to a network card, while there was none: it
    /// holds the sum of the pseudo header alone. So do by chance one of 65536 that are complete. One that is absent, as
    /// in what our own programs send, is not open; it costs no sum.
    fn is_left_open(&self) -> bool;

    /// Bytes of the inner packet, on which all lengths agree; nothing if they do not, or if the frame has fewer than
    /// the outer header says. `available`: bytes of the frame from the outer header on.
    fn inner_length(&self, available: u32) -> Option<u32>;
}

impl Outside for Outer {
    type Ip = Ipv4;
    const OVERHEAD: u16 = OVERHEAD;

    #[inline(always)]
    fn ip(&self) -> &Ipv4 {
        &self.ip
    }

    #[inline(always)]
    fn is_to(&self, node: &Node) -> bool {
        self.ip.version_and_length == IPV4_WITHOUT_OPTIONS
            && self.ip.protocol == UDP
            && self.ip.fragment.get() & FRAGMENT_OFFSET == 0
            && self.udp.destination == node.tunnel_port
            && self.ip.destination == node.address
            && !node.address.is_none()
    }

    #[inline(always)]
    fn is_fragment(&self) -> bool {
        self.ip.is_fragment()
    }

    #[inline(always)]
    fn is_left_open(&self) -> bool {
        is_left_open(&self.ip, &self.udp)
    }

    #[inline(always)]
    fn inner_length(&self, available: u32) -> Option<u32> {
        inner_length(&self.ip, &self.udp, available)
    }
}

impl Outside for Outer6 {
    type Ip = Ipv6;
    const OVERHEAD: u16 = OVERHEAD6;

    #[inline(always)]
    fn ip(&self) -> &Ipv6 {
        &self.ip
    }

    #[inline(always)]
    fn is_to(&self, node: &Node) -> bool {
        self.ip.version_class_flow[0] >> 4 == 6
            && self.ip.next_header == UDP
            && self.udp.destination == node.tunnel_port
            && self.ip.destination == node.address6
            && node.address6 != Ip::NONE
    }

    #[inline(always)]
    fn is_fragment(&self) -> bool {
        // It would have an extension header.
        false
    }

    #[inline(always)]
    fn is_left_open(&self) -> bool {
        is_left_open(&self.ip, &self.udp)
    }

    #[inline(always)]
    fn inner_length(&self, available: u32) -> Option<u32> {
        inner_length(&self.ip, &self.udp, available)
    }
}

#[inline(always)]
fn is_left_open<H: Header>(ip: &H, udp: &Udp) -> bool {
    if udp.checksum == Be16::new(0) {
        return false;
    }
    let sum =
        Difference::NONE.and_pseudo_header(ip.source(), ip.destination(), UDP, udp.length.get()).leave_open();
    sum == udp.checksum
}

#[inline(always)]
fn inner_length<H: Header>(ip: &H, udp: &Udp, available: u32) -> Option<u32> {
    let length = u32::from(udp.length.get());
    let total = ip.length();
    let agree = total == length + u32::from(H::LEN) && length >= u32::from(UDP_LEN) && available >= total;
    agree.then(|| length - u32::from(UDP_LEN))
}

#[cfg(test)]
mod tests {
    use super::Outside;
    use crate::tunnel::{Path, outer, outer6};
    use crate::wire::{Be16, Ip, Ip4};

    const PORT: Be16 = Be16::new(50103);

    fn path(source: Ip, destination: Ip) -> Path {
        Path { source, destination, source_port: PORT, destination_port: PORT }
    }

    /// With the sum of the pseudo header alone, with another one, and with none.
    fn expect_told<O: Outside>(with: impl Fn(Be16) -> O, open: Be16) {
        assert!(with(open).is_left_open());
        assert!(!with(Be16::new(open.get() ^ 1)).is_left_open());
        assert!(!with(Be16::new(0)).is_left_open());
    }

    #[test]
    fn an_open_checksum_is_told_from_a_complete_and_an_absent_one() {
        let own =
            outer(&path(Ip::from_v4(Ip4([192, 0, 2, 1])), Ip::from_v4(Ip4([192, 0, 2, 2]))), 100).unwrap();
        // 0xc000 + 0x0201 + 0xc000 + 0x0202 + 17 + 108, with the carry added.
        expect_told(
            |checksum| {
                let mut outer = own;
                outer.udp.checksum = checksum;
                outer
            },
            Be16::new(0x8481),
        );
        let of = |last| Ip::from_octets([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        let own = outer6(&path(of(1), of(2)), 100).unwrap();
        // Twice 0x2001 + 0x0db8, and 1 + 2 + 17 + 108.
        expect_told(
            |checksum| {
                let mut outer = own;
                outer.udp.checksum = checksum;
                outer
            },
            Be16::new(0x5bf2),
        );
    }
}
