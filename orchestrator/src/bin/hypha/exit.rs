//! What the exit code says. Scripts depend on these numbers: they are only ever added to.

/// How a run of `hypha` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    /// The thing was tried and failed.
    Failed = 1,
    /// Wrong arguments, or a file that cannot be right.
    Usage = 2,
    NotFound = 3,
    /// No login, an expired one, or one that may not do this.
    LogIn = 4,
    /// The root took it, but no worker fits.
    NotPlaced = 5,
    /// Patience ended; the work goes on.
    TimedOut = 6,
    /// The root does not answer.
    OutOfReach = 7,
    /// Something else of that name is there.
    Conflict = 8,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The word for it in machine-readable errors.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Done => "E-NONE",
            Self::Failed => "E-FAILED",
            Self::Usage => "E-USAGE",
            Self::NotFound => "E-NOT-FOUND",
            Self::LogIn => "E-LOG-IN",
            Self::NotPlaced => "E-NOT-PLACED",
            Self::TimedOut => "E-TIMED-OUT",
            Self::OutOfReach => "E-OUT-OF-REACH",
            Self::Conflict => "E-CONFLICT",
            Self::Interrupted => "E-INTERRUPTED",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The table below every `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed
    2  wrong arguments or an invalid file
    3  not found
    4  log in (again), or not allowed
    5  accepted, but nothing fits: not placed
    6  timed out; the work goes on
    7  the root is out of reach
    8  conflict with what is already there
  130  stopped watching (Ctrl-C); the work goes on";
