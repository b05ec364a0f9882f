//! What people see while they wait. It goes to standard error; standard output is for answers.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Runs one step under its name, and says how long it took. An error carries the name.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    heading(name);
    let start = Instant::now();
    let done = work().with_context(|| name.to_owned())?;
    say(format_args!("    {name}: done in {}", seconds(start.elapsed())));
    Ok(done)
}

/// The line above a step's own output.
pub(crate) fn heading(name: &str) {
    if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        say(format_args!("\x1b[1;32m==>\x1b[0m \x1b[1m{name}\x1b[0m"));
    } else {
        say(format_args!("==> {name}"));
    }
}

/// One line of talk.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    // There is nobody left to tell when standard error is closed.
    let _unheard = writeln!(std::io::stderr().lock(), "{line}");
}

/// One line of the answer.
pub(crate) fn answer(line: fmt::Arguments<'_>) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("cannot write to standard output")
}

pub(crate) fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 100 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}
