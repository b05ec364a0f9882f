//! Datagrams that come in fragments. Only the first one has ports; it leaves them for the later ones.

use aya_ebpf::bindings::BPF_ANY;
use netmanager_common::event::DropReason;
use netmanager_common::flow::{self, Ports};
use netmanager_common::header::Header;
use netmanager_common::map::{FragmentKey, FragmentPorts};

use crate::maps::{self, FRAGMENTS};
use crate::select;
use crate::skb::Skb;

/// Notes the ports of a datagram whose first fragment this is.
#[inline(always)]
pub(crate) fn remember<H: Header>(
    skb: &Skb,
    ip: &H,
    identification: u32,
    protocol: u8,
    ports: Ports,
) -> Result<(), DropReason> {
    let key = &mut maps::scratch()?.fragment;
    *key = key_of(skb, ip, identification, protocol);
    let value = FragmentPorts { source: ports.source, destination: ports.destination, since: select::now() };
    FRAGMENTS.insert(&*key, &value, u64::from(BPF_ANY)).map_err(|_errno| DropReason::KernelRefused)
}

/// The ports of a datagram of which this is a later fragment.
#[inline(always)]
pub(crate) fn ports<H: Header>(
    skb: &Skb,
    ip: &H,
    identification: u32,
    protocol: u8,
) -> Result<Ports, DropReason> {
    let key = &mut maps::scratch()?.fragment;
    *key = key_of(skb, ip, identification, protocol);
    // SAFETY: read at once. If it becomes another datagram's meanwhile, this fragment goes where no other part of its
    // datagram is, and is lost there.
    match unsafe { FRAGMENTS.get(&*key) } {
        Some(first) if flow::idle(select::now(), first.since) <= flow::FRAGMENTS_LIFETIME => {
            Ok(Ports { source: first.source, destination: first.destination })
        }
        _ => Err(DropReason::Fragment),
    }
}

#[inline(always)]
fn key_of<H: Header>(skb: &Skb, ip: &H, identification: u32, protocol: u8) -> FragmentKey {
    FragmentKey {
        ifindex: skb.ifindex(),
        source: ip.source(),
        destination: ip.destination(),
        identification,
        protocol: protocol.into(),
    }
}
