//! Exit codes: the same in all of Hypha's commands.

use std::process::ExitCode;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// What was asked for is broken, and the output says how.
    Broken,
    /// A person has stopped watching.
    Stopped,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Broken => Self::FAILURE,
            Exit::Stopped => Self::from(130),
        }
    }
}

/// What was asked for is not there. Ends with 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

impl NotFound {
    pub const CODE: u8 = 3;
}
