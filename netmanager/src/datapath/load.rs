//! The object that this binary was built with, brought into the kernel.

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};

use super::DatapathError;
use super::pin::PinDir;

/// The compiled kernel side. Public for tests, which run its programs on single packets.
pub static OBJECT: &[u8] = include_bytes_aligned!(env!("HYPHA_EBPF_OBJECT"));

/// The program at the host side of each container's veth.
pub const FROM_CONTAINER: &str = "from_container";
/// The program at the uplink.
pub const FROM_UPLINK: &str = "from_uplink";

/// Loads both programs. They use the tables that are pinned already, and make those that are not.
pub(super) fn load(pins: &PinDir) -> Result<Ebpf, DatapathError> {
    pins.create()?;
    let mut ebpf =
        EbpfLoader::new().default_map_pin_directory(pins.tables()).load(OBJECT).map_err(|source| {
            let source = Box::new(source);
            if is_permission(source.as_ref()) {
                DatapathError::NotPermitted { source }
            } else {
                DatapathError::Load { source }
            }
        })?;
    for name in [FROM_CONTAINER, FROM_UPLINK] {
        program(&mut ebpf, name)?
            .load()
            .map_err(|source| DatapathError::Verify { program: name, source: Box::new(source) })?;
    }
    Ok(ebpf)
}

/// One of the two programs.
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
