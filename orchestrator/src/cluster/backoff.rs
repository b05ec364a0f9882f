//! Pauses between attempts to reach another machine.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

/// Grows from a quarter of a second to 15 s, each pause shortened by up to half at random, so that the clusters of a
/// root that comes back do not come back all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
    failing: bool,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { pause: FIRST, failing: false }
    }

    /// Calls `tell` at the first failure after a success only.
    pub(super) fn failed(&mut self, tell: impl FnOnce()) {
        if !std::mem::replace(&mut self.failing, true) {
            tell();
        }
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::new();
    }

    pub(super) async fn wait(&mut self) {
        let pause = self.pause.mul_f64(rand::random_range(0.5..=1.0));
        self.pause = (self.pause * 2).min(LONGEST);
        tokio::time::sleep(pause).await;
    }
}
