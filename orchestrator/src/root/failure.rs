//! Why the root does not do what it was asked.

use std::sync::Arc;
use std::time::Duration;

use protocol::id::Id;

use super::password::PasswordError;
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
    /// How long to wait.
    #[error("Too many tries: wait {} s.", seconds(*.0))]
    TooMany(Duration),
    #[error("The link to set a password is not valid, was used, or has run out: ask for another.")]
    BadReset,
    #[error("This root sends no mail (--smtp-url): an Admin can set another password.")]
    NoMail,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("No {kind} {id}.")]
    NotFound { kind: &'static str, id: String },
    #[error("{0}")]
    Conflict(String),
    /// The document contradicts the rules, in these places.
    #[error("The SLA is not valid: {}", summary(.0))]
    Invalid(Vec<Violation>),
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// It could not be told what it has to be told for this.
    #[error("{0}")]
    Cluster(String),
    #[error("All blocks of worker addresses are given out.")]
    NoSubnet,
    #[error("Too many listen to what changes already.")]
    Listeners,
    /// Shared by all whose changes were to be made together.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Whole seconds after which the wait is over, as `Retry-After` says it.
pub(super) fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

impl Failure {
    /// Of a transaction whose expectations somebody else may have broken.
    pub(super) fn of_commit(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { .. } => {
                Self::Conflict("It was changed by somebody else meanwhile: try again.".to_owned())
            }
            other => other.into(),
        }
    }

    pub(super) fn no_user(id: impl std::fmt::Display) -> Self {
        Self::NotFound { kind: "user", id: id.to_string() }
    }

    pub(super) fn no_organization(id: impl std::fmt::Display) -> Self {
        Self::NotFound { kind: "organization", id: id.to_string() }
    }

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
