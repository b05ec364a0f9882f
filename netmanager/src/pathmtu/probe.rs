//! Padded pings to another node, which show what the path carries where no router says so.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type,
};
use nix::sys::socket::{AddressFamily, SockProtocol, SockaddrStorage, connect};
use nix::unistd::{read, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::search::{First, Search};
use super::socket::{ICMP_FILTER, ICMPV6_FILTER, SOL_RAW, raw, set};

/// How long an answer is waited for. Each size is tried twice.
const PATIENCE: Duration = Duration::from_millis(400);
const TRIES: u32 = 2;
/// How often in a row a size that was carried before must be lost.
const DOUBTS: u32 = 3;
/// `linux/icmp.h`, `linux/icmpv6.h`: the type of an answer.
const ECHO_REPLY: u32 = 0;
const ECHO_REPLY_V6: usize = 129;
const ICMP_LEN: u16 = 8;

/// The largest IP packet, from `least` to `most` bytes, that reaches `node` and comes back; nothing if none does.
pub(super) async fn measure(node: IpAddr, least: u16, most: u16) -> io::Result<Option<u16>> {
    let pings = Pings::to(node)?;
    let mut search = match First::of(least, most, &pings.round(&[least, most]).await?) {
        First::Silent => return Ok(None),
        First::Whole => return Ok(Some(most)),
        First::Narrow(search) => search,
    };
    narrow(&pings, &mut search).await?;
    Ok(Some(search.carried()))
}

/// Whether packets of `assumed` bytes, which have come back before, no longer do while those of `least` bytes do; then what
/// [`measure`] finds. Large packets are also lost where a queue is full, so a few of them do not say it.
pub(super) async fn look(node: IpAddr, least: u16, assumed: u16) -> io::Result<Option<u16>> {
    let pings = Pings::to(node)?;
    let mut search = None;
    for _ in 0..DOUBTS {
        match First::of(least, assumed, &pings.round(&[least, assumed]).await?) {
            First::Silent | First::Whole => return Ok(None),
            First::Narrow(found) => search = Some(found),
        }
    }
    let Some(mut search) = search else { return Ok(None) };
    narrow(&pings, &mut search).await?;
    Ok(Some(search.carried()))
}

async fn narrow(pings: &Pings, search: &mut Search) -> io::Result<()> {
    loop {
        let sizes = search.sizes();
        if sizes.is_empty() {
            return Ok(());
        }
        search.round(&sizes, &pings.round(&sizes).await?);
    }
}

/// A raw socket that hears what one node answers. Its packets are never split, whatever the kernel believes of the path.
struct Pings {
    fd: AsyncFd<OwnedFd>,
    is_v4: bool,
}

impl Pings {
    fn to(node: IpAddr) -> io::Result<Self> {
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
        Ok(Self { fd: fd.map_err(io::Error::from)?, is_v4: node.is_ipv4() })
    }

    /// Which of these sizes come back.
    async fn round(&self, sizes: &[u16]) -> io::Result<Vec<u16>> {
        let mut answered = Vec::new();
        for _ in 0..TRIES {
            for size in sizes.iter().filter(|size| !answered.contains(*size)) {
                // What the interface itself, or a router by now, does not carry, is lost like others.
                write(self.fd.get_ref(), &self.request(*size)).ok();
            }
            let deadline = Instant::now() + PATIENCE;
            while answered.len() < sizes.len() {
                let Ok(answer) = timeout_at(deadline, self.answer()).await else { break };
                answered.extend(answer?.filter(|size| sizes.contains(size) && !answered.contains(size)));
            }
            if sizes.iter().max().is_some_and(|largest| answered.contains(largest)) {
                break;
            }
        }
        Ok(answered)
    }

    /// An echo request that is an IP packet of `size` bytes, and says so in its sequence number.
    fn request(&self, size: u16) -> Vec<u8> {
        let headers = ICMP_LEN + if self.is_v4 { 20 } else { 40 };
        let payload = vec![0; usize::from(size.saturating_sub(headers))];
        let echo = IcmpEchoHeader { id: identifier(), seq: size };
        let mut bytes = if self.is_v4 {
            Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &payload).to_bytes().to_vec()
        } else {
            // The kernel computes the checksum.
            Icmpv6Header::new(Icmpv6Type::EchoRequest(echo)).to_bytes().to_vec()
        };
        bytes.extend(payload);
        bytes
    }

    /// The size in the next answer, if the next packet is one. Cancel safe.
    async fn answer(&self) -> io::Result<Option<u16>> {
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
        Ok((echo.id == identifier()).then_some(echo.seq))
    }
}

/// So that two netmanagers of one address, in a test or behind a NAT, take no answer of each other's.
fn identifier() -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "half of it tells as well")]
    let identifier = std::process::id() as u16;
    identifier
}
