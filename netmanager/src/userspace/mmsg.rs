//! Many messages in one system call, each with the size of its segments: `recvmmsg(2)`, `sendmmsg(2)`, and of UDP the
//! control messages of GRO and GSO (`udp(7)`). All pointers that the kernel is given are made here, from slices that
//! outlive the call.

#![expect(clippy::cast_possible_truncation, reason = "sizes and constants of system calls are small")]

use std::io::{self, IoSlice};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void, iovec, mmsghdr, msghdr, sockaddr_in, sockaddr_in6, sockaddr_storage};

/// Room for one control message with a number.
// SAFETY: computes a number.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(size_of::<c_int>() as u32) } as usize;

/// Of a control message, aligned as its header is.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

const NO_CONTROL: Control = Control([0; CONTROL]);

/// Messages as they came in, each in a buffer of its own.
#[derive(Debug)]
pub(super) struct Inbox {
    buffers: Vec<Box<[u8]>>,
    arrived: Vec<Arrived>,
}

/// What is known of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    /// Nothing, if it did not fit.
    pub(super) length: usize,
    /// Nothing, if it is not by IP that it came.
    pub(super) from: Option<SocketAddr>,
    /// Bytes of each of the datagrams that the kernel has merged in it; the last one may have less.
    pub(super) segment: usize,
}

impl Inbox {
    /// For as many messages at a time, of as many bytes each.
    pub(super) fn new(messages: usize, bytes: usize) -> Self {
        Self { buffers: vec![vec![0; bytes].into_boxed_slice(); messages], arrived: Vec::new() }
    }

    /// Takes what has arrived at a socket, without waiting.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.arrived.clear();
        let count = self.buffers.len();
        let mut parts: Vec<iovec> = self
            .buffers
            .iter_mut()
            .map(|buffer| iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() })
            .collect();
        // SAFETY: integers and arrays of them; all zeroes are a value.
        let mut names: Vec<sockaddr_storage> = vec![unsafe { zeroed() }; count];
        let mut controls = vec![NO_CONTROL; count];
        let mut headers: Vec<mmsghdr> = parts
            .iter_mut()
            .zip(&mut names)
            .zip(&mut controls)
            .map(|((part, name), control)| {
                let mut header = empty();
                header.msg_hdr.msg_iov = part;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
                header.msg_hdr.msg_namelen = size_of::<sockaddr_storage>() as u32;
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = CONTROL as _;
                header
            })
            .collect();
        // SAFETY: the headers point into the vectors above, which are as large as they say and outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?;
        for (header, name) in headers.iter().zip(&names).take(received) {
            let is_whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            let length = if is_whole { header.msg_len as usize } else { 0 };
            let segment = merged(&header.msg_hdr).unwrap_or(length);
            self.arrived.push(Arrived { length, from: address(name), segment });
        }
        Ok(())
    }

    /// The messages of the last call: what is known of each, and its bytes.
    pub(super) fn messages(&mut self) -> impl Iterator<Item = (Arrived, &mut [u8])> {
        let bytes = self.arrived.iter().zip(&mut self.buffers);
        bytes.map(|(arrived, buffer)| (*arrived, &mut buffer[..arrived.length]))
    }

    pub(super) fn is_full(&self) -> bool {
        self.arrived.len() == self.buffers.len()
    }

    pub(super) fn buffer(&self, number: usize) -> &[u8] {
        &self.buffers[number]
    }
}

/// A message to be sent.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    /// Nothing, if the socket knows it.
    pub(super) to: Option<SocketAddr>,
    pub(super) parts: &'a [IoSlice<'a>],
    /// What the kernel, or the NIC, is to cut it into.
    pub(super) segment: Option<u16>,
}

/// Sends the messages in their order. Of those that the kernel does not take, `refused` is told.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    envelopes: &[Envelope<'_>],
    mut refused: impl FnMut(usize, io::Error),
) {
    let mut names: Vec<(sockaddr_storage, u32)> =
        envelopes.iter().map(|envelope| envelope.to.map_or_else(nowhere, name)).collect();
    let mut controls = vec![NO_CONTROL; envelopes.len()];
    let mut headers: Vec<mmsghdr> = envelopes
        .iter()
        .zip(&mut names)
        .zip(&mut controls)
        .map(|((envelope, (name, length)), control)| {
            let mut header = empty();
            // An `IoSlice` is an `iovec` (its documentation), which the kernel only reads.
            header.msg_hdr.msg_iov = envelope.parts.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_iovlen = envelope.parts.len() as _;
            if *length > 0 {
                header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
                header.msg_hdr.msg_namelen = *length;
            }
            if let Some(segment) = envelope.segment {
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = CONTROL as _;
                cut_into(&mut header.msg_hdr, segment);
            }
            header
        })
        .collect();
    let mut done = 0;
    while done < headers.len() {
        let rest = &mut headers[done..];
        // SAFETY: the headers point into `envelopes` and the vectors above, which outlive the call.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
        match usize::try_from(sent) {
            Ok(sent) if sent > 0 => done += sent,
            _ => {
                refused(done, io::Error::last_os_error());
                done += 1;
            }
        }
    }
}

