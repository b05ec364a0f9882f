//! What the kernel side and the user side of the data plane must agree on, and the packet arithmetic that both can run.
//!
//! Rules of the ABI, the structs of [`map`] and [`event`]:
//! * fields are integers and byte arrays; padding is a field; a const assertion beside each struct holds its size;
//! * what comes from the wire keeps the wire's byte order, and its type says so ([`wire::Ip`], [`wire::Be16`]);
//!   integers are in the machine's order;
//! * any change of a struct, of a map's type or capacity, or of the meaning of a field raises [`ABI_VERSION`]: pinned
//!   maps are taken over only by programs of the same version.

#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

pub mod budget;
pub mod checksum;
pub mod event;
pub mod extension;
pub mod flow;
pub mod header;
pub mod health;
pub mod life;
pub mod link;
pub mod map;
pub mod outside;
pub mod packet;
pub mod plan;
pub mod punt;
pub mod trace;
pub mod tunnel;
pub mod wire;

/// Version of everything that lies in a pinned map or in the event ring.
pub const ABI_VERSION: u32 = 9;
