//! How many files, which connections are, too, this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises it to what the system allows at all: usual is 1,024, for programs that use `select`, and a worker keeps two connections.
pub fn allow_all() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most).map(|()| most));
    match raised {
        Ok(most) => tracing::debug!(most, "open files are allowed"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is (RLIMIT_NOFILE)"),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    #[test]
    fn as_many_as_the_system_allows_may_be_open() {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most.min(512), most).unwrap();
        super::allow_all();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (most, most));
    }
}
