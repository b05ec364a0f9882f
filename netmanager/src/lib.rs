//! The network of one worker: containers wired to an overlay whose data plane runs in the kernel.
//!
//! Read in this order: [`app`] says what runs; [`node`] is the one task that changes things; [`resolver`], [`table`],
//! [`ipam`] and [`ports`] decide and do nothing else; [`balance`] keeps new flows away from dead ends;
//! [`datapath`], [`net`], [`nft`] and [`listening`] talk to the kernel,
//! [`bare`] has the kernel merge what it gets of others, [`selftest`] tries the programs before anybody needs them, [`slowpath`] takes what the kernel's programs cannot finish, [`pathmtu`] learns what the
//! underlay carries, [`offload`] what its NICs get wrong, [`roundtrip`] and [`vivaldi`] how far other nodes are, [`session`] to the cluster, [`api`] to node-engine; [`state`] is what a restart needs.

pub mod api;
pub mod app;
pub mod balance;
pub mod bare;
pub mod bench;
pub mod bpffs;
pub mod clash;
pub mod cli;
pub mod commands;
pub mod config;
pub mod datapath;
pub mod doctor;
mod echo;
pub mod error;
pub mod hash;
mod heap;
pub mod hooks;
pub mod ipam;
pub mod link;
pub mod listening;
pub mod lock;
pub mod metrics;
pub mod names;
pub mod net;
pub mod nft;
pub mod node;
pub mod offload;
pub mod pathmtu;
pub mod plane;
pub mod ports;
pub mod remedy;
pub mod report;
pub mod resolver;
pub mod roundtrip;
mod schedule;
pub mod selftest;
pub mod session;
pub mod slowpath;
pub mod state;
pub mod table;
pub mod userspace;
pub mod vivaldi;
pub mod why;
