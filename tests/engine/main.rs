//! The real node-engine on a real containerd, with a real broker: do containers come, stay and go as it says?
//!
//! What stands in for others: the cluster is a broker and a handshake, netmanager a socket that notes what it is asked.

mod bed;
mod cluster;
mod failure;
mod lifecycle;
mod netmanager;
mod outage;
mod pull;
mod restart;
