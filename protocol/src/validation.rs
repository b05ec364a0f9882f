//! What would become of a deployment descriptor: keys of our own throughout.

use serde::{Deserialize, Serialize};

use crate::decision::ClusterVerdict;

/// Answer to `POST /v1/validate` of the root, which changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// What is wrong with it; then there is nothing else.
    pub problems: Vec<Invalid>,
    pub applications: Vec<PlannedApplication>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// Where, as a JSON pointer (RFC 6901): `/applications/0/microservices/1/port`. Empty: the document as a whole.
    pub pointer: String,
    /// What is wrong there, and what would be right.
    pub message: String,
}

/// An application of the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedApplication {
    /// With its namespace: `shop.prod`.
    pub name: String,
    /// Whether there is one of that name already.
    pub exists: bool,
    pub services: Vec<PlannedService>,
}

/// A service of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedService {
    /// With its namespace.
    pub name: String,
    /// What each cluster lacks at this time for one instance, as far as the root knows.
    pub clusters: Vec<ClusterVerdict>,
}
