//! The object that this binary was built with, brought into the kernel.

use std::panic::resume_unwind;
use std::thread;

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};

#[cfg(test)]
mod stack;

use super::DatapathError;
use super::pin::PinDir;

/// The compiled kernel side. Public for tests, which run its programs on single packets.
pub static OBJECT: &[u8] = include_bytes_aligned!(env!("HYPHA_EBPF_OBJECT"));

/// The program at the host side of each container's veth.
pub const FROM_CONTAINER: &str = "from_container";
/// The program at the uplink.
pub const FROM_UPLINK: &str = "from_uplink";

/// The program at the slow path's TAP device.
pub const FROM_SLOW_PATH: &str = "from_slow_path";
/// The program in the uplink's driver.
pub const UPLINK_XDP: &str = "uplink_xdp";
/// The same for frames that may be longer than a buffer of the driver's. Needs Linux 5.18.
pub const UPLINK_XDP_LONG: &str = "uplink_xdp_long";

/// Those of tc. The other two are loaded only where one is wanted.
pub const PROGRAMS: [&str; 3] = [FROM_CONTAINER, FROM_UPLINK, FROM_SLOW_PATH];

/// Loads all programs. They use the tables that are pinned already, and make those that are not.
pub(super) fn load(pins: &PinDir) -> Result<Ebpf, DatapathError> {
    pins.create()?;
    let mut ebpf =
        EbpfLoader::new().default_map_pin_directory(pins.tables()).load(OBJECT).map_err(refused)?;
    all(&mut ebpf)?;
    Ok(ebpf)
}

/// Brings each program into the kernel. Nearly all of that time is the verifier's, which looks at one program per thread.
pub(super) fn all(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    for name in PROGRAMS {
        program(ebpf, name)?;
    }
    let ours = ebpf.programs_mut().filter_map(|(name, program)| {
        let name = PROGRAMS.into_iter().find(|ours| *ours == name)?;
        Some((name, <&mut SchedClassifier>::try_from(program).ok()?))
    });
    let load = |(name, program): (&'static str, &mut SchedClassifier)| {
        program.load().map_err(|source| DatapathError::Verify { program: name, source: Box::new(source) })
    };
    thread::scope(|scope| {
        let loading: Vec<_> = ours.map(|program| scope.spawn(move || load(program))).collect();
        loading.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Why the kernel does not take the object.
pub(super) fn refused(source: EbpfError) -> DatapathError {
    let source = Box::new(source);
    if is_permission(source.as_ref()) {
        DatapathError::NotPermitted { source }
    } else {
        DatapathError::Load { source }
    }
}

/// One of the programs.
pub(super) fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    ebpf.program_mut(name)
        .and_then(|program| <&mut SchedClassifier>::try_from(program).ok())
        .ok_or(DatapathError::NoProgram { program: name })
}

/// Whether the system call that failed was refused for lack of rights.
fn is_permission(error: &EbpfError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::PermissionDenied;
        }
        cause = error.source();
    }
    false
}
