//! The smallest XDP program there is, on an interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use integration::Netns;
use nix::net::if_::if_nametoindex;

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// `r0 = XDP_PASS; exit`, as in the kernel's `struct bpf_insn` on a little-endian machine.
const PROGRAM: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    _link: OwnedFd,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u8; 24],
}

/// The same for `BPF_LINK_CREATE`.
#[repr(C)]
struct Create {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

pub(super) fn attach(node: &Netns, interface: &str) -> Result<Attached> {
    let license = c"GPL";
    let load = Load {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: 2,
        insns: PROGRAM.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 24],
    };
    let program = bpf(PROG_LOAD, &load).context("load an XDP program")?;
    node.run(|| {
        let target_ifindex = if_nametoindex(interface).with_context(|| format!("find {interface}"))?;
        let prog_fd = program.as_raw_fd().cast_unsigned();
        let create = Create { prog_fd, target_ifindex, attach_type: ATTACH_XDP, flags: 0 };
        let link =
            bpf(LINK_CREATE, &create).with_context(|| format!("attach an XDP program to {interface}"))?;
        Ok(Attached { _link: link })
    })?
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the attributes, of the size given, during the call; what they point to lives in the
    // caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands give a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
