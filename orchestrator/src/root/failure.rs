//! Why the root does not do what it was asked.

use protocol::id::Id;

use super::pool::PoolError;
use super::token::TokenError;
use crate::sla::Violation;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The body is no JSON, or not of the expected shape; says where.
    #[error("{0}")]
    Malformed(String),
    #[error("The body is larger than what is read here.")]
    TooLarge,
    #[error("The request carries no token: log in, then send it as 'Authorization: Bearer <token>'.")]
    NoToken,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("User name or password is wrong.")]
    Credentials,
    /// The role or the ownership that is missing.
    #[error("You have not enough permissions: {0}.")]
    Forbidden(&'static str),
    #[error("No {kind} {id}.")]
    NotFound { kind: &'static str, id: String },
    #[error("{0}")]
    Conflict(String),
    /// The document contradicts the rules, in these places.
    #[error("The SLA is not valid: {}", summary(.0))]
    Invalid(Vec<Violation>),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("All blocks of worker addresses are given out.")]
    NoSubnet,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    pub(super) fn no_application(id: impl std::fmt::Display) -> Self {
        Self::NotFound { kind: "application", id: id.to_string() }
    }

    pub(super) fn no_service(id: impl std::fmt::Display) -> Self {
        Self::NotFound { kind: "service", id: id.to_string() }
    }

    pub(super) fn no_cluster(id: impl std::fmt::Display) -> Self {
        Self::NotFound { kind: "cluster", id: id.to_string() }
    }

    pub(super) fn no_instance(service: Id, number: u32) -> Self {
        Self::NotFound { kind: "instance", id: format!("{number} of service {service}") }
    }
}

fn summary(violations: &[Violation]) -> String {
    let first = violations.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match violations.len().saturating_sub(3) {
        0 => first,
        more => format!("{first}; and {more} more"),
    }
}
