//! What root and branch do with the clusters below them: [`cluster`] (who they are), [`grpc`] (they register), [`report`] and
//! [`live`] (what they say), [`place`] (which of them gets an instance), [`refusals`], [`command`], [`lane`], [`notices`] and
//! [`call`] (what they are told), [`dotted`] (how they name things in paths). A branch that registers is one cluster here, like any other.

pub(crate) mod call;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod dotted;
pub(crate) mod grpc;
pub(crate) mod key;
pub(crate) mod lane;
pub mod live;
pub(crate) mod notices;
pub mod place;
pub(crate) mod refusals;
pub(crate) mod report;
