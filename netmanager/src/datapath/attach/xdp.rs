//! The XDP program of the uplink: in the driver or not at all, held by a pinned link. A new program replaces the old one in
//! the link without a packet between them.

use std::io;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use aya::sys::SyscallError;

use super::super::DatapathError;
use super::super::decapsulation::Why;
use super::super::load::{UPLINK_XDP, UPLINK_XDP_LONG};
use super::super::pin::{PinDir, at};
use super::orphan;

/// Attaches the program to an interface, or replaces what we had there.
///
/// # Errors
/// Why there can be none. Then everything is as before.
pub(in crate::datapath) fn attach(pins: &PinDir, ebpf: &mut Ebpf, ifindex: u32) -> Result<(), Why> {
    let program = program(ebpf)?;
    let path = pins.xdp_link(ifindex);
    if let Ok(pinned) = PinnedLink::from_pin(&path) {
        let replaced = XdpLink::try_from(FdLink::from(pinned))
            .is_ok_and(|link| program.attach_to_link(link).and_then(|id| program.take_link(id)).is_ok());
        if replaced {
            return Ok(());
        }
        // The link has lost its interface, or somebody has detached it.
        std::fs::remove_file(&path).map_err(|error| refused(&error))?;
    }
    let attached = program.attach_to_if_index(ifindex, XdpMode::Driver).and_then(|id| program.take_link(id));
    let link = attached.map_err(|error| why(&error))?;
    let link = FdLink::try_from(link).map_err(|error| refused(&error))?;
    link.pin(&path).map_err(|error| refused(&error))?;
    Ok(())
}

/// Detaches what we have at an interface. When this returns, no packet meets the program any more.
pub(in crate::datapath) fn detach(pins: &PinDir, ifindex: u32) -> Result<(), DatapathError> {
    let path = pins.xdp_link(ifindex);
    if !path.exists() {
        return Ok(());
    }
    detach_pinned(&path).map_err(at("detach", &path))
}

fn detach_pinned(path: &Path) -> io::Result<()> {
    // Without its pin alone the link would end a moment later, in work of the kernel's own.
    match orphan::detach_pinned(path) {
        // The interface has gone before.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
        result => result?,
    }
    std::fs::remove_file(path)
}

/// The program that this kernel takes: the one for long frames since Linux 5.18.
fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Why> {
    let name = if load(ebpf, UPLINK_XDP_LONG).is_ok() {
        UPLINK_XDP_LONG
    } else {
        load(ebpf, UPLINK_XDP).map_err(|error| refused(&error))?;
        UPLINK_XDP
    };
    named(ebpf, name).ok_or_else(|| Why::Refused(format!("no program {name}")))
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<(), ProgramError> {
    match named(ebpf, name) {
        Some(program) if program.fd().is_err() => program.load(),
        Some(_) => Ok(()),
        None => Err(ProgramError::NotLoaded),
    }
}

fn named<'a>(ebpf: &'a mut Ebpf, name: &str) -> Option<&'a mut Xdp> {
    ebpf.program_mut(name)?.try_into().ok()
}

fn why(error: &ProgramError) -> Why {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. })
            if matches!(io_error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) =>
        {
            Why::Taken
        }
        error => refused(error),
    }
}

fn refused(error: &(dyn std::error::Error + 'static)) -> Why {
    Why::Refused(crate::error::chain(error).to_string())
}
