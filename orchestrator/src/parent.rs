//! What cluster and branch do with the one above them, a root or a branch: [`args`] (where it is), [`client`] (what is asked of
//! it), [`uplink`] (registering and reporting), [`summary`] (how a report is made), [`orders`] and [`net_api`] (what it tells),
//! [`subject`] (by what a table is asked for).

pub(crate) mod args;
pub(crate) mod client;
pub(crate) mod net_api;
pub(crate) mod orders;
pub(crate) mod subject;
pub(crate) mod summary;
pub(crate) mod uplink;

pub use self::args::{NoHost, ParentAddress, ParentArgs};