fn empty() -> mmsghdr {
    // SAFETY: integers and pointers; all zeroes are a value: no message.
    unsafe { zeroed() }
}

/// What the kernel says of the datagrams that it has merged.
fn merged(header: &msghdr) -> Option<usize> {
    // SAFETY: the header is as the kernel has left it.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: it is nothing, or lies in the control buffer, which is still there.
    let first = unsafe { first.as_ref() }?;
    if (first.cmsg_level, first.cmsg_type) != (libc::SOL_UDP, libc::UDP_GRO) {
        return None;
    }
    // SAFETY: computes a place behind the header.
    let data = unsafe { libc::CMSG_DATA(first) };
    // SAFETY: this control message has a number there (`udp(7)`).
    let size: c_int = unsafe { data.cast::<c_int>().read_unaligned() };
    usize::try_from(size).ok().filter(|size| *size > 0)
}

fn cut_into(header: &mut msghdr, segment: u16) {
    // SAFETY: the header's control buffer has room for one such message.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: it is nothing, or lies in the control buffer, which nobody else holds.
    let Some(control) = (unsafe { first.as_mut() }) else { return };
    control.cmsg_level = libc::SOL_UDP;
    control.cmsg_type = libc::UDP_SEGMENT;
    // SAFETY: computes a number.
    control.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<u16>() as u32) } as _;
    // SAFETY: computes a place behind the header.
    let data = unsafe { libc::CMSG_DATA(control) };
    // SAFETY: a number of two bytes has room there.
    unsafe { data.cast::<u16>().write_unaligned(segment) };
    // SAFETY: computes a number.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as _;
}

fn nowhere() -> (sockaddr_storage, u32) {
    // SAFETY: integers and arrays of them; all zeroes are a value.
    (unsafe { zeroed() }, 0)
}

/// The kernel's form of an address.
fn name(address: SocketAddr) -> (sockaddr_storage, u32) {
    let (mut storage, _) = nowhere();
    let place = std::ptr::from_mut(&mut storage);
    let length = match address {
        SocketAddr::V4(address) => {
            let name = sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger, and aligned for every kind of address.
            unsafe { place.cast::<sockaddr_in>().write(name) };
            size_of::<sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let name = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { place.cast::<sockaddr_in6>().write(name) };
            size_of::<sockaddr_in6>()
        }
    };
    (storage, length as u32)
}

fn address(storage: &sockaddr_storage) -> Option<SocketAddr> {
    let place = std::ptr::from_ref(storage);
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: of this family; the storage is larger, and aligned for every kind of address.
            let name = unsafe { place.cast::<sockaddr_in>().read() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { place.cast::<sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(name.sin6_port)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::{Envelope, Inbox, send};

    #[test]
    fn messages_arrive_with_their_bytes_and_their_sender() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(receiver) = UdpSocket::bind(host) else { continue };
            let sender = UdpSocket::bind(host).unwrap();
            let to = Some(receiver.local_addr().unwrap());
            let (one, two) = ([IoSlice::new(b"a"), IoSlice::new(b"bc")], [IoSlice::new(b"defg")]);
            let envelopes =
                [Envelope { to, parts: &one, segment: None }, Envelope { to, parts: &two, segment: Some(2) }];
            send(sender.as_fd(), &envelopes, |number, error| panic!("{number}: {error}"));
            let mut inbox = Inbox::new(8, 1000);
            let mut bytes = Vec::new();
            while bytes.len() < 7 {
                let Ok(()) = inbox.receive(receiver.as_fd()) else { continue };
                for (arrived, message) in inbox.messages() {
                    assert_eq!(arrived.from, Some(sender.local_addr().unwrap()));
                    bytes.extend_from_slice(message);
                }
            }
            assert_eq!(bytes, b"abcdefg");
        }
    }
}
