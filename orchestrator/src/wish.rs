//! What an operator wants of a worker: told to the root, passed on from one to the next, and kept by the worker's cluster.

/// See [`Wish::verb`] for the word on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Cordon,
    Drain,
    Uncordon,
}

impl Wish {
    /// The end of the path under which a cluster takes it.
    pub(crate) const fn verb(self) -> &'static str {
        match self {
            Self::Cordon => "cordon",
            Self::Drain => "drain",
            Self::Uncordon => "uncordon",
        }
    }
}
