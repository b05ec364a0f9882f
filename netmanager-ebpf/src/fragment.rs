//! Datagrams that come in fragments. Only the first one has ports; it leaves them for the later ones.

use aya_ebpf::bindings::BPF_ANY;
use netmanager_common::event::DropReason;
use netmanager_common::flow::{self, Ports};
use netmanager_common::header::Header;
use netmanager_common::map::{FragmentKey, FragmentPorts};
use netmanager_common::wire::Be16;

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
    maps::scratch()?.fragment = key_of(skb, ip, identification, protocol);
    if insert(pack(ports)) == 0 { Ok(()) } else { Err(DropReason::KernelRefused) }
}

/// The ports of a datagram of which this is a later fragment.
#[inline(always)]
pub(crate) fn ports<H: Header>(
    skb: &Skb,
    ip: &H,
    identification: u32,
    protocol: u8,
) -> Result<Ports, DropReason> {
    maps::scratch()?.fragment = key_of(skb, ip, identification, protocol);
    match look_up() {
        NONE => Err(DropReason::Fragment),
        ports => Ok(unpack(ports)),
    }
}

/// No [`Ports`] are this.
const NONE: u64 = u64::MAX;

/// Enters the ports by the key in the scratch memory; 0 if that was possible. This and [`look_up`] are functions to the
/// kernel too: few packets come here, and the stack of all others is short.
#[inline(never)]
fn insert(ports: u64) -> u64 {
    let Ok(scratch) = maps::scratch() else { return 1 };
    let Ports { source, destination } = unpack(ports);
    let value = FragmentPorts { source, destination, since: select::now() };
    FRAGMENTS.insert(&scratch.fragment, &value, u64::from(BPF_ANY)).is_err().into()
}

/// The ports that are entered by the key in the scratch memory, or [`NONE`].
#[inline(never)]
fn look_up() -> u64 {
    let Ok(scratch) = maps::scratch() else { return NONE };
    // SAFETY: read at once. If it becomes another datagram's meanwhile, this fragment goes where no other part of its
    // datagram is, and is lost there.
    match unsafe { FRAGMENTS.get(&scratch.fragment) } {
        Some(first) if flow::idle(select::now(), first.since) <= flow::FRAGMENTS_LIFETIME => {
            pack(Ports { source: first.source, destination: first.destination })
        }
        _ => NONE,
    }
}

#[inline(always)]
fn pack(Ports { source: Be16([a, b]), destination: Be16([c, d]) }: Ports) -> u64 {
    u32::from_ne_bytes([a, b, c, d]).into()
}

#[expect(clippy::cast_possible_truncation, reason = "as wide as it was packed")]
#[inline(always)]
fn unpack(ports: u64) -> Ports {
    let [a, b, c, d] = (ports as u32).to_ne_bytes();
    Ports { source: Be16([a, b]), destination: Be16([c, d]) }
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
