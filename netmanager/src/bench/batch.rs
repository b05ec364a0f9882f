//! Many datagrams with one system call, each a packet of its own all the way (no GSO).

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Datagrams a call.
const BATCH: u32 = 64;
/// Room for an address of any family.
#[expect(clippy::cast_possible_truncation, reason = "128 bytes")]
const ADDRESS: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
/// Bytes of a received datagram that are kept: all of the largest that an Ethernet carries.
const KEPT: usize = 2048;

/// Sends the same datagram again and again from a connected socket.
pub(super) struct Sender {
    headers: Vec<libc::mmsghdr>,
    // What the headers point to. Neither moves while they live: both are on the heap and never grow.
    _vector: Box<libc::iovec>,
    _datagram: Vec<u8>,
}

impl Sender {
    pub(super) fn new(mut datagram: Vec<u8>) -> Self {
        let mut vector =
            Box::new(libc::iovec { iov_base: datagram.as_mut_ptr().cast(), iov_len: datagram.len() });
        let headers = (0..BATCH)
            .map(|_| {
                let mut header = empty();
                header.msg_hdr.msg_iov = &raw mut *vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Self { headers, _vector: vector, _datagram: datagram }
    }

    /// Gives how many were taken by the kernel.
    pub(super) fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // SAFETY: the headers are as many as it says, and point to a vector and a datagram that live as long as `self`.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), BATCH, 0) };
        usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
    }
}

/// Receives what is there, but at least one datagram.
pub(super) struct Receiver {
    headers: Vec<libc::mmsghdr>,
    // What the headers point to; as in `Sender`.
    _vectors: Vec<libc::iovec>,
    senders: Vec<libc::sockaddr_storage>,
    buffer: Vec<u8>,
}

impl Receiver {
    pub(super) fn new() -> Self {
        let mut buffer = vec![0_u8; BATCH as usize * KEPT];
        // SAFETY: a struct of integers, of which all zeroes is a value.
        let mut senders: Vec<libc::sockaddr_storage> = vec![unsafe { zeroed() }; BATCH as usize];
        let mut vectors: Vec<_> = buffer
            .chunks_exact_mut(KEPT)
            .map(|chunk| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: KEPT })
            .collect();
        let headers = vectors
            .iter_mut()
            .zip(&mut senders)
            .map(|(vector, sender)| {
                let mut header = empty();
                header.msg_hdr.msg_iov = &raw mut *vector;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_name = (&raw mut *sender).cast();
                header
            })
            .collect();
        Self { headers, _vectors: vectors, senders, buffer }
    }

    /// Waits for a datagram, as long as the socket's time-out allows, and gives all that have come by then, with their
    /// senders.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
    ) -> io::Result<impl Iterator<Item = (&[u8], Option<SocketAddr>)>> {
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = ADDRESS;
        }
        // SAFETY: the headers are as many as it says; each points to a vector, a place for an address and a piece of the
        // buffer of the lengths it says, all of which live as long as `self`.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?;
        let datagrams = self.buffer.chunks_exact(KEPT).zip(&self.headers).zip(&self.senders).take(received);
        Ok(datagrams.map(|((chunk, header), sender)| (&chunk[..header.msg_len as usize], address(sender))))
    }
}

fn empty() -> libc::mmsghdr {
    // SAFETY: a struct of integers and pointers, of which all zeroes is a value.
    unsafe { zeroed() }
}

fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel has written a `sockaddr_in`, as the family says; the storage is large enough and aligned
            // for each kind.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
            Some((ip, u16::from_be(address.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, a `sockaddr_in6`.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Some((ip, u16::from_be(address.sin6_port)).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::{BATCH, Receiver, Sender};

    #[test]
    fn every_datagram_arrives_whole_with_its_sender() {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        from.connect(to.local_addr().unwrap()).unwrap();
        assert_eq!(Sender::new(b"seven77".to_vec()).send(&from).unwrap(), BATCH as usize);
        let mut receiver = Receiver::new();
        let mut seen = 0;
        while seen < BATCH as usize {
            for (datagram, sender) in receiver.receive(&to).unwrap() {
                assert_eq!((datagram, sender), (b"seven77".as_slice(), Some(from.local_addr().unwrap())));
                seen += 1;
            }
        }
        assert_eq!(seen, BATCH as usize);
    }
}
