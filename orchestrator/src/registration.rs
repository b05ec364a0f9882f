//! Client and server of the registration of clusters at their root, made from `proto/register.proto`.

#![allow(missing_debug_implementations, reason = "generated code")]
#![allow(unused_qualifications, reason = "generated code")]
#![allow(clippy::allow_attributes_without_reason, reason = "generated code")]

/// Names the cluster that asks the root for service addresses, where its address does not say who it is: behind NAT,
/// or several on one machine. Ours send their id with it.
pub const CLUSTER_HEADER: &str = "x-hypha-cluster";

tonic::include_proto!("cluster_registration");
