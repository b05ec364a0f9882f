//! The largest segment that two ends of a TCP connection agree on when it begins: `segment.rs` of `netmanager-ebpf`.

use netmanager_common::checksum::{Difference, update};
use netmanager_common::event::DropReason;
use netmanager_common::header::Header;
use netmanager_common::packet::Packet;
use netmanager_common::wire::{
    Be16, ETHERNET_LEN, TCP_CHECKSUM, TCP_LEN, TCP_LENGTH_AND_FLAGS, TCP_OPTION_END,
    TCP_OPTION_MAXIMUM_SEGMENT_SIZE, TCP_OPTION_NOTHING, TCP_SYN,
};

use super::frame::Frame;

/// Options that are looked behind.
const MAX_OPTIONS: u32 = 6;
/// Bytes of the one that matters.
const LENGTH: u16 = 4;

/// Lowers what a packet that begins a connection says, so that segments fit into packets of `mtu` bytes.
pub(super) fn clamp<H: Header>(
    frame: &mut Frame<'_>,
    packet: &Packet<H>,
    mtu: u16,
) -> Result<(), DropReason> {
    if packet.tcp_flags & TCP_SYN == 0 {
        return Ok(());
    }
    let largest = mtu.saturating_sub(H::LEN + TCP_LEN);
    let tcp = ETHERNET_LEN.wrapping_add(packet.transport.offset);
    let [length]: [u8; 1] =
        frame.load(tcp.wrapping_add(TCP_LENGTH_AND_FLAGS)).ok_or(DropReason::Malformed)?;
    let end = u16::from(length >> 4) * 4;
    let mut at = TCP_LEN;
    for _ in 0..MAX_OPTIONS {
        if at.wrapping_add(LENGTH) > end {
            break;
        }
        let [kind, length, a, b]: [u8; 4] = frame.load(tcp.wrapping_add(at)).ok_or(DropReason::Malformed)?;
        match kind {
            TCP_OPTION_END => break,
            TCP_OPTION_NOTHING => at = at.wrapping_add(1),
            TCP_OPTION_MAXIMUM_SEGMENT_SIZE if u16::from(length) == LENGTH => {
                if u16::from_be_bytes([a, b]) > largest {
                    replace(frame, tcp, at.wrapping_add(2), [a, b], largest.to_be_bytes())?;
                }
                break;
            }
            _ if length < 2 => break,
            _ => at = at.wrapping_add(length.into()),
        }
    }
    Ok(())
}

/// Replaces two bytes of the TCP header that begins at `tcp`, and tells its checksum. An open one will be over the new
/// bytes.
fn replace(frame: &mut Frame<'_>, tcp: u16, at: u16, old: [u8; 2], new: [u8; 2]) -> Result<(), DropReason> {
    frame.store(tcp.wrapping_add(at), &new)?;
    if frame.open_checksum {
        return Ok(());
    }
    // At an odd offset the checksum has them the other way round.
    let word = |[a, b]: [u8; 2]| if at & 1 == 1 { [b, a] } else { [a, b] };
    let field = tcp.wrapping_add(TCP_CHECKSUM);
    let sum = Be16(frame.load(field).ok_or(DropReason::Malformed)?);
    frame.store(field, &update(sum, Difference::NONE.replace_pair(word(old), word(new))).0)
}
