//! What the kernel says about an interface of the calling thread's network namespace.

use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::DatapathError;

pub(crate) fn name(ifindex: u32) -> Result<String, DatapathError> {
    match if_indextoname(ifindex) {
        Ok(name) if !name.is_empty() => Ok(name.to_string_lossy().into_owned()),
        // nix 0.31 takes libc's null pointer for success and gives an empty name.
        Ok(_) => Err(missing(ifindex, Errno::ENXIO.into())),
        Err(errno) => Err(missing(ifindex, errno.into())),
    }
}

/// The largest packet that it carries.
pub(crate) fn mtu(ifindex: u32) -> Result<u32, DatapathError> {
    let name = name(ifindex)?;
    let failed = |source| missing(ifindex, source);
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| failed(errno.into()))?;
    let mut request = request(&name);
    // SAFETY: this request reads a name and writes a number, both within the structure.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    if result < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: the request has just written this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|error| failed(io::Error::other(error)))
}

/// Whether it carries Ethernet frames, as programs and tunnel take for granted; the loopback does not count.
pub(super) fn is_ethernet(ifindex: u32) -> bool {
    let Ok(name) = name(ifindex) else { return false };
    let Ok(socket) = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) else {
        return false;
    };
    let mut request = request(&name);
    // SAFETY: this request reads a name and writes an address, both within the structure.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    // SAFETY: the request has just written this member of the union.
    result >= 0 && unsafe { request.ifr_ifru.ifru_hwaddr }.sa_family == libc::ARPHRD_ETHER
}

/// The name of its driver; nothing where it has none.
pub(super) fn driver(name: &str) -> Option<String> {
    /// `linux/ethtool.h`: the driver's information.
    const GET_DRIVER: u32 = 3;
    const NAME: usize = 32;
    /// `struct ethtool_drvinfo`: the command, the driver's name, and what is of no interest here.
    #[repr(C)]
    struct Info {
        command: u32,
        driver: [u8; NAME],
        rest: [u8; 160],
    }
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let mut info = Info { command: GET_DRIVER, driver: [0; NAME], rest: [0; 160] };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: this request reads a name and writes the information behind the pointer, which is as large as the kernel's.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return None;
    }
    let driver = info.driver.split(|byte| *byte == 0).next()?;
    (!driver.is_empty()).then(|| String::from_utf8_lossy(driver).into_owned())
}

/// About the interface of this name.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: integers, pointers and arrays of them; all zeroes are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request
}

fn missing(ifindex: u32, source: io::Error) -> DatapathError {
    DatapathError::NoInterface { ifindex, source }
}
