//! The packet as the kernel hands it over, and the helpers that act on it. All access to packet memory is here.
//!
//! Headers are copied out and in by helpers instead of being reached through `data` and `data_end`. That costs a few
//! nanoseconds a packet and buys three things: it works on any part of a non-linear packet, it needs no proofs of
//! bounds that a newer LLVM may rearrange until an older verifier loses them, and nothing is invalidated when the
//! packet's memory moves.

use core::mem::{MaybeUninit, size_of};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
    BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
};
use aya_ebpf::helpers::{
    bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room,
    bpf_skb_change_proto, bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use netmanager_common::checksum::Difference;
use netmanager_common::event::DropReason;
use netmanager_common::extension::{self, Behind, Packed};
use netmanager_common::flow::Ports;
use netmanager_common::header::{self, Header, Transport};
use netmanager_common::link::OVERHEAD_VX;
use netmanager_common::map::{Unwrapped, Veth};
use netmanager_common::packet::Frame;
use netmanager_common::tunnel::{OVERHEAD, OVERHEAD6};
use netmanager_common::wire::{
    self, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, UDP_LEN, Wire,
};

use crate::fragment;

/// A frame, Ethernet header first.
pub(crate) struct Skb {
    raw: *mut __sk_buff,
    ifindex: u32,
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self::of(context.as_ptr().cast())
    }

    /// The frame of an exported function's context, which is where the kernel says.
    #[inline(always)]
    pub(crate) fn of(raw: *mut __sk_buff) -> Self {
        // SAFETY: the kernel hands over a valid context and maps this access.
        Self { raw, ifindex: unsafe { (*raw).ifindex } }
    }

    /// What to hand to an exported function.
    #[inline(always)]
    pub(crate) fn context(&self) -> *mut __sk_buff {
        self.raw
    }

    /// The same frame, as if it arrived now where it had arrived first.
    #[inline(always)]
    pub(crate) fn again_from(&self, ifindex: u32) -> Self {
        Self { raw: self.raw, ifindex }
    }

    /// Whether it is not where it had arrived first.
    #[inline(always)]
    pub(crate) fn is_again(&self) -> bool {
        // SAFETY: as in `new`.
        self.ifindex != unsafe { (*self.raw).ifindex }
    }

    /// Bytes of the frame.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        // SAFETY: as in `new`.
        unsafe { (*self.raw).len }
    }

    /// The interface at which the frame arrived, or of one that the slow path has held, had arrived first.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Tells the kernel that the frame is for this host, though its destination MAC is not.
    #[inline(always)]
    pub(crate) fn set_for_host(&self) -> Result<(), DropReason> {
        // SAFETY: the helper changes a mark beside the packet.
        refused(unsafe { bpf_skb_change_type(self.raw, PACKET_HOST) })
    }

    /// Whether the frame came with a VLAN tag. The kernel keeps it beside the frame, which itself does not show it.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        // SAFETY: as in `new`.
        unsafe { (*self.raw).vlan_present != 0 }
    }

    /// Whether the frame belongs to a VLAN. A tag with the number 0 only says a priority.
    #[inline(always)]
    pub(crate) fn is_of_vlan(&self) -> bool {
        const NUMBER: u32 = 0x0fff;
        // SAFETY: as in `new`.
        self.is_tagged() && unsafe { (*self.raw).vlan_tci } & NUMBER != 0
    }

    /// Where the frame is to go, if its outer headers were taken off before the kernel had it.
    #[inline(always)]
    pub(crate) fn unwrapped(&self) -> Option<Veth> {
        // SAFETY: as in `new`.
        let start = unsafe { (*self.raw).data_meta as usize };
        // SAFETY: as in `new`. The kernel lets programs read what lies between these two, after they have compared them.
        let end = unsafe { (*self.raw).data as usize };
        if start + size_of::<Unwrapped>() > end {
            return None;
        }
        // SAFETY: within the bounds just compared, and aligned as the kernel demands of whoever writes there.
        let Unwrapped { mark, receiver } = unsafe { *core::ptr::with_exposed_provenance::<Unwrapped>(start) };
        (mark == Unwrapped::MARK).then_some(receiver)
    }

    /// Copies out what lies at `offset`; nothing when the frame ends before.
    #[inline(always)]
    pub(crate) fn load<T: Wire>(&self, offset: u16) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the buffer is as large as said; the helper checks the bounds of the frame.
        let result = unsafe {
            bpf_skb_load_bytes(self.raw.cast(), u32::from(offset), value.as_mut_ptr().cast(), T::SIZE)
        };
        // SAFETY: on success the helper has written all bytes, and any bytes are a value (`Wire`).
        (result == 0).then(|| unsafe { value.assume_init() })
    }

    /// Overwrites what lies at `offset`.
    #[inline(always)]
    pub(crate) fn store<T: Wire>(&self, offset: u16, value: &T) -> Result<(), DropReason> {
        self.store_with(offset, value, 0)
    }

    /// Overwrites an IP header whose addresses have changed, after [`Self::update_checksum`].
    #[inline(always)]
    pub(crate) fn store_header<H: Header>(&self, offset: u16, header: &H) -> Result<(), DropReason> {
        // Some NICs give the sum of the whole packet along. The helper that updates the transport checksum takes its
        // change into account there; if the header balances none, it needs the change of the header too.
        self.store_with(offset, header, if H::CHANGES_SUM { BPF_F_RECOMPUTE_CSUM.into() } else { 0 })
    }

    #[inline(always)]
    fn store_with<T: Wire>(&self, offset: u16, value: &T, flags: u64) -> Result<(), DropReason> {
        // SAFETY: the value has as many bytes as said, all initialised (`Wire`); the helper checks the bounds.
        refused(unsafe {
            bpf_skb_store_bytes(
                self.raw.cast(),
                u32::from(offset),
                core::ptr::from_ref(value).cast(),
                T::SIZE,
                flags,
            )
        })
    }

    /// Tells the transport checksum that addresses of its pseudo header have changed, in the way that the packet's
    /// state needs: complete, or left to the NIC, or absent (a UDP checksum of 0 stays 0). The packet must lie right
    /// behind the Ethernet header.
    #[inline(always)]
    pub(crate) fn update_checksum(
        &self,
        transport: &Transport,
        difference: Difference,
    ) -> Result<(), DropReason> {
        if difference == Difference::NONE {
            return Ok(());
        }
        let Some(field) = header::checksum_offset(transport.protocol) else { return Ok(()) };
        let zero = if transport.protocol == wire::UDP { BPF_F_MARK_MANGLED_0 } else { 0 };
        // SAFETY: the helper checks the bounds. A size of 0 in the flags makes it add the difference as it is.
        refused(unsafe {
            bpf_l4_csum_replace(
                self.raw.cast(),
                u32::from(ETHERNET_LEN.wrapping_add(transport.offset).wrapping_add(field)),
                0,
                u64::from(difference.get()),
                u64::from(BPF_F_PSEUDO_HDR | zero),
            )
        })
    }

    /// Replaces two bytes of a TCP header that begins at `tcp`, and tells its checksum. They lie at `at` of the header;
    /// `is_odd`: at an odd offset, so that the checksum has them the other way round.
    #[inline(always)]
    pub(crate) fn replace_in_tcp(
        &self,
        tcp: u16,
        at: u16,
        is_odd: bool,
        old: [u8; 2],
        new: [u8; 2],
    ) -> Result<(), DropReason> {
        self.store(tcp.wrapping_add(at), &new)?;
        let word =
            |bytes| if is_odd { u16::from_ne_bytes(bytes).swap_bytes() } else { u16::from_ne_bytes(bytes) };
        // SAFETY: the helper checks the bounds. A checksum that is left to the NIC is not touched: it will be over the
        // new bytes.
        refused(unsafe {
            bpf_l4_csum_replace(
                self.raw.cast(),
                u32::from(tcp.wrapping_add(wire::TCP_CHECKSUM)),
                word(old).into(),
                word(new).into(),
                2,
            )
        })
    }

    /// As [`Self::open_tunnel_room`], for those of [`netmanager_common::link::Link::Vx`] over IPv4.
    #[inline(always)]
    pub(crate) fn open_vx_room(&self) -> Result<(), DropReason> {
        // That the inner packet has an Ethernet header of its own is told in the number's highest byte.
        const INNER_ETHERNET: u64 = (ETHERNET_LEN as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
        let flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
            | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
            | BPF_F_ADJ_ROOM_ENCAP_L2_ETH
            | BPF_F_ADJ_ROOM_FIXED_GSO;
        self.adjust_room(i32::from(OVERHEAD_VX), u64::from(flags) | INNER_ETHERNET)
    }

    /// Makes room for the outer headers (`V6`: over IPv6) behind the Ethernet header, and tells the kernel that the
    /// packet is now a tunnel's, so that whoever segments it does that inside.
    #[inline(always)]
    pub(crate) fn open_tunnel_room<const V6: bool>(&self) -> Result<(), DropReason> {
        let (overhead, network) = if V6 {
            (OVERHEAD6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6)
        } else {
            (OVERHEAD, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)
        };
        // The segments' size is kept: the containers' MTU leaves room for the outer headers. Without that flag the
        // kernel would shrink the segments of TCP and refuse those of UDP.
        let flags = network | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_FIXED_GSO;
        self.adjust_room(i32::from(overhead), u64::from(flags))
    }

    /// Takes the outer headers away, before an inner packet of the family of `H`.
    #[inline(always)]
    pub(crate) fn close_tunnel_room<H: Header>(&self, outer: Family) -> Result<(), DropReason> {
        let mut overhead = outer.overhead();
        if overhead == 0 {
            return Ok(());
        }
        if outer.ethertype() != H::ETHERTYPE {
            // The kernel keeps beside the packet what it is, and would give it to the wrong half of the container's IP
            // stack. Converting the outer header says it, on kernels that have no flag of `adjust_room` for this (below
            // 6.3) too. It makes the header longer or shorter; its content does not matter any more.
            self.change_family(H::ETHERTYPE)?;
            overhead = match outer {
                Family::V4 | Family::V4Vx => overhead + (IPV6_LEN - IPV4_LEN),
                _ => overhead - (IPV6_LEN - IPV4_LEN),
            };
        }
        self.adjust_room(-i32::from(overhead), u64::from(BPF_F_ADJ_ROOM_FIXED_GSO))
    }

    /// Whether the outer UDP has no checksum, as what our own programs send. Not certain to be seen if it has none: that
    /// takes a frame whose first bytes do not lie together.
    #[inline(always)]
    pub(crate) fn is_unsummed(&self, outer: Family) -> bool {
        let end_of_udp = match outer {
            Family::V6 => ETHERNET_LEN + OVERHEAD6,
            _ => ETHERNET_LEN + OVERHEAD,
        };
        // SAFETY: as in `new`.
        let start = unsafe { (*self.raw).data as usize };
        // SAFETY: as in `new`.
        let end = unsafe { (*self.raw).data_end as usize };
        let behind = start + usize::from(end_of_udp);
        if behind > end {
            return false;
        }
        // SAFETY: within the bounds just compared. The kernel lets programs read what lies between these two, after that.
        unsafe { *core::ptr::with_exposed_provenance::<[u8; 2]>(behind - 2) == [0, 0] }
    }

    /// Makes the kernel forget that it was to complete a checksum of the outer headers, once these are gone: it would take
    /// the inner packet's for the one that is open, and would have it changed in the way of open ones, which makes it wrong.
    ///
    /// The kernel keeps beside the packet where that sum begins. When the outer headers are taken out, this comes to lie in
    /// the Ethernet header; it is forgotten when bytes behind it are taken out. So some of the inner header go, and come
    /// back.
    #[inline(always)]
    pub(crate) fn close_checksum<H: Header>(&self) -> Result<(), DropReason> {
        /// As many as the shortest transport header has: the kernel leaves no less than an IP header.
        const TAKEN: u16 = UDP_LEN;
        // A super-packet's checksum is the inner one, and what is so short has none.
        if self.gso_size() != 0 || self.len() < u32::from(ETHERNET_LEN + H::LEN + TAKEN) {
            return Ok(());
        }
        let taken: [u8; TAKEN as usize] = self.load(ETHERNET_LEN).ok_or(DropReason::Malformed)?;
        self.adjust_room(-i32::from(TAKEN), BPF_F_ADJ_ROOM_FIXED_GSO.into())?;
        self.adjust_room(i32::from(TAKEN), BPF_F_ADJ_ROOM_FIXED_GSO.into())?;
        self.store_with(ETHERNET_LEN, &taken, BPF_F_RECOMPUTE_CSUM.into())
    }

    #[inline(always)]
    fn change_family(&self, ethertype: wire::Be16) -> Result<(), DropReason> {
        // SAFETY: the helper checks its arguments against the packet.
        refused(unsafe { bpf_skb_change_proto(self.raw, u16::from_ne_bytes(ethertype.0), 0) })
    }

    #[inline(always)]
    fn adjust_room(&self, difference: i32, flags: u64) -> Result<(), DropReason> {
        // SAFETY: the helper checks all its arguments against the packet.
        refused(unsafe { bpf_skb_adjust_room(self.raw, difference, BPF_ADJ_ROOM_MAC, flags) })
    }
}

