//! The control plane: root, branch, cluster, or root and cluster in one process.
//!
//! - [`root`]: what people ask for, and which cluster gets it; service addresses.
//! - [`cluster`]: the workers of one cluster, where instances are placed, and what they are told.
//! - [`branch`]: a cluster to the root, and a root to clusters of its own.
//! - [`standalone`]: root and cluster in one process. [`archive`]: the state of any is put away, and put back.
//! - [`schedule`]: which worker an instance runs on; [`broker`]: MQTT between a cluster and its workers.
//!
//! What a branch shares with the others: [`children`] (with a root) and [`parent`] (with a cluster).
//!
//! What all stand on: [`data_dir`] and [`store`] (what must not be lost), [`http`] (serving), `relay` (of several, one leads), [`standing`] (states in words),
//! [`registration`] (the wire of a cluster that makes itself known), [`object_id`], [`clock`],
//! [`open_files`], `backoff` (pauses between tries), `unshown` (flags with passwords) and [`error`].
#![forbid(unsafe_code)]

pub mod archive;
pub mod branch;
pub mod cluster;
pub mod root;
pub mod standalone;

mod backoff;
pub mod broker;
pub mod children;
pub mod clock;
pub mod data_dir;
pub mod error;
pub mod http;
pub mod object_id;
pub mod open_files;
pub mod parent;
mod problem;
mod reach;
pub mod registration;
mod relay;
pub mod schedule;
pub mod sla;
pub mod standing;
pub mod store;
mod unshown;
mod wish;
