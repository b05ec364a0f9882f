//! What TCP had to send again: the sign of a packet that was lost.

use anyhow::{Context, Result};

/// Segments that a network namespace has sent more than once, as its `/proc/net/snmp` says.
///
/// # Errors
/// When the text is no such file.
pub fn read(snmp: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (names, values) = lines.next().zip(lines.next()).context("two lines of TCP's counters")?;
    let found = names.zip(values).find(|(name, _)| *name == "RetransSegs");
    let (_, value) = found.context("RetransSegs among TCP's counters")?;
    value.parse().context("read a counter")
}
