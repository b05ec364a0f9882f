//! What can go wrong with containerd and images, in words that name the object and the way out.

use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("containerd does not answer at {} ({reason}): is it running, and is this its socket?", .socket.display())]
    Unreachable { socket: PathBuf, reason: String },
    #[error("containerd did not {doing} within {} s", .after.as_secs())]
    Timeout { doing: String, after: Duration },
    #[error("containerd could not {doing}: {}", .status.message())]
    Call { doing: String, status: Box<Status> },
    #[error("{0:?} is not an image reference: expected something like docker.io/library/nginx:1.27, {1}")]
    BadReference(String, &'static str),
    #[error("image {image} is not on this worker{pull}. Bring it here with: {import}")]
    ImageMissing { image: String, pull: String, import: String },
    #[error("image {image} is made for {offered}, this worker is {wanted}")]
    WrongPlatform { image: String, wanted: String, offered: String },
    #[error("image {image} is damaged or incomplete: {what}")]
    BadImage { image: String, what: String },
    #[error("user {user:?} of image {image}: {what}")]
    BadUser { user: String, image: String, what: String },
    #[error("image {image} names no command, and the service has no `cmd`")]
    NoCommand { image: String },
    #[error("cannot run {command:?} of image {image}: {reason}")]
    CannotRun { command: String, image: String, reason: String },
    #[error("cannot {doing} {}", .path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("neither overlayfs nor native is among containerd's snapshotters")]
    NoSnapshotter,
}

impl RuntimeError {
    /// containerd itself answered that there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == Code::NotFound)
    }

    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == Code::AlreadyExists)
    }
}

/// Removing is done when it is gone, whoever did it.
pub fn or_absent(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
