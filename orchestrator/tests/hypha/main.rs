//! The command line as a person or a script has it: the built program, against a real root where one is needed.

mod branch;
mod clock;
mod cluster;
mod daemon;
mod deploy;
mod etcd;
mod login;
mod offline;
mod program;
mod rollout;
mod root;
mod standby;
mod watch;
