//! Ctrl-C as an error, so that what was made is removed by the usual drops.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static PENDING: AtomicBool = AtomicBool::new(false);

/// The person at the terminal wants an end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// From now on SIGINT and SIGTERM no longer end the process but are seen by [`check`].
pub fn catch() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("catch {signal}"))?;
    }
    Ok(())
}

/// Fails once for each interruption, so that cleaning up afterwards can wait for things again.
pub fn check() -> Result<(), Interrupted> {
    if PENDING.swap(false, Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
}

/// Waits until a line is entered, standard input ends, or Ctrl-C is pressed.
pub fn wait_for_enter() -> Result<()> {
    let (entered, wait) = mpsc::channel();
    // Reading cannot be interrupted (the signal restarts it), so it has a thread that nobody waits for.
    thread::spawn(move || {
        let read = io::stdin().read_line(&mut String::new());
        entered.send(read).ok();
    });
    loop {
        match wait.recv_timeout(Duration::from_millis(50)) {
            Ok(read) => return read.map(drop).context("read from standard input"),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if check().is_err() {
            return Ok(());
        }
    }
}

extern "C" fn note(_signal: i32) {
    PENDING.store(true, Ordering::Relaxed);
}
