//! What others may send to the daemons, spoilt: MQTT payloads, HTTP bodies and paths. Nobody panics, nothing is believed
//! that must not be, and those who ask rightly afterwards are served. Needs no rights.
//!
//! Packets are fuzzed where the programs are: in the tests of the data plane.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod branch;
mod cluster;
mod payload;
mod root;
mod worker;
