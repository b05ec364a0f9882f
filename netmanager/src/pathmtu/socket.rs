//! The kernel's copies of the ICMP errors that matter here: what arrives for this host, after its firewall.

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::unistd::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::icmp::{self, TooBig};

/// Routers quote up to 576 bytes, of IPv6 1280. What is longer is cut off.
const LARGEST: usize = 2048;
/// `linux/icmp.h`: level and name of the option that names unwanted types, and the type that is wanted.
pub(crate) const SOL_RAW: libc::c_int = 255;
pub(crate) const ICMP_FILTER: libc::c_int = 1;
const DESTINATION_UNREACHABLE: u32 = 3;
/// `linux/icmpv6.h`: the same.
pub(crate) const ICMPV6_FILTER: libc::c_int = 1;
const PACKET_TOO_BIG: u32 = 2;

pub(super) struct IcmpSocket {
    fd: AsyncFd<OwnedFd>,
    buffer: Box<[u8]>,
    understand: fn(&[u8]) -> Option<TooBig>,
}

impl IcmpSocket {
    /// Of the network namespace of the calling thread, which must be in a tokio runtime.
    pub(super) fn v4() -> io::Result<Self> {
        let unwanted = !(1_u32 << DESTINATION_UNREACHABLE);
        let socket = raw(AddressFamily::Inet, SockProtocol::Icmp)?;
        set(&socket, SOL_RAW, ICMP_FILTER, &unwanted)?;
        Self::of(socket, icmp::read)
    }

    /// As [`Self::v4`].
    pub(super) fn v6() -> io::Result<Self> {
        let mut unwanted = [u32::MAX; 8];
        unwanted[0] = !(1_u32 << PACKET_TOO_BIG);
        let socket = raw(AddressFamily::Inet6, SockProtocol::IcmpV6)?;
        set(&socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &unwanted)?;
        Self::of(socket, icmp::read6)
    }

    fn of(socket: OwnedFd, understand: fn(&[u8]) -> Option<TooBig>) -> io::Result<Self> {
        // SAFETY: the descriptor is the socket's own, which stays open, the same one, as long as this value lives.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let fd = fd.map_err(io::Error::from)?;
        Ok(Self { fd, buffer: vec![0; LARGEST].into_boxed_slice(), understand })
    }

    /// What the next packet says, if it says something. Cancel safe.
    pub(super) async fn read(&mut self) -> io::Result<Option<TooBig>> {
        let buffer = &mut self.buffer;
        let length =
            self.fd.async_io(Interest::READABLE, |fd| read(fd, buffer).map_err(io::Error::from)).await?;
        Ok((self.understand)(&self.buffer[..length]))
    }
}

pub(crate) fn raw(family: AddressFamily, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, SockType::Raw, flags, protocol).map_err(io::Error::from)
}

pub(crate) fn set<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)?;
    // SAFETY: the pointer is valid for the length beside it, and the kernel only reads there.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
