//! Rows of tables: what a person wants to know of each thing, in plain words, a state never without its cause.

pub(crate) mod app;
pub(crate) mod cluster;
pub(crate) mod instance;
pub(crate) mod service;
pub(crate) mod worker;

/// `3 s`, `4 m`, `2 h`, `5 d`: how long ago `then` was, both in seconds since the epoch. A clock that runs behind
/// gives `0 s`, a time that was never set nothing.
pub(crate) fn age(now: f64, then: f64) -> String {
    if then <= 0.0 {
        return String::new();
    }
    let seconds = (now - then).max(0.0);
    let (value, unit) = match seconds {
        s if s < 120.0 => (s, "s"),
        s if s < 7200.0 => (s / 60.0, "m"),
        s if s < 172_800.0 => (s / 3600.0, "h"),
        s => (s / 86400.0, "d"),
    };
    format!("{value:.0} {unit}")
}

/// Memory in the unit in which it reads best.
pub(crate) fn megabytes(mb: u64) -> String {
    if mb < 10_000 {
        return format!("{mb} MB");
    }
    let tenths = mb.saturating_mul(10) / 1024;
    format!("{}.{} GB", tenths / 10, tenths % 10)
}

/// `1 service`, `3 services`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_age_has_one_unit() {
        for (seconds, text) in
            [(0.0, "0 s"), (119.0, "119 s"), (300.0, "5 m"), (7200.0, "2 h"), (260_000.0, "3 d")]
        {
            assert_eq!(super::age(1e9 + seconds, 1e9), text);
        }
        assert_eq!(super::age(1e9, 1e9 + 5.0), "0 s", "the other clock runs ahead");
        assert_eq!(super::age(1e9, 0.0), "");
    }

    #[test]
    fn memory_is_in_readable_units() {
        assert_eq!(super::megabytes(16), "16 MB");
        assert_eq!(super::megabytes(46400), "45.3 GB");
    }
}
