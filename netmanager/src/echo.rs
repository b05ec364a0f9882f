//! Echo requests to another node, and its answers: every Linux gives them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type,
};
use nix::sys::socket::{AddressFamily, SockProtocol, SockaddrStorage, connect};
use nix::unistd::{read, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::pathmtu::{ICMP_FILTER, ICMPV6_FILTER, SOL_RAW, raw, set};

/// `linux/icmp.h`, `linux/icmpv6.h`: the type of an answer.
const ECHO_REPLY: u32 = 0;
const ECHO_REPLY_V6: usize = 129;
const ICMP_LEN: u16 = 8;

/// A raw socket that hears what one node answers. Its packets are never split, whatever the kernel believes of the path.
pub(crate) struct Echo {
    fd: AsyncFd<OwnedFd>,
    is_v4: bool,
    /// Tells its answers from those to others.
    identifier: u16,
}

impl Echo {
    /// In the network namespace of the calling thread, which must be in a tokio runtime. Two that ask one node at a time need
    /// different identifiers.
    pub(crate) fn to(node: IpAddr, identifier: u16) -> io::Result<Self> {
        let (family, protocol) = match node {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = raw(family, protocol)?;
        if node.is_ipv4() {
            set(&socket, SOL_RAW, ICMP_FILTER, &!(1_u32 << ECHO_REPLY))?;
            set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_PROBE)?;
        } else {
            let mut unwanted = [u32::MAX; 8];
            unwanted[ECHO_REPLY_V6 / 32] = !(1 << (ECHO_REPLY_V6 % 32));
            set(&socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &unwanted)?;
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &libc::IPV6_PMTUDISC_PROBE)?;
        }
        connect(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(node, 0)))?;
        // SAFETY: the descriptor is the socket's own, which stays open, the same one, as long as this value lives.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self { fd: fd.map_err(io::Error::from)?, is_v4: node.is_ipv4(), identifier })
    }

    /// Sends a request of this number that is an IP packet of `size` bytes. What the interface itself, or a router by now, does
    /// not carry, is lost like others.
    pub(crate) fn request(&self, number: u16, size: u16) {
        let headers = ICMP_LEN + if self.is_v4 { 20 } else { 40 };
        let payload = vec![0; usize::from(size.saturating_sub(headers))];
        let echo = IcmpEchoHeader { id: self.identifier, seq: number };
        let mut bytes = if self.is_v4 {
            Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &payload).to_bytes().to_vec()
        } else {
            // The kernel computes the checksum.
            Icmpv6Header::new(Icmpv6Type::EchoRequest(echo)).to_bytes().to_vec()
        };
        bytes.extend(payload);
        write(self.fd.get_ref(), &bytes).ok();
    }

    /// The number of the request that the next packet answers, if it answers one. Cancel safe.
    pub(crate) async fn answer(&self) -> io::Result<Option<u16>> {
        let mut buffer = [0; 2048];
        let read =
            self.fd.async_io(Interest::READABLE, |fd| read(fd, &mut buffer).map_err(io::Error::from)).await;
        // A router's word about an earlier request is the socket's error once.
        let Ok(length) = read else { return Ok(None) };
        let packet = &buffer[..length];
        let echo = if self.is_v4 {
            let header = packet.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
            match packet
                .get(header..)
                .and_then(|icmp| Icmpv4Slice::from_slice(icmp).ok())
                .map(|icmp| icmp.icmp_type())
            {
                Some(Icmpv4Type::EchoReply(echo)) => echo,
                _ => return Ok(None),
            }
        } else {
            match Icmpv6Slice::from_slice(packet).ok().map(|icmp| icmp.icmp_type()) {
                Some(Icmpv6Type::EchoReply(echo)) => echo,
                _ => return Ok(None),
            }
        };
        Ok((echo.id == self.identifier).then_some(echo.seq))
    }
}

/// Of this process, so that two netmanagers of one address, in a test or behind a NAT, take no answer of each other's.
pub(crate) fn identifier() -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "half of it tells as well")]
    let identifier = std::process::id() as u16;
    identifier
}
