//! Memory of processes.

use std::fs;

use anyhow::{Context, Result};

/// What these processes have for themselves, and their parts of what they share with others (PSS): 10^6 bytes.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
pub fn megabytes(pids: &[u32]) -> Result<f64> {
    let mut kilobytes = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        kilobytes += pss(&text).with_context(|| format!("understand {path}: {text}"))?;
    }
    Ok(kilobytes as f64 * 1024.0 / 1e6)
}

fn pss(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::pss;

    #[test]
    fn of_all_lines_the_one_with_the_sum_is_taken() {
        let text = "Rss:     900 kB\nPss_Dirty:  100 kB\nPss:                 700 kB\n";
        assert_eq!((pss(text), pss("Rss: 900 kB")), (Some(700), None));
    }
}
