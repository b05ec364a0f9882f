//! What a person sees while it runs: what is being measured, and how long the rest takes.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// On standard error: one line that changes on a terminal, else a line for each round.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    total: usize,
    done: usize,
    /// What one step takes, before any has been seen.
    guess: Duration,
    changes: bool,
}

impl Progress {
    pub(crate) fn new(total: usize, guess: Duration) -> Self {
        Self { start: Instant::now(), total, done: 0, guess, changes: std::io::stderr().is_terminal() }
    }

    /// Says something that stays.
    pub(crate) fn say(&self, text: &str) {
        let clear = if self.changes { "\r\x1b[K" } else { "" };
        // A terminal that is gone must not end the run.
        writeln!(std::io::stderr(), "{clear}{text}").ok();
    }

    /// A step begins.
    pub(crate) fn step(&mut self, what: &str, round: (u32, u32)) {
        if self.changes {
            let line = format!(
                "[{}/{}] {} left  round {}/{}  {what}",
                self.done + 1,
                self.total,
                clock(self.left()),
                round.0,
                round.1
            );
            write!(std::io::stderr(), "\r\x1b[K{line}").ok();
            std::io::stderr().flush().ok();
        }
        self.done += 1;
    }

    /// A round begins.
    pub(crate) fn round(&self, round: (u32, u32)) {
        if !self.changes {
            self.say(&format!("round {}/{}, {} left", round.0, round.1, clock(self.left())));
        }
    }

    pub(crate) fn end(&self) {
        self.say(&format!("{} steps in {}", self.done, clock(self.start.elapsed())));
    }

    fn left(&self) -> Duration {
        let rest = u32::try_from(self.total - self.done.min(self.total)).unwrap_or(u32::MAX);
        match u32::try_from(self.done) {
            Ok(done) if done >= 5 => self.start.elapsed() / done * rest,
            _ => self.guess * rest,
        }
    }
}

fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
