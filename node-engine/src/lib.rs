//! node-engine: the worker daemon that runs instances as containers.
//!
//! In reading order: what a worker is told to run ([`assignment`]) goes through the life of an instance ([`instance`],
//! pure), which [`reconcile`] drives and [`lifecycle`] carries out on containerd ([`runtime`]) and netmanager
//! ([`netmanager`]). The [`session`] connects all this to the cluster. [`app`] puts the parts together.
//!
//! What holds at all times:
//! - each instance has at most one job in hand, and no instance waits for another one's job;
//! - an instance that cannot be started leaves nothing behind, and says why in words for a person;
//! - a container outlives this daemon and containerd; nothing is reported dead that is not known to be;
//! - only [`runtime`] knows containerd.
#![forbid(unsafe_code)]

pub mod app;
pub mod assignment;
pub mod backoff;
pub mod cgroup;
pub mod config;
pub mod follow;
pub mod http;
pub mod instance;
pub mod lifecycle;
pub mod logs;
pub mod measure;
pub mod netmanager;
pub mod outbox;
pub mod probe;
pub mod process;
pub mod reconcile;
pub mod recovery;
pub mod report;
pub mod runtime;
pub mod session;
pub mod state;
pub mod verdict;
