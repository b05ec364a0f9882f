//! The commands beside the daemon. They read the kernel's tables and the state directory themselves, so they work while the
//! daemon is down; only a daemon that forwards packets itself is asked. `bench` needs nothing of either.

pub mod bench;
pub mod cleanup;
pub mod doctor;
pub mod drops;
pub mod exit;
pub mod flows;
pub mod services;
pub(crate) mod source;
pub mod status;
pub mod trace;
pub mod why;

use std::io::{self, Write};

use serde::Serialize;

/// Writes a table: left-aligned columns, two blanks between them, no frame, so that `awk` and `cut` can read it too.
fn write_table(out: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let cells =
            row.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Hours, minutes and seconds of UTC.
fn time_of_day(unix_ms: u128) -> String {
    let seconds = unix_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::{time_of_day, write_table};

    #[test]
    fn a_moment_is_shown_by_its_time_of_day() {
        assert_eq!(time_of_day(1_764_086_399_999), "15:59:59Z");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["longer".to_owned(), "c".to_owned()]];
        write_table(&mut out, &["X", "Y"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "X       Y\na       b\nlonger  c\n");
    }
}