impl Frame for Skb {
    #[inline(always)]
    fn load<T: Wire>(&self, offset: u16) -> Option<T> {
        Self::load(self, offset)
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: as in `new`.
        unsafe { (*self.raw).gso_size }
    }

    #[inline(always)]
    fn behind_extensions(&self, offset: u16, first: u8) -> Result<Behind, DropReason> {
        Packed(behind_extensions(self.raw, offset.into(), first.into())).unpack()
    }

    #[inline(always)]
    fn remember<H: Header>(
        &self,
        ip: &H,
        identification: u32,
        protocol: u8,
        ports: Ports,
    ) -> Result<(), DropReason> {
        fragment::remember(self, ip, identification, protocol, ports)
    }

    #[inline(always)]
    fn ports<H: Header>(&self, ip: &H, identification: u32, protocol: u8) -> Result<Ports, DropReason> {
        fragment::ports(self, ip, identification, protocol)
    }
}

/// Exported: few packets come here.
#[expect(clippy::cast_possible_truncation, reason = "both were narrower")]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn behind_extensions(skb: *mut __sk_buff, offset: u32, first: u32) -> u64 {
    Packed::new(extension::walk(&Skb::of(skb), offset as u16, first as u8)).0
}

/// Of the outer headers.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Family {
    /// There are none any more.
    None,
    V4,
    V6,
    /// IPv4, and a shell around the inner packet.
    V4Vx,
}

