//! Memory of processes.

use std::fs;

use anyhow::{Context, Result};

/// What these processes have in memory (RSS): 10^6 bytes. What several of them share, such as the program itself where nodes are
/// namespaces of one machine, counts for each, as it would on nodes of their own.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
pub fn megabytes(pids: &[u32]) -> Result<f64> {
    let mut kilobytes = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        kilobytes += rss(&text).with_context(|| format!("understand {path}: {text}"))?;
    }
    Ok(kilobytes as f64 * 1024.0 / 1e6)
}

fn rss(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::rss;

    #[test]
    fn of_all_lines_the_one_with_the_sum_is_taken() {
        let text = "ShmemRss:  100 kB\nRss:                 900 kB\nPss:     700 kB\n";
        assert_eq!((rss(text), rss("Pss: 700 kB")), (Some(900), None));
    }
}
