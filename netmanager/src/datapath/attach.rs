//! Programs at the ingress of interfaces.
//!
//! With tcx (Linux 6.6) an attachment is a pinned link; a new program replaces the old one in it without a packet
//! between them. Before, it is a filter of the clsact qdisc, which outlives us by itself and is replaced in place.

mod orphan;
pub(super) mod xdp;

use std::io;

use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{Link as _, ProgramError, SchedClassifier, TcAttachType};
use aya::sys::SyscallError;

use super::pin::{PinDir, at};
use super::{DatapathError, interface};

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Linux 6.6 and later.
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

/// Where our filter stands among those of clsact: before those that get a priority by default (49152).
const PRIORITY: u16 = 100;
const HANDLE: TcHandle = TcHandle::new(0, 1);

impl Hook {
    /// The best that this kernel has: asks it which tcx programs the loopback has, a question that older kernels do
    /// not know.
    #[must_use]
    pub fn probe() -> Self {
        match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
            Ok(_) => Self::Tcx,
            Err(_) => Self::Clsact,
        }
    }

    /// Attaches `program` at the ingress of an interface, or replaces what we had there. Gives the link, if it is one: it
    /// lasts as long as its pin or this.
    pub(super) fn attach(
        self,
        pins: &PinDir,
        name: &'static str,
        program: &mut SchedClassifier,
        ifindex: u32,
    ) -> Result<Option<FdLink>, DatapathError> {
        match self {
            Self::Tcx => attach_tcx(pins, name, program, ifindex).map(Some),
            Self::Clsact => attach_clsact(name, program, ifindex).map(|()| None),
        }
    }

    /// Whether `program` is at the ingress of an interface and will stay there when this process ends. Of clsact it is
    /// not asked: there attaching again replaces in place whatever is ours.
    pub(super) fn is_attached(
        self,
        pins: &PinDir,
        program: &SchedClassifier,
        ifindex: u32,
    ) -> Result<bool, DatapathError> {
        if self == Self::Clsact || !pins.link(ifindex).exists() {
            return Ok(false);
        }
        let interface = interface::name(ifindex)?;
        let looked = SchedClassifier::query_tcx(&interface, TcAttachType::Ingress)
            .and_then(|(_revision, programs)| Ok((program.info()?.id(), programs)));
        let (ours, programs) =
            looked.map_err(|source| DatapathError::Look { interface, source: Box::new(source) })?;
        Ok(programs.iter().any(|program| program.id() == ours))
    }

    /// Detaches what we have at an interface. The interface may be gone.
    pub(super) fn detach(self, pins: &PinDir, ifindex: u32) -> Result<(), DatapathError> {
        match self {
            Self::Tcx => {
                let path = pins.link(ifindex);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &path)(error)),
                    _ => Ok(()),
                }
            }
            Self::Clsact => {
                let Ok(interface) = interface::name(ifindex) else { return Ok(()) };
                // Without our filter there is nothing to detach, and nothing else can be wrong with the request.
                if let Ok(link) = our_filter(&interface) {
                    link.detach().ok();
                }
                Ok(())
            }
        }
    }
}

fn attach_tcx(
    pins: &PinDir,
    name: &'static str,
    program: &mut SchedClassifier,
    ifindex: u32,
) -> Result<FdLink, DatapathError> {
    let path = pins.link(ifindex);
    if !path.exists() {
        let interface = interface::name(ifindex)?;
        orphan::adopt(name, &interface, ifindex, &path).map_err(|source| failed(name, interface, source))?;
    }
    match PinnedLink::from_pin(&path) {
        Ok(pinned) => {
            let link = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(|source| {
                DatapathError::PinnedLink { path: path.clone(), source: Box::new(source) }
            })?;
            if let Ok(link) = program.attach_to_link(link).and_then(|id| program.take_link(id)) {
                return FdLink::try_from(link)
                    .map_err(|source| DatapathError::PinnedLink { path, source: Box::new(source) });
            }
            // The interface of the link is gone, and its index was given to another one.
            std::fs::remove_file(&path).map_err(at("remove", &path))?;
        }
        Err(LinkError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(DatapathError::PinnedLink { path, source: Box::new(source) }),
    }
    let interface = interface::name(ifindex)?;
    let attached = program
        .attach_with_options(
            &interface,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(LinkOrder::default()),
        )
        .and_then(|id| program.take_link(id));
    let link = attached.map_err(|source| failed(name, interface, source))?;
    let link = FdLink::try_from(link)
        .map_err(|source| DatapathError::PinnedLink { path: path.clone(), source: Box::new(source) })?;
    let pinned =
        link.pin(&path).map_err(|source| DatapathError::PinLink { path, source: Box::new(source) })?;
    Ok(pinned.into())
}

fn attach_clsact(
    name: &'static str,
    program: &mut SchedClassifier,
    ifindex: u32,
) -> Result<(), DatapathError> {
    let interface = interface::name(ifindex)?;
    let filter = our_filter(&interface).map_err(|source| DatapathError::NoInterface { ifindex, source })?;
    let replaced = program.attach_to_link(filter).and_then(|id| program.take_link(id));
    let link = replaced.or_else(|_| {
        // There was none. The qdisc may be there already, for somebody else's filters; if it cannot be made,
        // attaching says so.
        qdisc_add_clsact(&interface).ok();
        let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        program
            .attach_with_options(&interface, TcAttachType::Ingress, TcAttachOptions::Netlink(options))
            .and_then(|id| program.take_link(id))
    });
    // Dropping the link would remove the filter, which is to stay when we go.
    std::mem::forget(link.map_err(|source| failed(name, interface, source))?);
    Ok(())
}

fn our_filter(interface: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

fn failed(program: &'static str, interface: String, source: ProgramError) -> DatapathError {
    DatapathError::Attach { program, interface, source: Box::new(source) }
}