impl Family {
    /// The one that has this number.
    #[inline(always)]
    pub(crate) const fn at(number: u32) -> Option<Self> {
        const ALL: [Family; 4] = [Family::None, Family::V4, Family::V6, Family::V4Vx];
        if number < 4 { Some(ALL[number as usize]) } else { None }
    }

    /// Bytes of the outer headers.
    #[inline(always)]
    pub(crate) const fn overhead(self) -> u16 {
        match self {
            Self::None => 0,
            Self::V4 => OVERHEAD,
            Self::V6 => OVERHEAD6,
            Self::V4Vx => OVERHEAD_VX,
        }
    }

    #[inline(always)]
    const fn ethertype(self) -> wire::Be16 {
        match self {
            Self::V4 | Self::V4Vx => ETHERTYPE_IPV4,
            Self::None | Self::V6 => ETHERTYPE_IPV6,
        }
    }
}

/// Hands the packet to the other end of the veth at `ifindex`, straight into its namespace.
#[expect(clippy::cast_possible_truncation, reason = "verdicts are small numbers")]
#[inline(always)]
pub(crate) fn redirect_peer(ifindex: u32) -> i32 {
    // SAFETY: takes numbers only.
    (unsafe { bpf_redirect_peer(ifindex, 0) }) as i32
}

/// Sends the packet out at `ifindex`. The kernel resolves the neighbour and writes the Ethernet header.
#[expect(clippy::cast_possible_truncation, reason = "verdicts are small numbers")]
#[inline(always)]
pub(crate) fn redirect_neigh(ifindex: u32) -> i32 {
    // SAFETY: without parameters the kernel looks the route up by the packet's own destination.
    (unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) }) as i32
}

/// Gives the frame to the interface as one to be sent.
#[expect(clippy::cast_possible_truncation, reason = "verdicts are small numbers")]
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> i32 {
    // SAFETY: takes numbers only.
    (unsafe { bpf_redirect(ifindex, 0) }) as i32
}

/// `linux/if_packet.h`: to this host.
const PACKET_HOST: u32 = 0;

#[inline(always)]
fn refused(result: i64) -> Result<(), DropReason> {
    if result == 0 { Ok(()) } else { Err(DropReason::KernelRefused) }
}
