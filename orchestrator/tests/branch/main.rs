//! Three levels with real daemons: a root, a branch below it, clusters below both, and workers that play their part.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "what cannot be set up fails the test")]

mod bed;
#[path = "../root/bed.rs"]
#[allow(dead_code, reason = "not all of the root's bed is needed here")]
mod root;
mod worker;

mod escalates;
mod lost;
mod nested;
mod oakestra;
mod restarts;
mod through;
