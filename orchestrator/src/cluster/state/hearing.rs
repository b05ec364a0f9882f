//! Whether workers can be heard at all. While the broker is out of reach each of them falls silent, is shown as
//! unreachable, and gets nothing new; but nobody is given up for it, since what runs may well run on.

use std::time::Instant;

use super::State;

impl State {
    /// The broker is out of reach.
    pub(in crate::cluster) fn hears_nobody(&mut self, now: Instant) {
        self.hears_nobody_since.get_or_insert(now);
        self.effects.report = true;
    }

    /// It is there, or there again. Silence counts again, after the time in which workers find it, too.
    pub(in crate::cluster) fn hears_again(&mut self, now: Instant) {
        let Some(since) = self.hears_nobody_since.take() else { return };
        self.effects.report = true;
        let grace = self.rules.grace();
        let silence = now.saturating_duration_since(since) + grace;
        self.workers.values_mut().for_each(|worker| worker.excuse(silence, now + grace));
    }
}
