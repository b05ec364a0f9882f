//! A program of somebody else, which lets every packet pass. Loaded and attached without aya, so that nothing of ours can
//! be mistaken for it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;
const NATIVE: u32 = 1 << 2;

/// Where it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the ingress by tcx, before all others.
    First,
    /// At the ingress by tcx, after all others.
    Last,
    /// In the driver, before the kernel has a packet.
    Xdp,
}

/// Stays attached as long as this is held.
#[derive(Debug)]
pub(crate) struct Foreign(#[expect(dead_code, reason = "held for what its end does")] OwnedFd);

pub(crate) const NAME: &str = "foreign";

/// As linux/bpf.h has the parts of `union bpf_attr`.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct Create {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: [u32; 2],
    revision: u64,
}

impl Foreign {
    /// Attaches one at an interface of the calling thread's network namespace.
    pub(crate) fn attach(ifindex: u32, place: Place) -> io::Result<Self> {
        let (program_type, attach_type, pass, flags) = match place {
            Place::First => (3, 46, -1_i32, BEFORE),
            Place::Last => (3, 46, -1, AFTER),
            Place::Xdp => (6, 37, 2, NATIVE),
        };
        // r0 = pass; exit
        let instructions = [0xb7 | u64::from(pass.cast_unsigned()) << 32, 0x95];
        let license = c"GPL";
        let mut name = [0; 16];
        name[..NAME.len()].copy_from_slice(NAME.as_bytes());
        let program = call(
            PROG_LOAD,
            &mut Load {
                program_type,
                instruction_count: 2,
                instructions: instructions.as_ptr().expose_provenance() as u64,
                license: license.as_ptr().expose_provenance() as u64,
                log: [0; 4],
                kernel_version: 0,
                flags: 0,
                name,
                ifindex: 0,
                expected_attach_type: if place == Place::Xdp { attach_type } else { 0 },
            },
        )?;
        let number = program.as_raw_fd().cast_unsigned();
        call(
            LINK_CREATE,
            &mut Create { program: number, ifindex, attach_type, flags, relative: [0; 2], revision: 0 },
        )
        .map(Self)
    }
}

fn call<A>(command: libc::c_long, attribute: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes of the attribute as it is told; what that points to lives until it returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both calls give a descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) })
}
