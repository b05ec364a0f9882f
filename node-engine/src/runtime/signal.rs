//! Signals by their names, and whether a process would notice one.

use std::fs;

use nix::sys::signal::Signal;

pub(super) const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

/// The signal that an image asks to be stopped with: `SIGQUIT`, `QUIT`, `3`. Anything else is SIGTERM.
pub(super) fn stop_signal(text: &str) -> u32 {
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=64).contains(&number) { number } else { SIGTERM };
    }
    let name = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
    name.parse::<Signal>().ok().and_then(|signal| u32::try_from(signal as i32).ok()).unwrap_or(SIGTERM)
}

/// Whether `signal` does anything to process `pid`, the first of its PID namespace: whether it has a handler for it,
/// or blocks it to fetch it later. When that cannot be read, it is assumed.
pub(super) fn acts_on(pid: u32, signal: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| is_noticed(&status, signal))
}

fn is_noticed(status: &str, signal: u32) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    match (mask("SigCgt:"), mask("SigBlk:")) {
        (Some(caught), Some(blocked)) => (caught | blocked) >> (signal.saturating_sub(1)) & 1 == 1,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_noticed, stop_signal};

    #[test]
    fn stop_signals_are_read_as_images_write_them() {
        for (text, number) in
            [("", 15), ("SIGQUIT", 3), ("QUIT", 3), ("2", 2), ("SIGWINCH", 28), ("99", 15), ("nonsense", 15)]
        {
            assert_eq!(stop_signal(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_signal_is_noticed_when_it_is_caught_or_blocked() {
        let status = |blocked, caught| format!("Name:\tx\nSigBlk:\t{blocked:016x}\nSigCgt:\t{caught:016x}\n");
        assert!(is_noticed(&status(0, 1 << 14), 15));
        assert!(is_noticed(&status(1 << 14, 0), 15));
        assert!(!is_noticed(&status(1 << 13, 1 << 15), 15));
        assert!(is_noticed("", 15));
    }
}
