//! A root as its users see it: people and their tools over REST, clusters over gRPC and HTTP. The root is the real one;
//! at the other end stands a cluster that speaks as Oakestra's and remembers what it was told.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod accepts;
mod access;
mod addresses;
mod bed;
mod changes;
mod cluster;
mod deploys;
mod described;
mod escalates;
mod foreseen;
mod fuzzed;
mod listens;
mod logins;
mod organizations;
mod outage;
mod payloads;
mod people;
mod refuses;
mod resets;
mod starts;
mod survives;
mod upgrades;
mod users;
mod why;
mod workers;
