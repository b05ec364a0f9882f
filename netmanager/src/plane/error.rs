use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::bpffs::BpffsError;
use crate::datapath::DatapathError;
use crate::selftest::SelfTestError;

/// What went wrong in either data plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaneError {
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    #[error("open a packet socket at link {ifindex} (root, or CAP_NET_RAW and CAP_NET_ADMIN, is needed)")]
    PacketSocket { ifindex: u32, source: io::Error },
    #[error(
        "listen for other nodes at {address}, UDP port {port} (does another network manager run on this node?)"
    )]
    Tunnel { address: IpAddr, port: u16, source: io::Error },
    #[error("keep containers from what is not theirs")]
    Guard { source: io::Error },
    #[error("start the threads of the data plane")]
    Threads { source: io::Error },
    #[error(
        "the data plane in the kernel, pinned under {pin_dir}, cannot be taken away, and two would forward each packet; \
         run `netmanager cleanup` as root first"
    )]
    OldPrograms { pin_dir: PathBuf, source: DatapathError },
    #[error(transparent)]
    Packets(#[from] SelfTestError),
    #[error("no data plane is to be had: not in the kernel ({ebpf}), nor in user space")]
    Neither { ebpf: String, source: Box<Self> },
}

impl PlaneError {
    /// Whether the kernel has no place for our programs, or does not let us: nothing that another setting would cure.
    pub(super) fn is_about_the_kernel(&self) -> bool {
        match self {
            Self::Datapath(error) => matches!(
                error,
                DatapathError::NotPermitted { .. }
                    | DatapathError::Load { .. }
                    | DatapathError::Verify { .. }
            ),
            Self::Packets(error) => error.is_about_packets(),
            Self::Bpffs(error) => matches!(error, BpffsError::Mount(_)),
            _ => false,
        }
    }
}
