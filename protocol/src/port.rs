//! The ports of the getting-started guide.

/// Root: REST API for people and their tools.
pub const ROOT_API: u16 = 10000;
/// Root: gRPC on which clusters register.
pub const ROOT_GRPC: u16 = 50052;
/// Root: service addresses and table queries, for clusters.
pub const ROOT_NET_API: u16 = 10099;
/// Cluster: REST API for the root and for workers that join.
pub const CLUSTER_API: u16 = 10100;
/// Cluster: table updates from the root.
pub const CLUSTER_NET_API: u16 = 10110;
/// Cluster: MQTT broker for its workers.
pub const CLUSTER_MQTT: u16 = 10003;
/// Worker: UDP port of the overlay tunnel.
pub const TUNNEL: u16 = 50103;
/// Worker: netmanager's local HTTP API, when it is asked for over TCP.
pub const NETMANAGER_API: u16 = 6000;
