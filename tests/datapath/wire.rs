//! What goes over a link, as a network card would have to send it: checksums that the kernel has left open are filled in as
//! the card would, and everything is then read by a parser that is not ours.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use integration::Netns;
use nix::net::if_::if_nametoindex;

/// `linux/if_packet.h`
const PACKET_IGNORE_OUTGOING: i32 = 23;
/// Bytes of virtio's header before each frame.
const VIRTIO: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
const UDP: u8 = 17;
const BUFFER: i32 = 64 << 20;

/// A packet socket that gets what arrives at an interface.
#[derive(Debug)]
pub(crate) struct Capture(OwnedFd);

/// A packet of the tunnel, with all its checksums verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crossed {
    /// Protocol of what the inner packet carries.
    pub(crate) protocol: u8,
    /// Whether the inner packet is of IPv6.
    pub(crate) is_v6: bool,
    /// Bytes of the frame.
    pub(crate) length: usize,
    /// Whether the kernel has left segmentation to the card.
    pub(crate) is_super: bool,
    /// Whether it has left a checksum to it.
    pub(crate) is_open: bool,
}

impl Capture {
    pub(crate) fn of(netns: &Netns, interface: &str) -> Self {
        netns.run(|| Self::open(interface)).unwrap().unwrap_or_else(|error| panic!("{interface}: {error}"))
    }

    fn open(interface: &str) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes numbers only.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        for (level, name, value) in [
            (libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1),
            (libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1),
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER),
        ] {
            set(&socket, level, name, value)?;
        }
        // SAFETY: integers and arrays of them; all zeroes are a value.
        let mut name: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        name.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        name.sll_protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
        name.sll_ifindex = if_nametoindex(interface)?.cast_signed();
        let length = u32::try_from(size_of_val(&name)).map_err(io::Error::other)?;
        // SAFETY: the pointer is valid for the length beside it.
        let bound = unsafe { libc::bind(raw, (&raw const name).cast(), length) };
        if bound == 0 { Ok(Self(socket)) } else { Err(io::Error::last_os_error()) }
    }

    /// Packets to the tunnel port that have arrived since the last call. Panics at one with a wrong checksum.
    #[track_caller]
    pub(crate) fn crossed(&self, tunnel_port: u16) -> Vec<Crossed> {
        let mut crossed = Vec::new();
        let mut buffer = vec![0; 128 << 10];
        while let Some(length) = self.receive(&mut buffer) {
            let (virtio, frame) = buffer[..length].split_at_mut(VIRTIO);
            let is_open = finish(virtio, frame);
            let headers = PacketHeaders::from_ethernet_slice(frame).expect("a frame");
            let Some(TransportHeader::Udp(udp)) = &headers.transport else { continue };
            if udp.destination_port != tunnel_port {
                continue;
            }
            let inner = headers.payload.slice();
            if udp.checksum != 0 {
                verify(headers.net.as_ref(), headers.transport.as_ref(), inner);
            }
            let inside = PacketHeaders::from_ip_slice(inner).expect("an inner packet");
            crossed.push(Crossed {
                protocol: verify(inside.net.as_ref(), inside.transport.as_ref(), inside.payload.slice()),
                is_v6: matches!(inside.net, Some(NetHeaders::Ipv6(..))),
                length: frame.len(),
                is_super: virtio[1] != 0,
                is_open,
            });
        }
        crossed
    }

    fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        // SAFETY: the buffer is valid for its length.
        let length = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if let Ok(length) = usize::try_from(length) {
            assert!(length < buffer.len(), "a whole frame");
            return Some(length);
        }
        let error = io::Error::last_os_error();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
        None
    }
}

/// Sets an option that is a number.
pub(crate) fn set(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = u32::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the pointer is valid for the length beside it.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Fills in a checksum that was left open, and says whether one was.
fn finish(virtio: &[u8], frame: &mut [u8]) -> bool {
    if virtio[0] & NEEDS_CHECKSUM == 0 {
        return false;
    }
    let number = |at| usize::from(u16::from_ne_bytes([virtio[at], virtio[at + 1]]));
    let (start, field) = (number(6), number(6) + number(8));
    let mut sum: u32 = frame[start..]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = match !u16::try_from(sum).expect("folded") {
        // Of UDP zero says that there is none; to the others both zeroes are the same.
        0 => 0xffff,
        checksum => checksum,
    };
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Compares the checksums of a packet with what they are to be. Gives its protocol.
#[track_caller]
fn verify(net: Option<&NetHeaders>, transport: Option<&TransportHeader>, payload: &[u8]) -> u8 {
    let net = net.expect("an IP header");
    if let NetHeaders::Ipv4(ip, _) = net {
        assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "of {ip:?}");
    }
    let (found, right, protocol) = match (net, transport.expect("a transport header")) {
        (NetHeaders::Ipv4(ip, _), TransportHeader::Tcp(tcp)) => {
            (tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap(), 6)
        }
        (NetHeaders::Ipv6(ip, _), TransportHeader::Tcp(tcp)) => {
            (tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap(), 6)
        }
        (NetHeaders::Ipv4(ip, _), TransportHeader::Udp(udp)) => {
            (udp.checksum, udp.calc_checksum_ipv4(ip, payload).unwrap(), UDP)
        }
        (NetHeaders::Ipv6(ip, _), TransportHeader::Udp(udp)) => {
            (udp.checksum, udp.calc_checksum_ipv6(ip, payload).unwrap(), UDP)
        }
        (_, TransportHeader::Icmpv4(icmp)) => (icmp.checksum, icmp.icmp_type.calc_checksum(payload), 1),
        (NetHeaders::Ipv6(ip, _), TransportHeader::Icmpv6(icmp)) => {
            (icmp.checksum, icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap(), 58)
        }
        (net, transport) => panic!("{net:?} with {transport:?}"),
    };
    // Of TCP, too, the two zeroes are the same.
    let same = found == right || (found ^ right == 0xffff && (found == 0 || right == 0));
    assert!(same, "checksum {found:04x} instead of {right:04x} of {net:?} {transport:?}");
    protocol
}
