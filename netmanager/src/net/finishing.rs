//! How much of a packet the kernel of a link's owner leaves to the NIC, as it leaves it to any device that says it can.
//!
//! A pair of links says so and does nothing; it hands the packet on as it is, so that in the end the NIC has to do it. Most
//! can. Where one cannot, behind a tunnel's headers, the link must not say so.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use rtnetlink::LinkUnspec;
use serde::{Deserialize, Serialize};

use super::{Links, NetError};

/// A link on which super-packets stay whole: as many segments as the kernel puts into one (`GSO_MAX_SEGS`).
const WHOLE: u32 = 65_535;
/// One on which each segment is a packet: what has more is cut before it (`gso_features_check` in `net/core/dev.c`).
const CUT: u32 = 1;

/// `linux/ethtool.h`: whether checksums are left open, get and set.
const GET_CHECKSUMS: u32 = 0x16;
const SET_CHECKSUMS: u32 = 0x17;
/// The same of TCP's super-packets being left whole.
const SET_TCP_SEGMENTS: u32 = 0x1f;

/// What is left to the NIC, from most to least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeftToNic {
    /// To cut super-packets into segments, and to complete checksums.
    #[default]
    All,
    /// To complete checksums.
    Checksums,
    Nothing,
}

impl Links {
    /// What the owner of this link leaves to the NIC; nothing if there is no such link.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn left_to_nic(&self, name: &str) -> Result<Option<LeftToNic>, NetError> {
        let Some(link) = self.find(name).await? else { return Ok(None) };
        let failed = |source: io::Error| {
            NetError::new(format!("ask whether checksums are left open on link {name}"), source.into())
        };
        Ok(Some(match (self.leaves_checksums(name).map_err(failed)?, is_cut(&link)) {
            (false, _) => LeftToNic::Nothing,
            (true, true) => LeftToNic::Checksums,
            (true, false) => LeftToNic::All,
        }))
    }

    /// Lets the owner of this link leave so much to the NIC, now also of connections that are open. What is so already stays
    /// as it is.
    ///
    /// # Errors
    /// When the kernel refuses. No such link is no failure.
    pub async fn leave_to_nic(&self, name: &str, left: LeftToNic) -> Result<(), NetError> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        let failed = |source: io::Error| {
            NetError::new(format!("change what is left to the NIC on link {name}"), source.into())
        };
        let open = left != LeftToNic::Nothing;
        let is_open = match self.leaves_checksums(name) {
            // A kernel that does not tell leaves them open, as all do by themselves.
            Err(_) if open => true,
            told => told.map_err(failed)?,
        };
        if is_open != open {
            self.ethtool(name, SET_CHECKSUMS, open.into()).map_err(failed)?;
        }
        let cut = left != LeftToNic::All;
        if is_cut(&link) == cut {
            return Ok(());
        }
        // The other keeps whole what a process hands over by a packet socket, or a virtual machine by a TAP device.
        self.ethtool(name, SET_TCP_SEGMENTS, (!cut).into()).map_err(failed)?;
        self.segments(name, link.header.index, if cut { CUT } else { WHOLE }).await
    }

    /// As [`Self::leave_to_nic`], of a link that is being made: without it, most packets get through.
    pub(super) async fn try_to_leave_to_nic(&self, name: &str, left: LeftToNic) {
        if let Err(error) = self.leave_to_nic(name, left).await {
            tracing::warn!(
                link = name,
                error = crate::error::chain(&error),
                "packets may be lost at the NIC"
            );
        }
    }

    fn leaves_checksums(&self, name: &str) -> io::Result<bool> {
        self.ethtool(name, GET_CHECKSUMS, 0).map(|value| value != 0)
    }

    /// Sets how many segments a packet may have on this link.
    async fn segments(&self, name: &str, ifindex: u32, most: u32) -> Result<(), NetError> {
        let change = LinkUnspec::new_with_index(ifindex);
        let change = change.append_extra_attribute(LinkAttribute::GsoMaxSegs(most)).build();
        let changed = self.handle.link().change(change).execute().await;
        changed.map_err(|source| {
            NetError::new(format!("give link {name} at most {most} segments in a packet"), source.into())
        })
    }

    fn ethtool(&self, name: &str, command: u32, value: u32) -> io::Result<u32> {
        /// `struct ethtool_value`.
        #[repr(C)]
        struct Value {
            command: u32,
            value: u32,
        }
        let mut value = Value { command, value };
        // SAFETY: integers, pointers and arrays of them; all zeroes are a value.
        let mut request: libc::ifreq = unsafe { zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = byte.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: these requests read a name, and read or write the number behind the pointer, which lives on.
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.value) }
    }
}

fn is_cut(link: &LinkMessage) -> bool {
    link.attributes.contains(&LinkAttribute::GsoMaxSegs(CUT))
}

/// A socket of the calling thread's namespace, through which its links are asked what netlink has no message for.
pub(super) fn control() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}
