//! The real netmanager against real namespaces, a real kernel and a real broker: does Linux agree with what it says?

mod bed;
mod bench;
mod cleanup;
mod denied;
mod fixtures;
mod host_ports;
mod itself;
mod life;
mod linking;
mod naming;
mod neighbour;
mod offloading;
mod outage;
mod peers;
mod refusal;
mod repair;
mod restart;
mod round_trips;
mod six;
mod stream;
mod talk;
mod uplinks;
mod userspace;
mod waiting;
mod wiring;
