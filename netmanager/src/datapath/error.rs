use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use netmanager_common::map::MAX_BACKENDS_PER_SERVICE;

/// What went wrong in the data plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatapathError {
    #[error(
        "{path} is not on a BPF file system, where programs and tables outlive the daemon; mount one with \
         `mount -t bpf bpf /sys/fs/bpf`"
    )]
    NotBpffs { path: PathBuf },
    #[error("{path}: a name on a BPF file system cannot hold a dot")]
    DottedPinDirectory { path: PathBuf },
    #[error("{action} {path}")]
    PinDirectory { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the kernel does not let this process load BPF programs: run it as root, or with CAP_BPF and CAP_NET_ADMIN"
    )]
    NotPermitted { source: Box<aya::EbpfError> },
    #[error("load the data plane into the kernel (Linux 5.15 or later is needed)")]
    Load { source: Box<aya::EbpfError> },
    #[error("load program {program} into the kernel (Linux 5.15 or later is needed)")]
    Verify { program: &'static str, source: Box<ProgramError> },
    #[error("the BPF object that this binary was built with has no program {program}")]
    NoProgram { program: &'static str },
    #[error(
        "no data plane is pinned at {path}: no netmanager has run with this directory, or its cleanup has"
    )]
    NotPinned { path: PathBuf, source: Box<MapError> },
    #[error("{action} table {table}")]
    Table { action: &'static str, table: &'static str, source: Box<MapError> },
    #[error("table {table} is full: this node can hold {capacity}")]
    Full { table: &'static str, capacity: u32 },
    #[error(
        "no interface has index {ifindex} here: has it been removed, or is it in another network namespace?"
    )]
    NoInterface { ifindex: u32, source: io::Error },
    #[error("the BPF object that this binary was built with has no table {table}")]
    NoTable { table: &'static str },
    #[error("the BPF object that this binary was built with does not define its tables as expected")]
    Definitions,
    #[error(
        "run program {program} on a packet from interface {ifindex} (is this the network namespace where it is?)"
    )]
    Run { program: &'static str, ifindex: u32, source: Box<ProgramError> },
    #[error("look which programs {interface} has")]
    Look { interface: String, source: Box<ProgramError> },
    #[error("attach {program} to {interface}")]
    Attach { program: &'static str, interface: String, source: Box<ProgramError> },
    #[error("open the pinned attachment {path}")]
    PinnedLink { path: PathBuf, source: Box<LinkError> },
    #[error("pin table {table} again")]
    PinTable { table: String, source: Box<aya::pin::PinError> },
    #[error("pin the attachment {path}")]
    PinLink { path: PathBuf, source: Box<aya::pin::PinError> },
    #[error(
        "service {service_ip} has {count} instances; an address can stand for {MAX_BACKENDS_PER_SERVICE} at most"
    )]
    TooManyBackends { service_ip: IpAddr, count: usize },
    #[error("somebody else traces the data plane pinned under {path}")]
    TracedAlready { path: PathBuf, source: io::Error },
    #[error("wait for events of the kernel")]
    Events { source: io::Error },
}
