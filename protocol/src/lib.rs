//! What Hypha's daemons say to each other, and to Oakestra's: types and names of the wire, nothing else.
//!
//! Every payload here has Oakestra's keys and types, so that either side of a conversation can be Oakestra's part.
//! Two rules keep that true:
//! - **Reading is lenient.** Unknown keys are ignored (or kept, where a document is passed on), a missing key or
//!   `null` is the type's default: Go sends `null` for an empty list, and blanks fields it does not know.
//! - **Writing is exact.** Numbers that Go reads as `int` are JSON integers, the keys that its clients insist on are
//!   always there. Keys of our own are only ever added.
//!
//! The crate knows no transport and does no I/O.
#![forbid(unsafe_code)]

pub mod address;
pub mod balancing;
pub mod cluster;
pub mod connectivity;
pub mod constraint;
pub mod decision;
pub mod event;
pub mod id;
pub mod lenient;
pub mod link;
pub mod location;
pub mod name;
pub mod net;
pub mod node;
pub mod outage;
pub mod overview;
pub mod plan;
pub mod port;
pub mod rtt;
pub mod service;
pub mod sla;
pub mod status;
pub mod topic;
pub mod validation;
