//! Whether this machine has what a worker's network needs: each gap with what it costs and how it is closed. Asks and
//! changes nothing, before the first start as well as beside a running daemon.

mod attached;
mod kernel;
mod machine;
mod ranges;

use serde::Serialize;

use crate::app::Paths;
use crate::config::Config;
use crate::plane::Choice;
use crate::state::Store;

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Fine,
    /// It works, with a loss.
    Degraded,
    /// It does not work.
    Broken,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Does not change.
    pub id: &'static str,
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What is lost.
    pub effect: Option<String>,
    /// What a person can do.
    pub remedy: Option<String>,
}

impl Check {
    fn fine(id: &'static str, evidence: impl Into<String>) -> Self {
        Self { id, verdict: Verdict::Fine, evidence: evidence.into(), effect: None, remedy: None }
    }

    fn gap(
        id: &'static str,
        verdict: Verdict,
        evidence: impl Into<String>,
        effect: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (effect, remedy) = (Some(effect.into()), Some(remedy.into()));
        Self { id, verdict, evidence: evidence.into(), effect, remedy }
    }
}

pub use self::machine::{CONFIGURATION, wrong_configuration};

/// All checks, in the order in which a person would make them. `config` is nothing if there is no file yet; `choice` is the
/// data plane that the daemon is to have.
pub async fn examine(paths: &Paths, config: Option<&Config>, choice: Choice) -> Vec<Check> {
    let mut checks = kernel::examine(paths, choice);
    checks.extend(machine::examine(config).await);
    // Before the first start, and of a state that cannot be read: what they are unless the root says otherwise.
    let plan = Store::at(&paths.state_dir).node().map(|node| node.plan).unwrap_or_default();
    checks.extend(ranges::examine(&plan).await);
    checks.extend(attached::examine(paths, config).await);
    checks
}
