//! The programs that the kernel runs for every packet of a container.
//!
//! ```text
//!   container A            host                       uplink              other node
//!     eth0 ---- veth [from_container] --encapsulate---> eth0 ~~~ UDP ~~~> ([uplink_xdp]) [from_uplink] --> container B
//!                          |                             ^
//!                          +--redirect_peer--> container on this node
//! ```
//!
//! A container dials a service address. `from_container` gives the packet the container's own instance address as
//! source and the NsIP of the chosen instance as destination; the instance answers to that instance address, which
//! its own node translates in the same manner; and whoever delivers an answer shows it as coming from the service
//! address that was dialled.
//!
//! What a program cannot finish alone goes to netmanager and comes back at `from_slow_path`.
//!
//! Three kinds of functions are left when all is compiled. Those of `inline(always)` are none. Those of `inline(never)` alone
//! have a stack of their own, and the verifier follows each call of them as if they were inlined. Those that are
//! exported beside (`no_mangle`: global functions, to the kernel) it looks at once for each program, with any
//! arguments, however many ways lead there: so all that few packets need is in these, and they take and give numbers.
//!
//! This file is the table of attach points. Reading order: [`container`] and [`uplink`], the two paths from top to
//! bottom; [`early`], what of the second may be done sooner; [`slow`], the way of the rest; then what they use:
//! [`guard`], [`select`], [`follow`], [`health`], [`deliver`], [`segment`], [`host`], [`miss`], [`maps`], [`skb`],
//! [`raw`]; [`trace`], which tells of all that; and of `netmanager-common`, which user space shares, `header` and `packet`.

#![no_std]
#![no_main]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key that is handed over by value is one more copy on a stack of 512 bytes"
)]

mod container;
mod count;
mod deliver;
mod early;
mod follow;
mod fragment;
mod guard;
mod health;
mod host;
mod load;
mod maps;
mod miss;
mod raw;
mod segment;
mod select;
mod skb;
mod slow;
mod trace;
mod uplink;

use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use netmanager_common::punt::Origin;

use crate::raw::Raw;
use crate::skb::Skb;

/// tcx ingress of the host side of a container's veth.
#[classifier]
pub(crate) fn from_container(context: TcContext) -> i32 {
    let skb = Skb::new(&context);
    slow::finish(&skb, Origin::Container, container::handle(&skb))
}

/// tcx ingress of the uplink.
#[classifier]
pub(crate) fn from_uplink(context: TcContext) -> i32 {
    let skb = Skb::new(&context);
    slow::finish(&skb, Origin::Uplink, uplink::handle(&skb))
}

/// XDP of the uplink, in the driver, where that costs nothing else: before the kernel has a packet, so that it merges
/// what comes out of the tunnel.
#[xdp]
pub(crate) fn uplink_xdp(context: XdpContext) -> u32 {
    early::handle(&Raw::<false>::new(&context))
}

/// The same where a frame may be longer than the driver's buffers (Linux 5.18).
#[xdp(frags)]
pub(crate) fn uplink_xdp_long(context: XdpContext) -> u32 {
    early::handle(&Raw::<true>::new(&context))
}

/// tcx ingress of the slow path's TAP device: what netmanager has held, made or translated.
#[classifier]
pub(crate) fn from_slow_path(context: TcContext) -> i32 {
    slow::handle(&Skb::new(&context))
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}

/// Programs may use the kernel's GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
