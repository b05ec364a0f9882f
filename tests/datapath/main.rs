//! The data plane in the real kernel: single packets through the very programs that netmanager embeds, and whole
//! connections between network namespaces. Needs root; fails without.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails the test")]
#![allow(clippy::print_stdout, reason = "figures and what was skipped are for whoever reads the run")]

mod bed;
mod closest;
mod commands;
mod container;
mod dead_ends;
mod decapsulation;
mod doctor;
mod dump;
mod early;
mod families;
mod foreign;
mod fou;
mod fragments;
mod fuzz;
mod guard;
mod icmp;
mod leaving;
mod lifetimes;
mod link;
mod live;
mod loads;
mod mtu;
mod narrow;
mod neighbours;
mod node_itself;
mod nodes;
mod ns_ip;
mod oakestra;
mod odd_kernel;
mod offloads;
mod packet;
mod pins;
mod punt;
mod ranges;
mod recycled;
mod repair;
mod restart;
mod rounds;
mod running;
mod shares;
mod six;
mod slow_path;
mod talk;
mod trace;
mod turns;
mod unfinished;
mod upgrade;
mod uplink;
mod uplinks;
mod userspace;
mod verifier;
mod vlan;
mod why;
mod wire;
