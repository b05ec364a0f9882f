//! The largest segment that two ends of a TCP connection agree on when it begins.
//!
//! Each end says how large segments it wants to get. Between containers both say what their own links carry; if the
//! path between their nodes carries less, this says so in their stead, in both directions at either node, so that no
//! connection depends on ICMP errors.

use aya_ebpf::bindings::__sk_buff;
use netmanager_common::event::DropReason;
use netmanager_common::header::Header;
use netmanager_common::packet::Packet;
use netmanager_common::wire::{
    TCP_LEN, TCP_LENGTH_AND_FLAGS, TCP_OPTION_END, TCP_OPTION_MAXIMUM_SEGMENT_SIZE, TCP_OPTION_NOTHING,
    TCP_SYN,
};

use crate::count;
use crate::maps;
use crate::skb::Skb;

/// Options that are looked behind: Linux has the one that matters in front, others pad little.
const MAX_OPTIONS: u32 = 6;
/// Bytes of that option.
const LENGTH: u16 = 4;

/// Lowers what a packet that begins a connection says, so that segments fit into packets of `mtu` bytes. The packet's IP
/// header is at `offset` of the frame.
#[inline(always)]
pub(crate) fn clamp<H: Header>(
    skb: &Skb,
    packet: &Packet<H>,
    offset: u16,
    mtu: u16,
) -> Result<(), DropReason> {
    if packet.tcp_flags & TCP_SYN == 0 {
        return Ok(());
    }
    let largest = mtu.saturating_sub(H::LEN + TCP_LEN);
    let tcp = offset.wrapping_add(packet.transport.offset);
    count::result(lower_segment_size(skb.context(), tcp.into(), largest.into())).map(|_zero| ())
}

/// Exported: few packets come here. `tcp`: where the TCP header begins. What it gives is an end of [`count`].
#[expect(clippy::cast_possible_truncation, reason = "both were 16 bits wide")]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lower_segment_size(skb: *mut __sk_buff, tcp: u32, largest: u32) -> i32 {
    count::end(lower(&Skb::of(skb), tcp as u16, largest as u16).map(|()| 0))
}

#[inline(always)]
fn lower(skb: &Skb, tcp: u16, largest: u16) -> Result<(), DropReason> {
    let [length]: [u8; 1] = skb.load(tcp.wrapping_add(TCP_LENGTH_AND_FLAGS)).ok_or(DropReason::Malformed)?;
    let end = u16::from(length >> 4) * 4;
    let place: *mut u16 = &raw mut maps::scratch()?.option;
    let mut at = TCP_LEN;
    for _ in 0..MAX_OPTIONS {
        if at.wrapping_add(LENGTH) > end {
            break;
        }
        let [kind, length, a, b]: [u8; 4] = skb.load(tcp.wrapping_add(at)).ok_or(DropReason::Malformed)?;
        match kind {
            TCP_OPTION_END => break,
            TCP_OPTION_NOTHING => at = at.wrapping_add(1),
            TCP_OPTION_MAXIMUM_SEGMENT_SIZE if u16::from(length) == LENGTH => {
                if u16::from_be_bytes([a, b]) > largest {
                    let is_odd = at & 1 == 1;
                    skb.replace_in_tcp(tcp, at.wrapping_add(2), is_odd, [a, b], largest.to_be_bytes())?;
                }
                break;
            }
            _ if length < 2 => break,
            _ => at = at.wrapping_add(length.into()),
        }
        // By way of memory, of which the verifier knows nothing: it would else follow every sequence of options.
        // SAFETY: an aligned number in this CPU's scratch memory.
        unsafe { place.write_volatile(at) };
        // SAFETY: as above.
        at = unsafe { place.read_volatile() };
    }
    Ok(())
}
