//! Pauses between attempts to reach another machine.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

/// Grows from a quarter of a second to 15 s or another time, each pause shortened by up to half at random, so that the
/// clusters of a root that comes back do not come back all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    longest: Duration,
    failing: bool,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self::up_to(LONGEST)
    }

    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { pause: FIRST, longest, failing: false }
    }

    /// Calls `tell` at the first failure after a success only.
    pub(crate) fn failed(&mut self, tell: impl FnOnce()) {
        if !std::mem::replace(&mut self.failing, true) {
            tell();
        }
    }

    /// Whether the last try failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::up_to(self.longest);
    }

    pub(crate) async fn wait(&mut self) {
        let pause = self.pause.mul_f64(rand::random_range(0.5..=1.0));
        self.pause = (self.pause * 2).min(self.longest);
        tokio::time::sleep(pause).await;
    }
}
