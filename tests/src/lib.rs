//! What a test of the whole system needs: network namespaces as nodes, the real daemons in them, an image, and ways
//! to look at it all with tools that are not ours.
//!
//! Nothing here is linked into a daemon. Everything that is made is removed again when its value is dropped, also
//! after a panic; what a killed run has left is found and removed by the next one.

pub mod api;
pub mod application;
pub mod capture;
pub mod cgroup;
pub mod cluster;
pub mod container;
pub mod containerd;
pub mod daemon;
pub mod download;
pub mod footprint;
pub mod fuzz;
pub mod guide;
pub mod image;
pub mod interrupt;
pub mod lab;
pub mod long_cable;
pub mod memory;
pub mod mosquitto;
pub mod netmanager;
pub mod netns;
pub mod process;
pub mod retransmission;
pub mod system;
pub mod throughput;
pub mod wait;

pub use lab::{Broker, Lab, Machine, Topology, Worker};
pub use netns::Netns;
pub use system::System;
pub use wait::eventually;
