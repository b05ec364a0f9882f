//! The sockets of the data plane. At a container's veth: a packet socket, which sees what the program would see there,
//! whole super-packets and who has sent them, and puts frames straight into the container. Towards the other nodes: UDP.

#![expect(clippy::cast_possible_truncation, reason = "sizes and constants of system calls are small")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use libc::{c_int, c_void, sock_filter, sock_fprog};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use super::flows::lock;
use crate::datapath::Ranges;

/// Bytes that may wait in a socket, so that a burst outlives a moment in which the thread does not run.
const BUFFER: c_int = 8 << 20;

/// `linux/if_packet.h`.
const PACKET_VNET_HDR: c_int = 15;
/// `linux/if_packet.h`; Linux 4.20.
const PACKET_IGNORE_OUTGOING: c_int = 23;

/// All Ethertypes, in the order of the wire.
const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// What a container sends to the overlay, and nothing else: the kernel looks at each frame before it copies one. Frames
/// with a VLAN tag are none of ours.
///
/// This is the classic filter of sockets, which every kernel has, and which needs no right.
fn to_the_overlay(ranges: &Ranges) -> [sock_filter; 16] {
    let [[first, last], [first_service, last_service]] =
        [ranges.containers(), ranges.services()].map(|ends| ends.map(Ipv4Addr::to_bits));
    [
        load(WORD, VLAN_PRESENT),
        jump(EQUAL, 0, 0, 13),
        load(HALF, 12),
        jump(EQUAL, 0x0800, 0, 5),
        load(WORD, 30),
        jump(AT_LEAST, first, 0, 1),
        jump(ABOVE, last, 0, 7),
        jump(AT_LEAST, first_service, 0, 7),
        jump(ABOVE, last_service, 6, 5),
        jump(EQUAL, 0x86dd, 0, 5),
        // fdff::/16 and fc00::/8.
        load(HALF, 38),
        jump(EQUAL, 0xfdff, 2, 0),
        load(BYTE, 38),
        jump(EQUAL, 0xfc, 0, 1),
        take(u32::MAX),
        take(0),
    ]
}

const WORD: u32 = libc::BPF_W;
const HALF: u32 = libc::BPF_H;
const BYTE: u32 = libc::BPF_B;
const EQUAL: u32 = libc::BPF_JEQ;
const AT_LEAST: u32 = libc::BPF_JGE;
const ABOVE: u32 = libc::BPF_JGT;
/// Beside the frame: whether it came with a VLAN tag.
const VLAN_PRESENT: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT).cast_unsigned();

const fn load(size: u32, at: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | size | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: at }
}

const fn jump(condition: u32, value: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | condition | libc::BPF_K) as u16, jt, jf, k: value }
}

const fn take(bytes: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: bytes }
}

/// At the host side of a container's veth.
#[derive(Debug)]
pub(crate) struct ContainerSocket(OwnedFd);

impl ContainerSocket {
    /// In the network namespace of the calling thread, for what has addresses of these ranges.
    pub(crate) fn open(ifindex: u32, ranges: &Ranges) -> io::Result<Self> {
        // SAFETY: takes numbers. Of protocol 0: nothing arrives before it is bound, and by then it is filtered.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given it to us.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        set(fd.as_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        set(fd.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
        set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER)?;
        filter(fd.as_fd(), ranges)?;
        // SAFETY: integers and arrays of them; all zeroes are a value.
        let mut name: libc::sockaddr_ll = unsafe { zeroed() };
        name.sll_family = libc::AF_PACKET as u16;
        name.sll_protocol = ALL;
        name.sll_ifindex = ifindex.cast_signed();
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the name is as long as said.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&name).cast(), length) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    /// From now on for what has addresses of these ranges.
    pub(super) fn set_ranges(&self, ranges: &Ranges) -> io::Result<()> {
        filter(self.as_fd(), ranges)
    }
}

impl AsRawFd for ContainerSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for ContainerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The tunnel's end on this node: as many sockets on one port as there are threads, among which the kernel spreads
/// senders.
#[derive(Debug)]
pub(super) struct TunnelSockets(Vec<TunnelSocket>);

#[derive(Debug)]
struct TunnelSocket {
    fd: OwnedFd,
    is_v4: bool,
    /// Whether it leaves outer checksums out at this time. Held while something is sent, so that it stays so.
    bare: Mutex<bool>,
}

impl TunnelSockets {
    /// In the network namespace of the calling thread. What arrives for `address` is taken, at any interface (what the host's
    /// reverse path filter lets through, as of all sockets), and what is sent leaves where the routes lead.
    pub(super) fn bind(address: IpAddr, port: u16, count: usize) -> io::Result<Self> {
        let socket = |_| {
            let fd = tunnel_socket(SocketAddr::new(address, port))?;
            Ok(TunnelSocket { fd, is_v4: address.is_ipv4(), bare: Mutex::new(false) })
        };
        (0..count).map(socket).collect::<io::Result<_>>().map(Self)
    }

    pub(super) fn get(&self, number: usize) -> Option<BorrowedFd<'_>> {
        self.0.get(number).map(|socket| socket.fd.as_fd())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|socket| socket.fd.as_fd())
    }

    /// Sends by a socket, with outer checksums or, `bare`, without.
    ///
    /// A node whose programs unwrap packets must get them without, as it would from a node of its own kind: on a virtual
    /// link nobody completes an outer checksum, and the kernel there would take the mark that it is open for one of the
    /// inner packet's. What a kernel is to cut into segments cannot be sent without.
    pub(super) fn send(&self, number: usize, bare: bool, send: impl FnOnce(BorrowedFd<'_>)) {
        let Some(socket) = self.0.get(number) else { return };
        let mut is_bare = lock(&socket.bare);
        if *is_bare != bare {
            let (level, name) = match socket.is_v4 {
                true => (libc::SOL_SOCKET, libc::SO_NO_CHECK),
                false => (libc::SOL_UDP, libc::UDP_NO_CHECK6_TX),
            };
            // Every kernel has it.
            set(socket.fd.as_fd(), level, name, bare.into()).ok();
            *is_bare = bare;
        }
        send(socket.fd.as_fd());
    }
}

fn tunnel_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
    set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER)?;
    // "Do not fragment", as the programs set it; what is too large is found out before.
    if address.is_ipv4() {
        set(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
    } else {
        set(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        set(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        // The programs of other nodes leave the outer checksum out.
        set(fd.as_fd(), libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1)?;
    }
    // Without it (before Linux 5.0) datagrams come one by one.
    set(fd.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).ok();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

fn set(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    option(socket, level, name, &value)
}

fn filter(socket: BorrowedFd<'_>, ranges: &Ranges) -> io::Result<()> {
    let mut program = to_the_overlay(ranges);
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// `T` must be what the option takes.
fn option<T>(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let place = std::ptr::from_ref(value).cast::<c_void>();
    // SAFETY: the kernel reads as many bytes as a value has, and what a filter's pointer leads to, which the caller keeps.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, place, size_of::<T>() as u32) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
