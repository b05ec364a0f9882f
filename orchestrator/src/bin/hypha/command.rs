//! One file for each command.

pub(crate) mod apply;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod help;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod scale;
pub(crate) mod status;
pub(crate) mod why;
pub(crate) mod worker;
