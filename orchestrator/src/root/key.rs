//! The keys of the root's store, in one place.
//!
//! | key | value |
//! |---|---|
//! | `user/<name>` | [`User`](super::user::User) |
//! | `organization/<id>` | [`Organization`](super::organization::Organization) |
//! | `organization-name/<name>` | its id |
//! | `secret/token-key` | the [`KeyPair`](super::signing_key::KeyPair) that tokens are signed with |
//! | `token-family/<random>` | how far the refresh tokens of a login are, from its first refresh on |
//! | `password-reset/<hash of the token>` | whose password a link sets, and until when |
//! | `application/<id>` | [`Application`](super::application::Application) |
//! | `application-name/<name>.<namespace>` | its id |
//! | `unfinished/<random>` | [`Unfinished`](super::unfinished::Unfinished): services and names of applications that are to go, unless what is being made with them is finished |
//! | `service/<id>` | [`Head`](super::record::Head): what belongs to the service itself |
//! | `instance/<service>/<n>` | [`Instance`](super::record::Instance) |
//! | `next-instance/<service>` | number of its next instance; written with each change of the service or of an instance, so that its revision is that of the whole |
//! | `service-name/<app.ns.service.ns>` | its id |
//! | `address/<ServiceIP>` | id of the service that owns it |
//! | `unplaced/<service>/<n>` | this instance waits for a cluster |
//! | `command/<cluster>/<service>/<n>` | [`Command`](crate::children::command::Command) that the cluster has yet to take |
//! | `notice/<cluster>/<app.ns.service.ns>/<n>` | table update of which the cluster has yet to be told |
//! | `cluster/<id>` | [`Cluster`](crate::children::cluster::Cluster) |
//! | `cluster-name/<name>` | its id |
//! | `plan` | [`Plan`](protocol::plan::Plan): which addresses the overlay has |
//! | `subnet/next` | number of the next block of worker addresses |

use std::net::IpAddr;

use protocol::id::Id;
use protocol::name::ServiceName;

pub(super) use crate::children::key::{COMMANDS, cluster, command, notice};

pub(super) const SERVICES: &str = "service/";
pub(super) const INSTANCES: &str = "instance/";
pub(super) const NEXT_INSTANCES: &str = "next-instance/";
pub(super) const APPLICATIONS: &str = "application/";
pub(super) const UNFINISHED: &str = "unfinished/";
pub(super) const ADDRESSES: &str = "address/";
pub(super) const UNPLACED: &str = "unplaced/";
pub(super) const USERS: &str = "user/";
pub(super) const ORGANIZATIONS: &str = "organization/";
pub(super) const TOKEN_FAMILIES: &str = "token-family/";
pub(super) const PASSWORD_RESETS: &str = "password-reset/";
pub(super) const TOKEN_KEY: &str = "secret/token-key";
/// Of the first layout, which signed tokens symmetrically.
pub(super) const FIRST_TOKEN_SECRET: &str = "secret/token";
pub(super) const NEXT_SUBNET: &str = "subnet/next";
pub(super) const PLAN: &str = "plan";
pub(super) const FREE_SUBNETS: &str = "subnet/free/";

pub(super) fn free_subnet(number: u32) -> String {
    format!("{FREE_SUBNETS}{number:05}")
}

pub(super) fn given_subnet(number: u32) -> String {
    format!("subnet/given/{number:05}")
}

pub(super) fn user(name: &str) -> String {
    format!("{USERS}{name}")
}

pub(super) fn organization(id: Id) -> String {
    format!("{ORGANIZATIONS}{id}")
}

pub(super) fn organization_name(name: &str) -> String {
    format!("organization-name/{name}")
}

pub(super) fn token_family(family: &str) -> String {
    format!("{TOKEN_FAMILIES}{family}")
}

pub(super) fn password_reset(hash: &str) -> String {
    format!("{PASSWORD_RESETS}{hash}")
}

pub(super) fn application(id: Id) -> String {
    format!("{APPLICATIONS}{id}")
}

pub(super) fn application_name(name: &str, namespace: &str) -> String {
    format!("application-name/{name}.{namespace}")
}

pub(super) fn unfinished(id: Id) -> String {
    format!("{UNFINISHED}{id}")
}

pub(super) fn service(id: Id) -> String {
    format!("{SERVICES}{id}")
}

/// Of all instances of a service.
pub(super) fn instances(service: Id) -> String {
    format!("{INSTANCES}{service}/")
}

pub(super) fn instance(service: Id, number: u32) -> String {
    format!("{INSTANCES}{service}/{number}")
}

pub(super) fn next_instance(service: Id) -> String {
    format!("{NEXT_INSTANCES}{service}")
}

pub(super) fn service_name(name: &ServiceName) -> String {
    format!("service-name/{name}")
}

pub(super) fn address(address: IpAddr) -> String {
    format!("{ADDRESSES}{address}")
}

pub(super) fn unplaced(service: Id, number: u32) -> String {
    format!("{UNPLACED}{service}/{number}")
}
